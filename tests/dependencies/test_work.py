"""The worker's part, with real pip and, once, with a real engine: record, build, try, adopt."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from dependencies import adopted, builds, work
from dependencies.management.commands import prune_images
from dependencies.models import DependencyRequest, LockVersion
from django_tasks_db.models import DBTaskResult
from proposals.management.commands import work as commands

from sandbox import image, reaper, wheels
from sandbox import lock as locks
from sandbox.backends import engine as engines
from sandbox.backends import get_backend, images
from sandbox.backends.base import Backend
from sandbox.errors import ImageMissing, InfrastructureError
from sandbox.host import Limits, MechanismFailure, MechanismHost
from sandbox.lock import Lock, Pin
from sandbox.opened import probe

pytestmark = pytest.mark.django_db


def test_the_record_is_made_through_pip_and_its_wheels_are_kept(packages: Any) -> None:
    packages.index.add("tiny", "1.0")
    request = packages.ask()
    assert work.record.call(request.pk) == "in_review"
    assert work.record.call(request.pk) == "not to be had", "a task that is given twice"
    request.refresh_from_db()
    (pin,) = (p for p in locks.parse(request.lock_text.encode()).pins if p.name == "tiny")
    assert wheels.stored(pin) is not None


def test_an_index_that_is_away_is_tried_again_within_a_bound(
    packages: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise wheels.WheelError(wheels.Trouble.INDEX_AWAY, "the index does not answer")

    monkeypatch.setattr(work.depreq, "examine", away)
    request = packages.ask()
    said = [work.record.call(request.pk) for _ in range(work.RECORD_ATTEMPTS)]
    request.refresh_from_db()
    assert said[:-1] == ["again later"] * (work.RECORD_ATTEMPTS - 1)
    assert (said[-1], request.code) == ("unfit", "index_away")


def test_what_can_not_be_had_is_a_named_state(packages: Any, world: Any) -> None:
    packages.index.add("tiny", "1.0")
    request = packages.ask("tiny==9.0")
    assert work.record.call(request.pk) == "unfit"
    request.refresh_from_db()
    assert request.code == "no_such_version"
    assert world.entries("dependency.refused")[-1]["data"]["code"] == "no_such_version"
    closed = packages.ask(modules="tiny.nothing")
    assert work.record.call(closed.pk) == "unfit"
    closed.refresh_from_db()
    assert closed.code == "modules"


def test_asking_and_the_quorum_give_the_worker_something_to_do(
    packages: Any, django_capture_on_commit_callbacks: Any
) -> None:
    packages.index.add("tiny", "1.0")
    with django_capture_on_commit_callbacks(execute=True):
        request = packages.ask()
    (task,) = DBTaskResult.objects.all()
    assert (task.task_path, task.args_kwargs["args"]) == (work.record.module_path, [request.pk])
    packages.record(request)
    with django_capture_on_commit_callbacks(execute=True):
        packages.approve(request, "ada")
    assert DBTaskResult.objects.count() == 1, "one is not the quorum"
    with django_capture_on_commit_callbacks(execute=True):
        packages.approve(request, "grace")
    assert DBTaskResult.objects.filter(task_path=work.build.module_path).count() == 1


def test_what_a_rollback_needs_and_what_is_live_is_never_pruned(packages: Any) -> None:
    world = packages.world
    world.live()
    packages.built(packages.approved())
    images_of = world.target.activations.get(state="live").proposal.screenings.all()
    assert {s.image_id for s in images_of} <= prune_images.wanted()
    assert {"sha256:" + "7c" * 32, "escapement-sandbox:test"} <= prune_images.wanted()


def test_tasks_that_were_lost_are_given_again(packages: Any) -> None:
    request = packages.ask()
    assert work.enqueue_lost() == 0, "it was asked a moment ago"
    long_ago = request.changed_at - 3 * work.timedelta(seconds=work.LOST_SECONDS)
    DependencyRequest.objects.filter(pk=request.pk).update(changed_at=long_ago)
    assert work.enqueue_lost() == 1
    assert work.enqueue_lost() == 0, "there is a task now"


def died(task: Any) -> DBTaskResult:
    """A task that a process of this machine took, which is dead."""
    row: DBTaskResult = DBTaskResult.objects.get(pk=task.id)
    host, boot, *_ = reaper.me().split("|")
    row.claim(f"{host}|{boot}|4194304|1")
    return row


def test_what_a_dead_worker_had_in_hand_goes_on_or_has_a_name(packages: Any) -> None:
    request = packages.ask()
    long_ago = request.changed_at - 3 * work.timedelta(seconds=work.LOST_SECONDS)
    DependencyRequest.objects.filter(pk=request.pk).update(changed_at=long_ago)
    died(work.record.enqueue(request.pk))
    assert work.enqueue_lost() == 0, "somebody has it, as far as is known"
    assert work.give_up_dead() == 1
    assert work.enqueue_lost() == 1
    packages.index.add("other", "1.0")
    built = packages.approved("other==1.0", modules="other")
    assert builds.begin(built.pk)
    died(work.build.enqueue(built.pk))
    mine = DBTaskResult.objects.get(pk=work.build.enqueue(built.pk).id)
    mine.claim(reaper.me())
    assert (work.give_up_dead(), work.give_up_dead()) == (1, 0)
    built.refresh_from_db()
    assert (built.state, built.code) == ("build_failed", "died")
    mine.refresh_from_db()
    assert mine.status == "RUNNING", "this process lives"


def test_a_silent_worker_of_another_machine_holds_nothing_up(
    packages: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, long = packages.ask(), 2 * builds.SILENT
    DependencyRequest.objects.filter(pk=request.pk).update(changed_at=request.changed_at - long)
    for task in (work.record.enqueue(request.pk), work.rebuild.enqueue()):
        row = DBTaskResult.objects.get(pk=task.id)
        row.claim("elsewhere|boot|7|7")
        DBTaskResult.objects.filter(pk=row.pk).update(started_at=row.started_at - long)
    assert work.give_up_dead() == 0
    assert work.enqueue_lost() == 1

    def gone(_: str) -> None:
        raise ImageMissing("it is not there")

    monkeypatch.setattr(work, "get_backend", gone)
    monkeypatch.setattr(work.screening.workers, "keep_ready", True)
    assert (work.image_is_there(), work.image_is_there()) == (1, 0)


def test_no_screening_waits_for_an_image() -> None:
    """Each of the worker's threads takes its own queue; `--once` takes them all."""
    options = {"interval": 0.0, "once": True}
    tasks = {q: (work.record.enqueue(7), work.screening.look.enqueue(7)) for q in "ab"}
    aside = commands._worker(commands.Worker, options, queues=["*"], but=(commands.MAIN,))
    main = commands._worker(commands.Worker, options, queues=[commands.MAIN])

    def open_ones() -> set[str]:
        left = DBTaskResult.objects.filter(status="READY")
        return set(left.values_list("queue_name", flat=True))

    assert open_ones() == {"packages", "default"}
    aside.run()
    assert open_ones() == {"default"}
    main.run()
    assert open_ones() == set()
    assert DBTaskResult.objects.count() == 2 * len(tasks)


