"""The model of the gpt-gpu task, at any size; knows torch, no optimizer and no data.

The public 50M-parameter design in our own words: rotary positions, normalised queries and keys,
squared-ReLU MLP, value embeddings on every second layer with a gate, learned mixing of the
residual stream with the embedding, soft-capped logits. Layers with the whole context use torch's
causal kernel. Sliding windows are block masks for its compiled flex attention, or plain masks for
its ordinary one: slower, on every device, and what the evaluation always uses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (torch's own name)
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from runner.gpt.options import TrainingFailure
from runner.gpu.space import Setting

SOFT_CAP = 15.0
ROTARY_BASE = 10_000
GATE_CHANNELS = 32


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
        """Width is depth times aspect ratio, rounded up to whole heads; S sees its own token and
        half a context before it; the last layer sees all."""
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


def near_mask(length: int, window: int) -> Tensor:
    """Which tokens (columns) a token (row) sees: itself and `window` tokens before it."""
    distance = torch.arange(length)[:, None] - torch.arange(length)
    return (distance >= 0) & (distance <= window)


def near_blocks(length: int, window: int, device: torch.device) -> BlockMask:
    """The same as `near_mask`, as blocks for flex attention on `device`."""

    def near(_batch: Tensor, _head: Tensor, token: Tensor, other: Tensor) -> Tensor:
        return (token >= other) & (token - other <= window)

    return create_block_mask(near, None, None, length, length, device=str(device))


def attention(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | BlockMask | None) -> Tensor:
    """Attention over what is `seen`: a mask, blocks, or (None) every token that came before."""
    if isinstance(seen, BlockMask):
        mixed = flex_attention(q, k, v, block_mask=seen)
        assert isinstance(mixed, Tensor)  # noqa: S101 (for the type checker)
        return mixed
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=seen is None)


class Layer(nn.Module):
    """Attention (with a gated value embedding, or without), then an MLP."""

    def __init__(self, shape: Shape, *, valued: bool) -> None:
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

    def forward(
        self,
        x: Tensor,
        values: Tensor | None,
        seen: Tensor | BlockMask | None,
        cos: Tensor,
        sin: Tensor,
    ) -> Tensor:
        """One layer; `values` are the tokens' value embeddings, `seen` is for `attention`."""
        batch, length, width = x.shape
        inside = norm(x)

        def heads(projected: Tensor) -> Tensor:
            return projected.view(batch, length, self.heads, self.head_dim).transpose(1, 2)

        q, k, v = heads(self.query(inside)), heads(self.key(inside)), heads(self.value(inside))
        if self.gate is not None and values is not None:
            gate = 2 * torch.sigmoid(self.gate(inside[..., : self.gated]))
            v = v + gate.transpose(1, 2).unsqueeze(-1) * heads(values)
        q, k = norm(rotated(q, cos, sin)), norm(rotated(k, cos, sin))
        mixed = attention(q.to(v.dtype), k.to(v.dtype), v, seen)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        result: Tensor = x + self.down(F.relu(self.up(norm(x))).square())
        return result


class Model(nn.Module):
    """The language model: token losses (in nats) of targets after inputs."""

    cos: Tensor
    sin: Tensor
    mask: Tensor

    def __init__(self, shape: Shape, *, stream: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.shape = shape
        self.stream = stream  # of the residual stream; parameters are float32
        valued = [i % 2 == (shape.depth - 1) % 2 for i in range(shape.depth)]
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.values = nn.ModuleDict(
            {str(i): nn.Embedding(shape.vocabulary, shape.width) for i, v in enumerate(valued) if v}
        )
        self.layers = nn.ModuleList(Layer(shape, valued=v) for v in valued)
        self.unembedding = nn.Linear(shape.width, shape.vocabulary, bias=False)
        self.residual = nn.Parameter(torch.ones(shape.depth))
        self.shortcut = nn.Parameter(torch.full((shape.depth,), 0.1))
        half = shape.head_dim // 2
        frequency = ROTARY_BASE ** (-torch.arange(half) / half)
        angle = torch.arange(shape.sequence_length)[:, None] * frequency
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)
        self.short = shape.sequence_length // 2
        mask = near_mask(shape.sequence_length, self.short)
        self.register_buffer("mask", mask, persistent=False)
        self.blocks: BlockMask | None = None  # None: windows are masks
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
        near = self.mask if self.blocks is None else self.blocks
        x = start = norm(self.embedding(inputs)).to(self.stream)
        for i, layer in enumerate(self.layers):
            table = self.values[str(i)] if str(i) in self.values else None  # noqa: SIM401
            values = None if table is None else table(inputs).to(self.stream)
            seen = near if self.shape.windows[i] == self.short else None
            x = self.residual[i] * x + self.shortcut[i] * start
            x = layer(x, values, seen, self.cos, self.sin)
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
