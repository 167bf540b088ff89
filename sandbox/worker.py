"""The inside half of the sandbox: one mechanism, called by frames from the host.

Runs as the only process of a container, standard library only. Everything it says after the
mechanism's code was executed is testimony by a suspect: the host (`sandbox.host`) checks each
answer again, counts, and holds the clock. Nothing here is a judgement or a protection.
"""

from __future__ import annotations

import base64
import json
import linecache
import os
import random
import sys
import threading
import traceback
from collections.abc import Callable
from types import ModuleType, TracebackType
from typing import Any

from sandbox import protocol
from sandbox.mechanism import (
    Candidate,
    Mechanism,
    Space,
    Trial,
    View,
    space_from_data,
    space_to_data,
    trial_from_data,
)

HOOKS = ("propose", "accept", "observe", "state", "restore")
MESSAGE_CHARS = 500
TRACEBACK_CHARS = 4000


class Refused(Exception):
    """The mechanism breaks the interface; `rule` and the message go to the host as they are."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


class AskFailed(BaseException):
    """The host can't answer an ask. Not an Exception: a mechanism must not go on without it."""


class Wire:
    """Private copies of standard input and output; a mechanism's prints go to standard error."""

    def __init__(self) -> None:
        self._in = os.dup(0)
        self._out = os.dup(1)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        os.dup2(2, 1)

    def read(self) -> dict[str, Any]:
        """The next frame from the host; ends the process when the host has gone."""
        (length,) = protocol.HEADER.unpack(self._exactly(protocol.HEADER.size))
        # Not checked again: the host made it, and the checks cost more than most mechanisms.
        message: dict[str, Any] = json.loads(self._exactly(length))
        return message

    def write(self, message: dict[str, Any]) -> None:
        """Send one frame, whole."""
        rest = memoryview(protocol.encode(message))
        while rest:
            rest = rest[os.write(self._out, rest) :]

    def _exactly(self, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            part = os.read(self._in, min(count - len(parts), 1 << 20))
            if not part:
                os._exit(0)  # the host hung up: nothing is left to do
            parts += part
        return bytes(parts)


class Worker:
    """Serves the operations; holds the one loaded mechanism."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._mechanism: Mechanism | None = None
        self._file = ""
        self._request = ""
        self._seen = Seen()

    def serve(self) -> None:
        """Answer requests until the host hangs up."""
        operations: dict[str, Callable[[dict[str, Any]], Any]] = {
            "self_report": lambda _: self_report(),
            "load": self._load,
            "call": self._call,
            "prepare_tests": prepare_tests,
            "run_tests": run_tests,
        }
        while True:
            request = self._wire.read()
            self._request = request["id"]
            try:
                value = operations[request["op"]](request)
                answer = {"id": request["id"], "kind": "value", "value": value}
                self._wire.write(answer)
            except Refused as error:
                self._refuse(error.rule, str(error), error)
            except AskFailed:
                self._refuse("ASK_FAILED", "the host could not answer an ask", None)
            except protocol.ProtocolError as error:
                self._refuse("INTERFACE", f"the answer can't be sent: {error}", None)
            except MemoryError as error:
                self._refuse("OOM", "MemoryError", error)
            except BaseException as error:
                self._refuse("RAISED", _describe(error), error)

    def _refuse(self, rule: str, message: str, error: BaseException | None) -> None:
        line, tail = _where(error, self._file) if error is not None else (0, "")
        self._wire.write(
            {
                "id": self._request,
                "kind": "error",
                "rule": rule,
                "message": _printable(message, MESSAGE_CHARS),
                "line": line,
                "traceback": tail,
            }
        )

    def _load(self, request: dict[str, Any]) -> dict[str, Any]:
        self._seen = Seen()
        source = base64.b64decode(request["source"])
        name = f"mechanisms.{request['name']}"
        self._file = f"mechanisms/{request['name']}.py"
        module = ModuleType(name)
        module.__file__ = self._file
        # Before exec, as the import system does: `@dataclass` and typing look the module up by
        # name while its body runs, and fail if it is not there.
        sys.modules[name] = module
        try:
            _remember_lines(self._file, source)
            exec(compile(source, self._file, "exec"), module.__dict__)  # noqa: S102  # nosec B102
        except MemoryError:
            raise
        except BaseException as error:
            raise Refused("IMPORT_FAILED", _describe(error)) from error
        chosen = _only_mechanism(module)
        try:
            self._mechanism = chosen()
        except BaseException as error:
            message = f"{chosen.__name__} can't be made without arguments: {_describe(error)}"
            raise Refused("INTERFACE", message) from error
        hooks = [h for h in HOOKS if getattr(chosen, h) is not getattr(Mechanism, h)]
        return {"class_name": chosen.__name__, "hooks": hooks}

    def _call(self, request: dict[str, Any]) -> Any:
        mechanism, hook = self._mechanism, request["hook"]
        if "view" in request:  # first of all: what is new in it counts as shown from now on
            self._seen.take(request["view"])
        if mechanism is None:
            raise Refused("INTERFACE", "no mechanism is loaded")
        if hook == "state":
            return _plain_state(mechanism.state())
        if hook == "restore":
            mechanism.restore(request["state"])
            return None
        view = self._view(request, may_ask=hook == "propose")
        answer = self._decide(mechanism, hook, request, view)
        self._seen.require_unchanged(view)
        return answer

    def _decide(
        self, mechanism: Mechanism, hook: str, request: dict[str, Any], view: View
    ) -> list[dict[str, Any]] | bool | None:
        if hook == "propose":
            return _plain_candidates(mechanism.propose(view, request["count"]))
        trial = trial_from_data(request["trial"])
        if hook == "observe":
            mechanism.observe(trial, view)
            return None
        answer = mechanism.accept(trial, view)
        if type(answer) is not bool:
            raise Refused("INTERFACE", f"accept must return a bool, not {_type_name(answer)}")
        return answer

    def _view(self, request: dict[str, Any], *, may_ask: bool) -> View:
        data, identity = request["view"], request["id"]
        thread = threading.get_ident()

        def ask(guidance: str, count: int) -> list[Candidate]:
            if not may_ask:
                raise RuntimeError("view.ask can be used in propose only")
            if self._request != identity or threading.get_ident() != thread:
                raise RuntimeError("view.ask was used outside of the call that it belongs to")
            return self._ask(guidance, count)

        return View(
            trace=self._seen.trace,
            best=trial_from_data(data["best"]),
            space=self._seen.space,
            frozen=frozenset(data["frozen"]),
            random=random.Random(request["seed"]),  # noqa: S311 - search, not secrets
            minimize=data["minimize"],
            prior=ask,
            noise=data["noise"],
            keep_sigma=data["keep_sigma"],
        )

    def _ask(self, guidance: object, count: object) -> list[Candidate]:
        if not isinstance(guidance, str):
            raise Refused("INTERFACE", f"ask's guidance must be text, not {_type_name(guidance)}")
        if type(count) is not int:
            raise Refused("INTERFACE", f"ask's count must be an int, not {_type_name(count)}")
        self._wire.write(
            {"id": self._request, "kind": "ask", "guidance": str(guidance), "count": count}
        )
        answer = self._wire.read()
        if answer["op"] != "candidates":
            raise AskFailed
        return [Candidate(changes=c["changes"], reason=c["reason"]) for c in answer["candidates"]]


class Seen:
    """What the host sent of views so far: it sends what is new, a mechanism gets the whole."""

    def __init__(self) -> None:
        self._data: dict[str, Any] = {}
        self.trace: tuple[Trial, ...] = ()
        self.space = Space({}, ())

    def take(self, data: dict[str, Any]) -> None:
        """Take up a view: `kept` trials of the last one, and new ones; the space if it is new."""
        kept, old = data["kept"], self._data
        self.trace = (*self.trace[:kept], *map(trial_from_data, data["trace"]))
        whole = [*old["trace"][:kept], *data["trace"]] if kept else data["trace"]
        if data["space"] is not None:
            self.space = space_from_data(data["space"])
        self._data = {**data, "trace": whole, "space": data["space"] or old["space"]}

    def require_unchanged(self, view: View) -> None:
        """A changed view reaches nobody, the host has its own; but who tries it has misunderstood.
        Raises Refused; the next view is made anew from what was sent."""
        data = self._data
        same = (
            [vars(t) for t in view.trace] == data["trace"]  # read-only mappings equal plain ones
            and vars(view.best) == data["best"]
            and space_to_data(view.space) == data["space"]
            and sorted(view.frozen) == data["frozen"]
            and (view.noise, view.keep_sigma) == (data["noise"], data["keep_sigma"])
        )
        if not same:
            self.trace = tuple(trial_from_data(t) for t in data["trace"])
            self.space = space_from_data(data["space"])
            raise Refused(
                "VIEW_CHANGED", "it changed the view that it was given; copy what you change"
            )


def _only_mechanism(module: ModuleType) -> type[Mechanism]:
    found = {
        id(thing): thing
        for thing in vars(module).values()
        if isinstance(thing, type)
        and issubclass(thing, Mechanism)
        and thing.__module__ == module.__name__
    }
    if len(found) != 1:
        names = ", ".join(sorted(c.__name__ for c in found.values())) or "none"
        raise Refused(
            "INTERFACE", f"the file must define exactly one subclass of Mechanism; found: {names}"
        )
    return next(iter(found.values()))


def _plain_candidates(answer: object) -> list[dict[str, Any]]:
    if not isinstance(answer, (list, tuple)):
        raise Refused("INTERFACE", f"propose must return a list, not {_type_name(answer)}")
    found = []
    for candidate in answer:
        if not isinstance(candidate, Candidate):
            raise Refused(
                "INTERFACE", f"propose must return Candidates, not {_type_name(candidate)}"
            )
        changes = dict(candidate.changes)
        for name, value in changes.items():
            if not isinstance(name, str):
                raise Refused("INTERFACE", f"a knob's name is {_type_name(name)}, not text")
            # numpy.float64 is a float and goes over the wire as one; numpy.int64 is no int.
            if isinstance(value, bool) or not isinstance(value, (int, float, str)):
                raise Refused(
                    "INTERFACE",
                    f"changes[{name!r}] is {_type_name(value)}; it must be int, float or str",
                )
        if not isinstance(candidate.reason, str):
            raise Refused("INTERFACE", f"a reason is {_type_name(candidate.reason)}, not text")
        found.append({"changes": changes, "reason": candidate.reason})
    return found


def _plain_state(state: object) -> dict[str, Any]:
    if type(state) is not dict:
        raise Refused("INTERFACE", f"state must return a dict, not {_type_name(state)}")
    try:
        protocol.check_plain(state)
    except protocol.ProtocolError as error:
        raise Refused("INTERFACE", f"state must return plain JSON data: {error}") from error
    return state


def _type_name(value: object) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _printable(text: str, limit: int) -> str:
    return text[:limit].replace("\x00", "?").encode("utf-8", "replace").decode()


def _describe(error: BaseException) -> str:
    try:
        text = str(error)
    except BaseException:
        text = "(its message can't be made)"
    return f"{type(error).__name__}: {_printable(text, MESSAGE_CHARS)}"


def _where(error: BaseException, file: str) -> tuple[int, str]:
    """The line of the mechanism's file at fault (0 if none), and the end of the traceback."""
    cause = error.__cause__ if isinstance(error, Refused) and error.__cause__ else error
    line = 0
    step: TracebackType | None = cause.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == file:
            line = step.tb_lineno
        step = step.tb_next
    if isinstance(cause, SyntaxError) and not line:
        line = cause.lineno or 0
    if isinstance(error, Refused) and cause is error:
        return line, ""
    try:
        text = "".join(traceback.format_exception(cause, limit=-8))
    except BaseException:
        text = "(its traceback can't be made)"
    return line, _printable(text[-TRACEBACK_CHARS:], TRACEBACK_CHARS)


def _remember_lines(file: str, source: bytes) -> None:
    """Let tracebacks show the mechanism's own lines, though there is no such file here."""
    text = source.decode("utf-8", "replace")
    linecache.cache[file] = (len(source), None, text.splitlines(keepends=True), file)


def self_report() -> dict[str, Any]:
    """What this process sees of its cage; the host asks before any foreign code is loaded."""
    from sandbox import selfreport  # noqa: PLC0415 - only needed before the mechanism is loaded

    return selfreport.collect()


def prepare_tests(_: dict[str, Any]) -> None:
    """Be ready to run tests before there are any."""
    from sandbox import testrun  # noqa: PLC0415 - pytest is only there for this job

    testrun.prepare()


def run_tests(request: dict[str, Any]) -> dict[str, Any]:
    """Run a draft's own tests with pytest below /tmp; testimony that can only fail a draft."""
    from sandbox import testrun  # noqa: PLC0415 - pytest is only there for this job

    files = {path: base64.b64decode(data) for path, data in request["files"].items()}
    return testrun.run(files)


def main() -> None:
    """Serve the host on standard input and output."""
    wire = Wire()
    # One thread: the sums of many threads depend on how many there are, and a machine with many
    # cores would start more of them than the sandbox may have. Read by numpy, scipy and
    # scikit-learn when they are imported; joblib would probe for locks that nobody may have here.
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    os.environ |= {"JOBLIB_MULTIPROCESSING": "0", "LOKY_MAX_CPU_COUNT": "1"}
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="replace")  # type: ignore[union-attr]
    Worker(wire).serve()
