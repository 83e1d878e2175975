"""Members that serve a sealed run and a newcomer that fetches from them, on a network of either kind."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio
from tests.swarm.transfer.sealed_run import SealedRun

from btard.identity import Identity, PeerId
from btard.net import Address, Hub, MemoryNetwork, Terms, Transport, open_tcp
from btard.swarm.compute import InlineCompute
from btard.swarm.joining.asking_lineage import LineAsker
from btard.swarm.joining.fetching_state import FetchedState, Progress, StateFetcher
from btard.swarm.joining.lineage import Line
from btard.swarm.joining.telling_lineage import LineTeller
from btard.swarm.joining.telling_state import StateTeller
from btard.swarm.ledger import Ledger

NEWCOMER = Identity(b"n" * 32)
LOOPBACK = Address("127.0.0.1", 0)


@dataclass
class Scene:
    """A newcomer's hub with a link to every member, honest until a test replaces what its hub serves."""

    run: SealedRun
    hub: Hub
    network: MemoryNetwork
    directory: Path
    members: list[Hub] = field(default_factory=list)
    tellers: list[StateTeller] = field(default_factory=list)
    ledgers: list[Ledger] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)
    on_progress: Callable[[Progress], None] | None = None

    @property
    def sources(self) -> list[PeerId]:
        """The members, in order."""
        return [hub.me for hub in self.members]

    async def ask_line(self, pin: bytes = b"", sources: Sequence[PeerId] | None = None) -> Line:
        """The line that the members tell."""
        asker = LineAsker(self.run.config, self.hub, InlineCompute())
        return (await asker.find_line(self.sources if sources is None else sources, pin)).line

    async def fetch(self, line: Line | None = None) -> FetchedState:
        """The newest state."""
        line = line or await self.ask_line()
        arguments = (self.run.config, self.hub, self.run.task, line, self.sources, self.directory)
        return await StateFetcher(*arguments, InlineCompute(), self.on_progress or self.progress.append).fetch()


async def hold_tcp(
    identity: Identity, terms: Terms, *, task_status: trio.TaskStatus[Transport] = trio.TASK_STATUS_IGNORED
) -> None:
    """Keep a TCP transport open until cancelled."""
    async with open_tcp(identity, terms, LOOPBACK) as transport:
        task_status.started(transport)
        await trio.sleep_forever()


@asynccontextmanager
async def open_scene(
    run: SealedRun,
    directory: Path,
    *,
    members: int = 7,
    over_tcp: bool = False,
    up_to: Callable[[int], int | None] = lambda index: None,
) -> AsyncIterator[Scene]:
    """Yield members who hold the run, up to a round of their own, linked to a newcomer; nothing runs afterwards."""
    network, terms = MemoryNetwork(), Terms(run.config.run_id)
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:

        async def open_hub(identity: Identity) -> tuple[Hub, Transport]:
            if over_tcp:
                transport: Transport = await nursery.start(hold_tcp, identity, terms)
            else:
                transport = network.transport(identity, terms)
            hub = Hub(transport, identity.peer_id)
            await nursery.start(hub.run)
            return hub, transport

        newcomer, _ = await open_hub(NEWCOMER)
        scene = Scene(run, newcomer, network, directory / "newcomer")
        for index in range(members):
            hub, transport = await open_hub(run.identities[index])
            hub.favour(newcomer.me.__eq__)  # as a candidate
            ledger = stack.enter_context(run.open_ledger(directory / f"member-{index}", index))
            updates = run.fill(ledger, up_to=up_to(index))
            LineTeller(hub, ledger)
            teller = StateTeller(run.config, hub, ledger, run.snapshots, updates, InlineCompute())
            nursery.start_soon(teller.run)
            scene.tellers.append(teller)
            scene.members.append(hub)
            scene.ledgers.append(ledger)
            await newcomer.connect(hub.me, transport.address)
        yield scene
        nursery.cancel_scope.cancel()
