"""
Halted members: they tell each other that they are ready for another recovery, and learn if the swarm went on without
them (design section 5; attacks C11).

A RESUME travels beside the ordinary messages, for a member that was removed meanwhile is a stranger to those it
speaks to. They answer with what removed it: the settlement of that attempt, or the seal of that round.
"""

from collections.abc import Callable, Collection
from typing import Annotated

import structlog
import trio
from msgspec import Meta, Struct

from btard.errors import Banned, BtardError, RemoteProtocolError, Removed
from btard.identity import PeerId, short
from btard.net import MAX_CONTROL
from btard.rules.agreement import find_restart
from btard.rules.config import RunConfig
from btard.rules.messages import MAX_ROSTER, Phase, Resume, SignedMessage, Stage
from btard.rules.roster import Roster
from btard.rules.seal import Seal, SealSignature, has_quorum
from btard.swarm.broadcast import Broadcast
from btard.swarm.frames import Kind
from btard.swarm.ledger import Ledger
from btard.swarm.viewing import make_position
from btard.wire import compute_seal_digest, decode, encode, find_valid_signatures, open_message

log = structlog.get_logger(__name__)

MAX_RESUME = 16 * 1024
"""Largest RESUME in bytes: one that calls 256 members missing fits."""


class SealedRound(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A seal with the signatures of the members that made it."""

    seal: Seal
    signatures: Annotated[tuple[SealSignature, ...], Meta(max_length=MAX_ROSTER)]


class Resuming:
    """The RESUMEs of the attempt in progress, the newest of each member, and answers to those who are behind."""

    def __init__(
        self,
        config: RunConfig,
        broadcast: Broadcast,
        ledger: Ledger,
        find_proof: Callable[[int], bytes],
        fail: Callable[[BtardError], None],
    ) -> None:
        self._config, self._broadcast, self._ledger, self._fail = config, broadcast, ledger, fail
        self._find_proof = find_proof
        self.on_left: Callable[[], None] = lambda: None
        self._newest: dict[PeerId, SignedMessage] = {}
        self._turns: dict[PeerId, float] = {}
        broadcast.hub.on_control[Kind.RESUME] = self._receive
        broadcast.hub.on_control[Kind.SEAL] = self._receive_seal

    @property
    def held(self) -> tuple[SignedMessage, ...]:
        """The RESUMEs that count, in roster order."""
        place = self._broadcast.place
        return tuple(
            message
            for peer, message in sorted(self._newest.items())
            if peer in place.roster
            and (message.roster, message.slot.stage.attempt) == (place.roster.digest, place.attempt)
        )

    def find_restart(self) -> int | None:
        """The serial at which more than half of the roster are ready to begin again, unless we are past it."""
        if not self._newest:
            return None
        serial = find_restart(self._broadcast.place.roster, {m.sender: m.slot.stage.serial for m in self.held})
        return serial if serial is not None and serial >= self._broadcast.place.serial else None

    def say(self, serial: int) -> None:
        """Tell everyone in the roster that we are ready for recovery ``serial`` of this attempt; again if repeated."""
        broadcast, place = self._broadcast, self._broadcast.place
        assert place.current is not None
        stage = Stage(0, place.attempt, Phase.RESUME, serial)
        payload = Resume(make_position(place.current.stage), broadcast.find_missing(place.current))
        message = broadcast.say(stage, place.roster.digest, b"", payload)
        self._newest[broadcast.me] = message
        self._send(message, broadcast.others)
        broadcast.board.call()

    def show(self, peers: Collection[PeerId]) -> None:
        """Pass on the RESUMEs by which we begin or have begun: to all, so that everyone begins within Δ."""
        for message in self.held:
            self._send(message, peers)

    def _send(self, message: SignedMessage, peers: Collection[PeerId]) -> None:
        for peer in peers:
            if peer != message.sender:
                self._broadcast.hub.send(peer, Kind.RESUME, message.envelope)

    def _receive(self, peer: PeerId, envelope: bytes) -> None:
        place = self._broadcast.place
        if len(envelope) > MAX_RESUME:
            raise RemoteProtocolError("a RESUME longer than any", peer)
        is_stranger = peer not in place.roster
        if is_stranger and not (self._ledger.has_departed(peer) and self._take_turn(peer)):
            return  # before its signature costs anything
        message = open_message(self._config.run_id, envelope)
        if not isinstance(message.payload, Resume):
            raise RemoteProtocolError("something else than a RESUME", peer)
        attempt = message.slot.stage.attempt
        is_ours = (message.roster, attempt) == (place.roster.digest, place.attempt)
        if is_ours:
            self._keep(message)
        is_behind = attempt < place.attempt or (is_ours and not is_stranger and not self._is_said())
        if is_behind and message.sender == peer:
            self._answer(peer, attempt, message.payload.position.round, is_their_turn=is_stranger)

    def _keep(self, message: SignedMessage) -> None:
        known = self._newest.get(message.sender)
        if message.sender in self._broadcast.place.roster and (
            known is None or known.slot.stage < message.slot.stage or known.roster != message.roster
        ):
            self._newest[message.sender] = message
            self._broadcast.board.call()

    def _is_said(self) -> bool:
        """Whether we say RESUME ourselves, and know no better."""
        own, place = self._newest.get(self._broadcast.me), self._broadcast.place
        return own is not None and own.slot.stage == Stage(0, place.attempt, Phase.RESUME, place.serial)

    def _take_turn(self, peer: PeerId) -> bool:
        """Whether it is long enough since somebody had a turn, which begins now; all of them cost at most so much."""
        now = trio.current_time()
        self._turns = {item: due for item, due in self._turns.items() if due > now}
        if peer in self._turns or len(self._turns) >= 2 * MAX_ROSTER:
            return False
        self._turns[peer] = now + 2 * self._config.delay_s
        return True

    def _answer(self, peer: PeerId, attempt: int, round_number: int, *, is_their_turn: bool) -> None:
        """Tell a member of an earlier roster, or one that is behind, how its attempt ended."""
        if not is_their_turn and not self._take_turn(peer):
            return
        for kind, body in ((Kind.CERTIFICATE, self._find_proof(attempt)), (Kind.SEAL, self._find_seal(round_number))):
            if body and len(body) <= MAX_CONTROL:
                log.info("a member is behind", peer=short(peer), attempt=attempt, answer=kind.name)
                self._broadcast.hub.send(peer, kind, body)

    def _find_seal(self, round_number: int) -> bytes:
        seal = next(self._ledger.seals_from(round_number, 1), None)
        signatures = self._ledger.signatures(round_number)
        return encode(SealedRound(seal, signatures)) if seal and signatures and round_number else b""

    def _receive_seal(self, peer: PeerId, body: bytes) -> None:
        """Learn from the seal of the round in which we wait that it ended without us: as we wished, or else not."""
        if peer not in self._broadcast.place.roster:
            return
        shown: SealedRound = decode(body, SealedRound, limit=MAX_CONTROL)
        before, seal, me = self._ledger.newest_seal(), shown.seal, self._broadcast.me
        if before is None or me in seal.roster or seal.round != before.round + 1:
            return
        roster = Roster.of([PeerId(member) for member in before.roster])
        claimed = {item.signer: item for item in shown.signatures if item.signer in roster}
        if seal.previous != compute_seal_digest(before) or not has_quorum(frozenset(claimed), roster):
            return  # before any signature costs anything
        signers = frozenset(item.signer for item in find_valid_signatures(seal, tuple(claimed.values())))
        if not has_quorum(signers, roster):
            return
        if me in seal.banned:
            self._fail(Banned("the roster convicted this peer while it was cut off; the seals of the others tell why"))
        elif me in before.roster:
            self._fail(Removed("the roster went on without this peer, without blame, while it was cut off"))
        else:
            self.on_left()
