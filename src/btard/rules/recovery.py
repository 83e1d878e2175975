"""
How a halted round goes on: agreed views decide, never one member's opinion (attacks A5, A6, A8).

A recovery belongs to an attempt and a serial. Every member broadcasts one view of what it holds,
then casts one ballot for (who sent no view, the digest of the views). The ballots of every member
outside the silent, and of more than half of the roster, are a certificate; what follows is a pure
function of the views it names, so whoever holds the certificate draws the same conclusion. Where no
certificate forms rules/agreement.py settles which views are agreed.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from btard.identity import Context, PeerId, digest
from btard.rules.evidence import SignedHeader
from btard.rules.marks import Marks, Pair, make_pair, sort_pairs
from btard.rules.messages import (
    MAX_EVIDENCE,
    MAX_MARKED,
    MAX_SHOWN,
    Ballot,
    Halt,
    Holding,
    Phase,
    SignedMessage,
    Stage,
    View,
)
from btard.rules.roster import Roster
from btard.rules.stages import find_later, is_ending, is_position, order_stage

_Claim = tuple[PeerId, bytes]

LARGEST = 128 * 1024
"""Bytes of the largest message of any phase: an ATTEST of 256 members about 256 complaints, with room."""
LARGEST_VIEW, ALL_VIEWS = LARGEST, (1 << 20) - LARGEST
"""Bytes of one view, and of all views of a settlement: with the votes they fit into one frame, up to 60 members."""
ID_COST, NUMBER_COST, SLACK = 34, 5, 768
"""Bytes of a digest or a key, of a pair's number, and of all else in a message."""


@dataclass(frozen=True)
class Decision:
    """What a recovery settles: who leaves, at which round the swarm resumes, the messages supplied, the pairs marked.

    ``removed`` failed the recovery or the stage that waits; ``overmarked`` have more than f marked partners.
    ``shown`` are the pairs that f+1 of the views called marked.
    ``agreed`` ends the attempt by the transcript that its AGREE confirms, where nobody leaves otherwise.
    """

    banned: tuple[PeerId, ...]
    removed: tuple[PeerId, ...]
    resume_round: int
    supplied: tuple[bytes, ...]
    marked: frozenset[Pair] = frozenset()
    overmarked: tuple[PeerId, ...] = ()
    agreed: bool = False
    shown: frozenset[Pair] = frozenset()

    @property
    def leaving(self) -> tuple[PeerId, ...]:
        """All who are no members from here on."""
        return (*self.banned, *self.removed, *self.overmarked)

    @property
    def changes_roster(self) -> bool:
        """Whether somebody leaves, so that a new attempt begins."""
        return bool(self.leaving)


@dataclass(frozen=True)
class Equivocation:
    """Two messages with different bytes for one slot: their sender is a cheat, whoever looks."""

    first: SignedHeader
    second: SignedHeader

    @property
    def culprit(self) -> PeerId:
        """Who signed both."""
        return self.first.sender

    @property
    def stage(self) -> Stage:
        """The stage in which it happened."""
        return self.first.slot.stage

    @property
    def order(self) -> tuple[bool, Stage]:
        """By which the earliest comes first, and those of recoveries, which have no round, last."""
        return self.stage.round == 0, self.stage


def is_equivocation(first: SignedHeader | SignedMessage, second: SignedHeader | SignedMessage) -> bool:
    """Return whether two verified messages, or their headers, fill one slot with different signed bytes.

    HELLO aside: it belongs to no ledger, and whoever starts twice before genesis says it twice.
    """
    return first.slot == second.slot and first.digest != second.digest and first.slot.stage.phase is not Phase.HELLO


