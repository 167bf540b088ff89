"""The model and optimizers of the gpt-gpu task at its tiny size, on the CPU."""

from __future__ import annotations

import math

import pytest
import torch

from runner.gpu import train as train_gpu
from runner.gpu.model import Model, Shape, attention, near_blocks, near_mask
from runner.gpu.optimizers import Muon, Optimizers, evened, orthogonal
from runner.gpu.space import LOCKED, SETTINGS, windows_as

TINY = SETTINGS["tiny"]
CPU = torch.device("cpu")


def model_of(text="{}", vocabulary=256, **options):
    torch.manual_seed(0)
    knobs = train_gpu.checked(text, TINY)
    return Model(Shape.of(knobs, TINY, vocabulary), **options), knobs


def lively(model):
    """A model whose layers do something: they begin as nothing."""
    for layer in model.layers:
        torch.nn.init.normal_(layer.out.weight, std=0.1)
        torch.nn.init.normal_(layer.down.weight, std=0.1)
    torch.nn.init.normal_(model.unembedding.weight, std=0.5)
    return model


def test_the_setting_of_print_has_fifty_million_parameters():
    big = SETTINGS["50m"]
    knobs = big.space.defaults()
    with torch.device("meta"):
        model = Model(Shape.of(knobs, big, big.vocabulary))
    assert 49e6 < sum(p.numel() for p in model.parameters()) < 52e6
    shape = model.shape
    assert (shape.depth, shape.width, shape.head_dim) == (8, 512, 128)
    assert shape.windows == (1024, 1024, 1024, 2048) * 2
    layer = 12 * 512**2  # four matrices of attention, eight of the MLP
    gates = 4 * 32 * 4
    context = 12 * 512 * (6 * 1024 + 2 * 2048)
    assert model.flops_per_token() == 6 * (8 * layer + gates + 512 * 8192) + context
    assert knobs["TOTAL_BATCH_SIZE"] == 2**19
    assert all(big.space[name].low == big.space[name].high for name in LOCKED)
    assert len(big.space) == 15  # warm-up and warm-down are one of the field's fourteen


def test_no_token_sees_a_later_one_or_one_outside_its_window():
    """A change of one input changes no earlier loss."""
    model, _ = model_of('{"WINDOW_PATTERN": "S"}')
    lively(model)
    inputs = torch.randint(256, (1, TINY.sequence_length))
    other = inputs.clone()
    other[0, 40] = (other[0, 40] + 1) % 256
    targets = torch.zeros_like(inputs)
    with torch.no_grad():
        change = (model(inputs, targets) - model(other, targets)).abs()
    assert change[:40].max() == 0
    assert change[40] > 0
    assert model.shape.windows == (32, 64)  # the last layer sees all
    assert model.mask.sum(dim=1).tolist() == [min(i, 32) + 1 for i in range(64)]


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("backend", [None, "eager"])
def test_windows_as_blocks_and_as_masks_are_the_same(backend):
    model, _ = model_of('{"WINDOW_PATTERN": "S"}')
    lively(model)
    inputs = torch.randint(256, (2, TINY.sequence_length))
    targets = inputs.roll(-1, 1)
    with torch.no_grad():
        masked = model(inputs, targets)
        model.blocks = near_blocks(TINY.sequence_length, model.short, CPU)
        work = torch.compile(model, backend=backend, fullgraph=True) if backend else model
        assert torch.allclose(work(inputs, targets), masked, atol=1e-4)
        model.blocks = near_blocks(TINY.sequence_length, model.short - 1, CPU)
        assert not torch.allclose(model(inputs, targets), masked, atol=1e-4)


@pytest.mark.parametrize("window", [0, 1, 7, 31])
def test_a_window_is_the_token_and_so_many_before_it(window):
    mask = near_mask(32, window)
    assert all(mask[i, j] == (0 <= i - j <= window) for i in range(32) for j in range(32))
    q = torch.randn(1, 1, 32, 8)
    far = q.clone()
    far[..., : 31 - window, :] += 1
    last = attention(q, q, q, mask)[..., -1, :]
    assert torch.allclose(attention(q, far, far, mask)[..., -1, :], last)


