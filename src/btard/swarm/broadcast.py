"""
The signed broadcast: one message from every member, and the transcript that all agree on.

Each message carries the digest of the previous transcript, so two members who saw different messages
find out one phase later; comparing what they hold leads to a message that one of them lacks or to
an equivocation. When nothing is wrong, nothing is relayed.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cached_property

import structlog
import trio

from btard.errors import ConfigError, NetworkError, RemoteProtocolError
from btard.identity import Identity, PeerId, short
from btard.net import MAX_CONTROL, Hub
from btard.rules.config import RunConfig
from btard.rules.messages import AnyPayload, Phase, Position, SignedMessage, Slot, Stage, Transcript
from btard.rules.recovery import LARGEST
from btard.rules.roster import Roster
from btard.swarm.board import RECOVERY_PHASES, Board, is_in_window
from btard.swarm.conduct import Conduct
from btard.swarm.frames import Kind, StageAnswer, StageRequest
from btard.swarm.genesis import SignedSeal, check_genesis
from btard.swarm.joining.turnstile import Turnstile
from btard.swarm.ledger import Ledger
from btard.swarm.place import Expectation, Place
from btard.wire import Cast, decode, encode, open_header, open_message, sign_message

log = structlog.get_logger(__name__)

FIRST = Stage(1, 0, Phase.COMMIT)
"""What a member says first; those who do not know the roster yet keep it, and nothing else."""

ITEM_COST = 8
"""Bytes that an item costs in a list beside its own."""

MAX_STAGE_ANSWER = MAX_CONTROL - 32 * 1024
"""Bytes of messages in one answer about a stage: the largest message fits; the rest is asked for in further pages."""


class Broadcast:
    """Signs, sends, receives and serves the messages of the rounds in progress."""

    def __init__(self, config: RunConfig, identity: Identity, hub: Hub, ledger: Ledger, conduct: Conduct) -> None:
        self.board, self.place = Board(), Place()
        self._run_id, self._identity, self._hub, self._ledger = config.run_id, identity, hub, ledger
        self._config, self._conduct, self._genesis = config, conduct, Roster(())
        self.on_certificate: Callable[[bytes], None] = lambda body: None
        self.on_signing: Callable[[], None] = lambda: None
        self._not_held: Stage | None = None
        self._lost: dict[PeerId, int] = {}  # in which round a link to each was lost last
        self.arriving: frozenset[PeerId] = frozenset()
        hub.on_control[Kind.MESSAGE] = self._receive
        hub.on_control[Kind.CERTIFICATE] = self._receive_certificate
        hub.on_control[Kind.GENESIS] = self._receive_genesis
        self._turnstile = Turnstile(hub)
        hub.serve[Kind.PULL_STAGE] = self._serve_stage
        hub.favour(self.is_member)

    @property
    def me(self) -> PeerId:
        """Our own id."""
        return self._identity.peer_id

    @property
    def others(self) -> tuple[PeerId, ...]:
        """The other members of the roster."""
        me = self.me
        return tuple(peer for peer in self.place.roster.members if peer != me)

    def recall(self, messages: Sequence[SignedMessage], serial: int) -> None:
        """Begin after a restart with what the ledger has of the attempt, in recovery ``serial`` of it."""
        for message in messages:
            self.board.post(message)
        self.place.serial = serial

    def was_away(self, peer: PeerId) -> bool:
        """Return whether there is no link to a member, or was none for some time in this round or the one before.

        Others may have begun this round before we did, and a member may have been gone in their first moments of it.
        """
        return self._lost.get(peer, 0) >= max(1, self.place.round - 1) or not self._hub.is_connected(peer)

    def note_lost(self, peer: PeerId) -> None:
        """Note that a link was lost, or is made anew."""
        if self.is_member(peer):
            self._lost[peer] = self.place.round

    def forget_lost(self) -> None:
        """Forget about links that were lost before the round before."""
        self._lost = {peer: number for peer, number in self._lost.items() if number >= self.place.round - 1}

    @property
    def hub(self) -> Hub:
        """Our links."""
        return self._hub

    def countersign(self, cast: Cast) -> Cast:
        """Return another member's view and ballot with our word that they came in time."""
        return cast.countersigned(self._identity)

    def say(self, stage: Stage, signed_roster: bytes, previous: bytes, payload: AnyPayload) -> SignedMessage:
        """Sign a payload for our slot of ``stage``, write it to the ledger, then send it to all.

        A slot that is already signed is sent again as it is stored: a peer never signs twice.

        Raises:
            ConfigError: others hold messages of ours that our ledger does not: it is a copy, and older than they.
        """
        stored = self._ledger.stored_message(stage)
        if stored is not None:
            message = open_message(self._run_id, stored)
        else:
            self.require_whole_ledger()
            payload = self._conduct.payload(stage, self.place.roster, payload)
            message = sign_message(self._identity, self._run_id, signed_roster, stage, previous, payload)
            self.on_signing()
            self._ledger.record_message(message, self._find_heard())
            self.place.is_behind &= stage.phase in RECOVERY_PHASES
        if not self._conduct.says(stage):
            return message
        self.board.post(message)
        self._deliver(message, self.others)
        return message

    def find_said(self, stage: Stage) -> AnyPayload | None:
        """Return what we have signed for a stage, if anything."""
        stored = self._ledger.stored_message(stage)
        return None if stored is None else open_message(self._run_id, stored).payload

    def require_whole_ledger(self) -> None:
        """Return unless others hold messages of ours that our ledger does not.

        Raises:
            ConfigError: they do.
        """
        if (unknown := self.find_unknown()) is not None:
            raise ConfigError(
                f"this peer has sent messages that its ledger does not hold ({unknown}): the ledger is an older copy, "
                "and nothing is signed with it; start with the newest one, or join a run with a new key"
            )

    def find_unknown(self) -> Stage | None:
        """Return the newest message of ours that our ledger should hold and does not, if there is one (attacks A7).

        One from before the ledger begins is no sign of an older copy: it is of an earlier time here, whose ledger was
        put aside. Its slot is past, for attempts are counted through the whole run and we left by a later one.
        """
        stage = self._not_held
        return stage if stage is not None and stage.attempt >= self._ledger.find_first_attempt() else None

    def _find_heard(self) -> list[SignedMessage]:
        """The others' messages that the one we sign follows from."""
        stages, me = [item for item in (self.place.last, self.place.current) if item is not None], self.me
        return [message for item in stages for peer, message in self.accepted(item).items() if peer != me]

    def _deliver(self, message: SignedMessage, peers: Iterable[PeerId]) -> None:
        is_first, send, kind = message.slot.stage == FIRST, self._hub.send, Kind.MESSAGE
        for peer in peers:
            envelope = self._conduct.deliver(message, peer, self._identity, self._run_id)
            if is_first:
                send(peer, Kind.GENESIS, self._genesis_proof)
            if envelope is not None:
                send(peer, kind, envelope)

    @cached_property
    def _genesis_proof(self) -> bytes:
        """Seal 0 as the founder signed it: who has not heard of it yet learns from us that we are a member."""
        founder = self._config.founder_id
        signature = next(item.signature for item in self._ledger.signatures(0) if item.signer == founder)
        return encode(SignedSeal(next(self._ledger.seals()), signature))

    def relay(self, message: SignedMessage) -> None:
        """Pass on another member's message, so that its sender cannot leave anybody out."""
        for peer in self.others:
            if message.sender not in {peer, self.me}:
                self._hub.send(peer, Kind.MESSAGE, message.envelope)

    def tell_certificate(self, peer: PeerId, body: bytes) -> None:
        """Send the certificate by which we go on; one too large for a message is left to the next serial."""
        if len(body) <= MAX_CONTROL:
            self._hub.send(peer, Kind.CERTIFICATE, body)

    def show_current(self, peers: Collection[PeerId]) -> None:
        """Pass on the messages of the stage that we came through last, to members that may lack one of them."""
        current = self.place.current
        for message in self.accepted(current).values() if current else ():
            for peer in sorted(set(peers) - {message.sender, self.me}):
                self._hub.send(peer, Kind.MESSAGE, message.envelope)

    def resend(self, peer: PeerId) -> None:
        """Send our latest messages again, to a member whose link was made anew."""
        for expectation in (self.place.last, self.place.current):
            mine = expectation and self.board.of(expectation.stage).get(self.me)
            if mine:
                self._deliver(mine, (peer,))

    def accepted(self, expectation: Expectation) -> dict[PeerId, SignedMessage]:
        """The messages held that count for a stage, in roster order; of two versions the first that counts."""
        if expectation.complete is None:
            first, *second = self.board.candidates(expectation.stage)
            accepts = expectation.accepts
            accepted = {p: first[p] for p in expectation.roster.members if p in first and accepts(first[p])}
            for versions in second:
                accepted |= {p: item for p, item in versions.items() if p not in accepted and accepts(item)}
                accepted = dict(sorted(accepted.items()))
            if len(accepted) < len(expectation.roster):
                return accepted
            expectation.complete = accepted
        return expectation.complete

    def find_missing(self, expectation: Expectation) -> tuple[PeerId, ...]:
        """The members whose message of a stage does not count or has not come."""
        accepted = self.accepted(expectation)
        return tuple(peer for peer in expectation.roster.members if peer not in accepted)

    def complete(self, expectation: Expectation) -> Transcript | None:
        """The transcript of a stage once every member's message is here."""
        if len(self.board.of(expectation.stage)) < len(expectation.roster):
            return None
        accepted = self.accepted(expectation)
        if len(accepted) < len(expectation.roster):
            return None
        return Transcript(expectation.stage, tuple(accepted.values()))

    def find_strayed(self, expectation: Expectation) -> tuple[PeerId, ...]:
        """The members whose message of this stage follows another transcript than ours."""
        held = self.board.of(expectation.stage)
        return tuple(
            peer
            for peer in expectation.roster.members
            if peer in held
            and (held[peer].previous, held[peer].roster) != (expectation.previous, expectation.signed_roster)
        )

    def find_ahead(self, expectation: Expectation) -> tuple[PeerId, ...]:
        """The members that have not said this stage but one that follows our last: they are past it, or beside it."""
        last = self.place.last
        heard = self.board.find_speakers(self.board.find_later(last.stage) if last else ())
        silent = heard - self.board.of(expectation.stage).keys()
        return tuple(peer for peer in expectation.roster.members if peer in silent) if silent else ()

    def find_past(self, expectation: Expectation) -> tuple[PeerId, ...]:
        """The members that have said a later stage: they hold all of this one, and must serve it (attacks A6)."""
        heard = self.board.find_speakers(self.board.find_later(expectation.stage))
        return tuple(peer for peer in expectation.roster.members if peer in heard) if heard else ()

    async def pull(self, stage: Stage, sources: tuple[PeerId, ...], timeout_s: float) -> None:
        """Ask every source for the messages it holds of a stage and post them; waits at most ``timeout_s``."""
        async with trio.open_nursery() as nursery:
            for peer in sources:
                nursery.start_soon(self._pull_from, stage, peer, timeout_s)

    async def _pull_from(self, stage: Stage, peer: PeerId, timeout_s: float) -> None:
        after: bytes | None = b""
        try:
            with trio.move_on_after(timeout_s):
                for _ in self.place.roster.members:
                    if after is not None:
                        after = await self._pull_page(stage, after, peer, timeout_s)
        except (NetworkError, RemoteProtocolError) as error:
            log.debug("pull failed", stage=str(stage), peer=short(peer), reason=str(error))

    async def _pull_page(self, stage: Stage, after: bytes, peer: PeerId, timeout_s: float) -> bytes | None:
        """Post the next messages that ``peer`` holds of a stage; return the last one's sender, None at the end."""
        known = b"" if after else self.board.compute_digest(stage)
        request = StageRequest(Position(*map(int, stage)), after, known)
        reply = await self._hub.request(peer, Kind.PULL_STAGE, encode(request), timeout_s=timeout_s)
        answer: StageAnswer = decode(reply.head, StageAnswer, limit=MAX_CONTROL)
        senders = [self._post(envelope) for envelope in answer.envelopes]
        return None if answer.is_last or not senders else senders[-1]

    def _post(self, envelope: bytes) -> PeerId:
        """Keep the message in an envelope if it is of use; return its sender.

        Raises:
            RemoteProtocolError: it is none of this run, or longer than any of its phase.
        """
        message = open_message(self._run_id, envelope)
        if len(envelope) > LARGEST:
            raise RemoteProtocolError(f"a {message.slot.stage.phase.name} of {len(envelope)} bytes", message.sender)
        self.take(message)
        return message.sender

    def take(self, message: SignedMessage) -> None:
        """Post a verified message if it may be of use: of a member, and neither far ahead nor long past."""
        place, (stage, sender) = self.place, message.slot
        current = place.current
        if sender == self._identity.peer_id:
            self._meet_own(stage)
        if not self._may_speak(stage, sender):
            return
        if current is not None and stage == current.stage:
            self.board.post(message, self._is_due, self._is_news)
        elif is_in_window(stage, place.round, place.attempt, place.serial):
            self.board.post(message, self._is_due)

    def _is_news(self, message: SignedMessage, held: int) -> bool:
        """Return whether a message of our stage gives anybody something to do; one that counts only as the last."""
        current = self.place.current
        return current is None or not current.accepts(message) or held >= len(current.roster.members)

    def meet_own(self, shown: Iterable[tuple[Stage, bytes]]) -> None:
        """Note what others show of ours: where we said something, and the header that we signed there.

        Raises:
            RemoteProtocolError: what our ledger does not hold was signed by somebody else, or for another slot.
        """
        for stage, encoded in shown:
            if self._ledger.stored_message(stage) is None:
                if open_header(self._run_id, encoded).slot != (stage, self.me):
                    raise RemoteProtocolError("a header of something else than is claimed")
                self._meet_own(stage)

    def _meet_own(self, stage: Stage) -> None:
        """Note a message of ours that our ledger does not hold; the newest stays.

        What it means is asked when we are to sign: a newcomer is shown such words before its ledger begins anywhere.
        """
        is_known = stage.phase is Phase.HELLO or self._ledger.stored_message(stage) is not None
        if not is_known and self._conduct.minds_own_words():
            self._not_held = max(self._not_held or stage, stage, key=lambda item: (item.attempt, item))

    def _is_due(self, stage: Stage) -> bool:
        """Return whether we cannot go on without the messages of a stage, however much their senders said already."""
        place = self.place
        if stage.phase in RECOVERY_PHASES:
            return (stage.attempt, stage.serial) == (place.attempt, place.serial)
        is_commitment = stage.phase is Phase.COMMIT and stage.round == place.round and stage.attempt <= place.attempt
        return is_commitment or any(item.stage == stage for item in (place.last, place.current) if item is not None)

    def is_member(self, peer: PeerId) -> bool:
        """Return whether ``peer`` belongs to the roster, or to that of the next round.

        Before we know it, to the one in the founder's seal.
        """
        return peer in (self.place.roster.everyone or self._genesis.everyone) or peer in self.arriving

    def _may_speak(self, stage: Stage, sender: PeerId) -> bool:
        """Members may, and newcomers in attempts to come; before we know the roster, only the first thing they say."""
        members = self.place.roster.everyone
        if not members:
            return stage == FIRST and sender in self._genesis
        return sender in members or (sender in self.arriving and stage.attempt > self.place.attempt)

    def _receive(self, peer: PeerId, envelope: bytes) -> None:
        if self.is_member(peer):  # a stranger's signatures are not worth the time to verify them
            self._post(envelope)

    def _receive_genesis(self, peer: PeerId, body: bytes) -> None:
        """Learn the roster from a member that heard of it earlier than we, and will now speak to us (attacks C13)."""
        if len(self.place.roster) or len(self._genesis):
            return
        sealed: SignedSeal = decode(body, SignedSeal)
        check_genesis(sealed, self._config)
        self._genesis = Roster(tuple(PeerId(member) for member in sealed.seal.roster))

    def _receive_certificate(self, peer: PeerId, body: bytes) -> None:
        if peer in self.place.roster:
            self.on_certificate(body)

    async def _serve_stage(self, peer: PeerId, body: bytes) -> tuple[bytes, None]:
        request: StageRequest = decode(body, StageRequest)
        if not self.is_member(peer):
            await self._turnstile.enter(peer)
        stage = request.position.stage
        if request.known == self.board.compute_digest(stage):
            return encode(StageAnswer((), is_last=True)), None
        senders = [sender for sender in sorted(self.board.of(stage)) if sender > request.after]
        room, page = MAX_STAGE_ANSWER, list[bytes]()
        for count, sender in enumerate(senders):
            versions = take_small((item.envelope for item in self.board.versions(Slot(stage, sender))), room)
            if count and len(versions) < len(self.board.versions(Slot(stage, sender))):
                return encode(StageAnswer(tuple(page), is_last=False)), None
            room -= sum(len(item) + ITEM_COST for item in versions)
            page += versions
        return encode(StageAnswer(tuple(page), is_last=True)), None


def take_small(items: Iterable[bytes], budget: int) -> list[bytes]:
    """Return as many items as fit, the small ones first: nobody's bulk keeps the others out."""
    taken = []
    for item in sorted(items, key=len):
        budget -= len(item) + ITEM_COST
        if budget >= 0:
            taken.append(item)
    return taken
