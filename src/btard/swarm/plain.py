"""
Plain averaging over the same links: a butterfly all-reduce without any commitment, check or vote.

What `defence = "none"` runs, for comparison only. Whoever does not deliver in time is left out from
then on; whatever the others send is believed.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec
import torch
import trio
from torch import Tensor

from btard.identity import Context, PeerId, digest
from btard.net import Hub
from btard.robust import compute_mean
from btard.rules.config import RunConfig
from btard.rules.draws import compute_minibatch_seed
from btard.rules.merkle import MerkleTree
from btard.rules.parts import Part, cut_parts, find_part_of
from btard.swarm.compute import Compute
from btard.swarm.conduct import Conduct
from btard.swarm.events import Observer, RoundDone
from btard.swarm.frames import Kind, PartHead
from btard.swarm.state import Gradient, State, as_bytes, compute_state_root, read_values
from btard.swarm.workload import Workload
from btard.wire import decode, encode

UNCOMMITTED = MerkleTree(0, ((),))
PATIENCE_S = 5.0
"""How long a member is waited for before it is left out for good."""
FIRST_PATIENCE_S = 60.0
"""The same in the first round, in which links are still being made."""


class Inbox:
    """Raw slices and parts of this round and the next, by (kind, round, sender)."""

    def __init__(self, config: RunConfig, hub: Hub, kind: Kind, notify: Callable[[], None]) -> None:
        self._limit, self._notify = 4 * config.elements, notify
        self._held: dict[tuple[int, PeerId], Tensor] = {}
        self.round = 1
        hub.bulk[kind] = self

    def sink(self, peer: PeerId, head: bytes, size: int) -> memoryview | None:
        """Memory for one vector per sender and round."""
        part = decode(head, PartHead)
        wanted = self.round <= part.round <= self.round + 1 and (part.round, peer) not in self._held
        if not wanted or not 0 < size <= self._limit or size % 4:
            return None
        return as_bytes(torch.empty(size // 4, dtype=torch.float32))

    def done(self, peer: PeerId, head: bytes, payload: memoryview) -> None:
        """Keep it."""
        self._held[decode(head, PartHead).round, peer] = read_values(payload)
        self._notify()

    def get(self, peer: PeerId, elements: int) -> Tensor | None:
        """What a member sent this round, if it has the right length."""
        values = self._held.get((self.round, peer))
        return values if values is not None and values.numel() == elements else None

    def advance(self) -> None:
        """Go on to the next round."""
        self.round += 1
        self._held = {key: values for key, values in self._held.items() if key[0] >= self.round}


@dataclass
class PlainRun:
    """One member's plain averaging."""

    config: RunConfig
    me: PeerId
    hub: Hub
    workload: Workload
    conduct: Conduct
    compute: Compute
    observe: Observer

    def __post_init__(self) -> None:
        self._changed = trio.Event()
        self._slices = Inbox(self.config, self.hub, Kind.PLAIN_SLICE, self._signal)
        self._parts = Inbox(self.config, self.hub, Kind.PLAIN_PART, self._signal)
        self._lost: set[PeerId] = set()

    def _signal(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def run(self, state: State) -> State:
        """Run all rounds and return the final state."""
        await self._meet_everyone(state)
        while state.round <= self.config.rounds:
            started = trio.current_time()
            state = await self._run_round(state)
            seconds = trio.current_time() - started
            self.observe(RoundDone(state.round - 1, 1, seconds, state.roster.members, (), state))
            self._slices.advance()
            self._parts.advance()
        return state

    async def _meet_everyone(self, state: State) -> None:
        with trio.move_on_after(FIRST_PATIENCE_S):
            await self.hub.wait_connected([peer for peer in state.roster.members if peer != self.me])

    async def _run_round(self, state: State) -> State:
        """Scatter, average, gather, step."""
        parts = cut_parts(self.config, state.q, state.roster, state.roster)
        seed = compute_minibatch_seed(state.q, state.round, self.me)
        own = await self.compute.run(lambda: self._commit(state, seed))
        mine = find_part_of(parts, self.me)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._scatter, state.round, own, parts)
            rows = await self._receive(self._slices, dict.fromkeys(state.roster.members, mine))
            rows[self.me] = own[mine.start : mine.stop]
            average = compute_mean([rows[peer] for peer in sorted(rows)])
            average = self.conduct.aggregate(state.round, 0, mine, average)
            nursery.start_soon(self._gather, state, mine, average)
            merged = await self._merge(parts, mine, average)
        parameters, optimizer = await self.compute.run(
            lambda: self.workload.step(state.parameters, merged, state.optimizer)
        )
        q = digest(Context.EXPAND, b"plain", state.q)
        root = await self.compute.run(lambda: compute_state_root(parameters, self.config.chunk_size))
        seal = msgspec.structs.replace(state.seal, round=state.round, q=q, state=root)
        return replace(state, round=state.round + 1, parameters=parameters, optimizer=optimizer, seal=seal)

    def _commit(self, state: State, seed: bytes) -> Tensor:
        values = self.workload.gradient(state.parameters, seed).contiguous()
        own = Gradient(values, UNCOMMITTED, overflow=False)
        return self.conduct.commitment(state.round, own, self.config.chunk_size).values

    async def _scatter(self, number: int, own: Tensor, parts: tuple[Part, ...]) -> None:
        async with trio.open_nursery() as nursery:
            for part in parts:
                if part.aggregator != self.me and part.elements and self.conduct.sends_slice(number, part.aggregator):
                    values = as_bytes(own[part.start : part.stop])
                    head = encode(PartHead(number, 0, part.index))
                    nursery.start_soon(self.hub.send_bulk, part.aggregator, Kind.PLAIN_SLICE, head, values)

    async def _gather(self, state: State, mine: Part, average: Tensor) -> None:
        async with trio.open_nursery() as nursery:
            for peer in state.roster.members:
                if peer != self.me and mine.elements and self.conduct.sends_part(state.round, peer):
                    head = encode(PartHead(state.round, 0, mine.index))
                    nursery.start_soon(self.hub.send_bulk, peer, Kind.PLAIN_PART, head, as_bytes(average))

    async def _receive(self, inbox: Inbox, wanted: dict[PeerId, Part]) -> dict[PeerId, Tensor]:
        """Return what the members sent; those who did not in time are left out from now on."""
        senders = {p: part for p, part in wanted.items() if p not in {self.me, *self._lost} and part.elements}

        def held() -> dict[PeerId, Tensor]:
            found = {peer: inbox.get(peer, part.elements) for peer, part in senders.items()}
            return {peer: values for peer, values in found.items() if values is not None}

        with trio.move_on_after(PATIENCE_S):
            while len(held()) < len(senders):
                await self._changed.wait()
        self._lost |= senders.keys() - held().keys()
        return held()

    async def _merge(self, parts: tuple[Part, ...], mine: Part, average: Tensor) -> Tensor:
        """Return the averaged vector; zeros where a part did not come."""
        merged = torch.zeros(self.config.elements)
        merged[mine.start : mine.stop] = average
        received = await self._receive(self._parts, {part.aggregator: part for part in parts})
        for part in parts:
            if part.aggregator in received:
                merged[part.start : part.stop] = received[part.aggregator]
        return merged
