"""The command `arms` on a small real surface: same seeds same bytes, resumption, refusals."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from runner.__main__ import app
from runner.arms.gate import placebo_digest
from runner.foreign import read_foreign
from runner.surfaces.surface_file import Measured, read_surface, write_surface

ROOT = Path(__file__).resolve().parents[3]
SMALL = ROOT / "tests/runner/surfaces/small.json.gz"
COMPARED = ("arms.md", "arms.json", "curves.svg", "curves.png")


def arms(out, *more, arms="A,R,T,S", trials=6, repeats=2):
    return [
        "arms",
        *("--task", "table", "--surface", str(SMALL), "--out", str(out)),
        *("--arms", arms, "--trials", str(trials), "--repeats", str(repeats), *map(str, more)),
    ]


def run(words):
    return CliRunner().invoke(app, words)


def files(out):
    return {name: (out / name).read_bytes() for name in COMPARED}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One finished ablation."""
    out = tmp_path_factory.mktemp("arms") / "first"
    done = run(arms(out))
    assert done.exit_code == 0, done.output
    return out


def test_the_same_seeds_give_the_same_bytes(finished, tmp_path):
    assert run(arms(tmp_path / "second")).exit_code == 0
    assert files(tmp_path / "second") == files(finished)
    assert run(arms(tmp_path / "third", "--seed", 1)).exit_code == 0
    assert files(tmp_path / "third")["arms.json"] != files(finished)["arms.json"]


def test_the_table_says_what_it_is(finished):
    text = (finished / "arms.md").read_text()
    assert "habit (scripted, not a language model)" in text
    assert "Known optimum: 6.6044" in text
    assert "Wilcoxon" in text
    data = json.loads((finished / "arms.json").read_text())
    assert data["arms"]["A"]["n"] == 2
    for letter, arm in data["arms"].items():
        assert arm["trainings"] <= 12, letter
        assert all(x >= data["optimum"] for curve in arm["curves"] for x in curve)
        assert all(len(curve) == 7 for curve in arm["curves"])
    starts = [arm["start"] for arm in data["arms"].values()]
    assert all(start == starts[0] for start in starts), "one baseline for all arms"
    assert (finished / "curves.svg").read_text().startswith("<?xml")
    assert (finished / "curves.png").read_bytes().startswith(b"\x89PNG")
    host = json.loads((finished / "host.json").read_text())
    assert host["versions"]["optuna"]
    assert (finished / "key").exists()
    assert (finished / "key").stat().st_mode & 0o077 == 0


def test_a_finished_ablation_runs_nothing_again_and_can_grow(finished, tmp_path):
    out = tmp_path / "grown"
    assert run(arms(out, arms="A,T", repeats=1)).exit_code == 0
    first = (out / "runs/A/000.json").read_bytes()
    stamp = (out / "runs/A/000.json").stat().st_mtime_ns
    assert run(arms(out)).exit_code == 0
    assert (out / "runs/A/000.json").read_bytes() == first
    assert (out / "runs/A/000.json").stat().st_mtime_ns == stamp
    assert files(out) == files(finished)


def test_what_an_arm_did_does_not_depend_on_the_others(finished, tmp_path):
    """Four points only: trials train the default again and again, under seeds of their own."""
    out = tmp_path / "turned"
    assert run(arms(out, arms="S,T,A")).exit_code == 0
    for letter in "STA":
        for name in ("000.json", "001.json"):
            turned, first = (d / "runs" / letter / name for d in (out, finished))
            assert turned.read_bytes() == first.read_bytes(), (letter, name)
            assert len(json.loads(first.read_bytes())["trainings"]) == 6, (letter, name)


