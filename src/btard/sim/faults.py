"""The faults of a scenario that strike at a certain moment: crashes, stalls, resets, spikes, partitions."""

import trio

from btard.sim.clocks import true_time
from btard.sim.network import NetworkModel
from btard.sim.power import PowerSupply
from btard.sim.scenario import Reset, Scenario
from btard.sim.swarm import SimulatedSwarm


class FaultDriver:
    """Lets faults begin when peers end their rounds: of a peer at its own end, of the network at the first one's."""

    def __init__(self, scenario: Scenario, swarm: SimulatedSwarm, model: NetworkModel, power: PowerSupply) -> None:
        self._scenario, self._swarm, self._going_on, self._power = scenario, swarm, model.disturbances, power
        self._newest = 0
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Hold the nursery of faults that begin a little later, until cancelled."""
        async with trio.open_nursery() as self._nursery:
            await trio.sleep_forever()

    def end_round(self, index: int, round_number: int) -> None:
        """Let begin what waits for this peer's, or for anybody's, end of this round."""
        self._strike_peer(index, round_number)
        if round_number > self._newest:
            self._newest = round_number
            self._strike_network(round_number)

    def _strike_peer(self, index: int, round_number: int) -> None:
        for crash in self._scenario.crashes:
            if (crash.peer, crash.round) == (index, round_number) and not self._swarm.outcomes[index].crashes:
                self._power.arm(crash)
        for stall in self._scenario.stalls:
            if (stall.peer, stall.round) == (index, round_number):
                self._going_on.stalled[index] = true_time() + stall.lasts_s

    def _strike_network(self, round_number: int) -> None:
        now = true_time()
        for spike in self._scenario.spikes:
            if spike.round == round_number:
                self._going_on.far[spike.peer] = now + spike.lasts_s, spike.extra_s
        for partition in self._scenario.partitions:
            if partition.round == round_number:
                self._going_on.cut[frozenset(partition.side)] = now + partition.lasts_s
        for reset in self._scenario.resets:
            if reset.round == round_number and self._nursery is not None:
                self._nursery.start_soon(self._reset, reset)

    async def _reset(self, reset: Reset) -> None:
        await trio.sleep(reset.after_s)
        peers = self._swarm.identities
        self._swarm.network.break_links(peers[reset.one].peer_id, peers[reset.other].peer_id)
