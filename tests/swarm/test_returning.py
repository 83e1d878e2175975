"""A member that left and comes back on a new ledger: its old words stop nobody, an older copy of that ledger does."""

import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio
from tests.rules.build import make_config
from tests.swarm.joining_scenes import MEMBERS, SETTINGS, find, play, require_sound, slowly

from btard.errors import ConfigError, Removed
from btard.identity import Identity, PeerId
from btard.net import Hub, MemoryNetwork, Terms
from btard.rules.evidence import DepartureKind
from btard.rules.messages import Phase, Reveal, SignedMessage, Stage
from btard.rules.seal import Seal
from btard.sim import LinearTask, SimulatedSwarm
from btard.swarm.audit import audit_ledger
from btard.swarm.broadcast import Broadcast
from btard.swarm.conduct import Conduct
from btard.swarm.events import Event, Promoted, Resumed, RoundDone
from btard.swarm.frames import Kind, SignedTuple
from btard.swarm.ledger import Ledger
from btard.swarm.rounds import Rounds
from btard.wire import encode_seal, sign_message

ME = Identity(b"m" * 32)
CONFIG = make_config(founder=ME.peer_id.hex())
CHEAT, VICTIM = 1, 5


class Replayer(Conduct):
    """Keeps what a member says until it leaves, and shows it the first and the last of that once it is back.

    The founder's seal comes with it: whoever knows no roster yet takes messages only from members of that.
    """

    swarm: SimulatedSwarm

    async def accompany(self, hub: Hub) -> None:
        """Listen first, then repeat it for ever."""
        victim, receive = self.swarm.outcomes[VICTIM], dict(hub.on_control)
        proofs, kept = list[bytes](), list[bytes]()

        def listen_for_proof(peer: PeerId, body: bytes) -> None:
            proofs.append(body)
            receive[Kind.GENESIS](peer, body)

        def listen(peer: PeerId, body: bytes) -> None:
            if peer == victim.peer and not victim.comebacks:
                kept.append(body)
            receive[Kind.MESSAGE](peer, body)

        hub.on_control[Kind.GENESIS], hub.on_control[Kind.MESSAGE] = listen_for_proof, listen
        while True:
            await trio.sleep(0.25)
            if victim.comebacks:
                hub.send(victim.peer, Kind.GENESIS, proofs[0])
                for body in (kept[0], kept[-1]):
                    hub.send(victim.peer, Kind.MESSAGE, body)


class Return:
    """A swarm in which a member leaves after round 3 and comes back, and what happens in its rounds after that."""

    def __init__(self, directory: Path) -> None:
        attack = Replayer()
        self.swarm = attack.swarm = SimulatedSwarm(
            {"genesis_size": MEMBERS, **SETTINGS, "rounds": 40, "state_interval": 4},
            LinearTask,
            directory / "swarm",
            conducts={CHEAT: attack},
            watch=self._watch,
            leave_after={VICTIM: 3},
            comebacks={VICTIM: 0.5},
            delivery=slowly,
            keeps_errors=True,
        )
        self._copy, self._done = directory / "copy", 0
        self.is_copied = False

    def _watch(self, index: int, event: Event) -> None:
        if index == VICTIM and isinstance(event, RoundDone) and self.swarm.outcomes[VICTIM].comebacks:
            self._done += 1
            if self._done == 2 and self.is_copied:
                shutil.copytree(self.swarm.data_dir(VICTIM), self._copy)
            elif self._done == 3:
                self._die()

    def _die(self) -> None:
        self.swarm.crash(VICTIM, 0.2)
        if self.is_copied:
            shutil.rmtree(self.swarm.data_dir(VICTIM))
            shutil.copytree(self._copy, self.swarm.data_dir(VICTIM))


@pytest.fixture
def scene(tmp_path: Path) -> Return:
    """Six members, one of which leaves and comes back, and one that is a cheat."""
    return Return(tmp_path)


def test_who_comes_back_is_not_stopped_by_its_own_old_words(scene: Return) -> None:
    """They are of a time whose ledger was put aside: it goes on, after a restart too."""
    outcome = play(scene.swarm)
    assert [peer.error for peer in outcome.peers] == [None] * MEMBERS
    assert len(find(outcome, VICTIM, Promoted)) == len(find(outcome, VICTIM, Resumed)) == 1
    assert outcome.peers[VICTIM].rounds[-1].round == 40
    require_sound(scene.swarm, outcome)
    (old,) = scene.swarm.data_dir(VICTIM).glob("ledger-until-round-*.sqlite3")
    audit = audit_ledger(old)
    assert audit.ok, audit.problems


