"""Shortcuts that would be fatal, as scenarios: each of these swarms would fail without the rule it is named after."""

import math

import pytest
import torch
from tests.attacks.scenario import FIRST_ROUND, run_scenario

from btard.attacks import Attacker, SignFlip
from btard.attacks.aggregates import shift
from btard.rules.evidence import Cause, DepartureKind
from btard.rules.messages import Phase
from btard.sim import LinearTask
from btard.swarm.conduct import Conduct
from btard.swarm.events import RoundDone
from btard.swarm.state import commit_to


class Listens(Conduct):
    """An honest peer that keeps the nonces it reveals."""

    def __init__(self):
        self.nonces = {}

    def deliver(self, message, recipient, identity, run_id):
        """Return the message, and keep its nonce."""
        if message.slot.stage.phase in {Phase.REVEAL, Phase.CONFIRM}:
            self.nonces[message.slot.stage] = message.payload.nonce
        return message.envelope


async def test_draws_are_fresh_after_a_ban(autojump_clock, tmp_path):
    """A2: an attempt that resends aggregates draws new directions, so knowing the void ones is worth nothing."""
    ear = Listens()
    scenario = await run_scenario(tmp_path, {1: "lying-projection", 3: lambda *_: ear})
    scenario.require_banned(1, Cause.FALSE_REPORT)
    round_number = scenario.departure(1).round
    revealed = [nonce for stage, nonce in ear.nonces.items() if stage.round == round_number]
    assert len(revealed) == len(set(revealed)) == 4


class AimsAtKnownDirections(Attacker):
    """Lies, to be banned for it, only in an attempt after one whose directions it has seen."""

    def aggregate(self, round_number, attempt, part, aggregate):
        """Return a wrong aggregate from the second attempt on."""
        if attempt == 0 or not part.elements:
            return aggregate
        self.note_act(round_number)
        return shift(aggregate, part, 1.0, 0)


async def test_second_attempt_is_checked_like_the_first(autojump_clock, tmp_path):
    """A2: a partner sacrificed in the first attempt buys no unchecked aggregate in the second."""
    scenario = await run_scenario(tmp_path, {1: "lying-projection", 3: lambda *_: AimsAtKnownDirections(2)})
    scenario.require_sound()
    scenario.require_banned(3, Cause.WRONG_AGGREGATE)


async def test_who_vanishes_after_an_attack_is_still_convicted(autojump_clock, tmp_path):
    """A3: a target that dies as soon as it is drawn is removed as silent, and banned for its gradient."""

    def kill(swarm, index, event):
        if (
            isinstance(event, RoundDone)
            and event.round >= FIRST_ROUND
            and any(pair.target == swarm.identities[1].peer_id for pair in event.assignments)
        ):
            swarm.crash(1)

    scenario = await run_scenario(tmp_path, {1: lambda *_: SignFlip(FIRST_ROUND)}, rounds=40, watch=kill)
    scenario.require_sound()
    kinds = {(departed.kind, departed.cause) for departed in scenario.departures(1)}
    assert (DepartureKind.BAN, Cause.FALSE_GRADIENT) in kinds
    state = scenario.outcome.honest[0].state
    assert scenario.outcome.peers[1].peer in state.banned


class AttacksAndHides(Attacker):
    """Sends a false gradient, and never reveals its nonce in that round."""

    def commitment(self, round_number, gradient, chunk_size):
        """Return the gradient, reversed."""
        if not self.is_due(round_number):
            return gradient
        self.note_act(round_number)
        return commit_to(-1000 * gradient.values, chunk_size)

    def says(self, stage):
        """Return False for the REVEAL of the attack."""
        return stage.phase is not Phase.REVEAL or not self.is_due(stage.round)


async def test_slices_of_the_removed_do_not_stay(autojump_clock, tmp_path):
    """A3: who is removed before the update is no contributor; the swarm ends where it ends without it."""
    honest = await run_scenario(tmp_path / "honest", {}, size=6)
    attacked = await run_scenario(tmp_path / "attacked", {6: lambda *_: AttacksAndHides(1)}, size=7)
    attacked.require_sound()
    assert attacked.departure(6).round == 1
    assert abs(honest.loss - attacked.loss) < 1


