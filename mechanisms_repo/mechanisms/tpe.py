"""Tree-structured Parzen estimator: Optuna's sampler, told of every trial and asked for the next.

It models where good trials lie and where bad ones do, and tries where the ratio is best. The
study is built anew from the trace each time, so nothing has to be remembered. Failed trials count
as bad ones. The first STARTUP trials are Optuna's random ones, or the prior's in PRIOR_SHARE.
"""

import warnings

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import TPESampler
from optuna.study import Study, create_study
from optuna.trial import FrozenTrial, TrialState, create_trial

from sandbox.mechanism import Candidate, Config, KnobValue, Mechanism, View

STARTUP = 6  # trials before the model is trusted
PRIOR_SHARE = 0.2  # share of the trials that the prior chooses
DRAWS = 32  # points of which each time the most promising one is taken
ATTEMPTS = 12  # answers of the sampler that may be stale or invalid


class Parzen(Mechanism):
    """Optuna's TPE over the trace."""

    name = "tpe"

    def propose(self, view: View, count: int) -> list[Candidate]:
        """What the sampler gives, and in its share what the prior says."""
        if not view.movable():
            return []
        taken: list[Config] = []
        chosen: list[Candidate] = []
        study = told(view)
        for _ in range(count):
            candidate = self.from_prior(view, taken)
            if candidate is not None:
                study.add_trial(pending(view, view.config_of(candidate.changes)))
            else:
                candidate = sampled(view, study, taken)
            if candidate is not None:
                taken.append(view.config_of(candidate.changes))
                chosen.append(candidate)
        return chosen

    def from_prior(self, view: View, taken: list[Config]) -> Candidate | None:
        """The prior's candidate in its share, if it is free, valid and new."""
        if view.random.random() >= PRIOR_SHARE:
            return None
        for answer in view.ask("", 1):
            config = view.config_of(answer.changes)
            moved = [n for n in answer.changes if n in view.frozen]
            if not moved and view.fresh(config) and config not in taken:
                return answer
        return None


def distributions(view: View) -> dict[str, BaseDistribution]:
    """Positions between 0 and 1 for what has an order; names as they are."""
    found: dict[str, BaseDistribution] = {}
    for name in view.movable():
        choices = view.space[name].choices
        named = [choice for choice in choices if isinstance(choice, str)]
        found[name] = CategoricalDistribution(choices) if named else FloatDistribution(0.0, 1.0)
    return found


def told(view: View) -> Study:
    """A study that knows the trace."""
    warnings.filterwarnings("ignore", category=UserWarning, module="optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = TPESampler(
        seed=view.random.randrange(2**31),
        n_startup_trials=STARTUP,
        n_ei_candidates=DRAWS,
        multivariate=True,
        constant_liar=True,
    )
    study = create_study(direction="minimize" if view.minimize else "maximize", sampler=sampler)
    space = distributions(view)
    results = [t.metric for t in view.known() if t.metric is not None]
    worst = max(results, default=0.0) if view.minimize else min(results, default=0.0)
    for trial in view.known():
        value = worst if trial.metric is None else trial.metric
        study.add_trial(
            create_trial(
                params={n: coded(view, n, trial.config[n]) for n in space},
                distributions=space,
                value=value,
                state=TrialState.COMPLETE,
            )
        )
    return study


def pending(view: View, config: Config) -> FrozenTrial:
    """The prior's candidate as a trial that runs: the others of a batch keep away from it, as
    they do from those that the sampler was asked for (its constant liar)."""
    space = distributions(view)
    params = {name: coded(view, name, config[name]) for name in space}
    return create_trial(params=params, distributions=space, state=TrialState.RUNNING)


def coded(view: View, name: str, value: KnobValue) -> KnobValue:
    """A value as the sampler knows it."""
    knob = view.space[name]
    named = any(isinstance(choice, str) for choice in knob.choices)
    return value if named else min(1.0, max(0.0, knob.position(value)))


def sampled(view: View, study: Study, taken: list[Config]) -> Candidate | None:
    """The sampler's next fresh configuration; a step away from the best if it has none."""
    space = distributions(view)
    for _ in range(ATTEMPTS):
        answer = study.ask(space).params
        places = [
            view.space[n].position(v) if isinstance(v, str) else float(v) for n, v in answer.items()
        ]
        config = view.placed(places)
        if view.fresh(config) and config not in taken:
            changes = view.changes_to(config)
            return Candidate(changes=changes, reason="tpe: where good trials are likelier than bad")
    return single_step(view, taken)


def single_step(view: View, taken: list[Config]) -> Candidate | None:
    """A fresh configuration with one knob moved as little as possible, else any other."""
    names = view.movable()
    view.random.shuffle(names)
    for name in names:
        for value in view.space[name].near(view.best.config[name])[1:]:
            config = view.space.repaired(view.config_of({name: value}), fixed={name, *view.frozen})
            if view.fresh(config) and config not in taken:
                return Candidate(changes=view.changes_to(config), reason=f"tpe: {name} alone")
    for _ in range(16 * ATTEMPTS):
        config = view.placed(view.random.random() for _ in names)
        if view.fresh(config) and config not in taken:
            return Candidate(changes=view.changes_to(config), reason="tpe: somewhere new")
    return None
