"""The gpt-gpu task at its tiny size: training, the process, the task. No card is needed or used."""

from __future__ import annotations

import json
import math
import re
import uuid
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from runner.gpt.options import EXIT_CODES, TrainingFailure
from runner.gpu import hardware
from runner.gpu import train as train_gpu
from runner.gpu.card_locks import Card
from runner.gpu.model import Model, Shape
from runner.gpu.optimizers import Optimizers
from runner.gpu.shards import prepare
from runner.gpu.space import SETTINGS
from runner.gpu.text import batches, text_of
from runner.processes import locks
from runner.tasks import Places, TaskError, get_task, gpt_gpu
from tests.runner.shardfolder import write_shards

TINY = SETTINGS["tiny"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def text(folder, tmp_path_factory):
    tokens = prepare(folder, vocabulary=TINY.vocabulary)
    told = {
        "train": [str(p) for p in tokens.train],
        "validation": str(tokens.validation),
        "token_bytes": tokens.token_bytes,
        "begin": tokens.begin,
    }
    path = tmp_path_factory.mktemp("list") / "tokens.json"
    path.write_text(json.dumps(told))
    return text_of(path, path.parent)


# --- training ---


def trained(model, text, knobs, *, bf16=False, steps=2, optimizers=None):
    call = train_gpu.losses(model, CPU, bf16)
    return train_gpu.train(
        call,
        model,
        optimizers or Optimizers(model, knobs),
        batches(text, knobs["DEVICE_BATCH_SIZE"], TINY.sequence_length, seed=0, device=CPU),
        knobs,
        budget_seconds=60,
        max_steps=steps,
        device=CPU,
    )


def model_of(text, knobs="{}", **options):
    torch.manual_seed(0)
    values = train_gpu.checked(knobs, TINY)
    return Model(Shape.of(values, TINY, text.vocabulary), **options), values


def bits(model, text, *, bf16=False, rows=8):
    call = train_gpu.losses(model, CPU, bf16)
    return train_gpu.bits_per_byte(call, text, setting=TINY, rows=rows, device=CPU)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_it_learns(text, precision):
    torch.set_num_threads(1)
    bf16 = precision == "bf16"
    model, knobs = model_of(text, stream=torch.bfloat16 if bf16 else torch.float32)
    before = bits(model, text, bf16=bf16)
    done = trained(model, text, knobs, bf16=bf16, steps=12)
    after = bits(model, text, bf16=bf16)
    assert done.steps == 12
    assert done.tokens == 12 * 2**10
    assert 0 < after < before - 0.3
    assert bits(model, text, bf16=bf16, rows=3) == pytest.approx(after, abs=0.01)  # no knob


def test_a_batch_in_parts_is_the_same_batch(text):
    """TOTAL_BATCH_SIZE in more parts of fewer rows: the same tokens, the same gradients."""
    results = []
    for rows in (16, 4):
        model, knobs = model_of(text, json.dumps({"DEVICE_BATCH_SIZE": rows}))
        torch.nn.init.normal_(model.unembedding.weight)
        seen = SimpleNamespace(
            step=lambda *_, m=model: results.append([p.grad for p in m.parameters()])
        )
        trained(model, text, knobs, steps=1, optimizers=seen)
    assert len(results) == 2
    for whole, parts in zip(*results, strict=True):
        assert torch.allclose(whole, parts, atol=1e-5)


def test_bits_per_byte_are_the_nats_of_tokens_that_are_bytes(text):
    """A model that knows nothing: the logarithm of the vocabulary, over the bytes a token has."""
    rows = [row.tolist()[1:] for row in train_gpu.validation_rows(text, TINY)]
    lengths = text.token_bytes.clone()
    lengths[rows[0][0]] = 0
    text = replace(text, token_bytes=lengths)
    model, _ = model_of(text)
    torch.nn.init.zeros_(model.unembedding.weight)
    sizes = [int(lengths[i]) for row in rows for i in row]
    share = sum(size > 0 for size in sizes) / sum(sizes)
    assert 0 in sizes
    assert bits(model, text) == pytest.approx(math.log2(text.vocabulary) * share, rel=1e-4)


def test_a_diverging_training_is_nan(text):
    model, knobs = model_of(text)
    with torch.no_grad():
        model.embedding.weight.fill_(math.nan)
    with pytest.raises(TrainingFailure) as caught:
        trained(model, text, knobs)
    assert caught.value.failure == "nan"


# --- the card ---


@pytest.mark.parametrize(
    ("card", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", 989.5),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA H200", 989.5),
        ("NVIDIA GH200 480GB", 989.5),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA L40S", 362),
        ("NVIDIA L40", 181),
        ("NVIDIA L4", 121),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA GeForce RTX 3090 Ti", 80),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("Tesla T4", None),
        ("cpu", None),
    ],
)
def test_a_peak_is_of_this_very_card(card, tera):
    assert hardware.peak_flops(card) == (None if tera is None else pytest.approx(tera * 1e12))


