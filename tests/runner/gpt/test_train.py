"""The trainer and its text: real torch trainings, seconds each."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from runner.gpt import train
from runner.gpt.corpus import CorpusError, prepare, read
from runner.gpt.options import EXIT_CODES, TrainingFailure, checked_knobs
from runner.gpt.space import SEQUENCE_LENGTH, SPACE

ROOT = Path(__file__).resolve().parents[3]
SMALL = {"TOTAL_BATCH_SIZE": 2**10, "DEVICE_BATCH_SIZE": 8}


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def text(corpus):
    train_text, held_out = read(corpus.path, digest=corpus.digest, train_bytes=corpus.train_bytes)
    return (
        torch.frombuffer(bytearray(train_text), dtype=torch.uint8),
        torch.frombuffer(bytearray(held_out), dtype=torch.uint8),
    )


def run(corpus, knobs, *options):
    """The trainer as a process of its own, as trials start it."""
    place = f"{corpus.path}:{corpus.digest}:{corpus.train_bytes}"
    text = knobs if isinstance(knobs, str) else json.dumps(knobs)
    return subprocess.run(
        [sys.executable, "-m", "runner.gpt.train", f"--corpus={place}", *options, text],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def metric(output):
    (value,) = re.findall(r"^val_bpb:\s+(\S+)$", output, re.MULTILINE)
    return float(value)


def short(text, knobs=(), *, steps=6, seed=0):
    """A training of a few steps in this process; bits per byte."""
    torch.set_num_threads(1)
    values = checked_knobs({**SMALL, **dict(knobs)})
    torch.manual_seed(seed)
    shape = train.Shape.of(values)
    model = train.GPT(shape)
    optimizers = train.Optimizers(model, shape, values)
    done = train.train(
        model, optimizers, text[0], values, budget_seconds=60, max_steps=steps, seed=seed
    )
    assert done.steps == steps
    return train.bits_per_byte(model, text[1])


# --- the process ---


@pytest.fixture(scope="module")
def trained(corpus):
    done = run(corpus, SMALL, "--budget-seconds=1.5")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_learns_real_text_within_its_budget(corpus, trained):
    assert 1.5 < metric(trained) < 5.0
    summary = dict(re.findall(r"^(\w+):\s+(\S+)$", trained.rpartition("---")[2], re.MULTILINE))
    assert summary["corpus_digest"] == corpus.digest
    assert summary["threads"] == "1"
    assert int(summary["num_steps"]) > 5
    assert int(summary["total_tokens"]) == int(summary["num_steps"]) * 2**10
    assert float(summary["training_seconds"]) >= 1.5


def test_a_batch_that_is_too_large_learns_less_in_the_same_budget(corpus, trained):
    large = run(corpus, {"TOTAL_BATCH_SIZE": 2**14}, "--budget-seconds=1.5").stdout
    assert metric(trained) < metric(large) - 0.5


def test_one_seed_gives_one_result_in_another_process(corpus, text):
    there = run(corpus, SMALL, "--max-steps=4", "--seed=3").stdout
    assert metric(there) == round(short(text, steps=4, seed=3), 6)


CONSTRAINTS = [
    ({"NO_SUCH_KNOB": 1}, "unknown knobs"),
    ({"TOTAL_BATCH_SIZE": 2**10}, "not a multiple"),
    ({"MATRIX_LR": "much"}, "not a number"),
    ({"WINDOW_PATTERN": "XL"}, "none of"),
    ("[1, 2]", "JSON object"),
    ("{", "JSON object"),
    ('{"MATRIX_LR": NaN}', "not finite"),
]


@pytest.mark.parametrize(("knobs", "message"), CONSTRAINTS)
def test_wrong_knobs_are_a_broken_constraint(capsys, knobs, message):
    text = knobs if isinstance(knobs, str) else json.dumps(knobs)
    assert train.main([text]) == EXIT_CODES["constraint"]
    told = capsys.readouterr()
    assert told.out == "failure: constraint\n"
    assert message in told.err


def test_a_missing_corpus_is_our_trouble(capsys):
    assert train.main(["--corpus=/nowhere:00:5", "{}"]) == EXIT_CODES["infrastructure"]
    told = capsys.readouterr()
    assert told.out == "failure: infrastructure\n"
    assert "cannot read the corpus" in told.err


def test_a_failure_ends_the_process_with_its_code(corpus):
    done = run(corpus, {"TOTAL_BATCH_SIZE": 2**14, "DEVICE_BATCH_SIZE": 128}, "--memory-mb=420")
    assert done.returncode == EXIT_CODES["oom"], done.stderr
    assert "failure: oom\n" in done.stdout
    assert "val_bpb" not in done.stdout


def test_a_diverging_training_is_nan(text):
    values = checked_knobs(SMALL)
    model = train.GPT(train.Shape.of(values))
    with torch.no_grad():
        model.embedding.weight.fill_(math.nan)
    with pytest.raises(TrainingFailure) as caught:
        train.train(
            model,
            train.Optimizers(model, train.Shape.of(values), values),
            text[0],
            values,
            budget_seconds=5,
            max_steps=3,
            seed=0,
        )
    assert caught.value.failure == "nan"


# --- every knob does something ---

CHANGED = {
    "DEPTH": 3,
    "ASPECT_RATIO": 64,
    "HEAD_DIM": 16,
    "WINDOW_PATTERN": "SL",
    "TOTAL_BATCH_SIZE": 2**11,
    "DEVICE_BATCH_SIZE": 4,
    "EMBEDDING_LR": 1.0,
    "UNEMBEDDING_LR": 0.02,
    "MATRIX_LR": 0.1,
    "SCALAR_LR": 1.5,
    "WEIGHT_DECAY": 0.9,
    "ADAM_BETAS": "0.95,0.99",
    "WARMUP_RATIO": 0.4,
    "WARMDOWN_RATIO": 0.9,
    "FINAL_LR_FRAC": 0.8,
}


@pytest.fixture(scope="module")
def plain(text):
    return short(text)


def test_its_numbers_stay_what_recorded_surfaces_were_made_of(text, plain):
    """The tolerance is for other processors, other builds of torch and other standard libraries."""
    assert plain == pytest.approx(6.204, abs=0.15)
    changed = {"WINDOW_PATTERN": "SL", "MATRIX_LR": 0.1, "WARMUP_RATIO": 0.4}
    assert short(text, changed, steps=12) == pytest.approx(5.513, abs=0.15)


def test_the_list_of_knobs_is_whole():
    assert set(CHANGED) == set(SPACE)


def test_another_seed_gives_another_result(text, plain):
    assert short(text, seed=1) != plain
    assert short(text, seed=0) == plain


@pytest.mark.parametrize("name", CHANGED)
def test_every_knob_changes_the_result(text, plain, name):
    assert abs(short(text, {name: CHANGED[name]}) - plain) > 1e-7


@given(st.floats(0, 1), st.floats(0, 0.5), st.floats(0, 1), st.floats(0, 1))
def test_the_schedule_stays_within_its_bounds(progress, warmup, warmdown, final):
    knobs = {"WARMUP_RATIO": warmup, "WARMDOWN_RATIO": warmdown, "FINAL_LR_FRAC": final}
    assert 0 <= train.schedule(progress, knobs) <= 1


def test_the_schedule_warms_up_and_down():
    knobs = {"WARMUP_RATIO": 0.2, "WARMDOWN_RATIO": 0.5, "FINAL_LR_FRAC": 0.1}
    points = [train.schedule(p, knobs) for p in (0.0, 0.1, 0.3, 0.75, 1.0)]
    assert points == pytest.approx([0.01, 0.5, 1.0, 0.55, 0.1])


def test_muons_update_is_nearly_orthogonal():
    torch.manual_seed(0)
    for shape in ((48, 48), (96, 32), (32, 96)):
        (update,) = train._orthogonal([torch.randn(shape)])
        values = torch.linalg.svdvals(update)
        assert values.min() > 0.5
        assert values.max() < 1.4


def test_a_window_hides_what_is_far_away():
    values = checked_knobs({**SMALL, "WINDOW_PATTERN": "S"})
    torch.manual_seed(0)
    model = train.GPT(train.Shape.of(values))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
        one = torch.randint(0, 256, (1, SEQUENCE_LENGTH))
        other = one.clone()
        other[0, 0] = (other[0, 0] + 1) % 256
        difference = (model(one) - model(other)).abs().amax(dim=-1)[0]
    reach = 2 * (SEQUENCE_LENGTH // 4 - 1)  # two layers
    assert difference[0] > 0
    assert difference[: reach + 1].max() > 0
    assert difference[reach + 1 :].max() == 0


def test_no_model_looks_ahead():
    model = train.GPT(train.Shape.of(checked_knobs(SMALL)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
        one = torch.randint(0, 256, (1, SEQUENCE_LENGTH))
        other = one.clone()
        other[0, 100] = (other[0, 100] + 1) % 256
        difference = (model(one) - model(other)).abs().amax(dim=-1)[0]
    assert difference[:100].max() == 0
    assert difference[100] > 0


def test_an_untrained_model_knows_nothing(text):
    torch.manual_seed(0)
    model = train.GPT(train.Shape.of(checked_knobs(SMALL)))
    assert train.bits_per_byte(model, text[1]) == pytest.approx(8.0, abs=0.1)


# --- the text ---


def test_the_text_is_the_standard_librarys(corpus):
    train_text, held_out = read(corpus.path, digest=corpus.digest, train_bytes=corpus.train_bytes)
    assert len(train_text) + len(held_out) == corpus.total_bytes > 4_000_000
    assert 0.01 < len(held_out) / corpus.total_bytes < 0.15
    source = Path(json.__file__).with_name("decoder.py").read_bytes()
    assert (source in train_text) != (source in held_out)  # whole files, on one side each


def test_the_cache_is_written_once_and_mended(corpus, tmp_path):
    made = prepare(tmp_path)
    assert (made.digest, made.train_bytes) == (corpus.digest, corpus.train_bytes)
    inode = made.path.stat().st_ino
    assert prepare(tmp_path).path.stat().st_ino == inode
    data = bytearray(made.path.read_bytes())
    data[1000] ^= 1
    made.path.write_bytes(data)
    with pytest.raises(CorpusError, match="recorded is"):
        read(made.path, digest=made.digest, train_bytes=made.train_bytes)
    prepare(tmp_path)
    read(made.path, digest=made.digest, train_bytes=made.train_bytes)


def test_another_split_is_another_corpus(corpus):
    with pytest.raises(CorpusError):
        read(corpus.path, digest=corpus.digest, train_bytes=corpus.train_bytes - 1)


def test_too_little_text_is_an_error(tmp_path):
    (tmp_path / "one.py").write_text("x = 1\n")
    with pytest.raises(CorpusError, match="install a full Python standard library"):
        prepare(tmp_path / "cache", root=tmp_path)
