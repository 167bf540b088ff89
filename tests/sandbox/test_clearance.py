"""A control that is turned off, or code and profile that are edited, are noticed at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runner.control import hotload
from sandbox import clearance
from sandbox.__main__ import main
from sandbox.backends import Backend, bubblewrap, get_backend
from sandbox.backends.base import Purpose, Switch
from sandbox.draft import lay_out
from sandbox.errors import InfrastructureError
from sandbox.host import Limits, MechanismHost
from sandbox.image import ROOT
from sandbox.pool import WarmBackend
from sandbox.report import Outcome
from sandbox.screen import screen

pytestmark = pytest.mark.engine
NULL = b"from sandbox.mechanism import Mechanism\nclass Null(Mechanism): pass\n"
OPEN = b'{"defaultAction": "SCMP_ACT_ALLOW"}'
# What the doctor calls it, whatever else fails with it.
NAMED = {
    Switch.SECCOMP: "(seccomp)",
    Switch.NETWORK: "network (worker for a mechanism)",
    Switch.MEMORY: "an allocation of 4 GiB is stopped (memory)",
    Switch.USER: "user (worker for a mechanism)",
    Switch.CAPABILITIES: "capabilities (worker for a mechanism)",
    Switch.PROCESSES: "(processes)",
    Switch.FILES: "files (worker for a mechanism)",
}


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Backend:
    found = get_backend("bubblewrap", progress=lambda text: sys.stderr.write(f"{text}\n"))
    monkeypatch.setattr(clearance, "_bad", {})
    return found


@pytest.mark.parametrize("without", list(Switch))
def test_a_drill_without_one_control_names_it_and_keeps_no_verdict(
    backend: Backend,
    without: Switch,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ESCAPEMENT_SANDBOX", "bubblewrap")
    monkeypatch.setattr(clearance, "put", lambda *_: pytest.fail("a drill's verdict was kept"))
    assert main(["--quiet", "doctor", "--without", without]) == 0
    out = capsys.readouterr().out
    assert NAMED[without] in out
    assert f"noticed: a sandbox without {without} is refused" in out
    drill = get_backend("bubblewrap", without=without)
    report = screen(lay_out({"mechanisms/null.py": NULL}, require_test=False), backend=drill)
    assert report.outcome is Outcome.COULD_NOT_LOOK
    assert any("drill" in f.message for f in report.findings)


def test_an_edited_profile_is_noticed_in_a_running_process_with_a_good_verdict(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    profile = tmp_path / "seccomp.json"
    shutil.copy(bubblewrap.SECCOMP, profile)
    monkeypatch.setattr(bubblewrap, "SECCOMP", profile)
    clearance.require(backend)
    with WarmBackend(backend, spare={Purpose.MECHANISM: 1}) as warm:
        assert warm.wait_until_ready(240)
        profile.write_bytes(OPEN)
        warm._seen = (0.0, "")  # half a minute later
        channel = warm.start(purpose=Purpose.MECHANISM, limits=Limits.screening())
        channel.close()
        assert "warm" not in channel.posture, "it was started under another profile"
        with pytest.raises(InfrastructureError, match=r"does not hold.*\(seccomp\)"):
            clearance.require(warm)


def test_code_of_the_posture_that_changed_is_named_and_clears_nothing(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clearance.require(backend)  # a good verdict is there
    copied = tmp_path / "sandbox"
    shutil.copytree(ROOT / "sandbox", copied, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(clearance, "_HERE", copied)
    clearance.require(backend)
    flags = copied / "backends/docker.py"
    flags.write_text(flags.read_text().replace('"cap_drop": ["ALL"]', '"cap_drop": []'))
    with pytest.raises(InfrastructureError, match=r"code changed.*backends/docker\.py.*anew"):
        clearance.require(backend)
    (copied / "backends/more.py").write_text("")
    with pytest.raises(InfrastructureError, match=r"backends/more\.py"):
        clearance.require(backend)


def test_a_runner_loads_nothing_but_the_null_mechanism_while_a_control_is_off(
    backend: Backend,
) -> None:
    drill = get_backend("bubblewrap", without=Switch.MEMORY)
    loader = hotload.Loader(lambda: drill, public_key="", target="t")
    null = (ROOT / "mechanisms_repo/mechanisms/null.py").read_bytes()
    assert loader._cleared(null) is drill
    for source in (NULL, null + b"\n"):
        with pytest.raises(InfrastructureError, match="without memory"):
            loader._cleared(source)


def test_a_process_without_the_limits_of_the_posture_gets_no_mechanism(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = bubblewrap.posture_flags

    def loose(purpose: Purpose, limits: Limits) -> dict[str, object]:
        flags = original(purpose, limits)
        flags["rlimits"]["fsize"] = (1 << 20, 1 << 20)
        return flags

    monkeypatch.setattr(bubblewrap, "posture_flags", loose)
    with pytest.raises(InfrastructureError, match="its limit fsize is 1048576"):
        MechanismHost.start(backend, NULL, name="draft", limits=Limits.screening(), purpose="test")


@pytest.mark.parametrize("name", ["docker", "bubblewrap"])
def test_the_whole_gate_without_a_network(name: str, engine: Backend, tmp_path: Path) -> None:
    """A namespace with nothing in it, not even a loopback that is up: only Docker's unix socket."""
    clearance.require(get_backend(name, progress=lambda text: sys.stderr.write(f"{text}\n")))
    draft = ROOT / "tests/sandbox/specimens/drafts/honest_tabu"
    command = [sys.executable, "-m", "sandbox", "screen", str(draft)]
    done = subprocess.run(
        ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--net", *command],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "ESCAPEMENT_SANDBOX": name, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stdout.split()[0]) == (0, "PASSED"), done.stdout + done.stderr
    assert "NOT SCANNED" in done.stdout or "advisories: snapshot" in done.stdout
