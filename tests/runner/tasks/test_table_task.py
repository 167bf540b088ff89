"""The table task and its files: what was recorded and nothing else; lies of a file are refused."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import statistics
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.surfaces.recipe import recipe_of
from runner.surfaces.surface_file import (
    Measured,
    SurfaceError,
    SurfaceFile,
    read_surface,
    write_surface,
)
from runner.tasks import TaskError, get_task
from runner.tasks.table import COMMITTED, TableTask

SMALL = Path(__file__).parents[1] / "surfaces" / "small.json.gz"


def body_of(path):
    return json.loads(gzip.decompress(path.read_bytes()))


def sealed(body):
    """The body with a digest that fits: a liar knows how to hash, too."""
    rest = {k: v for k, v in body.items() if k != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return {**rest, "digest": hashlib.sha256(text.encode()).hexdigest()}


def written(tmp_path, body):
    path = tmp_path / "surface.json.gz"
    path.write_bytes(gzip.compress(json.dumps(body).encode()))
    return path


def made(results, **changes):
    """A task on a grid of two by two with these results."""
    recipe = recipe_of(
        {
            "name": "made",
            "about": "",
            "trainer": "runner.train",
            "metric": "loss",
            "minimize": True,
            "axes": [
                {"name": "A", "levels": [1, 2], "start": 2},
                {"name": "B", "levels": ["x", "y"], "start": "x"},
            ],
            "fixed": {},
            "device_batch_at_most": 1,
            "budget_seconds": 1,
            "seed": 0,
            "repeats": 3,
            "repeated_points": 1,
            "best_points": 0,
            **changes,
        },
        "test",
    )
    origin = dict.fromkeys(("seed_rule", "trainer_digest", "corpus_digest", "torch"), "x")
    origin |= {"host": {}, "cpu_seconds": 0.0, "times": {}}
    surface = SurfaceFile(recipe=recipe, origin=origin, results=tuple(map(tuple, results)))
    return TableTask(surface, path=Path("made"))


def good(*metrics):
    return [Measured(m, "", 1, 1.0) for m in metrics]


# --- outcomes ---


def test_an_outcome_is_one_of_the_recorded_ones_drawn_by_the_seed():
    task = made([good(1.0, 1.1, 1.2), good(2.0), good(3.0), good(4.0)])
    config = {"A": 1, "B": "x"}
    seen = {task.run(config, seed=seed).metric for seed in range(60)}
    assert seen == {1.0, 1.1, 1.2}
    assert task.run(config, seed=7) == task.run(config, seed=7)
    assert task.truth(config) == pytest.approx(1.1)
    assert {task.run({"A": 2, "B": "y"}, seed=s).metric for s in range(9)} == {4.0}


def test_a_point_that_the_surface_lacks_is_a_classified_outcome():
    task = made([good(1.0), [], good(3.0), good(4.0)])
    outcome = task.run({"A": 1, "B": "y"}, seed=1)
    assert (outcome.metric, outcome.failure) == (None, "no_metric")
    assert "lacks this point" in outcome.message
    assert task.truth({"A": 1, "B": "y"}) is None
    assert task.truth({"A": 5}) is None


def test_a_recorded_failure_is_that_failure():
    task = made([[Measured(None, "nan", 0, 0.5)], good(2.0), good(3.0), good(4.0)])
    outcome = task.run({"A": 1, "B": "x"}, seed=1)
    assert (outcome.metric, outcome.failure, outcome.seconds) == (None, "nan", 0.5)


def test_the_optimum_is_the_best_mean_not_the_luckiest_training():
    task = made([good(0.5, 3.0, 3.0), good(2.0), good(3.0), good(4.0)])
    assert task.optimum == (2.0, {"A": 1, "B": "y"})
    more = made([good(0.5, 3.0, 3.0), good(2.0), good(3.0), good(4.0)], minimize=False)
    assert more.optimum == (4.0, {"A": 2, "B": "y"})
    failing = [*good(0.1), Measured(None, "nan", 0, 1.0)]
    assert made([failing, good(2.0), good(3.0), good(4.0)]).optimum[0] == 2.0


def test_the_noise_is_pooled_over_repeated_points():
    task = made([good(1.0, 1.2), good(2.0, 2.4), good(3.0), good(4.0)])
    wanted = (statistics.variance([1.0, 1.2]) + statistics.variance([2.0, 2.4])) / 2
    assert task.sigma == pytest.approx(wanted**0.5)
    assert made([good(1.0), good(2.0), [], []]).sigma is None


def test_a_surface_without_any_metric_is_no_task():
    with pytest.raises(TaskError, match="no training"):
        made([[], [], [], []])


def test_the_committed_surface_is_what_the_issue_asks_for():
    task = get_task("table")
    assert isinstance(task, TableTask)
    assert task.path == COMMITTED
    recipe = task.surface.recipe
    assert recipe.points >= 1500
    assert all(task.surface.results), "every point was trained"
    assert task.sigma is not None
    best, where = task.optimum
    start = task.truth(task.space.defaults())
    assert start is not None
    assert start - best > 3 * task.sigma, "there is something to find"
    axes = {axis.name: axis.levels for axis in recipe.axes}
    for name in ("TOTAL_BATCH_SIZE", "MATRIX_LR"):
        assert where[name] not in (axes[name][0], axes[name][-1]), "the optimum lies inside"
    origin = task.surface.origin
    assert all(origin[key] for key in ("trainer_digest", "corpus_digest", "torch", "host"))
    assert COMMITTED.stat().st_size < 500_000


# --- files ---


def test_what_is_written_is_what_is_read(tmp_path):
    surface = read_surface(SMALL)
    path = tmp_path / "again.json.gz"
    assert write_surface(path, surface) == surface.digest
    assert read_surface(path) == surface


def test_a_missing_file_says_how_to_get_one(tmp_path):
    with pytest.raises(TaskError, match=r"cannot read .*runner record"):
        get_task("table", {"surface": tmp_path / "none.json.gz"})


@pytest.mark.parametrize("cut", [0, 1, 20, 400, -1])
def test_a_truncated_file_is_refused(tmp_path, cut):
    path = tmp_path / "surface.json.gz"
    path.write_bytes(SMALL.read_bytes()[:cut])
    with pytest.raises(TaskError, match="surface"):
        get_task("table", {"surface": path})


CHANGES = {
    "a metric": lambda b: b["results"][0][0].__setitem__(0, 1.0),
    "the host": lambda b: b["host"].__setitem__("cpu", "a better one"),
    "the recipe": lambda b: b["recipe"].__setitem__("about", "another"),
    "the digest": lambda b: b.__setitem__("digest", "0" * 64),
    "the trainer": lambda b: b.__setitem__("trainer_digest", "0" * 64),
}


@pytest.mark.parametrize("what", CHANGES)
def test_whatever_was_changed_the_digest_tells(tmp_path, what):
    body = body_of(SMALL)
    CHANGES[what](body)
    with pytest.raises(SurfaceError, match="it was changed"):
        read_surface(written(tmp_path, body))


LIES = {
    "NaN": lambda b: b["results"][0][0].__setitem__(0, "nan"),
    "a true metric": lambda b: b["results"][0][0].__setitem__(0, True),
    "a metric that failed": lambda b: b["results"][0][0].__setitem__(1, "nan"),
    "no metric and no failure": lambda b: b["results"][0][0].__setitem__(0, None),
    "an unknown failure": lambda b: b["results"].__setitem__(0, [[None, "magic", 0, 1.0]]),
    "negative seconds": lambda b: b["results"][0][0].__setitem__(3, -1.0),
    "half steps": lambda b: b["results"][0][0].__setitem__(2, 1.5),
    "too short a training": lambda b: b["results"].__setitem__(0, [[1.0, ""]]),
    "a point too few": lambda b: b["results"].pop(),
    "a point too many": lambda b: b["results"].append([]),
    "a point that is a number": lambda b: b["results"].__setitem__(0, 3.0),
    "no results": lambda b: b.pop("results"),
    "no host": lambda b: b.pop("host"),
    "a host that is a list": lambda b: b.__setitem__("host", ["x"]),
    "half a character": lambda b: b["host"].__setitem__("cpu", "\ud800"),
    "infinitely many seconds": lambda b: b.__setitem__("cpu_seconds", float("inf")),
    "a metric without end": lambda b: b["results"][0][0].__setitem__(0, 10**400),
    "a metric that squared is none": lambda b: b["results"][0][0].__setitem__(0, 1e200),
    "another format": lambda b: b.__setitem__("format", "escapement surface v2"),
    "a recipe that is text": lambda b: b.__setitem__("recipe", "x"),
    "a grid without end": lambda b: b["recipe"].__setitem__(
        "axes", [{"name": f"A{i}", "levels": list(range(64)), "start": 0} for i in range(16)]
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_well_hashed_lie_is_refused_all_the_same(tmp_path, lie):
    body = body_of(SMALL)
    LIES[lie](body)
    with pytest.raises(SurfaceError):
        read_surface(written(tmp_path, sealed(body)))


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SurfaceError, match="no file"):
        read_surface(tmp_path / "pipe")


def test_a_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb.json.gz"
    path.write_bytes(gzip.compress(b" " * (65 * 1024 * 1024), compresslevel=1))
    with pytest.raises(SurfaceError, match="unpacks to over"):
        read_surface(path)


@pytest.mark.parametrize("text", [b"[]", b"null", b"3", b"{", b"[" * 100_000, b"\xff\xfe"])
def test_json_that_is_no_surface_is_refused(tmp_path, text):
    path = tmp_path / "surface.json.gz"
    path.write_bytes(gzip.compress(text))
    with pytest.raises(SurfaceError):
        read_surface(path)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_any_flipped_byte_is_an_error_of_ours_or_changes_nothing(tmp_path_factory, seed):
    rng = random.Random(seed)
    data = bytearray(SMALL.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path = tmp_path_factory.mktemp("flipped") / "surface.json.gz"
    path.write_bytes(data)
    try:
        found = read_surface(path)
    except SurfaceError:
        return
    assert found.digest == read_surface(SMALL).digest
