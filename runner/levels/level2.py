"""Level 2 beside the search: lets a researcher draft in a thread of its own, so that training goes
on meanwhile. A draft goes to the journal first, then to the platform (`runner.control.outbox`), and
in any case to `drafts/` in the run's folder, for people.

That a draft is due is on the disk before it is begun: a killed runner begins it again, under the
same id. What a draft may do is nobody's business here: it goes to the gate like everybody's.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from runner.interfaces import (
    BudgetExceeded,
    DraftRefused,
    EarlierRun,
    Memo,
    PriorError,
    ResearchContext,
    ResearchDraft,
    Researcher,
    Steering,
    Task,
)
from runner.levels.refusals import twin
from runner.loop.decisions import Running, view_of
from runner.processes.subprocesses import STOPPING, StopRequested
from runner.protocol import LibraryEntry, Round
from runner.storage.drafts import Drafts, DraftState, earlier_drafts
from runner.storage.journal import Entry, Journal, derive
from runner.storage.store import JournalClosed
from sandbox.errors import InfrastructureError
from sandbox.report import digest_of

FINISH_SECONDS = 900.0
WAIT_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True)
class Base:
    """What drafts are written against: the repository's head ("" without a platform), and the
    approved operators."""

    commit: str
    library: tuple[LibraryEntry, ...]


class Level2:
    """`search.Outer`: every `every` trials, one draft."""

    def __init__(
        self,
        *,
        journal: Journal,
        task: Task,
        researcher: Researcher,
        base: Callable[[], Base],
        every: int,
        say: Callable[[str], None],
        news: Callable[[], None],
        earlier_runs: tuple[EarlierRun, ...] = (),
    ) -> None:
        self.journal = journal
        self.task = task
        self.researcher = researcher
        self.every = every
        self.say = say
        self.news = news
        self.earlier_runs = earlier_runs
        self._drafts = Drafts(journal)
        self._base = base
        self._jobs: queue.Queue[tuple[str, ResearchContext]] = queue.Queue()
        self._taken: set[str] = set()
        self._done = 0  # counted by the thread alone, as `_taken` is by the search
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def boundary(self, entries: list[Entry], running: Running, steering: Steering) -> None:
        """Begin what is due after these trials. Raises what the last draft left behind:
        BudgetExceeded, or an error of the program."""
        self._raise()
        done = len(entries) - 1
        if due := done - done % self.every:
            self._drafts.due(due)
        self._keep_base(running, steering)
        self._take(entries)

    def _take(self, entries: list[Entry]) -> None:
        """Hand what is due to the thread."""
        for draft_id, context in self._due(entries):
            if draft_id not in self._taken:
                self._taken.add(draft_id)
                self._jobs.put((draft_id, context))
        if self._open() and self._thread is None:
            self._thread = threading.Thread(target=self._work, name="level2", daemon=True)
            self._thread.start()

    def _due(self, entries: list[Entry]) -> Iterator[tuple[str, ResearchContext]]:
        """What is due, with what is known of its base."""
        for draft in self._drafts.all(DraftState.DUE):
            memo = self._drafts.memo(draft.draft_id)
            if (base := memo.get("base")) is not None:
                seen = [e for e in entries if e.number <= draft.after_trial]
                yield draft.draft_id, self._context(seen, base, memo)

    def finish(self) -> None:
        """Wait for what is being drafted, for a while; also for what was being drafted when a
        runner that had done all trials was killed."""
        self._take(self.journal.decided())
        waited = 0.0
        while self._open() and self._error is None and waited < FINISH_SECONDS:
            if waited % 10 < WAIT_SECONDS:
                self.say("Level 2: finishing the last draft")
            if STOPPING.wait(WAIT_SECONDS):
                raise StopRequested
            waited += WAIT_SECONDS
        self._raise()
        if self._open():
            self.say(f"LEVEL 2: no answer in {waited:.0f} s; it begins again at the next start")

    def _open(self) -> int:
        """How many drafts are being drafted, or wait for it."""
        return len(self._taken) - self._done

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _keep_base(self, running: Running, steering: Steering) -> None:
        """Keep what is due is written against, as it is now: a killed runner goes on with it, and
        so asks no question twice."""
        memos = [self._drafts.memo(d.draft_id) for d in self._drafts.all(DraftState.DUE)]
        fresh = [memo for memo in memos if memo.get("base") is None]
        if not fresh:
            return
        base = self._base()
        source = running.source or next(
            (e.source for e in base.library if e.name == running.name), ""
        )
        kept = {
            "frozen": sorted(steering.frozen),
            "guidance": steering.guidance,
            "mechanism_name": running.name,
            "mechanism_source": source,
            "mechanism_digest": running.digest,
            "base_commit": base.commit,
            "library": [entry.model_dump() for entry in base.library],
        }
        for memo in fresh:
            memo.put("base", kept)

    def _context(self, seen: list[Entry], base: dict[str, Any], memo: Memo) -> ResearchContext:
        trace = tuple(entry.trial() for entry in seen)
        space, minimize = self.task.space, self.task.minimize
        frozen = frozenset(base["frozen"])
        library = tuple(LibraryEntry.model_validate(entry) for entry in base["library"])
        return ResearchContext(
            **{**base, "frozen": frozen, "library": library},
            trace=trace,
            best=view_of(trace, space, frozen=frozen, minimize=minimize).best,
            space=space,
            minimize=minimize,
            sigma=self.journal.sigma,
            seed=derive(self.journal.seed, seen[-1].number, "research"),
            earlier_runs=self.earlier_runs,
            memo=memo,
        )

    def _begun(self, context: ResearchContext) -> ResearchContext:
        """The context with what had become of earlier drafts when this one was begun."""
        assert context.memo is not None  # noqa: S101 - `_context` gave one
        if (kept := context.memo.get("earlier")) is None:
            kept = {"drafts": self._earlier()}
            context.memo.put("earlier", kept)
        return replace(context, earlier_drafts=tuple(kept["drafts"]))

    def _earlier(self) -> tuple[dict[str, Any], ...]:
        return earlier_drafts(self._drafts.all())

    def _work(self) -> None:
        while True:
            draft_id, context = self._jobs.get()
            try:
                self._draft(draft_id, context)
            except JournalClosed:
                return  # the runner stops; what was due is begun again
            except BaseException as error:  # raised again by the main thread
                self._error = error
            self._done += 1

    def _draft(self, draft_id: str, context: ResearchContext) -> None:
        after = context.trace[-1].number
        context = self._begun(context)
        self.say(f"Level 2 after trial {after}: drafting with {self.researcher.label}")
        try:
            draft = self.researcher.draft(
                context, lambda text: self.say(f"Level 2 after trial {after}: {text}")
            )
            self._check_new(draft)
        except PriorError as error:
            self._come_to_nothing(draft_id, after, error)
            return
        except (BudgetExceeded, JournalClosed):  # a pause: the draft stays due, and goes on
            raise
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            self._not_drafted(draft_id, DraftState.FAILED, why, rule="error")
            raise
        if draft is None:
            self._not_drafted(draft_id, DraftState.NONE, "no mechanism was selected")
            self.say(f"Level 2 after trial {after}: no mechanism was selected")
            return
        self._drafts.drafted(
            draft_id, draft, commit=context.base_commit, digest=context.mechanism_digest
        )
        folder = write_draft(self._folder(after), draft)
        self.say(f"Level 2 after trial {after}: drafted {draft.title!r} ({folder})")
        self.news()

    def _check_new(self, draft: ResearchDraft | None) -> None:
        """Earlier drafts may have been refused meanwhile. Raises PriorError."""
        if draft is None or draft.operator:  # variants of an operator are alike
            return
        path = next(p for p in draft.files if p.startswith("mechanisms/"))
        if why := twin(draft.files[path], self._earlier()):
            error = DraftRefused(why, title=draft.title)
            error.rounds = draft.rounds
            raise error

    def _come_to_nothing(self, draft_id: str, after: int, error: PriorError) -> None:
        if isinstance(error, DraftRefused):
            state, title = DraftState.REFUSED, error.title
            told = f"LEVEL 2 after trial {after}: REFUSED the draft {title!r}: {error}"
        else:
            state, title = DraftState.FAILED, ""
            told = f"LEVEL 2 FAILED after trial {after}: {error}"
        self._not_drafted(draft_id, state, str(error), rule=error.rule, title=title)
        self.say(told)
        write_rounds(self._folder(after), error.rounds, refused=str(error))

    def _not_drafted(
        self, draft_id: str, state: DraftState, reason: str, *, rule: str = "", title: str = ""
    ) -> None:
        told = {"generator": self.researcher.label, "title": title, "rule": rule}
        self._drafts.not_drafted(draft_id, state, reason[:2000], **told)
        self.news()

    def _folder(self, after: int) -> Path:
        return self.journal.folder / "drafts" / f"after_{after:04d}"


def write_rounds(folder: Path, rounds: Sequence[Round], *, refused: str = "") -> None:
    """What was asked and answered, for people: `rounds.json`; why it came to nothing, if so.
    Raises InfrastructureError."""
    body = {"refused": refused, "rounds": [r.model_dump() for r in rounds]}
    _write(folder / "rounds.json", json.dumps(body, indent=1))


def write_draft(folder: Path, draft: ResearchDraft) -> Path:
    """The draft's files below `folder`, for people; only plain paths inside it are written.
    Raises InfrastructureError."""
    for name, text in draft.files.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"a draft names the path {name!r}")
        _write(folder / path, text)
    write_rounds(folder, draft.rounds)
    return folder


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InfrastructureError(
            f"a draft can't be written for people to read ({error}): make room, or mend that "
            "folder, and start again; the journal has it"
        ) from error


def seed_library(folder: Path) -> tuple[LibraryEntry, ...]:
    """The operators in a plain folder: what a run without a platform varies."""
    entries = []
    for path in sorted((folder / "mechanisms").glob("[a-z]*.py")):
        test = folder / "tests" / f"test_{path.name}"
        source = path.read_text(encoding="utf-8")
        entries.append(
            LibraryEntry(
                name=path.stem,
                digest=digest_of(source.encode()),
                source=source,
                test=test.read_text(encoding="utf-8") if test.is_file() else "",
            )
        )
    return tuple(entries)
