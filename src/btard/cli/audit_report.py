"""The result of an audit, in words and as JSON."""

from pathlib import Path
from typing import Any

from btard.swarm.audit import AuditResult


def describe(result: AuditResult) -> dict[str, Any]:
    """Return the result as JSON values."""
    return {
        "ok": result.ok,
        "seals": result.seals,
        "bans": result.bans,
        "removals": result.removals,
        "evidence_checked": result.evidence_checked,
        "self_contained": result.self_contained,
        "by_majority": result.by_majority,
        "problems": list(result.problems),
        "notes": list(result.notes),
    }


def format_audit(path: Path, result: AuditResult) -> str:
    """Return the result in words: what was checked, then what is wrong."""
    standing = f"{result.self_contained} convict by themselves, {result.by_majority} by the votes of a majority"
    lines = [
        f"{path}: {'ok' if result.ok else 'NOT OK'}",
        f"  {result.seals} seals, {result.bans} bans, {result.removals} removals",
        f"  {result.evidence_checked} proofs checked: {standing}",
        *(f"  note: {note}" for note in result.notes),
        *(f"  PROBLEM: {problem}" for problem in result.problems),
    ]
    return "\n".join(lines)
