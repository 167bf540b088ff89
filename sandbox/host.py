"""The trusted half: one mechanism in one sandbox worker, asked from outside.

Whatever a worker says is checked here with exact types, counted here and timed here; code in the
worker can only choose the values of its own answers. This is not a judge (`sandbox.contract`,
`sandbox.replay`): a candidate outside the space is an answer, and it is the caller's to refuse.
"""

from __future__ import annotations

import base64
from typing import Any, Self

from sandbox import protocol
from sandbox.backends import get_backend
from sandbox.backends.base import Backend, Purpose
from sandbox.errors import InfrastructureError, MechanismFailure, Rule
from sandbox.limits import Limits
from sandbox.mechanism import Candidate, Trial, View, trial_to_data
from sandbox.posture import require_posture
from sandbox.report import digest_of
from sandbox.unit_tests_host import TestRun, run_unit_tests
from sandbox.views import Shown
from sandbox.wire import WorkerCalls

__all__ = [
    "InfrastructureError",
    "Limits",
    "MechanismFailure",
    "MechanismHost",
    "TestRun",
    "get_backend",
    "run_unit_tests",
]

HOOKS = frozenset({"propose", "accept", "observe", "state", "restore"})
MAX_CHANGES = 256
MAX_NAME_CHARS = 200
MAX_CLASS_CHARS = 200


