"""The card of the gpt-gpu task: which there are, what they could do at most, and whether what the
trainer needs works on them. Knows torch; trains nothing.

`check` tries on the card itself what no other machine can show: a kernel, bf16, the compiler, and
block masks against plain ones. What fails is named with the way out; nothing falls back.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from runner.gpt.options import TrainingFailure
from runner.gpu.model import attention, near_blocks, near_mask

# Dense bf16 with 32-bit sums, in FLOP/s, by the driver's name without its maker. A card that is
# not here, a slice of one (MIG) and a laptop's card get no utilisation.
PEAKS = (
    (r"GB200\b.*", 2500e12),
    (r"B200", 2250e12),
    (r"GH200\b.*|H200|H800|H100 80GB HBM3", 989.5e12),
    (r"H(100|200) NVL", 835.5e12),
    (r"H100 PCIe", 756e12),
    (r"H20", 148e12),
    (r"A[18]00[- ].*", 312e12),
    (r"A40", 149.7e12),
    (r"A10", 125e12),
    (r"L40S", 362e12),
    (r"L40", 181e12),
    (r"L4", 121e12),
    (r"RTX 5090", 209.5e12),
    (r"RTX 4090", 165.2e12),
    (r"RTX 3090", 71e12),
    (r"RTX 3090 Ti", 80e12),
    (r"RTX A6000", 154.8e12),
)
MAKERS = re.compile(r"^(NVIDIA |GeForce |Tesla )*")
NO_WHOLE_CARD = re.compile(r"\bMIG\b|Laptop|Max-Q")
CHECK_LENGTH, CHECK_HEAD, CHECK_WINDOW = 512, 128, 200
TOLERANCE = 0.05
MESSAGE_CHARACTERS = 600


def peak_flops(card: str) -> float | None:
    """The card's peak in FLOP/s, or None where it is not known."""
    name = MAKERS.sub("", card).strip()
    if NO_WHOLE_CARD.search(name):
        return None
    return next((peak for pattern, peak in PEAKS if re.fullmatch(pattern, name)), None)


def device_of(name: str) -> torch.device:
    """The device called `name`. Raises TrainingFailure (infrastructure) where there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        why = "is a build without CUDA" if torch.version.cuda is None else "sees no CUDA device"
        raise TrainingFailure(
            "infrastructure",
            f"no CUDA device: torch {torch.__version__} {why}. Install a CUDA build of torch and "
            "a driver that is new enough for it (nvidia-smi; CUDA_VISIBLE_DEVICES may hide a "
            "card), or use the gpt task, which is made for a CPU",
        )
    return torch.device(name)


def cards() -> list[dict[str, str]]:
    """Each CUDA device that can be seen: its `uuid` and its `name`."""
    found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return [{"uuid": str(one.uuid), "name": str(one.name)} for one in found]


def check(device: torch.device, *, precision: str, compiler: str, windows: str) -> None:
    """Raises TrainingFailure (infrastructure) unless what a training needs works on `device`."""
    bf16 = precision == "bf16"
    if bf16 and device.type == "cuda" and not torch.cuda.is_bf16_supported(False):
        name = torch.cuda.get_device_name(device)
        raise _failure(f"{name} has no bf16", "choose --precision float32")
    dtype = torch.bfloat16 if bf16 else torch.float32
    try:
        ones = torch.ones(64, 64, device=device, dtype=dtype)
        right = (ones @ ones).sum().item() == 64**3
    except RuntimeError as error:
        raise _failure(
            f"{device} runs no kernel: {error}", "is torch made for this card?"
        ) from None
    if not right:
        raise _failure(f"{device} multiplies wrongly", "use another card")
    if compiler != "off":
        _check_compiler(device, compiler)
    if windows == "flex":
        _check_blocks(device, dtype, compiler)


def _check_compiler(device: torch.device, compiler: str) -> None:
    way_out = "install a C++ compiler (g++), Python's headers and Triton, or choose --compile off"
    try:
        double = torch.compile(_double, backend=compiler, fullgraph=True, dynamic=False)
        values = torch.arange(8.0, device=device, requires_grad=True)
        torch.autograd.backward(double(values).sum())
    except Exception as error:
        raise _failure(f"torch.compile ({compiler}) fails on {device}: {error}", way_out) from None


def _double(values: Tensor) -> Tensor:
    return torch.sin(values) * 2 + 1


def _check_blocks(device: torch.device, dtype: torch.dtype, compiler: str) -> None:
    """Windows as blocks must give what windows as masks give, forwards and backwards."""
    way_out = "choose --attention mask, which is slower"
    try:
        blocks = near_blocks(CHECK_LENGTH, CHECK_WINDOW, device)
        compiled = torch.compile(attention, backend=compiler, fullgraph=True, dynamic=False)
        apart = _apart(
            _results(compiled, blocks, device, dtype),
            _results(attention, near_mask(CHECK_LENGTH, CHECK_WINDOW).to(device), device, dtype),
        )
    except Exception as error:
        raise _failure(f"flex attention fails on {device}: {error}", way_out) from None
    if not apart < TOLERANCE:
        raise _failure(f"flex attention on {device} is wrong by {apart:.2g}", way_out)


def _results(work: Any, seen: Any, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (1, 2, CHECK_LENGTH, CHECK_HEAD)
    inputs = [
        torch.randn(shape, generator=generator).to(device, dtype).requires_grad_() for _ in range(3)
    ]
    result = work(*inputs, seen)
    weights = torch.randn(shape, generator=generator).to(device, dtype)
    return [result.detach(), *torch.autograd.grad((result * weights).sum(), inputs)]


def _apart(left: list[Tensor], right: list[Tensor]) -> float:
    """The largest difference, as a share of the largest value."""
    pairs = zip(left, right, strict=True)
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)


def _failure(what: str, way_out: str) -> TrainingFailure:
    return TrainingFailure("infrastructure", f"{what[:MESSAGE_CHARACTERS]}; {way_out}")
