"""A Halton sequence over all free knobs: low discrepancy, no memory, no luck."""

from functools import lru_cache

from sandbox.mechanism import Candidate, Mechanism, View

BUDGET = 16


@lru_cache(maxsize=None)
def primes(count: int) -> tuple[int, ...]:
    found: list[int] = []
    number = 2
    while len(found) < count:
        if all(number % p for p in found):
            found.append(number)
        number += 1
    return tuple(found)


def radical_inverse(index: int, base: int) -> float:
    result, fraction = 0.0, 1.0 / base
    while index > 0:
        index, digit = divmod(index, base)
        result += digit * fraction
        fraction /= base
    return result


class Halton(Mechanism):
    """The first BUDGET trials follow the sequence; then the prior goes on from the best."""

    name = "halton"

    def propose(self, view: View, count: int) -> list[Candidate]:
        if len(view.trace) > BUDGET:
            return view.ask("Refine the best configuration; small steps only.", count)
        names = view.free()
        bases = primes(len(names))
        out: list[Candidate] = []
        index = 20 + 7 * len(view.trace)
        while len(out) < count and index < 2000:
            index += 1
            changes = {n: view.space[n].at(radical_inverse(index, b)) for n, b in zip(names, bases)}
            if not view.space.problems(view.config_of(changes)):
                out.append(Candidate(changes=changes, reason=f"Halton point {index}"))
        return out
