"""What the image is made of, and that its name tells it."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from sandbox import image, rootfs
from sandbox.errors import InfrastructureError


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of all inputs that can be changed."""
    (tmp_path / "sandbox").mkdir()
    ours = [f"sandbox/{n}.py" for n in (*image.OURS, *image.MAKERS)]
    for name in (*ours, "sandbox/lock.txt", "constraints.txt"):
        (tmp_path / name).write_bytes((image.ROOT / name).read_bytes())
    monkeypatch.setattr(image, "ROOT", tmp_path)
    return tmp_path


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def test_the_tag_is_the_content(checkout: Path) -> None:
    before = image.tag()
    assert before == image.tag()
    for name in image.OURS:
        append(checkout / f"sandbox/{name}.py", "\n# changed\n")
        assert image.tag() != before
        before = image.tag()


def test_another_version_of_numpy_is_another_image(checkout: Path) -> None:
    before = image.tag()
    path = checkout / "constraints.txt"
    path.write_text(path.read_text().replace("numpy==", "numpy==9."))
    with pytest.raises(InfrastructureError, match=r"lock\.txt has no hashes of numpy==9"):
        image.tag()
    path = checkout / "sandbox/lock.txt"
    path.write_text(path.read_text().replace("numpy==", "numpy==9."))
    assert image.tag() != before


def test_another_hash_of_numpy_is_another_image(checkout: Path) -> None:
    before, path = image.tag(), checkout / "sandbox/lock.txt"
    text = path.read_text()
    one = text.partition("numpy==")[2].partition("sha256:")[2][:64]
    path.write_text(text.replace(one, "ab" * 32))
    assert image.tag() != before


def test_the_seed_s_lock_has_hashes_of_every_package() -> None:
    lock = image.seed_lock()
    assert sorted(image.PACKAGES) == [pin.name for pin in lock.pins]
    assert all(pin.hashes for pin in lock.pins)


def test_what_is_not_in_the_image_does_not_change_it(checkout: Path) -> None:
    before = image.tag()
    append(checkout / "constraints.txt", "something-else==1.0\n")
    assert image.tag() == before


def test_a_missing_pin_names_the_package(checkout: Path) -> None:
    path = checkout / "constraints.txt"
    path.write_text("".join(x for x in path.read_text().splitlines(True) if "numpy" not in x))
    with pytest.raises(InfrastructureError, match="does not pin numpy"):
        image.tag()


def test_no_input_may_be_missing(checkout: Path) -> None:
    (checkout / "sandbox/worker.py").unlink()
    with pytest.raises(InfrastructureError, match=r"worker\.py can't be read"):
        image.tag()


def test_a_tar_depends_on_content_alone(tmp_path: Path) -> None:
    tars = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        (folder / "b/tmp").mkdir(parents=True)
        (folder / "tmp").mkdir()
        (folder / "b/file").write_text("same")
        (folder / "b/file").chmod(0o600 if number == 1 else 0o664)
        rootfs.write_tar(folder, tmp_path / f"{number}.tar")
        tars.append((tmp_path / f"{number}.tar").read_bytes())
    assert tars[0] == tars[1]
    with tarfile.open(tmp_path / "1.tar") as archive:
        modes = {m.name: (m.mode, m.uid, m.mtime) for m in archive}
    assert modes["tmp"] == (0o1777, 0, 0)
    assert modes["b/tmp"] == (0o755, 0, 0)
    assert modes["b/file"] == (0o644, 0, 0)


def test_the_base_has_python_and_no_shell_and_no_setuid_file(tmp_path: Path) -> None:
    root, packages = tmp_path / "root", tmp_path / "packages"
    root.mkdir()
    packages.mkdir()
    rootfs.build(root, packages)
    files = [p for p in root.rglob("*") if p.is_file()]
    assert (root / "usr/local/bin/python3").resolve().name == rootfs.VERSION
    assert (root / f"usr/local/lib/{rootfs.VERSION}/os.py").is_file()
    assert list(root.rglob("libstdc++.so.6"))
    assert not [p for p in files if p.name in ("sh", "bash", "dash", "su", "mount")]
    assert not [p for p in files if p.stat().st_mode & 0o6000]
    assert not [p for p in files if "site-packages" in p.parts]


@pytest.mark.engine
def test_an_unchanged_image_is_found_and_not_built() -> None:
    told: list[str] = []
    first = image.ensure_image(told.append)
    assert told == [f"the sandbox image {image.tag()} is there"]
    assert first.startswith("sha256:")
