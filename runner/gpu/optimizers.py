"""The optimizers of the gpt-gpu task: Muon for the layers' matrices, AdamW for all else.

Muon as the public setting has it: Nesterov momentum, orthogonalised by five Polar Express steps
(arXiv 2505.16932), evened out by rows as in NorMuon (arXiv 2510.05491), decay only where it agrees
with the update. Knows torch and the model, no data and no clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from runner.gpu.model import Model

# Published for five steps; all but the last have a safety factor of 1.02 in them.
POLAR_EXPRESS = (
    (8.15655, -22.48329, 15.87877),
    (4.04293, -2.80892, 0.50002),
    (3.89167, -2.77248, 0.50606),
    (3.28575, -2.36813, 0.46449),
    (2.34654, -1.70978, 0.42324),
)
MOMENTUM_START, MOMENTUM, MOMENTUM_STEPS = 0.85, 0.95, 300
EVENING = 0.95
TUNED_AT_WIDTH = 768  # AdamW's rates are given for this width


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Matrices of one shape, treated as one tensor, and what Muon remembers of them."""

    matrices: list[Tensor]
    momentum: Tensor
    sizes: Tensor  # mean squares of the updates, by row (by column where it is wide)


class Muon:
    """Nesterov momentum made orthogonal, for matrices of equal shape stacked together; decay
    only where it agrees with the update."""

    def __init__(self, matrices: list[Tensor], *, rate: float, decay: float) -> None:
        self.rate, self.decay = rate, decay
        self.stacks = []
        for shape in dict.fromkeys(tuple(m.shape) for m in matrices):
            same = [m for m in matrices if tuple(m.shape) == shape]
            momentum = torch.zeros_like(torch.stack([m.detach() for m in same]))
            sizes = momentum.mean(dim=_along(momentum), keepdim=True)
            self.stacks.append(Stack(matrices=same, momentum=momentum, sizes=sizes))
        self.steps = 0

    @torch.no_grad()
    def step(self, scale: float, progress: float) -> None:
        """One update at `scale` times the rate; the decay falls to nothing with `progress`."""
        warm = min(1.0, self.steps / MOMENTUM_STEPS)
        keep = MOMENTUM_START + warm * (MOMENTUM - MOMENTUM_START)
        decay = self.decay * (1 - progress)
        for stack in self.stacks:
            gradient = torch.stack(
                [m.grad if m.grad is not None else torch.zeros_like(m) for m in stack.matrices]
            )
            stack.momentum.lerp_(gradient, 1 - keep)
            update = orthogonal(gradient.lerp(stack.momentum, keep)).to(gradient.dtype)
            update = evened(update, stack.sizes)
            now = torch.stack(stack.matrices)
            rate = self.rate * scale * math.sqrt(max(1.0, now.size(-2) / now.size(-1)))
            now -= rate * (update + decay * now * (update * now >= 0))
            for matrix, one in zip(stack.matrices, now, strict=True):
                matrix.copy_(one)
        self.steps += 1


def orthogonal(gradient: Tensor) -> Tensor:
    """The nearest orthogonal matrices, roughly (in bf16 on a card)."""
    x = gradient.bfloat16() if gradient.is_cuda else gradient
    tall = x.size(-2) > x.size(-1)
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * 1.02 + 1e-6)
    for a, b, c in POLAR_EXPRESS:
        product = x @ x.mT
        x = a * x + (b * product + c * product @ product) @ x
    result: Tensor = x.mT if tall else x
    return result


def evened(update: Tensor, sizes: Tensor) -> Tensor:
    """`update` with rows (columns of a wide matrix) of more equal size over time, as a whole as
    large as before. `sizes` is brought up to date."""
    mean = update.square().mean(dim=_along(update), keepdim=True)
    sizes.lerp_(mean, 1 - EVENING)
    factor = sizes.clamp_min(1e-10).rsqrt()
    before = mean.sum(dim=(-2, -1), keepdim=True)
    after = (mean * factor.square()).sum(dim=(-2, -1), keepdim=True)
    return update * (factor * (before / after.clamp_min(1e-20)).sqrt())


def _along(stack: Tensor) -> int:
    return -1 if stack.size(-2) >= stack.size(-1) else -2


class Optimizers:
    """Muon for the layers' matrices, AdamW for tables, unembedding and scalars."""

    def __init__(self, model: Model, knobs: Mapping[str, Any]) -> None:
        betas = tuple(float(part) for part in str(knobs["ADAM_BETAS"]).split(","))
        by_width = (model.shape.width / TUNED_AT_WIDTH) ** -0.5
        tables: list[Tensor] = [*model.embedding.parameters(), *model.values.parameters()]
        table_rate = float(knobs["EMBEDDING_LR"]) * by_width
        last_rate = float(knobs["UNEMBEDDING_LR"]) * by_width
        scalar = float(knobs["SCALAR_LR"])
        groups: list[tuple[list[Tensor], float, tuple[float, ...]]] = [
            (tables, table_rate, betas),
            (list(model.unembedding.parameters()), last_rate, betas),
            ([model.residual], scalar * 0.01, betas),
            ([model.shortcut], scalar, (0.96, 0.95)),
        ]
        self.rates = [rate for _, rate, _ in groups]
        self.adam = torch.optim.AdamW(
            [{"params": p, "lr": r, "betas": b} for p, r, b in groups],
            eps=1e-10,
            weight_decay=0.0,
            fused=model.residual.is_cuda,
        )
        self.muon = Muon(
            list(model.layers.parameters()),
            rate=float(knobs["MATRIX_LR"]),
            decay=float(knobs["WEIGHT_DECAY"]),
        )

    def step(self, scale: float, progress: float) -> None:
        """One update of everything at `scale` times each rate."""
        for group, rate in zip(self.adam.param_groups, self.rates, strict=True):
            group["lr"] = rate * scale
        self.adam.step()
        self.muon.step(scale, progress)
