"""Cheats keep from a member that was started again what it lost; it is back in time, and stays, all the same."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.swarm.restarts import HaltOnce, kill_after, lag, read_said

from btard.attacks.attacker import Attacker
from btard.identity import Identity, PeerId
from btard.net import Message
from btard.rules.evidence import DepartureKind
from btard.rules.messages import Aggregate, AnyPayload, Attest, Phase, Reveal, SignedMessage, Stage, View
from btard.rules.roster import Roster
from btard.sim import LinearTask, SimulatedSwarm
from btard.sim.determinism import run_deterministically
from btard.sim.swarm import Outcome
from btard.swarm.frames import Kind, PartHead
from btard.swarm.ledger_files import LEDGER_FILE
from btard.wire import decode

SETTINGS = {"tau": 2.0, "delta": 20.0, "rounds": 5, "delay_s": 1.0, "validators": 0}


class Starver(Attacker):
    """From when it has a victim on it keeps its slices from it, and its AGGREGATE if ``keeps_words``."""

    def __init__(self, *, keeps_words: bool = False) -> None:
        super().__init__(2)
        self.victim: PeerId | None = None
        self.keeps_words = keeps_words

    def sends_slice(self, round_number: int, recipient: PeerId) -> bool:
        return recipient != self.victim

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
        is_kept = self.keeps_words and recipient == self.victim and message.slot.stage.phase is Phase.AGGREGATE
        return None if is_kept else message.envelope


class HaltingStarver(HaltOnce):
    """Halts once, and later keeps its slices from a victim."""

    victim: PeerId | None = None

    def sends_slice(self, round_number: int, recipient: PeerId) -> bool:
        return recipient != self.victim


class Grumbler(Starver):
    """Says that every part is missing, and that it never came."""

    def payload(self, stage: Stage, roster: Roster, payload: AnyPayload) -> AnyPayload:
        if isinstance(payload, Reveal) and stage.round >= 2:
            return replace(payload, missing=tuple(range(len(roster))))
        return replace(payload, held=(False,) * len(payload.held)) if isinstance(payload, Attest) else payload


class Denier(Attacker):
    """Once somebody is away: overdue in every recovery, and holds nothing but what cheats say."""

    def __init__(self) -> None:
        super().__init__(2)
        self.victim: PeerId | None = None
        self.friends: set[PeerId] = set()

    def payload(self, stage: Stage, roster: Roster, payload: AnyPayload) -> AnyPayload:
        if self.victim is None or not isinstance(payload, View):
            return payload
        holdings = tuple(replace(item, digests=self._keep(roster.members, item.digests)) for item in payload.holdings)
        return replace(payload, overdue=True, holdings=holdings, supplied=())

    def _keep(self, members: tuple[PeerId, ...], digests: tuple[bytes, ...]) -> tuple[bytes, ...]:
        return tuple(item if peer in self.friends else b"" for peer, item in zip(members, digests, strict=False))


class Marker(Starver):
    """Complains once about a member, so that the two are marked; starves it from when it is killed on."""

    def __init__(self, marked: int) -> None:
        super().__init__()
        self.marked, self.has_complained = marked, False
        self.find: PeerId | None = None

    def payload(self, stage: Stage, roster: Roster, payload: AnyPayload) -> AnyPayload:
        if isinstance(payload, Aggregate) and stage.round >= 2 and not self.has_complained and self.find is not None:
            self.has_complained = True
            return replace(payload, root=b"", norm=0.0, missing=(self.find,))
        return payload

    def sends_slice(self, round_number: int, recipient: PeerId) -> bool:
        return self.victim is None


def play(
    tmp_path: Path,
    size: int,
    cheats: dict[int, Attacker],
    killed_in: tuple[Phase, int],
    back_s: float,
    settings: dict[str, object] | None = None,
) -> Outcome:
    """Member 2 is killed once it has said something in a round, and back after some seconds, among cheats."""
    swarm = SimulatedSwarm(
        {**SETTINGS, "genesis_size": size, **(settings or {})}, LinearTask, tmp_path, conducts=cheats, delivery=lag
    )
    victim = swarm.identities[2].peer_id
    for cheat in cheats.values():
        if isinstance(cheat, Denier):
            cheat.friends = {swarm.identities[index].peer_id for index in cheats}
        if isinstance(cheat, Marker):
            cheat.find = victim

    def begin() -> None:
        for cheat in cheats.values():
            cheat.victim = victim

    killed = kill_after(swarm, 2, *killed_in, back_s, begin)
    outcome = run_deterministically(swarm.run, 1)
    assert killed
    return outcome


def choose(size: int) -> range:
    """As many cheats as there may be, the victim not among them."""
    return range(1, size - 1, 2)


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("keeps_words", [True, False])
def test_its_slices_before_it_has_reduced_them(tmp_path: Path, size: int, keeps_words: bool) -> None:
    """It hears of f members that they went on, never of one more, and waits no longer than the first recovery."""
    cheats = {index: Starver(keeps_words=keeps_words) for index in choose(size)}
    outcome = play(tmp_path, size, cheats, (Phase.COMMIT, 2), 3.0)
    assert 2 not in outcome.departures(DepartureKind.REMOVAL)


@pytest.mark.parametrize("phase", [Phase.AGGREGATE, Phase.REVEAL, Phase.CHECK, Phase.CONFIRM])
@pytest.mark.parametrize("bandwidth", [1_000_000, 400])
@pytest.mark.parametrize("size", [3, 6])
def test_its_slices_after_it_has_reduced_them(tmp_path: Path, phase: Phase, bandwidth: int, size: int) -> None:
    """Cheats that had given their slices keep them now: its aggregate is on disk, so it needs none of them."""
    cheats = {index: Starver() for index in (1, 4)[: size // 3]}
    outcome = play(tmp_path, size, cheats, (phase, 2), 4.0, {"min_bandwidth": bandwidth})
    assert 2 not in outcome.departures(DepartureKind.REMOVAL)
    assert outcome.peers[2].error is None


@pytest.mark.parametrize("phase", [Phase.AGGREGATE, Phase.REVEAL])
def test_its_part_that_nobody_has_got_yet(tmp_path: Path, phase: Phase) -> None:
    """Its own part is still on its way when it dies; it goes out once more, and nobody complains."""
    swarm = SimulatedSwarm({**SETTINGS, "genesis_size": 5}, LinearTask, tmp_path)
    victim, backs = swarm.identities[2].peer_id, list[int]()

    def delay(sender: bytes, _receiver: bytes, message: Message) -> float | None:
        is_lost = sender == victim and message.kind == Kind.PART and not backs
        return None if is_lost and decode(message.head, PartHead).round == 2 else 0.1

    swarm.network.delivery, swarm.before_restart = delay, backs.append
    killed = kill_after(swarm, 2, phase, 2, 4.0)
    outcome = run_deterministically(swarm.run, 1)
    assert killed
    assert not outcome.departures(DepartureKind.REMOVAL)
    assert all(peer.state is not None and not peer.state.marks.pairs for peer in outcome.honest)


def test_its_part_on_a_disk_that_changed_it(tmp_path: Path) -> None:
    """What is not what it committed to it does not send; the others have the right one, and give it back."""
    swarm = SimulatedSwarm({**SETTINGS, "genesis_size": 5}, LinearTask, tmp_path, delivery=lag)

    def spoil(index: int) -> None:
        with closing(sqlite3.connect(swarm.data_dir(index) / LEDGER_FILE)) as database:
            database.execute("UPDATE part SET aggregate = zeroblob(length(aggregate))")
            database.commit()

    swarm.before_restart = spoil
    killed = kill_after(swarm, 2, Phase.CHECK, 2, 3.0)
    outcome = run_deterministically(swarm.run, 1)
    assert killed
    assert all(not peer.departures and peer.error is None for peer in outcome.peers)
    assert len(outcome.state_roots) == 1


@pytest.mark.parametrize("back_s", [3.0, 12.0])
def test_its_slices_where_nobody_is_excused_any_more(tmp_path: Path, back_s: float) -> None:
    """A HALT over nothing has spent what excuses it for being behind: it waits for nobody, and is back in time."""
    cheats = {1: HaltingStarver(2, 0), 4: Starver()}
    outcome = play(tmp_path, 6, cheats, (Phase.COMMIT, 3), back_s, {"min_bandwidth": 40})
    assert cheats[1].acted_in_round == 2
    assert 2 not in outcome.departures(DepartureKind.REMOVAL)


@pytest.mark.parametrize("size", [3, 5])
def test_its_part_which_others_hold(tmp_path: Path, size: int) -> None:
    """What it is to publish and cannot reduce again, it asks them for."""
    outcome = play(tmp_path, size, {index: Grumbler() for index in choose(size)}, (Phase.REVEAL, 2), 1.0)
    assert 2 not in outcome.departures(DepartureKind.REMOVAL)


@pytest.mark.parametrize("phase", [Phase.AGGREGATE, Phase.REVEAL, Phase.CHECK])
@pytest.mark.parametrize("size", [3, 5])
def test_what_the_others_hold(tmp_path: Path, phase: Phase, size: int) -> None:
    """It is back and shows nothing yet of the stage of the others, whom f cheats cannot outvote for that."""
    cheats = {index: Denier() for index in choose(size)}
    outcome = play(tmp_path, size, cheats, (phase, 2), 8.0)
    assert not outcome.departures(DepartureKind.REMOVAL).keys() - {2, *cheats}
    assert all(peer.error is None for peer in outcome.honest if peer.index != 2)


def test_what_a_relay_should_pass_on(tmp_path: Path) -> None:
    """Marked with the cheat, it is owed its slice by a relay, to which the cheat gives nothing."""
    outcome = play(tmp_path, 6, {1: Marker(2)}, (Phase.COMMIT, 4), 3.0, {"rounds": 6})
    assert 2 not in outcome.departures(DepartureKind.REMOVAL)


@pytest.mark.parametrize("bound", [1, 2])
def test_nobody_marks_whoever_starts_slowly_after_a_power_cut(tmp_path: Path, bound: int) -> None:
    """Three had said AGGREGATE when the power went: that does not mean that they went on without the sixth."""
    swarm = SimulatedSwarm({**SETTINGS, "genesis_size": 6, "max_byzantine": bound}, LinearTask, tmp_path)
    places = {identity.peer_id: index for index, identity in enumerate(swarm.identities)}
    cut, said = list[float](), set[PeerId]()

    def delay(_sender: bytes, receiver: bytes, message: Message) -> float:
        if message.payload is None or cut:
            return 0.1
        index = places[PeerId(receiver)]
        return 0.1 + 0.3 * index if index < 3 else 2.5

    def watch(_sender: bytes, _receiver: bytes, message: Message, now: float) -> None:
        heard = None if cut else read_said(swarm, message)
        if heard is None:
            return
        if (heard.slot.stage.round, heard.slot.stage.phase) == (2, Phase.AGGREGATE):
            said.add(heard.sender)
        if len(said) == 3:
            cut.append(now)
            for index in range(6):
                swarm.crash(index, 25.0 if index == 5 else 2.0)

    swarm.network.delivery, swarm.network.on_arrival = delay, watch
    outcome = run_deterministically(swarm.run, 1)
    assert cut
    assert not outcome.departures(DepartureKind.REMOVAL)
    assert all(peer.state is not None and not peer.state.marks.pairs for peer in outcome.honest)
