"""The trainer's small operations with hand-written backwards: fewer passes over memory on a CPU.

Each says what it computes; the same formulas in plain torch are in its tests. Layers and what is
learnt are `runner.gpt.train`'s. The backwards are not themselves differentiable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

EPSILON = torch.finfo(torch.float32).eps


def _scale_of(x: Tensor) -> Tensor:
    """One over the root of the mean square, by row."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    scale: Tensor = length.square_().div_(x.size(-1)).add_(EPSILON).rsqrt_()
    return scale


def _along(grad: Tensor, normed: Tensor) -> Tensor:
    """What of the gradient after a norm only changes a row's length: the norm takes it away."""
    along: Tensor = (grad * normed).mean(dim=-1, keepdim=True)
    return along


class Norm(Function):
    """Rows of x over the root of their mean square."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        scale = _scale_of(x)
        normed = x * scale
        ctx.save_for_backward(normed, scale)
        return normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        normed, scale = ctx.saved_tensors
        return torch.addcmul(grad, normed, _along(grad, normed), value=-1).mul_(scale)


class Mix(Function):
    """a x + b start, for scalars a and b."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, x: Tensor, b: Tensor, start: Tensor) -> Tensor:
        ctx.save_for_backward(a, x, b, start)
        return (x * a).add_(start, alpha=b.item())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        a, x, b, start = ctx.saved_tensors
        flat = grad.flatten()
        return flat.dot(x.flatten()), grad * a, flat.dot(start.flatten()), grad * b


class Rotary(Function):
    """Queries, keys, values of one product: the first two normalised by head and rotated.

    The pairs that a rotation turns are neighbours, so that it is one product of complex numbers.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, turns: Tensor, heads: int) -> tuple[Tensor, ...]:
        batch, length, width = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
        pairs = torch.view_as_complex(qkv.view(batch, length, -1, 2))[..., :width]
        qk = torch.view_as_real(pairs * turns).view(batch, length, 2, heads, -1)
        scale = _scale_of(qk)
        qk *= scale
        ctx.save_for_backward(qk, scale, turns)
        v = qkv[..., 2 * width :].view(batch, length, heads, -1)
        q, k = qk.unbind(2)
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        qk, scale, turns = ctx.saved_tensors
        grad = torch.stack([g.transpose(1, 2) for g in grads], dim=2)
        batch, length = grad.shape[:2]
        both = grad[:, :, :2]
        both.addcmul_(qk, _along(both, qk), value=-1).mul_(scale)
        flat = grad.view(batch, length, -1)
        pairs = torch.view_as_complex(flat.view(batch, length, -1, 2))[..., : turns.size(-1)]
        pairs *= turns.conj()
        return flat, None, None


class SquaredMLP(Function):
    """max(x up', 0) squared, times down' (' is the transpose)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, up: Tensor, down: Tensor) -> Tensor:
        flat = x.flatten(0, -2)
        positive = (flat @ up.T).relu_()
        squared = positive * positive
        ctx.save_for_backward(flat, up, down, positive, squared)
        return (squared @ down.T).view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        flat, up, down, positive, squared = ctx.saved_tensors
        doubled = grad.flatten(0, -2) * 2  # the square's factor, where it's cheapest
        inner = (doubled @ down).mul_(positive)
        return (inner @ up).view_as(grad), inner.T @ flat, (doubled.T @ squared).div_(2)


class CappedLoss(Function):
    """Mean cross entropy, in nats, of `cap * tanh(x weight' / cap)` for target bytes.

    What is capped needs no maximum taken off before its exponential: cap is far below 88.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, cap: float) -> Tensor:
        squashed = (x @ (weight / cap).T).tanh_()
        chances = (squashed * cap).exp_()
        chances /= chances.sum(dim=1, keepdim=True)
        ctx.save_for_backward(x, weight, targets, squashed, chances)
        return chances.gather(1, targets[:, None]).log_().mean().neg_()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, targets, squashed, chances = ctx.saved_tensors
        # In place: a second backward over the same graph raises, it can't use them changed.
        chances.scatter_add_(1, targets[:, None], chances.new_full((len(x), 1), -1.0))
        chances.addcmul_(chances, squashed.square_(), value=-1)
        share = grad / len(x)
        return chances @ (weight * share), chances.T @ (x * share), None, None


norm: Callable[[Tensor], Tensor] = Norm.apply
mix: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = Mix.apply
rotary: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor, Tensor]] = Rotary.apply
squared_mlp: Callable[[Tensor, Tensor, Tensor], Tensor] = SquaredMLP.apply
capped_loss: Callable[[Tensor, Tensor, Tensor, float], Tensor] = CappedLoss.apply
