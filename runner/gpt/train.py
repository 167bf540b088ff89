"""A small GPT trainer on bytes, in torch. Run as `python -m runner.gpt.train`.

Trains one configuration for a time budget and prints summary lines (`val_bpb: 3.412`). On a CPU
the budget counts processor seconds, not wall time, so that what else runs on the host does not
change a trial's result; whoever starts this process sets the deadline in wall time. It decides
nothing about the search, and retries nothing: a failure is a line, a message and an exit code.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (torch's own name)

from runner.gpt.corpus import CorpusError, prepare, read
from runner.gpt.fused import capped_loss, mix, norm, rotary, squared_mlp
from runner.gpt.options import EXIT_CODES, TrainingFailure, checked_knobs, parse
from runner.gpt.space import SEQUENCE_LENGTH

VOCABULARY = 256
VALIDATION_SEQUENCES = 256
SOFT_CAP = 15.0
MUON_MOMENTUM = 0.95
NAN_ABOVE = 100.0
PROGRESS_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What the knobs make of the model."""

    depth: int
    width: int
    head_dim: int
    windows: tuple[int, ...]

    @classmethod
    def of(cls, knobs: Mapping[str, Any]) -> Shape:
        """Width is depth times aspect ratio, rounded up to whole heads (as in nanochat)."""
        depth, head_dim = int(knobs["DEPTH"]), int(knobs["HEAD_DIM"])
        width = -(-depth * int(knobs["ASPECT_RATIO"]) // head_dim) * head_dim
        pattern = str(knobs["WINDOW_PATTERN"])
        sizes = {"L": SEQUENCE_LENGTH, "S": SEQUENCE_LENGTH // 4}
        if not pattern or set(pattern) - set(sizes):
            raise TrainingFailure("constraint", f"WINDOW_PATTERN {pattern!r}: use S and L alone")
        windows = [sizes[pattern[i % len(pattern)]] for i in range(depth)]
        if len(pattern) > 1:
            windows[-1] = SEQUENCE_LENGTH
        return cls(depth=depth, width=width, head_dim=head_dim, windows=tuple(windows))


class Block(nn.Module):
    """Attention within a window, then a squared-ReLU MLP; both on normalised input."""

    mask: Tensor | None

    def __init__(self, shape: Shape, window: int) -> None:
        super().__init__()
        self.heads, self.head_dim = shape.width // shape.head_dim, shape.head_dim
        self.qkv = nn.Linear(shape.width, 3 * shape.width, bias=False)
        self.out = nn.Linear(shape.width, shape.width, bias=False)
        self.up = nn.Linear(shape.width, 4 * shape.width, bias=False)
        self.down = nn.Linear(4 * shape.width, shape.width, bias=False)
        distance = torch.arange(SEQUENCE_LENGTH)[:, None] - torch.arange(SEQUENCE_LENGTH)
        hidden = (distance < 0) | (distance >= window)
        mask = torch.zeros(hidden.shape).masked_fill_(hidden, -math.inf)
        self.register_buffer("mask", None if window >= SEQUENCE_LENGTH else mask)

    def forward(self, x: Tensor, turns: Tensor) -> Tensor:
        """One layer; `turns` are the rotary positions of queries and keys."""
        q, k, v = rotary(self.qkv(norm(x)), turns, self.heads)
        mixed = F.scaled_dot_product_attention(
            q, k, v, attn_mask=self.mask, is_causal=self.mask is None
        )
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + squared_mlp(norm(x), self.up.weight, self.down.weight)


class GPT(nn.Module):
    """The model. Per-layer scalars mix the residual stream and the embedding into each layer."""

    turns: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, shape.width)
        self.blocks = nn.ModuleList(Block(shape, window) for window in shape.windows)
        self.unembedding = nn.Linear(shape.width, VOCABULARY, bias=False)
        self.residual = nn.Parameter(torch.ones(shape.depth))
        self.shortcut = nn.Parameter(torch.full((shape.depth,), 0.1))
        half = shape.head_dim // 2
        frequency = 10_000 ** (-torch.arange(half) / half)
        angle = torch.arange(SEQUENCE_LENGTH)[:, None] * frequency
        turns = torch.polar(torch.ones_like(angle), -angle)
        self.register_buffer("turns", turns.repeat(1, 2 * shape.width // shape.head_dim))
        self._initialise(shape)

    def _initialise(self, shape: Shape) -> None:
        bound, half = math.sqrt(3 / shape.width), shape.head_dim // 2
        nn.init.normal_(self.embedding.weight)
        nn.init.normal_(self.unembedding.weight, std=0.001)
        for block in self.blocks:
            assert isinstance(block, Block)  # noqa: S101 (for the type checker)
            nn.init.uniform_(block.qkv.weight, -bound, bound)
            with torch.no_grad():  # pairs side by side: what queries and keys give stays the same
                qk = block.qkv.weight[: 2 * shape.width].view(-1, 2, half, shape.width)
                qk.copy_(qk.transpose(1, 2).reshape(qk.shape))
            nn.init.uniform_(block.up.weight, -bound, bound)
            nn.init.zeros_(block.out.weight)
            nn.init.zeros_(block.down.weight)

    def features(self, inputs: Tensor) -> Tensor:
        """What the logits for the next byte are read from."""
        x = start = F.embedding(inputs, norm(self.embedding.weight))
        for i, block in enumerate(self.blocks):
            x = block(mix(self.residual[i], x, self.shortcut[i], start), self.turns)
        return norm(x)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits for the next byte, softly capped."""
        return SOFT_CAP * torch.tanh(self.unembedding(self.features(inputs)) / SOFT_CAP)

    def loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """The mean cross entropy of those logits, in nats."""
        x, weight = self.features(inputs).flatten(0, 1), self.unembedding.weight
        return capped_loss(x, weight, targets.flatten(), SOFT_CAP)


class Muon:
    """Momentum, orthogonalised by Newton-Schulz steps, for matrices; decoupled weight decay."""

    def __init__(self, matrices: list[Tensor], *, rate: float, decay: float) -> None:
        self.matrices, self.rate, self.decay = matrices, rate, decay
        self.momentum = [torch.zeros_like(m) for m in matrices]
        self.stacks: dict[tuple[int, ...], list[int]] = {}
        for i, matrix in enumerate(matrices):
            self.stacks.setdefault(tuple(sorted(matrix.shape)), []).append(i)

    @torch.no_grad()
    def step(self, scale: float) -> None:
        """One update at `scale` times the rate."""
        rate = self.rate * scale
        gradients = [m.grad for m in self.matrices if m.grad is not None]
        torch._foreach_lerp_(self.momentum, gradients, 1 - MUON_MOMENTUM)
        ahead = torch._foreach_lerp(gradients, self.momentum, MUON_MOMENTUM)
        for members in self.stacks.values():
            for i, update in zip(members, _orthogonal([ahead[i] for i in members]), strict=True):
                matrix = self.matrices[i]
                ratio = math.sqrt(max(1.0, matrix.size(0) / matrix.size(1)))
                matrix.mul_(1 - rate * self.decay).add_(update, alpha=-rate * ratio)


def _orthogonal(gradients: list[Tensor]) -> list[Tensor]:
    """Nearly orthogonal matrices of `gradients`, which have one shape but for transposition."""
    tall = [g.size(0) > g.size(1) for g in gradients]
    x = torch.stack([g.T if t else g for g, t in zip(gradients, tall, strict=True)])
    x /= torch.linalg.matrix_norm(x, keepdim=True) + 1e-7
    for _ in range(5):
        product = x @ x.mT
        mixed = torch.baddbmm(product, product, product, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, mixed, x, beta=3.4445)
    return [u.T if t else u for u, t in zip(x, tall, strict=True)]


class Optimizers:
    """Muon for the blocks' matrices, AdamW for embedding, unembedding and scalars."""

    def __init__(self, model: GPT, shape: Shape, knobs: Mapping[str, Any]) -> None:
        first, second = (float(part) for part in str(knobs["ADAM_BETAS"]).split(","))
        by_width = (shape.width / 64) ** -0.5
        groups = [
            (list(model.embedding.parameters()), float(knobs["EMBEDDING_LR"]) * by_width),
            (list(model.unembedding.parameters()), float(knobs["UNEMBEDDING_LR"]) * by_width),
            ([model.residual, model.shortcut], float(knobs["SCALAR_LR"]) * 0.1),
        ]
        self.rates = [rate for _, rate in groups]
        self.adam = torch.optim.AdamW(
            [{"params": p, "lr": r} for p, r in groups],
            betas=(first, second),
            eps=1e-10,
            weight_decay=0.0,
            fused=True,
        )
        self.muon = Muon(
            list(model.blocks.parameters()),
            rate=float(knobs["MATRIX_LR"]),
            decay=float(knobs["WEIGHT_DECAY"]),
        )

    def step(self, scale: float) -> None:
        """One update of everything at `scale` times each rate."""
        for group, rate in zip(self.adam.param_groups, self.rates, strict=True):
            group["lr"] = rate * scale
        self.adam.step()
        self.muon.step(scale)


def schedule(progress: float, knobs: Mapping[str, Any]) -> float:
    """The learning rates' factor at `progress` (0 to 1) of the budget."""
    warmup, warmdown = float(knobs["WARMUP_RATIO"]), float(knobs["WARMDOWN_RATIO"])
    final = float(knobs["FINAL_LR_FRAC"])
    if progress < warmup:
        return max(progress / warmup, 0.01)
    if warmdown > 0 and progress > 1 - warmdown:
        left = max(0.0, 1 - progress) / warmdown
        return left + (1 - left) * final
    return 1.0


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one training did."""

    steps: int
    tokens: int
    seconds: float


def _batches(data: Tensor, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    starts = torch.randint(0, data.numel() - SEQUENCE_LENGTH - 1, (rows,), generator=generator)
    index = starts[:, None] + torch.arange(SEQUENCE_LENGTH + 1)
    window = data[index].long()
    return window[:, :-1], window[:, 1:]


def train(
    model: GPT,
    optimizers: Optimizers,
    data: Tensor,
    knobs: Mapping[str, Any],
    *,
    budget_seconds: float,
    max_steps: int,
    seed: int,
    clock: Callable[[], float] = time.process_time,
) -> Run:
    """Train until the budget (or `max_steps`, if not 0) is used up; always at least one step.

    A batch that the budget cuts short is thrown away: its time was spent, as on any machine.
    """
    rows = int(knobs["DEVICE_BATCH_SIZE"])
    parts = int(knobs["TOTAL_BATCH_SIZE"]) // (rows * SEQUENCE_LENGTH)
    generator = torch.Generator().manual_seed(seed)
    torch.autograd.backward(model.loss(*_batches(data, 1, generator.clone_state())))  # warm up
    model.zero_grad(set_to_none=True)
    step, start, told = 0, clock(), 0.0

    def used() -> float:
        return step / max_steps if max_steps else (clock() - start) / budget_seconds

    def spent() -> bool:
        return step > 0 and used() >= 1

    while not spent():
        model.zero_grad(set_to_none=True)
        total, done = 0.0, 0
        while done < parts and not spent():
            loss = model.loss(*_batches(data, rows, generator)) / parts
            torch.autograd.backward(loss)
            total, done = total + loss.item(), done + 1
        if done < parts:
            break
        if not math.isfinite(total) or total > NAN_ABOVE:
            raise TrainingFailure("nan", f"the training loss is {total} at step {step}")
        optimizers.step(schedule(min(1.0, used()), knobs))
        step += 1
        if clock() - start >= told + PROGRESS_SECONDS:
            told = clock() - start
            sys.stdout.write(f"trained {told:.1f} s, step {step}, loss {total:.3f}\n")
            sys.stdout.flush()
    return Run(steps=step, tokens=step * parts * rows * SEQUENCE_LENGTH, seconds=clock() - start)


@torch.no_grad()
def bits_per_byte(model: GPT, data: Tensor) -> float:
    """Nats over (ln 2 x bytes) on the same evenly spaced held-out sequences each time."""
    room = data.numel() - SEQUENCE_LENGTH - 1
    starts = torch.linspace(0, room, VALIDATION_SEQUENCES, dtype=torch.float64).long()
    nats = 0.0
    for chunk in torch.split(starts, 32):
        window = data[chunk[:, None] + torch.arange(SEQUENCE_LENGTH + 1)].long()
        loss = model.loss(window[:, :-1], window[:, 1:])
        nats += loss.item() * chunk.numel() * SEQUENCE_LENGTH
    return nats / (math.log(2) * VALIDATION_SEQUENCES * SEQUENCE_LENGTH)


def experiment(options: argparse.Namespace) -> dict[str, Any]:
    """Prepare, train, evaluate; the summary's lines in their order."""
    started = time.monotonic()
    knobs = checked_knobs(json.loads(options.knobs))
    path, digest, train_bytes = _corpus(options)
    text, held_out = read(path, digest=digest, train_bytes=train_bytes)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    shape = Shape.of(knobs)
    model = GPT(shape)
    run = train(
        model,
        Optimizers(model, shape, knobs),
        torch.frombuffer(bytearray(text), dtype=torch.uint8),
        knobs,
        budget_seconds=options.budget_seconds,
        max_steps=options.max_steps,
        seed=options.seed,
        clock=lambda: time.process_time() / options.threads,
    )
    metric = bits_per_byte(model, torch.frombuffer(bytearray(held_out), dtype=torch.uint8))
    if not math.isfinite(metric):
        raise TrainingFailure("nan", f"the validation loss is {metric}")
    return {
        "val_bpb": f"{metric:.6f}",
        "training_seconds": f"{run.seconds:.2f}",
        "total_seconds": f"{time.monotonic() - started:.2f}",
        "peak_memory_mb": f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.1f}",
        "total_tokens": run.tokens,
        "num_steps": run.steps,
        "num_params": sum(p.numel() for p in model.parameters()),
        "depth": shape.depth,
        "width": shape.width,
        "threads": options.threads,
        "torch_version": torch.__version__,
        "corpus_digest": digest,
    }


def _corpus(options: argparse.Namespace) -> tuple[Path, str, int]:
    if options.corpus:
        path, digest, train_bytes = options.corpus.rsplit(":", 2)
        return Path(path), digest, int(train_bytes)
    corpus = prepare(options.cache)
    return corpus.path, corpus.digest, corpus.train_bytes


def _limit_memory(megabytes: int) -> None:
    if megabytes:
        limit = megabytes * 1024 * 1024
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def main(arguments: list[str] | None = None) -> int:
    """Print the summary and return 0, or print the failure's class and return its code."""
    options = parse(arguments)
    _limit_memory(options.memory_mb)
    try:
        summary = experiment(options)
    except TrainingFailure as error:
        return fail(error.failure, str(error))
    except (json.JSONDecodeError, TypeError) as error:
        return fail("constraint", f"the knobs are not a JSON object of numbers: {error}")
    except CorpusError as error:
        return fail("infrastructure", str(error))
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            return fail("oom", str(error) or "out of memory")
        raise
    return tell(summary)


def tell(summary: Mapping[str, object]) -> int:
    """Print the summary as lines that the task reads. Returns the exit code."""
    lines = ["---", *(f"{key + ':':<20}{value}" for key, value in summary.items())]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def fail(failure: str, message: str) -> int:
    """Print the class of a failure, for the task, and why, for people. Returns the exit code."""
    sys.stdout.write(f"failure: {failure}\n")
    sys.stderr.write(f"{message}\n")
    return EXIT_CODES[failure]


if __name__ == "__main__":
    sys.exit(main())
