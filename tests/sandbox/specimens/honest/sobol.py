"""Sobol points of the first dimensions with hand-kept direction numbers, scrambled by XOR."""

from sandbox.mechanism import Candidate, Mechanism, View

BITS = 16
# (degree, coefficients, initial direction numbers), after Joe and Kuo.
TABLE = [
    (1, 0, [1]),
    (2, 1, [1, 3]),
    (3, 1, [1, 3, 1]),
    (3, 2, [1, 1, 1]),
    (4, 1, [1, 1, 3, 3]),
    (4, 4, [1, 3, 5, 13]),
    (5, 2, [1, 1, 5, 5, 17]),
    (5, 4, [1, 1, 5, 5, 5]),
    (5, 7, [1, 1, 7, 11, 19]),
]


def directions(dimension: int) -> list[int]:
    if dimension == 0:
        return [1 << (BITS - i - 1) for i in range(BITS)]
    degree, coefficients, initial = TABLE[(dimension - 1) % len(TABLE)]
    v = [m << (BITS - i - 1) for i, m in enumerate(initial)]
    for i in range(degree, BITS):
        value = v[i - degree] ^ (v[i - degree] >> degree)
        for k in range(1, degree):
            if (coefficients >> (degree - 1 - k)) & 1:
                value ^= v[i - k]
        v.append(value)
    return v


def point(index: int, dimension: int, scramble: int) -> float:
    gray = index ^ (index >> 1)
    x = scramble
    for bit, direction in enumerate(directions(dimension)):
        if gray >> bit & 1:
            x ^= direction
    return x / (1 << BITS)


class Sobol(Mechanism):
    name = "sobol"

    def propose(self, view: View, count: int) -> list[Candidate]:
        names = view.free()
        scramble = [view.random.getrandbits(BITS) for _ in names]
        picked = []
        for index in range(1, 200):
            where = {n: point(index + len(view.trace), d, s) for d, (n, s) in enumerate(zip(names, scramble))}
            # Half way between the best and the point: designs of whole spaces lose too much.
            changes = {
                n: view.space[n].at(0.5 * (p + view.space[n].position(view.best.config[n])))
                for n, p in where.items()
            }
            if not view.space.problems(view.config_of(changes)):
                picked.append(Candidate(changes=changes, reason="scrambled Sobol point"))
            if len(picked) == count:
                break
        return picked or view.ask(count=count)
