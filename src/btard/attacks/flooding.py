"""Floods from a member: more than anybody asked for, within the rules of a link or against them."""

from abc import abstractmethod
from collections.abc import Callable

import structlog
import torch

from btard.attacks.attacker import Attacker, choose
from btard.errors import NetworkError
from btard.identity import Context, Identity, PeerId, digest
from btard.net import MAX_CONTROL, Hub
from btard.rules.messages import SignedMessage, Stage
from btard.swarm.frames import Kind, PartHead, SliceHead, SliceRequest
from btard.swarm.state import as_bytes
from btard.wire import encode

log = structlog.get_logger(__name__)

UNKNOWN_KIND = 200
REQUEST_PATIENCE_S = 5.0


def draw_bytes(size: int, *reasons: object) -> bytes:
    """Return ``size`` bytes, the same for equal reasons."""
    block = digest(Context.EXPAND, b"garbage", repr(reasons).encode())
    return (block * (size // len(block) + 1))[:size]


class _Flood(Attacker):
    """Sends ``PER_STAGE`` useless things to each recipient of each of its messages."""

    PER_STAGE = 4

    def __init__(self, first_round: int, seed: int) -> None:
        super().__init__(first_round)
        self._seed = seed
        self._flooded: set[tuple[Stage, PeerId]] = set()

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
        """Return the message, and flood its recipient once in this stage."""
        stage = message.slot.stage
        if self.hub is not None and self.act_in(stage) and (stage, recipient) not in self._flooded:
            self._flooded.add((stage, recipient))
            self.note_act(self.round_of(stage))
            for number in range(self.PER_STAGE):
                self.flood(self.hub, recipient, stage, number)
        return message.envelope

    @abstractmethod
    def flood(self, hub: Hub, recipient: PeerId, stage: Stage, number: int) -> None:
        """Send one useless thing."""


class FloodGarbage(_Flood):
    """Garbage against the rules: what is no message, no certificate, no request; each costs it the link."""

    def flood(self, hub: Hub, recipient: PeerId, stage: Stage, number: int) -> None:
        """Send random bytes of a random size as a control message."""
        reasons = (self._seed, tuple(stage), recipient, number)
        kind = choose((Kind.MESSAGE, Kind.CERTIFICATE, Kind.CONFIG, Kind.HELLO, UNKNOWN_KIND), *reasons)
        size = choose((0, 1, 37, 5_000, 5_000, 5_000, MAX_CONTROL), *reasons)
        hub.send(recipient, kind, draw_bytes(size, *reasons))


class FloodWithinTheRules(_Flood):
    """Whatever a link allows and nobody needs: unknown kinds, unasked slices and parts, requests for nothing."""

    def flood(self, hub: Hub, recipient: PeerId, stage: Stage, number: int) -> None:
        """Send one of them."""
        actions: tuple[Callable[[Hub, PeerId, Stage, int], None], ...] = (
            self._send_unknown,
            self._send_bulk,
            self._send_bulk,
            self._ask,
        )
        choose(actions, self._seed, tuple(stage), recipient, number)(hub, recipient, stage, number)

    def _send_unknown(self, hub: Hub, recipient: PeerId, stage: Stage, number: int) -> None:
        hub.send(recipient, UNKNOWN_KIND, draw_bytes(1_000, tuple(stage), number))

    def _send_bulk(self, hub: Hub, recipient: PeerId, stage: Stage, number: int) -> None:
        root, first = (
            draw_bytes(32, tuple(stage), recipient, number),
            choose(range(8), self._seed, tuple(stage), number),
        )
        heads = {
            Kind.SLICE: encode(SliceHead(stage.round, root, first, first + 1, (root,))),
            Kind.PART: encode(PartHead(stage.round, stage.attempt, first)),
        }
        kind = choose(tuple(heads), self._seed, tuple(stage), recipient, number)
        values = as_bytes(torch.full((choose((1, 8, 4_000), self._seed, number),), torch.nan))
        assert self.nursery is not None
        self.nursery.start_soon(hub.send_bulk, recipient, kind, heads[kind], values)

    def _ask(self, hub: Hub, recipient: PeerId, stage: Stage, number: int) -> None:
        assert self.nursery is not None
        request = encode(SliceRequest(stage.round, draw_bytes(32, number), 0, 1))
        kind = choose((Kind.PULL_SLICE, UNKNOWN_KIND), self._seed, tuple(stage), number)
        self.nursery.start_soon(self._ask_in_vain, hub, recipient, kind, request)

    async def _ask_in_vain(self, hub: Hub, recipient: PeerId, kind: int, request: bytes) -> None:
        try:
            await hub.request(recipient, kind, request, timeout_s=REQUEST_PATIENCE_S)
        except NetworkError as error:
            log.debug("asked in vain", reason=str(error))
