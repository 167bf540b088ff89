"""Hot-load: from a desired state to a mechanism that answers, or a reason why not.

In this order, each step able to refuse: the target is ours; the platform's signature holds over
target, version, commit and digest; the SHA-256 of the source's bytes is that digest; the version is
not older than one that ran here (a replayed message; a rollback has a higher version); then *those
bytes* go to two sandbox workers as a frame. One is tried on the view of this very run (a few calls,
with a prior that costs nothing) and thrown away. The other, untouched, is what the search will use:
`Prepared`. All this may happen while a trial is being trained (`runner.control.preload`). At the
boundary (`take_up`) what was signed is verified again, the worker must still answer, and it gets
the mechanism's own last state. The digest to attest is computed from the bytes that were sent to
it.

A state is given to the mechanism that left it (same digest) and to no other: a restored state
could bring an earlier version's parameters back. Trace, best and freezes are the view's anyway.

Nothing is swapped, reported or remembered here (`runner.control.platform_link`); nothing falls
back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from runner.background import in_background
from runner.loop.decisions import Running, check
from runner.protocol import Desired, signing_bytes
from sandbox import clearance
from sandbox import lock as locks
from sandbox.backends.base import Backend
from sandbox.errors import InfrastructureError, MechanismFailure, Rule
from sandbox.host import MechanismHost
from sandbox.limits import Limits
from sandbox.mechanism import Candidate, Space, Trial, View
from sandbox.report import digest_of

T = TypeVar("T")

TRIAL_CALLS = 3
TRY_SECONDS = 20.0
MARGIN_SECONDS = 15.0  # what starts a worker has deadlines of its own, which come first
DOCTOR_SECONDS = 300.0  # it takes seconds, and what it starts has deadlines of its own
PURPOSE = "runner"
_NULL = Path(__file__).resolve().parents[2] / "mechanisms_repo/mechanisms/null.py"


class LoadRefused(Exception):
    """A desired state that must not run here; the message is for the platform and for people."""


def verify(
    desired: Desired, *, public_key: str, target: str, last_version: int, last_digest: str
) -> bytes:
    """The bytes to run, after every check that needs no worker. Raises LoadRefused."""
    if desired.target != target:
        raise LoadRefused(
            f"wrong target: it is for {desired.target!r}, this runner serves {target!r}"
        )
    signed = signing_bytes(
        target=desired.target,
        version=desired.version,
        commit=desired.commit,
        digest=desired.digest,
        locks=desired.locks,
    )
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        key.verify(bytes.fromhex(desired.signature), signed)
    except (InvalidSignature, ValueError):
        raise LoadRefused(
            "wrong signature: the desired state was not signed with the key that this runner "
            "was registered with"
        ) from None
    source = desired.source.encode()
    if digest_of(source) != desired.digest:
        raise LoadRefused(
            f"wrong digest: the source's bytes are {digest_of(source)}, signed is {desired.digest}"
        )
    if desired.version < last_version:
        raise LoadRefused(
            f"older version: {desired.version}, but {last_version} has run here already "
            "(a rollback would have a higher version)"
        )
    if desired.version == last_version and last_digest and desired.digest != last_digest:
        raise LoadRefused(
            f"two mechanisms for version {desired.version}: {last_digest[:12]} ran here, "
            f"now it is {desired.digest[:12]}"
        )
    return source


def require_lock(desired: Desired) -> None:
    """Raise LoadRefused where the sandbox image of this machine has other packages than those
    that the mechanism was screened with, or that were approved since."""
    mine = locks.current().digest
    if desired.locks and mine not in desired.locks:
        wanted = ", ".join(one[:12] for one in desired.locks)
        raise LoadRefused(
            f"the sandbox image here is made of another lock ({mine[:12]}) than it may run with "
            f"({wanted}): take lock.json from the platform (Packages) and run "
            "`python -m sandbox image --lock lock.json` on this machine"
        )


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A worker that holds the bytes of `desired`, verified and tried, and was asked nothing yet.
    Whoever has it closes its host, or has it taken up."""

    desired: Desired
    host: MechanismHost