def test_a_queue_that_can_not_be_taken_ends_the_worker() -> None:
    class Broken:
        running = True

        def run(self) -> None:
            raise OSError("no database")

    worker: Any = Broken()
    aside = commands.Aside(worker, worker)
    aside.start()
    aside.stop()
    assert (aside.failed, worker.running) == ("other queues", False)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InfrastructureError("the engine is away"), "infrastructure"),
        (wheels.WheelError(wheels.Trouble.WRONG_HASH, "other bytes"), "wrong_hash"),
        (work.BuildFailed("doctor", "a control does not hold"), "doctor"),
        (MemoryError("no"), "failed"),
    ],
)
def test_a_build_that_fails_changes_nothing(
    packages: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str
) -> None:
    request = packages.approved()

    def fails(*_: Any) -> None:
        raise error

    monkeypatch.setattr(work, "make", fails)
    assert work.build.call(request.pk) == "build_failed"
    request.refresh_from_db()
    assert (request.state, request.code) == ("build_failed", code)
    assert locks.site() is None
    assert adopted.newest() is None
    assert {r.standing for r in request.reviews.all()} == {"valid"}, "it can be built again"


def test_an_image_that_vanished_is_made_again_once(
    packages: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[str] = []

    def gone(_: str, **more: Any) -> None:
        if "progress" not in more:
            raise ImageMissing("it is not there")
        built.append("built")

    monkeypatch.setattr(work, "get_backend", gone)
    assert work.image_is_there() == 0, "this process keeps no workers ready"
    monkeypatch.setattr(work.screening.workers, "keep_ready", True)
    assert work.image_is_there() == 1
    assert work.image_is_there() == 0, "it is being made"
    assert work.rebuild.call() == "there"
    assert built == ["built"]
    monkeypatch.setattr(work, "get_backend", lambda *_, **__: None)
    assert work.image_is_there() == 0


@pytest.fixture
def small(packages: Any, monkeypatch: pytest.MonkeyPatch, engine: Backend) -> Iterator[list[str]]:
    """A seed of one small package, so that an image takes seconds; its images, which nobody else
    has, are removed, and what the doctor says of them is not kept."""
    monkeypatch.setenv("ESCAPEMENT_SANDBOX_CACHE", str(packages.index.folder.parent / "cache"))
    path = packages.index.add("base", "1.0", {"base/__init__.py": f"MADE_BY = {reaper.me()!r}\n"})
    pin = Pin(name="base", version="1.0", hashes=(wheels.digest(path),))
    monkeypatch.setattr(image, "seed_lock", lambda: Lock(pins=(pin,)))
    made: list[str] = []
    yield made
    client = engines.connect()
    for name in made:
        assert name.startswith(f"{image.REPOSITORY}:")
        images.remove(client, name)


@pytest.mark.parametrize(
    ("modules", "code"),
    [
        ({"json": ["loads", "decoder"]}, "other_names"),
        ({"json": ["loads", "nothing"]}, "other_names"),
        ({"no_such_module": ["loads"]}, "does_not_import"),
    ],
)
def test_what_it_opens_is_tried_in_the_sandbox(
    engine: Backend, modules: dict[str, list[str]], code: str
) -> None:
    with pytest.raises(work.BuildFailed) as caught:
        work._try_modules(engine, modules)
    assert caught.value.code == code


@pytest.mark.slow
def test_from_asking_to_an_image_that_has_it(
    packages: Any, small: list[str], world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages.index.add("tiny", "1.0", {"tiny/__init__.py": "LIMIT = 3\nOTHER = 4\n"})
    request = packages.approved(modules="tiny: LIMIT")
    lock = locks.parse(request.lock_text.encode())
    with locks.using(lock):
        small.append(image.tag())
    assert work.build.call(request.pk) == "adopted", request.refresh_from_db() or request.__dict__
    work.settle()
    adoption = LockVersion.objects.get(kind="adoption")
    assert adoption.image_name == small[0] == image.tag()
    assert "tiny" in adoption.sbom
    (told,) = world.entries("dependency.adopted")
    assert told["data"]["loaded"] == ["demo: null"], "what is live was tried in it"
    assert told["data"]["controls"] > 10

    backend = get_backend("docker")
    assert backend.image_id == adoption.image_id
    with start(backend, probe({"tiny": ["LIMIT"]})) as host:
        assert host.state() == {"missing": [], "modules": []}

    # Back to the seed: its image is not there, and that has a name.
    builds.roll_back(generation=1, person=world["ada"], reason="slow")
    work.settle()
    with pytest.raises(ImageMissing, match="is not there"):
        get_backend("docker")


def start(backend: Backend, source: bytes) -> MechanismHost:
    with contextlib.suppress(MechanismFailure):
        return MechanismHost.start(
            backend, source, name="draft", limits=Limits.screening(), purpose="test"
        )
    raise AssertionError("it does not load")
