"""Two messages for one slot, in every phase: half of the others are told one thing, half another."""

import pytest
from tests.attacks.scenario import run_scenario

from btard.attacks import Attacker, Equivocate
from btard.attacks.equivocation import alter
from btard.identity import Identity
from btard.rules.evidence import Cause
from btard.rules.messages import Agree, Halt, Phase, Position, Stage
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


async def test_two_views_are_evidence(autojump_clock, tmp_path):
    """Who shows half of the members one view and half another blocks one recovery, and is banned by the next."""
    attackers = {1: lambda *_: Equivocate(2, phase=Phase.VIEW), 3: "withhold-reveal"}
    scenario = await run_scenario(tmp_path, attackers)
    scenario.require_sound()
    assert scenario.departure(1).cause is Cause.EQUIVOCATION
    assert scenario.departure(3).cause is Cause.SILENCE


@pytest.mark.parametrize("phase", [Phase.BALLOT, Phase.HALT], ids=lambda phase: phase.name)
async def test_two_votes_split_nobody(autojump_clock, tmp_path, phase):
    """A ballot that only half of the members hold makes a certificate all the same, for certificates are relayed."""
    attackers = {1: lambda *_: Equivocate(2, phase=phase), 3: "withhold-reveal"}
    scenario = await run_scenario(tmp_path, attackers)
    scenario.require_sound()
    assert scenario.departure(3).cause is Cause.SILENCE


class HaltsForOne(Attacker):
    """Tells one member in place of its CHECK that the round cannot go on, in every round."""

    def deliver(self, message, recipient, identity, run_id):
        """Return the HALT for the first recipient, the message for all others."""
        stage = message.slot.stage
        if stage.phase is not Phase.CHECK or not self.is_due(stage.round):
            return message.envelope
        if self.acted_in_round != stage.round:
            self.acted_in_round = stage.round
            halt = Halt(Position(*map(int, stage)), (), ())
            place = Stage(0, stage.attempt, Phase.HALT, stage.round - self.first_round)
            return sign_message(identity, run_id, message.roster, place, b"", halt).envelope
        return message.envelope


async def test_unfounded_halts_delay_and_stop_nothing(autojump_clock, tmp_path):
    """A HALT said to a single member reaches all; recoveries that settle nothing do not add up to an end."""
    scenario = await run_scenario(tmp_path, {1: lambda *_: HaltsForOne(2)}, rounds=14)
    scenario.require_sound()


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
        sign_message(identity, bytes(32), bytes(32), Stage(number, 0, Phase.AGREE), bytes(32), Agree(bytes(32)))
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
    agree = Agree(bytes(32))
    assert alter(agree) == agree
