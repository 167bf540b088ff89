"""Images compared and pruned: the same inputs give the same id, and a difference is named."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sandbox import archive, compare, image, layout, pruning
from sandbox.__main__ import main
from sandbox.backends import engine as engines
from sandbox.backends import images
from sandbox.backends.images import Kept
from sandbox.errors import InfrastructureError

NOW = datetime(2026, 3, 1, tzinfo=UTC)
NAME = f"escapement-test-compare-{os.getpid()}"  # others may test on this engine meanwhile


def folder(place: Path, text: str = "same", *, mode: int = 0o644) -> Path:
    made = place / "site"
    shutil.rmtree(made, ignore_errors=True)
    (made / "deep").mkdir(parents=True)
    (made / "deep/file.py").write_text(text)
    (made / "deep/file.py").chmod(mode)
    (made / "link").symlink_to("deep/file.py")
    return made


def written(place: Path, site: Path, name: str, **inputs: str) -> archive.Made:
    layer = archive.layer(site, place / f"{name}.layer", prefix="opt/x/")
    labels = {image.LABEL: "1", compare.INPUTS: json.dumps(inputs)}
    return archive.write(
        place / f"{name}.tar",
        name=f"{NAME}:{name}",
        base=None,
        layers=[layer],
        user="1:1",
        labels=labels,
    )


def test_the_same_content_has_the_same_id(tmp_path: Path) -> None:
    one = written(tmp_path, folder(tmp_path), "one")
    two = written(tmp_path, folder(tmp_path, mode=0o600), "two")  # modes of the host don't count
    assert one.image_id == two.image_id
    assert one.path.read_bytes() != two.path.read_bytes(), "the name is beside it"
    read = [archive.read(made.path, made.name) for made in (one, two)]
    assert compare.differences(read[0], read[1]) == []


def test_each_difference_is_named_with_its_cause(tmp_path: Path) -> None:
    one = written(tmp_path, folder(tmp_path), "one", packages="a", python="3.11.7")
    site = folder(tmp_path, "other", mode=0o755)
    (site / "more.py").write_text("")
    two = written(tmp_path, site, "two", packages="b", python="3.11.7")
    found = compare.differences(archive.read(one.path, "one"), archive.read(two.path, "two"))
    said = "\n".join(found)
    assert found[0] == "input packages: a and b"
    assert "python" not in said
    assert "file opt/x/more.py: only in the second" in said
    assert "file opt/x/deep/file.py: mode 0o644 and 0o755, size 4 and 5" in said
    assert len(found) == 3


def test_layers_are_laid_over_each_other(tmp_path: Path) -> None:
    below, above = tmp_path / "below", tmp_path / "above"
    for path in (below / "a/gone", below / "b/kept", below / "c/old", above / "a/.wh.gone"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (above / "c").mkdir()
    (above / "c/.wh..wh..opq").write_text("")
    (above / "c/new").write_text("y")
    layers = [archive.layer(p, tmp_path / f"{p.name}.layer") for p in (below, above)]
    made = archive.write(
        tmp_path / "i.tar", name="x:y", base=None, layers=layers, user="", labels={}
    )
    names = set(compare.contents(archive.read(made.path, "x")))
    assert names == {"a", "b", "b/kept", "c", "c/new"}


@pytest.mark.parametrize("data", [b"", b"no tar", b"\0" * 4096])
def test_what_is_no_archive(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(data)
    with pytest.raises(InfrastructureError, match="can't be read"):
        archive.read(path, "x")


def test_byte_code_does_not_tell_who_compiled_it(tmp_path: Path) -> None:
    text = "NAMES = {'a', 'b', 'c'}\ndef f(x):\n    return x in {'one', 'two', 'three'}\n"
    found = []
    for place in (tmp_path / "one", tmp_path / "two/deeper"):
        place.mkdir(parents=True)
        (place / "m.py").write_text(text)
        layout.compile_folder(place)
        (made,) = place.rglob("*.pyc")
        found.append(made.read_bytes())
    assert found[0] == found[1]


# --- on the engine ---


@pytest.fixture
def loaded(engine: Any, tmp_path: Path) -> Iterator[dict[str, archive.Made]]:
    """Two tiny images of a name of their own, removed afterwards."""
    client = engines.connect()
    made = {
        "one": written(tmp_path, folder(tmp_path, NAME), "one", packages="a"),
        "two": written(tmp_path, folder(tmp_path, f"other {NAME}"), "two", packages="b"),
    }
    for one in made.values():
        images.load(client, one.path)
    yield made
    for one in made.values():
        images.remove(client, one.name)


@pytest.mark.engine
def test_the_engine_gives_the_id_that_was_computed(
    loaded: dict[str, archive.Made], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client = engines.connect()
    for one in loaded.values():
        assert engines.find_image(client, one.name) == one.image_id
    # An image of the engine's is a base like any other: its layers come first, unchanged.
    base = images.saved(client, loaded["one"].name, tmp_path / "base.tar")
    layer = archive.layer(folder(tmp_path, "above"), tmp_path / "above.layer", prefix="opt/y/")
    upon = archive.write(
        tmp_path / "upon.tar",
        name=f"{NAME}:upon",
        base=base,
        layers=[layer],
        user="2:2",
        labels={image.LABEL: "1"},
    )
    images.load(client, upon.path)
    try:
        assert engines.find_image(client, upon.name) == upon.image_id
        found = compare.contents(images.saved(client, upon.name, tmp_path / "upon-saved.tar"))
        assert {"opt/x/deep/file.py", "opt/y/deep/file.py"} <= set(found)
    finally:
        images.remove(client, upon.name)
    names = [loaded["one"].name, loaded["two"].name]
    assert main(["image", "--explain", *names]) == 1
    assert "input packages: a and b" in capsys.readouterr().out
    assert main(["image", "--explain", names[0], names[0]]) == 0
    assert main(["--quiet", "image", "--explain", names[0], f"{NAME}:none"]) == 2


@pytest.mark.engine
def test_pruning_on_the_engine_touches_what_is_ours_alone(
    loaded: dict[str, archive.Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "REPOSITORIES", (NAME,))
    monkeypatch.setattr(image, "LABEL", "escapement.no-such-label")
    client, told = engines.connect(), list[str]()
    later = datetime.now(UTC) + timedelta(days=30)
    wanted = {loaded["one"].image_id}
    pruning.prune(client, wanted=wanted, now=later, really=False, tell=told.append)
    assert engines.find_image(client, loaded["two"].name)
    pruning.prune(client, wanted=wanted, now=later, tell=told.append)
    assert engines.find_image(client, loaded["two"].name) is None
    assert engines.find_image(client, loaded["one"].name)
    assert f"would go: {loaded['two'].name}" in told
    assert f"stays: {loaded['one'].name} (it is wanted)" in told


# --- what may go ---


def kept(name: str, **more: Any) -> Kept:
    values = {
        "image_id": f"sha256:{name}",
        "tags": (f"{image.REPOSITORY}:{name}",),
        "named": NOW - timedelta(days=30),
        "size_bytes": 1,
    }
    return Kept(**(values | more))


@pytest.mark.parametrize(
    ("one", "why"),
    [
        (kept("a"), "it is wanted"),
        (kept("b", tags=(f"{image.REPOSITORY}:tagged",)), "it is wanted"),
        (kept("c"), "a container was made of it"),
        (kept("d", tags=(f"{image.REPOSITORY}:d", "somebody/else:1")), "not ours"),
        (kept("e", tags=(f"{image.REPOSITORY}-other:1",)), "not ours"),
        (kept("f", named=NOW - timedelta(days=1)), "within 7 days"),
    ],
)
def test_what_stays(one: Kept, why: str) -> None:
    wanted = {"sha256:a", f"{image.REPOSITORY}:tagged"}
    (fate,) = pruning.decide([one], wanted=wanted, used={"sha256:c"}, now=NOW)
    assert not fate.goes
    assert why in fate.why


def test_what_goes_is_bounded() -> None:
    many = [kept(str(number)) for number in range(pruning.MAX_REMOVED + 5)]
    fates = pruning.decide([*many, kept("nameless", tags=())], wanted=(), used=(), now=NOW)
    assert sum(f.goes for f in fates) == pruning.MAX_REMOVED


def test_a_lock_is_taken_over_only_when_its_image_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sandbox import image_commands
    from sandbox import lock as locks

    monkeypatch.setenv("ESCAPEMENT_VAR", str(tmp_path / "var"))
    pin = locks.Pin(name="tiny", version="1.0", hashes=("ab" * 32,))
    file = tmp_path / "lock.json"
    file.write_bytes(locks.seed().extended([pin], {"tiny": ["A"]}).to_bytes())

    def nothing(**_: Any) -> None:
        raise InfrastructureError(f"no image of {locks.current().version_of('tiny')}")

    monkeypatch.setattr(image_commands, "get_backend", nothing)
    assert main(["image", "--lock", str(file)]) == 2
    assert "no image of 1.0" in capsys.readouterr().err
    assert locks.site() is None
    file.write_bytes(b"{}")
    assert main(["image", "--lock", str(file)]) == 2
    assert locks.site() is None


def test_an_archive_with_a_layer_missing_is_refused(tmp_path: Path) -> None:
    made = written(tmp_path, folder(tmp_path), "one")
    with tarfile.open(made.path) as tar, tarfile.open(tmp_path / "cut.tar", "w") as out:
        for member in tar:
            if member.name.endswith(".json"):
                out.addfile(member, tar.extractfile(member))
    with pytest.raises(InfrastructureError, match="can't be read"):
        archive.read(tmp_path / "cut.tar", "cut")