def probed(capsys, *words):
    code = train_gpu.main(["--probe", "--device=cpu", *words])
    return code, capsys.readouterr()


def test_a_probe_says_what_there_is(capsys):
    code, told = probed(capsys, "--compile=aot_eager")
    assert code == 0
    assert json.loads(told.out.removeprefix("probe: "))["cards"] == [{"uuid": "", "name": "cpu"}]
    code, told = probed(capsys, "--attention=flex")
    assert (code, "flex attention needs" in told.err) == (EXIT_CODES["constraint"], True)


@pytest.mark.parametrize("what", ["kernel", "product", "compiler", "blocks", "agreement"])
def test_what_does_not_work_is_said_with_the_way_out(monkeypatch, what):
    def broken(*_args, **_options):
        raise RuntimeError("no kernel image is available")

    windows, way_out = (
        "mask",
        {
            "kernel": "is torch made for this card",
            "product": "use another card",
            "compiler": "or choose --compile off",
            "blocks": "choose --attention mask",  # on a CPU there is no way back through blocks
            "agreement": "wrong by .*choose --attention mask",
        }[what],
    )
    if what == "kernel":
        monkeypatch.setattr(torch, "ones", broken)
    elif what == "product":
        monkeypatch.setattr(torch, "ones", torch.zeros)
    elif what == "compiler":
        monkeypatch.setattr(torch, "compile", broken)
    else:
        windows = "flex"
    if what == "agreement":
        wrong = hardware.near_mask(hardware.CHECK_LENGTH, hardware.CHECK_WINDOW + 9)
        monkeypatch.setattr(hardware, "near_blocks", lambda *_: wrong)
    with pytest.raises(TrainingFailure, match=way_out) as caught:
        hardware.check(CPU, precision="float32", compiler="eager", windows=windows)
    assert caught.value.failure == "infrastructure"


# --- the process and the task ---


@pytest.mark.parametrize(
    ("arguments", "failure", "message"),
    [
        (["--device=cuda", "{}"], "infrastructure", "no CUDA device"),
        (["--device=cpu", "--setting=tiny", "{"], "constraint", "JSON"),
        (["--device=cpu", "--setting=tiny", '{"NO": 1}'], "constraint", "unknown knob"),
        (["--device=cpu", "--setting=tiny", "[1]"], "constraint", "JSON object"),
        (["--device=cpu", "--setting=tiny", '{"TOTAL_BATCH_SIZE": 256}'], "constraint", "multiple"),
        (
            ["--device=cpu", "--setting=tiny", "--tokens=/nowhere", "{}"],
            "infrastructure",
            "nowhere",
        ),
    ],
)
def test_a_failure_is_a_class_and_a_code(capsys, monkeypatch, arguments, failure, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert train_gpu.main(arguments) == EXIT_CODES[failure]
    told = capsys.readouterr()
    assert told.out == f"failure: {failure}\n"
    assert message in told.err


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "oom"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), "oom"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "oom"),
        (MemoryError(), "oom"),
        (torch.AcceleratorError("CUDA error: out of memory"), "oom"),
        (torch.AcceleratorError("CUDA error: uncorrectable ECC error"), "infrastructure"),
        (OSError(28, "No space left on device"), "infrastructure"),
    ],
)
def test_what_the_card_says_is_a_class(capsys, monkeypatch, error, failure):
    def fails(_options):
        raise error

    monkeypatch.setattr(train_gpu, "experiment", fails)
    assert train_gpu.main([]) == EXIT_CODES[failure]
    assert capsys.readouterr().out == f"failure: {failure}\n"


def test_a_fault_of_our_own_is_no_class(monkeypatch):
    monkeypatch.setattr(train_gpu, "experiment", lambda _options: {}["x"])
    with pytest.raises(KeyError):
        train_gpu.main([])


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "x"])
def test_a_budget_is_a_time(seconds):
    with pytest.raises(SystemExit):
        train_gpu.main([f"--budget-seconds={seconds}"])


