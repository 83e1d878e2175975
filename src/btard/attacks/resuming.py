"""Attacks on swarms that stand still, or do not: RESUMEs that nobody has a reason to say (design section 5)."""

from collections.abc import Callable

from btard.attacks.attacker import Attacker, choose
from btard.identity import Context, Identity, PeerId, digest
from btard.rules.messages import Phase, Position, Resume, SignedMessage, Stage
from btard.swarm.frames import Kind
from btard.wire import sign_message

FAR = 2**53 - 1
"""The largest number that a stage may have."""

Place = Callable[[Stage], Stage]

SERIALS: tuple[Place, ...] = tuple(
    lambda stage, serial=serial: Stage(0, stage.attempt, Phase.RESUME, serial)  # type: ignore[misc]
    for serial in (0, 1, 2, 7)
)
"""Recoveries that may be the next one."""

NOWHERE: tuple[Place, ...] = (
    lambda stage: Stage(0, stage.attempt, Phase.RESUME, FAR),
    lambda stage: Stage(0, stage.attempt + 1, Phase.RESUME, 0),
    lambda stage: Stage(0, max(0, stage.attempt - 1), Phase.RESUME, 0),
    lambda stage: Stage(0, FAR, Phase.RESUME, FAR),
    lambda stage: Stage(stage.round, stage.attempt, Phase.RESUME, 0),
)
"""Recoveries that will not come, or are long past."""


class ResumeAlways(Attacker):
    """Says in every round that it is halted and ready for a recovery, though nothing is.

    With ``is_absurd`` for attempts and serials that are far or past, a roster that does not exist, from a place where
    nobody can wait, missing members that there are not.
    """

    PHASES = frozenset({Phase.AGGREGATE, Phase.CHECK})

    def __init__(self, first_round: int, seed: int, *, is_absurd: bool = False) -> None:
        super().__init__(first_round)
        self._seed, self._is_absurd = seed, is_absurd

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
        """Return the message, and say RESUME beside it."""
        stage = message.slot.stage
        if stage.phase in self.PHASES and self.act_in(stage) and self.hub is not None:
            self.note_act(stage.round)
            self.hub.send(recipient, Kind.RESUME, self._sign_resume(message, identity, run_id))
        return message.envelope

    def _sign_resume(self, message: SignedMessage, identity: Identity, run_id: bytes) -> bytes:
        stage, roster = message.slot.stage, message.roster
        place = choose(NOWHERE if self._is_absurd else SERIALS, self._seed, tuple(stage))(stage)
        content = Resume(Position(*map(int, stage)), ())
        if self._is_absurd:
            stranger = digest(Context.EXPAND, b"a stranger", roster)
            roster = choose((roster, stranger), self._seed, tuple(stage))
            content = Resume(Position(FAR, FAR, int(Phase.RESUME), FAR), (stranger, identity.peer_id))
        return sign_message(identity, run_id, roster, place, b"", content).envelope
