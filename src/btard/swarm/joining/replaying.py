"""
From a snapshot to the newest seal: the aggregates of the rounds between, each step checked against its seal.

No seal names an aggregate. So the members' claims name it, the one of most members first, and the step shows
whether it was the right one: x must be what the seal says, and the optimizer's memory at every K-th. Between two
of these a claim of most members that moves only the memory would pass; the next full seal shows it.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import structlog
import trio
from torch import Tensor

from btard.errors import NetworkError, RemoteProtocolError
from btard.identity import PeerId
from btard.rules.config import RunConfig
from btard.rules.seal import Seal
from btard.swarm.frames import Kind
from btard.swarm.joining.fetching_vectors import Vector, VectorFetcher, Wanted
from btard.swarm.joining.transfer_frames import MAX_ANSWER, Claim, Claims, RoundsQuestion
from btard.swarm.state import is_named_by
from btard.swarm.workload import OptimizerState, Workload
from btard.wire import decode, encode

log = structlog.get_logger(__name__)

Votes = Mapping[Claim, Sequence[PeerId]]
Aggregates = Mapping[tuple[int, Claim], Tensor]

AHEAD = 4
"""Aggregates fetched at once; as many are in memory."""


class Replay:
    """The way from one sealed state to a later one."""

    def __init__(self, config: RunConfig, workload: Workload, vectors: VectorFetcher, directory: Path) -> None:
        self._config, self._workload, self._vectors = config, workload, vectors
        self._sources, self._directory = vectors.sources, directory
        self._seals: Sequence[Seal] = ()
        self._votes: Mapping[int, Votes] = {}

    async def prepare(self, seals: Sequence[Seal], holders: Sequence[PeerId]) -> int:
        """Learn who claims which aggregates of the rounds that these seals end; return their bytes."""
        self._seals = seals
        self._votes = await self._collect_claims(holders) if seals else {}
        moves = sum(any(claim.is_applied for claim in votes) for votes in self._votes.values())
        return 4 * self._config.elements * moves

    async def _collect_claims(self, holders: Sequence[PeerId]) -> Mapping[int, Votes]:
        first, count = self._seals[0].round, len(self._seals)
        question = encode(RoundsQuestion(first, first + count - 1))
        timeout_s = self._vectors.compute_hashing_bound() + count * 4 * self._config.elements / 1e8

        async def ask(source: PeerId) -> Claims:
            reply = await self._vectors.hub.request(source, Kind.CLAIMS, question, timeout_s=timeout_s)
            answer: Claims = decode(reply.head, Claims, limit=MAX_ANSWER)
            return answer

        answers = await self._sources.ask_all(holders, ask, grace_s=4 * self._config.delay_s)
        votes: dict[int, dict[Claim, list[PeerId]]] = defaultdict(lambda: defaultdict(list))
        for source in (each for each in holders if each in answers):
            for number, claim in enumerate(answers[source].claims[:count], first):
                if len(claim.root) == 32:
                    votes[number][claim].append(source)
        return votes

    async def run(self, parameters: Tensor, optimizer: OptimizerState) -> tuple[Tensor, OptimizerState]:
        """Return the state that the last seal names, from the one before the first.

        Raises:
            RemoteProtocolError, Unreachable: no claim about some round's aggregate leads to its seal.
        """
        for first in range(0, len(self._seals), AHEAD):
            several = self._seals[first : first + AHEAD]
            ahead = await self._fetch_ahead([seal.round for seal in several])
            for seal in several:
                parameters, optimizer = await self._pass(seal, parameters, optimizer, ahead)
        return parameters, optimizer

    async def _fetch_ahead(self, rounds: Sequence[int]) -> Aggregates:
        """Return what most claim the aggregates of some rounds to be; nothing where nobody has all of them."""
        best = [
            (number, max(votes, key=lambda claim: len(votes[claim])))
            for number in rounds
            if (votes := self._votes.get(number))
        ]
        moves = [(number, claim) for number, claim in best if claim.is_applied]
        holders = [
            source for source in self._sources.live if all(source in self._votes[n][claim] for n, claim in moves)
        ]
        if not moves or not holders:
            return {}
        try:
            return await self._fetch(moves, holders)
        except (RemoteProtocolError, NetworkError) as error:
            log.info("aggregates are asked for one by one", rounds=rounds, reason=str(error))
            return {}

    async def _fetch(self, moves: Sequence[tuple[int, Claim]], holders: Sequence[PeerId]) -> Aggregates:
        leaves: dict[int, bytes] = {}
        errors: list[RemoteProtocolError | NetworkError] = []

        async def ask(number: int, vector: Vector) -> None:
            what = f"the aggregate of round {number}"
            try:
                leaves[number] = await self._vectors.ask_first(
                    holders, lambda source: self._vectors.fetch_leaves(vector, source), what
                )
            except (RemoteProtocolError, NetworkError) as error:
                errors.append(error)

        vectors = {number: Vector(number, claim.root, self._config.elements) for number, claim in moves}
        async with trio.open_nursery() as nursery:
            for number, vector in vectors.items():
                nursery.start_soon(ask, number, vector)
        if errors:
            raise errors[0]
        wanted = [Wanted(vector, leaves[number], self._find_path(number)) for number, vector in vectors.items()]
        return dict(zip(moves, await self._vectors.fetch(wanted, holders), strict=True))

    def _find_path(self, number: int) -> Path:
        return self._directory / f"update-{number}.bin"

    async def _pass(
        self, seal: Seal, parameters: Tensor, optimizer: OptimizerState, ahead: Aggregates
    ) -> tuple[Tensor, OptimizerState]:
        votes = self._votes.get(seal.round, {})
        for claim, claimers in sorted(votes.items(), key=lambda item: len(item[1]), reverse=True):
            live = [source for source in claimers if self._sources.is_live(source)]
            try:
                after = await self._step((seal.round, claim), live, parameters, optimizer, ahead)
            except (RemoteProtocolError, NetworkError) as error:
                log.warning("an aggregate cannot be had", round=seal.round, reason=str(error))
                continue
            if await self._vectors.compute.run(partial(is_named_by, seal, *after, self._config.chunk_size)):
                return after
            for source in live:
                self._sources.drop(source, f"its aggregate of round {seal.round} does not lead to the seal", lied=True)
        raise self._sources.explain(f"the aggregate of round {seal.round}")

    async def _step(
        self,
        move: tuple[int, Claim],
        claimers: Sequence[PeerId],
        parameters: Tensor,
        optimizer: OptimizerState,
        ahead: Aggregates,
    ) -> tuple[Tensor, OptimizerState]:
        number, claim = move
        if not claim.is_applied:
            return parameters, optimizer
        found = ahead if move in ahead else await self._fetch([move], claimers)
        after = await self._vectors.compute.run(lambda: self._workload.step(parameters, found[move], optimizer))
        self._find_path(number).unlink(missing_ok=True)
        return after
