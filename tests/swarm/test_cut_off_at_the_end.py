"""Who is cut off after it has heard all closing COMMITs does not take that for the end of the run."""

from pathlib import Path

import msgspec
import trio
from tests.swarm.joining_scenes import build, play

from btard.errors import Undecided
from btard.identity import PeerId
from btard.net import Hub, Message
from btard.rules.messages import AnyPayload, Holding, Phase, Stage, View
from btard.rules.roster import Roster
from btard.rules.seal import Seal
from btard.sim import SimulatedSwarm
from btard.swarm.conduct import Conduct
from btard.swarm.frames import Kind
from btard.swarm.ledger import Ledger
from btard.wire import open_message

ROUNDS, SIZE, CHEAT, LOST = 2, 5, 1, 3


class ShowsNothing(Conduct):
    """One cheat, whose only lie is a view that shows nothing; a member that was started again shows as little."""

    swarm: SimulatedSwarm

    def __init__(self) -> None:
        self.cut = trio.Event()

    async def accompany(self, hub: Hub) -> None:
        """Cut the links of one member when it has said AGREE to nobody."""
        await self.cut.wait()
        self.swarm.network.disconnect(self.swarm.identities[LOST].peer_id)

    def payload(self, stage: Stage, roster: Roster, payload: AnyPayload) -> AnyPayload:
        """Show holdings of nothing."""
        if isinstance(payload, View):
            lie = tuple(Holding(item.position, tuple(b"" for _ in item.digests)) for item in payload.holdings)
            return msgspec.structs.replace(payload, holdings=lie)
        return payload


def test_who_is_cut_off_at_the_end_does_not_end_with_a_state_of_its_own(tmp_path: Path) -> None:
    """The others go back to the last round without it; it stops as undecided, and keeps no signatures."""
    cheat = ShowsNothing()
    cut = [False]

    def deliver(sender: PeerId, receiver: PeerId, message: Message) -> float | None:
        lost = swarm.identities[LOST].peer_id
        if sender == lost and message.payload is None and message.kind == Kind.MESSAGE:
            stage = open_message(swarm.config.run_id, message.head).slot.stage
            cut[0] = cut[0] or stage.round == ROUNDS + 1
            if stage.phase is Phase.AGREE:
                cheat.cut.set()
        if sender == lost and cut[0]:
            return None
        return 0.01 if receiver == lost else 0.05

    swarm = build(tmp_path, {}, {CHEAT: cheat}, delivery=deliver, rounds=ROUNDS, genesis_size=SIZE)
    cheat.swarm = swarm
    outcome = play(swarm)
    signed = set[Seal]()
    for peer in outcome.honest:
        with Ledger.create(swarm.data_dir(peer.index), swarm.config, peer.peer) as ledger:
            seal = ledger.newest_seal()
            assert seal is not None
            signed |= {seal} if ledger.signatures(ROUNDS) else set()
    assert len(signed) == 1
    assert {peer.index: type(peer.error) for peer in outcome.honest if peer.error} == {LOST: Undecided}
    assert len(outcome.state_roots) == 1
