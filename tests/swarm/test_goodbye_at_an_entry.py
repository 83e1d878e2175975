"""One member leaves with the seal by which another comes in."""

from pathlib import Path

from tests.swarm.joining_scenes import COMES_S, MEMBERS, SETTINGS, STRANGER, play, slowly

from btard.rules.evidence import DepartureKind
from btard.sim import LinearTask, SimulatedSwarm
from btard.swarm.audit import audit_ledger

LEAVER, ROUNDS = MEMBERS - 1, 18


def build(directory: Path, leave_after: dict[int, int]) -> SimulatedSwarm:
    """A swarm that a stranger joins, and a member leaves."""
    values = {"genesis_size": MEMBERS, **SETTINGS, "rounds": ROUNDS}
    joins = {STRANGER: COMES_S}
    return SimulatedSwarm(values, LinearTask, directory, joins=joins, leave_after=leave_after, delivery=slowly)


def test_a_newcomer_holds_what_signed_its_seal(tmp_path: Path) -> None:
    """It is handed the signatures, also those of whoever has left by then, and its ledger audits."""
    outcome = play(build(tmp_path / "nobody leaves", {}))
    entries = [event.result.round - 1 for event in outcome.peers[0].rounds if event.result.newcomers]
    swarm = build(tmp_path / "one leaves", {LEAVER: entries[0] - 1})
    outcome = play(swarm)
    assert [event.result.round - 1 for event in outcome.peers[0].rounds if event.result.newcomers] == entries
    assert set(outcome.departures(DepartureKind.GOODBYE)) == {LEAVER}
    assert [peer.error for peer in outcome.peers] == [None] * (MEMBERS + 1)
    assert len(outcome.peers[STRANGER].rounds) == ROUNDS - entries[0]
    assert [audit_ledger(swarm.data_dir(peer.index)).problems for peer in outcome.peers] == [()] * (MEMBERS + 1)
