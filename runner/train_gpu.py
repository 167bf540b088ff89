"""The gpt-gpu task's trainer: one configuration for a wall-time budget on one card.

Run as `python -m runner.train_gpu KNOBS`; prints summary lines (`val_bpb: 0.997`, tokens a second,
share of the card's peak, peak memory). The budget begins after compilation. It also runs on a CPU
(`--device cpu --setting tiny`), which is for tests. It decides nothing about the search.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runner import train as small
from runner.corpus import CorpusError, prepare, read
from runner.gpu_model import Model, Optimizers, Shape
from runner.gpu_space import SETTINGS, Setting
from runner.shards import ShardError, verify
from runner.train_options import EXIT_CODES, TrainingFailure

PROGRESS_SECONDS = 1.0
EVALUATION_ROWS = 64
WARM_UP_PASSES = 2
# Peak of dense bf16 in FLOP/s by what the driver calls the card; others get no utilisation.
PEAKS = {
    "H200": 989.5e12,
    "H100 PCIe": 756e12,
    "H100": 989.5e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "RTX 5090": 209.5e12,
    "RTX 4090": 165.2e12,
    "RTX 3090": 71e12,
}


@dataclass(frozen=True, kw_only=True)
class Text:
    """Token files as tensors in memory-mapped files, and what each token is in bytes."""

    train: tuple[Tensor, ...]
    validation: Tensor
    token_bytes: Tensor

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return self.token_bytes.numel()


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one training did. `seconds` are wall time within the budget."""

    steps: int
    tokens: int
    seconds: float
    warm_up_seconds: float


def checked(given: Mapping[str, Any], setting: Setting) -> dict[str, Any]:
    """The setting's defaults with `given` over them. Raises TrainingFailure (constraint)."""
    if not isinstance(given, Mapping):
        raise TrainingFailure("constraint", "the knobs are no JSON object")
    knobs = {**setting.space.defaults(), **given}
    if problems := setting.space.problems(knobs):
        raise TrainingFailure("constraint", "; ".join(problems))
    return knobs


# --- text ---


def text_of(options: argparse.Namespace) -> Text:
    """The token files that --tokens names (a JSON file), or bytes of local text."""
    if options.tokens is None:
        corpus = prepare(options.cache)
        train, held_out = read(corpus.path, digest=corpus.digest, train_bytes=corpus.train_bytes)
        return Text(
            train=(torch.frombuffer(bytearray(train), dtype=torch.uint8),),
            validation=torch.frombuffer(bytearray(held_out), dtype=torch.uint8),
            token_bytes=torch.ones(256, dtype=torch.int32),
        )
    told = json.loads(options.tokens.read_text())
    return Text(
        train=tuple(_mapped(Path(path)) for path in told["train"]),
        validation=_mapped(Path(told["validation"])),
        token_bytes=torch.tensor(told["token_bytes"], dtype=torch.int32),
    )