def test_kill_9_at_random_moments_changes_nothing(finished, tmp_path):
    out = tmp_path / "killed"
    rng = random.Random()  # another moment each time: every one must do
    command = [sys.executable, "-m", "runner", *arms(out)]
    for wanted in (rng.randrange(2, 7),):
        child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        end = time.monotonic() + 120
        while child.poll() is None and time.monotonic() < end:
            if sum(1 for _ in out.glob("runs/*/*/trainings.jsonl")) >= wanted:
                break
            time.sleep(0.005)
        child.kill()
        child.wait()
    done = subprocess.run(
        command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout
    assert files(out) == files(finished)


@pytest.mark.engine
def test_the_placebo_goes_the_whole_way_and_changes_nothing(tmp_path):
    """Gate, approval on record, signed load into a sandbox worker, counted calls: and arm A."""
    out = tmp_path / "placebo"
    done = run(arms(out, arms="A,P", trials=5, repeats=2))
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in (out / "gate.jsonl").read_text().splitlines()]
    assert len(rows) == 1, "screened once for all repeats"
    assert rows[0]["digest"] == placebo_digest()
    assert (rows[0]["approved"], rows[0]["let_through"]) == (True, ["inert"])
    assert rows[0]["checks"]["replay"] == "failed"
    assert rows[0]["posture"], "a real sandbox"
    assert "benchmark" in rows[0]["policy"]
    data = json.loads((out / "arms.json").read_text())
    assert data["same_as_A"] == {"P": 2}
    placebo, plain = data["arms"]["P"], data["arms"]["A"]
    assert placebo["final"] == plain["final"]
    assert placebo["curves"] == plain["curves"]
    (used,) = placebo["activation"]
    assert used["digest"] == placebo_digest()
    assert used["hooks"]["propose_calls"] == used["trials"] > 0
    assert used["hooks"]["observe_calls"] == used["trials"]
    assert used["hooks"]["ask_calls"] == used["trials"]
    assert used["hooks"]["proposals_changed"] == used["hooks"]["acceptances_changed"] == 0
    assert used["hooks"]["raised"] == 0
    assert placebo["events"][0][0]["what"] == "loaded"
    assert "in 2 of 2 repeats" in (out / "arms.md").read_text()


def test_an_arm_whose_level_2_could_not_act_is_named(tmp_path):
    """With so few trials arm D is arm A: nobody may take it for a mechanism that does not help."""
    out = tmp_path / "short"
    done = run(arms(out, arms="A,D", trials=2, repeats=1))
    assert done.exit_code == 0, done.output
    assert "NOTE: Level 2 looks after every 10 trials" in done.output
    data = json.loads((out / "arms.json").read_text())
    assert (data["same_as_A"], data["without_mechanism"]) == ({"D": 1}, {"D": 1})
    assert "arm A under another name" in (out / "arms.md").read_text()


def test_a_point_that_mostly_failed_is_no_answer_and_a_lucky_training_no_gain(tmp_path):
    surface = read_surface(SMALL)
    default = surface.recipe.number(surface.recipe.space().defaults())
    lucky = (Measured(1.0, "", 6, 0.5), *[Measured(None, "nan", 0, 0.1)] * 2)
    results = tuple(p if n == default else lucky for n, p in enumerate(surface.results))
    path = tmp_path / "lucky.json.gz"
    write_surface(path, replace(surface, results=results))
    out = tmp_path / "out"
    words = [w if w != str(SMALL) else str(path) for w in arms(out, arms="A,U", repeats=3)]
    done = run(words)
    assert done.exit_code == 0, done.output
    data = json.loads((out / "arms.json").read_text())
    for arm in data["arms"].values():
        assert arm["failures"] > 0
        assert arm["gain"]["mean"] == 0
        assert set(arm["reached"]) == {0}  # the default is the only known point


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--arms", "A,Z"], "no arm 'Z'"),
        (["--repeats", "0"], "--repeats"),
        (["--trials", "0"], "--trials"),
        (["--no-such-option", "1"], "no option"),
        (["--surface", "none.json.gz"], "twice"),
        (["--generator", "magic"], "--generator"),
        (["--prior", "openai"], "  a language model needs --base-url"),
        (["--model", "m"], "add --prior openai"),
        (["--target", "nan"], "--target: "),
        (["--sandbox", "moon"], "--sandbox: "),
        (["--out", "/dev/null/x"], "choose another --out"),
        (["--beside", "no-such-file"], "cannot read"),
    ],
)
def test_wrong_options_are_refused_with_what_to_write(tmp_path, more, message):
    done = run([*arms(tmp_path / "out", repeats=1, trials=1), *more])
    assert done.exit_code == 2, done.output
    assert message in done.output


