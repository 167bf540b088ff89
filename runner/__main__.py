"""The runner's command line: `python -m runner run`, `tasks`, `trials` and `drafts`.

Puts the parts together, turns signals into a clean stop and every way to end into an exit code.
"""

from __future__ import annotations

import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from runner import commands, options, summary
from runner.commands import BASELINE, BUDGET, PRIOR, SANDBOX, TOKEN, USAGE
from runner.control.hotload import Loader
from runner.control.local import Local
from runner.control.platform_client import (
    Credentials,
    CredentialsError,
    PlatformClient,
    TokenInvalid,
)
from runner.control.platform_link import Link
from runner.interfaces import BudgetExceeded, PriorError, Task
from runner.levels.level2 import Base, Level2, seed_library
from runner.llm.answers import harmless
from runner.llm.prompting import PromptError
from runner.loop.baseline import BaselineFailed, best_of
from runner.loop.measurements import Measurements, Rules
from runner.loop.search import Control, Plan, Search
from runner.processes.subprocesses import STOPPING, StopRequested
from runner.settings import RunSettings, parts_of, problems_of, remembered_by, task_of
from runner.storage.journal import Journal
from runner.storage.store import JournalError
from runner.tasks import TaskError, all_tasks, get_task
from runner.tasks.describe import of_kinds, of_task
from sandbox.backends import get_backend
from sandbox.backends.base import Backend
from sandbox.errors import InfrastructureError

SEED_LIBRARY = Path(__file__).resolve().parents[1] / "mechanisms_repo"
SIGNAL = 128

EXITS = """
Exit codes: 0 all trials are done; 2 the options, the folder or the credentials can't be used;
3 the platform does not accept the token; 4 a cap of the language models is reached, or what they
cost can't be written down; 5 the prior gives nothing usable any more; 6 this machine can't go on:
no sandbox engine, or three trials in a row that could not be trained on it; 7 the default
configuration can't be trained; 130 and 143 stopped by a signal; 1 an error of the program. After
each of them the same command goes on exactly where it stopped: nothing is lost, nothing is done
twice.
"""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Search for a better configuration of a task, trial by trial, with a mechanism that a "
    "platform governs. See `run --help`.",
)
_printing = threading.Lock()
_signalled: list[int] = []
_told: set[str] = set()


def say(text: str) -> None:
    """One line for people, with the time; whoever wrote it, it moves no terminal."""
    with _printing:
        typer.echo(f"{time.strftime('%H:%M:%S')}  {harmless(text)}")
        sys.stdout.flush()


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def tasks(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Show this task's knobs, and run nothing.")] = "",
) -> None:
    """List the tasks with their options; or, with a task and its options, show its knobs."""
    try:
        made = get_task(name, context.args) if name else None
    except TaskError as error:
        say(f"ERROR: {error}")
        raise typer.Exit(USAGE) from None
    for line in of_task(made) if made else of_kinds(all_tasks()):
        typer.echo(line)


@app.command()
def drafts(
    folder: Annotated[Path, typer.Argument(help="A run's folder, as given to `run --out`.")],
) -> None:
    """Say what became of each draft of a run, and what the language models cost."""
    _list(summary.of_drafts(folder))


@app.command()
def trials(
    folder: Annotated[Path, typer.Argument(help="A run's folder, as given to `run --out`.")],
) -> None:
    """List the trials of a run: what each changed, what it gave, and where it is kept."""
    _list(summary.of_trials(folder))


def _list(lines: Iterator[str]) -> None:
    try:
        for line in lines:
            typer.echo(harmless(line))
    except JournalError as error:
        say(f"ERROR: {error}")
        raise typer.Exit(USAGE) from None


