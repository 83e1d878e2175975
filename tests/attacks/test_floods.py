"""Floods from members and sieges by strangers: rounds go on, and no honest member leaves."""

import pytest
import trio
from tests.attacks.scenario import run_scenario

from btard.attacks import SIEGES, besiege
from btard.identity import Identity
from btard.net import Address, MemoryNetwork, Terms
from btard.rules.evidence import DepartureKind
from btard.swarm.events import RoundDone

STRANGERS = 4


@pytest.mark.parametrize("kind", ["flood-garbage", "flood-within-the-rules"])
@pytest.mark.parametrize("count", [1, 3])
async def test_a_flood_from_members_stops_no_round(autojump_clock, tmp_path, kind, count):
    """Garbage costs its sender the link, uninvited data is refused; a flooder may be removed for its own silence."""
    attackers = dict.fromkeys((1, 3, 5)[:count], kind)
    scenario = await run_scenario(tmp_path, attackers, rounds=4, delivery=lambda *message: 0.02)
    scenario.require_sound()
    for index in attackers:
        assert scenario.attacker(index).acted_in_round == 2
        assert all(departed.kind is DepartureKind.REMOVAL for departed in scenario.departures(index))


@pytest.mark.parametrize("kind", SIEGES)
async def test_a_siege_by_strangers_costs_nobody_anything(autojump_clock, tmp_path, kind):
    """Strangers that say nothing, little, nonsense or too much on links to everyone neither stop nor delay a round."""
    begun = []

    def start(swarm, index, event):
        if isinstance(event, RoundDone) and index == 0 and event.round == 1:
            terms = Terms(swarm.config.run_id, swarm.config.field_digests)
            addresses = [Address("memory", number) for number in range(1, 6)]
            for number in range(STRANGERS):
                transport = swarm.network.transport(Identity(bytes([number]) * 32), terms)
                begun.append(trio.lowlevel.spawn_system_task(besiege, transport, addresses, kind, number))

    quiet = await run_scenario(tmp_path / "quiet", {}, size=5, delivery=lambda *message: 0.02)
    besieged = await run_scenario(tmp_path / "besieged", {}, size=5, watch=start, delivery=lambda *message: 0.02)
    besieged.require_sound()
    assert len(begun) == STRANGERS
    assert besieged.outcome.state_roots == quiet.outcome.state_roots
    assert besieged.outcome.virtual_s == pytest.approx(quiet.outcome.virtual_s, abs=0.5)


async def test_a_stranger_dials_again_when_its_link_is_ended(autojump_clock):
    """A siege goes on for as long as its task does, whatever its victim does about each link."""
    network = MemoryNetwork()
    victim, stranger = (network.transport(Identity(bytes([number]) * 32), Terms(b"run")) for number in range(2))
    with trio.move_on_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(besiege, stranger, [victim.address], "oversized", 0)
            for _ in range(5):
                link = await victim.accept()
                await link.aclose()
            nursery.cancel_scope.cancel()
            return
    raise AssertionError("the stranger gave up")
