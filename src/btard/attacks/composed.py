"""Several attackers in one peer: each changes one thing, and nothing keeps a cheat from doing several."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import trio
from torch import Tensor

from btard.attacks.attacker import Attacker
from btard.identity import Identity, JoinTicket, PeerId
from btard.net import Hub
from btard.rules.messages import AnyPayload, Report, SignedMessage, Stage
from btard.rules.parts import Part
from btard.rules.roster import Roster
from btard.swarm.state import Gradient


class Composed(Attacker):
    """Does what its members do, in their order: each works on what the one before made of it.

    Where bytes are sent the first member that changes them decides, for the others know only messages.
    """

    def __init__(self, members: Sequence[Attacker]) -> None:
        super().__init__(min(member.first_round for member in members))
        self.members = tuple(members)
        self.kind = "+".join(member.kind for member in members)
        for member in members:
            member.on_first_act, member.on_taken_back = self.note_act, self.take_back

    async def accompany(self, hub: Hub) -> None:
        """Run the tasks of all members."""
        async with trio.open_nursery() as nursery:
            for member in self.members:
                nursery.start_soon(member.accompany, hub)
            await super().accompany(hub)

    def take_back(self, round_number: int) -> None:
        """Count no act of this round unless another member's stands."""
        if all(member.acted_in_round is None for member in self.members):
            super().take_back(round_number)

    def commitment(self, round_number: int, gradient: Gradient, chunk_size: int) -> Gradient:
        """Return what all make of the gradient."""
        for member in self.members:
            gradient = member.commitment(round_number, gradient, chunk_size)
        return gradient

    def payload(self, stage: Stage, roster: Roster, payload: AnyPayload) -> AnyPayload:
        """Return what all make of the payload."""
        for member in self.members:
            payload = member.payload(stage, roster, payload)
        return payload

    def says(self, stage: Stage) -> bool:
        """Return whether all would say it."""
        return not [member for member in self.members if not member.says(stage)]

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
        """Return the first change of the bytes."""
        sent = [member.deliver(message, recipient, identity, run_id) for member in self.members]
        return next((item for item in sent if item != message.envelope), message.envelope)

    def sends_slice(self, round_number: int, recipient: PeerId) -> bool:
        """Return whether all would send it."""
        return not [member for member in self.members if not member.sends_slice(round_number, recipient)]

    def publishes_slice(self, round_number: int) -> bool:
        """Return whether all would publish it."""
        return not [member for member in self.members if not member.publishes_slice(round_number)]

    def sends_part(self, round_number: int, recipient: PeerId) -> bool:
        """Return whether all would send it."""
        return not [member for member in self.members if not member.sends_part(round_number, recipient)]

    def aggregate(self, round_number: int, attempt: int, part: Part, aggregate: Tensor) -> Tensor:
        """Return what all make of the aggregate."""
        for member in self.members:
            aggregate = member.aggregate(round_number, attempt, part, aggregate)
        return aggregate

    async def reports(
        self, round_number: int, attempt: int, parts: tuple[Part, ...], reports: tuple[Report, ...]
    ) -> tuple[Report, ...]:
        """Return what all make of the reports."""
        for member in self.members:
            reports = await member.reports(round_number, attempt, parts, reports)
        return reports

    async def found(self, round_number: int, attempt: int, part: Part, own: Mapping[PeerId, Report]) -> None:
        """Let all know."""
        for member in self.members:
            await member.found(round_number, attempt, part, own)

    def verdict(self, round_number: int, target: PeerId, guilty: bool) -> bool:
        """Return what all make of the verdict."""
        return _fold([partial(member.verdict, round_number, target) for member in self.members], guilty)

    def ticket(self, ticket: JoinTicket) -> JoinTicket:
        """Return what all make of the ticket."""
        for member in self.members:
            ticket = member.ticket(ticket)
        return ticket

    def sample(self, round_number: int, compute: Callable[[], Report]) -> Report:
        """Return what all make of the sample."""
        for member in self.members:
            compute = partial(member.sample, round_number, compute)
        return compute()

    def charge(self, round_number: int, candidate: PeerId, compute: Callable[[], bool]) -> bool:
        """Return what all make of the charge."""
        for member in self.members:
            compute = partial(member.charge, round_number, candidate, compute)
        return compute()

    def namings(
        self, round_number: int, false_reporters: tuple[PeerId, ...], contributors: tuple[PeerId, ...]
    ) -> tuple[PeerId, ...]:
        """Return what all make of the namings."""
        for member in self.members:
            false_reporters = member.namings(round_number, false_reporters, contributors)
        return false_reporters


def _fold(steps: Sequence[Callable[[bool], bool]], value: bool) -> bool:
    for step in steps:
        value = step(value)
    return value