def test_an_older_copy_of_the_new_ledger_signs_nothing(scene: Return) -> None:
    """Old words do not hide the newer ones that such a copy lacks."""
    scene.is_copied = True
    outcome = play(scene.swarm)
    victim = outcome.peers[VICTIM]
    assert isinstance(victim.error, Removed)
    assert "went on without this peer" in str(victim.error)
    resumed = next(number for number, event in enumerate(victim.events) if isinstance(event, Resumed))
    assert not any(isinstance(event, RoundDone) for event in victim.events[resumed:])
    assert outcome.departures(DepartureKind.BAN) == {}
    with Ledger.create(scene.swarm.data_dir(VICTIM), scene.swarm.config, victim.peer) as ledger:
        assert ledger.find_first_attempt() > 0


def make_word(round_number: int, attempt: int) -> SignedMessage:
    """Something that we said."""
    stage = Stage(round_number, attempt, Phase.REVEAL)
    return sign_message(ME, CONFIG.run_id, b"r" * 32, stage, b"", Reveal(b"n" * 32, ()))


def make_seal(round_number: int, attempt: int) -> Seal:
    """The seal of a round; nobody looks inside."""
    peers = (bytes(ME.peer_id),)
    return Seal(CONFIG.run_id, round_number, attempt, b"", b"s" * 32, b"", peers, (), b"", b"q" * 32, 5)


@pytest.mark.parametrize("is_shown_early", [True, False])
@pytest.mark.parametrize(
    ("words", "newest"),
    [
        ([(5, 2)], None),
        ([(12, 2)], None),
        ([(12, 4)], None),
        ([(11, 3)], "round 11 .attempt 3"),
        ([(12, 5), (5, 2)], "round 12 .attempt 5"),
        ([(12, 5), (5, 2), (13, 4)], "round 12 .attempt 5"),
    ],
)
def test_a_ledger_answers_for_what_is_said_since_it_begins(
    words: list[tuple[int, int]], newest: str | None, is_shown_early: bool, tmp_path: Path
) -> None:
    """Ours begins with seal 10, of attempt 3, and holds one message; it may be shown others before it begins at all."""
    hub = Hub(MemoryNetwork().transport(ME, Terms(CONFIG.run_id)), ME.peer_id)
    with Ledger.create(tmp_path, CONFIG, ME.peer_id) as ledger:
        ledger.record_message(make_word(12, 4))
        broadcast = Broadcast(CONFIG, ME, hub, ledger, Conduct())

        def show() -> None:
            for word in words:
                broadcast.take(make_word(*word))

        if is_shown_early:
            show()
        ledger.record_line([SignedTuple(encode_seal(make_seal(0, 0)), ())])
        ledger.record_seal(make_seal(10, 3))
        if not is_shown_early:
            show()
        with pytest.raises(ConfigError, match=newest) if newest else nullcontext():
            broadcast.say(Stage(14, 6, Phase.REVEAL), b"r" * 32, b"", Reveal(b"n" * 32, ()))
        assert (ledger.stored_message(Stage(14, 6, Phase.REVEAL)) is None) == (newest is not None)


def test_whoever_comes_back_on_a_newer_link_was_away() -> None:
    """The end of the old one was heard by nobody, but what the peer still owes is waited for as if it had been."""
    rounds, peer, stranger = object.__new__(Rounds), PeerId(bytes(31) + b"\x07"), PeerId(bytes(31) + b"\x08")
    told, lost = list[PeerId](), list[PeerId]()
    rounds._broadcast = SimpleNamespace(  # type: ignore[assignment]
        note_lost=lost.append, resend=told.append, is_member=lambda other: other == peer
    )
    rounds._reception = SimpleNamespace(remind=told.append)  # type: ignore[assignment]
    rounds._recovery = SimpleNamespace(resuming=SimpleNamespace(show=told.extend))  # type: ignore[assignment]
    rounds._greet(peer)
    rounds._greet(stranger)
    assert lost == [peer, stranger]
    assert told == [peer, peer, peer, stranger, stranger]
