"""The options of `run` for Typer: the type of each and its help. Checks: `runner.settings`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def folder(text: str) -> Path:
    """A place that was named. Raises BadParameter for "", which would be the folder one is in."""
    if not text.strip():
        raise typer.BadParameter("it is empty: name a place")
    return Path(text)


Task = Annotated[str, typer.Option(help="What to search on; `tasks` lists them.")]
Trials = Annotated[int, typer.Option(help="Trials beside the baseline (trial 0).")]
Out = Annotated[
    Path,
    typer.Option(
        parser=folder, metavar="<path>", help="The run's folder. A run that is in it is resumed."
    ),
]
Prior = Annotated[
    str,
    typer.Option(help="What proposes (Level 1): `habit`, a script, or `openai`, any endpoint."),
]
Generator = Annotated[
    str,
    typer.Option(help="What drafts mechanisms (Level 2): `catalog`, a script, or `openai`."),
]
Platform = Annotated[
    Path | None,
    typer.Option(
        parser=folder,
        metavar="<path>",
        help="The file of `manage.py register_runner`. Without it the null mechanism runs "
        "and drafts are only written to the folder.",
    ),
]
Seed = Annotated[
    int | None, typer.Option(help="All randomness derives from it. Default: 0, or the run's.")
]
Level2Every = Annotated[
    int, typer.Option(help="Draft a mechanism after every so many trials; 0: never.")
]
BaseUrl = Annotated[
    str, typer.Option(help="The OpenAI-compatible endpoint; its key: ESCAPEMENT_LLM_KEY.")
]
Model = Annotated[str, typer.Option(help="The language model's name there.")]
TokenCap = Annotated[int, typer.Option(help="Tokens that the language model may cost in all.")]
Fallback = Annotated[
    list[str] | None,
    typer.Option(
        help="MODEL@BASE_URL: asked where the one before gives nothing usable, said and "
        "counted each time; its key: ESCAPEMENT_LLM_KEY_1, _2 ... May be repeated."
    ),
]
Price = Annotated[
    list[str] | None,
    typer.Option(help="PROMPT,ANSWER: what a million tokens cost, once for each model."),
]
CostCap = Annotated[
    float | None, typer.Option(help="Money that the language models may cost in all.")
]
CallSeconds = Annotated[float, typer.Option(help="Deadline of one call of a language model.")]
Prompts = Annotated[
    Path | None,
    typer.Option(
        parser=folder, metavar="<path>", help="A folder of prompts in place of runner/llm/prompts."
    ),
]
Parallel = Annotated[int | None, typer.Option(help="Trainings at once. Default: 1, or the run's.")]
KeepSigma = Annotated[
    float | None,
    typer.Option(
        help="Keep a trial whose gain is above so many sigmas of the noise (0: any gain). "
        "Default: 2, or the run's."
    ),
]
Confirmations = Annotated[
    int | None,
    typer.Option(
        help="Trainings that a smaller gain may be given to prove itself. Default: 1, or the run's."
    ),
]
Repeats = Annotated[
    int, typer.Option(help="Trainings of the baseline, and of the best anew at the end.")
]
Memory = Annotated[
    Path | None,
    typer.Option(
        parser=folder,
        metavar="<path>",
        help="A folder of runs: those of this task are remembered. Default: the one that --out "
        "is in.",
    ),
]
NoMemory = Annotated[
    bool, typer.Option("--no-memory", help="Remember no other run, and pool no baseline.")
]
