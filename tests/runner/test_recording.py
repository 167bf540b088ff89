"""Recording a surface: every point once, in forked children, durable, resumable, packed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runner.gpt import forking
from runner.recording import Job, Line, Log, Recorder, RecordingError, pack
from runner.surfaces.recipe import RecipeError, read_recipe, recipe_of
from runner.surfaces.surface_file import Measured, read_surface

ROOT = Path(__file__).resolve().parents[2]
HEADER = {"recipe": "x", "torch": "none"}
FACTS = {
    "trainer_digest": "t" * 64,
    "corpus_digest": "c" * 64,
    "torch": "none",
    "host": {"cpu": "test"},
}


def recipe(**changes):
    values = {
        "name": "tiny",
        "about": "A grid for tests.",
        "trainer": "runner.train",
        "metric": "val_bpb",
        "minimize": True,
        "axes": [
            {"name": "TOTAL_BATCH_SIZE", "levels": [256, 512, 1024], "start": 1024},
            {"name": "MATRIX_LR", "levels": [0.01, 0.02, 0.08, 0.2], "start": 0.02},
        ],
        "fixed": {"UNEMBEDDING_LR": 0.016},
        "device_batch_at_most": 4,
        "budget_seconds": 0.05,
        "seed": 3,
        "repeats": 3,
        "repeated_points": 2,
        "best_points": 2,
    }
    return recipe_of({**values, **changes}, "test")


def fake_train(config, seed):
    """An answer without torch; some points fail in every way a training can."""
    where = (config["TOTAL_BATCH_SIZE"], config["MATRIX_LR"])
    if where == (256, 0.2):
        return {"failure": "nan", "message": "the loss is nan"}
    if where == (256, 0.08):
        os.kill(os.getpid(), signal.SIGKILL)
    if where == (512, 0.2):
        raise ValueError("a trainer's own error")
    metric = 3 + config["MATRIX_LR"] + config["TOTAL_BATCH_SIZE"] / 1e5 + seed % 7 / 1e4
    return {"failure": "", "metric": metric, "steps": 5}


def recorder(log, train=fake_train, workers=2, plan=None):
    return Recorder(
        recipe=plan or recipe(), log=log, train=train, workers=workers, say=lambda _t: None
    )


# --- the recipe ---


def test_points_and_their_numbers_are_the_same_thing():
    plan = recipe()
    assert plan.points == 12
    assert [plan.number(plan.point(n)) for n in range(12)] == list(range(12))
    assert plan.point(1) == {"TOTAL_BATCH_SIZE": 256, "MATRIX_LR": 0.02}
    assert plan.start() == {"TOTAL_BATCH_SIZE": 1024, "MATRIX_LR": 0.02}
    kinds = {name: knob.kind for name, knob in plan.space().items()}
    assert kinds == {"TOTAL_BATCH_SIZE": "power_of_two", "MATRIX_LR": "choice"}


def test_every_point_is_a_job_once_and_the_start_is_repeated():
    plan = recipe()
    jobs = plan.jobs()
    assert sorted(p for p, repeat in jobs if repeat == 0) == list(range(12))
    assert {repeat for p, repeat in jobs if p == plan.number(plan.start())} == {0, 1, 2}
    assert jobs == recipe().jobs() != recipe(seed=4).jobs()
    assert plan.knobs(0, 128)["DEVICE_BATCH_SIZE"] == 2
    assert plan.knobs(11, 128)["DEVICE_BATCH_SIZE"] == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axes": []}, "axes"),
        ({"axes": [{"name": "A", "levels": [2, 1], "start": 1}]}, "ascending"),
        ({"axes": [{"name": "A", "levels": [1, 1], "start": 1}]}, "twice"),
        ({"axes": [{"name": "A", "levels": [1, "x"], "start": 1}]}, "numbers alone"),
        ({"axes": [{"name": "A", "levels": [1, 2], "start": 3}]}, "none of its levels"),
        ({"fixed": {"MATRIX_LR": 1}}, "twice"),
        ({"budget_seconds": 0}, "budget_seconds"),
        ({"trainer": "os.system"}, "trainer"),
        ({"surprise": 1}, "surprise"),
        (
            {"axes": [{"name": f"A{i}", "levels": list(range(64)), "start": 0} for i in range(9)]},
            "at most",
        ),
    ],
)
def test_a_wrong_recipe_is_refused_with_the_reason(changes, message):
    with pytest.raises(RecipeError, match=message):
        recipe(**changes)


def test_a_broken_recipe_file_is_refused(tmp_path):
    path = tmp_path / "recipe.json"
    with pytest.raises(RecipeError, match="cannot read"):
        read_recipe(path)
    path.write_text("{")
    with pytest.raises(RecipeError, match="no recipe"):
        read_recipe(path)
    path.write_bytes(b" " * 100_000)
    with pytest.raises(RecipeError, match="at most"):
        read_recipe(path)


def test_the_committed_recipe_is_one():
    plan = read_recipe(ROOT / "runner/surfaces/gpt-cpu.recipe.json")
    assert plan.points >= 1500


# --- recording ---


def test_it_records_failures_as_results_and_the_best_points_again(tmp_path):
    log = Log(tmp_path / "log", HEADER, lambda _t: None)
    recorder(log).run()
    by_point = {
        tuple(recipe().point(job.point).values()): line.measured.failure
        for job, line in log.lines.items()
        if not job.repeat
    }
    assert by_point[256, 0.2] == "nan"
    assert by_point[256, 0.08] == "oom"
    assert by_point[512, 0.2] == "crash"
    assert len(by_point) == 12
    best = [n for n, _ in sorted(log.firsts().items(), key=lambda item: item[1])[:2]]
    assert all((Job(n, 2)) in log.lines for n in best)
    log.close()


def test_a_training_that_hangs_is_killed_at_its_deadline(tmp_path, monkeypatch):
    monkeypatch.setattr(forking, "WALL_FACTOR", 0.0)
    monkeypatch.setattr(forking, "WALL_EXTRA_SECONDS", 0.2)
    plan = recipe(axes=[recipe().axes[0].model_dump()], best_points=0, repeated_points=0)
    log = Log(tmp_path / "log", HEADER, lambda _t: None)
    recorder(log, train=lambda _c, _s: time.sleep(600), plan=plan, workers=3).run()
    assert {line.measured.failure for line in log.lines.values()} == {"timeout"}
    log.close()


def test_a_host_where_nothing_can_be_looked_at_ends_it_and_stores_nothing(tmp_path):
    log = Log(tmp_path / "log", HEADER, lambda _t: None)
    broken = {"failure": "infrastructure", "message": "the corpus is gone"}
    with pytest.raises(RecordingError, match="the corpus is gone"):
        recorder(log, train=lambda _c, _s: broken).run()
    assert not log.lines
    log.close()


def test_it_goes_on_where_it_was_cut_and_trains_nothing_twice(tmp_path):
    path = tmp_path / "log"
    log = Log(path, HEADER, lambda _t: None)
    recorder(log).run()
    log.close()
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole[:6]) + whole[6][:20])
    said = []
    log = Log(path, HEADER, said.append)
    assert any("cut short" in text for text in said)
    assert len(log.lines) == 5
    trained = []

    def counted(config, seed):
        return fake_train(config, seed)

    again = recorder(log, train=counted)
    start = forking.start
    try:
        forking.start = lambda *a, **k: (trained.append(1), start(*a, **k))[1]
        again.run()
    finally:
        forking.start = start
    assert len(trained) == len(whole) - 6
    second = {job: line.measured[:3] for job, line in log.lines.items()}
    log.close()
    first = {Job(*row["job"]): tuple(row["measured"][:3]) for row in map(json.loads, whole[1:])}
    assert second == first


def test_another_recording_in_the_same_file_is_refused(tmp_path):
    path = tmp_path / "log"
    Log(path, HEADER, lambda _t: None).close()
    with pytest.raises(RecordingError, match="torch"):
        Log(path, {**HEADER, "torch": "other"}, lambda _t: None)
    path.write_text("not JSON\n")
    with pytest.raises(RecordingError, match="broken"):
        Log(path, HEADER, lambda _t: None)


def test_what_is_packed_is_what_was_recorded(tmp_path):
    log = Log(tmp_path / "log", HEADER, lambda _t: None)
    recorder(log).run()
    out = tmp_path / "surface.json.gz"
    digest = pack(recipe(), log, FACTS, out)
    found = read_surface(out)
    assert found.digest == digest
    assert found.recipe == recipe()
    assert found.origin["host"] == {"cpu": "test"}
    assert sum(map(len, found.results)) == len(log.lines)
    first = out.read_bytes()
    assert pack(recipe(), log, FACTS, out) == digest
    assert out.read_bytes() == first
    log.close()


SCRIPT = """
import sys, time
sys.path[:0] = [{root!r}]
from pathlib import Path
from tests.runner.test_recording import HEADER, Log, fake_train, recorder
def slow(config, seed):
    time.sleep(0.02)
    return fake_train(config, seed)