@app.command(
    epilog=EXITS, context_settings={"allow_extra_args": True, "ignore_unknown_options": True}
)
def run(
    context: typer.Context,
    *,
    task: options.Task,
    trials: options.Trials,
    out: options.Out,
    prior: options.Prior = "habit",
    generator: options.Generator = "catalog",
    platform: options.Platform = None,
    seed: options.Seed = None,
    level2_every: options.Level2Every = 10,
    base_url: options.BaseUrl = "",
    model: options.Model = "",
    token_cap: options.TokenCap = 2_000_000,
    fallback: options.Fallback = None,
    price: options.Price = None,
    cost_cap: options.CostCap = None,
    call_seconds: options.CallSeconds = 120.0,
    prompts: options.Prompts = None,
    parallel: options.Parallel = None,
    keep_sigma: options.KeepSigma = None,
    confirmations: options.Confirmations = None,
    repeats: options.Repeats = 3,
    memory: options.Memory = None,
    no_memory: options.NoMemory = False,
) -> None:
    """Search: train the baseline, then trial after trial, and keep what is better.

    Each task takes options of its own (--budget-seconds, --dir ...): `tasks` lists them.

    Stop it at any time, even with kill -9, and start it again with the same command. With
    --platform, the mechanism that the platform wants is verified, loaded into a sandbox worker at
    a trial boundary and attested; without a sandbox engine nothing is loaded and nothing runs.
    """
    settings = _checked(
        task=task,
        task_options=tuple(context.args),
        trials=trials,
        out=out,
        prior=prior,
        generator=generator,
        platform=platform,
        seed=seed,
        level2_every=level2_every,
        base_url=base_url,
        model=model,
        token_cap=token_cap,
        cost_cap=cost_cap,
        prices=tuple(price or ()),
        fallbacks=tuple(fallback or ()),
        call_seconds=call_seconds,
        prompts=prompts,
        parallel=parallel,
        keep_sigma=keep_sigma,
        confirmations=confirmations,
        repeats=repeats,
        memory=_memory_of(out, memory, none=no_memory),
    )
    _catch_signals()
    raise typer.Exit(run_settings(settings))


def _memory_of(out: Path, given: Path | None, *, none: bool) -> Path | None:
    """Where other runs are looked for: beside this one, if nobody says otherwise."""
    if given is not None and (none or not given.is_dir()):
        say(
            "--memory and --no-memory: which one?"
            if none
            else f"--memory: {given} is no folder: name one that holds folders of runs"
        )
        raise typer.Exit(USAGE)
    return None if none else given or out.parent


def _checked(**typed: Any) -> RunSettings:
    """What was typed, if it can be used; else what is wrong with it, and the end."""
    try:
        return RunSettings(**typed)
    except ValidationError as error:
        for line in problems_of(error):
            say(line)
        raise typer.Exit(USAGE) from None


def _sandbox() -> Backend:
    """The engine as it is now. Progress is told once: each load asks again."""
    return get_backend(progress=_told_once)


def _told_once(text: str) -> None:
    if text not in _told:
        _told.add(text)
        say(text)


def run_settings(settings: RunSettings) -> int:
    """Do the run; the exit code."""
    try:
        credentials = Credentials.read(settings.platform) if settings.platform else None
        say(f"preparing task {settings.task}")
        task = task_of(settings)
        with closing(Journal(settings.out)) as journal:
            journal.identify(task=task.name, task_digest=task.digest, seed=settings.seed)
            Measurements(journal).settle(defaults=Rules(), wanted=settings.rules())
            if credentials is None:
                code = _local(settings, task, journal)
            else:
                journal.bind(credentials.public_key)
                code = _linked(settings, task, journal, credentials)
            for line in summary.of_end(settings.out):
                say(line)
            return code
    except (JournalError, CredentialsError, TaskError, PromptError) as error:
        say(f"ERROR: {error}")
        return USAGE
    except BudgetExceeded as error:  # before anything ran: what was spent can't be read
        return _ended(BUDGET, f"PAUSED: {error}")[0]
    except StopRequested:
        return _stopped()


def _local(settings: RunSettings, task: Task, journal: Journal) -> int:
    library = seed_library(SEED_LIBRARY)
    search = _search(
        settings, task, journal, Local(journal), lambda: Base(commit="", library=library)
    )
    say(f"run {journal.run_id} without a platform, seed {journal.seed}, in {settings.out}")
    return _to_the_end(search)[0]


