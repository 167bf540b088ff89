"""Level 2 without a language model: chooses an approved operator from the diagnosis, and varies it.

Each rule says how well an operator fits a diagnosis, and with which parameters. The draft changes
nothing but those parameters, so that it is recognised by its content as a variant of what people
approved. What was tried before, live or refused, is not proposed again.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from runner.interfaces import ResearchContext, ResearchDraft
from runner.levels.catalog_rules import RULES, SEARCHERS, Diagnosis, Rule, Values
from runner.levels.diagnosis import diagnose
from runner.levels.variation import Number, fresh_name, parameters, stem, vary
from runner.protocol import LibraryEntry, Round

LABEL = "catalog (scripted, not a language model)"
PROMPT_NOTE = "Computed by a script; no language model was asked.\n"
MIN_FIT = 0.15
LIVE_FACTOR = 0.5  # another variant of what runs now is less likely to help
REFUSED_FACTOR = 0.6  # for each earlier draft of that operator which came to nothing
SETTLED_FACTOR = 0.1  # while a model of the whole trace runs and finds better ones: leave it
SETTLED_AGE = 15  # trials without a better one after which it is not left any more
OPEN_FACTOR = 0.4  # for each one that waits, runs or ran: look elsewhere meanwhile
REFUSED_STATES = ("rejected", "failed", "refused", "rolled_back")
ROUND_CHARACTERS = 60_000


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One operator with the values that would be tried, and how well it fits."""

    entry: LibraryEntry
    values: Values
    fit: float
    why: str


class CatalogResearcher:
    """Chooses and varies approved operators. The same context always gives the same draft."""

    label = LABEL

    def draft(
        self, context: ResearchContext, progress: Callable[[str], None] | None = None
    ) -> ResearchDraft | None:
        """A variant of the approved operator that fits best, or None where none fits."""
        tell = progress or (lambda _text: None)
        started = time.monotonic()
        tell("explore: computing the diagnosis")
        diagnosis = diagnose(context)
        choices = sorted(choices_for(context, diagnosis), key=lambda c: (-c.fit, c.entry.name))
        tell(f"critique: {len(choices)} approved operators with new values")
        fitting = [c for c in choices if c.fit >= MIN_FIT]
        if not fitting:
            return None
        choice = fitting[0]
        taken = {e.name for e in context.library} | {
            str(d.get("name", "")) for d in context.earlier_drafts
        }
        name = fresh_name(choice.entry.name, taken)
        tell(f"generate: {name}")
        variant = vary(choice.entry, choice.values, name)
        changed = _changed(choice)
        return ResearchDraft(
            title=f"{name}: {choice.entry.name} with {changed}"[:200],
            summary=_summary(choice, changed, context),
            files={
                f"mechanisms/{name}.py": variant.source,
                f"tests/test_{name}.py": variant.test,
            },
            operator=choice.entry.name,
            parameters=dict(choice.values),
            diagnosis=diagnosis,
            rounds=_rounds(diagnosis, choices, choice, variant.source, time.monotonic() - started),
            generator=LABEL,
        )


def choices_for(context: ResearchContext, diagnosis: Diagnosis) -> list[Choice]:
    """Each approved operator that has a test, with values that were not proposed before."""
    rng = random.Random(f"{context.seed}/{diagnosis['trials']}")  # noqa: S311 - reproducible
    found = []
    for entry in context.library:
        values = parameters(entry.source)
        if not entry.approved:
            continue  # revoked, or never approved: a variant of it would be new code
        if entry.name == "null" or stem(entry.name) != entry.name or not entry.test or not values:
            continue
        rule = RULES.get(entry.name)
        fit, why = rule.fit(diagnosis) if rule else (MIN_FIT, "no rule knows this operator")
        if new := _new_values(context, entry, values, rule=rule, diagnosis=diagnosis, rng=rng):
            factor, notes = _discount(context, entry.name, best_age=diagnosis["best_age"])
            found.append(
                Choice(entry=entry, values=new, fit=round(fit * factor, 4), why=why + notes)
            )
    return found


