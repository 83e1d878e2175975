"""A stranger's means: the line of seals, the state that its newest one names, and a ticket that somebody works for."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path

import structlog
import trio

from btard.errors import ConfigError, Refused, RemoteProtocolError, Unreachable
from btard.identity import JoinTicket, PeerId
from btard.net import Hub
from btard.rules.config import RunConfig
from btard.rules.seal import Seal
from btard.swarm.compute import Compute
from btard.swarm.frames import SignedTuple
from btard.swarm.joining.asking_lineage import MAX_SOURCES, LineAsker
from btard.swarm.joining.fetching_state import Progress, StateFetcher, forget_transfer, ignore_progress
from btard.swarm.joining.hearing_seals import forget_heard, note_heard
from btard.swarm.joining.lineage import Line, Vouched, open_next
from btard.swarm.restoring import Vectors
from btard.swarm.state import State, compute_state_root
from btard.swarm.workload import Workload
from btard.wire import decode_seal, encode_seal

log = structlog.get_logger(__name__)

FindSeal = Callable[[], Awaitable[Seal]]
Solve = Callable[[Seal, FindSeal], Awaitable[JoinTicket]]
Keep = Callable[[State], object]
LOOK_S = 5.0
"""How long we look whether a run has begun, beside 4Δ; else its founder will say so."""
PAUSE_S = 1.0
"""After so long others are asked as well, twice as many each time: fifty strangers must not weigh on anybody."""
PATIENCE_S = 60.0
"""How long members are asked before a stranger gives up."""


class Stranger:
    """What one peer brings to join a run midway (see ``Application``).

    ``reach`` returns once there is a link to anybody of the run; ``solve`` works for a ticket on a seal's draw, or on
    that of a newer one; ``keep`` writes a snapshot; ``pin`` is the digest of a seal of its line; ``spend`` forgets a
    ticket that is kept.
    """

    def __init__(
        self,
        config: RunConfig,
        hub: Hub,
        workload: Workload,
        data_dir: Path,
        compute: Compute,
        reach: Callable[[], Awaitable[None]],
        solve: Solve,
        keep: Keep,
        pin: bytes = b"",
        on_progress: Callable[[Progress], None] = ignore_progress,
        spend: Callable[[], object] = lambda: None,
    ) -> None:
        self._config, self._hub, self._workload = config, hub, workload
        self._data_dir, self._compute, self._pin = data_dir, compute, pin
        self._me, self._reach = hub.me, reach
        self._solve, self._keep, self._on_progress, self._spend = solve, keep, on_progress, spend
        self._asker, self._asked = LineAsker(config, hub, compute), int.from_bytes(hub.me[:4], "little")
        self._patience_s = 2 * config.delay_s  # an honest member has told its line by then
        self._line: Line | None = None
        self._first: Line | None = None  # the one that somebody told when we looked: others may know another run

    async def has_begun(self) -> bool:
        """Return whether members tell a line of seals whose newest roster is without us.

        One that holds is enough, so one is asked at first, and ever more while nobody tells any; but who is in its
        roster may have left since, and asks all before it begins where the run did.
        """
        await self._reach()
        lines: list[Line] = []
        order, count = self._order(), 1

        async def look(sources: Sequence[PeerId], done: trio.Event) -> None:
            try:
                lines.append((await self._asker.find_line(sources, self._pin, patience_s=0.0)).line)
                nursery.cancel_scope.cancel()
            except Unreachable:
                pass
            except Refused as refusal:
                log.info("whoever answers shows no run", reason=str(refusal))
            finally:
                done.set()

        with trio.move_on_after(LOOK_S + 2 * self._patience_s):
            async with trio.open_nursery() as nursery:
                while order:
                    done = trio.Event()
                    nursery.start_soon(look, order[:count], done)
                    with trio.move_on_after(PAUSE_S):
                        await done.wait()
                    order, count = order[count:], min(2 * count, MAX_SOURCES)
        self._first = lines[0] if lines else None
        if self._first is not None and self._me in self._first.head.seal.roster:
            with suppress(Unreachable, Refused):
                told = await self._asker.find_line(self._order(), self._pin, hint=self._first, patience_s=PAUSE_S)
                self._first = told.line
        return self._first is not None and self._me not in self._first.head.seal.roster

    async def find_seal(self) -> Seal:
        """Return the newest seal that members' signatures vouch for, in a line from the genesis on.

        One member is asked how a line goes on that was verified before, another one each time: fifty strangers that
        wait must not weigh on anybody.
        """
        return (await self._find_line(1)).head.seal

    async def _find_line(self, count: int) -> Line:
        self._line = await self._extend_line(count) or await self._extend_line(MAX_SOURCES) or await self._ask_all()
        self.note_seal(self._line.head.seal)
        return self._line

    def _order(self, count: int = MAX_SOURCES) -> Sequence[PeerId]:
        """Those that there is a link to, members of the newest roster that we know before all others.

        Each time that ``count`` of them are asked others come first: no key puts its owner there for all strangers.
        """
        members = self._find_members()
        first, self._asked = self._asked, self._asked + count
        return [*_turn(sorted(members), first), *_turn(sorted(self._hub.connected - members), first)]

    def _find_members(self) -> frozenset[PeerId]:
        """The members of the newest roster that we know to whom there is a link."""
        roster = self._line.head.seal.roster if self._line else ()
        return self._hub.connected & frozenset(map(PeerId, roster))

    async def _extend_line(self, count: int) -> Line | None:
        """Return how the line that we know goes on, if any of so many members tells it; others are asked each time.

        What follows a verified seal needs the keys of its roster, so nobody can lead us from the run by now. The line
        grows with the members that leave, not with the times that we ask.
        """
        if self._line is None:
            return None
        known, sources = self._line, self._order(count)[:count]
        try:
            told = await self._asker.find_line(sources, begun=known.seals, patience_s=self._patience_s)
            longer = told.line
            return longer if known.head.digest == self._pin else longer.skip(self._config, len(known.seals) - 1)
        except (Unreachable, Refused) as error:
            log.info("all members are asked for the line again", reason=str(error))
            return None

    async def _ask_all(self) -> Line:
        """Return the line that anybody tells, within a minute; those who know one that was told before tell the rest.

        Whoever we had links to may have been started again, all at once: they are dialled anew.

        Raises:
            Refused: members were asked, if we know any, and no line is told that holds, or there are two runs.
            Unreachable: nobody tells a line; where we know members, and none is there, what others say is no refusal.
        """
        deadline = trio.current_time() + PATIENCE_S
        while True:
            is_heard = self._line is None or bool(self._find_members())
            try:
                if not self._hub.connected:
                    await self._reach()
                return (await self._asker.find_line(self._order(), self._pin, hint=self._line or self._first)).line
            except Unreachable:
                if trio.current_time() > deadline:
                    raise
            except Refused as refusal:
                if is_heard:
                    raise
                if trio.current_time() > deadline:
                    raise Unreachable(f"there is no link to any member, and others do not help: {refusal}") from None
            await trio.sleep(self._config.delay_s)

    def note_seal(self, seal: Seal) -> None:
        """Let whoever asks how we stand see this seal."""
        note_heard(self._data_dir, seal)

    async def find_line(self, entry: SignedTuple) -> Sequence[SignedTuple]:
        """Return the seals before ``entry`` that lead to it, or those that we know if nobody tells more within 2Δ.

        The line that we know is as old as the state that we fetched, and half of its last roster may have left since:
        nobody could go on from there by the seals that we shall have ourselves. All members have the one before ours.
        """
        assert self._line is not None
        seal = decode_seal(entry.seal)
        known = self._line.before(seal.round)
        if not await self._compute.run(lambda: self._is_next(known[-1], entry)):
            sources = _turn([peer for peer in map(PeerId, seal.roster) if self._hub.is_connected(peer)], self._asked)
            with suppress(Unreachable, Refused), trio.move_on_after(self._patience_s):
                told = await self._asker.find_line(sources, seal.previous, known, patience_s=0.0)
                known = told.line.before(seal.round)
        return [SignedTuple(encode_seal(item.seal), item.signatures) for item in known]

    def _is_next(self, before: Vouched, item: SignedTuple) -> bool:
        """Return whether a seal may follow a verified one."""
        try:
            open_next(self._config, before, item)
        except RemoteProtocolError:
            return False
        return True

    async def make_ticket(self, seal: Seal) -> JoinTicket:
        """Return a ticket on the draw of ``seal``."""
        return await self._solve(seal, self.find_seal)

    def spend_ticket(self) -> None:
        """Never show again the ticket that got us a place."""
        self._spend()

    async def fetch_state(self) -> tuple[int, Vectors]:
        """Return the newest sealed round, x after it and the optimizer's memory, from all members at once."""
        line = await self._find_line(MAX_SOURCES)  # one that tells an old seal must not lead us to a state that is gone
        if line.head.seal.round == 0:
            return 0, await self._compute.run(lambda: self._begin(line.head.seal))
        sources = [PeerId(peer) for peer in line.head.seal.roster if PeerId(peer) in self._hub.connected]
        fetcher = StateFetcher(
            self._config,
            self._hub,
            self._workload,
            line,
            sources,
            self._data_dir,
            self._compute,
            self._on_progress,
        )
        fetched = await fetcher.fetch()
        return line.head.seal.round, (fetched.parameters, fetched.optimizer)

    def _begin(self, genesis: Seal) -> Vectors:
        """Return x_0 and an optimizer without memory, which everybody has.

        Raises:
            ConfigError: ours is another x_0.
        """
        parameters = self._workload.initial_parameters()
        if compute_state_root(parameters, self._config.chunk_size) != genesis.state:
            raise ConfigError("the task gives other initial parameters here than in the run; versions may differ")
        return parameters, self._workload.initial_optimizer()

    def keep_state(self, state: State) -> None:
        """Write down where we begin as a member, and forget what the way there left."""
        self._keep(state)
        forget_heard(self._data_dir)
        forget_transfer(self._data_dir)


def _turn(peers: Sequence[PeerId], first: int) -> Sequence[PeerId]:
    """The same peers, beginning with another one."""
    start = first % len(peers) if peers else 0
    return [*peers[start:], *peers[:start]]
