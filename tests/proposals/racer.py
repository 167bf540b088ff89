"""A site of its own, in which many threads try the same verb at once (a program, not a test).

`racer.py VERB`: prints what each thread got, as JSON. Runs with an ESCAPEMENT_VAR of its own.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
from pathlib import Path

import django

django.setup()

from audit.keys import ensure_keys  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection, connections  # noqa: E402
from proposals import lifecycle, screenings  # noqa: E402
from proposals.acts import Denied  # noqa: E402
from proposals.models import Activation, Review  # noqa: E402

THREADS = 8
PATIENCE_SECONDS = 150  # each waits for all the others, on a machine that may be busy


def main(verb: str) -> None:
    """Set the scene, race, and tell."""
    spec = importlib.util.spec_from_file_location("world", Path(__file__).with_name("conftest.py"))
    assert spec is not None
    assert spec.loader is not None
    helpers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(helpers)
    if connection.vendor == "sqlite":
        connections.settings["default"]["OPTIONS"]["timeout"] = PATIENCE_SECONDS
    call_command("migrate", verbosity=0)
    ensure_keys()
    world = helpers.World()
    if verb == "claim":
        proposal = world.submit()
        act = lambda: screenings.claim(proposal.screenings.get().pk) or "none"  # noqa: E731
    elif verb == "activate":
        proposal = world.approved()
        act = lambda: lifecycle.activate(proposal_id=proposal.pk)  # noqa: E731
    elif verb == "approve":
        proposal = world.passed()
        act = lambda: world.approve(proposal, "ada")  # noqa: E731
    else:
        proposal = world.live()
        seed = world.target.activations.get(kind="seed")
        act = lambda: world.roll_back(seed)  # noqa: E731
    results: list[str] = []
    barrier = threading.Barrier(THREADS)

    def race() -> None:
        barrier.wait()
        try:
            results.append("none" if act() == "none" else "done")
        except Denied as denied:
            results.append(denied.code)
        except Exception as error:
            results.append(repr(error))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=race) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = {
        "results": sorted(results),
        "activations": Activation.objects.count(),
        "reviews": Review.objects.filter(standing="valid").count(),
        "log": world.verify(),
    }
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
