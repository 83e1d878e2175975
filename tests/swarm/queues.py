"""A network in which everybody has so much bandwidth in each direction and no more: what is sent waits its turn."""

from collections import defaultdict

import trio

from btard.identity import PeerId
from btard.net import Message


class Queues:
    """One queue out of every peer and one into it; only payloads take time, as control messages go first."""

    def __init__(self, bandwidth: float) -> None:
        self._bandwidth = bandwidth
        self._sent: dict[PeerId, float] = defaultdict(float)
        self._received: dict[PeerId, float] = defaultdict(float)

    def carry(self, sender: PeerId, receiver: PeerId, size: int, now: float) -> float:
        """Return when something has arrived that is sent at ``now``, after all that was sent before."""
        takes = size / self._bandwidth
        self._sent[sender] = max(self._sent[sender], now) + takes
        self._received[receiver] = max(self._sent[sender], self._received[receiver] + takes)
        return self._received[receiver]

    def deliver(self, sender: PeerId, receiver: PeerId, message: Message) -> float:
        """Be a ``Delivery``."""
        if message.payload is None:
            return 0.0
        now = trio.current_time()
        return self.carry(sender, receiver, len(message.payload), now) - now
