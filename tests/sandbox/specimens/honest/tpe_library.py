"""Optuna's TPE, asked once for each decision with the whole trace as its past."""

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.samplers import TPESampler
from optuna.trial import TrialState, create_trial

from sandbox.mechanism import Candidate, Mechanism, View

optuna.logging.set_verbosity(optuna.logging.ERROR)


class TpeLibrary(Mechanism):
    name = "tpe_library"

    def propose(self, view: View, count: int) -> list[Candidate]:
        if len(view.trace) < 6 or len(view.trace) % 2:
            return view.ask(count=count)
        names = view.free()
        kinds = {
            n: CategoricalDistribution(view.space[n].choices)
            if view.space[n].kind == "choice"
            else FloatDistribution(0.0, 1.0)
            for n in names
        }
        study = optuna.create_study(
            direction="minimize" if view.minimize else "maximize",
            sampler=TPESampler(seed=view.random.getrandbits(31), n_startup_trials=4),
        )
        for trial in view.trace:
            if trial.metric is None:
                continue
            params = {
                n: trial.config[n] if view.space[n].kind == "choice" else min(1.0, max(0.0, view.space[n].position(trial.config[n])))
                for n in names
            }
            study.add_trial(
                create_trial(params=params, distributions=kinds, value=trial.metric, state=TrialState.COMPLETE)
            )
        out = []
        for _ in range(6 * count):
            params = study.ask(kinds).params
            changes = {
                n: params[n] if view.space[n].kind == "choice" else view.space[n].at(params[n]) for n in names
            }
            if not view.space.problems(view.config_of(changes)):
                out.append(Candidate(changes=changes, reason="TPE"))
            if len(out) == count:
                break
        return out or view.ask(count=count)
