"""One cheat that tells members two COMMITs in the first round of a newcomer does not keep it out."""

from pathlib import Path

from msgspec.structs import replace
from tests.swarm.joining_scenes import COMES_S, STRANGER, build, find, play, require_sound

from btard.identity import Identity, PeerId
from btard.rules.evidence import DepartureKind
from btard.rules.messages import Commit, SignedMessage
from btard.sim import SimulatedSwarm
from btard.swarm.conduct import Conduct
from btard.swarm.events import Departed, Promoted
from btard.wire import sign_message

CHEAT = 1


class SignsForSome(Conduct):
    """Signs the seal by which somebody becomes a member, and shows two others a COMMIT without that signature."""

    swarm: SimulatedSwarm

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes:
        """Lie to two of them in that round."""
        said, rounds = message.payload, self.swarm.outcomes[CHEAT].rounds
        newcomers = rounds[-1].result.newcomers if rounds else frozenset()
        is_told = recipient not in [self.swarm.identities[index].peer_id for index in (0, 2)]
        if is_told or not newcomers or not isinstance(said, Commit):
            return message.envelope
        other, stage = replace(said, seal=bytes(64)), message.slot.stage
        return sign_message(identity, run_id, message.roster, stage, message.previous, other).envelope


def test_a_signature_that_some_have_divides_nobody(tmp_path: Path) -> None:
    """All of them seal the round before, some with the cheat's signature; the place that they name is the same."""
    conduct = SignsForSome()
    swarm = conduct.swarm = build(tmp_path, {STRANGER: COMES_S}, {CHEAT: conduct}, rounds=20)
    outcome = play(swarm)
    assert [peer.error for peer in outcome.honest] == [None] * len(outcome.honest)
    assert len(find(outcome, STRANGER, Promoted)) == 1
    gone = [(swarm.identities[CHEAT].peer_id, DepartureKind.BAN)]
    assert [(event.peer, event.kind) for event in find(outcome, 0, Departed)] == gone
    require_sound(swarm, outcome)
