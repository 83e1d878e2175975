"""
What the DHT bears as a whole, one story each: hostile nodes, an eclipse, a mass loss, a split.

Every node has a network of its own; time is virtual, and a packet takes 20 ms of it.
"""

import logging
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from btard.dht import blocks, contact_key, crawl, open_directory, table
from btard.dht.directory import FIND_SECONDS, REFRESH_SECONDS
from btard.identity import Identity

from .crowd import RUN_ID, Conduct, Member, count_finds, host_in_network, identity_near, open_crowd, plan_crowd
from .networks import FIRST_PORT, Cable, MemoryNetwork


async def wait_until_found(seekers: Sequence[Member], sought: Sequence[Member]) -> float:
    """Return after how many seconds every lookup of ``sought`` by ``seekers`` succeeds; fail if that takes too long."""
    started = trio.current_time()
    with trio.fail_after(2 * REFRESH_SECONDS):
        while True:
            found, asked = await count_finds(seekers, sought)
            if found == asked:
                return trio.current_time() - started
            await trio.sleep(0.5)


@pytest.fixture
def cable() -> Cable:
    """Return a network in memory that can be cut."""
    return Cable(MemoryNetwork().open)


def hosts(members: Sequence[Member]) -> list[str]:
    """Return where members are."""
    return [member.host for member in members]


async def test_a_third_of_hostile_nodes_hides_nobody(cable: Cable, autojump_clock: MockClock) -> None:
    """Seven of 23 nodes lie, keep silent or squat around a key: honest nodes find each other all the same."""
    async with open_crowd(plan_crowd(honest=16, hostile=7), cable.open) as members:
        honest = [member for member in members if member.is_honest]
        await trio.sleep(5)  # the first one had nobody yet to give its record to
        assert await count_finds(honest[7:9], honest) == (32, 32)


async def find_in_eclipse(cable: Cable) -> bool:
    """Return whether a victim is found whose key one block has surrounded before it announces itself."""
    chance = random.Random(7)
    victim = Member(Identity(bytes(32)), Conduct.HONEST, host_in_network(99))
    key = contact_key(RUN_ID, victim.identity.peer_id)
    around = [Member(identity_near(key, 8, chance), Conduct.SQUATTING, f"127.200.0.{n}") for n in range(1, 19)]
    others = [Member(Identity(bytes([n]) * 32), Conduct.HONEST, host_in_network(n)) for n in range(1, 6)]
    async with open_crowd([*others, *around], cable.open):
        await trio.sleep(3)
        async with open_crowd([victim], cable.open, [others[0].node_address]):
            return await others[2].finds(victim)


async def test_one_block_cannot_surround_a_key(cable: Cable, autojump_clock: MockClock) -> None:
    """Eighteen node ids made to lie around a key, all in one /24, take three of the places."""
    assert await find_in_eclipse(cable)


