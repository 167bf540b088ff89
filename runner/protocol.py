"""The wire format between runners and the platform: what crosses the HTTP border, and its limits.

Runners pull the desired state and push trials, attestations and drafts. Both sides import these
models; unknown fields are refused. This module sends nothing (`runner.control.platform_client`
does) and decides nothing (the platform does).

Doors (all under `/api/v1/`, `Authorization: Bearer TOKEN`; the token names the runner, the runner
its target):

    GET  runner/desired            -> Desired
    POST runner/observed  Observed -> Ack
    POST runner/runs      RunReport -> Ack               idempotent by run_id
    POST runner/trials    TrialBatch -> Ack              idempotent by (run_id, number)
    POST runner/proposals DraftSubmission -> Submitted   idempotent by draft_id
    GET  runner/proposals/{draft_id} -> Submitted
    GET  runner/memory?task_digest=...&run_id=... -> Memory    other runs of a task on the target

Errors are `{"error": CODE, "message": WHAT TO DO}`: 401 bad token, 409 `stale_base`/`name_exists`/
`conflict`, 413 `too_large`, 422 anything else that is wrong with the content, 429 `too_many_open`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_BODY_BYTES = 1024 * 1024
MAX_TRIALS_A_BATCH = 200
LEVEL2_OUTCOMES = 30
MEMORY_RUNS = 10
MEMORY_TRIALS = 100  # of one run

HEX64 = r"^[0-9a-f]{64}$"
HEX40 = r"^[0-9a-f]{40}$"
NAME = r"^[a-z][a-z0-9_]{0,59}$"


class Wire(BaseModel):
    """Strict base: unknown fields and NaN are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Desired(Wire):
    """What a target's runners should run, signed by the platform.

    `signature` is Ed25519 (hex) over `signing_bytes`; `source` is the file's exact text (UTF-8).
    `version` counts up by one for each change of the target, rollbacks included. `stopped` asks
    runners to start no further trial; it is not part of the signature: stopping needs less.
    `base_commit` is the head of the mechanisms repository: the base that drafts must name.
    """

    target: str
    version: int = Field(ge=1)
    mechanism: str = Field(pattern=NAME)
    commit: str = Field(pattern=HEX40)
    digest: str = Field(pattern=HEX64)
    source: str = Field(max_length=64 * 1024)
    signature: str = Field(max_length=128)
    stopped: bool
    stop_reason: str = ""
    base_commit: str = Field(pattern=HEX40)
    library: list[LibraryEntry]
    audit_checkpoint: str = Field(default="", max_length=2000)
    # Locks of the sandbox image that it may run with: the one in force, and the one that it was
    # screened with. Part of the signature.
    locks: list[Annotated[str, Field(pattern=HEX64)]] = Field(default_factory=list, max_length=4)


class LibraryEntry(Wire):
    """One mechanism of the repository, for the `catalog` generator. `approved`: variants of it are
    low risk; the others are there so that no name is used twice."""

    name: str = Field(pattern=NAME)
    digest: str = Field(pattern=HEX64)
    source: str = Field(max_length=64 * 1024)
    test: str = Field(default="", max_length=64 * 1024)
    approved: bool = True


def signing_bytes(
    *, target: str, version: int, commit: str, digest: str, locks: Sequence[str] = ()
) -> bytes:
    """The bytes that the platform signs for a desired state."""
    lines = ("escapement desired state v1", target, str(version), commit, digest)
    return "\n".join([*lines, *(f"lock {one}" for one in locks)]).encode()


class HookCounts(Wire):
    """What a mechanism did, counted on the host side. Summed over trials by the platform."""

    propose_calls: int = 0
    ask_calls: int = 0
    accept_calls: int = 0
    observe_calls: int = 0
    proposals_changed: int = 0  # candidates that differ from the prior's first unguided answer
    candidates_refused: int = 0  # candidates of the mechanism outside the space
    acceptances_changed: int = 0  # accept answers that differ from the default rule
    raised: int = 0


