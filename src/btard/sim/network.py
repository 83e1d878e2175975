"""
The network of a scenario: when each message arrives.

A link is what TCP gives: while both its ends live it loses nothing, alters nothing and keeps the order
of its control messages and of its bulk messages. So

- *loss* is a lost segment: its message, and what follows on that link, waits for the retransmission;
- *reordering* happens between links, and between the control and the bulk messages of one link: some
  messages are held back, and what others send meanwhile overtakes them;
- *duplication* is a message that comes twice, as after a link was made anew or through a relay;
- only a link that breaks loses what is under way on it.

Between two honest peers whatever keeps synchrony is cut off below Δ (bulk: below its own bound).
Messages of Byzantine peers may take longer: whoever schedules its own messages needs no slow network.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import trio

from btard.identity import PeerId
from btard.net import Message
from btard.sim.chance import open_stream
from btard.sim.scenario import DELAY_S, Scenario
from btard.swarm.frames import Kind

TICKS_PER_S = 32
"""Arrivals fall on this grid, exact in binary: messages that arrive together are handled together."""
SAFE = 0.9
"""Part of the allowed delay that faults which keep synchrony may use up."""
CONTROL_BOUND_S = SAFE * DELAY_S
"""The longest delay that synchrony allows to a control message between honest peers, less a margin."""
RETRANSMISSION_S = 0.2 * DELAY_S
HELD_BACK_S = 0.3 * DELAY_S
DAWDLE_S = 2.5 * DELAY_S
"""How much later the messages of some Byzantine peers come."""
LEAST_S = 4 / TICKS_PER_S
"""What every message takes where strangers come: they need time to join, and without this a round takes none."""
OVERHEAD = 64
"""Bytes that a message costs beside its content."""


@dataclass
class Disturbances:
    """What goes on at the moment: virtual times until which it lasts, and extra seconds."""

    stalled: dict[int, float] = field(default_factory=dict)
    far: dict[int, tuple[float, float]] = field(default_factory=dict)
    cut: dict[frozenset[int], float] = field(default_factory=dict)


class NetworkModel:
    """A ``Delivery`` for the in-memory network: the delay of each message, drawn from the scenario's seed."""

    def __init__(self, scenario: Scenario, indices: Mapping[PeerId, int], min_bandwidth: int) -> None:
        self.disturbances = Disturbances()
        self._weather, self._min_bandwidth = scenario.weather, min_bandwidth
        self._dice = open_stream(scenario.seed, "network")
        self._disks, self._copies = scenario.disks or {}, scenario.weather.duplicate
        weather = scenario.weather
        is_far = weather.latency_s + LEAST_S > CONTROL_BOUND_S
        self._is_troubled = bool(
            is_far or weather.jitter_s or weather.loss or weather.reorder or weather.bandwidth or self._disks
        )
        self._free_at = dict.fromkeys(range(scenario.population), 0.0)
        self._routes = self._find_routes(scenario, indices)
        late = {index for index in scenario.adversaries if scenario.weather.latency_s and self._dice.random() < 0.25}
        self._dawdlers = frozenset(late)

    def _find_routes(
        self, scenario: Scenario, indices: Mapping[PeerId, int]
    ) -> dict[tuple[PeerId, PeerId], tuple[int, int, float, bool]]:
        """By sender and receiver: their numbers, the latency between them, and whether both are honest."""
        latency, honest = self._draw_latencies(scenario), frozenset(scenario.honest)
        return {
            (sender, receiver): (one, other, latency[one][other], one in honest and other in honest)
            for sender, one in indices.items()
            for receiver, other in indices.items()
        }

    def _draw_latencies(self, scenario: Scenario) -> list[list[float]]:
        """One-way latencies by sender and receiver: half drawn per link, half from where the two peers are."""
        dice, most = open_stream(scenario.seed, "topology"), scenario.weather.latency_s
        place = [dice.random() for _ in range(scenario.population)]
        least = LEAST_S if scenario.entrance else 0.0
        return [[least + most * (abs(here - there) + dice.random()) / 2 for there in place] for here in place]

    def find_delay(self, sender: PeerId, receiver: PeerId, message: Message) -> float | tuple[float, ...]:
        """Return the delay of a message in seconds; a duplicated one has two."""
        route = self._routes.get((sender, receiver))
        if route is None:  # a stranger, as near as can be
            return 1 / TICKS_PER_S
        one, other, delay, is_honest = route
        now = self._clock.current_time()
        if self._is_troubled:
            delay = self._compute_delay(one, message, delay, now)
            if is_honest:
                delay = min(delay, self._find_bound(message))
        if one in self._dawdlers:
            delay += self._dice.random() * DAWDLE_S
        going_on = self.disturbances
        if going_on.stalled or going_on.far or going_on.cut:
            delay = max(delay, self._find_disturbance(one, other, now, delay))
        delay = math.ceil((now + delay) * TICKS_PER_S) / TICKS_PER_S - now
        if self._copies and message.kind == Kind.MESSAGE and self._dice.random() < self._copies:
            return delay, self._delay_copy(delay)
        return delay

    @cached_property
    def _clock(self) -> trio.abc.Clock:
        """The clock of the run to which the first message belongs."""
        return trio.lowlevel.current_clock()

    def _delay_copy(self, delay: float) -> float:
        """When the second copy comes: what is sent after it must not be kept back for longer than the first could."""
        ticks = max(int((SAFE * DELAY_S - delay) * TICKS_PER_S), 0)
        return delay + self._dice.randint(0, ticks) / TICKS_PER_S

    def _compute_delay(self, one: int, message: Message, delay: float, now: float) -> float:
        """Add what the weather and the sender's disk and bandwidth do to the latency."""
        weather, dice = self._weather, self._dice
        if weather.jitter_s:
            delay += dice.random() * weather.jitter_s
        while weather.loss and dice.random() < weather.loss:
            delay += RETRANSMISSION_S
        if weather.reorder and dice.random() < weather.reorder:
            delay += dice.random() * HELD_BACK_S
        if one in self._disks:
            delay += dice.random() * self._disks[one]
        if weather.bandwidth:
            size = len(message.head) + (0 if message.payload is None else len(message.payload)) + OVERHEAD
            self._free_at[one] = max(self._free_at[one], now) + size / weather.bandwidth
            delay += self._free_at[one] - now
        return delay

    def _find_bound(self, message: Message) -> float:
        """The longest delay that synchrony allows to a message between honest peers, less a margin."""
        if message.payload is None:
            return CONTROL_BOUND_S
        return SAFE * (DELAY_S + len(message.payload) / self._min_bandwidth)

    def _find_disturbance(self, one: int, other: int, now: float, delay: float) -> float:
        """The delay, given who stalls, is far away or cut off right now."""
        going_on = self.disturbances
        stalled_until = max(going_on.stalled.get(one, 0.0), going_on.stalled.get(other, 0.0))
        if stalled_until > now:
            delay = max(delay, stalled_until - now)
        for index in (one, other):
            until, extra_s = going_on.far.get(index, (0.0, 0.0))
            if until > now:
                delay += extra_s
        for side, until in going_on.cut.items():
            if until > now and (one in side) != (other in side):
                delay = max(delay, until - now + delay)
        return delay
