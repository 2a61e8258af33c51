"""An audit's findings for others: Markdown for people, SARIF 2.1.0 for code scanners.

Pure. A finding comes with its place, when it was read from files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sixfold.trust.audit import RULES
from sixfold.trust.audit_finding import Finding

LEVELS = {"critical": "error", "high": "error", "medium": "warning", "low": "note"}
SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


@dataclass(frozen=True, slots=True)
class Placed:
    """A finding, and where in the files it is; "" when it was no file."""

    finding: Finding
    file: str = ""
    line: int = 0
    path: str = ""

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}" if self.file else str(self.finding.about)


def structured(one: Placed) -> dict[str, Any]:
    found = one.finding
    place = {"file": one.file, "line": one.line} if one.file else {}
    return {
        "rule": found.rule,
        "severity": found.severity,
        "about": str(found.about),
        **place,
        "path": one.path,
        "message": found.message,
        "evidence": found.evidence,
        "fix": found.fix,
    }


def markdown(placed: Sequence[Placed]) -> str:
    """A section for each rule that found something."""
    lines = ["# Audit", "", f"{len(placed)} findings."]
    for rule in RULES:
        of_rule = [one for one in placed if one.finding.rule == rule.number]
        if not of_rule:
            continue
        lines += ["", f"## {rule.number} {rule.title} ({rule.severity})"]
        for one in of_rule:
            found = one.finding
            at = f" ({one.where})" if one.file else ""
            lines += ["", f"**{found.about}**{at}: {found.message}.", ""]
            lines += [f"- Evidence: {found.evidence}", *_fix(found.fix)]
    return "\n".join((*lines, ""))


def _fix(text: str) -> Iterable[str]:
    if "\n" not in text:
        return (f"- Fix: {text}",)
    return ("- Fix:", "", "```yaml", text, "```")


def sarif(placed: Sequence[Placed], version: str) -> dict[str, Any]:
    rules = [
        {
            "id": rule.number,
            "shortDescription": {"text": rule.title},
            "defaultConfiguration": {"level": LEVELS[rule.severity]},
        }
        for rule in RULES
    ]
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "sixfold audit",
                        "version": version,
                        "rules": rules,
                    }
                },
                "results": [_result(one) for one in placed],
            }
        ],
    }


def _result(one: Placed) -> dict[str, Any]:
    found = one.finding
    location: dict[str, Any] = {
        "logicalLocations": [{"fullyQualifiedName": str(found.about), "kind": found.about.kind}]
    }
    if one.file:
        location["physicalLocation"] = {
            "artifactLocation": {"uri": one.file},
            "region": {"startLine": max(1, one.line)},
        }
    text = f"{found.about}: {found.message}. Evidence: {found.evidence}. Fix: {found.fix}"
    return {
        "ruleId": found.rule,
        "ruleIndex": [rule.number for rule in RULES].index(found.rule),
        "level": LEVELS[found.severity],
        "message": {"text": text},
        "locations": [location],
    }