class Observed(Wire):
    """What a runner runs: its attestation and its heartbeat.

    `state`: `live` = `digest` are the bytes in the sandbox worker that answers now; `refused` =
    the desired version could not be loaded for `reason`, and `digest` (the earlier mechanism's)
    still runs; `idle` = nothing is loaded yet. `version` is the desired version that this is about.
    """

    version: int = Field(ge=0)
    state: Literal["live", "refused", "idle"]
    digest: str = Field(pattern=r"^([0-9a-f]{64})?$")
    mechanism: str = ""
    reason: str = Field(default="", max_length=4000)
    at_trial: int = Field(default=0, ge=0)  # the boundary: trials finished when this was loaded
    run_id: str = ""
    activity: str = Field(default="", max_length=300)  # "training trial 12 (3 s of 5 s)"
    posture: dict[str, Any] = Field(default_factory=dict)
    swap_seconds: float | None = None
    audit_checkpoint: str = Field(default="", max_length=2000)  # the last one seen, returned


class NoiseReport(Wire):
    """What a run decides by: its baseline, pooled with earlier ones of the same task on the same
    host. `sigma` (None: not known) has `degrees` of freedom; `mean` is of all `n` measurements of
    `runs` baselines, this run's included; `left_out`: so many more differ by more than the noise.
    `host_key`: equal where metrics can be compared."""

    sigma: float | None = Field(ge=0)
    degrees: int = Field(ge=0)
    mean: float
    n: int = Field(ge=1)
    runs: int = Field(ge=1)
    left_out: int = Field(default=0, ge=0)
    host_key: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    host: str = Field(default="", max_length=300)


class ResultReport(Wire):
    """The best trial of a finished run, measured anew after it was chosen, against the pooled
    baseline. `trial` 0: nothing better was kept. `sigmas`, `low`, `high`: the gain in units of the
    noise with its 95 % interval; better is positive."""

    trial: int = Field(ge=0)
    metrics: list[float] = Field(default_factory=list, max_length=100)
    failed: int = Field(default=0, ge=0)
    gain: float | None = None
    sigmas: float | None = None
    low: float | None = None
    high: float | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.gain is None) is bool(self.metrics):
            raise ValueError("there is a gain exactly where the best was measured anew")
        parts = (self.low, self.sigmas, self.high)
        if any(p is None for p in parts) and any(p is not None for p in parts):
            raise ValueError("a gain in sigmas has an interval")
        return self


class MeasuringReport(Wire):
    """The rules of a run, and its trainings beside the first one of each trial, all counted."""

    keep_sigma: float = Field(ge=0)
    confirmations: int = Field(ge=0)  # allowed for one trial
    parallel: int = Field(ge=1)
    baseline: int = Field(default=0, ge=0)
    confirming: int = Field(default=0, ge=0)
    final: int = Field(default=0, ge=0)
    earlier_runs: int = Field(default=0, ge=0)  # that memory offered to Levels 1 and 2
    memory: str = Field(default="", max_length=2000)  # where from, or what was in the way


class OutcomeReport(Wire):
    """What came of one look of Level 2 at the trace as it was after a trial. `drafting`: not known
    yet; `refused`: drafted, and not worth submitting, or refused at the platform's door. `at`: when
    that was known."""

    draft_id: str = Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
    after_trial: int = Field(ge=0)
    outcome: Literal["drafting", "drafted", "none_selected", "failed", "refused"]
    generator: str = Field(default="", max_length=200)
    title: str = Field(default="", max_length=200)
    reason: str = Field(default="", max_length=1000)
    at: datetime | None = None


class Level2Report(Wire):
    """Level 2 in one run: how often it looked, and what came of the latest looks, oldest first."""

    looks: int = Field(ge=0)
    outcomes: list[OutcomeReport] = Field(default_factory=list, max_length=LEVEL2_OUTCOMES)


class RunReport(Wire):
    """One run of one task on one runner. Sent at its start and again whenever it changes."""

    run_id: str = Field(pattern=r"^[0-9a-f-]{36}$")
    task: str = Field(max_length=60)
    task_digest: str = Field(pattern=HEX64)
    description: str = Field(default="", max_length=2000)
    metric: str = Field(default="val_bpb", max_length=60)
    minimize: bool = True
    space: dict[str, Any]
    host: dict[str, Any]  # cpu, cores, torch version, corpus digest, budget_seconds, prior, seed
    prior: str = Field(max_length=200)  # "habit (scripted, not a language model)" or the model
    seed: int
    planned_trials: int = Field(ge=1)
    started_at: datetime
    state: Literal["running", "finished", "stopped", "failed"] = "running"
    sigma: float | None = Field(default=None, ge=0)  # the noise that the run decides by
    noise: NoiseReport | None = None
    result: ResultReport | None = None
    measuring: MeasuringReport | None = None
    frozen: list[str] = Field(default_factory=list)
    guidance: str = Field(default="", max_length=4000)
    level2: Level2Report | None = None  # None: this run has no Level 2


