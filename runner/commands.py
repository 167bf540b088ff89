"""More commands of `python -m runner`: `record`, `arms`, `import-trace`. Options and exit codes
alone; the work is done where each is at home.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from runner.foreign import ForeignError, read_foreign, write_trials
from runner.gpt.corpus import CorpusError
from runner.interfaces import BudgetExceeded, PriorError
from runner.llm.prompting import PromptError
from runner.loop.baseline import BaselineFailed
from runner.options import folder
from runner.processes.subprocesses import StopRequested
from runner.settings import problems_of
from runner.storage.store import JournalError
from runner.surfaces.recipe import RecipeError, read_recipe
from runner.tasks import TaskError
from runner.tasks.base import ROOT
from sandbox.errors import InfrastructureError

FAILED, USAGE, TOKEN, BUDGET, PRIOR, SANDBOX, BASELINE = range(1, 8)  # exit codes of all commands
RECIPE = ROOT / "runner" / "surfaces" / "gpt-cpu.recipe.json"
Say = Callable[[str], None]


def register(
    app: typer.Typer, *, say: Say, catch_signals: Callable[[], None], stopped: Callable[[], int]
) -> None:
    """Add the commands. `stopped` is the exit code after a signal."""
    _add_record(app, say)
    _add_import(app, say)
    _add_arms(app, say, catch_signals, stopped)


def _add_record(app: typer.Typer, say: Say) -> None:
    @app.command()
    def record(
        *,
        out: Annotated[
            Path,
            typer.Option(
                parser=folder, metavar="<path>", help="The packed surface; its parts lie beside it."
            ),
        ],
        recipe: Annotated[
            Path, typer.Option(help="Knobs, levels, budget, seed and repeats, as JSON.")
        ] = RECIPE,
        workers: Annotated[int, typer.Option(min=1, max=256, help="Trainings at once.")] = 1,
    ) -> None:
        """Record a surface: train every point of a grid, for the task `table`.

        Each result is kept as it comes: stop it at any time, even with kill -9, and start it again
        with the same command. The budget is processor time, so that a busy host does no harm.
        """
        from runner.recording import RecordingError  # noqa: PLC0415
        from runner.recording import record as do  # noqa: PLC0415

        try:
            cache = Path(os.environ.get("ESCAPEMENT_VAR", ROOT / "var")) / "corpus"
            found = read_recipe(recipe)
            digest = do(found, out=out, cache=cache, workers=workers, say=say)
        except (RecipeError, RecordingError, CorpusError) as error:
            say(f"ERROR: {error}")
            raise typer.Exit(USAGE) from None
        size = out.stat().st_size
        say(f"recorded {found.points} points: {out}, {size} bytes, digest {digest}")


def _add_import(app: typer.Typer, say: Say) -> None:
    @app.command(name="import-trace")
    def import_trace(
        file: Annotated[Path, typer.Argument(help="A results.tsv, or JSON lines with a metric.")],
        *,
        out: Annotated[
            Path | None,
            typer.Option(
                parser=folder,
                metavar="<path>",
                help="Where the trials go as JSON lines. Default: nowhere.",
            ),
        ] = None,
        maximize: Annotated[bool, typer.Option("--maximize", help="Higher is better.")] = False,
    ) -> None:
        """Read a trace of another system: its trials as JSON lines, and a summary.

        Every row is a trial or is counted and named as broken. Exit code 1 where some are broken,
        2 where the file is no trace.
        """
        try:
            found = read_foreign(file, minimize=not maximize)
            if out is not None:
                write_trials(found, out)
        except ForeignError as error:
            say(f"ERROR: {error}")
            raise typer.Exit(USAGE) from None
        typer.echo(json.dumps(found.to_data(), indent=1))
        if found.broken_count:
            say(f"{found.broken_count} rows are broken; see above")
            raise typer.Exit(FAILED)


ArmsOut = Annotated[
    Path,
    typer.Option(
        parser=folder, metavar="<path>", help="The ablation's folder; what is there goes on."
    ),
]
Letters = Annotated[str, typer.Option(help="Which, in this order.")]
Trials = Annotated[int, typer.Option(help="Trainings of each arm in a repeat.")]
Repeats = Annotated[int, typer.Option(help="Repeats, each with a seed of its own.")]
Seed = Annotated[int, typer.Option(help="All randomness derives from it.")]
Every = Annotated[int, typer.Option(help="Arms C and D: draft after every so many trials.")]
First = Annotated[bool, typer.Option("--level2-first", help="C and D: draft before trial 1 too.")]
Keep = Annotated[float, typer.Option(help="Keep gains above so many sigmas; 0: any gain.")]
Confirm = Annotated[int, typer.Option(help="Trainings to confirm a smaller gain; they count.")]
Target = Annotated[
    float | None, typer.Option(help="A metric to reach. Default: a sigma from a known optimum.")
]
Beside = Annotated[list[Path] | None, typer.Option(help="A foreign trace to show. Repeatable.")]
Higher = Annotated[
    list[Path] | None, typer.Option(help="The same, where higher is better. Repeatable.")
]
PriorName = Annotated[str, typer.Option(help="Level 1: `habit` or `openai`.")]
GeneratorName = Annotated[str, typer.Option(help="Level 2: `catalog` or `openai`.")]
Url = Annotated[str, typer.Option(help="The OpenAI-compatible endpoint.")]
Model = Annotated[str, typer.Option(help="The language model's name there.")]
Sandbox = Annotated[str, typer.Option(help="Where mechanisms are screened and run.")]


def _add_arms(
    app: typer.Typer, say: Say, catch_signals: Callable[[], None], stopped: Callable[[], int]
) -> None:
    @app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
    def arms(
        context: typer.Context,
        *,
        task: Annotated[str, typer.Option(help="What to search on; `tasks` lists them.")],
        out: ArmsOut,
        arms: Letters = "A,B,C,D,R,P,T,G,E,S,U",
        trials: Trials = 30,
        repeats: Repeats = 10,
        seed: Seed = 0,
        level2_every: Every = 10,
        level2_first: First = False,
        keep_sigma: Keep = 2.0,
        confirmations: Confirm = 1,
        target: Target = None,
        beside: Beside = None,
        beside_maximize: Higher = None,
        prior: PriorName = "habit",
        generator: GeneratorName = "catalog",
        base_url: Url = "",
        model: Model = "",
        sandbox: Sandbox = "bubblewrap",
    ) -> None:
        """Compare: A Level 1, B with 1.5, C with 1.5 and 2, D with 2, R restarted, P a placebo,
        T TPE, G GP, E CMA-ES, S batch line search then TPE, U random.

        Equal budgets, seeds and baselines. Mechanisms go through the real gate, approved by a
        policy made for this command and labelled so, and are loaded into sandbox workers. Stop it
        at any time, even with kill -9: the same command goes on. On a recorded surface (`--task
        table`) the same seeds give the same files.
        """
        given = {name: value for name, value in locals().items() if name in _OF_ARMS | _OF_RUN}
        catch_signals()
        with _told(say, stopped):
            run = {name: value for name, value in given.items() if name in _OF_RUN}
            own = {name: value for name, value in given.items() if name in _OF_ARMS}
            run["task_options"] = tuple(context.args)
            _arms({**own, "run": run}, beside or [], beside_maximize or [], say)


_OF_RUN = frozenset({"task", "out", "trials", "level2_every"}) | frozenset(
    {"prior", "generator", "base_url", "model"}
)
_OF_ARMS = frozenset({"arms", "repeats", "seed", "level2_first", "keep_sigma"}) | frozenset(
    {"confirmations", "target", "sandbox"}
)


def _arms(given: Mapping[str, Any], lower: list[Path], higher: list[Path], say: Say) -> None:
    from runner.arms.command import ArmsSettings, run_arms  # noqa: PLC0415 - numpy, scipy

    settings = ArmsSettings.model_validate(given)
    beside = [read_foreign(path) for path in lower]
    beside += [read_foreign(path, minimize=False) for path in higher]
    run_arms(settings, beside=tuple(beside), say=say)


@contextmanager
def _told(say: Say, stopped: Callable[[], int]) -> Iterator[None]:
    """Turns every way to end into a line and an exit code."""
    from runner.arms.spec import ArmsError  # noqa: PLC0415

    try:
        yield
    except ValidationError as error:
        for line in problems_of(error):
            say(line)
        raise typer.Exit(USAGE) from None
    except (ArmsError, TaskError, JournalError, ForeignError, PromptError) as error:
        say(f"ERROR: {error}")
        raise typer.Exit(USAGE) from None
    except BudgetExceeded as error:
        say(f"PAUSED, the language model's cap is reached: {error}")
        raise typer.Exit(BUDGET) from None
    except PriorError as error:
        say(f"PAUSED, the prior gives nothing usable: {error}")
        raise typer.Exit(PRIOR) from None
    except BaselineFailed as error:
        say(f"FAILED: {error}")
        raise typer.Exit(BASELINE) from None
    except InfrastructureError as error:
        say(f"PAUSED, the sandbox can't be used: {error}")
        raise typer.Exit(SANDBOX) from None
    except OSError as error:  # a full disk, a folder that somebody took away
        say(f"FAILED: {error}: mend that, and the same command goes on from here")
        raise typer.Exit(FAILED) from None
    except StopRequested:
        say("stopped; the same command goes on from here")
        raise typer.Exit(stopped()) from None
