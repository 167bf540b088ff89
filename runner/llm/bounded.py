"""HTTP for one question at a time to a server that nobody trusts: whatever it does, an exchange
ends at its deadline and at its limit of bytes.

A timeout for each read would not do: a byte a second, in the head as in the body, never reaches
one. What goes wrong is an `LlmError` of its class. Language models and JSON are not known here.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpcore2
import httpx2

from runner.llm.answers import Fault, LlmError, shown

CONNECT_SECONDS = 10.0
WRITE_BYTES = 4096


class _Moment(threading.local):
    """When the exchange of this thread has to be over."""

    seconds: float = 0.0
    ends: float = 0.0

    def left(self, timeout: float | None, late: type[Exception]) -> float:
        """Seconds until then, at most `timeout`. Raises `late` where there are none."""
        left = self.ends - time.monotonic()
        if left <= 0:
            raise late("the deadline is over")
        return left if timeout is None else min(left, timeout)


class _Stream(httpcore2.NetworkStream):
    """A connection whose every wait ends with the exchange."""

    def __init__(self, inner: httpcore2.NetworkStream, moment: _Moment) -> None:
        self._inner = inner
        self._moment = moment

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        left = self._moment.left(timeout, httpcore2.ReadTimeout)
        return self._inner.read(max_bytes, left)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), WRITE_BYTES):  # so that slow reading is noticed as well
            left = self._moment.left(timeout, httpcore2.WriteTimeout)
            self._inner.write(buffer[start : start + WRITE_BYTES], left)

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        left = self._moment.left(timeout, httpcore2.ConnectTimeout)
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, left), self._moment)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _Network(httpcore2.NetworkBackend):
    def __init__(self, moment: _Moment) -> None:
        self._moment = moment
        self._inner = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        left = self._moment.left(CONNECT_SECONDS, httpcore2.ConnectTimeout)
        stream = self._inner.connect_tcp(host, port, left, local_address, socket_options)
        return _Stream(stream, self._moment)


class Bounded(httpx2.BaseTransport):
    """One exchange a thread at a time, each of at most `limit_bytes` (the body of the answer) and
    the seconds that the request gives as its `read` timeout. The same thread reads the body."""

    def __init__(self, *, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._moment = _Moment()
        self._pool = httpcore2.ConnectionPool(
            ssl_context=httpx2.create_ssl_context(),
            network_backend=_Network(self._moment),
        )

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send, and bound what comes back. Raises LlmError."""
        assert isinstance(request.stream, httpx2.SyncByteStream)  # noqa: S101 - it is no async one
        seconds = request.extensions["timeout"]["read"]
        self._moment.seconds, self._moment.ends = seconds, time.monotonic() + seconds
        url = request.url
        with _classified(self._moment):
            response = self._pool.handle_request(
                httpcore2.Request(
                    method=request.method,
                    url=httpcore2.URL(
                        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
                    ),
                    headers=request.headers.raw,
                    content=request.stream,
                )
            )
        headers = httpx2.Headers(response.headers)
        if headers.get("content-encoding", "identity").strip().lower() not in {"", "identity"}:
            if response.status < 400:
                response.close()
                why = "the answer is compressed, and was asked not to be"
                raise LlmError(Fault.NO_PROTOCOL, why, billed=True)
            del headers["content-encoding"]  # an error's page: its status says enough
        stream = _Body(response, self.limit_bytes, self._moment)
        return httpx2.Response(response.status, headers=headers, stream=stream)

    def close(self) -> None:
        """End all connections."""
        self._pool.close()


class _Body(httpx2.SyncByteStream):
    def __init__(self, response: httpcore2.Response, limit_bytes: int, moment: _Moment) -> None:
        self._response, self._limit, self._moment = response, limit_bytes, moment

    def __iter__(self) -> Iterator[bytes]:
        seen = 0
        with _classified(self._moment):
            for chunk in self._response.iter_stream():
                seen += len(chunk)
                if seen > self._limit:
                    why = f"the answer has over {self._limit} bytes"
                    raise LlmError(Fault.TOO_LARGE, why, billed=True)
                yield chunk

    def close(self) -> None:
        self._response.close()


@contextmanager
def _classified(moment: _Moment) -> Iterator[None]:
    """What fails on the wire, as its class; billed where the question may have arrived."""
    try:
        yield
    except (httpcore2.ConnectError, httpcore2.ConnectTimeout, httpcore2.PoolTimeout) as error:
        why = shown(str(error)) or "no connection in time"
        raise LlmError(Fault.UNREACHABLE, f"no connection: {why}") from error
    except httpcore2.UnsupportedProtocol as error:
        raise LlmError(Fault.UNREACHABLE, "the base URL is no http:// or https:// one") from error
    except httpcore2.LocalProtocolError as error:  # says what: perhaps the key
        raise LlmError(
            Fault.REFUSED, "the key, or the address, has characters that HTTP can't carry"
        ) from error
    except httpcore2.TimeoutException as error:
        why = f"no whole answer within {moment.seconds:.3g} s"
        raise LlmError(Fault.DEADLINE, why, billed=True) from error
    except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
        raise LlmError(Fault.BROKEN, shown(str(error)), billed=True) from error
