"""Two messages for one slot, in every phase: half of the others are told one thing, half another."""

import pytest
from tests.attacks.scenario import run_scenario

from btard.attacks import Equivocate
from btard.attacks.equivocation import alter
from btard.identity import Identity
from btard.rules.evidence import Cause
from btard.rules.messages import Agree, Phase, Stage
from btard.wire import sign_message

HELPERS = {
    Phase.PUBLISH: "withhold",
    Phase.ATTEST: "withhold",
    Phase.DISPUTE_PUBLISH: "wrong-aggregate",
    Phase.VOTE: "wrong-aggregate",
    Phase.AGREE: "wrong-aggregate",
}
"""Phases that only another attacker brings about."""
ROUND_PHASES = [Phase.COMMIT, Phase.AGGREGATE, Phase.REVEAL, Phase.CHECK, Phase.CONFIRM, *HELPERS]


@pytest.mark.parametrize("delay", [0.0, 0.2])
@pytest.mark.parametrize("phase", ROUND_PHASES, ids=lambda phase: phase.name)
async def test_equivocation_is_banned_in_every_phase(autojump_clock, tmp_path, phase, delay):
    """Whatever the phase, both versions are found, their author is banned, and the roster never splits."""
    attackers = {1: lambda *_: Equivocate(2, phase=phase)}
    if phase in HELPERS:
        attackers[3] = HELPERS[phase]
    scenario = await run_scenario(tmp_path, attackers, delivery=lambda *message: delay)
    scenario.require_sound()
    scenario.require_banned(1, Cause.EQUIVOCATION)
    for index in attackers:
        assert scenario.departures(index)


async def test_last_round_is_no_refuge(autojump_clock, tmp_path):
    """Equivocation in the last CONFIRM is found by the closing COMMIT, and that round is redone without its author."""
    attack = Equivocate(4, phase=Phase.CONFIRM)
    scenario = await run_scenario(tmp_path, {1: lambda *_: attack}, rounds=4)
    scenario.require_sound()
    scenario.require_banned(1, Cause.EQUIVOCATION)


def test_versions_differ_and_recipients_keep_theirs():
    """Every other recipient gets a second version, and gets the same again when a message is repeated."""
    identity, peers = Identity(bytes(32)), [Identity(bytes([k]) * 32).peer_id for k in range(1, 5)]
    attack = Equivocate(2, phase=Phase.AGREE)
    early, late = (
        sign_message(identity, bytes(32), bytes(32), Stage(number, 0, Phase.AGREE), bytes(32), Agree())
        for number in (1, 2)
    )
    assert {attack.deliver(early, peer, identity, bytes(32)) for peer in peers} == {early.envelope}
    assert attack.acted_in_round is None
    told = [attack.deliver(late, peer, identity, bytes(32)) for peer in peers]
    assert told[0] == told[2] == late.envelope != told[1] == told[3]
    assert told == [attack.deliver(late, peer, identity, bytes(32)) for peer in peers]
    assert attack.acted_in_round == 2


def test_payload_without_fields_cannot_be_altered():
    """Where a message says nothing, the second version follows another transcript instead."""
    assert alter(Agree()) == Agree()
