"""The gpt-gpu task's trainer: one configuration for a wall-time budget on one card.

Run as `python -m runner.gpu.train KNOBS`; prints summary lines (`val_bpb: 0.997`, tokens a second,
share of the card's peak, peak memory). The budget begins after compilation. It also runs on a CPU
(`--device cpu --setting tiny`), which is for tests. `--probe` tries what a training needs, and says
which cards there are. It decides nothing about the search.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import math
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runner.gpt import train as small
from runner.gpt.corpus import CorpusError
from runner.gpt.options import TrainingFailure
from runner.gpu import hardware
from runner.gpu.manifest import ShardError
from runner.gpu.model import Model, Shape, near_blocks
from runner.gpu.optimizers import Optimizers
from runner.gpu.space import SETTINGS, Setting, windows_as
from runner.gpu.text import Text, batches, text_of, validation_rows

PROGRESS_SECONDS = 1.0
EVALUATION_ROWS = 16  # logits of a row are 64 MiB: no more memory than a training takes
WARM_UP_PASSES = 2
# What torch says in a plain RuntimeError where memory is used up.
NO_MEMORY = re.compile(r"out of memory|allocate memory|_ALLOC_FAILED")


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one training did. `seconds` are wall time within the budget."""

    steps: int
    tokens: int
    seconds: float
    warm_up_seconds: float


def checked(text: str, setting: Setting) -> dict[str, Any]:
    """The setting's defaults with the JSON object `text` over them. Raises TrainingFailure
    (constraint)."""
    try:
        given = json.loads(text)
    except ValueError as error:
        raise TrainingFailure("constraint", f"the knobs are no JSON: {error}") from None
    if not isinstance(given, dict):
        raise TrainingFailure("constraint", "the knobs are no JSON object")
    knobs = {**setting.space.defaults(), **given}
    if problems := setting.space.problems(knobs):
        raise TrainingFailure("constraint", "; ".join(problems))
    return knobs


# --- training ---


def losses(model: Callable[[Tensor, Tensor], Tensor], device: torch.device, bf16: bool) -> Any:
    """The model under autocast, as a function of inputs and targets."""

    def call(inputs: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16) if bf16 else contextlib.nullcontext():
            return model(inputs, targets)

    return call


def train(
    call: Callable[[Tensor, Tensor], Tensor],
    model: Model,
    optimizers: Optimizers,
    feed: Iterator[tuple[Tensor, Tensor]],
    knobs: Mapping[str, Any],
    *,
    budget_seconds: float,
    max_steps: int,
    device: torch.device,
) -> Run:
    """Train until the budget (or `max_steps`, if not 0) is used up; at least one step.

    Compilation, the first passes and the optimizers' first step (a rate of 0, thrown away) come
    before the budget; they change no parameter.
    """
    rows, length = int(knobs["DEVICE_BATCH_SIZE"]), model.shape.sequence_length
    parts = int(knobs["TOTAL_BATCH_SIZE"]) // (rows * length)
    began = time.monotonic()
    batch = next(feed)
    for _ in range(WARM_UP_PASSES):
        torch.autograd.backward(call(*batch).mean())
    Optimizers(model, knobs).step(0.0, 1.0)
    model.zero_grad(set_to_none=True)
    _settle(device)
    gc.collect()
    gc.freeze()  # what is there stays: no collection of all of it stalls a step
    step, start, told = 0, time.monotonic(), 0.0

    def used() -> float:
        return step / max_steps if max_steps else (time.monotonic() - start) / budget_seconds

    while step == 0 or used() < 1:
        progress = min(1.0, used())
        total = torch.zeros((), device=device)
        for _ in range(parts):
            loss = call(*batch).mean() / parts
            torch.autograd.backward(loss)
            total += loss.detach()
            batch = next(feed)
        optimizers.step(small.schedule(progress, knobs), progress)
        model.zero_grad(set_to_none=True)
        seen = total.item()  # waits for the card: the clock below is honest
        if not math.isfinite(seen) or seen > small.NAN_ABOVE:
            raise TrainingFailure("nan", f"the training loss is {seen} at step {step}")
        step += 1
        if time.monotonic() - start >= told + PROGRESS_SECONDS:
            told = time.monotonic() - start
            sys.stdout.write(f"trained {told:.0f} s, step {step}, loss {seen:.3f}\n")
            sys.stdout.flush()
    _settle(device)
    gc.unfreeze()
    return Run(
        steps=step,
        tokens=step * parts * rows * length,
        seconds=time.monotonic() - start,
        warm_up_seconds=start - began,
    )


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.no_grad()
def bits_per_byte(
    call: Callable[[Tensor, Tensor], Tensor],
    text: Text,
    *,
    setting: Setting,
    rows: int,
    device: torch.device,
) -> float:
    """Nats over (ln 2 x bytes) on the same rows of validation text each time, whatever the knobs;
    tokens that stand for no byte count neither way."""
    measured = validation_rows(text, setting)
    lengths = text.token_bytes.to(device)
    nats, count = 0.0, 0
    while chunk := list(islice(measured, rows)):
        window = torch.stack(chunk).to(device, torch.int64)
        size = lengths[window[:, 1:]]
        loss = call(window[:, :-1], window[:, 1:]).view(size.shape)
        nats += (loss * (size > 0)).sum(dtype=torch.float64).item()
        count += int(size.sum().item())
    if count == 0:
        raise TrainingFailure("infrastructure", "the validation text fills no row")
    return nats / (math.log(2) * count)


# --- the process ---


