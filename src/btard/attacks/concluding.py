"""Attacks on the end of a recovery without a certificate: untrue conclusions, and chains that come late or to some."""

from collections.abc import Sequence

import trio
from msgspec.structs import replace

from btard.attacks.attacker import Attacker, choose
from btard.attacks.coalition import Coalition
from btard.attacks.withholding import WithholdFrames
from btard.attacks.words import Rephrase
from btard.identity import Context, Identity, PeerId, digest
from btard.net import Hub, Loan
from btard.rules.dolev_strong import OPENING, STEP
from btard.rules.messages import AnyPayload, Conclude, Phase, SignedMessage, Stage
from btard.rules.roster import Roster
from btard.swarm.frames import Kind, StageRequest
from btard.wire import Cast, decode

MARGIN = 0.1
"""Δ before the end of a step at which a late chain is sent."""


class LieInConclude(Rephrase):
    """Concludes from views that nobody has, or that an honest member did not vote, or that it showed two views."""

    LIES = ("views", "unvoted", "split")

    def rephrase(self, stage: Stage, roster: Roster, payload: AnyPayload) -> AnyPayload:
        """Return another conclusion than the one that the final vector gave."""
        if not isinstance(payload, Conclude):
            return payload
        lie = choose(self.LIES, self._seed, tuple(stage))
        victim = choose([peer for peer in roster.members if peer != self._me], self._seed, tuple(stage))
        if lie == "unvoted":
            return replace(payload, unvoted=tuple(sorted({*payload.unvoted, victim})))
        if lie == "split":
            return replace(payload, split=tuple(sorted({*payload.split, victim})))
        return replace(payload, views=digest(Context.EXPAND, b"no views", payload.views))


class ReplayChains(Attacker):
    """Shows the chains of earlier recoveries again, others' among them, beside its own view and ballot."""

    MOST = 64

    def __init__(self, first_round: int) -> None:
        super().__init__(first_round)
        self._heard: dict[bytes, None] = {}
        self._is_listening = False

    def payload(self, stage: Stage, roster: Roster, payload: AnyPayload) -> AnyPayload:
        """Return the payload; listen in on chains from the first one on."""
        if self.hub is not None and not self._is_listening:
            self._is_listening = True
            self._listen_in(self.hub)
        return payload

    def _listen_in(self, hub: Hub) -> None:
        receive = hub.on_control[Kind.CHAIN]

        def hear(peer: PeerId, body: bytes) -> None:
            if len(self._heard) < self.MOST:
                self._heard[body] = None
            receive(peer, body)

        hub.on_control[Kind.CHAIN] = hear

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
        """Return the message; a view or a ballot comes with all that was heard."""
        stage = message.slot.stage
        if self.act_in(stage) and stage.phase in {Phase.VIEW, Phase.BALLOT} and self.hub is not None and self._heard:
            self.note_act(self.newest_round)
            for body in self._heard:
                self.hub.send(recipient, Kind.CHAIN, body)
        return message.envelope


class LateChains(WithholdFrames):
    """Shows its view and ballot to nobody, until the last step in which the signatures of its coalition still count.

    Then it shows them, countersigned by all of the coalition, to one half of the others: the worst that can be done
    to Dolev–Strong. Members of the coalition know each other's keys. It passes nobody's chains on.
    """

    SHOWN = frozenset({Phase.VIEW, Phase.BALLOT})

    def __init__(self, first_round: int, seed: int, coalition: Coalition, delay_s: float) -> None:
        super().__init__(first_round, seed, frozenset({Kind.CHAIN}))
        self._coalition, self._delay_s = coalition, delay_s
        self._roster = Roster(())
        self._view: tuple[SignedMessage, float] | None = None
        self._shown: set[Stage] = set()

    async def accompany(self, hub: Hub) -> None:
        """Answer nobody who asks for views or ballots, ours among them."""
        serve = hub.serve[Kind.PULL_STAGE]

        async def serve_others(peer: PeerId, body: bytes) -> tuple[bytes, Loan | None]:
            request: StageRequest = decode(body, StageRequest)
            if request.position.stage.phase in self.SHOWN and self.is_due(self.newest_round):
                await trio.sleep_forever()
            return await serve(peer, body)

        hub.serve[Kind.PULL_STAGE] = serve_others
        await super().accompany(hub)

    def payload(self, stage: Stage, roster: Roster, payload: AnyPayload) -> AnyPayload:
        """Return the payload, and learn the roster."""
        self._roster = roster
        return payload

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
        """Return nothing of a view or a ballot, and show them later."""
        stage = message.slot.stage
        self._coalition.put("keys", identity.peer_id, tuple(map(float, identity.seed)))
        if stage.phase not in self.SHOWN or not self.act_in(stage) or self.nursery is None:
            return message.envelope
        if stage not in self._shown:
            self._shown.add(stage)
            self._prepare(message, self.nursery)
        return None

    def _prepare(self, message: SignedMessage, nursery: trio.Nursery) -> None:
        stage = message.slot.stage
        if stage.phase is Phase.VIEW:
            self._view = message, trio.current_time()
        elif self._view is not None and self._view[0].slot.stage == stage._replace(phase=Phase.VIEW):
            view, entered = self._view
            nursery.start_soon(self._show_late, Cast(view, message), entered)

    async def _show_late(self, cast: Cast, entered: float) -> None:
        for fellow in self._find_fellows():
            if fellow.peer_id != cast.sender:
                cast = cast.countersigned(fellow)
        last = OPENING + STEP * (len(cast.signers) - 1)
        await trio.sleep_until(entered + (last - MARGIN) * self._delay_s)
        for peer in self.victims:
            if self.is_chosen(peer):
                self.note_act(self.newest_round)
                self.send_all_the_same(peer, Kind.CHAIN, cast.encode())

    def _find_fellows(self) -> Sequence[Identity]:
        """The members of the coalition that still are in the roster."""
        keys = self._coalition.get("keys")
        return [Identity(bytes(map(int, keys[peer]))) for peer in sorted(keys) if peer in self._roster]
