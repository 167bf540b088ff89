"""Trust region Bayesian optimisation with botorch."""

from __future__ import annotations

import torch
from botorch.acquisition import qExpectedImprovement
from botorch.models import SingleTaskGP
from botorch.fit import fit_gpytorch_mll
from botorch.optim import optimize_acqf
from gpytorch.mlls import ExactMarginalLogLikelihood

from sandbox.mechanism import Candidate, Mechanism, View


class TurboMechanism(Mechanism):
    name = "turbo"

    def propose(self, view: View, count: int) -> list[Candidate]:
        names = [n for n in view.free() if view.space[n].kind == "float"]
        done = [t for t in view.trace if t.metric is not None]
        x = torch.tensor([[view.space[n].position(t.config[n]) for n in names] for t in done], dtype=torch.double)
        y = torch.tensor([[-t.metric if view.minimize else t.metric] for t in done], dtype=torch.double)
        model = SingleTaskGP(x, y)
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        bounds = torch.stack([torch.zeros(len(names)), torch.ones(len(names))])
        points, _ = optimize_acqf(
            qExpectedImprovement(model, y.max()), bounds=bounds, q=count, num_restarts=5, raw_samples=32
        )
        return [
            Candidate(changes={n: view.space[n].at(float(p)) for n, p in zip(names, row)}, reason="qEI")
            for row in points
        ]
