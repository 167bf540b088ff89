"""The trainer's fused operations against the same formulas in plain torch: values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 (torch's own name)

from runner.gpt import fused, train
from runner.gpt.options import checked_knobs
from runner.gpt.space import SEQUENCE_LENGTH

HEADS = 2


def norm(x):
    return F.rms_norm(x, (x.size(-1),), eps=fused.EPSILON)


def rotary(qkv, turns, heads):
    """With sines and cosines, pair by pair; then the norm, by head."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in qkv.chunk(3, dim=-1))
    half = q.size(-1) // 2
    cos, sin = turns.real[:, :half], -turns.imag[:, :half]

    def turned(x):
        first, second = x[..., ::2], x[..., 1::2]
        pairs = (first * cos + second * sin, second * cos - first * sin)
        return norm(torch.stack(pairs, dim=-1).flatten(-2))

    return turned(q), turned(k), v


def squared_mlp(x, up, down):
    return F.linear(F.relu(F.linear(x, up)).square(), down)


def capped_loss(x, weight, targets, cap):
    return F.cross_entropy(cap * torch.tanh(F.linear(x, weight) / cap), targets)


def random(*shape):
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def turns_of(length, pairs):
    angle = torch.randn(length, pairs, dtype=torch.float64).repeat(1, 2 * HEADS)
    return torch.polar(torch.ones_like(angle), angle)


CASES = {
    "norm": (fused.Norm, norm, lambda: (random(3, 5, 8),)),
    "mix": (
        fused.Mix,
        lambda a, x, b, start: a * x + b * start,
        lambda: (random(), random(3, 5, 8), random(), random(3, 5, 8)),
    ),
    "rotary": (fused.Rotary, rotary, lambda: (random(3, 5, 24), turns_of(5, 2), HEADS)),
    "mlp": (fused.SquaredMLP, squared_mlp, lambda: (random(3, 5, 8), random(32, 8), random(8, 32))),
    "loss": (
        fused.CappedLoss,
        capped_loss,
        lambda: (random(7, 8), random(256, 8), torch.randint(0, 256, (7,)), 15.0),
    ),
    "loss, saturated": (
        fused.CappedLoss,
        capped_loss,
        lambda: (
            (100 * random(7, 8)).detach().requires_grad_(),
            random(4, 8),
            torch.arange(7) % 4,
            15.0,
        ),
    ),
}


def results(function, inputs):
    """What it gives and the gradients of a weighted sum of that."""
    outputs = function(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(o.shape, dtype=o.dtype, generator=generator) for o in outputs]
    total = sum((o * w).sum() for o, w in zip(outputs, weights, strict=True))
    wanted = [i for i in inputs if isinstance(i, torch.Tensor) and i.requires_grad]
    return [*outputs, *torch.autograd.grad(total, wanted)]


@pytest.mark.parametrize("name", CASES)
def test_each_gives_what_its_formula_gives(name):
    torch.manual_seed(0)
    operation, formula, make = CASES[name]
    inputs = make()
    ours, plain = results(operation.apply, inputs), results(formula, inputs)
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_a_loss_in_single_precision_stays_finite_at_the_cap():
    x, weight = torch.full((2, 4), 1e4), torch.tensor([[1.0] * 4, [-1.0] * 4])
    targets = torch.tensor([0, 1])
    loss = fused.CappedLoss.apply(x, weight, targets, train.SOFT_CAP)
    assert loss.item() == pytest.approx(train.SOFT_CAP, rel=1e-6)


def test_a_second_backward_over_changed_memory_is_an_error():
    x, weight = torch.randn(3, 4, requires_grad=True), torch.randn(5, 4)
    loss = fused.CappedLoss.apply(x, weight, torch.tensor([0, 1, 2]), train.SOFT_CAP)
    torch.autograd.grad(loss, x, retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(loss, x)


# --- the whole model ---


def plain_loss(model, inputs, targets):
    """The model in plain torch, from its own parameters."""
    x = start = norm(F.embedding(inputs, model.embedding.weight))
    distance = torch.arange(SEQUENCE_LENGTH)[:, None] - torch.arange(SEQUENCE_LENGTH)
    windows = (SEQUENCE_LENGTH // 4, SEQUENCE_LENGTH)
    for i, (block, window) in enumerate(zip(model.blocks, windows, strict=True)):
        x = model.residual[i] * x + model.shortcut[i] * start
        q, k, v = rotary(F.linear(norm(x), block.qkv.weight), model.turns, block.heads)
        mask = (distance >= 0) & (distance < window)
        scores = (q @ k.mT / q.size(-1) ** 0.5).masked_fill(~mask, -torch.inf)
        x = x + F.linear((scores.softmax(-1) @ v).transpose(1, 2).flatten(2), block.out.weight)
        x = x + squared_mlp(norm(x), block.up.weight, block.down.weight)
    x = norm(x).flatten(0, 1)
    return capped_loss(x, model.unembedding.weight, targets.flatten(), train.SOFT_CAP)


def test_the_model_is_the_plain_one():
    torch.manual_seed(0)
    model = train.GPT(train.Shape.of(checked_knobs({"WINDOW_PATTERN": "SL"}))).double()
    model.turns = model.turns.to(torch.complex128)
    parameters = list(model.parameters())
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(torch.randn_like(parameter) * 0.1)
    batch = torch.randint(0, 256, (2, 2, SEQUENCE_LENGTH))
    ours, plain = model.loss(*batch), plain_loss(model, *batch)
    torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-12)
    capped = F.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())
    torch.testing.assert_close(ours, capped, rtol=1e-9, atol=1e-12)
    grads = (torch.autograd.grad(loss, parameters) for loss in (ours, plain))
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-11)


def orthogonal(gradient):
    """One matrix alone, by the formula."""
    x = gradient.T if gradient.size(0) > gradient.size(1) else gradient
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        product = x @ x.T
        x = 3.4445 * x + (-4.7750 * product + 2.0315 * product @ product) @ x
    return x.T if gradient.size(0) > gradient.size(1) else x


def test_muon_in_stacks_is_muon_one_by_one():
    torch.manual_seed(0)
    shapes = [(12, 4), (4, 4), (16, 4), (4, 16), (12, 4)]
    matrices = [random(*shape) for shape in shapes]
    muon = train.Muon(matrices, rate=0.1, decay=0.2)
    expected = [m.detach().clone() for m in matrices]
    momentum = [torch.zeros_like(m) for m in expected]
    for _ in range(3):
        for i, matrix in enumerate(matrices):
            matrix.grad = torch.randn_like(matrix)
            momentum[i] = 0.95 * momentum[i] + 0.05 * matrix.grad
            update = orthogonal(0.05 * matrix.grad + 0.95 * momentum[i])
            ratio = max(1.0, matrix.size(0) / matrix.size(1)) ** 0.5
            expected[i] = expected[i] * (1 - 0.05 * 0.2) - 0.05 * ratio * update
        muon.step(0.5)
    for matrix, other in zip(matrices, expected, strict=True):
        torch.testing.assert_close(matrix.detach(), other, rtol=1e-9, atol=1e-12)
