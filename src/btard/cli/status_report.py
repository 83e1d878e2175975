"""Where a peer stands, in words and as JSON."""

from dataclasses import asdict
from typing import Any

from btard.cli.status_measures import Status
from btard.identity import short
from btard.rules.evidence import Departure, DepartureKind
from btard.rules.seal import Seal
from btard.wire import compute_seal_digest


def describe_status(status: Status, links: int | None, ticket: str | None = None) -> dict[str, Any]:
    """Return the status as JSON values; peers and digests are in hex, what is not known yet is null."""
    seal = status.newest
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
        "candidates": [
            {"peer": item.peer.hex(), "since": item.since, "worked": item.worked}
            for item in (seal.candidates if seal else ())
        ],
        "bans": [_describe(item) for item in status.departures if item.kind is DepartureKind.BAN],
        "departures": [_describe(item) for item in status.departures if item.kind is not DepartureKind.BAN],
        "state": seal.state.hex() if seal else None,
        "peers_reachable": links,
        "work": asdict(status.work) if status.work else None,
        "signed_round": status.signed.round if status.signed else None,
        "signed_seal": compute_seal_digest(status.signed).hex() if status.signed else None,
        "ticket": ticket,
    }


def _describe(item: Departure) -> dict[str, Any]:
    return {"peer": item.peer.hex(), "round": item.round, "kind": item.kind.value, "cause": item.cause.value}


def format_status(status: Status, links: int | None, ticket: str | None = None) -> str:
    """Return the status in words."""
    running = "running" if status.is_running else "not running"
    lines = [f"run {short(status.config.run_id)}, peer {short(status.peer)}: {status.role}, {running}"]
    if status.ending is not None and status.ending[1]:
        lines.append(f"  {status.ending[1]}")
    if status.seal is None:
        lines.append(f"  {_describe_way_in(status)}")
    if (seal := status.newest) is None:
        return "\n".join(lines)
    others = "" if links is None else f"; links to {links} of the others"
    names = ", ".join(short(peer) for peer in status.roster)
    left = (
        f"  round {item.round}: {item.kind} of {short(item.peer)}, cause: {item.cause}" for item in status.departures
    )
    lines += [
        f"  round {seal.round} of {status.config.rounds} is done, state {seal.state.hex()}",
        f"  {len(status.roster)} members: {names}{others}",
        *_describe_candidates(status, seal),
        *left,
        *_describe_invitation(status, ticket),
    ]
    return "\n".join(lines)


def _describe_way_in(status: Status) -> str:
    """Return how far somebody is who is no member yet."""
    if status.work is None:
        return "training has not begun"
    if status.probation is not None:
        return f"on probation: {status.probation.worked} of {status.config.probation} rounds worked"
    done = f"{status.work.evaluations:,} evaluations of its ticket done"
    if status.work.ticket_round is None:
        return f"the run goes on without it; {done}"
    return f"{done}, and one found on round {status.work.ticket_round}: it asks for a place"


def _describe_candidates(status: Status, seal: Seal) -> list[str]:
    words = [f"{short(item.peer)} (since round {item.since}, worked {item.worked})" for item in seal.candidates]
    needed = status.config.probation
    return [f"  {len(words)} candidates of {needed} rounds of probation: {', '.join(words)}"] if words else []


def _describe_invitation(status: Status, ticket: str | None) -> list[str]:
    if status.signed is None:
        return []
    seal = f"  newest signed seal: {compute_seal_digest(status.signed).hex()} (round {status.signed.round})"
    return [seal] if ticket is None else [seal, "  a ticket through it, for whoever joins now:", ticket]
