"""
Where we stand with the others: asked after a start, and while the swarm seems to go on without us.

Each member shows whoever asks the headers of its messages, as it signed them, and the newest seals with
their signatures. A message of ours that our ledger does not hold means that the ledger is older than
what was sent (attacks A7): nothing is signed with it. One answer shows it all, and f answers are waited for
2Δ at most: cheats hold nobody up by words that it never said, nor for longer by silence.

A seal without us means that we are out. If it is the one that
we made when we said goodbye, we have left as soon as the next one is signed: till then they may need us.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated

import structlog
import trio
from msgspec import Meta, Struct

from btard.errors import Banned, BtardError, NetworkError, RemoteProtocolError, Removed
from btard.identity import PeerId, short
from btard.net import Hub
from btard.rules.config import RunConfig
from btard.rules.evidence import Header
from btard.rules.messages import Count, Position, SignedMessage
from btard.rules.seal import Seal, SealSignature
from btard.rules.succession import find_objection
from btard.swarm.broadcast import Broadcast
from btard.swarm.frames import Kind, SignedTuple
from btard.swarm.joining.lineage import MAX_PAGE, find_signers
from btard.swarm.joining.turnstile import Turnstile
from btard.swarm.ledger import Ledger
from btard.swarm.viewing import make_position
from btard.wire import compute_seal_digest, decode, decode_seal, encode, encode_seal, take_header

log = structlog.get_logger(__name__)

SignedSeal = tuple[Seal, Sequence[SealSignature]]
MAX_SEALS = 4
"""Seals in one answer, fewer if they are large: whoever is out is missing in the first or second after its newest."""
MAX_HELD = 64
"""Headers in one answer, the newest: twice what one member says in two rounds, with a recovery in each."""


class Question(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Asks for the seals from a round on."""

    first: Count


class Held(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where the asker said something, and the header that it signed there."""

    position: Position
    header: Header


class Answer(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Which messages of the asker are held, and the seals that are signed."""

    held: Annotated[tuple[Held, ...], Meta(max_length=MAX_HELD)]
    seals: Annotated[tuple[SignedTuple, ...], Meta(max_length=MAX_SEALS)]


class Standing:
    """Answers others, and asks them on our behalf."""

    def __init__(self, config: RunConfig, hub: Hub, ledger: Ledger, broadcast: Broadcast) -> None:
        self._config, self._hub, self._ledger, self._broadcast = config, hub, ledger, broadcast
        self.on_left: Callable[[], None] = lambda: None
        self._turnstile = Turnstile(hub)
        hub.serve[Kind.STANDING] = self._serve

    async def _serve(self, peer: PeerId, body: bytes) -> tuple[bytes, None]:
        question: Question = decode(body, Question)
        await self._turnstile.enter(peer)
        held = tuple(map(_show, self._broadcast.board.messages_of(peer)[-MAX_HELD:]))
        return encode(Answer(held, tuple(self._find_sealed(question.first)))), None

    def _find_sealed(self, first: int) -> Iterable[SignedTuple]:
        size = 0
        for seal in self._ledger.seals_from(first, MAX_SEALS):
            if (signatures := self._ledger.signatures(seal.round)) and size < MAX_PAGE:
                yield (item := SignedTuple(encode_seal(seal), signatures))
                size += len(item.seal) + 128 * len(signatures)

    async def ask(
        self,
        base: Seal,
        link_s: float = 0.0,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Ask every member that there is a link to within ``link_s``; a message of ours that we lack is noted.

        ``base`` is the newest seal that we know to be signed. An answer may take 2Δ. The status tells when it may be
        gone on: all have answered, or all but f after 2Δ; the others are heard beside what follows.

        Raises:
            Banned, Removed: a signed seal after it has another roster than one with us.
        """
        asked = [peer for peer in self._broadcast.others if link_s or self._hub.is_connected(peer)]
        spared = max(0, self._broadcast.place.roster.tolerated(self._config.byzantine_bound))
        answers, count = trio.Semaphore(0), 0
        async with trio.open_nursery() as nursery:
            for peer in asked:
                nursery.start_soon(self._ask_one, base, peer, link_s, answers)
            with trio.move_on_after(2 * self._config.delay_s):
                for _ in asked:
                    await answers.acquire()
                    count += 1
            for _ in range(count, len(asked) - spared):
                await answers.acquire()
            task_status.started()

    async def _ask_one(self, base: Seal, peer: PeerId, link_s: float, answers: trio.Semaphore) -> None:
        with trio.move_on_after(link_s):
            await self._hub.wait_connected((peer,))
        await self._hear(base, peer)
        answers.release()

    async def _hear(self, base: Seal, peer: PeerId) -> None:
        try:
            body = encode(Question(base.round + 1))
            reply = await self._hub.request(peer, Kind.STANDING, body, timeout_s=2 * self._config.delay_s)
            answer: Answer = decode(reply.head, Answer)
            seals = [(decode_seal(item.seal), item.signatures) for item in answer.seals]
            self._broadcast.meet_own((item.position.stage, item.header) for item in answer.held)
        except (NetworkError, RemoteProtocolError, ValueError) as error:
            log.debug("no answer about our standing", peer=short(peer), reason=str(error))
            return
        valid, own, me = tuple(_take_valid(self._config, base, seals)), self._ledger.newest_seal(), self._broadcast.me
        departure = find_departure(valid, me, own)
        if departure is not None:
            raise departure
        if own in valid and me not in own.roster and valid[-1] != own:
            self.on_left()


def _show(message: SignedMessage) -> Held:
    return Held(make_position(message.slot.stage), take_header(message).encoded)


def find_departure(seals: Sequence[Seal], me: PeerId, own: Seal | None) -> BtardError | None:
    """Return how we left by seals that hold, in their order; ``own`` is the newest that we made ourselves.

    If that is without us we said goodbye: nobody removed us by it, nor by those that follow.
    """
    has_left = False
    for seal in seals:
        if me in seal.banned:
            return Banned(f"the roster convicted this peer in round {seal.round}, as its seal says")
        if me not in seal.roster:
            has_left = has_left or seal == own
            if not has_left:
                return Removed(
                    f"the roster went on without this peer in round {seal.round}, without blame, as its seal says: "
                    "it was silent, late or different"
                )
    return None


def _take_valid(config: RunConfig, base: Seal, seals: Sequence[SignedSeal]) -> Iterator[Seal]:
    """Yield the seals after ``base`` as far as each follows the one before it."""
    before = base
    for seal, signatures in seals:
        if not _follows(config, before, seal, signatures):
            return
        yield (before := seal)


def _follows(config: RunConfig, before: Seal, seal: Seal, signatures: Sequence[SealSignature]) -> bool:
    """Whether this is the next seal of the run, signed by more than half of the roster that made it."""
    signers = find_signers(before, seal, signatures)
    is_next = seal.round == before.round + 1
    return is_next and find_objection(config, before, compute_seal_digest(before), seal, signers) is None
