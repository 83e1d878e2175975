"""Lookups find the closest live nodes, and end soon whatever they are told (virtual clock)."""

import asyncio
import random
from collections.abc import Callable

import pytest
import trio
import trio_asyncio
from kademlia.node import Node

from btard.dht.blocks import MAX_PER_BLOCK
from btard.dht.crawl import CRAWL_SECONDS, MAX_QUESTIONS, PARALLEL, Crawl, never

TIMEOUT = 0.8
SIZE = 16


class Network:
    """A hundred nodes with 20 acquaintances each; tests make some of them lie or fall silent."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.nodes = [Node(self.chance.randbytes(20), f"9.9.{port}.1", port) for port in range(1, 101)]
        self.known = {node.id: self.chance.sample(self.nodes, 20) for node in self.nodes}
        self.alive = {tuple(node) for node in self.nodes}
        self.lies: dict[bytes, list[Node]] = {}
        self.target = Node(self.chance.randbytes(20))
        self.asked = 0
        self.is_enough: Callable[[], bool] = never

    async def ask(self, node: Node) -> list[Node] | None:
        """Answer for ``node`` at once, or with silence after the timeout."""
        self.asked += 1
        if tuple(node) not in self.alive:
            await asyncio.sleep(TIMEOUT)
            return None
        await asyncio.sleep(0.001)
        return self.lies.get(node.id) or sorted(self.known[node.id], key=self.target.distance_to)[:SIZE]

    def closest(self) -> list[bytes]:
        """Return the ids that an all-knowing lookup returns."""
        live = [node for node in self.nodes if tuple(node) in self.alive]
        return [node.id for node in sorted(live, key=self.target.distance_to)[:SIZE]]

    def fake_near_target(self, port: int) -> Node:
        """Return a node that does not exist, closer to the target than any real one."""
        return Node(self.target.id[:10] + self.chance.randbytes(10), f"7.7.{self.chance.randrange(256)}.1", port)

    async def crawl(self, seeds: list[Node]) -> list[bytes]:
        """Run one lookup and return the ids it found."""
        async with trio_asyncio.open_loop() as loop:
            found = await loop.run_aio_coroutine(self._crawl(seeds))
        return [node.id for node in found]

    async def _crawl(self, seeds: list[Node]) -> list[Node]:
        return await Crawl(self.ask, self.target, SIZE, self.is_enough).run(seeds)


@pytest.fixture(params=range(3))
def network(request: pytest.FixtureRequest) -> Network:
    """Return a network drawn from the parameter."""
    return Network(request.param)


async def test_the_closest_nodes_are_found_from_one_seed(
    network: Network, autojump_clock: trio.testing.MockClock
) -> None:
    """From one node, all sixteen closest, closest first, without asking everyone."""
    found = await network.crawl(network.nodes[:1])
    assert len(set(found) & set(network.closest())) >= SIZE - 1
    assert found == sorted(found, key=lambda node_id: network.target.distance_to(Node(node_id)))
    assert network.asked < 80


async def test_sixteen_fakes_cost_two_timeouts(network: Network, autojump_clock: trio.testing.MockClock) -> None:
    """One liar's fakes are asked eight at a time, and the real nodes still come out."""
    liar = min(network.nodes, key=network.target.distance_to)
    network.lies[liar.id] = [network.fake_near_target(port) for port in range(1, 17)]
    started = trio.current_time()
    found = await network.crawl([liar, network.nodes[0]])
    assert trio.current_time() - started < (16 / PARALLEL + 1) * TIMEOUT
    assert len(set(found) & set(network.closest())) >= SIZE - 1


@pytest.mark.parametrize("is_agreed", [False, True])
async def test_a_third_of_liars_costs_two_seconds(
    network: Network, autojump_clock: trio.testing.MockClock, *, is_agreed: bool
) -> None:
    """Thirty liars name sixteen fakes each, all closer than any real node, each its own or all the same."""
    common = [network.fake_near_target(port) for port in range(1, 17)]
    for liar in network.nodes[1:90:3]:
        network.lies[liar.id] = common if is_agreed else [network.fake_near_target(port) for port in range(1, 17)]
    started = trio.current_time()
    found = await network.crawl(network.nodes[:1])
    assert trio.current_time() - started < 2.5
    assert len(set(found) & set(network.closest())) >= SIZE - 1


async def test_one_block_takes_few_places(network: Network, autojump_clock: trio.testing.MockClock) -> None:
    """Forty live nodes of one network, closer than all others and naming each other, are three of the sixteen."""
    gang = [Node(network.target.id[:10] + network.chance.randbytes(10), "8.8.8.8", port) for port in range(1, 41)]
    network.known |= {node.id: gang for node in gang}
    network.alive |= {tuple(node) for node in gang}
    network.known[network.nodes[0].id] = gang
    found = await network.crawl(network.nodes[:4])
    assert len(set(found) & {node.id for node in gang}) == MAX_PER_BLOCK
    assert len(found) == SIZE


async def test_a_lookup_ends_in_time(network: Network, autojump_clock: trio.testing.MockClock) -> None:
    """With nobody there at all, it takes no longer than it may."""
    network.alive = set()
    started = trio.current_time()
    assert await network.crawl(network.nodes) == []
    assert trio.current_time() - started <= CRAWL_SECONDS + 0.01


async def test_a_lookup_ends_when_enough_is_known(network: Network, autojump_clock: trio.testing.MockClock) -> None:
    """Whoever wants one answer only does not wait for the sixteenth."""
    network.is_enough = lambda: network.asked >= PARALLEL
    await network.crawl(network.nodes)
    assert network.asked < SIZE


async def test_endless_lies_end(network: Network, autojump_clock: trio.testing.MockClock) -> None:
    """Fakes that answer with ever more fakes stop at the bound on questions."""

    async def lie(node: Node) -> list[Node]:
        network.asked += 1
        return [network.fake_near_target(port) for port in range(1, 17)]

    network.ask = lie  # type: ignore[method-assign]
    assert len(await network.crawl(network.nodes[:1])) == SIZE
    assert network.asked <= MAX_QUESTIONS


async def test_a_false_address_does_not_hide_a_node(network: Network, autojump_clock: trio.testing.MockClock) -> None:
    """A liar who names the closest node at a dead address is corrected by the next honest answer."""
    nearest = min(network.nodes, key=network.target.distance_to)
    liar, honest = [node for node in network.nodes if node is not nearest][:2]
    network.lies[liar.id] = [Node(nearest.id, "192.0.2.9", 9)]
    network.known[honest.id] = [nearest]
    assert (await network.crawl([liar, honest]))[0] == nearest.id


async def test_half_the_nodes_may_be_dead(network: Network, autojump_clock: trio.testing.MockClock) -> None:
    """The result holds live nodes only, most of the closest, within a few seconds."""
    network.alive = {tuple(node) for node in network.nodes[::2]}
    started = trio.current_time()
    found = await network.crawl(network.nodes[:4])
    assert trio.current_time() - started < 10 * TIMEOUT
    assert set(found) <= {node.id for node in network.nodes[::2]}
    assert len(set(found) & set(network.closest())) >= SIZE * 3 // 4


async def test_a_cancelled_lookup_leaves_no_question_behind(
    network: Network, autojump_clock: trio.testing.MockClock
) -> None:
    """When the deadline falls, the open questions end with it."""
    network.alive = set()
    with trio.move_on_after(TIMEOUT / 2) as scope:
        await network.crawl(network.nodes[:PARALLEL])
    assert scope.cancelled_caught
    assert network.asked == PARALLEL
