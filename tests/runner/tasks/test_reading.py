"""A metric in what a trial prints: as terminals show it, and what is told where there is none."""

from __future__ import annotations

import re
import sys

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from runner.processes import subprocesses
from runner.tasks.base import IN_A_COPY, measure, trial_environment
from runner.tasks.reading import MetricReader, compiled, shown


def read(*lines):
    reader = MetricReader(name="val_bpb")
    for line in lines:
        reader.feed(line)
    return reader.result()


@pytest.mark.parametrize(
    "line",
    [
        "\x1b[1m\x1b[32mval_bpb: 0.9\x1b[0m",
        "\x1b[2K\x1b[1Gval_bpb: 0.9",
        "\x1b]0;a title\x07val_bpb: 0.9",
        "\x1b]8;;http://x\x1b\\val_bpb: 0.9\x1b(B\x1b[m",
    ],
)
def test_colours_are_no_part_of_a_line(line):
    assert read(line) == (0.9, "", "")


def test_colours_hide_no_second_number():
    assert read("val_bpb: 0.9", "\x1b[8mval_bpb: 0.1\x1b[0m")[1] == "no_metric"


@pytest.mark.parametrize(
    "line",
    [
        *("val_bpb=0.9", "step 3 | val_bpb: 0.9 | lr 1", '{"val_bpb": 0.9}', "x val_bpb: 0.9"),
        *("   val_bpb: 0.9", "val_bpb: 0.9 bits (ema)", "VAL_BPB: 9e-1", "{'val_bpb': .9}"),
        *("val_bpb (final) -> +0.9", "[val_bpb]\\ 0.9", "val_bpb\t0.9", "val_bpb \t\x07: 0.9"),
    ],
)
def test_a_line_that_comes_near_is_shown_with_what_to_paste(line):
    value, failure, why = read("val_bpb is evaluated", line, "val_bpb was evaluated")
    assert (value, failure) == (None, "no_metric")
    assert repr(line.strip()) in why
    pasted = yaml.safe_load(re.search(r"`(metric: .*)`", why)[1])["metric"]
    again = MetricReader(name=pasted["name"], pattern=pasted["pattern"])
    again.feed(line)
    assert again.result() == (0.9, "", "")


@pytest.mark.parametrize("text", ["0x1.e92p+0", "3/4", "1_234.5", "1.9k", "1.2.3"])
def test_nothing_is_to_be_pasted_for_a_form_that_would_be_misread(text):
    value, failure, why = read(f"val_bpb: {text}")
    assert (value, failure) == (None, "no_metric")
    assert "pattern" not in why


@given(st.text(max_size=30), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=9))
def test_what_to_paste_can_be_pasted_or_is_a_hint(before, number, after):
    why = read(f"{before}val_bpb{after}{number}")[2]
    for line in re.findall(r"`(metric: .*)`", why):
        assert compiled(yaml.safe_load(line)["metric"]["pattern"]).groups == 1


def test_a_name_without_a_number_is_a_hint_too():
    assert "'WHAT STANDS BEFORE IT (" in read("now val_bpb is evaluated")[2]


def test_numbers_by_other_names_are_told():
    why = read("---", "val_loss: 3.2", "model: big", "seconds: 300.1")[2]
    assert "val_loss, seconds" in why
    assert "model" not in why


OTHER = [
    ('{"epoch": 1, "val_loss": 0.9}', {"name": "val_loss"}),
    ("epoch 1 | train loss 2.0 | val loss  0.9000", {"name": "val_loss"}),
    ("Test accuracy: .9%", {"name": "Test_accuracy", "minimize": False}),
    ("[3] RMSE=0.9, MAE -> 3", {"name": "RMSE"}),
    ("Best F1 score = 0.9 (epoch 3)", {"name": "Best_F1_score", "minimize": False}),
]


@pytest.mark.parametrize(("line", "wanted"), OTHER)
@pytest.mark.parametrize("times", [1, 3])
def test_a_metric_by_another_name_is_shown_with_what_to_paste(line, wanted, times):
    why = read(*["loading 3 files", line] * times, "took 5.0 s")[2]
    assert repr(line) in why
    pasted = yaml.safe_load("\n".join(re.findall(r"`([a-z]+: [^`]*)`", why)))
    metric = pasted["metric"]
    assert {"name": metric["name"], **{k: v for k, v in pasted.items() if k != "metric"}} == wanted
    again = MetricReader(
        name=metric["name"], pattern=metric["pattern"], take_last=metric.get("take") == "last"
    )
    for one in [line] * times:
        again.feed(one)
    assert again.result() == (0.9, "", "")
    again.feed(line.replace("0.9000", "nan").replace("0.9", "nan").replace(".9", "nan"))
    assert again.result()[1] == ("nan" if times > 1 else "no_metric")


@given(st.text(alphabet=st.sampled_from("ab loss_:=|1.,-\"'/"), max_size=60))
def test_whatever_is_printed_the_hint_can_be_pasted(line):
    for pasted in re.findall(r"`(metric: \{.*?\})`", read(line)[2]):
        assert compiled(yaml.safe_load(pasted)["metric"]["pattern"]).groups == 1


