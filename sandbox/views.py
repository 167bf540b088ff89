"""What a worker was shown already, so that a view is sent once and then only what is new of it.

The host's side of it; the worker keeps the trials in `sandbox.worker`. Not a cache of answers: a
mechanism gets the whole view at every call.
"""

from __future__ import annotations

from typing import Any

from sandbox.mechanism import Space, Trial, View, space_to_data, trial_to_data


class Shown:
    """The last view that one worker got."""

    def __init__(self) -> None:
        self._trace: tuple[Trial, ...] = ()
        self._space: Space | None = None

    def data(self, view: View) -> dict[str, Any]:
        """A view as plain data, to be sent: the worker has its first `kept` trials, and its space
        where `space` is None. Only the very same objects count as shown."""
        trace = tuple(view.trace)
        kept = 0
        for known, now in zip(self._trace, trace, strict=False):
            if known is not now:
                break
            kept += 1
        space = None if view.space is self._space else space_to_data(view.space)
        self._trace, self._space = trace, view.space
        return {
            "kept": kept,
            "trace": [trial_to_data(t) for t in trace[kept:]],
            "best": trial_to_data(view.best),
            "space": space,
            "frozen": sorted(view.frozen),
            "minimize": view.minimize,
            "noise": view.noise,
            "keep_sigma": view.keep_sigma,
        }