log = Log(Path({path!r}), HEADER, lambda _t: None)
recorder(log, train=slow, workers=2).run()
"""


def test_kill_9_at_any_moment_loses_and_repeats_nothing(tmp_path):
    path = tmp_path / "log"
    script = SCRIPT.format(root=str(ROOT), path=str(path))
    for lines in (2, 7, 11):
        child = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
        end = time.monotonic() + 60
        while time.monotonic() < end and child.poll() is None:
            if path.exists() and path.read_bytes().count(b"\n") >= lines:
                break
            time.sleep(0.005)
        child.kill()
        child.wait()
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=240)
    rows = [json.loads(line) for line in path.read_bytes().splitlines()[1:]]
    jobs = [tuple(row["job"]) for row in rows]
    assert len(jobs) == len(set(jobs))
    whole = Log(tmp_path / "other", HEADER, lambda _t: None)
    recorder(whole).run()
    assert set(jobs) == {tuple(job) for job in whole.lines}
    assert {tuple(r["job"]): tuple(r["measured"][:3]) for r in rows} == {
        tuple(j): tuple(line.measured[:3]) for j, line in whole.lines.items()
    }
    whole.close()


def test_a_line_of_the_log_is_a_measured_training(tmp_path):
    log = Log(tmp_path / "log", HEADER, lambda _t: None)
    line = Line(Job(1, 0), Measured(3.5, "", 7, 1.25), "")
    log.add(line)
    log.close()
    again = Log(tmp_path / "log", HEADER, lambda _t: None)
    assert again.lines == {Job(1, 0): line}
    assert again.began == log.began
    again.close()
