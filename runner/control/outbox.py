"""Sends what the journal holds and the platform has not acknowledged, in order.

The run, then attestations, then trials, then drafts. What the platform refuses is final: it is
recorded with its reason and said loudly, and the rest goes on. Two exceptions: where the platform
lacks what it had acknowledged (it was restored from a backup), all is sent once more; where it has
*another* trial under a number, two processes report one run, and this one ends with JournalError.
`Unreachable` and `TokenInvalid` come out as they are; nothing is lost by them. When to send is
`runner.control.platform_link`'s business.
"""

from __future__ import annotations

from collections.abc import Callable

from pydantic import ValidationError

from runner.control.platform_client import PlatformClient, Refused
from runner.loop.reports import trial_report
from runner.protocol import TrialBatch
from runner.storage.drafts import REMOTE_FINAL, DraftEntry, Drafts, DraftState
from runner.storage.journal import Entry, Journal, Report
from runner.storage.store import JournalError

LACKS = frozenset({"unknown_run", "gap"})
BATCH = 50  # far below the wire's limit of bytes, whatever the messages are


class Outbox:
    """One run's way to the platform. Not for two threads at once."""

    def __init__(
        self, client: PlatformClient, journal: Journal, say: Callable[[str], None]
    ) -> None:
        self.client = client
        self.journal = journal
        self.drafts = Drafts(journal)
        self.say = say
        self._sent_anew = False

    def flush(self, *, attestations_only: bool = False) -> None:
        """Send everything that waits; or what must be known before a mechanism is used, and what
        that needs. Raises Unreachable, TokenInvalid."""
        self._run()
        self._attestations()
        if attestations_only:
            return
        self._trials()
        self._drafts()

    def refresh(self) -> None:
        """Ask what became of drafts that are still open on the platform."""
        for draft in self.drafts.open_on_platform():
            try:
                answer = self.client.draft(draft.draft_id)
            except Refused as error:
                self.drafts.refused(draft.draft_id, str(error))
                self.say(f"REFUSED: draft {draft.draft_id}: {error}")
                continue
            if (answer.state, answer.reason) != (draft.remote, draft.reason):
                self.drafts.submitted(answer)
                final = " (final)" if answer.state in REMOTE_FINAL else ""
                why = f": {answer.reason}" if answer.reason else ""
                self.say(f"proposal {answer.proposal} is {answer.state}{final}{why}")

    def _run(self) -> None:
        report = self.journal.waiting_run_report()
        if report is None:
            return
        try:
            self.client.run(report)
        except Refused as error:
            self.journal.run_report_done(report, Report.REFUSED)
            self.say(f"REFUSED: the platform does not take this run: {error}")
        else:
            self.journal.run_report_done(report, Report.SENT)

    def _attestations(self) -> None:
        for key, observed in self.drafts.waiting_attestations():
            try:
                self.client.observed(observed)
            except Refused as error:
                self.drafts.attestation_done(key, Report.REFUSED)
                self.say(f"REFUSED: attestation of version {observed.version}: {error}")
            else:
                self.drafts.attestation_done(key, Report.SENT)

    def _trials(self) -> None:
        while entries := self.journal.waiting_trials(BATCH):
            try:
                self._send(entries)
            except Refused as error:
                if error.code in LACKS and not self._sent_anew:
                    self._send_anew(error)
                    continue
                if len(entries) == 1:
                    self._trial_refused(entries[0], error)
                    continue
                for entry in entries:  # find the one that is meant
                    try:
                        self._send([entry])
                    except Refused as one:
                        self._trial_refused(entry, one)

    def _send(self, entries: list[Entry]) -> None:
        reports = [trial_report(entry) for entry in entries]
        self.client.trials(TrialBatch(run_id=self.journal.run_id, trials=reports))
        self.journal.trials_done([e.number for e in entries], Report.SENT)

    def _send_anew(self, error: Refused) -> None:
        """The platform lacks what it had: from the start, once in the life of this process."""
        self._sent_anew = True
        self.say(f"the platform lacks what it had acknowledged, so all is sent again: {error}")
        self.journal.report_anew()
        self._run()

    def _trial_refused(self, entry: Entry, error: Refused) -> None:
        if error.code == "conflict":
            raise JournalError(
                f"the platform has another trial {entry.number} of this run, so that two processes "
                f"report it, or {self.journal.folder} is an old copy ({error}): go on with the one "
                "whose trials the platform has, or choose another --out"
            )
        self.journal.trials_done([entry.number], Report.REFUSED)
        self.say(f"REFUSED: trial {entry.number}: {error}")

    def _drafts(self) -> None:
        for draft in self.drafts.all(DraftState.WAITING):
            self._draft(draft)

    def _draft(self, draft: DraftEntry) -> None:
        try:
            answer = self.client.submit(draft.submission(self.journal.run_id))
        except Refused as error:
            if error.code == "stale_base" and self._rebase(draft):
                again = next(d for d in self.drafts.all() if d.draft_id == draft.draft_id)
                self._draft(again)
                return
            self._draft_refused(draft, str(error))
        except (ValidationError, ValueError) as error:
            self._draft_refused(draft, f"it breaks a limit of the wire: {error}")
        else:
            self.drafts.submitted(answer)
            title = draft.draft.title if draft.draft else ""
            self.say(f"proposal {answer.proposal} submitted ({answer.state}): {title}")

    def _rebase(self, draft: DraftEntry) -> bool:
        """A stale base: once, take the new one, if what the draft was written against is still
        what should run."""
        if draft.resubmitted:
            return False
        desired = self.client.desired()
        if desired.digest != draft.base_digest or desired.base_commit == draft.base_commit:
            return False
        self.drafts.rebased(draft.draft_id, desired.base_commit)
        return True

    def _draft_refused(self, draft: DraftEntry, reason: str) -> None:
        self.drafts.refused(draft.draft_id, reason[:2000])
        self.say(f"REFUSED: draft after trial {draft.after_trial}: {reason[:2000]}")
