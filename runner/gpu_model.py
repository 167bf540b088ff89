"""The model and optimizers of the gpt-gpu task, at any size; knows torch and no data.

The public 50M-parameter design in our own words: rotary positions, normalised queries and keys,
squared-ReLU MLP, value embeddings on every second layer with a gate, learned mixing of the
residual stream with the embedding, soft-capped logits. Sliding windows are masks for torch's own
attention; layers with the whole context use its causal kernel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (torch's own name)

from runner.gpu_space import Setting
from runner.train_options import TrainingFailure

SOFT_CAP = 15.0
ROTARY_BASE = 10_000
GATE_CHANNELS = 32
NEWTON_SCHULZ = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)
MOMENTUM_START, MOMENTUM, MOMENTUM_STEPS = 0.85, 0.95, 300


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What the knobs make of the model. Windows in tokens, one a layer."""

    depth: int
    width: int
    head_dim: int
    sequence_length: int
    vocabulary: int
    windows: tuple[int, ...]

    @classmethod
    def of(cls, knobs: Mapping[str, Any], setting: Setting, vocabulary: int) -> Shape:
        """Width is depth times aspect ratio, rounded up to whole heads; S sees half the context;
        the last layer sees all of it."""
        depth, head_dim = int(knobs["DEPTH"]), int(knobs["HEAD_DIM"])
        width = -(-depth * int(knobs["ASPECT_RATIO"]) // head_dim) * head_dim
        pattern, length = str(knobs["WINDOW_PATTERN"]), setting.sequence_length
        if not pattern or set(pattern) - {"S", "L"}:
            raise TrainingFailure("constraint", f"WINDOW_PATTERN {pattern!r}: use S and L alone")
        windows = [
            length // 2 if pattern[i % len(pattern)] == "S" else length for i in range(depth)
        ]
        windows[-1] = length
        return cls(
            depth=depth,
            width=width,
            head_dim=head_dim,
            sequence_length=length,
            vocabulary=vocabulary,
            windows=tuple(windows),
        )


def norm(x: Tensor) -> Tensor:
    """Root-mean-square normalisation without parameters."""
    return F.rms_norm(x, (x.size(-1),))


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions over the two halves of each head."""
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos + second * sin, second * cos - first * sin), dim=-1)


class Layer(nn.Module):
    """Attention within a window (with a gated value embedding, or without), then an MLP."""

    mask: Tensor | None

    def __init__(self, shape: Shape, window: int, *, valued: bool) -> None:
        super().__init__()
        width = shape.width
        self.heads, self.head_dim = width // shape.head_dim, shape.head_dim
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)
        self.gated = min(GATE_CHANNELS, width)
        self.gate = nn.Linear(self.gated, self.heads, bias=False) if valued else None
        length = shape.sequence_length
        distance = torch.arange(length)[:, None] - torch.arange(length)
        near = (distance >= 0) & (distance < window)
        self.register_buffer("mask", None if window >= length else near, persistent=False)

    def forward(self, x: Tensor, values: Tensor | None, cos: Tensor, sin: Tensor) -> Tensor:
        """One layer; `values` are the tokens' value embeddings."""
        batch, length, width = x.shape
        inside = norm(x)

        def heads(projected: Tensor) -> Tensor:
            return projected.view(batch, length, self.heads, self.head_dim).transpose(1, 2)

        q, k, v = heads(self.query(inside)), heads(self.key(inside)), heads(self.value(inside))
        if self.gate is not None and values is not None:
            gate = 2 * torch.sigmoid(self.gate(inside[..., : self.gated]))
            v = v + gate.transpose(1, 2).unsqueeze(-1) * heads(values)
        q, k = norm(rotated(q, cos, sin)), norm(rotated(k, cos, sin))
        mixed = F.scaled_dot_product_attention(
            q.to(v.dtype), k.to(v.dtype), v, attn_mask=self.mask, is_causal=self.mask is None
        )
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        result: Tensor = x + self.down(F.relu(self.up(norm(x))).square())
        return result


class Model(nn.Module):
    """The language model: token losses (in nats) of targets after inputs."""

    cos: Tensor
    sin: Tensor

    def __init__(self, shape: Shape, *, stream: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.shape = shape
        self.stream = stream  # of the residual stream; parameters are float32
        valued = [i % 2 == (shape.depth - 1) % 2 for i in range(shape.depth)]
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.values = nn.ModuleDict(
            {str(i): nn.Embedding(shape.vocabulary, shape.width) for i, v in enumerate(valued) if v}
        )
        self.layers = nn.ModuleList(
            Layer(shape, window, valued=v) for window, v in zip(shape.windows, valued, strict=True)
        )
        self.unembedding = nn.Linear(shape.width, shape.vocabulary, bias=False)
        self.residual = nn.Parameter(torch.ones(shape.depth))
        self.shortcut = nn.Parameter(torch.full((shape.depth,), 0.1))
        half = shape.head_dim // 2
        frequency = ROTARY_BASE ** (-torch.arange(half) / half)
        angle = torch.arange(shape.sequence_length)[:, None] * frequency
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        bound = math.sqrt(3 / self.shape.width)
        nn.init.normal_(self.embedding.weight)
        nn.init.normal_(self.unembedding.weight, std=0.001)
        for table in self.values.values():
            assert isinstance(table, nn.Embedding)  # noqa: S101 (for the type checker)
            nn.init.uniform_(table.weight, -bound, bound)
        for layer in self.layers:
            assert isinstance(layer, Layer)  # noqa: S101 (for the type checker)
            for linear in (layer.query, layer.key, layer.value, layer.up):
                nn.init.uniform_(linear.weight, -bound, bound)
            for linear in (layer.out, layer.down, *([layer.gate] if layer.gate else [])):
                nn.init.zeros_(linear.weight)

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of each target in nats, in one row."""
        x = start = norm(self.embedding(inputs)).to(self.stream)
        for i, layer in enumerate(self.layers):
            table = self.values[str(i)] if str(i) in self.values else None  # noqa: SIM401
            values = None if table is None else table(inputs).to(self.stream)
            x = layer(self.residual[i] * x + self.shortcut[i] * start, values, self.cos, self.sin)
        logits = self.unembedding(norm(x)).float()
        logits = SOFT_CAP * torch.tanh(logits / SOFT_CAP)
        return F.cross_entropy(
            logits.view(-1, self.shape.vocabulary), targets.reshape(-1), reduction="none"
        )

    def flops_per_token(self) -> int:
        """Forward and backward, by the usual count: 6 a matrix entry, 12 x width x context a
        layer of attention (half of it for the causal mask is not taken off, as in print)."""
        tables = sum(p.numel() for p in self.values.parameters()) + self.embedding.weight.numel()
        matrices = sum(p.numel() for p in self.parameters()) - tables - 2 * self.shape.depth
        return 6 * matrices + 12 * self.shape.width * sum(self.shape.windows)


class Muon:
    """Nesterov momentum made orthogonal, for matrices of equal shape stacked together; decay
    only where it agrees with the update."""

    def __init__(self, matrices: list[Tensor], *, rate: float, decay: float) -> None:
        self.rate, self.decay = rate, decay
        self.groups: list[tuple[list[Tensor], Tensor]] = []
        for shape in dict.fromkeys(tuple(m.shape) for m in matrices):
            same = [m for m in matrices if tuple(m.shape) == shape]
            self.groups.append((same, torch.zeros_like(torch.stack([m.detach() for m in same]))))
        self.steps = 0

    @torch.no_grad()
    def step(self, scale: float, progress: float) -> None:
        """One update at `scale` times the rate; the decay falls to nothing with `progress`."""
        warm = min(1.0, self.steps / MOMENTUM_STEPS)
        keep = MOMENTUM_START + warm * (MOMENTUM - MOMENTUM_START)
        rate, decay = self.rate * scale, self.decay * (1 - progress)
        for matrices, momentum in self.groups:
            gradient = torch.stack(
                [m.grad if m.grad is not None else torch.zeros_like(m) for m in matrices]
            )
            momentum.lerp_(gradient, 1 - keep)
            update = orthogonal(gradient.lerp(momentum, keep)).to(momentum.dtype)
            by_shape = math.sqrt(max(1.0, update.size(-2) / update.size(-1)))
            for matrix, change in zip(matrices, update, strict=True):
                agrees = (change * matrix) >= 0
                matrix.sub_(rate * by_shape * change + rate * decay * matrix * agrees)
        self.steps += 1


def orthogonal(gradient: Tensor) -> Tensor:
    """The nearest orthogonal matrices, roughly, by five Newton-Schulz steps (bf16 on a card)."""
    x = gradient.bfloat16() if gradient.is_cuda else gradient
    tall = x.size(-2) > x.size(-1)
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * 1.01 + 1e-6)
    for a, b, c in NEWTON_SCHULZ:
        product = x @ x.mT
        x = a * x + (b * product + c * product @ product) @ x
    result: Tensor = x.mT if tall else x
    return result


class Optimizers:
    """Muon for the layers' matrices, AdamW for tables, unembedding and scalars."""

    def __init__(self, model: Model, knobs: Mapping[str, Any]) -> None:
        betas = tuple(float(part) for part in str(knobs["ADAM_BETAS"]).split(","))
        by_width = (model.shape.width / 768) ** -0.5
        tables: list[Tensor] = [*model.embedding.parameters(), *model.values.parameters()]
        scalar = float(knobs["SCALAR_LR"])
        groups: list[tuple[list[Tensor], float, tuple[float, ...]]] = [
            (tables, float(knobs["EMBEDDING_LR"]) * by_width, betas),
            (
                list(model.unembedding.parameters()),
                float(knobs["UNEMBEDDING_LR"]) * by_width,
                betas,
            ),
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
