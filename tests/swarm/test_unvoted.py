"""Who leaves by a recovery for another reason than a missing message: it never voted, or has too many marks."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace
from tests.swarm.hostile_swarm import HasSaidMore
from tests.swarm.watched_swarm import KeepsBallot, W, Watcher, Z, find_recoveries_of, read_departures

from btard.identity import PeerId
from btard.rules.evidence import Cause, CertificateProof, ConclusionProof, Departure, DepartureKind
from btard.rules.messages import Conclude, Halt, Phase, Position, Stage
from btard.rules.roster import Roster
from btard.swarm.audit.chain import Chain
from btard.swarm.audit.contents import read_contents
from btard.swarm.audit.opening import Unproven
from btard.swarm.audit.recoveries import check_conclusion
from btard.swarm.conduct import Conduct
from btard.swarm.events import Event, Recovered, RoundDone
from btard.wire import open_message, sign_message

Clock = trio.testing.MockClock
REMOVAL = DepartureKind.REMOVAL
HALTER = 5


def halt_again_and_again(watcher: Watcher, halter: int, victims: Sequence[PeerId], times: int) -> None:
    """Let a cheat halt round 2 in its first attempt over one victim after the other, whenever a recovery has ended."""
    hostile, said, watch_first = watcher.hostile, [0], watcher.hostile.swarm._watch
    roster = Roster.of(hostile.peers)

    def watch(index: int, event: Event) -> None:
        watch_first(index, event)
        is_time = isinstance(event, Recovered) or (isinstance(event, RoundDone) and event.round == 1)
        if index == 0 and is_time and said[0] < times:
            serial, said[0] = said[0], said[0] + 1
            content = Halt(Position(2, 0, int(Phase.COMMIT), 0), (victims[serial % len(victims)],), ())
            hostile.tell(halter, hostile.sign(halter, roster.digest, Stage(0, 0, Phase.HALT, serial), content))

    hostile.swarm._watch = watch


async def run_unvoted(directory: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Watcher, Departure]:
    """Run seven of whom one never votes and one's view splits the ballots, twice; return how the first left."""
    watcher = Watcher(monkeypatch, directory, 7, z=Conduct(), w=KeepsBallot())
    watcher.hostile.swarm.conducts[HALTER] = HasSaidMore()
    peers = watcher.hostile.peers
    others = [peer for index, peer in enumerate(peers) if index not in (Z, W, HALTER)]
    watcher.late = {peer: 1.9 if place < 2 else 2.1 for place, peer in enumerate(others)}
    watcher.late |= {peers[index]: 2.1 for index in (W, HALTER)}
    halt_again_and_again(watcher, HALTER, others, 2)
    outcome = await watcher.run()
    removed = outcome.departures(REMOVAL)
    assert set(removed) == {W}
    assert removed[W].cause is Cause.SILENCE
    for peer in outcome.honest:
        first, second, *_ = find_recoveries_of(peer)
        assert (first.is_fallback, first.removed, second.is_fallback) == (True, (), True)
    left = [read_departures(watcher, peer.index) for peer in outcome.honest]
    ours = [item for departures in left for item in departures if item.peer == peers[W]]
    assert len(ours) == len(outcome.honest)
    return watcher, ours[0]


async def test_who_shows_a_view_and_never_votes_leaves_where_no_ballot_is_elected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """W says all that the round waits for: it is spared once, and leaves for the second vote; conclusions name it."""
    watcher, departure = await run_unvoted(tmp_path, monkeypatch)
    assert isinstance(departure.proof, ConclusionProof)
    said = [open_message(watcher.hostile.config.run_id, item).payload for item in departure.proof.conclusions]
    assert {item.unvoted for item in said if isinstance(item, Conclude)} == {(watcher.hostile.peers[W],)}
    assert len(said) >= Roster.of(watcher.hostile.peers).majority


async def test_a_ledger_whose_only_evidence_are_conclusions_convinces_by_them_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """Fewer conclusions than more than half, other views, another member, another cause: none of these is proven."""
    watcher, departure = await run_unvoted(tmp_path, monkeypatch)
    contents = read_contents(tmp_path / "peer-0")
    assert {type(item.proof) for item in contents.departures} == {ConclusionProof}
    chain = Chain(contents.config, contents.seals, contents.departures, contents.evidence, contents.owner)
    proof, peers = departure.proof, watcher.hostile.peers
    assert isinstance(proof, ConclusionProof)
    check_conclusion(chain, departure, proof)
    needed = Roster.of(peers).majority
    forged = sign_another(watcher, proof)
    wrong: list[tuple[Departure, ConclusionProof]] = [
        (departure, replace(proof, conclusions=proof.conclusions[: needed - 1])),
        (departure, replace(proof, conclusions=(*proof.conclusions[: needed - 1], *forged))),
        (departure, replace(proof, views=proof.views[1:])),
        (replace(departure, peer=peers[0]), proof),
        (replace(departure, cause=Cause.TOO_MANY_MARKS), proof),
        (replace(departure, attempt=departure.attempt + 1), proof),
    ]
    for item, shown in wrong:
        with pytest.raises(Unproven):
            check_conclusion(chain, item, shown)


def sign_another(watcher: Watcher, proof: ConclusionProof) -> tuple[bytes, ...]:
    """What two cheats sign for the missing conclusion, naming somebody else."""
    run_id, victim = watcher.hostile.config.run_id, watcher.hostile.peers[0]
    first = open_message(run_id, proof.conclusions[0])
    assert isinstance(first.payload, Conclude)
    other = replace(first.payload, unvoted=(victim,))
    signers = [watcher.hostile.identities[index] for index in (Z, W)]
    return tuple(sign_message(item, run_id, first.roster, first.slot.stage, b"", other).envelope for item in signers)


@pytest.mark.parametrize(
    ("conduct", "proof"), [(Conduct(), CertificateProof), (KeepsBallot(), ConclusionProof)], ids=["ballots", "fallback"]
)
async def test_who_halts_over_more_than_f_members_leaves_by_a_recovery(
    conduct: Conduct, proof: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """Each recovery after an attempt's first marks Z with one member more; the third mark is beyond f = 2."""
    watcher = Watcher(monkeypatch, tmp_path, 5, z=HasSaidMore(), w=conduct)
    victims = [peer for index, peer in enumerate(watcher.hostile.peers) if index not in (Z, W)]
    halt_again_and_again(watcher, Z, victims, 9)
    outcome = await watcher.run()
    removed = outcome.departures(REMOVAL)
    assert {index: event.cause for index, event in removed.items()} == {Z: Cause.TOO_MANY_MARKS}
    assert len({event.peer for event in outcome.honest[0].departures}) == 1
    proofs = {type(item.proof) for peer in outcome.honest for item in read_departures(watcher, peer.index)}
    assert proofs == {proof}
    assert all(len({done.round for done in peer.rounds}) == 3 for peer in outcome.honest)
