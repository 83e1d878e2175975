"""Where a peer stands, in words and as JSON."""

from typing import Any

from btard.cli.status_measures import Status
from btard.identity import short
from btard.rules.evidence import Departure, DepartureKind


def describe_status(status: Status, links: int | None) -> dict[str, Any]:
    """Return the status as JSON values; peers and digests are in hex, what is not known yet is null."""
    seal = status.seal
    return {
        "run": status.config.run_id.hex(),
        "peer": status.peer.hex(),
        "role": status.role,
        "running": status.is_running,
        "reason": (status.ending[1] or None) if status.ending else None,
        "round": seal.round if seal else None,
        "rounds": status.config.rounds,
        "roster_size": len(status.roster),
        "roster": [peer.hex() for peer in status.roster],
        "bans": [_describe(item) for item in status.departures if item.kind is DepartureKind.BAN],
        "departures": [_describe(item) for item in status.departures if item.kind is not DepartureKind.BAN],
        "state": seal.state.hex() if seal else None,
        "peers_reachable": links,
    }


def _describe(item: Departure) -> dict[str, Any]:
    return {"peer": item.peer.hex(), "round": item.round, "kind": item.kind.value, "cause": item.cause.value}


def format_status(status: Status, links: int | None) -> str:
    """Return the status in words."""
    running = "running" if status.is_running else "not running"
    lines = [f"run {short(status.config.run_id)}, peer {short(status.peer)}: {status.role}, {running}"]
    if status.ending is not None and status.ending[1]:
        lines.append(f"  {status.ending[1]}")
    if status.seal is None:
        return "\n".join([*lines, "  training has not begun"])
    others = "" if links is None else f"; links to {links} of the others"
    names = ", ".join(short(peer) for peer in status.roster)
    left = (
        f"  round {item.round}: {item.kind} of {short(item.peer)}, cause: {item.cause}" for item in status.departures
    )
    lines += [
        f"  round {status.seal.round} of {status.config.rounds} is done, state {status.seal.state.hex()}",
        f"  {len(status.roster)} members: {names}{others}",
        *left,
    ]
    return "\n".join(lines)
