"""The house rules that a machine can watch: borders, sizes, one writer, truthful documents."""

from __future__ import annotations

import ast
import os
import platform
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
CODE = ("sandbox", "runner", "platform", "scripts", "mechanisms_repo")
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 70


def sources(*folders: str) -> Iterator[Path]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "migrations" not in path.parts and "specimens" not in path.parts:
                yield path


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_borders_between_modules_hold() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'platform'}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("module", ["mechanism", "protocol", "worker"])
def test_the_inside_of_the_sandbox_needs_the_standard_library_alone(module: str) -> None:
    allowed = {"sandbox.mechanism", "sandbox.protocol", "sandbox.selfreport", "sandbox.testrun"}
    for node in ast.walk(tree(ROOT / "sandbox" / f"{module}.py")):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            names = [node.module or ""]
            if node.module == "sandbox":
                names = [f"sandbox.{alias.name}" for alias in node.names]
        else:
            continue
        for imported in names:
            top = imported.split(".")[0]
            assert top in sys.stdlib_module_names or imported in allowed, imported


def test_files_are_small() -> None:
    sizes = {
        name(p): len(p.read_text(encoding="utf-8").splitlines()) for p in sources(*CODE, "tests")
    }
    assert not {path: lines for path, lines in sizes.items() if lines > MAX_FILE_LINES}


def test_functions_are_small() -> None:
    too_long = {}
    for path in sources(*CODE):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    too_long[f"{name(path)}:{node.lineno} {node.name}"] = lines
    assert not too_long


def test_every_module_says_what_it_is() -> None:
    silent = [
        name(p) for p in sources(*CODE) if p.read_text().strip() and not ast.get_docstring(tree(p))
    ]
    assert not silent


def test_platform_is_still_the_standard_library_s() -> None:
    assert Path(platform.__file__).is_relative_to(Path(os.__file__).parent)


def test_no_package_where_none_may_be() -> None:
    """platform/ is a source root: as a package it would hide the standard library's module."""
    assert not (ROOT / "platform" / "__init__.py").exists()
    assert not list((ROOT / "tests").rglob("__init__.py"))


def assignments_of_state(path: Path) -> Iterator[int]:
    """Lines that set an attribute `state`, or pass `state=` to update() or update_or_create()."""
    for node in ast.walk(tree(path)):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign | ast.AugAssign):
            targets = [node.target]
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in {"update", "bulk_update", "update_or_create"}
            and any(keyword.arg == "state" for keyword in node.keywords)
        ) or (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) == "setattr"
            and any(isinstance(a, ast.Constant) and a.value == "state" for a in node.args)
        ):
            yield node.lineno
        for target in targets:
            if (
                isinstance(target, ast.Attribute)
                and target.attr == "state"
                and ast.unparse(target.value) != "self"
            ):
                yield node.lineno


def test_only_the_ledger_of_the_lifecycle_assigns_a_state() -> None:
    found = [
        f"{name(path)}:{line}"
        for path in sources("platform/proposals", "platform/config", "platform/audit")
        if name(path) != "platform/proposals/acts.py"
        for line in assignments_of_state(path)
    ]
    assert not found


def test_only_the_moves_of_requests_assign_a_state() -> None:
    found = [
        f"{name(path)}:{line}"
        for path in sources("platform/dependencies")
        if name(path) != "platform/dependencies/moves.py"
        for line in assignments_of_state(path)
    ]
    assert not found


def test_the_guard_above_would_notice(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("proposal.state = 1\nrows.update(state='live')\nsetattr(p, 'state', 2)\n")
    assert list(assignments_of_state(bad)) == [1, 2, 3]


def test_only_the_log_creates_entries() -> None:
    pattern = re.compile(
        r"\bEntry\s*\(|\bEntry\.objects\.(create|bulk_create|get_or_create|update)"
    )
    found = [
        name(path)
        for path in sources("platform")
        if name(path) not in {"platform/audit/log.py", "platform/audit/models.py"}
        and pattern.search(path.read_text())
        and "audit.models" in path.read_text()
    ]
    assert not found


def test_only_one_place_parses_python() -> None:
    """Python 3.11 fails where two threads parse at once: `sandbox.syntax` has the lock."""
    files = sources("sandbox", "runner", "platform")
    found = {name(path) for path in files if re.search(r"\bast\.parse\(", path.read_text())}
    assert found == {"sandbox/syntax.py"}


def test_the_lock_satisfies_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        wanted += extra
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if "==" in line:
            package, version = line.split("==")
            pins[re.sub(r"[-_.]+", "-", package).lower()] = version.strip()
    problems = []
    for text in wanted:
        requirement = Requirement(text)
        pin = pins.get(re.sub(r"[-_.]+", "-", requirement.name).lower())
        if pin is None or not requirement.specifier.contains(pin, prereleases=True):
            problems.append(f"{text}: the lock has {pin}")
    assert not problems


def makefile_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_the_makefile_stays_small() -> None:
    assert len(makefile_targets()) <= 10
    shown = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    ).stdout
    assert all(f"make {target} " in shown for target in makefile_targets())


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_commands_in_the_documents_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    blocks = "\n".join(re.findall(r"^(?:    |\t)(.*)$", text, re.MULTILINE))
    spoken = "\n".join(re.findall(r"`([^`\n]+)`", text))
    named = set(re.findall(r"\bmake ([a-z]+)\b", f"{blocks}\n{spoken}"))
    assert named
    assert named <= makefile_targets()
    from django.core.management import get_commands

    commands = set(re.findall(r"manage\.py ([a-z_]+)", text))
    assert commands <= set(get_commands())


def test_links_in_the_documents_lead_somewhere() -> None:
    broken = []
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
            if "://" not in link and not (path.parent / link).exists():
                broken.append(f"{name(path)}: {link}")
    assert not broken


def test_the_drawing_of_the_states_is_the_table() -> None:
    from proposals.states import as_mermaid

    text = (ROOT / "docs" / "architecture.md").read_text()
    drawings = re.findall(r"```mermaid\n(stateDiagram.*?)```", text, re.DOTALL)
    assert drawings == [as_mermaid()], (
        "docs/architecture.md is not what states.py says: paste states.as_mermaid() into it"
    )


def test_the_map_of_the_runner_names_every_file_of_it_once() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    part = text.partition("## The runner, file by file")[2].partition("\n## ")[0]
    named, folder = [], ""
    for row in re.findall(r"^\|(.*)\|([^|]*)\|$", part, re.MULTILINE):
        files = re.findall(r"`(\w+\.py)`", row[1])
        if files:
            folder = row[0].partition("|")[0].strip(" `") or folder  # an empty cell: as above
        named += [folder + file for file in files]
    runner = ROOT / "runner"
    there = [p.relative_to(runner) for p in runner.rglob("*.py") if p.name != "__init__.py"]
    elsewhere = {"arms", "tasks"}  # described above as folders
    expected = sorted(str(p) for p in there if p.parts[0] not in elsewhere)
    assert sorted(named) == expected, "name each file once in docs/architecture.md, file by file"