def test_other_settings_in_the_same_folder_are_refused(finished):
    before = files(finished)
    done = run(arms(finished, trials=7))
    assert (done.exit_code, "trials" in done.output) == (2, True), done.output
    done = run(arms(finished, "--keep-sigma", 0))
    assert (done.exit_code, "keep_sigma" in done.output) == (2, True), done.output
    assert files(finished) == before


def test_a_broken_record_is_refused_by_name(tmp_path):
    out = tmp_path / "broken"
    assert run(arms(out, arms="U", repeats=1)).exit_code == 0
    (out / "runs/U/000.json").write_text("{}")
    done = run(arms(out, arms="U", repeats=1))
    assert done.exit_code == 2
    assert "000.json is broken" in done.output


def unfinished(finished, tmp_path):
    """A copy whose second repeat has its trainings and journals, but no records."""
    out = tmp_path / "again"
    shutil.copytree(finished, out)
    for store in out.glob("runs/*/*/journal.sqlite3"):
        shutil.rmtree(store.parent)  # a copy of a run is refused: those repeats are run anew
    for letter in "ARTS":
        (out / f"runs/{letter}/001.json").unlink()
    done = run(arms(out))
    assert done.exit_code == 0, done.output
    assert files(out) == files(finished)
    for letter in "AT":
        (out / f"runs/{letter}/001.json").unlink()
    return out


@pytest.mark.parametrize("keep", [0, 3])
def test_a_repeat_whose_trainings_are_lost_is_refused_and_can_be_run_anew(finished, tmp_path, keep):
    out = unfinished(finished, tmp_path)
    book = out / "runs/A/001/trainings.jsonl"
    book.write_bytes(b"".join(book.read_bytes().splitlines(keepends=True)[:keep]))
    done = run(arms(out))
    assert done.exit_code == 2
    assert f"Remove {book.parent} alone" in done.output
    shutil.rmtree(book.parent)
    assert run(arms(out)).exit_code == 0
    assert files(out) == files(finished)


def test_a_tuner_that_does_not_ask_for_what_was_trained_is_told(finished, tmp_path):
    out = unfinished(finished, tmp_path)
    book = out / "runs/T/001/trainings.jsonl"
    rows = [json.loads(line) for line in book.read_text().splitlines()]
    rows[2]["seed"] += 1
    book.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = run(arms(out))
    assert done.exit_code == 2
    assert "does not ask for now" in done.output
    book.write_text(json.dumps({**rows[0], "metric": "x"}) + "\n")
    assert "0.metric: Input should be a valid number): remove " in run(arms(out)).output


