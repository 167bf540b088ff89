"""Findings as SARIF 2.1.0, for tools that show findings beside code.

Made from a report's plain data, so that a stored one of long ago gives the same file. A check that
could not look, or was skipped, is a failed or unfinished run there, never an empty clean one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
LEVELS = {"error": "error", "warning": "warning", "note": "note"}
UNFINISHED = {"could_not_look", "skipped"}


def document(report: Mapping[str, Any]) -> dict[str, Any]:
    """A report's findings as one SARIF run; an empty report is a run that did not succeed."""
    checks = report.get("checks") or []
    found = [(check["name"], finding) for check in checks for finding in check["findings"]]
    rules: dict[str, dict[str, Any]] = {}
    for check, finding in found:
        rules.setdefault(_rule_id(check, finding), _rule(check, finding))
    order = {identity: index for index, identity in enumerate(rules)}
    unfinished = list(_notes(checks))
    run: dict[str, Any] = {
        "tool": {
            "driver": {
                "name": "escapement",
                "rules": list(rules.values()),
            }
        },
        "invocations": [
            {
                "executionSuccessful": bool(checks) and not unfinished,
                "toolExecutionNotifications": unfinished,
            }
        ],
        "columnKind": "unicodeCodePoints",
        "results": [_result(check, finding, order) for check, finding in found],
        "properties": {
            name: report.get(name, "") for name in ("mechanism", "digest", "outcome", "image_id")
        },
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def text(report: Mapping[str, Any]) -> str:
    """The document as a file."""
    return json.dumps(document(report), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _rule_id(check: str, finding: Mapping[str, Any]) -> str:
    return f"{check}/{finding['rule']}"


def _rule(check: str, finding: Mapping[str, Any]) -> dict[str, Any]:
    rule: dict[str, Any] = {"id": _rule_id(check, finding), "name": finding["rule"]}
    if finding.get("why"):
        rule["fullDescription"] = {"text": finding["why"]}
        rule["help"] = {"text": finding["why"]}
    return rule


def _result(check: str, finding: Mapping[str, Any], order: Mapping[str, int]) -> dict[str, Any]:
    identity = _rule_id(check, finding)
    result: dict[str, Any] = {
        "ruleId": identity,
        "ruleIndex": order[identity],
        "level": LEVELS.get(finding["severity"], "error"),
        "message": {"text": finding["message"] or finding["rule"]},
    }
    if finding.get("path"):
        place: dict[str, Any] = {
            "artifactLocation": {"uri": quote(finding["path"]), "uriBaseId": "%SRCROOT%"}
        }
        if finding.get("line"):
            place["region"] = {"startLine": finding["line"]}
        result["locations"] = [{"physicalLocation": place}]
    return result


def _notes(checks: list[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for check in checks:
        if check["outcome"] in UNFINISHED:
            words = str(check["outcome"]).replace("_", " ")
            level = "error" if check["outcome"] == "could_not_look" else "warning"
            yield {"level": level, "message": {"text": f"the check {check['name']}: {words}"}}
