"""The runner's tie to the platform: pulls the desired state, swaps mechanisms at trial boundaries,
attests, beats, and keeps the outbox moving. `search.Control` with a platform.

Beside the training, in a thread of its own: reports (which are in the journal already) are sent,
and what the platform wants next is made ready (`runner.control.preload`). At the boundary: the
platform is asked again, the mechanism is swapped, and what runs is said before it is used.

What it does when something is wrong, always aloud:

- the desired version can't be loaded: `refused` with the reason; what ran before goes on running;
  the same message is not tried again, a new version is;
- the sandbox engine can't be asked: the same, but tried again, ENGINE_PATIENCE_SECONDS long before
  it counts as refused (for ever, where nothing runs yet);
- the mechanism fails twice in production (`give_up`): `refused` with no digest, because nothing
  runs; no trial starts before the platform wants another version;
- stopped by the platform: no trial starts before it is released, not even if the platform can't be
  reached or the runner is started again meanwhile;
- the platform can't be reached: the run goes on with what runs, everything waits in the journal;
- the token is not accepted: the run ends with TokenInvalid.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from runner.control.backoff import Backoff
from runner.control.desired_state import Pull
from runner.control.hotload import Loader, LoadRefused
from runner.control.outbox import Outbox
from runner.control.platform_client import PlatformClient, Refused, TokenInvalid, Unreachable
from runner.control.preload import Key, Preload, key_of
from runner.loop.decisions import Running
from runner.processes.subprocesses import STOPPING, StopRequested
from runner.protocol import Desired, Observed
from runner.storage.drafts import Drafts
from runner.storage.journal import Journal
from runner.storage.store import JournalClosed
from sandbox.errors import InfrastructureError
from sandbox.mechanism import View

BEAT_SECONDS = 2.0
GATHER_SECONDS = 0.1  # what comes together is sent together, beside the next training
REFRESH_SECONDS = 10.0
ENGINE_PATIENCE_SECONDS = 120.0
ENGINE_RETRY_SECONDS = 5.0
ENGINE_ATTEMPTS = 5
GOODBYE_SECONDS = 5.0
REASON_CHARS = 4000


class Link:
    """One runner's tie to the platform. `start` it, use it as the search's control, `finish` it."""

    def __init__(
        self,
        *,
        client: PlatformClient,
        journal: Journal,
        loader: Loader,
        say: Callable[[str], None],
        beat_seconds: float = BEAT_SECONDS,
    ) -> None:
        self.client = client
        self.journal = journal
        self.drafts = Drafts(journal)
        self.loader = loader
        self.say = say
        self.running: Running | None = None
        self.desired: Desired | None = None  # the last one that came
        self._outbox = Outbox(client, journal, say)
        self._wanted = Pull(client)
        self._backoff = Backoff(say)
        self._preload = Preload(loader, journal, say)
        self._view: View | None = None  # None: at a boundary
        self._beat_seconds = beat_seconds
        self._status = Observed(version=0, state="idle", digest="")
        self._activity = "starting"
        self._refused: dict[Key, str] = {}
        self._engine_since: dict[Key, float] = {}
        self._engine_next = 0.0
        self._error: BaseException | None = None
        self._sending = threading.Lock()
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat_for_ever, name="link", daemon=True)

    # --- for the command ---

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def finish(self, why: str) -> None:
        """Say good-bye: the worker ends, and what waits is sent if the platform answers now."""
        self._ended.set()
        self._wake.set()
        self._thread.join(GOODBYE_SECONDS)
        self._preload.close()
        if self.running is not None:
            self.running.host.close()
            self.running = None
        if self._thread.is_alive() or self._error is not None or self._backoff.down:  # no answer
            self.say(f"kept for the next start: {self._backlog() or 'nothing'}")
            return
        self._status = self._about(self._status.version, "idle", "", "")
        self._activity = why[:300]
        self.flush()
        self._send(self._outbox.refresh)
        self._send(self._heartbeat)
        if backlog := self._backlog():
            self.say(f"not yet acknowledged by the platform, kept for the next start: {backlog}")

    # --- for the search ---

    def activity(self, text: str) -> None:
        """What the runner is doing, for the next heartbeat."""
        self._activity = text[:300]

    def news(self) -> None:
        """Something waits to be sent: soon, by the heartbeat's thread."""
        self._wake.set()

    def approaching(self) -> None:
        """All is trained, and a boundary comes: ask now what should run then."""
        if not self._backoff.silent:
            self._wanted.early()

    def boundary(self, view: View, *, pending: bool) -> Running:
        """The mechanism to use for the next trial; swaps it here, and waits here."""
        while True:
            self._check()
            self._view = None
            came = self._pull()
            if reason := self.journal.store.get("stopped"):
                self._wait(f"stopped by the platform: {reason}")
                continue
            self._converge(view, came, pending=pending)
            if self.drafts.waiting_attestations():
                self.flush(attestations_only=True)  # what runs is said before it is used
            self._wake.set()  # the rest is sent while the next trial trains
            self._check()
            if self.running is not None:
                self._view = view
                return self.running
            self._wait(self._status.reason or "waiting for a mechanism from the platform")

    def restart(self, running: Running, state: Mapping[str, Any] | None) -> Running:
        """The same bytes in a new worker. Raises MechanismFailure, InfrastructureError."""
        running.host.close()
        self.running = None
        for attempt in range(ENGINE_ATTEMPTS):
            try:
                self.running = self.loader.again(running, state)
                break
            except InfrastructureError as error:
                if attempt + 1 == ENGINE_ATTEMPTS:
                    raise
                self._wait(f"no sandbox for {running.name}: {error}")
        assert self.running is not None  # noqa: S101 - the loop ends no other way
        self.say(f"a new worker runs {running.name} ({running.digest[:12]})")
        return self.running

    def give_up(self, running: Running, reason: str) -> None:
        """The mechanism failed in production: nothing runs until there is another version."""
        running.host.close()
        self.running = None
        self.journal.store.put("given_up", running.version)
        self._attest(self._about(running.version, "refused", "", reason, running.name))
        self.flush()

    # --- what should run ---

    def _pull(self) -> Desired | None:
        """The desired state, or None where the platform does not tell."""
        if self._backoff.silent:
            return None
        try:
            desired = self._wanted.now()
        except Unreachable as error:
            self._unreachable(error)
            return None
        except TokenInvalid as error:
            self._error = error
            raise
        except Refused as error:
            self._backoff.remind(f"REFUSED: the platform gives no desired state: {error}")
            return None
        self._backoff.reached()
        stopped = (desired.stop_reason or "no reason given") if desired.stopped else None
        if stopped != self.journal.store.get("stopped"):
            self.journal.store.put("stopped", stopped)
            self.say("released: trials go on" if stopped is None else f"STOPPED: {stopped}")
        self.journal.store.put("checkpoint", desired.audit_checkpoint)
        self.desired = desired
        return desired

    def _converge(self, view: View, came: Desired | None, *, pending: bool) -> None:
        """Load what should run, if it does not run already and this is the moment for it."""
        known = self.journal.desired()
        if known is not None and known.version == self.journal.store.get("given_up"):
            known = None
        if self.running is not None:
            if came is not None and not pending:
                self._towards(view, came)
            return
        if pending and known is not None:  # its own trial is open: it finishes it
            self._towards(view, known)
        if self.running is None and came is not None:
            self._towards(view, came)
        if self.running is None and known is not None:
            refused = self._status if self._status.state == "refused" else None
            self._towards(view, known)  # what ran here last, while the desired one can't
            if refused is not None and self.running is not None:  # loud, whatever runs meanwhile
                running = {"digest": self.running.digest, "mechanism": self.running.name}
                self._attest(refused.model_copy(update=running))

    def _towards(self, view: View, desired: Desired) -> None:
        """Make `desired` run, unless it does, or was refused already."""
        running = self.running
        same = running is not None and running.version == desired.version
        if same and running is not None and running.digest == desired.digest:
            if self._status.state != "live":
                self._attest(self._live(running))
            return
        if desired.version == self.journal.store.get("given_up"):
            return
        key = key_of(desired)
        if key in self._refused or time.monotonic() < self._engine_next:
            return
        self.activity(f"loading version {desired.version} ({desired.mechanism})")
        started = time.monotonic()
        try:
            loaded = self._preload.loaded(desired, view)
        except LoadRefused as refusal:
            self._refuse(desired, key, str(refusal))
        except InfrastructureError as error:
            self._engine_trouble(desired, key, error)
        else:
            self._swap(desired, loaded, time.monotonic() - started)

    def _swap(self, desired: Desired, loaded: Running, seconds: float) -> None:
        """The new one answers: remember, attest, and only then end the old one."""
        old, self.running = self.running, loaded
        self._engine_since.clear()
        known = self.journal.desired()
        if known is None or known.version != desired.version:
            self.journal.forgive()  # another version begins without failures
        self.journal.remember_desired(desired)
        self._attest(self._live(loaded, swap_seconds=seconds))
        what = f"version {loaded.version}: {loaded.name} ({loaded.digest[:12]})"
        self.say(f"LIVE {what}, loaded in {seconds:.1f} s after {self.journal.count()} trials")
        if old is not None:
            self._preload.retire(old.host)

    def _refuse(self, desired: Desired, key: Key, reason: str) -> None:
        """Loud: what was wanted can't run; what ran before goes on."""
        self._refused[key] = reason
        digest = self.running.digest if self.running else ""
        name = self.running.name if self.running else ""
        self._attest(self._about(desired.version, "refused", digest, reason, name))
        still = f"{name} ({digest[:12]}) goes on" if digest else "nothing runs"
        self.say(
            f"LOAD REFUSED: version {desired.version} ({desired.mechanism}): {reason}; {still}"
        )

    def _engine_trouble(self, desired: Desired, key: Key, error: InfrastructureError) -> None:
        """Nobody could look: try again for a while before it counts as refused."""
        now = time.monotonic()
        since = self._engine_since.setdefault(key, now)
        self._engine_next = now + ENGINE_RETRY_SECONDS
        reason = f"version {desired.version} is not loaded, the sandbox can't be used: {error}"
        if self.running is not None and now - since > ENGINE_PATIENCE_SECONDS:
            self._refuse(desired, key, reason)
            return
        self._backoff.remind(f"NO SANDBOX: {reason}")
        self._status = self._status.model_copy(update={"reason": reason[:REASON_CHARS]})

    # --- attesting and sending ---

    def _live(self, running: Running, *, swap_seconds: float | None = None) -> Observed:
        observed = self._about(running.version, "live", running.digest, "", running.name)
        return observed.model_copy(
            update={"posture": dict(running.posture), "swap_seconds": swap_seconds}
        )

    def _about(
        self, version: int, state: str, digest: str, reason: str, name: str = ""
    ) -> Observed:
        return Observed.model_validate(
            {
                "version": version,
                "state": state,
                "digest": digest,
                "mechanism": name,
                "reason": reason[:REASON_CHARS],
                "at_trial": self.journal.count(),
                "run_id": self.journal.run_id,
            }
        )

    def _attest(self, observed: Observed) -> None:
        """Store an attestation before anything else happens; it is sent in its turn."""
        self.drafts.attest(observed)
        self._status = observed  # after it: see `_heartbeat`
        self._wake.set()

    def flush(self, *, attestations_only: bool = False) -> None:
        """Send what waits, unless the platform was just found not to answer."""
        self._send(partial(self._outbox.flush, attestations_only=attestations_only))

    def _send(self, send: Callable[[], object]) -> None:
        if self._backoff.silent or self._error is not None:
            return
        with self._sending:
            try:
                send()
            except Unreachable as error:
                self._unreachable(error)
            except TokenInvalid as error:
                self._error = error
            except Refused as error:
                self._backoff.remind(f"REFUSED: {error}")
            else:
                self._backoff.reached()

    def _heartbeat(self) -> None:
        """Send one, while nothing else is sent: never ahead of an attestation that waits, and
        never with a state from before one that was sent."""
        status = self._status  # before the look: a state is attested first, then it is this
        if self.drafts.waiting_attestations():
            return
        checkpoint = self.journal.store.get("checkpoint", "")
        update = {"activity": self._activity, "audit_checkpoint": checkpoint}
        self.client.observed(status.model_copy(update=update), once=True)

    def _beat_for_ever(self) -> None:
        beat, refreshed = time.monotonic(), -REFRESH_SECONDS  # drafts are asked for at once
        while not self._ended.is_set():
            if self._wake.wait(max(beat + self._beat_seconds - time.monotonic(), 0.0)):
                self._ended.wait(min(GATHER_SECONDS, self._beat_seconds))
            self._wake.clear()
            try:
                self.flush()
                if time.monotonic() - beat >= self._beat_seconds:
                    beat = time.monotonic()
                    self._send(self._heartbeat)
                    self._look_ahead()
                if time.monotonic() - refreshed > REFRESH_SECONDS:
                    refreshed = time.monotonic()
                    self._send(self._outbox.refresh)
            except JournalClosed:
                return
            except Exception as error:  # handed to the main thread, which raises it
                self._error = error
                return

    def _look_ahead(self) -> None:
        """Begin to make ready what is wanted now, while a trial is being trained. Nothing follows
        from it: the boundary asks the platform again."""
        running, view = self.running, self._view
        if running is None or view is None or self._backoff.silent or self._error is not None:
            return
        try:
            desired = self.client.desired(once=True)
        except (Unreachable, Refused):
            return  # whoever sends or asks next says so
        except TokenInvalid as error:
            self._error = error
            return
        same = (desired.version, desired.digest) == (running.version, running.digest)
        if same or desired.stopped or key_of(desired) in self._refused:
            self._preload.drop()
        else:
            self._preload.begin(desired, view)

    # --- waiting ---

    def _unreachable(self, error: Unreachable) -> None:
        self._backoff.unreachable(f"{error}; kept for later: {self._backlog() or 'nothing yet'}")

    def _backlog(self) -> str:
        return ", ".join(f"{n} {kind}" for kind, n in self.drafts.backlog().items() if n)

    def _check(self) -> None:
        if STOPPING.is_set():
            raise StopRequested
        if self._error is not None:
            raise self._error

    def _wait(self, why: str) -> None:
        """A beat of doing nothing, and say why."""
        self.activity(why)
        self._backoff.remind(f"waiting: {why}")
        self.flush()
        if STOPPING.wait(self._beat_seconds):
            raise StopRequested
