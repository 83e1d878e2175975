"""What the swarm asks of a stranger that wants to join a run; training brings it."""

from collections.abc import Sequence
from typing import Protocol

from btard.identity import JoinTicket
from btard.rules.seal import Seal
from btard.swarm.frames import SignedTuple
from btard.swarm.restoring import Vectors
from btard.swarm.state import State


class Application(Protocol):
    """What a stranger brings: work for a ticket, and a way to the state that a seal names."""

    async def has_begun(self) -> bool:
        """Return whether members show that the run has begun, and not with us."""

    async def find_seal(self) -> Seal:
        """Return the newest seal of the run that we can be certain of."""

    def note_seal(self, seal: Seal) -> None:
        """Let whoever asks how we stand see this seal, which members handed over: the newest that we believe."""

    async def find_line(self, entry: SignedTuple) -> Sequence[SignedTuple]:
        """Return seals that lead to ``entry``, the genesis first, or those that we know if nobody tells them soon."""

    async def make_ticket(self, seal: Seal) -> JoinTicket:
        """Return a ticket on the draw of ``seal``; takes minutes."""

    def spend_ticket(self) -> None:
        """Never show again the ticket that got us a place: it is good for one admission."""

    async def fetch_state(self) -> tuple[int, Vectors]:
        """Return the newest sealed round, x after it and the optimizer's memory, verified against sealed roots."""

    def keep_state(self, state: State) -> None:
        """Have on disk where we begin as a member: a restart replays from there."""