@pytest.mark.parametrize("line", ["val_bpb: tensor(0.9)", "val_bpb:   0.9%", "val_bpb: [0.9]"])
def test_a_number_with_something_around_it_is_shown_with_what_to_paste(line):
    value, failure, why = read(line)
    assert (value, failure) == (None, "no_metric")
    pasted = yaml.safe_load(re.search(r"`(metric: .*)`", why)[1])["metric"]
    again = MetricReader(name=pasted["name"], pattern=pasted["pattern"])
    again.feed(line)
    assert again.result() == (0.9, "", "")
    assert read("val_bpb: none", "x")[2].endswith("not a number")


def test_the_last_lines_of_a_flood_are_looked_at():
    flood = ["step 1 loss 3.0 " + "words " * 300] * 2000
    assert "val +loss" in read(*flood, "val loss 0.9", *["bye"] * 50)[2]
    assert "name the number" in read("val loss 0.9", *["bye"] * 2000)[2]


def test_a_line_that_needs_no_pattern_needs_only_a_name():
    assert "--metric RMSE" in read("x", "RMSE: 13.5")[2]
    assert "--metric test_loss" in read("seconds: 3", "test_loss: 1")[2]


def test_why_there_is_no_metric_is_told_before_what_was_printed():
    for lines, code in ((120, 0), (1, 3), (120, 3)):
        outcome = trial(f"for i in range({lines}): print('step', i, 'x' * 90)\nexit({code})")
        why = "the trial ended with code 3" if code else "the trial printed no line"
        assert outcome.message.startswith(why)
        assert outcome.message.endswith("x" * 9)
        assert len(outcome.message) < 1600


@pytest.mark.parametrize("path", ["../data.txt", "data.txt"])
def test_a_file_that_is_not_there_gets_advice(path):
    args = [sys.executable, "-c", f"print('x' * 3000)\nopen({path!r})"]
    outcome = measure(
        args, metric="x", deadline_seconds=120, env=trial_environment({}), told=IN_A_COPY
    )
    assert outcome.failure == "crash"
    assert outcome.message.startswith("the trial ended with code 1: a trial runs at the top")
    assert outcome.message.endswith(
        f"FileNotFoundError: [Errno 2] No such file or directory: {path!r}"
    )


def test_thousands_are_never_read_as_units():
    line = "perplexity: 12,618.40"
    assert "without" in read(line)[2]
    for pattern in (None, r"perplexity: ([0-9.]+)"):
        reader = MetricReader(name="perplexity", pattern=pattern)
        reader.feed(line)
        assert reader.result()[1:] == (
            "no_metric",
            f"perplexity is {'12,618' if pattern else '12,618.40'!r}, not a number: "
            "print it without commas",
        )
    columns = MetricReader(name="loss", pattern="loss,([0-9.]+),")
    columns.feed("loss,12,618")
    assert columns.result() == (12.0, "", "")


def test_what_lets_the_last_count_keeps_the_pattern():
    reader = MetricReader(name="loss", pattern="it's ([0-9.]+)")
    reader.feed("it's 3, it's 2")
    pasted = yaml.safe_load(re.search(r"`(metric: .*?)`", reader.result()[2])[1])
    assert pasted["metric"] == {"name": "loss", "pattern": "it's ([0-9.]+)", "take": "last"}


@given(st.text(alphabet=st.characters(), max_size=300))
def test_what_is_shown_is_harmless(text):
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", shown(text))
    assert shown(text).count("\n") == text.count("\n")


def test_what_is_shown_of_a_progress_bar_is_its_end():
    assert shown("10%\r50%\r\x1b[31m100%\x1b[0m\r\nend\x00") == "100%\nend?"


def trial(code):
    args = [sys.executable, "-c", code]
    return measure(args, metric="val_bpb", deadline_seconds=120, env=trial_environment({}))


def test_a_progress_bar_of_any_length_hides_no_number():
    bar = "print('val_bpb: 0.9', end='\\r'); print('x' * 60_000, end='\\r'); print('val_bpb: 0.8')"
    assert trial(bar).failure == "no_metric"


def test_a_message_holds_nothing_that_moves_a_terminal():
    outcome = trial("print('\\x1b[2J\\x1b]0;gone\\x07bad', end='\\r\\n'); raise SystemExit(1)")
    assert outcome.failure == "crash"
    assert outcome.message.endswith("bad")
    assert "\x1b" not in outcome.message


def test_a_child_that_goes_on_printing_does_not_keep_a_trial():
    """The trial is over when its own process is; what that printed last is read, too."""
    code = (
        "import os, sys\n"
        "if os.fork() == 0:\n"
        "    while True: print('noise ' * 100, flush=True)\n"
        "sys.stdout.write('\\nval_bpb: 0.9\\n'); sys.stdout.flush(); os._exit(0)"
    )
    seen: list[str] = []
    done = subprocesses.run(
        [sys.executable, "-c", code], deadline_seconds=600, line=seen.append, output_bytes=10_000
    )
    assert not done.timed_out
    assert done.returncode == 0
    assert sum("val_bpb: 0.9" in line for line in seen) == 1


def test_the_last_line_counts_where_a_child_holds_the_pipe():
    code = (
        "import os, sys, time\n"
        "if os.fork() == 0: time.sleep(600)\n"
        "sys.stdout.write('val_bpb: 0.9'); sys.stdout.flush(); os._exit(0)"
    )
    assert trial(code).metric == 0.9


def test_a_program_that_is_not_there_is_told_in_a_line():
    outcome = measure(["/not/there"], metric="m", deadline_seconds=60, env=trial_environment({}))
    assert outcome.failure == "crash"
    assert "/not/there can't be started: No such file or directory" in outcome.message
    assert "Traceback" not in outcome.message