def _new_values(
    context: ResearchContext,
    entry: LibraryEntry,
    old: Mapping[str, Number],
    *,
    rule: Rule | None,
    diagnosis: Diagnosis,
    rng: random.Random,
) -> Values | None:
    """The suggested values, else nearby ones, that are neither approved nor proposed before."""
    used = [dict(old)]
    used += [
        {**old, **d.get("parameters", {})}
        for d in context.earlier_drafts
        if d.get("operator") == entry.name
    ]
    used += [parameters(e.source) for e in context.library if stem(e.name) == entry.name != e.name]
    suggested = rule.values(diagnosis) if rule else {}
    suggested = {key: value for key, value in suggested.items() if key in old}
    bounds = rule.bounds if rule else {}
    wanted = {**old, **suggested}
    for _ in range(40):
        if wanted not in used:
            return {k: v for k, v in wanted.items() if v != old[k]} or None
        key = rng.choice(sorted(suggested or old))
        wanted = {**wanted, key: _nearby(old[key], bounds.get(key), rng)}
    return None


def _nearby(value: Number, bounds: tuple[Number, Number] | None, rng: random.Random) -> Number:
    """Another value of the same kind, at most twice and at least half as large, in its bounds."""
    new: Number
    if isinstance(value, int):
        new = max(1, value + rng.choice([-2, -1, 1, 2]))
    else:
        new = float(f"{value * rng.choice([0.5, 0.7, 1.3, 1.7]):.3g}")
    return new if bounds is None else min(bounds[1], max(bounds[0], new))


def _discount(context: ResearchContext, name: str, *, best_age: int) -> tuple[float, str]:
    states = [d.get("state") for d in context.earlier_drafts if d.get("operator") == name]
    refused = sum(state in REFUSED_STATES for state in states)
    other = len(states) - refused
    factor, notes = REFUSED_FACTOR**refused * OPEN_FACTOR**other, ""
    if refused:
        notes += f"; {refused} earlier draft(s) of it came to nothing"
    if other:
        notes += f"; {other} earlier draft(s) of it are open or were used"
    if stem(context.mechanism_name) == name:
        factor, notes = factor * LIVE_FACTOR, notes + "; a variant of it runs now"
    if stem(context.mechanism_name) in SEARCHERS and best_age < SETTLED_AGE:
        factor *= SETTLED_FACTOR
        notes += f"; {context.mechanism_name} runs, and found the best {best_age} trials ago"
    return factor, notes


def _changed(choice: Choice) -> str:
    old = parameters(choice.entry.source)
    return ", ".join(f"{k} {old[k]!r} -> {v!r}" for k, v in choice.values.items())


def _summary(choice: Choice, changed: str, context: ResearchContext) -> str:
    return (
        f"A script chose the approved operator `{choice.entry.name}` because {choice.why} "
        f"(fit {choice.fit:.2f}). Against the approved file it changes {changed}, the docstring "
        f"and the name, nothing else. It would replace `{context.mechanism_name}`."
    )


def _rounds(
    diagnosis: Diagnosis, choices: list[Choice], choice: Choice, source: str, seconds: float
) -> tuple[Round, ...]:
    """The four rounds with what the script computed in each; no tokens were spent."""
    listed = [{"operator": c.entry.name, "fit": c.fit, "why": c.why} for c in choices]
    chosen = {"operator": choice.entry.name, "digest": choice.entry.digest}
    steps = {
        "explore": ("Diagnose the trace.", diagnosis),
        "critique": ("Rate each approved operator against the diagnosis.", listed),
        "specify": ("Choose values for the best operator.", {**chosen, "values": choice.values}),
    }
    rounds = [
        Round.model_validate(
            {
                "name": name,
                "prompt": PROMPT_NOTE + task,
                "answer": json.dumps(answer, indent=1)[:ROUND_CHARACTERS],
            }
        )
        for name, (task, answer) in steps.items()
    ]
    task = PROMPT_NOTE + "Write the values and the name into the approved file."
    last = Round(name="generate", prompt=task, answer=source, seconds=round(seconds, 3))
    return (*rounds, last)
