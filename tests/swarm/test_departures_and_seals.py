"""However many say goodbye at once, the seal of their last round has the signatures that it needs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
from msgspec.structs import replace
from tests.swarm.hostile_swarm import HostileSwarm, alter_said

from btard.rules.evidence import DepartureKind
from btard.rules.messages import AnyPayload, Commit, Phase, Stage
from btard.sim import Outcome
from btard.sim.power import PowerLoss
from btard.swarm.audit import audit_ledger
from btard.swarm.conduct import Conduct
from btard.swarm.scatter import Slices
from btard.swarm.state import Gradient, commit_to

Clock = trio.testing.MockClock
CHEAT = 1
RUBBISH = bytes(64)


def scribble(index: int, stage: Stage, payload: AnyPayload) -> AnyPayload:
    """The cheat signs no seal from that of round 3 on."""
    is_due = index == CHEAT and stage.round > 3
    return replace(payload, seal=RUBBISH) if is_due and isinstance(payload, Commit) else payload


def audit_honest(outcome: Outcome, directory: Path) -> list[str]:
    """Return what is wrong with the ledgers of honest peers."""
    ledgers = (audit_ledger(directory / f"peer-{peer.index}") for peer in outcome.honest)
    return [problem for ledger in ledgers for problem in ledger.problems]


@pytest.mark.parametrize(
    ("size", "leave_after", "cheats"),
    [
        (4, {3: 2}, {1}),
        (5, {4: 2, 2: 2}, {1, 2}),
        (5, {3: 2, 4: 2}, {1}),
        (5, {4: 2, 3: 3}, {1, 2}),
        (7, {4: 2, 5: 2, 2: 2}, {1, 2}),
    ],
    ids=["even", "a-cheat-goes-along", "two-at-once", "one-after-another", "three-at-once"],
)
async def test_a_seal_has_its_majority_whoever_says_goodbye(
    size: int,
    leave_after: Mapping[int, int],
    cheats: set[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: Clock,
) -> None:
    """Members go after they have signed the seal of their last round: a cheat that does not sign holds up nobody."""
    config = {"genesis_size": size, "rounds": 7, "validators": 1, "max_byzantine": len(cheats)}
    conducts = dict.fromkeys(cheats, Conduct())
    hostile = HostileSwarm(monkeypatch, tmp_path, config, conducts=conducts, leave_after=leave_after)
    alter_said(monkeypatch, hostile, scribble)
    outcome = await hostile.run()
    assert [peer.error for peer in outcome.peers] == [None] * size
    assert outcome.departures(DepartureKind.GOODBYE).keys() == leave_after.keys()
    assert not outcome.departures(DepartureKind.REMOVAL)
    rounds = {peer.index: len({done.round for done in peer.rounds}) for peer in outcome.peers}
    assert rounds == {index: leave_after.get(index, 6) + 1 for index in range(size)}
    assert audit_honest(outcome, tmp_path) == []


async def test_all_may_say_goodbye_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """Then the run ends with the round of their goodbyes: all have signed its seal, which names no members."""
    leave_after = dict.fromkeys(range(4), 2)
    hostile = HostileSwarm(monkeypatch, tmp_path, {"genesis_size": 4, "rounds": 7}, leave_after=leave_after)
    outcome = await hostile.run()
    assert [peer.error for peer in outcome.peers] == [None] * 4
    assert [len(peer.rounds) for peer in outcome.peers] == [3] * 4
    assert audit_honest(outcome, tmp_path) == []


async def test_a_goodbye_that_was_said_is_said_though_nobody_wants_one_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """All leave, and one was started again since, without knowing: it computes nothing for nobody, and leaves."""

    def forget(index: int, stage: Stage, payload: AnyPayload) -> AnyPayload:
        if (index, stage.round, stage.phase) == (3, 4, Phase.COMMIT) and not hostile.swarm.outcomes[3].crashes:
            monkeypatch.setitem(hostile.swarm._leave_after, index, 9)
            hostile.swarm.crash(index, 0.5)
            raise PowerLoss
        return payload

    leave_after = dict.fromkeys(range(4), 2)
    hostile = HostileSwarm(monkeypatch, tmp_path, {"genesis_size": 4, "rounds": 7}, leave_after=leave_after)
    alter_said(monkeypatch, hostile, forget)
    outcome = await hostile.run()
    assert outcome.peers[3].restarts == 1
    assert [peer.error for peer in outcome.peers] == [None] * 4
    assert not outcome.departures(DepartureKind.REMOVAL)
    assert audit_honest(outcome, tmp_path) == []


async def test_slices_fit_those_who_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """More than half leave: parts are cut for the others from the next COMMIT on, and nobody has to ask for a slice."""
    asked, pull = list[int](), Slices.pull

    async def note(self: Slices, number: int, *args: Any) -> bool:
        asked.append(number)
        return await pull(self, number, *args)

    monkeypatch.setattr(Slices, "pull", note)
    leave_after = dict.fromkeys(range(4, 9), 2)
    hostile = HostileSwarm(monkeypatch, tmp_path, {"genesis_size": 9, "rounds": 6}, leave_after=leave_after)
    outcome = await hostile.run()
    assert [peer.error for peer in outcome.peers] == [None] * 9
    assert asked == []


class Deserter(Conduct):
    """Says nothing any more from the round on in which it would sign the seal of its last one."""

    def says(self, stage: Stage) -> bool:
        """Return whether it is still there."""
        return stage.round < 4


async def test_whoever_says_goodbye_and_does_not_sign_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """It is waited for as any member, and the others go on; whoever said goodbye with it is gone as it wished."""
    config = {"genesis_size": 5, "rounds": 6, "max_byzantine": 1}
    leave_after = {CHEAT: 2, 3: 2}
    hostile = HostileSwarm(monkeypatch, tmp_path, config, conducts={CHEAT: Deserter()}, leave_after=leave_after)
    outcome = await hostile.run()
    assert [peer.error for peer in outcome.honest] == [None] * 4
    assert outcome.departures(DepartureKind.REMOVAL).keys() == {CHEAT}
    assert outcome.departures(DepartureKind.GOODBYE).keys() == {CHEAT, 3}
    assert audit_honest(outcome, tmp_path) == []


class Flipped(Conduct):
    """Commits to the opposite of its gradient in one round."""

    def commitment(self, round_number: int, gradient: Gradient, chunk_size: int) -> Gradient:
        """Return that of -g_i in round 3."""
        return commit_to(-gradient.values, chunk_size) if round_number == 3 else gradient


@pytest.mark.parametrize("cheat", [3, 5])
async def test_whoever_leaves_has_judged_its_last_round(
    cheat: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """What the COMMITs open of it is settled with its vote: a false gradient is banned, and the audit follows."""
    config = {"genesis_size": 6, "rounds": 6, "validators": 3, "max_byzantine": 1}
    conducts = {cheat: Flipped()}
    hostile = HostileSwarm(monkeypatch, tmp_path, config, conducts=conducts, leave_after={1: 2})
    outcome = await hostile.run()
    assert [peer.error for peer in outcome.honest] == [None] * 5
    assert outcome.departures(DepartureKind.GOODBYE).keys() == {1}
    assert outcome.departures(DepartureKind.BAN).keys() == {cheat}
    assert audit_honest(outcome, tmp_path) == []
