"""A machine that can train nothing pauses the run, before its trials are used up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runner.interfaces import Outcome
from sandbox.errors import InfrastructureError
from tests.runner.loop.test_search import Script, search
from tests.runner.surface import SurfaceTask


def test_a_machine_that_can_train_nothing_pauses_the_run(tmp_path: Path) -> None:
    class Full(SurfaceTask):
        room = True

        def run(self, config: Any, *, seed: int, progress: Any = None) -> Outcome:
            if not self.room and len(self.trained) > 4:  # the baseline's, and two trials
                return Outcome(metric=None, failure="infrastructure", message="no space: free some")
            return super().run(config, seed=seed)

    task = Full()
    task.room = False
    loop, journal = search(tmp_path, trials=20, task=task, prior=Script())
    for failed in (3, 4):  # the next start tries one, and pauses again
        with pytest.raises(InfrastructureError, match=r"last 3 trials .*no space: free some"):
            loop.run()
        statuses = [entry.failure for entry in journal.decided()]
        assert statuses.count("infrastructure") == failed
    task.room = True
    loop.run()
    assert journal.count() == 21
