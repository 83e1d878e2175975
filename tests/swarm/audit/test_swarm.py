"""Ledgers of a swarm that ran: the audit agrees with what the peers recorded."""

from pathlib import Path

import pytest

from btard.attacks import make_attacker
from btard.identity import PeerId
from btard.rules.evidence import Cause, CommitOpening, VoteProof
from btard.rules.messages import Unrelayed
from btard.rules.parts import Part
from btard.sim import LinearTask, SimulatedSwarm
from btard.swarm import aggregation
from btard.swarm.audit import AuditResult, audit_ledger
from btard.swarm.ledger import Ledger
from btard.swarm.ledger_files import LEDGER_FILE
from btard.swarm.services import Services
from btard.swarm.state import Work

ATTACKS = {2: "wrong-aggregate", 3: "withhold", 5: "equivocate"}
ROUNDS = 4


def audit_all(directory: Path) -> list[AuditResult]:
    """The audits of all ledgers below a directory."""
    return [audit_ledger(file) for file in sorted(directory.rglob(LEDGER_FILE))]


async def test_every_ledger_of_a_run_audits_clean(autojump_clock: object, tmp_path: Path) -> None:
    """Three attackers go, each with its proof; all ledgers, the attackers' too, pass the audit."""
    config = {"genesis_size": 8, "rounds": ROUNDS, "tau": 2.0, "delta": 20.0}
    swarm = SimulatedSwarm(config, LinearTask, tmp_path)
    for index, kind in ATTACKS.items():
        me = swarm.identities[index].peer_id
        swarm.conducts[index] = make_attacker(kind, seed=0, first_round=2, config=swarm.config, me=me)
    outcome = await swarm.run()
    left = {event.cause for peer in outcome.honest for event in peer.departures}
    assert left == {Cause.WRONG_AGGREGATE, Cause.WITHHOLDING, Cause.EQUIVOCATION}
    results = audit_all(tmp_path)
    assert [result.problems for result in results] == 8 * [()]
    whole = [result for result in results if result.seals == ROUNDS + 1]
    assert {(result.bans, result.removals, result.self_contained, result.by_majority) for result in whole} == {
        (2, 1, 2, 1)
    }
    assert len(whole) == len(outcome.honest)


async def test_member_that_complains_about_many_leaves_with_a_proof(
    autojump_clock: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One aggregator claims to lack slices that all others hold; which pairs that marked is in the ledgers."""
    swarm = SimulatedSwarm({"genesis_size": 5, "rounds": 2, "tau": 2.0, "delta": 20.0}, LinearTask, tmp_path)
    liar = swarm.identities[3].peer_id
    collect = aggregation.collect_slices

    async def complain(services: Services, work: Work, part: Part) -> tuple[tuple[PeerId, ...], tuple[Unrelayed, ...]]:
        missing, unrelayed = await collect(services, work, part)
        others = tuple(peer for peer in work.contributors if peer != liar)
        return others if services.me == liar and work.round == 2 else missing, unrelayed

    monkeypatch.setattr(aggregation, "collect_slices", complain)
    outcome = await swarm.run()
    assert [(e.peer, e.round, e.cause) for e in outcome.peers[0].departures] == [(liar, 2, Cause.TOO_MANY_MARKS)]
    results = audit_all(tmp_path)
    assert [result.problems for result in results] == 5 * [()]
    assert {(result.removals, result.by_majority) for result in results if result.seals == 3} == {(1, 1)}


async def test_accusation_shows_who_was_loud(autojump_clock: object, tmp_path: Path) -> None:
    """With a tiny norm bound columns are opened and prove right; the draw of validators is still derived."""
    config = {"genesis_size": 7, "rounds": 12, "tau": 2.0, "delta": 0.01, "exemption": 1, "validators": 2}
    swarm = SimulatedSwarm({**config, "max_byzantine": 2}, LinearTask, tmp_path)
    for index in (1, 3):
        me = swarm.identities[index].peer_id
        swarm.conducts[index] = make_attacker("false-accusation", seed=0, first_round=2, config=swarm.config, me=me)
    outcome = await swarm.run()
    assert {event.cause for event in outcome.peers[0].departures} == {Cause.FALSE_ACCUSATION}
    assert [result.problems for result in audit_all(tmp_path)] == 7 * [()]
    with Ledger.create(tmp_path / "peer-0", swarm.config, swarm.identities[0].peer_id) as ledger:
        proofs = [departure.proof for departure in ledger.departures()]
    openings = [proof.opening for proof in proofs if isinstance(proof, VoteProof)]
    assert any(isinstance(opening, CommitOpening) and opening.checks for opening in openings)