def compute_largest(phase: Phase, members: int) -> int:
    """Return the bytes of the largest message that counts in a phase of a recovery among so many members.

    A HALT has room for all of them and for its proofs; a VIEW for a HALT, its own proofs and what is held, and no more
    than lets all views be told together: nobody's bulk keeps what was settled from being told.
    """
    proofs = MAX_EVIDENCE * (MAX_SHOWN + 3)
    halt = ID_COST * members + proofs + SLACK
    if phase is Phase.HALT:
        return halt
    least = halt + 2 * ID_COST * members + proofs + NUMBER_COST * min(MAX_MARKED, members**2 // 4) + SLACK
    return max(least, min(LARGEST_VIEW, ALL_VIEWS // max(1, members))) if phase is Phase.VIEW else LARGEST


def belongs(message: SignedMessage, roster: Roster, stage: Stage) -> bool:
    """Return whether a member said this in a stage of a recovery and to this roster: no other attempt's word counts.

    Nor does what is longer than anything that has to be said there.
    """
    is_ours = message.slot.stage == stage and message.sender in roster and message.roster == roster.digest
    return is_ours and len(message.envelope) <= compute_largest(stage.phase, len(roster))


def compute_views_digest(views: Mapping[PeerId, SignedMessage]) -> bytes:
    """Return the digest of a set of views, in roster order."""
    return digest(Context.VIEWS, *(views[peer].digest for peer in sorted(views)))


def find_certificate(
    roster: Roster, ballots: Mapping[PeerId, SignedMessage]
) -> tuple[tuple[PeerId, ...], bytes, tuple[SignedMessage, ...]] | None:
    """Return (silent, views digest, ballots) once every member outside the silent, and more than half, agree."""
    groups: dict[tuple[tuple[bytes, ...], bytes], list[SignedMessage]] = {}
    for peer in roster.members:
        if peer in ballots:
            ballot = ballots[peer].payload
            assert isinstance(ballot, Ballot)
            groups.setdefault((ballot.silent, ballot.views), []).append(ballots[peer])
    for (silent, views), votes in sorted(groups.items()):
        needed = [peer for peer in roster.members if peer not in silent]
        if len(needed) >= roster.majority and {vote.sender for vote in votes} >= set(needed):
            return tuple(PeerId(peer) for peer in silent), views, tuple(votes)
    return None


def decide(
    roster: Roster,
    views: Mapping[PeerId, View],
    equivocations: Sequence[Equivocation],
    tolerated: int,
    supplied: Collection[SignedMessage] = (),
    *,
    is_first: bool = True,
    unvoted: Collection[bytes] = (),
    split: Collection[bytes] = (),
    halts: Collection[SignedMessage] = (),
    attempt: int = 0,
) -> Decision:
    """Return what the agreed views settle; ``supplied`` are the messages in them, opened, ``halts`` the HALTs.

    The lowest stage of which a message is nowhere to be had resumes; what can be had is supplied
    first. A member is removed only for that stage, only if nobody supplies its message, at most f views
    claim to hold it (attacks C3) and more than f do not, only if at least f+1 agreed views say that the deadline had
    passed, and not while it is itself behind (attacks A6). Where somebody equivocated nobody
    is removed: members that were told different things wait in different stages. Where the views do not
    tell in which stage honest members are nobody leaves at all, for now.

    Only the first recovery of an attempt (``is_first``) excuses by what is supplied and by who is
    behind. Afterwards every member has had what it lacked and another deadline: a message that is
    still not held by f+1 does not count with them, and whoever is still behind stays there on purpose.
    Where nobody leaves then, each of the HALTs marks its sender with those it names (attacks B1): nobody halts the
    swarm for nothing more often than it has partners, and whoever has more than f marked ones leaves.

    ``unvoted`` showed a view and cast no vote, and leave, but not in the first one: who came to it late may have voted
    too late. ``split`` showed two of a kind, and are banned.
    Where nobody leaves and AGREE of ``attempt`` is complete, the attempt ends by it.
    """
    banned = tuple(sorted({item.culprit for item in equivocations if item.culprit in roster}))
    views = {peer: view for peer, view in views.items() if is_position(view.position.stage)}
    if not views:
        return Decision((), (), 0, ())
    envelopes = tuple(envelope for peer in sorted(views) for envelope in views[peer].supplied)
    marks, marked = _find_agreed_marks(roster, views, tolerated), frozenset[Pair]()
    nobody = Decision((), (), 0, envelopes, shown=marks.pairs)
    common = _find_stages(views, tolerated, attempt) or _find_within(views.values(), tolerated, attempt)
    stages = common or _find_boundary(views.values(), tolerated, attempt)
    if not stages:
        return nobody
    found = supplied if is_first else ()
    position, missing = _find_missing(roster, views, stages, tolerated, found, is_first=is_first)
    overdue = sum(view.overdue for view in views.values() if view.position.stage == position)
    late = missing if overdue >= tolerated + 1 and not banned else ()
    banned = tuple(peer for peer in roster.members if peer in {*banned, *split})
    removed = tuple(peer for peer in roster.members if peer in {*late, *(() if is_first else unvoted)} - {*banned})
    if not banned and not removed and not is_first:
        marked = _find_named_pairs(roster, halts) - marks.pairs
    overmarked = () if banned or removed else marks.with_pairs(marked).find_overmarked(roster, tolerated)
    is_leaving = bool(banned or removed or overmarked)
    if not (common or is_leaving):
        return nobody
    resumes = _resume_round(roster, position, views, tolerated, attempt) if is_leaving else position.round
    agreed = not is_leaving and is_agreed(roster, views, tolerated, attempt)
    return Decision(banned, removed, resumes, envelopes, marked, overmarked, agreed, marks.pairs)


def is_agreed(roster: Roster, views: Mapping[PeerId, View], tolerated: int, attempt: int) -> bool:
    """Return whether f+1 views show one complete AGREE of the attempt, in which they are.

    One of these members is honest and holds everyone's: all honest members have said AGREE after one transcript.
    """
    shown = {
        (peer, holding.digests)
        for peer, view in views.items()
        for holding in view.holdings
        if holding.position == view.position and _is_whole(holding, roster, attempt)
    }
    return any(count > tolerated for count in Counter(digests for _, digests in shown).values())


def _is_whole(holding: Holding, roster: Roster, attempt: int) -> bool:
    stage = holding.position.stage
    is_agree = (stage.phase, stage.attempt) == (Phase.AGREE, attempt)
    return is_agree and len(holding.digests) == len(roster) and all(holding.digests)


def number_pairs(roster: Roster, marks: Marks) -> tuple[int, ...]:
    """Return marked pairs of members as a view names them: i n + j for the members i < j of n, the lowest first."""
    place = {peer: index for index, peer in enumerate(roster.members)}
    pairs = sort_pairs(marks.within(roster).pairs)
    return tuple(place[low] * len(roster) + place[high] for low, high in pairs)[:MAX_MARKED]


def is_first_try(serial: int, views: Collection[View]) -> bool:
    """Return whether no earlier recovery of the attempt has decided anything, so that members still lack messages."""
    return serial == 0 or 2 * sum(view.resumed for view in views) > len(views)


def _find_missing(
    roster: Roster,
    views: Mapping[PeerId, View],
    stages: Sequence[Stage],
    tolerated: int,
    supplied: Collection[SignedMessage],
    *,
    is_first: bool,
) -> tuple[Stage, tuple[PeerId, ...]]:
    """The lowest stage of which a message is nowhere to be had, and whose that is; those who are behind are excused."""
    held = [_find_held(roster, views, stage, tolerated, supplied) for stage in stages]
    position, present = next(
        (pair for pair in zip(stages, held, strict=True) if len(pair[1]) < len(roster)), (stages[-1], held[-1])
    )
    place = order_stage(position)
    behind = {peer for peer, view in views.items() if is_first and order_stage(view.position.stage) < place}
    return position, tuple(peer for peer in roster.members if peer not in present | behind)


def _find_agreed_marks(roster: Roster, views: Mapping[PeerId, View], tolerated: int) -> Marks:
    """The pairs that f+1 views call marked: at least one of these members is honest."""
    counts = Counter(number for view in views.values() for number in set(view.marks))
    agreed = [divmod(number, len(roster)) for number, count in counts.items() if count > tolerated]
    return Marks(frozenset(make_pair(roster.members[i], roster.members[j]) for i, j in agreed if i < j < len(roster)))


def _find_named_pairs(roster: Roster, halts: Collection[SignedMessage]) -> frozenset[Pair]:
    """Who halted over whom: neither message nor deadline can tell which of the two was at fault."""
    return frozenset(
        make_pair(halt.sender, PeerId(peer))
        for halt in halts
        if isinstance(halt.payload, Halt) and halt.sender in roster
        for peer in halt.payload.missing
        if peer in roster and peer != halt.sender
    )


def _find_stages(views: Mapping[PeerId, View], tolerated: int, attempt: int) -> list[Stage]:
    """The stages that views are in, lowest first, of which more than half of the views and more than f know.

    Honest members are at most one phase apart (attacks A6), so every stage of theirs is the current or the last one of
    all of them; a lie about any other stage, however low or high, moves nobody. In a stage of an earlier attempt, which
    may be of a later round than is run again now, they are only in a COMMIT after a restart: more than f say so then.
    Who was led astray or started again may leave none. Then the middle of more than 2f views is no further than honest
    members are, and a round that all views name is that of one.
    """
    known = Counter(stage for view in views.values() for stage in {item.position.stage for item in view.holdings})
    claimed = sorted((view.position.stage for view in views.values()), key=order_stage)
    needed = max(len(views) // 2, tolerated) + 1
    here = Counter(claimed)
    common = [stage for stage in here if known[stage] >= needed]
    if common := [stage for stage in common if stage.attempt >= attempt or here[stage] > tolerated]:
        return common
    sure = sorted(claimed, key=lambda stage: stage.round)
    if len(views) > 2 * tolerated or sure[0].round == sure[-1].round:
        return [sure[len(sure) // 2]]
    return []


def _find_within(views: Collection[View], tolerated: int, attempt: int) -> list[Stage]:
    """The furthest stage of a round in which more than f views are, past its COMMIT and before the next one; else none.

    One of these is honest: everybody has said that COMMIT, and nobody is past the next, which it has not said. So
    nobody signs the seal of this round for good, and all may go on in it.
    """
    for number in {view.position.stage.round for view in views}:
        begun, ended = Stage(number, attempt, Phase.COMMIT), Stage(number, attempt, Phase.AGREE)
        here = [view for view in views if view.position.stage.round == number]
        within = [view.position.stage for view in here if _is_past(view, begun) and not _is_past(view, ended)]
        if len(within) > tolerated:
            return [max(within, key=order_stage)]
    return []


def _find_boundary(views: Collection[View], tolerated: int, attempt: int) -> list[Stage]:
    """The last stage of a round that more than f views are at the end of, or in the COMMIT after it; else none.

    One of these is honest, and beside it none holds everyone's AGGREGATE of the round after: all may go back to this.
    """
    for newest in {view.position.stage.round for view in views} - {1}:  # before which there is none to go back to
        commit = Stage(newest, attempt, Phase.COMMIT)
        ended = [view.position.stage for view in views if is_ending(view.position.stage, newest - 1, attempt)]
        begun = [view for view in views if view.position.stage == commit and not _is_past(view, commit)]
        if ended and len(ended) + len(begun) > tolerated:
            return [max(ended, key=order_stage)]
    return []


def _find_held(
    roster: Roster, views: Mapping[PeerId, View], stage: Stage, tolerated: int, supplied: Collection[SignedMessage]
) -> set[PeerId]:
    """The members whose message of a stage can be had: it is supplied, or enough views claim to hold it.

    That is f+1, one of which is honest, or all but f of those who are there: where an honest view is missing, f honest
    members hold what f others deny. Whoever is not at the stage, or not again after a restart, denies nothing, and what
    it shows of it, that it had said its own message, counts as a claim.
    """
    claims, claims_there, there = Counter[_Claim](), Counter[_Claim](), 0
    for view in views.values():
        shown = [holding.digests for holding in view.holdings if holding.position.stage == stage]
        pairs = {pair for digests in shown for pair in zip(roster.members, digests, strict=False) if pair[1]}
        claims.update(pairs)
        if shown and order_stage(view.position.stage) >= order_stage(stage):
            there += 1
            claims_there.update(pairs)
    claimed = {
        pair[0] for pair, count in claims.items() if count > tolerated or there - claims_there[pair] <= tolerated
    }
    return claimed | {message.sender for message in supplied if message.slot.stage == stage}


def _resume_round(roster: Roster, position: Stage, views: Mapping[PeerId, View], tolerated: int, attempt: int) -> int:
    """The round to redo where somebody leaves: the one before, unless all have come through it alike.

    Whoever is in COMMIT holds a whole CONFIRM of the round before. If all views show the same one, every honest member
    has that, and what is said of that round later divides nobody; else some may be split, or still be in it, and
    would not find out before the others are an attempt ahead. Whoever is past COMMIT, or was before a restart, held
    everyone's COMMIT after one and the same CONFIRM. A later attempt began with such a settlement: it never goes back.
    """
    if position.phase is not Phase.COMMIT or position.round <= 1 or attempt != position.attempt:
        return position.round
    here = [view for view in views.values() if not _is_past(view, position)]
    if len(views) - len(here) > tolerated:
        return position.round
    before = Stage(position.round - 1, position.attempt, Phase.CONFIRM)
    shown = {
        next((holding.digests for holding in view.holdings if holding.position.stage == before), ()) for view in here
    }
    is_alike = all(len(digests) == len(roster) and all(digests) for digests in shown) and len(shown) == 1
    return position.round if is_alike else position.round - 1


def _is_past(view: View, position: Stage) -> bool:
    """Return whether a member is past a stage, or shows something of a later one that it was in before a restart."""
    return bool(find_later([view.position.stage, *(holding.position.stage for holding in view.holdings)], position))
