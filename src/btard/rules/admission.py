"""
Who may join, decided by all members alike from what COMMITs quote (design section 6; attacks B8, B10).

Strangers and candidates say nothing in transcripts: members quote them. What more than f members quote, at least one
honest member has verified, or was told by the candidate itself.

Rules of this file

1. A ticket counts if more than f members quote it. Of those that count the lowest H(q, ticket) are admitted:
   more work buys more lots, and shuts nobody out.
2. At most ⌈n/4⌉ are on probation, and at most max(1, n/16) are admitted in an epoch: nothing that strangers do
   costs the swarm more than their checks.
3. A candidate worked in a round if more than f members quote one and the same sample of it. Whoever has worked
   T rounds, the last one among them, is a member from the next round on; one at a time.
4. Whoever has not made it in twice that time, and an epoch, lapses.
5. A run that has banned very many admits nobody any more: ban lists only grow, and every seal carries them.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from struct import pack

from btard.identity import Context, JoinTicket, PeerId, digest
from btard.rules.config import MAX_MEMBERS, RunConfig
from btard.rules.difficulty import adjust_ticket_bits
from btard.rules.draws import draw_member, draw_share
from btard.rules.messages import Commit, Report, Transcript
from btard.rules.roster import Roster
from btard.rules.sampling import is_sample
from btard.rules.seal import Candidate, Seal


@dataclass(frozen=True)
class Work:
    """A candidate's sample of its gradient in a round, as more than f members quote it."""

    candidate: PeerId
    round: int
    report: Report


@dataclass(frozen=True)
class Check:
    """A work that a member was drawn to redo."""

    checker: PeerId
    work: Work


@dataclass(frozen=True)
class Admission:
    """Who is on probation after a round, who becomes a member by it, and how many the epoch has admitted."""

    candidates: tuple[Candidate, ...]
    promoted: tuple[PeerId, ...]
    admitted: int
    ticket_bits: int


MAX_BANNED = 2048
"""Bans at which a run closes. Whoever is a member or candidate then may still be banned, fewer than 2 ``MAX_ROSTER``: a
seal with so many bans more, of 34 bytes each, fits what carries it; so does a place, with three lists and all marks."""