def _linked(settings: RunSettings, task: Task, journal: Journal, credentials: Credentials) -> int:
    client = PlatformClient(credentials)
    loader = Loader(
        _sandbox,
        public_key=credentials.public_key,
        target=credentials.target,
    )
    link = Link(client=client, journal=journal, loader=loader, say=say)

    def base() -> Base:
        desired = link.desired or journal.desired()
        if desired is None:
            raise RuntimeError("Level 2 before any desired state")
        return Base(commit=desired.base_commit, library=tuple(desired.library))

    search = _search(settings, task, journal, link, base, client=client)
    where = f"{credentials.url} as {credentials.runner} for target {credentials.target}"
    say(f"run {journal.run_id} on {where}, seed {journal.seed}, in {settings.out}")
    link.start()
    why = "ended by an error"
    try:
        code, why = _to_the_end(search)
        return code
    finally:
        link.finish(why)
        client.close()


def _search(
    settings: RunSettings,
    task: Task,
    journal: Journal,
    control: Control,
    base: Callable[[], Base],
    *,
    client: PlatformClient | None = None,
) -> Search:
    remembered = remembered_by(settings, task, journal, client)
    say(f"memory: {remembered.told or 'nothing is looked at'}")
    prior, steer, researcher = parts_of(settings, task, say, remembered.runs)
    outer = None
    if researcher is not None:
        outer = Level2(
            journal=journal,
            task=task,
            researcher=researcher,
            base=base,
            every=settings.level2_every,
            say=say,
            news=control.news,
            earlier_runs=remembered.runs,
        )
    search = Search(
        journal=journal,
        task=task,
        prior=prior,
        control=control,
        plan=Plan(
            trials=settings.trials,
            steer_every=settings.steer_every,
            baseline_repeats=settings.repeats,
            final_repeats=settings.repeats,
        ),
        say=say,
        steer=steer,
        outer=outer,
        earlier=remembered.baselines,
    )
    if outer is not None:
        outer.news = search.report_again
    return search


def _to_the_end(search: Search) -> tuple[int, str]:
    """Run the search: an exit code and why it ended, told to the platform as the run's state."""
    try:
        search.run()
    except StopRequested:
        search.report("stopped")
        say("stopped; the same command goes on from here")
        return _stopped(), "stopped"
    except BudgetExceeded as error:
        search.report("stopped")
        return _ended(BUDGET, f"PAUSED, the language model's cap is reached: {error}")
    except PriorError as error:
        search.report("stopped")
        return _ended(PRIOR, f"PAUSED, the prior gives nothing usable: {error}")
    except TokenInvalid as error:
        return _ended(TOKEN, f"TOKEN NOT ACCEPTED: {error}")
    except InfrastructureError as error:
        search.report("stopped")
        return _ended(SANDBOX, f"PAUSED, this machine can't go on: {error}")
    except BaselineFailed as error:
        search.report("failed")
        return _ended(BASELINE, f"FAILED: {error}")
    _tell_best(search)
    return 0, "finished"


def _tell_best(search: Search) -> None:
    """The end of a run: how much was tried, what is best, and where to look."""
    journal = search.journal
    entries = journal.decided()
    best = best_of(entries, minimize=search.task.minimize)
    for line in summary.of_best(journal.folder, entries[0], best, seed=journal.seed):
        say(line)
    folder = shlex.quote(str(journal.folder))
    say(
        f"finished: {search.plan.trials} trials are done; `python -m runner trials {folder}` "
        "lists them"
    )


def _ended(code: int, why: str) -> tuple[int, str]:
    say(why)
    return code, why


def _stopped() -> int:
    """The exit code after a signal, as shells have it."""
    return SIGNAL + (_signalled[0] if _signalled else signal.SIGTERM)


def _catch_signals() -> None:
    """SIGINT and SIGTERM stop at once: the journal is consistent at every moment anyway."""

    def stop(number: int, _frame: FrameType | None) -> None:
        if _signalled:
            return  # it is stopping already
        _signalled.append(number)
        STOPPING.set()
        raise StopRequested

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


commands.register(app, say=say, catch_signals=_catch_signals, stopped=_stopped)

if __name__ == "__main__":
    app()
