"""Bytes that nobody signed, and bytes that were signed for another place: they count nowhere, and blame nobody."""

import pytest
from tests.attacks.scenario import run_scenario

from btard.attacks import Forge
from btard.attacks.forging import FORGERIES
from btard.errors import RemoteProtocolError
from btard.identity import Identity
from btard.rules.evidence import DepartureKind
from btard.rules.messages import Check, Phase, Stage
from btard.wire import open_message, sign_message

IDENTITY, RUN = Identity(bytes(32)), bytes(32)


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_forged_signatures_convict_nobody(autojump_clock, tmp_path, forgery):
    """Some get forgeries in place of every message: they have the true one from others, or it never was."""
    attack = Forge(2, 0, forgery=forgery)
    scenario = await run_scenario(tmp_path, {1: lambda *_: attack}, delivery=lambda *message: 0.02)
    scenario.require_sound()
    assert attack.acted_in_round == 2
    seen = [event.kind for peer in scenario.outcome.honest for event in peer.departures]
    assert set(seen) <= {DepartureKind.REMOVAL}


@pytest.mark.parametrize("kind", ["replay", "sign-elsewhere"])
async def test_old_and_displaced_messages_change_nothing(autojump_clock, tmp_path, kind):
    """Messages of other rounds, attempts, phases and serials count only where they were signed for."""
    scenario = await run_scenario(tmp_path, {1: kind, 3: kind, 5: kind}, delivery=lambda *message: 0.02)
    scenario.require_sound()
    scenario.require_stays(1, 3, 5)


async def test_replay_beside_a_redone_round_changes_nothing(autojump_clock, tmp_path):
    """Messages of an attempt that was voided do not come back in the next one."""
    scenario = await run_scenario(tmp_path, {1: "replay", 3: "wrong-aggregate", 5: "withhold-reveal"})
    scenario.require_sound()
    scenario.require_stays(1)
    assert scenario.departures(3)
    assert scenario.departures(5)


async def test_changed_messages_of_others_cost_their_bearer_the_link(autojump_clock, tmp_path):
    """Whoever passes on what another did not say breaks its own links; the other is not blamed."""
    scenario = await run_scenario(tmp_path, {1: "impersonate"}, delivery=lambda *message: 0.02)
    scenario.require_sound()
    assert scenario.attacker(1).acted_in_round == 2
    assert all(departed.kind is DepartureKind.REMOVAL for departed in scenario.departures(1))


@pytest.mark.parametrize("forgery", sorted(set(FORGERIES) - {"key"}))
def test_forgeries_open_as_nothing(forgery):
    """No forgery is a message of the run."""
    message = sign_message(IDENTITY, RUN, RUN, Stage(4, 0, Phase.CHECK), b"", Check((), RUN))
    with pytest.raises(RemoteProtocolError):
        open_message(RUN, FORGERIES[forgery](message, IDENTITY, RUN))


def test_a_message_under_another_key_is_somebody_elses():
    """What a stranger signs is the stranger's word, in nobody else's slot."""
    message = sign_message(IDENTITY, RUN, RUN, Stage(4, 0, Phase.CHECK), b"", Check((), RUN))
    assert open_message(RUN, FORGERIES["key"](message, IDENTITY, RUN)).sender != IDENTITY.peer_id
