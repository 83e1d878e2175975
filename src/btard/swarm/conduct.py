"""
The steps at which a peer could lie, each as its own small method; here they are all honest.

The swarm calls these and knows nothing more: whoever runs a modified client runs another conduct,
and it is the protocol's business to find that out.
"""

from collections.abc import Callable, Mapping

import trio
from torch import Tensor

from btard.identity import Identity, JoinTicket, PeerId
from btard.net import Hub
from btard.rules.messages import AnyPayload, Report, SignedMessage, Stage
from btard.rules.parts import Part
from btard.rules.roster import Roster
from btard.swarm.state import Gradient


class Conduct:
    """What a peer does where it has a choice. Subclasses change one thing each."""

    async def accompany(self, hub: Hub) -> None:
        """Be one of the peer's tasks for as long as it takes part; an exception ends the peer."""
        await trio.lowlevel.checkpoint()

    def minds_own_words(self) -> bool:
        """Return whether to sign nothing more once others show words of ours that our ledger does not hold."""
        return True

    def payload(self, stage: Stage, roster: Roster, payload: AnyPayload) -> AnyPayload:
        """Return the payload to sign for our slot of a stage; everyone is told the same."""
        return payload

    def commitment(self, round_number: int, gradient: Gradient, chunk_size: int) -> Gradient:
        """Return the gradient to commit to, to scatter and to report on."""
        return gradient

    def says(self, stage: Stage) -> bool:
        """Return whether to say our message of a stage at all."""
        return True

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
        """Return the bytes to send to one recipient in place of a broadcast message; None sends nothing."""
        return message.envelope

    def sends_slice(self, round_number: int, recipient: PeerId) -> bool:
        """Return whether to give a slice to somebody whom it is due to."""
        return True

    def publishes_slice(self, round_number: int) -> bool:
        """Return whether to send a slice to everyone when somebody complains that it is missing."""
        return True

    def sends_part(self, round_number: int, recipient: PeerId) -> bool:
        """Return whether to send our aggregate, privately or when asked to publish it."""
        return True

    def aggregate(self, round_number: int, attempt: int, part: Part, aggregate: Tensor) -> Tensor:
        """Return the aggregate to commit to and to send."""
        return aggregate

    async def reports(
        self, round_number: int, attempt: int, parts: tuple[Part, ...], reports: tuple[Report, ...]
    ) -> tuple[Report, ...]:
        """Return the reports to sign, one for every part."""
        return reports

    async def found(self, round_number: int, attempt: int, part: Part, own: Mapping[PeerId, Report]) -> None:
        """Learn, as an aggregator, the true reports of all contributors on one's own part."""

    def verdict(self, round_number: int, target: PeerId, guilty: bool) -> bool:
        """Return the verdict to sign about a validator's target."""
        return guilty

    def ticket(self, ticket: JoinTicket) -> JoinTicket:
        """Return the join ticket to show, as a stranger that has worked for one."""
        return ticket

    def sample(self, round_number: int, compute: Callable[[], Report]) -> Report:
        """Return what to say, as a candidate, of our gradient, which ``compute`` works out."""
        return compute()

    def charge(self, round_number: int, candidate: PeerId, compute: Callable[[], bool]) -> bool:
        """Return whether to charge a candidate that we were drawn to check, which ``compute`` finds out."""
        return compute()

    def namings(
        self, round_number: int, false_reporters: tuple[PeerId, ...], contributors: tuple[PeerId, ...]
    ) -> tuple[PeerId, ...]:
        """Return the reporters to name in CONFIRM."""
        return false_reporters
