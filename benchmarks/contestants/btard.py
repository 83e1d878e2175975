"""
The protocol whole: every check, signature and encryption, the ledger and the disk.

The gradient costs nothing, or is that of a task: then a turn begins before it is computed. Nothing in the
protocol is left out or told that it is measured; functions are watched from outside.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import structlog
import torch
import trio

from benchmarks.contestants.gate import Gate, Role, parse_role
from benchmarks.contestants.jobs import MANY, Contributing, FreeGradients, TaskGradients
from benchmarks.contestants.turns import Turns
from btard.identity import Context, Identity, digest
from btard.net import Address, Hub, Terms, open_tcp
from btard.robust import compute_chunk_size
from btard.rules.config import RunConfig, parse_run_file
from btard.sim.swarm import StaticDirectory
from btard.swarm.compute import ThreadCompute
from btard.swarm.conduct import Conduct
from btard.swarm.peer import Membership, run_peer

LOOPBACK = Address("127.0.0.1", 0)
DELAY_S = 10.0
LONGEST_GRADIENT_MS = 3_600_000
"""What every peer promises: it covers the turns of the others, for which a gradient has to wait."""


def make_identities(role: Role) -> list[Identity]:
    """Return the keys of all peers, by rank."""
    return [Identity(digest(Context.EXPAND, b"round", f"{role.seed}/{rank}".encode())) for rank in range(role.peers)]


def make_config(role: Role, founder: Identity) -> RunConfig:
    """Return the run of the role's run file, or one of noise; with so much patience as taking turns needs."""
    draft = parse_run_file(Path(role.run_file).read_text("utf-8")) if role.run_file else make_noise_run(role)
    return replace(draft, founder=founder.peer_id.hex(), delay_s=DELAY_S, max_gradient_s=LONGEST_GRADIENT_MS / 1000)


def make_noise_run(role: Role) -> RunConfig:
    """Return the defaults, with a tau that the median row of a column has as its distance (calibrate)."""
    chunk_size = compute_chunk_size(role.elements, role.peers)
    radius = (chunk_size * (1 - 1 / role.peers)) ** 0.5
    return RunConfig(
        genesis_size=role.peers,
        rounds=MANY,
        seed=role.seed,
        elements=role.elements,
        chunk_size=chunk_size,
        optimizer="sgd",
        tau=radius,
        delta=2 * radius,
    )


def make_job(role: Role, config: RunConfig, turns: Turns) -> tuple[FreeGradients | TaskGradients, Conduct]:
    """Return what the peer trains, and a conduct that changes nothing."""
    if not role.run_file:
        return FreeGradients(role, turns), Conduct()
    job = TaskGradients(config, turns)
    return job, Contributing(turns, job.batch_size)


async def compete(role: Role, gate: Gate) -> None:
    """Be one peer of the run until nobody wants another round."""
    identities = make_identities(role)
    me, members = identities[role.rank], [identity.peer_id for identity in identities]
    config = make_config(role, identities[0])
    async with open_tcp(me, Terms(config.run_id, config.field_digests), LOOPBACK) as transport:
        turns = Turns(gate, lambda: transport.traffic)
        workload, conduct = make_job(role, config, turns)
        async with trio.open_nursery() as nursery:
            hub = Hub(transport, me.peer_id)
            await nursery.start(hub.run)
            places = await trio.to_thread.run_sync(gate.meet, str(transport.address))
            directory = StaticDirectory(dict(zip(members, map(Address.parse, places), strict=True)))
            member = Membership(
                me,
                config,
                workload,
                Path(role.directory) / f"peer-{role.rank}",
                conduct,
                ThreadCompute(),
                turns.observe,
                LONGEST_GRADIENT_MS,
                disk=ThreadCompute(),
                aside=ThreadCompute(),
            )
            await run_peer(member, hub, directory)


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    torch.set_num_threads(1)
    trio.run(partial(compete, parse_role(), Gate()))
