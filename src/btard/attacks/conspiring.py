"""A coalition that acts as one: a plan drawn from a seed tells every member what to do in every round."""

from collections.abc import Mapping, Sequence

import trio
from torch import Tensor

from btard.attacks.attacker import Attacker, choose
from btard.attacks.coalition import Coalition
from btard.identity import Identity, PeerId
from btard.net import Hub
from btard.rules.messages import AnyPayload, Report, SignedMessage, Stage
from btard.rules.parts import Part
from btard.rules.roster import Roster
from btard.swarm.state import Gradient

LIE_LOW = ""
TOPIC = "conspirators"

TACTICS: tuple[tuple[str, ...], ...] = (
    (LIE_LOW,),
    ("collude",),
    ("collude-with-norms",),
    ("complain-at-scatter",),
    ("complain-at-gather",),
    ("halt-always", "lie-in-view", "lie-in-ballot"),
    ("halt-always", "late"),
    ("halt-always", "equivocate-in-halves"),
    ("withhold-from-one",),
    ("withhold-part", "attest-all"),
    ("withhold", "attest-all"),
    ("complain-at-scatter", "attest-nothing"),
    ("wrong-aggregate", "vote-against", "vote-against"),
    ("sign-flip", "lazy-validator"),
    ("false-accusation",),
    ("lying-projection", "vote-against", "attest-nothing"),
    ("late",),
    ("flap",),
    ("withhold-reveal", "lie-in-view", "lie-in-ballot"),
    ("poison-reports", "poison-aggregate"),
    ("equivocate-in-halves",),
)
"""What the coalition does in a round: its members take the roles in turn. Roles are kinds of adversaries."""


class Conspire(Attacker):
    """One member. ``roles`` are the attackers that it can be; those of a tactic act in their rounds only."""

    def __init__(
        self,
        first_round: int,
        seed: int,
        me: PeerId,
        coalition: Coalition,
        roles: Mapping[str, Attacker],
        tactics: Sequence[tuple[str, ...]] = TACTICS,
    ) -> None:
        super().__init__(first_round)
        self._seed, self._me, self._coalition, self._tactics = seed, me, coalition, tuple(tactics)
        self._roles, self._honest = dict(roles), Attacker(first_round)
        coalition.put(TOPIC, me, ())
        for role in self._roles.values():
            role.on_first_act = self.note_act

    def role_in(self, round_number: int) -> Attacker:
        """Return what the plan has us do in a round."""
        if not self.is_due(round_number):
            return self._honest
        tactic = choose(self._tactics, self._seed, "tactic", round_number)
        rank = sorted(self._coalition.get(TOPIC)).index(self._me)
        name = tactic[(rank + round_number) % len(tactic)]
        return self._roles.get(name, self._honest)

    def _role_at(self, stage: Stage) -> Attacker:
        return self.role_in(self.round_of(stage))

    async def accompany(self, hub: Hub) -> None:
        """Let every role be ready."""
        async with trio.open_nursery() as nursery:
            for role in self._roles.values():
                nursery.start_soon(role.accompany, hub)
            await super().accompany(hub)

    def commitment(self, round_number: int, gradient: Gradient, chunk_size: int) -> Gradient:
        """See the role."""
        return self.role_in(round_number).commitment(round_number, gradient, chunk_size)

    def payload(self, stage: Stage, roster: Roster, payload: AnyPayload) -> AnyPayload:
        """See the role."""
        return self._role_at(stage).payload(stage, roster, payload)

    def says(self, stage: Stage) -> bool:
        """See the role."""
        return self._role_at(stage).says(stage)

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
        """See the role."""
        return self._role_at(message.slot.stage).deliver(message, recipient, identity, run_id)

    def sends_slice(self, round_number: int, recipient: PeerId) -> bool:
        """See the role."""
        return self.role_in(round_number).sends_slice(round_number, recipient)

    def publishes_slice(self, round_number: int) -> bool:
        """See the role."""
        return self.role_in(round_number).publishes_slice(round_number)

    def sends_part(self, round_number: int, recipient: PeerId) -> bool:
        """See the role."""
        return self.role_in(round_number).sends_part(round_number, recipient)

    def aggregate(self, round_number: int, attempt: int, part: Part, aggregate: Tensor) -> Tensor:
        """See the role."""
        return self.role_in(round_number).aggregate(round_number, attempt, part, aggregate)

    async def reports(
        self, round_number: int, attempt: int, parts: tuple[Part, ...], reports: tuple[Report, ...]
    ) -> tuple[Report, ...]:
        """See the role."""
        return await self.role_in(round_number).reports(round_number, attempt, parts, reports)

    async def found(self, round_number: int, attempt: int, part: Part, own: Mapping[PeerId, Report]) -> None:
        """See the role."""
        await self.role_in(round_number).found(round_number, attempt, part, own)

    def verdict(self, round_number: int, target: PeerId, guilty: bool) -> bool:
        """Protect a fellow; see the role for all others."""
        if target in self._coalition.get(TOPIC) and self.is_due(round_number):
            return False
        return self.role_in(round_number).verdict(round_number, target, guilty)

    def namings(
        self, round_number: int, false_reporters: tuple[PeerId, ...], contributors: tuple[PeerId, ...]
    ) -> tuple[PeerId, ...]:
        """See the role; fellows are not named."""
        fellows = self._coalition.get(TOPIC)
        named = self.role_in(round_number).namings(round_number, false_reporters, contributors)
        return tuple(peer for peer in named if peer not in fellows) if self.is_due(round_number) else named