def _mapped(path: Path) -> Tensor:
    verify(path)
    return torch.from_file(str(path), dtype=torch.uint16, size=path.stat().st_size // 2)


def batches(
    files: tuple[Tensor, ...], rows: int, length: int, *, seed: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of consecutive tokens from random places, for ever, in an order that `seed` gives."""
    generator = torch.Generator().manual_seed(seed)
    usable = [file for file in files if file.numel() > length + 1]
    if not usable:
        raise TrainingFailure("infrastructure", f"no token file has over {length + 1} tokens")
    room = torch.tensor([file.numel() - length - 1 for file in usable])
    ends = room.cumsum(0)
    offsets = torch.arange(length + 1)
    while True:
        places = torch.randint(0, int(ends[-1]), (rows,), generator=generator)
        which = torch.searchsorted(ends, places, right=True)
        starts = places - (ends - room)[which]
        window = torch.stack(
            [usable[int(w)][int(s) + offsets] for w, s in zip(which, starts, strict=True)]
        ).to(torch.int64)
        if device.type == "cuda":
            window = window.pin_memory().to(device, non_blocking=True)
        yield window[:, :-1], window[:, 1:]


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

    Compilation and the first passes come before the budget; they change no parameter.
    """
    rows, length = int(knobs["DEVICE_BATCH_SIZE"]), model.shape.sequence_length
    parts = int(knobs["TOTAL_BATCH_SIZE"]) // (rows * length)
    began = time.monotonic()
    batch = next(feed)
    for _ in range(WARM_UP_PASSES):
        torch.autograd.backward(call(*batch).mean())
        model.zero_grad(set_to_none=True)
    _settle(device)
    gc.collect()
    gc.freeze()
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
    """Nats over (ln 2 x bytes) on the same evenly spaced rows of validation text each time,
    whatever the knobs; tokens that stand for no byte count neither way."""
    length = setting.sequence_length
    wanted = setting.evaluation_tokens // length
    room = text.validation.numel() - length - 1
    if room < 0:
        raise TrainingFailure("infrastructure", "the validation text is shorter than a row")
    starts = torch.linspace(0, room, min(wanted, room + 1), dtype=torch.float64).long()
    lengths = text.token_bytes.to(device)
    offsets = torch.arange(length + 1)
    nats, count = 0.0, 0
    for first in range(0, starts.numel(), rows):
        chunk = starts[first : first + rows]
        chunk = torch.cat([chunk, chunk[-1:].expand(rows - chunk.numel())])
        real = min(rows, starts.numel() - first)
        window = text.validation[chunk[:, None] + offsets].to(device, torch.int64)
        loss = call(window[:, :-1], window[:, 1:]).view(rows, length)[:real]
        size = lengths[window[:real, 1:]]
        nats += (loss * (size > 0)).sum(dtype=torch.float64).item()
        count += int(size.sum().item())
    if count == 0:
        raise TrainingFailure("infrastructure", "the validation text has no bytes")
    return nats / (math.log(2) * count)


# --- the process ---


def experiment(options: argparse.Namespace) -> dict[str, Any]:
    """Prepare, train, evaluate; the summary's lines in their order."""
    began = time.monotonic()
    setting = SETTINGS[options.setting]
    knobs = checked(json.loads(options.knobs), setting)
    device = _device(options.device)
    text = text_of(options)
    torch.manual_seed(options.seed)
    if device.type == "cpu":
        torch.set_num_threads(options.threads)
    else:
        torch.set_float32_matmul_precision("high")
    bf16 = options.precision == "bf16"
    shape = Shape.of(knobs, setting, text.vocabulary)
    model = Model(shape, stream=torch.bfloat16 if bf16 else torch.float32).to(device)
    compiled: Any = model
    if options.compile != "off":
        compiled = torch.compile(model, backend=options.compile, dynamic=False, fullgraph=True)
    call = losses(compiled, device, bf16)
    rows = int(knobs["DEVICE_BATCH_SIZE"])
    run = train(
        call,
        model,
        Optimizers(model, knobs),
        batches(text.train, rows, shape.sequence_length, seed=options.seed, device=device),
        knobs,
        budget_seconds=options.budget_seconds,
        max_steps=options.max_steps,
        device=device,
    )
    plain = losses(model, device, bf16)  # not the compiled one: it is made for other shapes
    metric = bits_per_byte(plain, text, setting=setting, rows=EVALUATION_ROWS, device=device)
    if not math.isfinite(metric):
        raise TrainingFailure("nan", f"the validation loss is {metric}")
    seconds = time.monotonic() - began
    return _summary(metric, run, model, device=device, options=options, seconds=seconds)


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingFailure(
            "infrastructure",
            f"torch {torch.__version__} sees no CUDA device: install a CUDA build of torch and a "
            "driver, or use the gpt task, which is made for a CPU",
        )
    return torch.device(name)


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
    peak = next((flops for name, flops in PEAKS.items() if name in card), None)
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
        "text": "bytes of local text (fallback)" if options.tokens is None else "shards",
        "device": card,
        "torch_version": torch.__version__,
    }


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options, with the knobs as JSON text."""
    parser = argparse.ArgumentParser(prog="runner.train_gpu", description="Train one configuration")
    parser.add_argument("knobs", nargs="?", default="{}", help="JSON")
    parser.add_argument("--setting", choices=sorted(SETTINGS), default="50m")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--precision", choices=("bf16", "float32"), default="bf16")
    parser.add_argument("--compile", choices=("inductor", "aot_eager", "off"), default="inductor")
    parser.add_argument("--budget-seconds", type=float, default=300.0)
    parser.add_argument("--max-steps", type=int, default=0, help="steps instead of a budget")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="on a CPU")
    parser.add_argument("--tokens", type=Path, help="JSON that names token files; else bytes")
    parser.add_argument("--cache", type=Path, default=Path("var/corpus"), help="of local text")
    parser.add_argument("--probe", action="store_true", help="say what the device is, and end")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Print the summary and return 0, or print the failure's class and return its code."""
    options = parse(arguments)
    try:
        if options.probe:
            device = _device(options.device)
            name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
            sys.stdout.write(f"device: {name}\ntorch: {torch.__version__}\n")
            return 0
        summary = experiment(options)
    except TrainingFailure as error:
        return _fail(error.failure, str(error))
    except (json.JSONDecodeError, TypeError) as error:
        return _fail("constraint", f"the knobs are not a JSON object of numbers: {error}")
    except (CorpusError, ShardError, OSError) as error:
        return _fail("infrastructure", str(error))
    except torch.cuda.OutOfMemoryError as error:
        return _fail("oom", str(error))
    lines = ["---", *(f"{key + ':':<20}{value}" for key, value in summary.items())]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _fail(failure: str, message: str) -> int:
    sys.stdout.write(f"failure: {failure}\n")
    sys.stderr.write(f"{message}\n")
    return EXIT_CODES[failure]


if __name__ == "__main__":
    sys.exit(main())
