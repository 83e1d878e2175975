"""How far strangers came, as the seals in a member's ledger have it: they are not asked themselves."""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from btard.cli.demo_judgement import NewcomerReport
from btard.cli.demo_story import Account, Story
from btard.rules.seal import Seal
from btard.wire import decode_seal


@dataclass(frozen=True)
class Way:
    """What a run made of one stranger, in rounds: on probation since, a member from, on probation no more by.

    ``lapsed_in`` is set where a probation ended and no membership followed.
    """

    joined_in: int | None = None
    promoted_in: int | None = None
    lapsed_in: int | None = None


def read_ways(ledgers: Sequence[Path]) -> Mapping[str, Way]:
    """Return the way of every stranger by its id, as the ledger has it that knows the most rounds."""
    known = [read_seals(path) for path in ledgers]
    longest: list[Seal] = max(known, key=len, default=[])
    return trace_ways(longest)


def read_seals(path: Path) -> list[Seal]:
    """Return all seals of a ledger that nobody writes any more; none where there is no ledger."""
    if not path.is_file():
        return []
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
        return [decode_seal(row[0]) for row in database.execute("SELECT seal FROM seals ORDER BY round")]


def trace_ways(seals: Iterable[Seal]) -> Mapping[str, Way]:
    """Return the way of everybody who was not there from the first of ``seals`` on; of two probations the last."""
    founders: set[bytes] | None = None
    ways: dict[str, Way] = {}
    for seal in seals:
        founders = set(seal.roster) if founders is None else founders
        since = {item.peer.hex(): item.since for item in seal.candidates}
        ways |= {peer: Way(joined_in=number) for peer, number in since.items()}
        for peer in (member.hex() for member in seal.roster if member not in founders):
            way = ways.get(peer, Way())
            if way.promoted_in is None:
                ways[peer] = Way(way.joined_in, promoted_in=seal.round + 1)
        for peer, way in ways.items():
            if way.promoted_in is None and way.lapsed_in is None and peer not in since:
                ways[peer] = Way(way.joined_in, lapsed_in=seal.round)
    return ways


def report_newcomers(story: Story, ways: Mapping[str, Way], *, is_sybil: bool) -> list[NewcomerReport]:
    """Return what became of the late joiners, or of the Sybils, in the order of their coming."""
    chosen = [account for account in story.strangers if (account.player.attack is not None) == is_sybil]
    return [_report_newcomer(story, account, ways.get(account.player.peer, Way())) for account in chosen]


def _report_newcomer(story: Story, account: Account, way: Way) -> NewcomerReport:
    player = account.player
    assert player.comes_after is not None
    why, when = (None, None) if way.promoted_in is not None else explain_rejection(story, player.peer, way)
    return NewcomerReport(
        id=player.peer,
        comes_after_round=player.comes_after,
        joined_in_round=way.joined_in,
        promoted_in_round=way.promoted_in,
        rejected=why,
        rejected_in_round=when,
        ended=account.state,
        state=account.finished["state"] if account.finished else None,
        ledger=str(player.ledger),
    )


def explain_rejection(story: Story, peer: str, way: Way) -> tuple[str, int | None]:
    """Return why a stranger did not become a member, and in which round, if in one."""
    for kind, verb in (("ban", "banned"), ("removal", "removed")):
        departure = story.first_departure(peer, kind)
        if departure is not None:
            return f"{verb}: {departure.cause}", departure.round
    if way.lapsed_in is not None:
        return "lapsed, without blame", way.lapsed_in
    return ("never admitted" if way.joined_in is None else "still on probation at the end"), None
