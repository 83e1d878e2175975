"""Many complaints at once: whoever has the bandwidth that the run asks for publishes all that it is asked for."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace
from tests.attacks.scenario import Scenario, run_scenario
from tests.rules.build import make_config, make_roster, make_transcript
from tests.swarm.queues import Queues

from btard.attacks.complaining import ComplainAtScatter
from btard.identity import PeerId
from btard.rules.complaints import (
    Complaint,
    compute_publication,
    find_gather_complaints,
    find_scatter_complaints,
)
from btard.rules.config import RunConfig
from btard.rules.evidence import Cause
from btard.rules.marks import Marks, make_pair
from btard.rules.messages import Aggregate, AnyPayload, Attest, Phase, Reveal, Stage
from btard.rules.parts import Part, cut_parts
from btard.rules.relays import Relays
from btard.rules.roster import Roster
from btard.sim import SimulatedSwarm
from btard.sim.determinism import run_deterministically
from btard.swarm.frames import SliceHead
from btard.swarm.lending import PATIENCE
from btard.swarm.scatter import Slices
from btard.swarm.services import Deadlines
from btard.wire import decode, encode

Q = b"q" * 32
SIZES = (*range(4, 25), 40, 64)
BANDWIDTH = 40
"""Bytes per second, with which the vector of the simulated task takes 20 s, and Δ is 1 s."""


class Case:
    """A roster of so many, in which as many cheats as there may be have each an honest member marked with it."""

    def __init__(self, members: int) -> None:
        self.roster: Roster = make_roster(members)
        self.config: RunConfig = make_config(
            elements=8 * members * 100 - 50, chunk_size=100, genesis_size=members, min_bandwidth=1000, delay_s=0.5
        )
        self.deadlines = Deadlines.of(self.config, 100)
        self.parts: tuple[Part, ...] = cut_parts(self.config, Q, self.roster, self.roster)
        count = self.roster.tolerated(self.config.byzantine_bound)
        self.cheats, self.honest = self.roster.members[:count], self.roster.members[count:]
        pairs = [make_pair(cheat, peer) for cheat in self.cheats for peer in self.honest[:count]]
        self.relays = {
            "nobody": Relays(Q, self.roster, Marks()),
            "many": Relays(Q, self.roster, Marks().with_pairs(pairs)),
        }

    def scatter(self, marked: str) -> tuple[Complaint, ...]:
        """Every cheat lacks every slice."""
        payloads = {
            peer: Aggregate(b"", 0.0, self.roster.members if peer in self.cheats else (), b"n" * 32, ())
            for peer in self.roster.members
        }
        transcript = make_transcript(Stage(3, 1, Phase.AGGREGATE), payloads)
        return find_scatter_complaints(transcript, self.parts, self.relays[marked])

    def gather(self, marked: str) -> tuple[Complaint, ...]:
        """Every cheat lacks every aggregate."""
        payloads = {
            peer: Reveal(b"n" * 32, tuple(range(len(self.parts))) if peer in self.cheats else ())
            for peer in self.roster.members
        }
        transcript = make_transcript(Stage(3, 1, Phase.REVEAL), payloads)
        return find_gather_complaints(transcript, self.parts, self.relays[marked])

    def publish(self, complaints: tuple[Complaint, ...]) -> float:
        """Return how long it takes until all have all, if everybody begins with the same receiver."""
        queues, last = Queues(self.config.min_bandwidth), 0.0
        asked = sorted({(item.part, item.owner, item.accused) for item in complaints})
        for receiver in self.roster.members:
            for part, _, sender in asked:
                if sender != receiver:
                    last = max(last, queues.carry(sender, receiver, 4 * self.parts[part].elements, 0.0))
        return last + self.config.delay_s


@pytest.mark.parametrize("marked", ["nobody", "many"])
@pytest.mark.parametrize("kind", ["scatter", "gather"])
@pytest.mark.parametrize("members", SIZES)
def test_all_that_is_asked_for_is_published_in_time(members: int, kind: str, marked: str) -> None:
    """The wait, the question after it, the ATTEST after both and the patience of senders suffice for all complaints."""
    case = Case(members)
    complaints = getattr(case, kind)(marked)
    size = compute_publication(complaints, case.parts, case.roster)
    waits, took = case.deadlines.carrying(case.config, size), case.publish(complaints)
    assert complaints
    assert took <= waits.bulk_s
    assert waits.patience_s == PATIENCE * waits.bulk_s
    asked_again_s = waits.bulk_s + 2 * case.config.delay_s
    assert waits.bulk_s + asked_again_s + waits.messages_s + 3 * case.config.delay_s <= waits.bulk
    if kind == "scatter" and members >= 7:  # the bound for one vector would not have been enough, nor a second one
        assert took > case.deadlines.bulk_s + case.deadlines.bulk_s - case.config.delay_s


@pytest.mark.parametrize("members", [24, 40, 64])
def test_all_that_is_published_is_taken(members: int) -> None:
    """Once the complaints are known, each slice that they ask of a member is taken, beyond what it sent unasked."""
    case = Case(members)
    hub: Any = SimpleNamespace(bulk={}, serve={})
    slices = Slices(case.config, hub, lambda: None, lambda *_: True, lambda _peer: True)
    slices.begin_round(3, members)
    accused = case.honest[0]

    def send(part: Part) -> bool:
        head = encode(SliceHead(3, accused, part.chunks.start, part.chunks.stop, ()))
        return slices.sink(accused, head, 4 * part.elements) is not None

    while send(case.parts[0]):
        pass
    asked = {(item.accused, item.owner, case.parts[item.part].chunks) for item in case.scatter("nobody")}
    slices.expect(3, asked)
    published = [part for part in case.parts if (accused, accused, part.chunks) in asked]
    assert len(published) == len(case.cheats)
    assert [send(part) for part in published] == [True] * len(published)
    assert not any(map(send, published))
    slices.expect(3, asked)
    slices.begin_attempt(members)
    assert not any(map(send, published))


def test_one_complaint_takes_hardly_longer_than_a_vector() -> None:
    """A member with one slice to publish to all has about a vector to send."""
    case = Case(16)
    (complaint, *_) = case.scatter("nobody")
    size = compute_publication([complaint], case.parts, case.roster)
    assert 4 * case.config.elements <= size * 1.01 <= 4 * case.config.elements * 1.05


def test_no_complaint_shortens_no_wait() -> None:
    """Where little is asked for, deadlines are those of a vector."""
    case = Case(7)
    assert compute_publication((), case.parts, case.roster) == 0
    assert case.deadlines.carrying(case.config, 0) == case.deadlines


class ComplainAndDeny(ComplainAtScatter):
    """Says that no honest contributor sent it anything, and that nothing was published."""

    def __init__(self, swarm: SimulatedSwarm, cheats: frozenset[int]) -> None:
        super().__init__(2, swarm.config.run_id)
        self._cheats = {swarm.identities[index].peer_id for index in cheats}

    def payload(self, stage: Stage, roster: Roster, payload: AnyPayload) -> AnyPayload:
        """Return what harms honest members most."""
        payload = super().payload(stage, roster, payload)
        if isinstance(payload, Aggregate):
            return replace(payload, missing=tuple(peer for peer in payload.missing if peer not in self._cheats))
        if isinstance(payload, Attest) and self.is_due(self.round_of(stage)):
            return Attest((False,) * len(payload.held))
        return payload


@pytest.mark.parametrize("size", [7, 10])
def test_honest_members_with_the_least_bandwidth_stay(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many cheats as there may be complain about all others at once, and attest to nothing: they go, alone.

    Nobody refuses what is published, though it is more than one may send unasked.
    """
    cheats = frozenset(range(1, size - 1, 2))

    def take(slices: Slices, peer: PeerId, head: bytes, size: int) -> memoryview | None:
        target, item = sink(slices, peer, head, size), decode(head, SliceHead)
        if target is None and slices.get(item.round, item.root, range(item.first, item.stop)) is None:
            refused.append(item)
        return target

    async def run() -> Scenario:
        return await run_scenario(
            tmp_path,
            dict.fromkeys(cheats, lambda swarm, _index: ComplainAndDeny(swarm, cheats)),
            size=size,
            rounds=3,
            delivery=Queues(BANDWIDTH).deliver,
            options={"min_bandwidth": BANDWIDTH, "chunk_size": 2},
        )

    refused, sink = list[SliceHead](), Slices.sink
    monkeypatch.setattr(Slices, "sink", take)
    monkeypatch.setattr("btard.swarm.scatter.SLICES_PER_SENDER", 1)
    scenario = run_deterministically(run, 1)
    scenario.require_sound()
    assert not refused
    for index in cheats:
        assert scenario.departure(index).cause is Cause.TOO_MANY_MARKS
