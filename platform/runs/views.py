"""The pages of runs. Reading only, for all logged-in people."""

from __future__ import annotations

import json
from statistics import fmean, median
from typing import Any

from django.core.paginator import Paginator
from django.db.models import Count, OuterRef, Q, Subquery
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_GET

from runs import display, plots
from runs.models import Run, Trial

PAGE_SIZE = 30
TRIALS_SHOWN = 60
KEYS_SHOWN = 12
MAX_TRIALS = 5000
EXPORTED = (
    "number", "status", "failure", "metric", "repeats", "best_metric", "changes", "config",
    "mechanism", "digest", "version", "hooks", "seconds", "finished_at", "reason",
)  # fmt: skip


@require_GET
def runs(request: HttpRequest) -> HttpResponse:
    """All runs, newest first."""
    trials = Trial.objects.filter(run=OuterRef("pk"))
    first, last = trials.order_by("number")[:1], trials.order_by("-number")[:1]
    rows = Run.objects.select_related("target", "runner").order_by("-started_at", "-pk")
    rows = rows.annotate(
        done=Count("trials"),
        first_metric=Subquery(first.values("metric")),
        best=Subquery(last.values("best_metric")),
        mechanism=Subquery(last.values("mechanism")),
    )
    page = Paginator(rows, PAGE_SIZE).get_page(request.GET.get("page"))
    for row in page:
        row.gain = display.result_words(row)  # type: ignore[attr-defined]
        row.pooled = (row.noise or {}).get("mean", row.first_metric)  # type: ignore[attr-defined]
    return render(request, "runs.html", {"page_obj": page, "query": ""})


@require_GET
def run(request: HttpRequest, pk: int) -> HttpResponse:
    """One run: plot, gains, trials, and how it was measured."""
    subject = get_object_or_404(Run.objects.select_related("target", "runner"), pk=pk)
    trials = list(subject.trials.order_by("-number").defer("config")[:MAX_TRIALS])[::-1]
    data, keys = plots.plot_data(subject, trials), _keys(trials)
    scale, colours = plots.scale_of(subject, trials), plots.colours_of(trials)
    for trial in trials:
        trial.colour = colours[trial.digest]  # type: ignore[attr-defined]
    shown = len(trials) if request.GET.get("all") else TRIALS_SHOWN
    looks, older_looks = display.looks(subject)
    context = {
        "run": subject,
        "looks": looks,
        "older_looks": older_looks,
        "trials": trials[::-1][:shown],
        "hidden_trials": max(len(trials) - shown, 0),
        "unread_trials": trials[0].number if trials else 0,
        "spans": keys[-KEYS_SHOWN:],
        "hidden_spans": max(len(keys) - KEYS_SHOWN, 0),
        "plot_data": data,
        "drawn": len(data["trials"]),
        "drawable": len(trials),
        "off_scale": sum(scale.outside(t.metric) for t in trials) if scale else 0,
        "chart": plots.chart(subject, trials),
        "attribution": display.attribution_rows(subject),
        "proposals": subject.proposal_set.order_by("-pk"),
        **_summary(subject, trials),
    }
    return render(request, "run.html", context)


@require_GET
def run_trials(request: HttpRequest, pk: int) -> HttpResponse:
    """The trials of a run as JSON lines, oldest first, for notebooks and `import-trace`; at most
    MAX_TRIALS, and the rest with `?after=NUMBER` of the last line."""
    subject = get_object_or_404(Run, pk=pk)
    raw = request.GET.get("after", "")
    after = int(raw) if raw.isdecimal() and len(raw) < 10 else -1
    rows = subject.trials.filter(number__gt=after).order_by("number")[:MAX_TRIALS]
    facts = {"run": subject.pk, "metric_name": subject.metric, "sigma": subject.sigma}
    lines = [json.dumps({**row, **facts}, default=str) for row in rows.values(*EXPORTED)]
    response = HttpResponse(
        "".join(f"{line}\n" for line in lines), content_type="application/x-ndjson"
    )
    response["Content-Disposition"] = f'attachment; filename="run-{subject.pk}.jsonl"'
    return response


def _keys(trials: list[Trial]) -> list[plots.Span]:
    """Each mechanism once, for the key below the plot."""
    return list({s.digest: s for s in plots.spans_of(trials)}.values())


def _summary(subject: Run, trials: list[Trial]) -> dict[str, Any]:
    every = subject.trials.all()
    counts = every.aggregate(
        done=Count("pk"),
        kept=Count("pk", filter=Q(status="kept")),
        discarded=Count("pk", filter=Q(status="discarded")),
        failed=Count("pk", filter=Q(status="failed")),
    )
    first = every.order_by("number").first()
    ranked = every.filter(status="kept", metric__isnull=False)
    best = ranked.order_by("metric" if subject.minimize else "-metric", "number").first()
    noise, result = subject.noise or {}, subject.result or {}
    metrics = result.get("metrics") or []
    words, tone = display.result_words(subject)
    return {
        "best": best,
        "best_measurements": max(len(best.repeats), 1) if best else 0,
        "anew": fmean(metrics) if metrics else None,
        "anew_n": len(metrics),
        "result_words": words,
        "result_tone": tone,
        "measured": display.measured(subject),
        "baseline": noise.get("mean") if noise else first.metric if first else None,
        "baseline_n": noise.get("n") or max(len(first.repeats), 1) if first else 0,
        **counts,
        "mechanism": trials[-1].mechanism if trials else "",
        "rate": median(t.seconds for t in trials) if trials else None,
    }
