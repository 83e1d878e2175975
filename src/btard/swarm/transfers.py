"""The services that receive, from before a peer is a member on: others may begin earlier than we."""

from dataclasses import dataclass

from btard.identity import PeerId
from btard.net import Hub
from btard.swarm.broadcast import Broadcast
from btard.swarm.gather import Parts
from btard.swarm.ledger import Ledger
from btard.swarm.membership import Membership
from btard.swarm.scatter import Slices


@dataclass(frozen=True)
class Transfers:
    """The services that receive: messages, slices, aggregates."""

    broadcast: Broadcast
    slices: Slices
    parts: Parts

    @classmethod
    def open(cls, member: Membership, hub: Hub, ledger: Ledger) -> "Transfers":
        """Begin to receive what belongs to round 1."""
        config = member.config
        broadcast = Broadcast(config, member.identity, hub, ledger, member.conduct)
        notify = broadcast.board.signal
        conduct = member.conduct

        def offers(number: int, peer: PeerId) -> bool:
            return conduct.sends_slice(number, peer) and conduct.publishes_slice(number)

        slices = Slices(config, hub, notify, offers, broadcast.is_member)
        transfers = cls(broadcast, slices, Parts(config, hub, notify, broadcast.is_member))
        transfers.slices.begin_round(0, config.genesis_size)
        transfers.parts.begin_attempt(0, 0, config.genesis_size)
        return transfers