class Loader:
    """Starts mechanisms in sandbox workers. `backend` is asked for at each load, so that an engine
    that comes back is found; it raises InfrastructureError with the fix while there is none."""

    def __init__(
        self,
        backend: Callable[[], Backend],
        *,
        public_key: str,
        target: str,
        limits: Limits | None = None,
    ) -> None:
        self._backend = backend
        self._public_key = public_key
        self._target = target
        self._limits = limits or Limits.production()

    def load(
        self,
        desired: Desired,
        view: View,
        *,
        last_version: int,
        last_digest: str,
        state: Mapping[str, Any] | None,
        seed: int,
    ) -> Running:
        """A mechanism that answers, ready to swap in.

        `state` is what a mechanism of this very digest left behind. Raises LoadRefused, or
        InfrastructureError where nobody could look; nothing is left behind then.
        """
        prepared = self.prepare(
            desired, view, last_version=last_version, last_digest=last_digest, seed=seed
        )
        return self.take_up(
            prepared, last_version=last_version, last_digest=last_digest, state=state
        )

    def prepare(
        self, desired: Desired, view: View, *, last_version: int, last_digest: str, seed: int
    ) -> Prepared:
        """A worker that can be taken up. Raises as `load` does."""
        source = self._verified(desired, last_version, last_digest)
        backend = self._cleared(source)
        other = self._backend()

        def try_it() -> None:
            with self._start(backend, source, desired.mechanism, self._hasty()) as tried:
                try_out(tried, view, seed=seed)

        # The second as patient in its calls as it will have to be, but no longer at its load.
        limits = replace(self._limits, load_seconds=self._hasty().load_seconds)
        start = partial(self._start, other, source, desired.mechanism, limits)
        fresh = in_background(partial(_once_more_if_it_died, start), name="load")
        try:
            _once_more_if_it_died(try_it)
            return Prepared(desired=desired, host=fresh.result())
        except MechanismFailure as failure:
            wait([fresh])
            _close(fresh)
            raise LoadRefused(f"it fails when it is tried: {failure}") from failure
        except BaseException:  # nobody could look, or the runner stops
            fresh.add_done_callback(_close)
            raise

    def take_up(
        self,
        prepared: Prepared,
        *,
        last_version: int,
        last_digest: str,
        state: Mapping[str, Any] | None,
    ) -> Running:
        """What was prepared: verified as of now, alive, and with its state. Raises as `load` does;
        its worker is closed then."""
        desired, host = prepared.desired, prepared.host
        try:
            self._verified(desired, last_version, last_digest)
            if state is not None:
                host.restore(dict(state))
            else:
                host.state()
        except MechanismFailure as failure:
            host.close()
            what = "take its own state back" if state else "answer once it is loaded"
            raise LoadRefused(f"it does not {what}: {failure}") from failure
        except BaseException:
            host.close()
            raise
        return Running(
            host=host,
            name=desired.mechanism,
            digest=host.digest,
            version=desired.version,
            source=desired.source,
            posture=dict(host.posture),
        )

    def _verified(self, desired: Desired, last_version: int, last_digest: str) -> bytes:
        source = verify(
            desired,
            public_key=self._public_key,
            target=self._target,
            last_version=last_version,
            last_digest=last_digest,
        )
        require_lock(desired)
        return source

    def again(self, running: Running, state: Mapping[str, Any] | None) -> Running:
        """The same bytes in a new worker, with the last state. Raises MechanismFailure."""
        source = running.source.encode()
        host = self._restored(self._cleared(source), source, running.name, state)
        return replace(running, host=host, posture=dict(host.posture))

    def _cleared(self, source: bytes) -> Backend:
        """The sandbox, if every control of it holds; where not, only the null mechanism, which is
        our own code and decides nothing. Raises InfrastructureError that names the control."""
        backend = self._backend()
        if not (_NULL.is_file() and source == _NULL.read_bytes()):
            look = in_background(partial(clearance.require, backend), name="doctor")
            _in_time(look, DOCTOR_SECONDS, "The sandbox's doctor did not end")
        return backend

    def _restored(
        self, backend: Backend, source: bytes, name: str, state: Mapping[str, Any] | None
    ) -> MechanismHost:
        host = self._start(backend, source, name, self._limits)
        try:
            if state is not None:
                host.restore(dict(state))
        except BaseException:
            host.close()
            raise
        return host

    def _start(self, backend: Backend, source: bytes, name: str, limits: Limits) -> MechanismHost:
        start = partial(
            MechanismHost.start, backend, source, name=name, limits=limits, purpose=PURPOSE
        )
        started = in_background(start, name="start")
        try:
            seconds = limits.start_seconds + limits.load_seconds + MARGIN_SECONDS
            return _in_time(started, seconds, "No sandbox worker was ready")
        except BaseException:  # it may come after all
            started.add_done_callback(_close)
            raise

    def _hasty(self) -> Limits:
        """Training may wait for what is only tried."""
        return replace(
            self._limits,
            load_seconds=min(self._limits.load_seconds, TRY_SECONDS),
            call_seconds=min(self._limits.call_seconds, TRY_SECONDS),
        )


