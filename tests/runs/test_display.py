"""What a page says of a run, against a hand count: swaps, rollbacks, failures, errors, noise."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any
from xml.etree import ElementTree

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st
from proposals.templatetags import show
from runs import display, plots
from runs.models import Run, Runner, Target, Trial
from scipy import stats

A, B = "aa" * 32, "bb" * 32
# digest, metric (None: it failed), kept, and the counters of its hooks
STORY: list[tuple[str, float | None, bool, dict[str, int]]] = [
    ("", 10.0, True, {}),
    (A, 9.0, True, {"propose_calls": 1, "accept_calls": 1, "observe_calls": 1, "ask_calls": 1}),
    (A, None, False, {"propose_calls": 1, "raised": 1}),
    (A, 9.5, False, {"accept_calls": 1, "observe_calls": 1}),
    (A, 9.9, False, {"propose_calls": 1, "accept_calls": 1}),
    (B, 8.0, True, {"propose_calls": 1, "proposals_changed": 2, "accept_calls": 1}),
    (B, 8.4, False, {"accept_calls": 1, "acceptances_changed": 1}),
    (B, None, False, {}),
    (B, 7.0, True, {}),
    (B, 7.2, False, {}),
    (A, 9.0, False, {"propose_calls": 1}),  # rolled back
    (A, None, False, {}),
    (B, None, False, {}),  # and forth, and nothing but failures
    ("", 6.9, True, {}),  # a runner without a platform's mechanism
]


@pytest.fixture
def run(db: None) -> Run:
    operator = User.objects.create(username="linus")
    target = Target.objects.create(name="demo")
    now = timezone.now()
    runner = Runner.objects.create(
        name="gpu-1", target=target, operator=operator, token_digest="0" * 64, token_expires_at=now
    )
    made = Run.objects.create(
        run_id=uuid.uuid4(), runner=runner, target=target, task="gpt", task_digest="ef" * 32,
        metric="loss", prior="habit", planned_trials=20, sigma=0.5, started_at=now,
        noise={"sigma": 0.5, "degrees": 2, "mean": 10.0, "n": 3, "runs": 1, "host": "two cores"},
    )  # fmt: skip
    best: float | None = None
    for number, (digest, metric, kept, hooks) in enumerate(STORY):
        best = metric if kept else best
        Trial.objects.create(
            run=made, number=number, config={}, changes={}, metric=metric,
            status="failed" if metric is None else "kept" if kept else "discarded",
            seconds=1, best_metric=best, mechanism={A: "null", B: "tabu"}.get(digest, ""),
            digest=digest, hooks=hooks, finished_at=now + timedelta(seconds=number),
        )  # fmt: skip
    return made


def test_each_stretch_is_counted_and_compared_with_the_one_before_it(run: Run) -> None:
    rows = display.attribution_rows(run)
    assert [(r.name, r.first, r.last, r.n, r.failed, r.kept) for r in rows] == [
        ("null", 1, 4, 4, 1, 1),
        ("tabu", 5, 9, 5, 1, 2),
        ("null", 10, 11, 2, 1, 0),
        ("tabu", 12, 12, 1, 1, 0),
        ("none", 13, 13, 1, 0, 1),
    ]
    assert [(r.calls, r.proposals_changed, r.acceptances_changed, r.raised) for r in rows[:2]] == [
        (8, 0, 0, 1),
        (3, 2, 1, 0),
    ]
    assert [r.decisions_changed for r in rows] == [0, 3, 0, 0, 0]
    assert [(r.held_before, r.held_after) for r in rows[:3]] == [(10, 9), (9, 7), (7, 7)]
    assert rows[0].words == "nothing before it to compare with"
    assert {r.words[:15] for r in rows[2:]} == {"not enough data"}


def test_the_gain_on_the_page_is_welchs_by_another_program(run: Run) -> None:
    new, old = [8.0, 8.4, 7.0, 7.2], [9.0, 9.5, 9.9]
    test = stats.ttest_ind(old, new, equal_var=False)
    middle = (sum(old) / 3 - sum(new) / 4) / 0.5
    exact = (test.confidence_interval(0.95).high / 0.5) - middle
    half = exact * stats.t.ppf(0.975, int(test.df)) / stats.t.ppf(0.975, test.df)
    row = display.attribution_rows(run)[1]
    low, high = middle - half, middle + half
    assert row.words == f"{middle:+.1f} sigma (95 %: {low:+.1f} to {high:+.1f}; n = 4 against 3)"
    assert row.tone == "good"


@pytest.mark.parametrize(
    ("sigma", "words"),
    [
        (None, "not enough data (the noise was not measured)"),
        (0.0, "no gain in sigma (the noise was measured as 0)"),
    ],
)
def test_no_gain_is_told_without_noise(run: Run, sigma: float | None, words: str) -> None:
    run.sigma = sigma
    assert display.attribution_rows(run)[1].words == words
    run.result = {"trial": 3, "metrics": [7.0], "gain": 3.0, "sigmas": None, "failed": 1}
    told = display.result_words(run)[0]
    assert "1 failed" in told
    assert ("not known" if sigma is None else "measured as 0") in told


def test_baselines_that_were_left_out_are_told(run: Run) -> None:
    assert "left out" not in display.measured(run).noise_words
    run.noise["left_out"] = 2
    assert "2 more of it differ by more than noise" in display.measured(run).noise_words


def test_the_chart_shows_the_noise_and_what_is_held_not_the_luckiest(run: Run) -> None:
    trials = list(run.trials.order_by("number"))
    trials[-1].status, trials[-1].best_metric = "discarded", 7.0  # 6.9 was luck
    chart = plots.chart(run, trials)
    assert "best 7.0000" in chart
    assert 'class="noise"' in chart
    assert plots.plot_data(run, trials)["noise"] == (10.0, 9.5, 10.5)
    run.noise = None
    assert 'class="noise"' not in plots.chart(run, trials)


@pytest.mark.parametrize("sigma", [1e-300, 1e300])
def test_a_hostile_runners_numbers_break_no_page(
    run: Run, sigma: float, client: Any, settings: Any
) -> None:
    Run.objects.update(sigma=sigma)
    Trial.objects.filter(number=5).update(metric=1e308)
    Trial.objects.filter(number=6).update(metric=-1e308)
    client.force_login(User.objects.get(username="linus"))
    for path in (f"/runs/{run.pk}/", "/runs/"):
        assert client.get(path, headers={"host": "localhost"}).status_code == 200


def made(metrics: list[float | None], best: float | None = None) -> list[Trial]:
    """Unsaved trials with these values."""
    return [
        Trial(number=number, metric=metric, best_metric=best, changes={}, digest=A,
              mechanism="null", status="failed" if metric is None else "discarded")
        for number, metric in enumerate(metrics)
    ]  # fmt: skip


def test_one_diverged_trial_does_not_flatten_the_plot() -> None:
    run = Run(metric="loss", sigma=0.02, noise={"mean": 3.8})
    metrics = [3.8 - 0.01 * n for n in range(30)]
    scale = plots.scale_of(run, made([*metrics, 980_000.0], best=3.51))
    assert scale is not None
    assert scale.outside(980_000.0)
    assert not any(map(scale.outside, [*metrics, 3.82, 3.51]))
    assert scale.high < 4
    chart = plots.chart(run, made([*metrics, 980_000.0]))
    assert "980000, off the scale" in chart
    assert "3.8, off the scale" not in chart


def test_a_first_trial_that_was_bad_is_on_the_scale() -> None:
    scale = plots.scale_of(Run(), made([6.5, *(3.6 + 0.05 * n for n in range(10))]))
    assert scale is not None
    assert not scale.outside(6.5)


@given(
    st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=8),
    st.none() | st.floats(min_value=0, allow_nan=False, allow_infinity=False),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_whatever_the_values_the_chart_is_a_drawing(
    metrics: list[float | None], sigma: float | None, mean: float
) -> None:
    run = Run(metric="loss", sigma=sigma, noise={"mean": mean})
    chart = plots.chart(run, made(metrics, best=next((m for m in metrics if m is not None), None)))
    for element in ElementTree.fromstring(chart).iter():
        for name in ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height", "d"):
            assert "nan" not in element.get(name, "")
            assert "inf" not in element.get(name, "")


def test_a_long_run_is_drawn_thinned_with_its_ends() -> None:
    trials = made([float(n % 7) for n in range(5000)])
    for trial in trials[100::100]:
        trial.status = "kept"
    points = plots.drawn(trials)
    assert len(points) <= plots.MAX_POINTS + 2
    assert (points[0].number, points[-1].number) == (0, 4999)
    assert sum(t.status == "kept" for t in points) == 49
    assert plots.drawn(trials[:50]) == trials[:50]


def test_thousands_of_stretches_are_told_by_the_latest(run: Run) -> None:
    last = len(STORY)
    Trial.objects.bulk_create(
        Trial(run=run, number=last + n, config={}, changes={}, metric=7.0, status="discarded",
              seconds=1, best_metric=6.9, mechanism="tabu" if n % 2 else "null",
              digest=B if n % 2 else A, finished_at=run.started_at)
        for n in range(100)
    )  # fmt: skip
    rows = display.attribution_rows(run)
    assert len(rows) == display.MAX_ROWS
    assert rows[-1].last == last + 99
    assert rows[0].earlier == 105 - display.MAX_ROWS
    assert {r.digest for r in display.attribution_rows(run, of=B)} == {B}
    assert len(plots.plot_data(run, list(run.trials.all()))["spans"]) == plots.MAX_SPANS


def test_what_changed_no_decision_is_given_no_credit(run: Run) -> None:
    run.trials.filter(digest=B).update(hooks={"propose_calls": 1})
    row = display.attribution_rows(run)[1]
    assert row.words.endswith("not its doing, it changed no decision")
    assert row.tone == ""


def test_the_list_shows_the_pooled_baseline_that_its_n_belongs_to(run: Run, client: Any) -> None:
    Run.objects.update(noise={**run.noise, "mean": 10.25, "n": 6, "runs": 2})
    client.force_login(User.objects.get(username="linus"))
    page = client.get("/runs/", headers={"host": "localhost"}).content.decode()
    assert "10.2500<br>" in page
    assert "n = 6, \N{GREEK SMALL LETTER SIGMA} 0.5000" in page


def test_a_running_run_does_not_sound_finished(run: Run) -> None:
    run.result = {"trial": 0, "metrics": []}
    assert display.result_words(run)[0].endswith("rule so far")
    run.state = "finished"
    assert display.result_words(run)[0].endswith("rule")


@pytest.mark.parametrize(
    ("value", "sigma", "text"),
    [
        (3.8, 0.02, "3.8000"),
        (3.79995, 1e-5, "3.799950"),
        (123456.699988, 1e-7, "123456.69998800"),
        (123456.7, 2.0, "123456.7"),
        (123456.7, None, "123456.7"),
        (3.8, 0.0, "3.8000"),
        (1.7e308, 1e-300, "1.7e+308"),
        (0.5, 5e-324, "0.500000000000"),
        (None, 0.1, "\N{EN DASH}"),
    ],
)
def test_a_metric_has_the_digits_that_its_noise_asks_for(
    value: float | None, sigma: float | None, text: str
) -> None:
    assert show.to_noise(value, sigma) == text
