"""SARIF against the structure of the public schema, as `sarif_om` was generated from it.

That package has every object of SARIF 2.1.0 as a class: its attributes are the properties that may
be there, those without a default the ones that must be. (The schema's own file is in no package.)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import attrs
import pytest
import sarif_om

from sandbox import sarif
from sandbox.__main__ import main

SPECIMENS = Path(__file__).parent / "specimens"
# Which object is behind a property; what is not named here is text, a number or free properties.
OBJECTS = {
    "runs": "Run",
    "tool": "Tool",
    "driver": "ToolComponent",
    "rules": "ReportingDescriptor",
    "defaultConfiguration": "ReportingConfiguration",
    "shortDescription": "MultiformatMessageString",
    "fullDescription": "MultiformatMessageString",
    "help": "MultiformatMessageString",
    "invocations": "Invocation",
    "toolExecutionNotifications": "Notification",
    "message": "Message",
    "results": "Result",
    "locations": "Location",
    "physicalLocation": "PhysicalLocation",
    "artifactLocation": "ArtifactLocation",
    "region": "Region",
}
LEVELS = {"none", "note", "warning", "error"}


def attributes(kind: str) -> dict[str, bool]:
    """Properties of an object of SARIF, and whether each has to be there."""
    found = attrs.fields(getattr(sarif_om, kind))
    return {a.metadata["schema_property_name"]: a.default is attrs.NOTHING for a in found}


def problems(value: Any, kind: str, place: str) -> list[str]:
    """What the schema would refuse."""
    if not isinstance(value, dict):
        return [f"{place} is no object"]
    known = attributes(kind)
    wrong = [f"{place}.{name} is unknown" for name in value.keys() - known.keys()]
    wrong += [f"{place} has no {n}" for n, needed in known.items() if needed and n not in value]
    if value.get("level", "none") not in LEVELS:
        wrong.append(f"{place}.level is {value['level']!r}")
    for name, inner in value.items():
        if name in OBJECTS:
            many = inner if isinstance(inner, list) else [inner]
            for number, one in enumerate(many):
                wrong += problems(one, OBJECTS[name], f"{place}.{name}[{number}]")
    return wrong


def checked(document: dict[str, Any]) -> dict[str, Any]:
    """The one run of a document that holds together."""
    assert problems(document, "SarifLog", "log") == []
    (run,) = document["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert len({r["id"] for r in rules}) == len(rules)
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["message"]["text"]
        for location in result.get("locations", []):
            physical = location["physicalLocation"]
            assert not unquote(physical["artifactLocation"]["uri"]).startswith("/")
            assert physical.get("region", {"startLine": 1})["startLine"] >= 1
    return dict(run)


@pytest.mark.parametrize(
    "name", ["tcp", "os_system", "rot13", "syntax_error", "homoglyph", "nosec_eval"]
)
def test_what_the_static_checks_find_is_valid_and_says_why(name: str, tmp_path: Path) -> None:
    path = SPECIMENS / "hostile" / f"{name}.py"
    out = tmp_path / "found.sarif"
    assert main(["--quiet", "screen", str(path), "--sarif", str(out)]) == 1
    run = checked(json.loads(out.read_text(encoding="utf-8")))
    assert any(r["level"] == "error" for r in run["results"])
    rules = {r["id"]: r for r in run["tool"]["driver"]["rules"]}
    for result in run["results"]:
        assert rules[result["ruleId"]]["help"]["text"], "each finding says why it matters"
        for place in result.get("locations", []):
            uri = place["physicalLocation"]["artifactLocation"]["uri"]
            assert uri == f"mechanisms/{name}.py"
    assert any(r["level"] == "error" and r["locations"] for r in run["results"])


def test_an_empty_report_and_one_of_long_ago_are_valid_too() -> None:
    checked(sarif.document({}))
    finding = {"rule": "r", "severity": "odd", "message": "", "path": "a b/ä.py", "line": 3}
    check = {"name": "imports", "outcome": "could_not_look", "findings": [finding]}
    run = checked(sarif.document({"checks": [check]}))
    assert run["invocations"][0]["executionSuccessful"] is False


def test_the_check_itself_sees_what_is_wrong() -> None:
    document = sarif.document({})
    document["runs"][0]["extra"] = 1
    del document["runs"][0]["tool"]["driver"]["name"]
    found = problems(document, "SarifLog", "log")
    assert found == [
        "log.runs[0].extra is unknown",
        "log.runs[0].tool[0].driver[0] has no name",
    ]