class MechanismHost:
    """One mechanism in one worker. A context manager; start it with `start`.

    A failure that leaves the worker without sense (time, memory, output, protocol, a crash)
    ends it: every later call fails the same way. An exception or a wrong answer does not.
    """

    def __init__(self, calls: WorkerCalls, *, source: bytes, name: str, limits: Limits) -> None:
        self.name = name
        self.digest = digest_of(source)
        self.class_name = ""
        self.hooks: frozenset[str] = frozenset()
        self.counts = {
            "propose_calls": 0,
            "ask_calls": 0,
            "accept_calls": 0,
            "observe_calls": 0,
            "raised": 0,
        }
        self.posture: dict[str, Any] = {}
        self._limits = limits
        self._calls = calls
        self._shown = Shown()

    @classmethod
    def start(
        cls, backend: Backend, source: bytes, *, name: str, limits: Limits, purpose: str
    ) -> Self:
        """Start a worker, check its posture, then load exactly these bytes.

        Raises MechanismFailure (whose detail has the posture and the output) or
        InfrastructureError; nothing is left behind then.
        """
        channel = backend.start(purpose=Purpose.MECHANISM, limits=limits, label=purpose)
        host = cls(WorkerCalls(channel, limits), source=source, name=name, limits=limits)
        try:
            seen = host._calls.self_report()
            host.posture = {**channel.posture, "self_report": seen}
            require_posture(seen, writable=())
            host._load(source)
        except BaseException as error:
            if isinstance(error, MechanismFailure):
                error.detail["posture"] = host.posture
            host.close()
            raise
        return host

    @property
    def image_id(self) -> str:
        """The exact image that the worker runs."""
        return str(self.posture.get("image_id", ""))

    @property
    def output(self) -> str:
        """What the mechanism printed so far, capped."""
        return self._calls.output

    @property
    def seconds(self) -> float:
        """Time spent inside the worker so far; asking the prior does not count."""
        return self._calls.spent_seconds

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill and remove the worker. May be called twice."""
        self._calls.close()

    def propose(self, view: View, count: int, *, seed: int) -> list[Candidate]:
        """Up to `count` candidates; `view.prior` is asked on this side. Not checked against the
        space. An exception of the prior comes out as it is, and the worker stays usable."""
        self.counts["propose_calls"] += 1
        asks = 0

        def answer(request: dict[str, Any]) -> list[dict[str, Any]]:
            nonlocal asks
            asks += 1
            if asks > self._limits.asks_a_call:
                raise self._calls.fatal(
                    Rule.TOO_MANY_ASKS, f"more than {self._limits.asks_a_call} asks in one propose"
                )
            guidance, wanted = self._checked_ask(request)
            self.counts["ask_calls"] += 1
            given = view.prior(guidance, wanted)
            return [{"changes": dict(c.changes), "reason": c.reason} for c in given]

        value = self._hook(
            "propose", view=self._shown.data(view), seed=seed, count=count, answer=answer
        )
        return self._checked_candidates(value, count)

    def accept(self, trial: Trial, view: View, *, seed: int) -> bool:
        """Whether the mechanism keeps `trial`; `view` is as before it."""
        self.counts["accept_calls"] += 1
        value = self._hook(
            "accept", view=self._shown.data(view), seed=seed, trial=trial_to_data(trial)
        )
        if type(value) is not bool:
            raise self._wrong("accept did not answer with true or false", "accept")
        return value

    def observe(self, trial: Trial, view: View, *, seed: int) -> None:
        """Show the mechanism a finished trial; `view` holds it."""
        self.counts["observe_calls"] += 1
        self._hook("observe", view=self._shown.data(view), seed=seed, trial=trial_to_data(trial))

    def state(self) -> dict[str, Any]:
        """The mechanism's state: plain JSON data within the limit."""
        value = self._hook("state")
        if type(value) is not dict:
            raise self._wrong("state did not answer with a dict", "state")
        if (size := len(protocol.encode(value))) > self._limits.state_bytes:
            raise MechanismFailure(
                Rule.STATE_TOO_LARGE,
                f"the state has {size} bytes; the limit is {self._limits.state_bytes}",
                hook="state",
            )
        return value

    def restore(self, state: dict[str, Any]) -> None:
        """Give the mechanism a state that `state` gave."""
        self._hook("restore", state=state)

    def _load(self, source: bytes) -> None:
        self._shown = Shown()  # the worker forgets as well: what is loaded anew is as new
        value = self._calls.request(
            {"op": "load", "name": self.name, "source": base64.b64encode(source).decode()},
            seconds=self._limits.load_seconds,
        )
        if type(value) is not dict or value.keys() != {"class_name", "hooks"}:
            raise self._wrong("the answer to load has another shape", "load")
        name, hooks = value["class_name"], value["hooks"]
        if type(name) is not str or len(name) > MAX_CLASS_CHARS:
            raise self._wrong("the class's name is no short text", "load")
        if type(hooks) is not list or any(type(h) is not str for h in hooks):
            raise self._wrong("the hooks are no list of names", "load")
        if not HOOKS.issuperset(hooks):
            raise self._wrong("it claims hooks that there are not", "load")
        self.class_name, self.hooks = name, frozenset(hooks)

    def _hook(self, hook: str, *, answer: Any = None, **arguments: Any) -> Any:
        try:
            return self._calls.request(
                {"op": "call", "hook": hook, **arguments},
                seconds=self._limits.call_seconds,
                answer_ask=answer,
            )
        except MechanismFailure as error:
            error.detail["hook"] = hook
            if error.rule == Rule.RAISED:
                self.counts["raised"] += 1
            raise

    def _checked_ask(self, request: dict[str, Any]) -> tuple[str, int]:
        guidance, count = request.get("guidance"), request.get("count")
        if type(guidance) is not str or type(count) is not int:
            raise self._calls.fatal(Rule.PROTOCOL_ERROR, "an ask of another shape")
        if len(guidance) > self._limits.guidance_chars:
            raise self._calls.fatal(
                Rule.INTERFACE, f"guidance of over {self._limits.guidance_chars} characters"
            )
        if not 1 <= count <= self._limits.candidates:
            raise self._calls.fatal(
                Rule.INTERFACE,
                f"ask for {_short(count)} candidates; 1 to {self._limits.candidates} can be had",
            )
        return guidance, count

    def _checked_candidates(self, value: object, count: int) -> list[Candidate]:
        if type(value) is not list:
            raise self._wrong("propose did not answer with a list")
        if len(value) > min(count, self._limits.candidates):
            raise MechanismFailure(
                Rule.TOO_MANY_CANDIDATES,
                f"propose gave {len(value)} candidates where {count} were wanted",
                hook="propose",
            )
        return [self._checked_candidate(item) for item in value]

    def _checked_candidate(self, item: object) -> Candidate:
        if type(item) is not dict or item.keys() != {"changes", "reason"}:
            raise self._wrong("a candidate of another shape")
        changes, reason = item["changes"], item["reason"]
        if type(reason) is not str or len(reason) > self._limits.reason_chars:
            raise self._wrong(f"a reason must be text of up to {self._limits.reason_chars} chars")
        if type(changes) is not dict or len(changes) > MAX_CHANGES:
            raise self._wrong(f"changes must be a mapping of up to {MAX_CHANGES} knobs")
        for name, value in changes.items():
            if len(name) > MAX_NAME_CHARS:
                raise self._wrong("a knob's name is too long")
            if type(value) not in (int, float, str) or len(repr(value)) > MAX_NAME_CHARS:
                raise self._wrong(f"changes[{name!r}] is no short int, float or str")
        return Candidate(changes=changes, reason=reason)

    def _wrong(self, message: str, hook: str = "propose") -> MechanismFailure:
        return MechanismFailure(Rule.INTERFACE, message, hook=hook, output=self.output[-2000:])


def _short(value: object) -> str:
    return repr(value)[:40]