async def test_without_the_limit_on_blocks_one_block_could(
    cable: Cable, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same eighteen hide the victim if every address counts: the limit is what helps, not luck."""
    for module in (blocks, crawl, table):
        monkeypatch.setattr(module, "MAX_PER_BLOCK", 1000)
    monkeypatch.setattr(table, "MAX_PER_BLOCK_IN_ALL", 1000)
    assert not await find_in_eclipse(cable)


async def test_half_of_the_nodes_may_vanish_at_once(cable: Cable, autojump_clock: MockClock) -> None:
    """Of more nodes than a bucket holds half survive, without the bootstrap node, and find each other in 10 seconds."""
    async with open_crowd(plan_crowd(honest=18, hostile=0), cable.open) as members:
        survivors, victims = members[1::2], members[::2]
        assert await count_finds(survivors[:2], survivors) == (18, 18)
        for victim in victims:
            victim.scope.cancel()
        assert await wait_until_found(survivors[:3], survivors) <= 2 * FIND_SECONDS
        await trio.sleep(REFRESH_SECONDS / 2)
        assert all(member.directory.known_nodes == 8 for member in survivors)


async def test_a_split_swarm_merges_without_a_bootstrap_node(
    cable: Cable, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """After minutes apart, both halves say what they see, and meet again through old addresses within a refresh."""
    caplog.set_level(logging.INFO, "btard.dht")
    async with open_crowd(plan_crowd(honest=7, hostile=0), cable.open) as members:
        one, other = members[1:4], members[4:]
        await trio.sleep(REFRESH_SECONDS / 3)
        members[0].scope.cancel()  # the only bootstrap address is dead from now on
        cable.cut(hosts(one), hosts(other))
        await trio.sleep(3 * REFRESH_SECONDS)
        assert all(member.directory.known_nodes == 2 for member in (*one, *other))
        assert all(member.directory.missing_nodes == 4 for member in (*one, *other))
        assert caplog.text.count("went out of sight and 2 are left") == 6
        for member in members[1:]:
            await member.move(5000)  # what only one half has heard of
        assert not await one[0].finds(other[0])
        cable.mend()
        assert await wait_until_found(members[1:], members[1:]) <= REFRESH_SECONDS + FIND_SECONDS
        await trio.sleep(REFRESH_SECONDS)
        assert all(member.directory.known_nodes == 5 for member in (*one, *other))
        assert "that went out of sight are back" in caplog.text


async def test_two_swarms_that_never_met_become_one(cable: Cable, autojump_clock: MockClock) -> None:
    """Halves that each reached only one of two bootstrap addresses are one within a refresh of being connected."""
    members = plan_crowd(honest=6, hostile=0)
    one, other = members[:3], members[3:]
    cable.cut(hosts(one), hosts(other))
    doors = [(members[0].host, FIRST_PORT), (members[3].host, FIRST_PORT + 3)]
    async with open_crowd(members, cable.open, doors):
        await trio.sleep(REFRESH_SECONDS)
        assert all(member.directory.known_nodes == 2 for member in members)
        cable.mend()
        assert await wait_until_found(members, members) <= REFRESH_SECONDS + FIND_SECONDS


@pytest.mark.parametrize("bad", ["down", "lying", "silent"])
async def test_bad_bootstrap_addresses_do_not_keep_anybody_out(
    cable: Cable, autojump_clock: MockClock, bad: str
) -> None:
    """Where one of several addresses leads to an honest node, a newcomer finds everybody, whatever the others do."""
    conduct = {"lying": Conduct.LYING, "silent": Conduct.SILENT}.get(bad, Conduct.HONEST)
    doors = [Member(Identity(bytes([n]) * 32), conduct, host_in_network(50 + n)) for n in range(2)]
    async with open_crowd([*plan_crowd(honest=4, hostile=0), *doors], cable.open) as members:
        if bad == "down":
            for door in doors:
                door.scope.cancel()
        bootstrap = [*(door.node_address for door in doors), members[1].node_address]
        newcomer = Member(Identity(b"n" * 32), Conduct.HONEST, host_in_network(60))
        async with open_crowd([newcomer], cable.open, bootstrap):
            assert await count_finds([newcomer], members[:4]) == (4, 4)
            assert await members[0].finds(newcomer)


async def test_a_node_comes_back_without_any_bootstrap_node(
    cable: Cable, autojump_clock: MockClock, tmp_path: Path
) -> None:
    """What it met once is on disk: started again with a dead bootstrap address, it finds everybody."""
    me = Identity(b"m" * 32)
    async with open_crowd(plan_crowd(honest=4, hostile=0), cable.open) as members:
        door = members[0]
        for state_dir in (tmp_path, tmp_path, None):
            home = (host_in_network(70), 0)
            async with open_directory(
                me, RUN_ID, home, [door.node_address], state_dir=state_dir, network=cable.open
            ) as directory:
                contact = await directory.find(members[3].identity.peer_id)
            assert (contact is None) == (state_dir is None)
            door.scope.cancel()
