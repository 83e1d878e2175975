"""What attackers learn from messages: they hear everything that their peer receives, as any modified client does."""

from btard.attacks.attacker import Attacker
from btard.errors import RemoteProtocolError
from btard.identity import PeerId
from btard.net import Hub
from btard.rules.messages import Commit, Phase, SignedMessage, Slot
from btard.swarm.frames import Kind
from btard.wire import open_message

ROUNDS_HEARD = 3
"""Rounds of which messages are remembered."""


class Eavesdrop(Attacker):
    """An attacker that keeps the messages of the latest rounds, by slot."""

    def __init__(self, first_round: int, run_id: bytes) -> None:
        super().__init__(first_round)
        self._run_id = run_id
        self.heard: dict[Slot, SignedMessage] = {}

    async def accompany(self, hub: Hub) -> None:
        """Listen in on what the hub hands to the protocol."""
        receive = hub.on_control[Kind.MESSAGE]

        def hear(peer: PeerId, envelope: bytes) -> None:
            receive(peer, envelope)
            self._keep(envelope)

        hub.on_control[Kind.MESSAGE] = hear
        await super().accompany(hub)

    def _keep(self, envelope: bytes) -> None:
        try:
            message = open_message(self._run_id, envelope)
        except RemoteProtocolError:
            return
        self.heard[message.slot] = message
        newest = self.round_of(message.slot.stage)
        for slot in [slot for slot in self.heard if slot.stage.round < newest - ROUNDS_HEARD]:
            del self.heard[slot]

    def contributors(self, round_number: int) -> tuple[PeerId, ...]:
        """The others that have committed to a gradient this round, as far as heard, in order."""
        commits = (item for item in self.heard.values() if item.slot.stage[::2] == (round_number, Phase.COMMIT))
        return tuple(sorted(item.sender for item in commits if isinstance(item.payload, Commit) and item.payload.root))