class OverflowingTask(LinearTask):
    """A quarter of all minibatches gives infinities, a few give numbers that overflow when squared."""

    def gradient(self, parameters, seed):
        """Return the gradient, or what half precision would make of it."""
        gradient = super().gradient(parameters, seed)
        return gradient * (math.inf if seed[0] < 64 else 3e36 if seed[0] < 80 else 1)


async def test_honest_overflow_is_no_crime(autojump_clock, tmp_path):
    """B5: an infinite gradient commits to zeros with a flag, which every verifier confirms; nobody is accused."""
    scenario = await run_scenario(tmp_path, {}, rounds=12, make_workload=OverflowingTask)
    scenario.require_sound()


class AlwaysOverflowing(LinearTask):
    """No minibatch gives numbers."""

    def gradient(self, parameters, seed):
        """Return not a number."""
        return torch.full((self.elements,), math.nan)


async def test_no_update_where_most_overflow(autojump_clock, tmp_path):
    """B5: a round in which more than half flag an overflow applies no update."""
    scenario = await run_scenario(tmp_path, {}, rounds=2, make_workload=AlwaysOverflowing)
    scenario.require_sound()
    assert torch.equal(scenario.outcome.honest[0].state.parameters, LinearTask().initial_parameters())


class Commits(Attacker):
    """Commits to what a function makes of its gradient."""

    def __init__(self, change):
        super().__init__(2)
        self._change = change

    def commitment(self, round_number, gradient, chunk_size):
        """Return the changed gradient."""
        if not self.is_due(round_number):
            return gradient
        self.note_act(round_number)
        return self._change(gradient, chunk_size)


FALSE_GRADIENTS = {
    "overflow claimed": lambda gradient, size: commit_to(torch.zeros_like(gradient.values), size, overflow=True),
    "flag and values": lambda gradient, size: commit_to(gradient.values, size, overflow=True),
    "NaN": lambda gradient, size: commit_to(gradient.values / 0 * 0, size),
    "infinity": lambda gradient, size: commit_to(gradient.values * math.inf, size),
    "squares overflow": lambda gradient, size: commit_to(gradient.values * 1e36, size),
    "one element": lambda gradient, size: commit_to(torch.cat([gradient.values[:1] + 1, gradient.values[1:]]), size),
    "slightly larger": lambda gradient, size: commit_to(gradient.values * 1.01, size),
}


@pytest.mark.parametrize("change", FALSE_GRADIENTS, ids=lambda name: name.replace(" ", "-"))
async def test_strange_gradients_are_found(autojump_clock, tmp_path, change):
    """B5: whatever is committed instead of the gradient, a validator finds it, and until then nobody else falls."""
    scenario = await run_scenario(tmp_path, {1: lambda *_: Commits(FALSE_GRADIENTS[change])}, size=6, rounds=20)
    scenario.require_sound()
    scenario.require_banned(1, Cause.FALSE_GRADIENT, within=20)


async def test_within_tolerance_nobody_is_accused(autojump_clock, tmp_path):
    """B7: a gradient that differs by less than the tolerance, as other hardware's would, is left alone."""
    near = Commits(lambda gradient, size: commit_to(gradient.values * (1 + 2e-5), size))
    scenario = await run_scenario(tmp_path, {1: lambda *_: near}, size=6, rounds=12)
    scenario.require_sound()
    assert scenario.departures(1) == []


async def test_true_accusations_cost_nothing(autojump_clock, tmp_path):
    """B7: the honest validator that accuses stays, and every honest voter sees what it saw."""
    scenario = await run_scenario(tmp_path, {1: "sign-flip", 2: "sign-flip"}, rounds=20)
    scenario.require_sound()
    assert {index for index in range(7) if scenario.departures(index)} <= {1, 2}
