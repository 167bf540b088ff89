"""The runner's command line: `python -m runner run ...` and `python -m runner tasks`.

Puts the parts together, turns signals into a clean stop and every way to end into an exit code.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from pydantic import ValidationError

from runner import commands, summary
from runner.baseline import BaselineFailed
from runner.borders import BudgetExceeded, PriorError, Task
from runner.hotload import Loader
from runner.journal import Journal
from runner.level2 import Base, Level2, seed_library
from runner.link import Link
from runner.local import Local
from runner.measurements import Measurements, Rules
from runner.platform_client import Credentials, CredentialsError, PlatformClient, TokenInvalid
from runner.prompting import PromptError
from runner.search import Control, Plan, Search
from runner.settings import RunSettings, parts_of, remembered_by, task_of
from runner.store import JournalError
from runner.subprocesses import STOPPING, StopRequested
from runner.tasks import TaskError, all_tasks, get_task
from runner.tasks.describe import of_kinds, of_task
from sandbox.backends import get_backend
from sandbox.backends.base import Backend
from sandbox.errors import InfrastructureError

SEED_LIBRARY = Path(__file__).resolve().parents[1] / "mechanisms_repo"
USAGE, TOKEN, BUDGET, PRIOR, SANDBOX, BASELINE = 2, 3, 4, 5, 6, 7
SIGNAL = 128

EXITS = """
Exit codes: 0 all trials are done; 2 the options, the folder or the credentials can't be used;
3 the platform does not accept the token; 4 the language model's token cap is reached; 5 the prior
gives nothing usable any more; 6 the sandbox engine can't be used; 7 the default configuration
can't be trained; 130 and 143 stopped by a signal; 1 an error of the program. After each of them
the same command goes on exactly where it stopped: nothing is lost, nothing is done twice.
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
    """One line for people, with the time."""
    with _printing:
        typer.echo(f"{time.strftime('%H:%M:%S')}  {text}")
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
    try:
        for line in summary.of_drafts(folder):
            typer.echo(line)
    except JournalError as error:
        say(f"ERROR: {error}")
        raise typer.Exit(USAGE) from None


@app.command(
    epilog=EXITS, context_settings={"allow_extra_args": True, "ignore_unknown_options": True}
)
def run(
    context: typer.Context,
    *,
    task: Annotated[str, typer.Option(help="What to search on; `tasks` lists them.")],
    trials: Annotated[int, typer.Option(help="Trials beside the baseline (trial 0).")],
    out: Annotated[
        Path, typer.Option(help="The run's folder. A folder with a run in it is resumed.")
    ],
    prior: Annotated[
        str,
        typer.Option(help="What proposes (Level 1): `habit`, a script, or `openai`, any endpoint."),
    ] = "habit",
    generator: Annotated[
        str,
        typer.Option(help="What drafts mechanisms (Level 2): `catalog`, a script, or `openai`."),
    ] = "catalog",
    platform: Annotated[
        Path | None,
        typer.Option(
            help="The file of `manage.py register_runner`. Without it the null mechanism runs "
            "and drafts are only written to the folder."
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="All randomness derives from it. Default: 0, or the run's.")
    ] = None,
    level2_every: Annotated[
        int, typer.Option(help="Draft a mechanism after every so many trials; 0: never.")
    ] = 10,
    base_url: Annotated[
        str, typer.Option(help="The OpenAI-compatible endpoint; its key: ESCAPEMENT_LLM_KEY.")
    ] = "",
    model: Annotated[str, typer.Option(help="The language model's name there.")] = "",
    token_cap: Annotated[
        int, typer.Option(help="Tokens that the language model may cost in all.")
    ] = 2_000_000,
    fallback: Annotated[
        list[str] | None,
        typer.Option(
            help="MODEL@BASE_URL: asked where the one before gives nothing usable, said and "
            "counted each time; its key: ESCAPEMENT_LLM_KEY_1, _2 ... May be repeated."
        ),
    ] = None,
    price: Annotated[
        list[str] | None,
        typer.Option(help="PROMPT,ANSWER: what a million tokens cost, once for each model."),
    ] = None,
    cost_cap: Annotated[
        float | None, typer.Option(help="Money that the language models may cost in all.")
    ] = None,
    call_seconds: Annotated[
        float, typer.Option(help="Deadline of one call of a language model.")
    ] = 120.0,
    prompts: Annotated[
        Path | None, typer.Option(help="A folder of prompts in place of runner/prompts.")
    ] = None,
    parallel: Annotated[
        int | None, typer.Option(help="Trainings at once. Default: 1, or the run's.")
    ] = None,
    keep_sigma: Annotated[
        float | None,
        typer.Option(
            help="Keep a trial whose gain is above so many sigmas of the noise (0: any gain). "
            "Default: 2, or the run's."
        ),
    ] = None,
    confirmations: Annotated[
        int | None,
        typer.Option(
            help="Trainings that a smaller gain may be given to prove itself. Default: 1, or the "
            "run's."
        ),
    ] = None,
    repeats: Annotated[
        int, typer.Option(help="Trainings of the baseline, and of the best anew at the end.")
    ] = 3,
    memory: Annotated[
        Path | None,
        typer.Option(help="Where runs are: those of this task are remembered. Default: beside."),
    ] = None,
    no_memory: Annotated[
        bool, typer.Option("--no-memory", help="Remember no other run, and pool no baseline.")
    ] = False,
) -> None:
    """Search: train the baseline, then trial after trial, and keep what is better.

    Each task takes options of its own (--budget-seconds, --dir ...): `tasks` lists them.

    Stop it at any time, even with kill -9, and start it again with the same command. With
    --platform, the mechanism that the platform wants is verified, loaded into a sandbox worker at
    a trial boundary and attested; without a sandbox engine nothing is loaded and nothing runs.
    """
    try:
        settings = RunSettings(
            task=task,
            task_options=tuple(context.args),
            trials=trials,
            out=out,
            prior=prior,  # type: ignore[arg-type]  # pydantic checks it
            generator=generator,  # type: ignore[arg-type]
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
            memory=None if no_memory else memory or out.parent,
        )
    except ValidationError as error:
        for problem in error.errors():
            where = "-".join(str(part).replace("_", "-") for part in problem["loc"])
            say(f"--{where}: {problem['msg']}" if where else str(problem["msg"]))
        raise typer.Exit(USAGE) from None
    _catch_signals()
    raise typer.Exit(run_settings(settings))


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
                return _local(settings, task, journal)
            journal.bind(credentials.public_key)
            return _linked(settings, task, journal, credentials)
    except (JournalError, CredentialsError, TaskError, PromptError) as error:
        say(f"ERROR: {error}")
        return USAGE
    except StopRequested:
        return SIGNAL + _signalled[0]


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
    return Search(
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


def _to_the_end(search: Search) -> tuple[int, str]:
    """Run the search: an exit code and why it ended, told to the platform as the run's state."""
    try:
        search.run()
    except StopRequested:
        search.report("stopped")
        say("stopped; the same command goes on from here")
        return SIGNAL + (_signalled[0] if _signalled else signal.SIGTERM), "stopped"
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
        return _ended(SANDBOX, f"PAUSED, the sandbox can't be used: {error}")
    except BaselineFailed as error:
        search.report("failed")
        return _ended(BASELINE, f"FAILED: {error}")
    say(f"finished: {search.plan.trials} trials are done")
    return 0, "finished"


def _ended(code: int, why: str) -> tuple[int, str]:
    say(why)
    return code, why


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


commands.register(app, say=say, catch_signals=_catch_signals)

if __name__ == "__main__":
    app()
