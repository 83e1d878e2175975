"""
Randomness that nobody controls, and what is drawn from it (paper: MPRNG; attacks A1, A2).

Every member commits to a nonce, then reveals it; the draw is the hash of all nonces. There are two
draws a round: r fixes the directions of Verification 1 and nothing else; q, committed to only with
the reports already on the table, fixes the validators of this round and the seeds and part order of
the next one. Nothing a peer reports may be checked by a draw known when it reports.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from struct import Struct

from btard.identity import Context, PeerId, digest, expand
from btard.rules.config import RunConfig
from btard.rules.messages import Phase, Slot, Transcript
from btard.rules.roster import Roster

NONCE_SIZE = 32
_STAGE = Struct("<4Q")


def derive_nonce(secret: bytes, slot: Slot) -> bytes:
    """Return the nonce for the slot that reveals it; derived, so that a restart reveals the same."""
    return digest(Context.NONCE_SECRET, secret, _slot_bytes(slot))


def commit_to_nonce(slot: Slot, nonce: bytes) -> bytes:
    """Return H(nonce), bound to the slot that will reveal it and to its sender (attacks C9)."""
    return digest(Context.NONCE, _slot_bytes(slot), nonce)


def _slot_bytes(slot: Slot) -> bytes:
    return _STAGE.pack(*slot.stage) + slot.sender


def find_broken_reveals(commitments: Transcript, reveals: Transcript) -> tuple[PeerId, ...]:
    """Return the members whose revealed nonce is not the one they committed to; provable."""
    return tuple(
        reveal.sender
        for reveal in reveals.messages
        if commit_to_nonce(reveal.slot, reveal.payload.nonce) != commitments[reveal.sender].payload.nonce  # type: ignore[union-attr]
    )


def combine_nonces(reveals: Transcript) -> bytes:
    """Return the draw: the hash of all revealed nonces in roster order."""
    context = Context.DIRECTIONS if reveals.stage.phase is Phase.REVEAL else Context.VALIDATORS
    return digest(context, *(reveal.payload.nonce for reveal in reveals.messages))  # type: ignore[union-attr]


class _Stream:
    """Uniform integers from a seed, the same on every machine."""

    def __init__(self, seed: bytes, purpose: bytes) -> None:
        self._seed = digest(Context.EXPAND, purpose, seed)
        self._block = 0

    def below(self, bound: int) -> int:
        """Return a uniform integer in [0, bound); rejection keeps it unbiased."""
        limit = 2**64 - 2**64 % bound
        while True:
            value = int.from_bytes(expand(Context.EXPAND, self._seed + self._block.to_bytes(8, "little"), 8), "little")
            self._block += 1
            if value < limit:
                return value % bound


def _shuffle(items: Sequence[PeerId], stream: _Stream) -> list[PeerId]:
    order = list(items)
    for last in range(len(order) - 1, 0, -1):
        other = stream.below(last + 1)
        order[last], order[other] = order[other], order[last]
    return order


def draw_member(q: bytes, purpose: bytes, about: PeerId, roster: Roster) -> PeerId:
    """Return one member of the roster, each as likely as the others."""
    return roster.members[_Stream(q, purpose + about).below(len(roster))]


def draw_share(q: bytes, purpose: bytes, about: PeerId) -> float:
    """Return a uniform number in [0, 1), the same on every machine."""
    return _Stream(q, purpose + about).below(2**53) / 2**53


def compute_part_order(q: bytes, roster: Roster, remaining: Roster) -> tuple[PeerId, ...]:
    """Return the aggregators in the order of their parts: a permutation of the round's first roster.

    A later attempt drops those who left and keeps the order of the others.
    """
    return tuple(peer for peer in _shuffle(roster.members, _Stream(q, b"parts")) if peer in remaining)


def compute_minibatch_seed(q: bytes, round_number: int, peer: PeerId) -> bytes:
    """Return xi_i^t, the public seed of a peer's minibatch: hash(q, round, peer)."""
    return digest(Context.EXPAND, b"minibatch", q, round_number.to_bytes(8, "little"), peer)


@dataclass(frozen=True)
class Assignment:
    """One validator and the contributor whose gradient it recomputes."""

    validator: PeerId
    target: PeerId


def draw_validators(
    q: bytes, roster: Roster, contributors: Collection[PeerId], count: int, first: Sequence[PeerId] = ()
) -> tuple[Assignment, ...]:
    """Return the validators of a round and their targets: 2·count distinct peers, by the draw q.

    Targets are contributors; those in ``first`` (loud in a column that proved right, Verification 2)
    come before all others, in an order that is drawn too: no target is known when reports are made.
    Fewer pairs come out of a roster too small for all.
    """
    stream = _Stream(q, b"validators")
    eligible = [peer for peer in _shuffle(sorted(contributors), stream) if peer in roster]
    targets = [peer for peer in eligible if peer in first] + [peer for peer in eligible if peer not in first]
    pairs: list[Assignment] = []
    for target in targets[:count]:
        taken = {target, *targets[:count], *(pair.validator for pair in pairs)}
        free = [peer for peer in roster.members if peer not in taken]
        if free:
            pairs.append(Assignment(free[stream.below(len(free))], target))
    return tuple(pairs)


def draw_round_validators(
    config: RunConfig, q: bytes, roster: Roster, contributors: Collection[PeerId], first: Sequence[PeerId] = ()
) -> tuple[Assignment, ...]:
    """Return a round's validators as its configuration has them: as many as the roster can spare (attacks C6)."""
    count = roster.count_validators(config.validators, config.byzantine_bound)
    return draw_validators(q, roster, contributors, count, first)
