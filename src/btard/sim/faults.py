"""The faults of a scenario that strike at a certain moment: all but the weather, the disks and the clocks."""

from collections.abc import Awaitable, Callable, Sequence
from contextvars import copy_context

import trio

from btard.attacks import besiege
from btard.identity import Context, Identity, digest
from btard.net import Terms
from btard.sim.clocks import true_time
from btard.sim.freezing import Freezer
from btard.sim.network import NetworkModel
from btard.sim.power import PowerSupply
from btard.sim.scenario import Reset, Scenario, Siege
from btard.sim.swarm import SimulatedSwarm


class FaultDriver:
    """Lets faults begin when peers end their rounds: of a peer at its own end, of the network at the first one's."""

    def __init__(self, scenario: Scenario, swarm: SimulatedSwarm, model: NetworkModel, power: PowerSupply) -> None:
        self._scenario, self._swarm, self._going_on, self._power = scenario, swarm, model.disturbances, power
        self.freezer = Freezer()
        self._newest = 0
        self._nursery: trio.Nursery | None = None
        self._context = copy_context()

    async def run(self) -> None:
        """Hold the nursery of faults that begin a little later, until cancelled."""
        self._context = copy_context()
        async with trio.open_nursery() as self._nursery:
            await trio.sleep_forever()

    def take_step(self, index: int, step: int) -> None:
        """Let begin what waits for this step of a peer: its end of a round, or how far a stranger has come."""
        self._strike_peer(index, step)

    def end_round(self, round_number: int) -> Sequence[int]:
        """Let begin what waits for anybody's end of this round; return the strangers that come now."""
        if round_number <= self._newest:
            return ()
        self._newest = round_number
        self._strike_network(round_number)
        return self._let_come(round_number)

    def _let_come(self, round_number: int) -> Sequence[int]:
        comers = [
            self._scenario.peers + place
            for place, arrival in enumerate(self._scenario.arrivals)
            if arrival.round == round_number
        ]
        for index in comers:
            self._strike_peer(index, 0)
            self._swarm.arrive(index)
        return comers

    def _begin(self, fault: Callable[..., Awaitable[None]], *arguments: object) -> None:
        """Start a task that belongs to no peer, whoever's end of a round it begins with."""
        if self._nursery is not None:
            self._context.run(self._nursery.start_soon, fault, *arguments)

    def _strike_peer(self, index: int, round_number: int) -> None:
        for crash in self._scenario.crashes:
            if (crash.peer, crash.round) == (index, round_number) and not self._swarm.outcomes[index].crashes:
                self._power.arm(crash)
        for stall in self._scenario.stalls:
            if (stall.peer, stall.round) == (index, round_number):
                self._going_on.stalled[index] = true_time() + stall.lasts_s
        for freeze in self._scenario.freezes:
            if (freeze.peer, freeze.round) == (index, round_number):
                self._begin(self._freeze, index, freeze.lasts_s)

    def _strike_network(self, round_number: int) -> None:
        now = true_time()
        for spike in self._scenario.spikes:
            if spike.round == round_number:
                self._going_on.far[spike.peer] = now + spike.lasts_s, spike.extra_s
        for partition in self._scenario.partitions:
            if partition.round == round_number:
                self._going_on.cut[frozenset(partition.side)] = now + partition.lasts_s
        for reset in self._scenario.resets:
            if reset.round == round_number:
                self._begin(self._reset, reset)
        for place, siege in enumerate(self._scenario.sieges):
            if siege.round == round_number:
                for number in range(siege.strangers):
                    self._begin(self._besiege, siege, f"{place}/{number}")

    async def _freeze(self, index: int, lasts_s: float) -> None:
        peer, asleep = self._swarm.identities[index].peer_id, self._swarm.network.asleep
        if peer not in asleep:
            asleep.add(peer)
            try:
                await self.freezer.freeze(index, lasts_s)
            finally:
                asleep.discard(peer)

    async def _reset(self, reset: Reset) -> None:
        await trio.sleep(reset.after_s)
        peers = self._swarm.identities
        self._swarm.network.break_links(peers[reset.one].peer_id, peers[reset.other].peer_id)

    async def _besiege(self, siege: Siege, name: str) -> None:
        """Let a stranger dial its victims with the run's public terms, until it gives up and is gone."""
        swarm, seed = self._swarm, digest(Context.EXPAND, b"stranger", f"{self._scenario.seed}/{name}".encode())
        stranger = Identity(seed)
        transport = swarm.network.transport(stranger, Terms(swarm.config.run_id, swarm.config.field_digests))
        addresses = [swarm.find_address(victim) for victim in siege.victims]
        with trio.move_on_after(siege.lasts_s):
            await besiege(transport, addresses, siege.kind, int.from_bytes(seed[:4]))
        swarm.network.disconnect(stranger.peer_id)
