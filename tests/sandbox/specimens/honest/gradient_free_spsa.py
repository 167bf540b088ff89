"""Simultaneous perturbation: all knobs move at once, along a random sign vector and back."""

from __future__ import annotations

import json
from contextlib import suppress
from decimal import Decimal
from fractions import Fraction
from hashlib import sha256

from sandbox.mechanism import Candidate, Mechanism, View

A, C = Fraction(1, 5), Decimal("0.08")


def fingerprint(config) -> str:
    return sha256(json.dumps(dict(config), sort_keys=True).encode()).hexdigest()[:12]


class Spsa(Mechanism):
    name = "spsa"

    def propose(self, view: View, count: int) -> list[Candidate]:
        names = [n for n in view.free() if view.space[n].kind == "float"]
        gain = float(A) / (len(view.trace) + 1) ** 0.602 + float(C)
        seen = {fingerprint(t.config) for t in view.trace}
        found = []
        for turn in range(20 * count):
            signs = {n: view.random.choice((-1, 1)) for n in names}
            changes = {}
            for n, s in signs.items():
                with suppress(KeyError):
                    changes[n] = view.space[n].at(view.space[n].position(view.best.config[n]) + s * gain)
            changes = {n: v for n, v in changes.items() if v != view.best.config[n]}
            config = view.config_of(changes)
            if changes and not view.space.problems(config) and (key := fingerprint(config)) not in seen:
                seen.add(key)
                found.append(Candidate(changes=changes, reason=f"perturbation {turn}: {gain:.3f}"))
            if len(found) == count:
                break
        return found or view.ask(count=count)
