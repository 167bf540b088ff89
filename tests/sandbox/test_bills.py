"""SARIF and the bill of materials: valid by their schemas, the same bytes for the same input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from sandbox import image, sarif, sbom
from sandbox.__main__ import main
from sandbox.report import CheckResult, Finding, Outcome, Report, Severity


def report(*checks: CheckResult) -> dict[str, Any]:
    return Report(
        mechanism="a", digest="d", checks=checks, image_id="i", posture={}, versions={}
    ).to_data()


def finding(**more: Any) -> Finding:
    values = {"check": "imports", "rule": "r", "severity": Severity.ERROR, "message": "m"}
    return Finding(**{**values, **more})


def run_of(*checks: CheckResult) -> dict[str, Any]:
    document = sarif.document(report(*checks))
    assert document["version"] == "2.1.0"
    run: dict[str, Any] = document["runs"][0]
    return run


def test_sarif_has_every_finding_with_its_rule_and_place() -> None:
    findings = (
        finding(path="mechanisms/a.py", line=7, why="because"),
        finding(severity=Severity.WARNING, rule="s", path="tests/test_a.py"),
        finding(severity=Severity.NOTE, message=""),
    )
    run = run_of(CheckResult(name="imports", outcome=Outcome.FAILED, findings=findings))
    rules = run["tool"]["driver"]["rules"]
    assert [r["id"] for r in rules] == ["imports/r", "imports/s"]
    assert rules[0]["help"]["text"] == "because"
    assert [r["level"] for r in run["results"]] == ["error", "warning", "note"]
    assert [rules[r["ruleIndex"]]["id"] for r in run["results"]] == [
        r["ruleId"] for r in run["results"]
    ]
    place = run["results"][0]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "mechanisms/a.py"
    assert place["region"] == {"startLine": 7}
    assert "region" not in run["results"][1]["locations"][0]["physicalLocation"]
    assert "locations" not in run["results"][2]
    assert run["results"][2]["message"]["text"] == "r"
    assert run["invocations"][0]["executionSuccessful"] is True


@pytest.mark.parametrize("outcome", [Outcome.COULD_NOT_LOOK, Outcome.SKIPPED])
def test_what_nobody_looked_at_is_no_clean_run(outcome: Outcome) -> None:
    run = run_of(CheckResult(name="bandit", outcome=outcome))
    assert run["invocations"][0]["executionSuccessful"] is False
    assert "bandit" in run["invocations"][0]["toolExecutionNotifications"][0]["message"]["text"]
    assert sarif.document({})["runs"][0]["invocations"][0]["executionSuccessful"] is False


def test_bill_is_valid_and_the_same_for_the_same_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    text = sbom.text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    sbom._write.cache_clear()
    assert sbom.text() == text
    bill = json.loads(text)
    components = {c["name"]: c for c in bill["components"]}
    pins = dict(pin.split("==") for pin in image.pins())
    assert {n: components[n]["version"] for n in pins} == pins
    assert components["numpy"]["purl"] == f"pkg:pypi/numpy@{pins['numpy']}"
    assert components["pytest"]["licenses"] == [{"license": {"id": "MIT"}}]
    worker = image.inputs()["sandbox/worker.py"]
    assert components["sandbox/worker.py"]["hashes"][0]["content"] == image.digest(worker)
    assert bill["metadata"]["component"]["version"] == image.tag().split(":")[1]
    monkeypatch.setattr(image, "sys", type("S", (), {"version": "3.11.0 (x)"}))
    assert sbom.digest() != sbom.digest_of(sbom.canonical(bill))


def test_a_licence_of_another_version_is_not_claimed() -> None:
    assert sbom.licence("numpy", "0.0.1") == ""
    assert sbom.licence("no-such-package", "1") == ""
    bill = sbom.document(["numpy==0.0.1"])
    (numpy,) = [c for c in bill["components"] if c["name"] == "numpy"]
    assert "licenses" not in numpy


def test_commands_write_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bill, findings = tmp_path / "bill.json", tmp_path / "findings.sarif"
    assert main(["sbom", "--out", str(bill)]) == 0
    assert main(["sbom"]) == 0
    assert capsys.readouterr().out == bill.read_text() == sbom.text()
    empty = tmp_path / "empty.py"
    empty.write_text("")
    assert main(["--quiet", "screen", str(empty), "--sarif", str(findings)]) == 1
    (run,) = json.loads(findings.read_text())["runs"]
    assert run["results"][0]["ruleId"] == "draft/empty"
    assert run["invocations"][0]["executionSuccessful"] is False
    assert main(["sbom", "--out", str(tmp_path / "no/where")]) == 2
    assert "can't be written" in " ".join(capsys.readouterr().err.split())
