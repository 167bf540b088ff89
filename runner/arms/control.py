"""Which mechanism an arm runs, and how it gets there: draft, gate, signed desired state, hot-load.

`search.Control` for the arms with mechanisms. At a trial boundary Level 2 drafts where it is due
(here and now, so that a repetition is exact), the gate decides, and what is approved is loaded by
`runner.control.hotload` into a sandbox worker, as on a platform, with a key made for this
benchmark. What is refused, fails to load or is given up leaves what ran before in place and is an
event on record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runner.arms.gate import Gate
from runner.control.hotload import Loader, LoadRefused
from runner.control.local import Local
from runner.interfaces import Steering
from runner.levels.level2 import Level2
from runner.loop.decisions import Running
from runner.protocol import Desired, Submitted, signing_bytes
from runner.storage.drafts import Drafts, DraftState
from runner.storage.journal import Entry, Journal, derive
from sandbox.backends.base import Backend
from sandbox.mechanism import View
from sandbox.report import digest_of

TARGET = "benchmark"
_LIVE = "arms_live"
_EVENTS = "arms_events"


class LevelTwoNow(Level2):
    """Level 2 that drafts at the boundary itself instead of beside the training; with `first`,
    before the first trial too."""

    first = False

    def boundary(self, entries: list[Entry], running: Running, steering: Steering) -> None:
        """Draft what is due after these trials, and come back when it is drafted."""
        done = len(entries) - 1
        due = done - done % self.every
        if due or self.first:
            self._drafts.due(due)
        self._keep_base(running, steering)
        for draft_id, context in self._due(entries):
            self._draft(draft_id, context)


@dataclass(frozen=True, kw_only=True)
class Signer:
    """The benchmark's own key, in the place of a platform's."""

    key: Ed25519PrivateKey

    @property
    def public_key(self) -> str:
        """As the loader wants it."""
        return self.key.public_key().public_bytes_raw().hex()

    def desired(self, *, name: str, source: bytes, version: int) -> Desired:
        """A signed desired state. There is no repository here: the digest stands for a commit."""
        digest = digest_of(source)
        signed = signing_bytes(target=TARGET, version=version, commit=digest[:40], digest=digest)
        return Desired(
            target=TARGET,
            version=version,
            mechanism=name,
            commit=digest[:40],
            digest=digest,
            source=source.decode(),
            signature=self.key.sign(signed).hex(),
            stopped=False,
            base_commit=digest[:40],
            library=[],
        )


class Governed:
    """`search.Control` with a gate. `first` is the draft that is there from the start, if any."""

    def __init__(
        self,
        *,
        journal: Journal,
        gate: Gate,
        signer: Signer,
        backend: Callable[[], Backend],
        say: Callable[[str], None],
        level2: Level2 | None = None,
        first: Mapping[str, bytes] | None = None,
    ) -> None:
        self.level2 = level2
        self._journal = journal
        self._drafts = Drafts(journal)
        self._gate = gate
        self._signer = signer
        self._say = say
        self._first = first
        self._local = Local(journal)
        self._loader = Loader(backend, public_key=signer.public_key, target=TARGET)
        self._running: Running | None = None

    # --- search.Control ---

    def approaching(self) -> None:
        """There is nobody to ask."""

    def boundary(self, view: View, *, pending: bool) -> Running:
        """The mechanism for the next trial; drafts, decides and swaps here."""
        if self._running is None:
            self._running = self._start(view)
        if not pending and self.level2 is not None:
            steering = self._journal.steering()[1]
            self.level2.boundary(self._journal.decided(), self._running, steering)
            for draft in self._drafts.all(DraftState.LOCAL):
                assert draft.draft is not None  # noqa: S101 - LOCAL drafts have a content
                files = {name: text.encode() for name, text in draft.draft.files.items()}
                self._submit(files, view, draft.draft_id)
        return self._running

    def restart(self, running: Running, state: Mapping[str, Any] | None) -> Running:
        """The same bytes in a new worker. Raises MechanismFailure."""
        running.host.close()
        again = self._loader.again if running.digest else self._local.restart
        self._running = again(running, state)
        return self._running

    def give_up(self, running: Running, reason: str) -> None:
        """It failed twice: the null mechanism takes over, and that is an event."""
        running.host.close()
        with self._journal.store.transaction():
            self._event("given_up", running.name, running.digest, reason)
            self._journal.store.put(_LIVE, {"version": running.version, "desired": None})
        self._running = None

    def activity(self, text: str) -> None:
        """Nobody is told."""

    def news(self) -> None:
        """Nobody is told."""

    # --- for the arm ---

    def close(self) -> None:
        """End the worker."""
        if self._running is not None:
            self._running.host.close()
            self._running = None

    @property
    def events(self) -> list[dict[str, Any]]:
        """What happened to mechanisms: loaded, refused by the gate or the loader, given up."""
        return list(self._journal.store.get(_EVENTS) or [])

    # --- inside ---

    def _start(self, view: View) -> Running:
        live = self._journal.store.get(_LIVE)
        if live is None and self._first is not None:
            self._submit(self._first, view)
            if self._running is None:
                raise RuntimeError(f"the arm's own mechanism was not loaded: {self.events[-1]}")
            return self._running
        if live is None or live["desired"] is None:
            return self._local.boundary(view, pending=False)
        desired = Desired.model_validate(live["desired"])
        return self._load(desired, view, self._journal.state_of(desired.digest))

    def _submit(self, files: Mapping[str, bytes], view: View, draft_id: str = "") -> None:
        """The whole way of one draft: through the gate, and live if it is approved and loads."""
        path = next(name for name in files if name.startswith("mechanisms/"))
        name, source = path.removeprefix("mechanisms/").removesuffix(".py"), files[path]
        verdict = self._gate.decide(files)
        reason = "; ".join(verdict.reasons)
        if not verdict.approved:
            self._settle(draft_id, "refused", name, verdict.digest, reason)
            return
        live = self._journal.store.get(_LIVE) or {"version": 0}
        desired = self._signer.desired(name=name, source=source, version=live["version"] + 1)
        try:
            running = self._load(desired, view, None)
        except LoadRefused as error:
            self._settle(draft_id, "not_loaded", name, desired.digest, str(error))
            return
        if self._running is not None:
            self._running.host.close()
        self._running = running
        if verdict.let_through:
            reason += f" (let through: {', '.join(verdict.let_through)})"
        self._settle(draft_id, "loaded", name, running.digest, reason, live=desired)

    def _settle(
        self,
        draft_id: str,
        what: str,
        name: str,
        digest: str,
        reason: str,
        *,
        live: Desired | None = None,
    ) -> None:
        """Store what became of a draft, all of it at once: a killed command repeats none of it."""
        with self._journal.store.transaction():
            if live is not None:
                body = {"version": live.version, "desired": live.model_dump(mode="json")}
                self._journal.store.put(_LIVE, body)
            self._event(what, name, digest, reason)
            if draft_id:
                state = {"refused": "failed", "not_loaded": "refused", "loaded": "live"}[what]
                answer = Submitted(
                    draft_id=draft_id, proposal=None, state=state, reason=reason[:4000]
                )
                self._drafts.submitted(answer)

    def _load(self, desired: Desired, view: View, state: Mapping[str, Any] | None) -> Running:
        return self._loader.load(
            desired,
            view,
            last_version=0,
            last_digest="",
            state=state,
            seed=derive(self._journal.seed, desired.version, "load"),
        )

    def _event(self, what: str, name: str, digest: str, reason: str) -> None:
        after = self._journal.count() - 1
        self._say(f"{name} {digest[:12]} {what} after trial {after}: {reason}")
        event = {"what": what, "mechanism": name, "digest": digest, "after": after}
        events = [*self.events, {**event, "reason": reason[:1000]}]
        self._journal.store.put(_EVENTS, events)
