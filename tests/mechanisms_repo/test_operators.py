"""The seed operators: their own tests, variants of them, and whether each does what it claims."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import fmean

import pytest

from runner.levels.catalog_rules import RULES
from runner.levels.variation import parameters, vary
from runner.protocol import LibraryEntry
from sandbox.draft import draft_from_files
from sandbox.operators import recognise
from tests.mechanisms_repo.simulation import SEED_FOLDER, best_of, operator, repeats, search

ROOT = SEED_FOLDER.parent
WORKING = ["tabu", "bandit", "orthogonal", "restart", "annealing", "batch", "cma", "gp", "tpe"]
WORKING += ["pathfinder"]
NAMES = ["null", *WORKING]
MODELS = {"batch", "cma", "gp", "tpe", "pathfinder"}  # slower: fewer searches of them
# Each screening takes ten seconds; ESCAPEMENT_ALL_OPERATORS=1 has all of them screened.
SCREENED = ["tabu", "bandit", "orthogonal", "restart", "pathfinder", "tpe"]
if os.environ.get("ESCAPEMENT_ALL_OPERATORS"):
    SCREENED = WORKING
SEEDS = range(10)


def entry(name: str) -> LibraryEntry:
    source = (SEED_FOLDER / "mechanisms" / f"{name}.py").read_text()
    test = (SEED_FOLDER / "tests" / f"test_{name}.py").read_text()
    digest = hashlib.sha256(source.encode()).hexdigest()
    return LibraryEntry(name=name, digest=digest, source=source, test=test)


def run_tests(folder: Path) -> str:
    options = ["-q", "-c", "/dev/null", "-p", "no:cacheprovider", "--import-mode=importlib"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, f"--rootdir={folder}", "tests"],
        cwd=folder,
        env={"PYTHONPATH": f"{ROOT}:{folder}", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def test_the_folder_holds_what_it_says():
    assert sorted(p.stem for p in (SEED_FOLDER / "mechanisms").glob("*.py")) == sorted(NAMES)
    for name in NAMES:
        one = entry(name)
        files = {f"mechanisms/{name}.py": one.source, f"tests/test_{name}.py": one.test}
        assert draft_from_files({p: t.encode() for p, t in files.items()}).name == name


def test_the_operators_own_tests_pass():
    assert "passed" in run_tests(SEED_FOLDER)


def test_a_broken_operator_fails_its_own_tests(tmp_path):
    caches = shutil.ignore_patterns("__pycache__", ".*")  # others write there meanwhile
    shutil.copytree(SEED_FOLDER, tmp_path / "repo", ignore=caches)
    path = tmp_path / "repo" / "mechanisms" / "tabu.py"
    path.write_text(path.read_text().replace("not made & tabu.keys()", "True"))
    with pytest.raises(AssertionError, match="failed"):
        run_tests(tmp_path / "repo")


def test_variants_at_the_bounds_are_recognised_and_pass_the_operators_tests(tmp_path):
    library = {name: entry(name).source.encode() for name in NAMES}
    (tmp_path / "mechanisms").mkdir()
    (tmp_path / "tests").mkdir()
    for name, rule in RULES.items():
        for i, side in enumerate((0, 1)):
            values = {key: bounds[side] for key, bounds in rule.bounds.items()}
            variant = vary(entry(name), values, f"{name}_v{i + 2}")
            assert recognise(variant.source.encode(), library) == name
            assert parameters(variant.source) == {**parameters(entry(name).source), **values}
            (tmp_path / "mechanisms" / f"{variant.name}.py").write_text(variant.source)
            (tmp_path / "tests" / f"test_{variant.name}.py").write_text(variant.test)
    run_tests(tmp_path)


@pytest.fixture(scope="module")
def searches():
    return {
        name: [
            search(operator(name), trials=30, seed=seed)
            for seed in (SEEDS[:3] if name in MODELS else SEEDS)
        ]
        for name in NAMES
    }


@pytest.mark.parametrize("name", WORKING)
def test_each_operator_ends_better_than_plain_level_1(searches, name):
    plain = fmean(best_of(trace) for trace in searches["null"])
    assert fmean(best_of(trace) for trace in searches[name]) < plain


def test_tabu_never_repeats_where_plain_level_1_does(searches):
    assert sum(map(repeats, searches["null"])) > 10 * len(SEEDS) / 4
    assert sum(map(repeats, searches["tabu"])) == 0


def test_orthogonal_and_bandit_reach_knobs_that_plain_level_1_never_tries(searches):
    def reached(name):
        return fmean(len({k for t in trace for k in t.changes}) for trace in searches[name])

    assert reached("orthogonal") > reached("null") + 3
    assert reached("bandit") > reached("null") + 3


@pytest.mark.parametrize("name", NAMES)
def test_a_search_is_reproducible(name):
    one = search(operator(name), trials=15, seed=3)
    assert one == search(operator(name), trials=15, seed=3)
    assert one != search(operator(name), trials=15, seed=4)


@pytest.mark.parametrize("name", WORKING)
def test_no_candidate_is_outside_the_space(searches, name):
    assert [t for trace in searches[name] for t in trace if t.status == "failed"] == []


@pytest.mark.engine
@pytest.mark.parametrize("name", SCREENED)
def test_each_operator_passes_the_whole_screening(name, engine):
    from sandbox.screen import screen

    one = entry(name)
    files = {f"mechanisms/{name}.py": one.source, f"tests/test_{name}.py": one.test}
    report = screen(draft_from_files({p: t.encode() for p, t in files.items()}), backend=engine)
    assert report.outcome == "passed", report.findings
    replay = report.check("replay")
    assert replay is not None
    assert replay.detail["totals"]["decisions_changed"] > 0
    assert replay.detail["totals"]["outside"] == 0