def experiment(options: argparse.Namespace) -> dict[str, Any]:
    """Prepare, train, evaluate; the summary's lines in their order."""
    began = time.monotonic()
    setting = SETTINGS[options.setting]
    knobs = checked(options.knobs, setting)
    device = hardware.device_of(options.device)
    text = text_of(options.tokens, options.cache, options.corpus)
    torch.manual_seed(options.seed)
    if device.type == "cpu":
        torch.set_num_threads(options.threads)
    else:
        torch.set_float32_matmul_precision("high")
    shape = Shape.of(knobs, setting, text.vocabulary)
    bf16 = options.precision == "bf16"
    model = Model(shape, stream=torch.bfloat16 if bf16 else torch.float32).to(device)
    run = _trained(model, text, knobs, device=device, options=options)
    model.blocks = None  # not compiled, since made for other shapes: with masks, the same for all
    plain = losses(model, device, bf16)
    metric = bits_per_byte(plain, text, setting=setting, rows=EVALUATION_ROWS, device=device)
    if not math.isfinite(metric):
        raise TrainingFailure("nan", f"the validation loss is {metric}")
    seconds = time.monotonic() - began
    return _summary(metric, run, model, device=device, options=options, seconds=seconds)


def _trained(
    model: Model,
    text: Text,
    knobs: Mapping[str, Any],
    *,
    device: torch.device,
    options: argparse.Namespace,
) -> Run:
    length = model.shape.sequence_length
    if _windows(options) == "flex":
        model.blocks = near_blocks(length, model.short, device)
    compiled: Any = model
    if options.compile != "off":
        compiled = torch.compile(model, backend=options.compile, dynamic=False, fullgraph=True)
    rows = int(knobs["DEVICE_BATCH_SIZE"])
    return train(
        losses(compiled, device, options.precision == "bf16"),
        model,
        Optimizers(model, knobs),
        batches(text, rows, length, seed=options.seed, device=device),
        knobs,
        budget_seconds=options.budget_seconds,
        max_steps=options.max_steps,
        device=device,
    )


def _windows(options: argparse.Namespace) -> str:
    try:
        return windows_as(options.attention, device=options.device, compiler=options.compile)
    except ValueError as error:
        raise TrainingFailure("constraint", str(error)) from None


def probe(options: argparse.Namespace) -> dict[str, Any]:
    """Try what a training needs on this machine; which cards there are. Raises TrainingFailure."""
    device = hardware.device_of(options.device)
    windows = _windows(options)
    hardware.check(device, precision=options.precision, compiler=options.compile, windows=windows)
    cards = hardware.cards() if device.type == "cuda" else [{"uuid": "", "name": "cpu"}]
    return {"cards": cards, "torch": torch.__version__, "cuda": torch.version.cuda}


def _summary(
    metric: float,
    run: Run,
    model: Model,
    *,
    device: torch.device,
    options: argparse.Namespace,
    seconds: float,
) -> dict[str, Any]:
    speed = run.tokens / run.seconds if run.seconds else 0.0
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    peak = hardware.peak_flops(card)
    memory = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
    return {
        "val_bpb": f"{metric:.6f}",
        "training_seconds": f"{run.seconds:.2f}",
        "warm_up_seconds": f"{run.warm_up_seconds:.2f}",
        "total_seconds": f"{seconds:.2f}",
        "peak_memory_mb": "unknown" if memory is None else f"{memory:.1f}",
        "mfu_percent": (
            f"{100 * speed * model.flops_per_token() / peak:.2f}" if peak else "unknown card"
        ),
        "tokens_per_second": f"{speed:.0f}",
        "total_tokens": run.tokens,
        "num_steps": run.steps,
        "num_params": sum(p.numel() for p in model.parameters()),
        "depth": model.shape.depth,
        "width": model.shape.width,
        "setting": options.setting,
        "attention": _windows(options),
        "text": "bytes of local text (fallback)" if options.tokens is None else "shards",
        "device": card,
        "torch_version": torch.__version__,
    }


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= 86_400:
        raise ValueError
    return seconds


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options, with the knobs as JSON text."""
    parser = argparse.ArgumentParser(prog="runner.gpu.train", description="Train one configuration")
    parser.add_argument("knobs", nargs="?", default="{}", help="JSON")
    parser.add_argument("--setting", choices=sorted(SETTINGS), default="50m")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--precision", choices=("bf16", "float32"), default="bf16")
    parser.add_argument("--compile", choices=("inductor", "aot_eager", "off"), default="inductor")
    parser.add_argument("--attention", choices=("flex", "mask"), help="windows as blocks or masks")
    parser.add_argument("--budget-seconds", type=_seconds, default=300.0)
    parser.add_argument("--max-steps", type=int, default=0, help="steps instead of a budget")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="on a CPU")
    parser.add_argument("--tokens", type=Path, help="JSON that names token files; else bytes")
    parser.add_argument("--corpus", default="", help="PATH:DIGEST:TRAIN_BYTES of local text")
    parser.add_argument("--cache", type=Path, default=Path("var/corpus"), help="of local text")
    parser.add_argument("--probe", action="store_true", help="say what the device is, and end")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Print the summary and return 0, or print the failure's class and return its code."""
    options = parse(arguments)
    try:
        if options.probe:
            sys.stdout.write(f"probe: {json.dumps(probe(options))}\n")
            return 0
        summary = experiment(options)
    except TrainingFailure as error:
        return small.fail(error.failure, str(error))
    except (CorpusError, ShardError, OSError) as error:
        return small.fail("infrastructure", str(error))
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or NO_MEMORY.search(str(error)):
            return small.fail("oom", str(error) or "out of memory")
        if isinstance(error, torch.AcceleratorError):
            return small.fail("infrastructure", f"the card failed: {error}")
        raise
    return small.tell(summary)


if __name__ == "__main__":
    sys.exit(main())
