"""A real local HTTP server that speaks the chat-completions protocol, honestly or not.

Each answer of its script is a text (sent as a proper completion), or a function that gets the
handler and does what it likes. The last one is repeated.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = str | Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server

    def do_POST(self) -> None:
        self.body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        headers = {name.lower(): value for name, value in self.headers.items()}
        server.requests.append({"path": self.path, "headers": headers, **self.body})
        answer = server.script.pop(0) if len(server.script) > 1 else server.script[0]
        try:
            if callable(answer):
                answer(self)
            else:
                self.completion(answer)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client had enough

    def completion(self, text: str | None, *, usage: Any = "default", **choice: Any) -> None:
        """A proper chat completion."""
        usage = {"prompt_tokens": 100, "completion_tokens": 50} if usage == "default" else usage
        message = {"role": "assistant", "content": text, **choice.pop("message", {})}
        one = {"index": 0, "finish_reason": "stop", "message": message, **choice}
        body = {"id": "1", "object": "chat.completion", "created": 0, "model": "m"}
        self.send(200, json.dumps({**body, "choices": [one], "usage": usage}).encode())

    def send(self, status: int, body: bytes, **headers: str) -> None:
        """Any answer."""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Be quiet."""


class Server(ThreadingHTTPServer):
    """Keeps what it was asked in `requests`."""

    daemon_threads = True

    def __init__(self, script: list[Answer]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = script
        self.requests: list[dict[str, Any]] = []
        self.released = threading.Event()  # ends whoever stalls

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def prompts(self) -> list[str]:
        """The user's message of each request."""
        return [r["messages"][-1]["content"] for r in self.requests]


@contextmanager
def serving(*script: Answer) -> Iterator[Server]:
    """A server with this script, in a thread."""
    server = Server(list(script))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def status(code: int, message: str = "no") -> Answer:
    """An error answer as servers give them."""
    body = json.dumps({"error": {"message": message, "type": "invalid_request_error"}}).encode()
    return lambda handler: handler.send(code, body)


def stall(handler: Handler) -> None:
    """Take the request and say nothing."""
    handler.server.released.wait(30)


def drip(handler: Handler) -> None:
    """A byte every 50 ms, for ever: no single read ever times out."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    while not handler.server.released.wait(0.05):
        handler.wfile.write(b" ")
        handler.wfile.flush()


def flood(handler: Handler) -> None:
    """Far more than anybody asked for."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(2**40))
    handler.end_headers()
    while not handler.server.released.is_set():
        handler.wfile.write(b"x" * 65536)


def slow_head(handler: Handler) -> None:
    """Header after header, for ever: the body never begins."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while not handler.server.released.wait(0.05):
        handler.wfile.write(b"X-A: b\r\n")


def for_ever_soon(handler: Handler) -> None:
    """Provisional answers alone."""
    while not handler.server.released.wait(0.05):
        handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def breaks(handler: Handler) -> None:
    """Half an answer, then none."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
    handler.close_connection = True
