"""A hostile swarm in which recoveries come about, and what it carried and settled."""

from collections import Counter
from pathlib import Path

import pytest
from tests.swarm.hostile_swarm import HostileSwarm

from btard.identity import PeerId
from btard.net import Message
from btard.rules.evidence import Departure
from btard.rules.messages import Phase, Stage
from btard.sim import Outcome, PeerOutcome
from btard.swarm.audit import audit_ledger
from btard.swarm.conduct import Conduct
from btard.swarm.events import Event, Recovered, RunStarted
from btard.swarm.frames import Kind
from btard.swarm.ledger import Ledger
from btard.wire import open_message

Z, W = 1, 3
"""Z acts in recoveries; W brings them about."""


class Mute(Conduct):
    """Says nothing from a phase of round 2 on."""

    def says(self, stage: Stage) -> bool:
        return stage.round == 1 or (stage.round == 2 and stage.phase < Phase.REVEAL)


class KeepsBallot(Conduct):
    """Shows its views and votes for nothing."""

    def says(self, stage: Stage) -> bool:
        return stage.phase is not Phase.BALLOT


class Watcher:
    """What a network carried and what honest members saw."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path, size: int, **conducts: Conduct) -> None:
        self.frames: Counter[Kind | Phase] = Counter()
        behaviours = {{"z": Z, "w": W}[name]: conduct for name, conduct in conducts.items()}
        config = {"genesis_size": size, "validators": 0, "rounds": 3}
        self.hostile = HostileSwarm(monkeypatch, directory, config, conducts=behaviours, watch=self.close_mouth)
        self.directory, self.late = directory, dict[PeerId, float]()
        self.hostile.swarm.network.delivery = self.deliver

    def close_mouth(self, index: int, event: Event) -> None:
        """Let nobody pull from Z what it shows late."""
        if index == Z and self.late and isinstance(event, RunStarted):
            del self.hostile.hubs[self.hostile.peers[Z]].serve[Kind.PULL_STAGE]

    def deliver(self, sender: PeerId, receiver: PeerId, message: Message) -> float:
        """Count control frames; show Z's views late to those named in ``late``."""
        if message.payload is None and message.kind == Kind.MESSAGE:
            phase = open_message(self.hostile.config.run_id, bytes(message.head)).slot.stage.phase
            self.frames[phase] += 1
            if phase is Phase.VIEW and sender == self.hostile.peers[Z]:
                return self.late.get(receiver, 0.0)
        elif message.payload is None and message.kind in set(Kind):
            self.frames[Kind(message.kind)] += 1
        return 0.0

    async def run(self) -> Outcome:
        """Run to the end; all honest members must agree and every ledger must hold."""
        outcome = await self.hostile.run()
        assert [peer.error for peer in outcome.honest] == [None] * len(outcome.honest)
        assert len(outcome.state_roots) == 1
        assert len({peer.state.roster for peer in outcome.honest if peer.state}) == 1
        for peer in outcome.honest:
            assert audit_ledger(self.directory / f"peer-{peer.index}").problems == ()
        return outcome


def find_recoveries(outcome: Outcome) -> list[Recovered]:
    """Every recovery that an honest member came through."""
    return [event for peer in outcome.honest for event in find_recoveries_of(peer)]


def find_recoveries_of(peer: PeerOutcome) -> list[Recovered]:
    """The recoveries that one member came through."""
    return [event for event in peer.events if isinstance(event, Recovered)]


def read_departures(watcher: Watcher, index: int) -> list[Departure]:
    """The departures in a peer's ledger."""
    peer = watcher.hostile.peers[index]
    with Ledger.create(watcher.directory / f"peer-{index}", watcher.hostile.config, peer) as ledger:
        return list(ledger.departures())