def test_bytes_of_local_text_are_a_fallback_that_says_so(capsys, tmp_path):
    size = ["--device=cpu", "--setting=tiny", "--compile=off", "--max-steps=1"]
    assert train_gpu.main([*size, f"--cache={tmp_path}", "{}"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"^val_bpb: +\d\.\d+$", told, re.MULTILINE)
    assert re.search(r"^text: +bytes of local text \(fallback\)$", told, re.MULTILINE)
    assert re.search(r"^tokens_per_second: +\d+$", told, re.MULTILINE)


def test_local_text_that_changed_is_not_trained_on(tmp_path, monkeypatch, capsys):
    options = {"setting": "tiny", "device": "cpu", "compile": "off", "data": "bytes"}
    task = get_task("gpt-gpu", options, places=Places(var=tmp_path))
    task.text.path.write_bytes(task.text.path.read_bytes()[:-1] + b"?")
    monkeypatch.setattr(gpt_gpu, "measure", lambda args, **_: train_gpu.main(args[3:]))
    assert task.run(task.space.defaults(), seed=0) == EXIT_CODES["infrastructure"]
    assert "recorded is" in capsys.readouterr().err


def test_what_is_trained_on_is_said_and_in_the_digest(folder, tmp_path):
    """That a trial on shards gives a metric is part of the contract of every task."""
    options = {"setting": "tiny", "device": "cpu", "compile": "off", "budget_seconds": 0.5}
    places = Places(var=tmp_path)
    task = get_task("gpt-gpu", {**options, "shards": folder}, places=places)
    assert "2 public shards" in task.description
    other = get_task("gpt-gpu", {**options, "data": "bytes"}, places=places)
    assert "fallback" in other.description
    assert "fallback" in other.host()["text"]
    assert other.digest != task.digest
    with pytest.raises(TaskError, match=r"runner\.gpu\.shards fetch"):
        get_task("gpt-gpu", {**options, "shards": tmp_path / "nothing"}, places=places)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card here")
def test_no_card_is_said_and_nothing_falls_back(tmp_path):
    with pytest.raises(TaskError, match=r"no CUDA device.*gpt task"):
        get_task("gpt-gpu", {"data": "bytes"}, places=Places(var=tmp_path))


# --- trials on cards, with a stand-in for the trainer ---


@pytest.fixture
def carded(folder, tmp_path, monkeypatch):
    """A task that believes in two cards; each trial's environment and waiting is kept."""
    cards = tuple({"uuid": str(uuid.uuid4()), "name": "NVIDIA H200"} for _ in range(2))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    monkeypatch.setenv("CC", "/opt/cc")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)  # torch sets it for itself
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setattr(gpt_gpu, "_probed", lambda *_: cards)
    given = {"setting": "tiny", "shards": folder}
    task = get_task("gpt-gpu", given, places=Places(var=tmp_path))
    calls = []

    def measure(args, *, env, **_):
        calls.append(SimpleNamespace(args=args, env=env))
        return "an outcome"

    monkeypatch.setattr(gpt_gpu, "measure", measure)
    yield SimpleNamespace(task=task, calls=calls, cards=cards)
    for one in cards:
        Card(device="", key=one["uuid"], name="").lock.unlink(missing_ok=True)


def test_a_trial_sees_one_card_and_what_a_compiler_needs(carded, tmp_path):
    task = carded.task
    assert task.run(task.space.defaults(), seed=3) == "an outcome"
    (call,) = carded.calls
    assert call.env["CUDA_VISIBLE_DEVICES"] == "4"
    assert call.env["CC"] == "/opt/cc"
    assert call.env["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "compiled")
    assert "secret" not in repr(call.env)
    assert {"--attention=flex", "--device=cuda", "--seed=3"} <= set(call.args)
    assert task.host()["cards"] == 2
    assert task.host()["attention"] == "flex"


def test_a_card_in_use_is_left_alone_and_with_none_left_a_trial_waits(carded, monkeypatch):
    task, told = carded.task, []
    locked = [Card(device="", key=one["uuid"], name="").lock for one in carded.cards]
    with locks.one_of(locked[:1], wait_seconds=0):
        task.run(task.space.defaults(), seed=0)
        assert carded.calls[-1].env["CUDA_VISIBLE_DEVICES"] == "7"
        monkeypatch.setattr(gpt_gpu, "WAIT_SECONDS", 0.0)
        with locks.one_of(locked[1:], wait_seconds=0):
            outcome = task.run(task.space.defaults(), seed=0, progress=told.append)
    assert outcome.failure == "infrastructure"
    assert "held by another process" in outcome.message
    assert len(carded.calls) == 1


def test_the_way_attention_is_computed_is_in_the_digest(carded, folder, tmp_path):
    given = {"setting": "tiny", "shards": folder, "attention": "mask"}
    other = get_task("gpt-gpu", given, places=Places(var=tmp_path))
    assert other.digest != carded.task.digest
    with pytest.raises(TaskError, match="flex attention needs"):
        get_task(
            "gpt-gpu",
            {**given, "attention": "flex", "compile": "off"},
            places=Places(var=tmp_path),
        )