def test_how_windows_are_computed_is_a_rule_and_no_accident():
    assert windows_as(None, device="cuda", compiler="inductor") == "flex"
    assert windows_as("mask", device="cuda", compiler="inductor") == "mask"
    for device, compiler in (("cpu", "inductor"), ("cuda", "off"), ("cuda", "aot_eager")):
        assert windows_as(None, device=device, compiler=compiler) == "mask"
        with pytest.raises(ValueError, match="flex attention needs"):
            windows_as("flex", device=device, compiler=compiler)


def test_the_model_is_one_graph_forwards_and_backwards():
    """torch.compile takes the whole step in bf16 without a break, as the card's run needs it."""
    model, _ = model_of(stream=torch.bfloat16)
    lively(model)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=False)
    inputs = torch.randint(256, (2, TINY.sequence_length))
    targets = inputs.roll(-1, 1)
    results = []
    for work in (compiled, model):
        loss = train_gpu.losses(work, CPU, True)(inputs, targets).mean()
        results.append([loss.detach(), *torch.autograd.grad(loss, [*model.parameters()])])
    for ours, plain in zip(*results, strict=True):
        assert torch.allclose(ours, plain, atol=2e-2)


# --- optimizers ---


def test_muons_update_is_nearly_orthogonal():
    torch.manual_seed(0)
    for shape in ((3, 48, 48), (2, 96, 32), (2, 32, 96)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
        assert values.min() > 0.4
        assert values.max() < 1.6
    assert torch.equal(orthogonal(torch.zeros(1, 8, 8)), torch.zeros(1, 8, 8))


@pytest.mark.parametrize("shape", [(2, 6, 6), (2, 12, 4), (2, 4, 12)])
def test_rows_are_evened_out_and_the_whole_keeps_its_size(shape):
    torch.manual_seed(0)
    along = -1 if shape[1] >= shape[2] else -2
    other = -3 - along
    update = torch.randn(shape)
    update.select(other, 0).mul_(10)
    sizes = torch.zeros_like(update.mean(dim=along, keepdim=True))
    result = evened(update, sizes)
    assert torch.allclose(result.norm(dim=(1, 2)), update.norm(dim=(1, 2)), rtol=1e-4)
    norms = result.norm(dim=along)
    assert torch.allclose(norms, norms.mean(dim=-1, keepdim=True).expand_as(norms), rtol=1e-3)
    assert sizes.max() > 0
    assert torch.equal(evened(torch.zeros(shape), sizes * 0), torch.zeros(shape))


def test_muon_decays_only_where_the_update_agrees_and_as_much_as_it_learns():
    def moved(shape, decay, gradient):
        matrix = torch.nn.Parameter(torch.ones(shape))
        matrix.grad = gradient
        Muon([matrix], rate=0.1, decay=decay).step(1.0, 0.0)
        return matrix.detach()

    for shape in ((8, 8), (32, 8)):
        gradient = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        with_decay, without = moved(shape, 0.5, gradient), moved(shape, 0.0, gradient)
        rate = 0.1 * math.sqrt(shape[0] / shape[1])
        apart = without - with_decay
        assert torch.allclose(apart[without < 1], torch.tensor(rate * 0.5))
        assert torch.equal(apart[without > 1], torch.zeros_like(apart[without > 1]))
    matrix = torch.nn.Parameter(torch.ones(8, 8))
    matrix.grad = torch.eye(8)
    Muon([matrix], rate=0.0, decay=1.0).step(1.0, 0.0)
    assert torch.equal(matrix.detach(), torch.ones(8, 8))


def test_every_parameter_has_one_optimizer_and_the_rate_of_its_kind():
    model, knobs = model_of()
    made = Optimizers(model, knobs)
    adam = [p for group in made.adam.param_groups for p in group["params"]]
    muon = [m for stack in made.muon.stacks for m in stack.matrices]
    assert sorted(map(id, [*adam, *muon])) == sorted(map(id, model.parameters()))
    assert {m.dim() for m in muon} == {2}
    by_width = (model.shape.width / 768) ** -0.5
    assert made.rates == pytest.approx([0.6 * by_width, 0.004 * by_width, 0.005, 0.5])
    assert [group["betas"] for group in made.adam.param_groups] == [(0.8, 0.95)] * 3 + [
        (0.96, 0.95)
    ]


def test_a_step_at_a_rate_of_nothing_changes_no_parameter():
    model, knobs = model_of()
    lively(model)
    inputs = torch.randint(256, (2, TINY.sequence_length))
    before = [p.detach().clone() for p in model.parameters()]
    model(inputs, inputs).mean().backward()
    Optimizers(model, knobs).step(0.0, 1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