def count_places(roster: Roster) -> int:
    """Return how many may be on probation at the same time: all of them could become members."""
    return max(0, min(-(-len(roster) // 4), MAX_MEMBERS - len(roster)))


def count_admissions(roster: Roster) -> int:
    """Return how many an epoch admits."""
    return max(1, len(roster) // 16)


def find_closure(config: RunConfig, seal: Seal | None) -> str:
    """Return why a run admits nobody after a seal, now or ever; empty if it may. Without a seal it has just begun."""
    if config.admission != "open":
        return "this run admits nobody after its genesis"
    if seal is not None and len(seal.banned) >= MAX_BANNED:
        return f"this run admits nobody any more: it has banned {len(seal.banned)} peers"
    return ""


def is_open(config: RunConfig, seal: Seal) -> bool:
    """Return whether the round after a seal admits anybody: only then are tickets quoted."""
    roster = Roster(tuple(PeerId(peer) for peer in seal.roster))
    admitted = 0 if _begins_epoch(config, seal.round + 1) else seal.admitted
    free = len(seal.candidates) < count_places(roster) and admitted < count_admissions(roster)
    return free and not find_closure(config, seal)


def _begins_epoch(config: RunConfig, round_number: int) -> bool:
    return round_number % config.state_interval == 0


def rank_ticket(q: bytes, ticket: JoinTicket) -> bytes:
    """Return the lot of a ticket in the draw that ``q`` is; the lowest are admitted first."""
    numbers = pack("<QQQ", ticket.round, ticket.identity_nonce, ticket.nonce)
    return digest(Context.LOT, q, ticket.peer, numbers)


def choose_quoted(q: bytes, tickets: Collection[JoinTicket], count: int) -> tuple[JoinTicket, ...]:
    """Return the tickets that a member quotes of all that it has verified."""
    return tuple(sorted(tickets, key=lambda ticket: rank_ticket(q, ticket))[:count])


def _read_commits(commits: Transcript) -> Sequence[Commit]:
    return [message.payload for message in commits.messages if isinstance(message.payload, Commit)]


def find_works(config: RunConfig, seal: Seal, commits: Transcript, roster: Roster) -> tuple[Work, ...]:
    """Return what candidates did in the round before that of ``commits``, in order of their ids."""
    tolerated = roster.tolerated(config.byzantine_bound)
    counts: dict[bytes, Counter[Report]] = {}
    for commit in _read_commits(commits):
        for sample in {item.candidate: item for item in commit.quotes.samples}.values():
            counts.setdefault(sample.candidate, Counter())[sample.report] += 1
    works = []
    for candidate in seal.candidates:
        quoted = counts.get(candidate.peer, Counter())
        agreed = [report for report, count in quoted.items() if count > tolerated and is_sample(config, report)]
        if len(agreed) == 1:
            works.append(Work(PeerId(candidate.peer), seal.round, agreed[0]))
    return tuple(sorted(works, key=lambda work: work.candidate))


def draw_checks(config: RunConfig, q: bytes, roster: Roster, works: Sequence[Work]) -> tuple[Check, ...]:
    """Return who redoes which of the works: each with the probability ``check_rate``, by one member of the roster."""
    return tuple(
        Check(draw_member(q, b"checker", work.candidate, roster), work)
        for work in works
        if draw_share(q, b"checked", work.candidate) < config.check_rate
    )


def decide_admission(
    config: RunConfig,
    seal: Seal,
    commits: Transcript,
    roster: Roster,
    gone: Collection[PeerId],
    works: Sequence[Work],
) -> Admission:
    """Return what a round's COMMITs lead to; ``seal`` is that of the round before, ``gone`` are banned or dismissed."""
    number = seal.round + 1
    starts = _begins_epoch(config, number)
    admitted = 0 if starts else seal.admitted
    places = count_admissions(roster)
    bits = adjust_ticket_bits(config, seal.ticket_bits, seal.admitted, places) if starts else seal.ticket_bits
    worked = {work.candidate for work in works}
    staying = [_advance(item, worked) for item in seal.candidates if _stays(config, item, number, gone)]
    ready = [item for item in staying if item.worked >= config.probation and item.peer in worked]
    ready = ready if number < config.rounds else []
    promoted = sorted(ready, key=lambda item: (item.since, item.peer))[:1]
    candidates = [item for item in staying if item not in promoted]
    tickets = _admit(config, seal, commits, roster, {*gone, *roster.members, *(item.peer for item in staying)})
    free = max(0, min(count_places(roster) - len(candidates), places - admitted))
    new = [Candidate(ticket.peer, number, 0) for ticket in tickets[:free]] if not find_closure(config, seal) else []
    return Admission(
        tuple(sorted([*candidates, *new], key=lambda item: item.peer)),
        tuple(PeerId(item.peer) for item in promoted),
        admitted + len(new),
        bits,
    )


def _stays(config: RunConfig, item: Candidate, number: int, gone: Collection[PeerId]) -> bool:
    patience = 2 * config.probation + config.state_interval
    return item.peer not in gone and number - item.since <= patience


def _advance(item: Candidate, worked: Collection[PeerId]) -> Candidate:
    return Candidate(item.peer, item.since, item.worked + (item.peer in worked))


def _admit(
    config: RunConfig, seal: Seal, commits: Transcript, roster: Roster, excluded: Collection[bytes]
) -> list[JoinTicket]:
    """The tickets that count, one per key, best lots first."""
    tolerated = roster.tolerated(config.byzantine_bound)
    counts = Counter(ticket for commit in _read_commits(commits) for ticket in set(commit.quotes.tickets))
    valid = [ticket for ticket, count in counts.items() if count > tolerated and ticket.peer not in excluded]
    best: dict[bytes, JoinTicket] = {}
    for ticket in sorted(valid, key=lambda item: rank_ticket(seal.q, item)):
        best.setdefault(ticket.peer, ticket)
    return list(best.values())


def compute_skipping_odds(check_rate: float, probation: int, members: int, tolerated: int) -> float:
    """Return how likely a candidate that never works comes through probation: every check falls to a cheat or to none.

    (1 - r (n-f)/n)^T; a candidate that skips a share s of its rounds: s r for r.
    """
    return float((1 - check_rate * (members - tolerated) / members) ** probation)


def find_newcomers(before: Seal, after: Seal) -> tuple[PeerId, ...]:
    """Return who is a member by the later of two seals that follow each other, and was not before."""
    return tuple(PeerId(peer) for peer in after.roster if peer not in before.roster)
