"""A relay answers for all that it does not say it lacks, and has that on its disk: cheats alone may have it too."""

from pathlib import Path

import pytest
import trio
from msgspec.structs import replace
from tests.swarm.hostile_swarm import HostileSwarm, alter_said
from tests.swarm.restarts import read_said

from btard.identity import PeerId
from btard.net import Loan, Message
from btard.rules.evidence import DepartureKind
from btard.rules.messages import Aggregate, AnyPayload, Phase, Reveal, Stage
from btard.sim import Outcome
from btard.swarm import aggregation, bound_data
from btard.swarm.conduct import Conduct
from btard.swarm.events import Event, Resumed, RunStarted
from btard.swarm.frames import Kind
from btard.swarm.ledger_files import SMALL_BLOB
from btard.swarm.services import Services
from btard.swarm.state import Work

Clock = trio.testing.MockClock
X, Y = 3, 4
CONFIG = {"genesis_size": 5, "rounds": 5, "validators": 0}


class GivesToTheRelay(Conduct):
    """Gives its aggregate to nobody but one member, in one round."""

    round, relay = 0, PeerId(b"")

    def sends_part(self, round_number: int, recipient: PeerId) -> bool:
        """Return whether it is that member."""
        return round_number != self.round or recipient == self.relay


class MarkedCheats(HostileSwarm):
    """Two cheats that complain about each other in round 2, and about their relay in round 3."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path, phase: Phase) -> None:
        self.phase, self.owner, self.relay, self.part = phase, GivesToTheRelay(), PeerId(b""), -1
        super().__init__(
            monkeypatch, directory, CONFIG, conducts={X: Conduct(), Y: self.owner}, watch=self._keep_to_itself
        )
        self.swarm.network.delivery = self._deliver
        self._scatter_to_relays = aggregation.scatter_to_relays
        monkeypatch.setattr(aggregation, "scatter_to_relays", self._scatter)
        alter_said(monkeypatch, self, self._complain)

    def _keep_to_itself(self, who: int, event: Event) -> None:
        """Have the two answer nobody who asks for data."""

        async def refuse(peer: PeerId, body: bytes) -> tuple[bytes, Loan | None]:
            return b"", None

        if who in (X, Y) and isinstance(event, RunStarted | Resumed):
            for kind in (Kind.PULL_SLICE, Kind.PULL_PART):
                self.hubs[self.peers[who]].serve[kind] = refuse

    def _scatter(self, services: Services, work: Work) -> None:
        """See who relays for the two, and for which part of theirs."""
        if work.round == 3 and not self.relay:
            self.relay = work.relays.between(self.peers[X], self.peers[Y]) or self.relay
            self.part = work.part_of(self.peers[Y]).index
            if self.phase is Phase.REVEAL:
                self.owner.round, self.owner.relay = work.round, self.relay
        self._scatter_to_relays(services, work)

    def _complain(self, who: int, stage: Stage, payload: AnyPayload) -> AnyPayload:
        is_first = (stage.round, stage.attempt) in ((2, 0), (3, 1))
        if who != X or not is_first:
            return payload
        if isinstance(payload, Aggregate) and (stage.round == 2 or self.phase is Phase.AGGREGATE):
            return replace(payload, root=b"", norm=0.0, missing=(self.peers[Y],))
        if isinstance(payload, Reveal) and stage.round == 3 and self.phase is Phase.REVEAL:
            return replace(payload, missing=(self.part,))
        return payload

    def _deliver(self, sender: PeerId, receiver: PeerId, message: Message) -> float:
        said = read_said(self.swarm, message)
        is_late = said is not None and said.slot.stage.phase is self.phase and sender == self.peers[X]
        return 0.9 if is_late else 0.1

    def kill_the_relay(self) -> list[int]:
        """Kill the relay when the first one hears it say the phase; the list then holds who that was."""
        killed, before = list[int](), self.swarm.network.on_arrival

        def kill(sender: PeerId, receiver: PeerId, message: Message, now: float) -> None:
            before(sender, receiver, message, now)
            said = None if killed or not self.relay else read_said(self.swarm, message)
            if said is not None and said.sender == self.relay and said.slot.stage.phase is self.phase:
                killed.append(self.peers.index(said.sender))
                self.swarm.crash(killed[0], 0.3)

        self.swarm.network.on_arrival = kill
        return killed


def require_honest_present(outcome: Outcome) -> None:
    """No honest member left, and all finished all rounds."""
    gone = {**outcome.departures(DepartureKind.BAN), **outcome.departures(DepartureKind.REMOVAL)}
    assert set(gone) <= outcome.byzantine
    assert {peer.index: (peer.error, peer.rounds[-1].round) for peer in outcome.honest} == dict.fromkeys(
        range(3), (None, CONFIG["rounds"])
    )


@pytest.mark.parametrize("phase", [Phase.AGGREGATE, Phase.REVEAL], ids=["slice", "aggregate"])
@pytest.mark.parametrize(
    ("crashes", "largest"), [(True, SMALL_BLOB), (True, 0), (False, SMALL_BLOB)], ids=["crash", "files", "no-crash"]
)
async def test_a_relay_that_was_started_again_has_what_it_answers_for(
    crashes: bool, largest: int, phase: Phase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """One cheat says that it got nothing, the other alone has it still, and gives it to nobody."""
    monkeypatch.setattr(bound_data, "SMALL_BLOB", largest)
    hostile = MarkedCheats(monkeypatch, tmp_path, phase)
    killed = hostile.kill_the_relay() if crashes else [0]
    outcome = await hostile.run()
    assert hostile.relay in [hostile.peers[index] for index in range(3)]
    assert killed
    require_honest_present(outcome)
