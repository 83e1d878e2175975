"""Who is cut off after it has heard all closing COMMITs does not take that for the end of the run, nor later."""

from pathlib import Path

import msgspec
import trio
from tests.swarm.joining_scenes import SETTINGS, build, find, play, slowly

from btard.errors import Undecided
from btard.identity import PeerId
from btard.net import Hub, Message
from btard.rules.messages import AnyPayload, Holding, Phase, Stage, View
from btard.rules.roster import Roster
from btard.rules.seal import Seal
from btard.sim import LinearTask, SimulatedSwarm
from btard.swarm.conduct import Conduct
from btard.swarm.events import Event, Resumed, RoundDone
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
    """The others go back to the last round without it; it stops as undecided, now and when it is started again alone.

    It keeps no signatures.
    """
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
    again = play(build(tmp_path, {}, {CHEAT: Conduct()}, rounds=ROUNDS, genesis_size=SIZE))
    assert find(again, LOST, Resumed)
    assert {peer.index: type(peer.error) for peer in again.honest if peer.error} == {LOST: Undecided}
    assert "btard-peer evaluate" in str(again.peers[LOST].error)
    assert again.state_roots == outcome.state_roots


def test_who_is_back_when_the_others_are_gone_does_not_end_with_a_state_of_its_own(tmp_path: Path) -> None:
    """Whoever dies after its last round may have been removed since, and nobody is there to tell."""

    def watch(index: int, event: Event) -> None:
        if index == LOST and isinstance(event, RoundDone) and event.round == ROUNDS:
            swarm.crash(LOST, 300.0)

    settings = {**SETTINGS, "rounds": ROUNDS, "genesis_size": SIZE}
    swarm = SimulatedSwarm(settings, LinearTask, tmp_path, delivery=slowly, watch=watch)
    outcome = play(swarm)
    assert {peer.index: type(peer.error) for peer in outcome.peers if peer.error} == {LOST: Undecided}


def test_who_has_the_last_signatures_ends_well_alone(tmp_path: Path) -> None:
    """They are kept when it is settled that all others end with that state, and nobody need be there to say so."""
    first = build(tmp_path, {}, rounds=ROUNDS, genesis_size=SIZE)
    before = play(first)
    with Ledger.create(first.data_dir(LOST), first.config, first.identities[LOST].peer_id) as ledger:
        ledger._database.execute("DELETE FROM endings")
    after = play(build(tmp_path, {}, rounds=ROUNDS, genesis_size=SIZE))
    assert find(after, LOST, Resumed)
    assert [peer.error for peer in after.peers] == [None] * SIZE
    assert after.state_roots == before.state_roots
