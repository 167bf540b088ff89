"""Requests and replies over a worker's channel, with every limit; the host's half of the frames.

Knows clocks, bytes and how workers die, and turns all of it into `MechanismFailure`. It does not
know what a mechanism is (`sandbox.host`) nor what starts workers (`sandbox.backends`).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any, NoReturn

from sandbox import protocol
from sandbox.backends.base import Channel, Stream, WorkerGone
from sandbox.errors import InfrastructureError, MechanismFailure, Rule
from sandbox.limits import Limits

# What a worker may say of its own mechanism. TIMEOUT, CRASHED and the like are ours to say.
_WORKER_RULES = {
    Rule.IMPORT_FAILED,
    Rule.INTERFACE,
    Rule.RAISED,
    Rule.OOM,
    Rule.VIEW_CHANGED,
}
_ASK_FAILED = "ASK_FAILED"
MESSAGE_CHARS = 2000
TRACEBACK_CHARS = 8000
TAIL_CHARS = 2000
KILLED = 128 + 9  # the exit code of a process that SIGKILL ended
CPU_SHARE = (
    0.5  # of the limit must have gone by on the clock before the kernel can have enforced it
)
DRAIN_ROUNDS = 10
DRAIN_SECONDS = 0.03

AnswerAsk = Callable[[dict[str, Any]], list[dict[str, Any]]]


class WorkerCalls:
    """One worker's requests, one at a time."""

    def __init__(self, channel: Channel, limits: Limits) -> None:
        self._channel = channel
        self._limits = limits
        self._reader = protocol.FrameReader(limits.reply_bytes)
        self._output = bytearray()
        self._dead: MechanismFailure | None = None
        self._closed = False
        self.spent_seconds = 0.0

    @property
    def output(self) -> str:
        """What came on standard error so far. It travels beside the frames and may come later
        than an answer, so what is still on its way is waited for, shortly."""
        self._drain()
        return self._text()

    def close(self) -> None:
        """Kill and remove the worker. Later requests are a mistake of the caller."""
        self._closed = True
        self._channel.close()

    def self_report(self) -> dict[str, Any]:
        """The worker's first answer; no foreign code runs yet, so its failures are the engine's.

        One that was kept ready has given it already, and was asked nothing since."""
        if type(kept := self._channel.posture.get("self_report")) is dict:
            return kept
        try:
            seen = self.request({"op": "self_report"}, seconds=self._limits.start_seconds)
        except MechanismFailure as error:
            raise InfrastructureError(
                f"The sandbox worker did not come up ({error}). Its output: {self.output[-500:]!r}."
                " Run: python -m sandbox doctor"
            ) from error
        self.spent_seconds = 0.0
        if type(seen) is not dict:
            raise InfrastructureError("The sandbox worker's self-report has another shape.")
        return seen

    def request(
        self, message: dict[str, Any], *, seconds: float, answer_ask: AnswerAsk | None = None
    ) -> Any:
        """Send one request and give its value. `seconds` bounds the time inside the worker."""
        if self._closed:
            raise InfrastructureError("This sandbox worker was closed; start another one.")
        if self._dead is not None:
            raise MechanismFailure(self._dead.rule, self._dead.message, **self._dead.detail)
        identity = secrets.token_hex(8)  # a reply written in advance can't know it
        left = self._budget(seconds)
        outgoing = {"id": identity, **message}
        while True:
            reply, took = self._exchange(outgoing, left)
            left -= took
            kind = reply.get("kind")
            if reply.get("id") != identity:
                raise self.fatal(Rule.PROTOCOL_ERROR, "an answer to another request")
            if kind == "value" and reply.keys() == {"id", "kind", "value"}:
                return reply["value"]
            if kind == "error":
                raise self._failure(reply)
            if kind != "ask" or answer_ask is None:
                raise self.fatal(Rule.PROTOCOL_ERROR, "an answer of an unknown kind")
            try:
                candidates = answer_ask(reply)
            except MechanismFailure:
                raise
            except BaseException:
                self._abandon_ask(identity, left)
                raise
            outgoing = {"id": identity, "op": "candidates", "candidates": candidates}

    def fatal(self, rule: Rule, message: str, **detail: Any) -> MechanismFailure:
        """End the worker; the failure to raise, now and at every later request."""
        self._dead = MechanismFailure(
            rule, message, output=self._text()[-TAIL_CHARS:], fatal=True, **detail
        )
        self._channel.close()
        return self._dead

    def _text(self) -> str:
        return self._output.decode("utf-8", "replace").replace("\x00", "\N{REPLACEMENT CHARACTER}")

    def _budget(self, seconds: float) -> float:
        job = self._limits.job_seconds
        if job is None:
            return seconds
        if self.spent_seconds >= job:
            raise self.fatal(Rule.TIMEOUT, f"the job took more than {job:g} s in all")
        return min(seconds, job - self.spent_seconds)

    def _exchange(self, message: dict[str, Any], seconds: float) -> tuple[dict[str, Any], float]:
        """Write one frame, read one frame, and not one byte more."""
        try:
            data = protocol.encode(message)
        except protocol.ProtocolError as error:
            self._channel.close()  # the worker may be waiting for this very answer
            raise InfrastructureError(f"This can't be sent to a worker: {error}") from error
        body: list[bytes] = []

        def done() -> bool:
            if not body and (frame := self._reader.take()) is not None:
                body.append(frame)
            return bool(body)

        began = time.monotonic()
        try:
            self._channel.exchange(data, sink=self._sink, done=done, deadline=began + seconds)
            reply = protocol.decode(body[0])
        except TimeoutError:
            self.spent_seconds += time.monotonic() - began
            self._require_way()
            raise self.fatal(Rule.TIMEOUT, f"no answer within {seconds:.1f} s") from None
        except WorkerGone:
            self.spent_seconds += time.monotonic() - began
            self._died()
        except protocol.ProtocolError as error:
            raise self.fatal(Rule.PROTOCOL_ERROR, str(error)) from None
        except InfrastructureError:
            self._channel.close()
            raise
        took = time.monotonic() - began
        self.spent_seconds += took
        if self._reader.pending:
            raise self.fatal(Rule.PROTOCOL_ERROR, "more bytes than one answer")
        return reply, took

    def _require_way(self) -> None:
        """Silence counts against the worker only while its engine answers."""
        try:
            self._channel.require_way()
        except InfrastructureError:
            self._closed = True  # an answer may still come, to a question that nobody asks now
            raise

    def _drain(self) -> None:
        """Take in what is still coming, until a moment passes without any."""
        for _ in range(DRAIN_ROUNDS):
            if self._closed or self._dead is not None:
                return
            before, deadline = len(self._output), time.monotonic() + DRAIN_SECONDS
            try:
                self._channel.exchange(b"", sink=self._sink, done=lambda: False, deadline=deadline)
            except TimeoutError:
                if len(self._output) == before:
                    return
            except protocol.ProtocolError as error:
                self.fatal(Rule.PROTOCOL_ERROR, str(error))
            except (WorkerGone, MechanismFailure):
                return  # the next request will say so

    def _sink(self, stream: Stream, data: bytes) -> None:
        if stream is Stream.OUT:
            self._reader.feed(data)
            return
        room = self._limits.output_bytes - len(self._output)
        self._output += data[:room]
        if len(data) > room:
            raise self.fatal(
                Rule.OUTPUT_LIMIT, f"it printed more than {self._limits.output_bytes} bytes"
            )

    def _died(self) -> NoReturn:
        end = self._channel.exit()
        if end.oom_killed:
            raise self.fatal(
                Rule.OOM, f"it needed more than {self._limits.memory_bytes >> 20} MiB of memory"
            )
        if end.running:
            raise self.fatal(Rule.PROTOCOL_ERROR, "it closed its streams and went on running")
        if end.code == KILLED:
            self._killed()
        raise self.fatal(
            Rule.CRASHED,
            f"the process ended with exit code {end.code} in the middle of a call",
            exit_code=end.code,
        )

    def _killed(self) -> NoReturn:
        """Killed, and not for memory. The seccomp profile lets nobody inside send that signal: it
        was the kernel, for processor time, or somebody outside, which says nothing of the draft.
        """
        seconds = self._limits.cpu_seconds
        if self.spent_seconds > CPU_SHARE * seconds:
            raise self.fatal(Rule.TIMEOUT, f"it took more than {seconds} s of processor time")
        self._closed = True
        self._channel.close()
        raise InfrastructureError(
            "Somebody killed a sandbox worker from outside (a restart, an administrator, or this "
            "machine for want of memory: `dmesg`). Look again."
        )

    def _failure(self, reply: dict[str, Any]) -> MechanismFailure:
        rule, message = reply.get("rule"), reply.get("message")
        line, tail = reply.get("line"), reply.get("traceback")
        texts = type(rule) is str and type(message) is str and type(tail) is str
        if not texts or type(line) is not int or rule not in _WORKER_RULES:
            return self.fatal(Rule.PROTOCOL_ERROR, "an error report of another shape")
        return MechanismFailure(
            str(rule),
            str(message)[:MESSAGE_CHARS],
            line=line,
            traceback=str(tail)[-TRACEBACK_CHARS:],
            output=self.output[-TAIL_CHARS:],
        )

    def _abandon_ask(self, identity: str, seconds: float) -> None:
        """Tell the worker that its ask has no answer, and take the reply off the stream."""
        reply, _ = self._exchange({"id": identity, "op": _ASK_FAILED}, seconds)
        if reply.get("id") != identity or reply.get("kind") == "ask":
            self.fatal(Rule.PROTOCOL_ERROR, "it went on after an ask without an answer")
