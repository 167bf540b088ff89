"""Tokens a second of the gpt task's trainer, next to a plain-PyTorch GPT of the same shape.

    .venv/bin/python benchmarks/trainer.py [--rounds 12] [--steps 6] [--out FILE]

The plain one is what a tutorial writes: `nn.TransformerEncoder` with a causal mask, learned
positions, GELU, AdamW. Both take the same batches of the same text in the same process, on one
thread, in turns, counted in processor seconds. What is compared is work done; what was learnt of
the same tokens is shown beside it.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812 (torch's own name)

from runner.gpt import train as ours  # noqa: E402
from runner.gpt.corpus import prepare, read  # noqa: E402
from runner.gpt.options import checked_knobs  # noqa: E402
from runner.gpt.space import SEQUENCE_LENGTH  # noqa: E402
from runner.tasks.base import host_facts  # noqa: E402

# The default batch is too large on purpose; this one is what searches end near.
KNOBS = {"TOTAL_BATCH_SIZE": 2**11, "DEVICE_BATCH_SIZE": 16}
PLAIN_RATE = 3e-3
Step = Callable[[Tensor, Tensor], float]


class Plain(nn.Module):
    """A GPT from torch's own modules."""

    def __init__(self, depth: int, width: int, heads: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(ours.VOCABULARY, width)
        self.position = nn.Parameter(0.02 * torch.randn(SEQUENCE_LENGTH, width))
        layer = nn.TransformerEncoderLayer(
            width,
            heads,
            4 * width,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.encoder = nn.TransformerEncoder(
            layer, depth, nn.LayerNorm(width), enable_nested_tensor=False
        )
        self.unembedding = nn.Linear(width, ours.VOCABULARY, bias=False)
        mask = nn.Transformer.generate_square_subsequent_mask(SEQUENCE_LENGTH)
        self.register_buffer("mask", mask)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits for the next byte."""
        x = self.embedding(inputs) + self.position
        return self.unembedding(self.encoder(x, mask=self.mask, is_causal=True))

    def loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross entropy, in nats."""
        return F.cross_entropy(self(inputs).view(-1, ours.VOCABULARY), targets.reshape(-1))


Model = ours.GPT | Plain


def our_step(shape: ours.Shape, knobs: dict[str, Any]) -> tuple[Model, Step]:
    model = ours.GPT(shape)
    optimizers = ours.Optimizers(model, shape, knobs)

    def step(inputs: Tensor, targets: Tensor) -> float:
        model.zero_grad(set_to_none=True)
        loss = model.loss(inputs, targets)
        torch.autograd.backward(loss)
        optimizers.step(1.0)
        return loss.item()

    return model, step


def plain_step(shape: ours.Shape) -> tuple[Model, Step]:
    model = Plain(shape.depth, shape.width, shape.width // shape.head_dim)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PLAIN_RATE, betas=(0.9, 0.95))

    def step(inputs: Tensor, targets: Tensor) -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = model.loss(inputs, targets)
        torch.autograd.backward(loss)
        optimizer.step()
        return loss.item()

    return model, step


def passes(model: Model) -> Step:
    """Forward and backward without an optimizer."""

    def step(inputs: Tensor, targets: Tensor) -> float:
        model.zero_grad(set_to_none=True)
        loss = model.loss(inputs, targets)
        torch.autograd.backward(loss)
        return loss.item()

    return step


def bits(model: Model, held_out: Tensor) -> float:
    model.eval()
    value = ours.bits_per_byte(model, held_out)  # type: ignore[arg-type]  # any model will do
    model.train()
    return value


def in_turns(
    steps: dict[str, Step], data: Tensor, *, rounds: int, length: int, rows: int
) -> dict[str, list[float]]:
    """Tokens per processor second of each, round by round; the first round warms up."""
    speed: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        generator = torch.Generator().manual_seed(number)
        batches = [ours._batches(data, rows, generator) for _ in range(length)]
        order = list(steps) if number % 2 else list(reversed(steps))
        for name in order:
            start = time.process_time()
            for batch in batches:
                if not math.isfinite(steps[name](*batch)):
                    raise SystemExit(f"{name} diverged: nothing to compare")
            if number:
                speed[name].append(length * rows * SEQUENCE_LENGTH / (time.process_time() - start))
        sys.stderr.write(f"round {number} of {rounds}\n")
    return speed


def compared(speed: dict[str, list[float]]) -> dict[str, Any]:
    """Medians of tokens per second, and the ratio round by round."""
    ratios = sorted(a / b for a, b in zip(speed["ours"], speed["plain"], strict=True))
    return {
        "tokens_per_second": {name: round(statistics.median(v)) for name, v in speed.items()},
        "all": {name: [round(x) for x in v] for name, v in speed.items()},
        "ratio_ours_to_plain": {
            "median": round(statistics.median(ratios), 3),
            "lowest": round(ratios[0], 3),
            "highest": round(ratios[-1], 3),
        },
    }


def measured(cache: Path, *, rounds: int, steps: int) -> dict[str, Any]:
    """Both, whole steps and then without an optimizer, with what was learnt in between."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    corpus = prepare(cache)
    text, held_out = (
        torch.frombuffer(bytearray(part), dtype=torch.uint8)
        for part in read(corpus.path, digest=corpus.digest, train_bytes=corpus.train_bytes)
    )
    knobs = checked_knobs(KNOBS)
    shape = ours.Shape.of(knobs)
    (our_model, our), (plain_model, plain) = our_step(shape, knobs), plain_step(shape)
    rows = int(knobs["DEVICE_BATCH_SIZE"])
    speed = in_turns({"ours": our, "plain": plain}, text, rounds=rounds, length=steps, rows=rows)
    learnt = {
        "ours": round(bits(our_model, held_out), 4),
        "plain": round(bits(plain_model, held_out), 4),
    }
    bare_steps = {"ours": passes(our_model), "plain": passes(plain_model)}
    bare = in_turns(bare_steps, text, rounds=rounds, length=steps, rows=rows)
    return {
        "what": "tokens per processor second, one thread, in turns, one process",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": {**host_facts(), "torch": torch.__version__, "machine": platform.machine()},
        "shape": {
            "depth": shape.depth,
            "width": shape.width,
            "head_dim": shape.head_dim,
            "sequence": SEQUENCE_LENGTH,
            "rows": rows,
        },
        "parameters": {
            "ours": sum(p.numel() for p in our_model.parameters()),
            "plain": sum(p.numel() for p in plain_model.parameters()),
        },
        "rounds": rounds,
        "steps_a_round": steps,
        "whole_steps": compared(speed),
        "forward_and_backward_alone": compared(bare),
        "bits_per_byte_after_the_same_tokens": {
            "tokens": (rounds + 1) * steps * rows * SEQUENCE_LENGTH,
            **learnt,
            "note": "ours with its default rates, plain with one AdamW rate; neither is tuned",
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=6, help="steps a round")
    parser.add_argument("--cache", type=Path, default=ROOT / "var" / "corpus")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result = measured(options.cache, rounds=options.rounds, steps=options.steps)
    text_out = json.dumps(result, indent=1) + "\n"
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text_out)
    sys.stdout.write(text_out)


if __name__ == "__main__":
    main()
