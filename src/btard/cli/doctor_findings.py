"""What a doctor says: one line per check, with a verdict, what was measured, and what to do."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

CHECK_WIDTH = 12
INDENT = " " * (4 + 2 + CHECK_WIDTH + 2)


class Verdict(StrEnum):
    """How a check ended."""

    PASS = "pass"
    WARN = "warn"
    """Training may work; what was measured makes trouble sooner or later, or could not be measured."""
    FAIL = "fail"
    """``join`` would fail, or the swarm would soon go on without us."""


@dataclass(frozen=True)
class Finding:
    """One line. ``remedy`` says what to do, in words or as a command; empty only where all is well."""

    check: str
    verdict: Verdict
    measured: str
    remedy: str = ""


def passed(check: str, measured: str) -> Finding:
    """Return a check that all is well with."""
    return Finding(check, Verdict.PASS, measured)


def warned(check: str, measured: str, remedy: str) -> Finding:
    """Return a check that may lead to trouble."""
    return Finding(check, Verdict.WARN, measured, remedy)


def failed(check: str, measured: str, remedy: str) -> Finding:
    """Return a check that must be mended first."""
    return Finding(check, Verdict.FAIL, measured, remedy)


def is_well(findings: Sequence[Finding]) -> bool:
    """Return whether nothing failed."""
    return all(item.verdict is not Verdict.FAIL for item in findings)


def format_finding(finding: Finding) -> str:
    """Return the line for people, and a second one with what to do, if anything."""
    line = f"{finding.verdict}  {finding.check.ljust(CHECK_WIDTH)}  {clean(finding.measured)}"
    return f"{line}\n{INDENT}-> {clean(finding.remedy)}" if finding.remedy else line


def summarise(findings: Sequence[Finding]) -> str:
    """Return the last line for people."""
    counts = {verdict: sum(item.verdict is verdict for item in findings) for verdict in Verdict}
    return f"{counts[Verdict.PASS]} pass, {counts[Verdict.WARN]} warn, {counts[Verdict.FAIL]} fail"


def describe_findings(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return all lines as JSON values."""
    checks = [
        {"check": item.check, "verdict": item.verdict.value, "measured": item.measured, "remedy": item.remedy}
        for item in findings
    ]
    return {"ok": is_well(findings), "checks": checks}


def clean(text: str) -> str:
    """Return ``text`` without what could move a terminal's cursor: other peers' words are in it."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def format_seconds(seconds: float) -> str:
    """Return a duration as people read it."""
    if abs(seconds) < 0.01:
        return f"{1000 * seconds:.1f} ms"
    return f"{1000 * seconds:.0f} ms" if abs(seconds) < 1 else f"{seconds:.1f} s"


def format_bytes(count: float) -> str:
    """Return a size as people read it."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
