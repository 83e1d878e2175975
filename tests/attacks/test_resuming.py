"""RESUMEs without need, absurd ones, and none at all: f of them start and hold up nothing (design section 5)."""

import pytest
import trio
from tests.attacks.scenario import run_scenario

from btard.attacks import ADVERSARIES, Post
from btard.attacks.resuming import FAR, NOWHERE
from btard.identity import Identity
from btard.rules.config import RunConfig
from btard.rules.evidence import Cause
from btard.rules.messages import Check, Phase, Resume, Stage
from btard.swarm.conduct import Conduct
from btard.swarm.events import Halted, Recovered, RoundDone, Stranded
from btard.swarm.frames import Kind
from btard.wire import open_message, sign_message

CUT_S = 40.0


def find_events(scenario, *kinds):
    """What honest peers observed of these kinds."""
    return [event for peer in scenario.outcome.honest for event in peer.events if isinstance(event, kinds)]


class Cut:
    """The first four of eight hear nothing of the others for a while after round 2."""

    def __init__(self):
        self.side, self.until = set(), None

    def watch(self, swarm, index, event):
        """Cut when the first peer has finished round 2."""
        if isinstance(event, RoundDone) and event.round == 2 and self.until is None:
            self.side = {identity.peer_id for identity in swarm.identities[:4]}
            self.until = trio.current_time() + CUT_S

    def deliver(self, sender, receiver, message):
        """Lose what crosses the cut."""
        is_cut = self.until is not None and trio.current_time() < self.until
        return None if is_cut and (sender in self.side) != (receiver in self.side) else 0.1


@pytest.mark.parametrize("kind", ["resume-always", "resume-absurdly"])
async def test_resumes_without_need_start_nothing(autojump_clock, tmp_path, kind):
    """Three of seven say in every round that they are halted: no honest peer halts, recovers, or goes back."""
    scenario = await run_scenario(tmp_path, dict.fromkeys((1, 3, 5), kind), delivery=lambda *message: 0.02)
    scenario.require_sound()
    scenario.require_stays(1, 3, 5)
    assert find_events(scenario, Halted, Recovered, Stranded) == []
    assert all(done.attempts == 1 for done in find_events(scenario, RoundDone))


@pytest.mark.parametrize("kind", ["resume-always", "resume-absurdly", "withhold-resume"])
@pytest.mark.parametrize("seed", range(2))
async def test_a_halted_swarm_goes_on_whatever_f_say(autojump_clock, tmp_path, kind, seed):
    """Cut in two halves all wait; the five honest of eight begin again together when they hear each other."""
    cut = Cut()
    scenario = await run_scenario(
        tmp_path, dict.fromkeys((1, 3, 5), kind), size=8, seed=seed, delivery=cut.deliver, watch=cut.watch
    )
    scenario.require_sound()
    assert {peer.index for peer in scenario.outcome.honest if find_stranded(peer)} == {0, 2, 4, 6, 7}
    assert find_events(scenario, Recovered)
    assert all(scenario.attacker(index).acted_in_round is not None for index in (1, 3, 5))


class Dead(Conduct):
    """Says nothing after round 2."""

    def says(self, stage):
        """Return whether it is of the first two rounds."""
        return stage.round in {1, 2}


async def test_resumes_count_in_their_own_attempt_only(autojump_clock, tmp_path):
    """What all said before the recovery that ends the halt and removes the dead starts no other one after it."""
    cut = Cut()
    attackers = {1: lambda swarm, index: Dead()}
    scenario = await run_scenario(tmp_path, attackers, size=8, delivery=cut.deliver, watch=cut.watch)
    scenario.require_sound()
    assert scenario.departure(1).cause is Cause.SILENCE
    for peer in scenario.outcome.honest:
        assert find_stranded(peer)
        assert sum(isinstance(event, Recovered) for event in peer.events) == 1


def find_stranded(peer):
    """How often a peer's swarm stood still."""
    return [event for event in peer.events if isinstance(event, Stranded)]


async def test_resumes_in_the_midst_of_recoveries_keep_none_from_ending(autojump_clock, tmp_path):
    """With halts, ballots that nobody equals and RESUMEs at once the fallback decides, and nobody strands."""
    kinds = ("resume-always", "resume-absurdly", "resume-always")
    attackers = {place: f"halt-always+lie-in-ballot+{kind}" for place, kind in zip((1, 3, 5), kinds, strict=True)}
    scenario = await run_scenario(tmp_path, attackers, delivery=lambda *message: 0.02)
    scenario.require_sound()
    assert any(event.is_fallback for event in find_events(scenario, Recovered))
    assert find_events(scenario, Stranded) == []


class Wire:
    """A hub that keeps what is sent."""

    def __init__(self):
        self.connected, self.sent = frozenset(), []

    def send(self, peer, kind, head):
        """Keep it."""
        self.sent.append((kind, head))


def test_absurd_resumes_are_of_all_kinds():
    """Far and past serials and attempts, strange rosters: each is a well-formed RESUME with a valid signature."""
    me, run = Identity(bytes(32)), bytes(32)
    attack = ADVERSARIES["resume-absurdly"](Post(RunConfig(founder=me.peer_id.hex()), me.peer_id, 0, 2))
    attack.hub = Wire()
    for number in range(1, 40):
        message = sign_message(me, run, b"r" * 32, Stage(number, 4, Phase.CHECK), b"", Check((), bytes(32)))
        assert attack.deliver(message, me.peer_id, me, run) == message.envelope
    assert attack.acted_in_round == 2
    said = [open_message(run, head) for kind, head in attack.hub.sent if kind == Kind.RESUME]
    assert len(said) == len(attack.hub.sent) == 38
    assert {item.slot.stage.attempt for item in said} == {3, 4, 5, FAR}
    assert len({item.roster for item in said}) == 2
    assert all(isinstance(item.payload, Resume) and item.payload.position.round == FAR for item in said)
    assert len(NOWHERE) == 5
