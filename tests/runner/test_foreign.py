"""Foreign traces: every row a trial or named as broken, and nothing believed beyond its text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.foreign import ForeignError, read_foreign, write_trials

HEAD = "commit\tval_bpb\tmemory_gb\tstatus\tdescription\n"
ROWS = (
    "a1b2c3d\t0.997900\t44.0\tkeep\tbaseline\n"
    "b2c3d4e\t0.993200\t44.2\tkeep\tincrease LR to 0.04\n"
    "c3d4e5f\t1.005000\t44.0\tdiscard\tswitch to GeLU activation\n"
    "d4e5f6g\t0.000000\t0.0\tcrash\tdouble model width (OOM)\n"
)


def written(tmp_path, text, name="results.tsv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_results_tsv_is_read_as_it_is(tmp_path):
    found = read_foreign(written(tmp_path, HEAD + ROWS))
    assert [t.status for t in found.trials] == ["kept", "kept", "discarded", "failed"]
    assert [t.metric for t in found.trials] == [0.9979, 0.9932, 1.005, None]
    assert found.trials[1].commit == "b2c3d4e"
    assert found.trials[3].line == 5
    assert (found.best, found.broken_count) == (0.9932, 0)
    assert found.curve() == [0.9979, 0.9932, 0.9932, 0.9932]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("a\t0.9\t1.0\tkeep", "4 columns"),
        ("a\tnan\t1.0\tkeep\tx", "nan"),
        ("a\tinf\t1.0\tkeep\tx", "inf"),
        ("a\tgood\t1.0\tkeep\tx", "no number"),
        ("a\t1e308\t1.0\tkeep\tx", "above 1e+100"),
        ("a\t0.9\tmuch\tkeep\tx", "memory_gb"),
        ("a\t0.9\t1.0\tmaybe\tx", "status"),
        ("a\t0.0\t0.0\tkeep\tx", "no training gives that"),
        ("a\t-1\t0.0\tdiscard\tx", "no training gives that"),
        ("prose about the results", "1 columns"),
    ],
)
def test_a_broken_row_is_counted_and_named_never_dropped(tmp_path, row, why):
    found = read_foreign(written(tmp_path, HEAD + ROWS + row + "\n" + ROWS))
    assert found.broken_count == 1
    assert found.broken[0][0] == 6
    assert why in found.broken[0][1]
    assert len(found.trials) == 8
    assert found.to_data()["broken_count"] == 1


def test_many_broken_rows_are_all_counted(tmp_path):
    found = read_foreign(written(tmp_path, HEAD + "x\n" * 500))
    assert (found.broken_count, len(found.broken), len(found.trials)) == (500, 50, 0)
    assert found.best is None
    assert found.curve() == []


def test_columns_of_ones_own_are_read_by_their_names(tmp_path):
    head = "commit\tval_bpb\tmemory_gb\tlatency_p99\tstatus\tdescription\n"
    rows = (
        "a1\t2.667\t26.9\t45.2\tkeep\tbaseline\n"
        "b2\t2.5\t33.1\t42.0\tdiscard\ta\ttab in the text\n"
        "c3\t2.5\t42.0\tkeep\n"
    )
    found = read_foreign(written(tmp_path, head + rows))
    assert [(t.metric, t.status, t.memory_gb) for t in found.trials] == [
        (2.667, "kept", 26.9),
        (2.5, "discarded", 33.1),
    ]
    assert found.trials[1].description == "a\ttab in the text"
    assert found.broken == ((4, "4 columns, not 6"),)
    short = read_foreign(written(tmp_path, "status\tscore\nkeep\t-3\ncrash\t\nkeep\t4\tx\n"))
    assert [(t.metric, t.memory_gb, t.description) for t in short.trials] == [
        (-3, None, ""),
        (None, None, ""),
    ]
    assert short.broken_count == 1


@pytest.mark.parametrize(
    "head",
    [
        "commit\tval_bpb\tdescription",
        "status\tloss\tloss",
        "commit\tstatus\tmfu",
        HEAD.strip() + "\ra",
    ],
)
def test_a_table_whose_columns_say_nothing_is_refused(tmp_path, head):
    with pytest.raises(ForeignError, match="each name once"):
        read_foreign(written(tmp_path, f"{head}\n1\t2\t3\n"))


def test_null_is_no_text(tmp_path):
    row = {"metric": 1, "commit": None, "description": None, "reason": "why"}
    found = read_foreign(written(tmp_path, json.dumps(row) + "\n", "t.jsonl"))
    assert (found.trials[0].commit, found.trials[0].description) == ("", "why")


def test_json_lines_with_a_metric(tmp_path):
    text = (
        '{"val_bpb": 0.99, "status": "keep", "description": "first"}\n'
        '{"metric": 0.98}\n'
        '{"loss": null, "reason": "it crashed"}\n'
        "\n"
        '{"text": "no metric"}\n'
        "[1, 2]\n"
        "{half\n"
        '{"metric": true}\n'
        '{"metric": NaN}\n'
        '{"metric": null, "status": "kept"}\n'
    )
    found = read_foreign(written(tmp_path, text, "trace.jsonl"))
    assert [t.metric for t in found.trials] == [0.99, 0.98, None]
    assert found.trials[2].description == "it crashed"
    assert [line for line, _ in found.broken] == [5, 6, 7, 8, 9, 10]


def test_what_is_written_can_be_read_again(tmp_path):
    first = read_foreign(written(tmp_path, HEAD + ROWS))
    again = read_foreign(written(tmp_path, first.lines(), "again.jsonl"))
    assert [(t.metric, t.status, t.description) for t in again.trials] == [
        (t.metric, t.status, t.description) for t in first.trials
    ]
    assert again.broken_count == 0


def test_higher_may_be_better(tmp_path):
    found = read_foreign(
        written(tmp_path, '{"score": 1}\n{"score": 3}\n{"score": 2}\n', "t.jsonl"), minimize=False
    )
    assert found.best == 3
    assert found.curve() == [1, 3, 3]


@pytest.mark.parametrize("text", ["", "\n\n", "<html>", "a,b,c\n1,2,3\n", b"\x00\x01\x02"])
def test_a_file_that_is_no_trace_is_refused(tmp_path, text):
    with pytest.raises(ForeignError):
        read_foreign(written(tmp_path, text))


def test_a_missing_and_a_huge_file_are_refused(tmp_path):
    with pytest.raises(ForeignError, match="cannot read"):
        read_foreign(tmp_path / "none")
    with pytest.raises(ForeignError, match="larger"):
        read_foreign(written(tmp_path, b"x" * (16 * 1024 * 1024 + 1)))
    with pytest.raises(ForeignError, match="over 100000 rows"):
        read_foreign(written(tmp_path, HEAD + "x\n" * 100_001))
    whole = read_foreign(written(tmp_path, HEAD + "x\n" * 100_000 + "\n"))
    assert whole.broken_count == 100_000


@pytest.mark.parametrize("row", ["a\t\t\tcrash\tx", "a\t-\t0.0\tcrash\tx"])
def test_a_crash_needs_no_metric(tmp_path, row):
    found = read_foreign(written(tmp_path, HEAD + row + "\n"))
    assert (found.broken_count, found.trials[0].metric, found.trials[0].status) == (
        0,
        None,
        "failed",
    )


@pytest.mark.parametrize("number", ["1_0", " 0.7", "\u0661", "0x10", ""])
def test_a_number_in_words_is_plain_digits(tmp_path, number):
    found = read_foreign(written(tmp_path, json.dumps({"metric": number}) + "\n", "t.jsonl"))
    assert (found.broken_count, found.trials) == (1, ())


def test_of_two_numbers_by_one_name_none_counts(tmp_path):
    found = read_foreign(written(tmp_path, '{"loss": 0.1, "loss": 0.2}\n', "t.jsonl"))
    assert found.broken == ((1, "a name is there twice in one object"),)


def test_trials_that_can_not_be_written_are_told(tmp_path):
    found = read_foreign(written(tmp_path, HEAD + ROWS))
    with pytest.raises(ForeignError, match="cannot write"):
        write_trials(found, tmp_path / "none" / "out.jsonl")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(max_size=60), max_size=20), st.booleans())
def test_whatever_the_rows_are_none_is_lost(tmp_path_factory, rows, tabs):
    folder = tmp_path_factory.mktemp("fuzz")
    lines = [r.replace("\n", " ") for r in rows]
    text = (HEAD if tabs else '{"metric": 1}\n') + "".join(f"{line}\n" for line in lines)
    found = read_foreign(written(folder, text.encode("utf-8", "surrogatepass"), "fuzz"))
    blank = sum(not line.removesuffix("\r").strip() for line in lines)
    first = 0 if tabs else 1
    assert len(found.trials) + found.broken_count == len(lines) - blank + first
    assert json.loads(json.dumps(found.to_data()))