class TrialReport(Wire):
    """One finished trial, with the digest of the mechanism that chose it.

    Numbers count from 0 (the baseline). `repeats`: all its measurements, where `metric` is their
    mean (the baseline, and trials whose gain was confirmed).
    """

    number: int = Field(ge=0)
    config: dict[str, Any]
    changes: dict[str, Any]
    reason: str = Field(default="", max_length=2000)
    metric: float | None
    status: Literal["kept", "discarded", "failed"]
    failure: str = Field(default="", max_length=60)
    message: str = Field(default="", max_length=4000)
    seconds: float = Field(ge=0)
    best_metric: float | None
    mechanism: str = Field(default="", pattern=r"^([a-z][a-z0-9_]{0,59})?$")
    digest: str = Field(pattern=r"^([0-9a-f]{64})?$")
    version: int = Field(default=0, ge=0)
    hooks: HookCounts = HookCounts()
    repeats: list[float] = Field(default_factory=list, max_length=100)
    finished_at: datetime


class TrialBatch(Wire):
    """Trials of one run, oldest first."""

    run_id: str
    trials: list[TrialReport] = Field(min_length=1, max_length=MAX_TRIALS_A_BATCH)


class Round(Wire):
    """One round of Level 2: prompt, answer and their cost, kept word for word."""

    name: Literal["explore", "critique", "specify", "generate"]
    prompt: str = Field(max_length=200_000)
    answer: str = Field(max_length=100_000)
    prompt_tokens: int = 0
    answer_tokens: int = 0
    seconds: float = 0.0


class DraftSubmission(Wire):
    """A draft from Level 2. `files` maps repository paths to text: one `mechanisms/NAME.py` and
    its `tests/test_NAME.py`. `diagnosis` is computed data that explains why this was drafted."""

    draft_id: str = Field(pattern=r"^[0-9a-f-]{36}$")
    run_id: str
    title: str = Field(max_length=200)
    summary: str = Field(default="", max_length=8000)
    files: dict[str, str] = Field(min_length=1, max_length=8)
    base_commit: str = Field(pattern=HEX40)
    base_digest: str = Field(pattern=HEX64)  # the live mechanism that the draft was written against
    generator: str = Field(max_length=200)  # "catalog (scripted, not a language model)" or model
    operator: str = Field(default="", max_length=60)  # the approved operator that it varies
    parameters: dict[str, Any] = Field(default_factory=dict)
    diagnosis: dict[str, Any] = Field(default_factory=dict)
    rounds: list[Round] = Field(default_factory=list, max_length=8)
    after_trial: int = Field(default=0, ge=0)


class Submitted(Wire):
    """The state of a draft on the platform. `final` means that it will not change by itself."""

    draft_id: str
    proposal: int | None
    state: str
    reason: str = ""


class MemoryTrial(Wire):
    """A trial of another run, without anybody's free text."""

    number: int = Field(ge=0)
    config: dict[str, Any]
    changes: dict[str, Any]
    metric: float | None
    status: Literal["kept", "discarded", "failed"]
    failure: str = Field(default="", max_length=60)
    seconds: float = Field(ge=0)
    digest: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    measurements: int = Field(default=1, ge=1)


class MemoryRun(Wire):
    """Another run of the same task. `trials` is a selection; `trials_in_all` says of how many."""

    run_id: str = Field(pattern=r"^[0-9a-f-]{36}$")
    runner: str = Field(max_length=60)
    host_key: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    host: str = Field(default="", max_length=300)
    started_at: datetime
    metric: str = Field(max_length=60)
    minimize: bool
    sigma: float | None
    baseline: list[float] = Field(default_factory=list, max_length=100)
    trials_in_all: int = Field(ge=0)
    trials: list[MemoryTrial] = Field(default_factory=list, max_length=MEMORY_TRIALS)


class Memory(Wire):
    """Earlier runs of one task on the runner's target, newest first."""

    runs: list[MemoryRun] = Field(default_factory=list, max_length=MEMORY_RUNS)


class Ack(Wire):
    """The door took it; `last_trial` is the highest number stored for the run, if it is about
    one."""

    ok: Literal[True] = True
    last_trial: int | None = None


class Refusal(Wire):
    """An error answer."""

    error: str
    message: str