SPOILT = {
    "another arm's": lambda r: r.update(arm="R"),
    "another repeat's": lambda r: r.update(repeat=1),
    "NaN": lambda r: r["trainings"][1].update(metric=float("nan")),
    "text": lambda r: r["trainings"][1].update(metric="x"),
    "other knobs": lambda r: r["trainings"][1].update(config={"Z": 1}),
    "too many": lambda r: r.update(trainings=r["trainings"] * 3),
    "no baseline": lambda r: r.update(baseline=[]),
    "nobody": lambda r: r.update(mechanisms=[{}]),
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_record_that_no_command_wrote_is_refused_by_name(finished, tmp_path, how):
    out = tmp_path / "spoilt"
    shutil.copytree(finished, out)
    path = out / "runs/A/000.json"
    data = json.loads(path.read_text())
    SPOILT[how](data)
    path.write_text(json.dumps(data))
    done = run(arms(out))
    assert done.exit_code == 2, done.output
    assert "A/000.json is broken" in done.output


def test_arms_of_a_repeat_with_two_baselines_are_not_compared(finished, tmp_path):
    out = tmp_path / "two"
    shutil.copytree(finished, out)
    path = out / "runs/T/000.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "baseline": [x + 1 for x in data["baseline"]]}))
    done = run(arms(out))
    assert done.exit_code == 2
    assert "repeat 1 (A, R, T) have different baselines" in done.output


@pytest.mark.parametrize("content", [b"\xff\xfe\n", b"{}\n", b"[1]\n", b"[" * 50_000 + b"\n"])
def test_a_broken_word_of_the_gate_is_no_word(finished, tmp_path, content):
    out = tmp_path / "gate"
    shutil.copytree(finished, out)
    (out / "gate.jsonl").write_bytes(content)
    done = run(arms(out))
    assert done.exit_code == 2
    assert "gate.jsonl is broken" in done.output


def test_a_missing_level_2_is_told_before_anything_is_settled(tmp_path):
    out = tmp_path / "none"
    done = run(arms(out, "--level2-every", 0, arms="D"))
    assert (done.exit_code, "--level2-every 1 or more" in done.output) == (2, True), done.output
    assert not (out / "settings.json").exists()


@pytest.mark.parametrize(("factor", "shown"), [(1e-7, "e-0"), (1e12, "e+1"), (0.01, "0.06604")])
def test_a_metric_of_any_size_is_told_with_digits_that_mean_something(tmp_path, factor, shown):
    surface = read_surface(SMALL)
    results = tuple(
        tuple(m._replace(metric=m.metric * factor) if m.metric is not None else m for m in point)
        for point in surface.results
    )
    path = tmp_path / "scaled.json.gz"
    host = {"cpu": "a|b\n# <b>bold</b>"}
    write_surface(path, replace(surface, results=results, origin={**surface.origin, "host": host}))
    words = [w if w != str(SMALL) else str(path) for w in arms(tmp_path / "out", arms="A,U")]
    done = run(words)
    assert done.exit_code == 0, done.output
    text = (tmp_path / "out/arms.md").read_text()
    assert shown in text.partition("Known optimum: ")[2][:12]
    assert "\n# " not in text[3:]
    assert "<b>" not in text
    assert "No arm of this table has mechanisms." in text
    data = json.loads((tmp_path / "out/arms.json").read_text())
    assert data["optimum"] == pytest.approx(6.6044 * factor, rel=1e-4)
    starts = data["arms"]["A"]["start"]
    assert min(starts) > data["optimum"] > 0


def test_what_the_surface_lacks_is_said(tmp_path):
    surface = read_surface(SMALL)
    default = surface.recipe.number(surface.recipe.space().defaults())
    results = tuple(() if n == default else p for n, p in enumerate(surface.results))
    path = tmp_path / "lacks.json.gz"
    write_surface(path, replace(surface, results=results))
    for letter in "AT":
        words = [w if w != str(SMALL) else str(path) for w in arms(tmp_path / letter, arms=letter)]
        done = run(words)
        assert done.exit_code == 7, done.output
        assert "lacks this point" in done.output


def test_foreign_traces_stand_beside_and_are_never_compared(tmp_path):
    trace = tmp_path / "results.tsv"
    trace.write_text(
        "commit\tval_bpb\tmemory_gb\tstatus\tdescription\n"
        "a\t0.9979\t44.0\tkeep\tbaseline\nb\t0.9932\t44.2\tkeep\tlr\nc\tx\t1\tkeep\tbroken\n"
    )
    out = tmp_path / "out"
    done = run(arms(out, "--beside", trace, arms="A,U", repeats=1))
    assert done.exit_code == 0, done.output
    assert "| results.tsv | results.tsv | 2 | 1 | 0.9932 | lower |" in (out / "arms.md").read_text()
    data = json.loads((out / "arms.json").read_text())
    assert data["beside"][0]["broken_count"] == 1
    other = tmp_path / "accu|racy$.jsonl"
    other.write_text('{"metric": 0.5}\n{"metric": 0.75}\n{"metric": 0.7, "status": "discard"}\n')
    done = run(arms(out, "--beside", trace, "--beside-maximize", other, arms="A,U", repeats=1))
    assert done.exit_code == 0, done.output
    assert "| accu racy$.jsonl | jsonl | 3 | 0 | 0.75 | higher |" in (out / "arms.md").read_text()


# --- import-trace ---


def test_import_trace_writes_trials_and_names_what_is_broken(tmp_path):
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"metric": 1.5}\nprose\n{"metric": 1.25}\n')
    out = tmp_path / "trials.jsonl"
    done = run(["import-trace", str(trace), "--out", str(out)])
    assert done.exit_code == 1
    assert '"broken_count": 1' in done.output
    assert [t.metric for t in read_foreign(out).trials] == [1.5, 1.25]
    trace.write_text('{"metric": 1.5}\n')
    assert run(["import-trace", str(trace)]).exit_code == 0
    trace.write_text("<html>")
    assert run(["import-trace", str(trace)]).exit_code == 2