def _in_time(begun: Future[T], seconds: float, problem: str) -> T:
    """What it gives, or InfrastructureError: also where it never ends, whatever the sandbox's own
    deadlines overlooked: who waits at a boundary would wait for ever."""
    done, _ = wait([begun], seconds)
    if not done:
        raise InfrastructureError(f"{problem} after {seconds:g} s; look again.")
    return begun.result()


def _close(started: Future[MechanismHost]) -> None:
    if started.exception() is None:
        started.result().close()


def _once_more_if_it_died(call: Callable[[], T]) -> T:
    """Something else may have killed a worker that ended in the middle of a call: once more."""
    try:
        return call()
    except MechanismFailure as failure:
        if failure.rule != Rule.CRASHED:
            raise
    return call()


def try_out(host: MechanismHost, view: View, *, seed: int) -> None:
    """A short contract on the view of this run: a few proposals, each judged and observed.

    Raises MechanismFailure if a hook fails or if none of the candidates could be trained. The
    worker has then seen calls that never happened: throw it away.
    """
    proposed = valid = 0
    shown = replace(view, prior=lambda _guidance, count: plain_candidates(view, count))
    for i in range(TRIAL_CALLS):
        for candidate in host.propose(shown, 1, seed=seed + i):
            proposed += 1
            choice = check(candidate, view)
            valid += not choice.problems
            metric = view.best.metric
            trial = Trial(
                number=len(view.trace),
                config=choice.config,
                changes=choice.changes,
                metric=None if choice.problems else metric,
                status="failed" if choice.problems else "discarded",
                failure="constraint" if choice.problems else "",
                mechanism=host.digest,
            )
            if not choice.problems:
                host.accept(trial, shown, seed=seed + i)
            host.observe(trial, replace(shown, trace=(*view.trace, trial)), seed=seed + i)
    host.state()
    if not valid:
        raise MechanismFailure(
            "INTERFACE",
            f"none of its {proposed} candidates (in {TRIAL_CALLS} proposals) could be trained",
        )


def plain_candidates(view: View, count: int) -> list[Candidate]:
    """What a prior without cost answers while a mechanism is tried: small valid steps."""
    steps = [step for name in view.free() if (step := _step(view, name)) is not None]
    if not steps:
        steps = [Candidate(changes={}, reason="no step is possible")]
    return [steps[i % len(steps)] for i in range(count)]


def _step(view: View, name: str) -> Candidate | None:
    space: Space = view.space
    knob, old = space[name], view.best.config[name]
    options: list[Any] = list(knob.choices)
    if isinstance(old, (int, float)) and knob.kind != "choice":
        options = [old * 2, old / 2, old + 1, old - 1]
        if knob.kind != "float":
            options = [int(v) for v in options if v == int(v)]
    for value in options:
        if value != old and not space.problems(view.config_of({name: value})):
            return Candidate(changes={name: value}, reason="a small step, to try the mechanism")
    return None
