"""A candidate steps by the aggregate that more than f members name alike, and blames nobody that it cannot prove."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import trio
from torch import Tensor

from btard.errors import RequestTimedOut
from btard.identity import Identity, PeerId
from btard.net import Hub, MemoryNetwork, Message, Terms
from btard.rules.roster import Roster
from btard.sim import LinearTask
from btard.swarm.compute import InlineCompute
from btard.swarm.frames import Kind, UpdateHead, UpdateRequest
from btard.swarm.joining.fetching_state import Memory
from btard.swarm.joining.stepping import Steps
from btard.swarm.joining.telling_updates import MAX_NAMINGS, UpdateTeller
from btard.swarm.joining.transfer_frames import Claim, Claims, RoundsQuestion
from btard.swarm.state import as_bytes, compute_full_state_root, compute_state_root
from btard.swarm.updates import Update
from btard.wire import decode, encode

Clock = trio.testing.MockClock
ME = Identity(b"m" * 32).peer_id
MEMBERS = Roster.of(Identity(bytes([number]) * 32).peer_id for number in range(1, 7))
"""Six, of whom two may be Byzantine."""
ROUND, CHUNK, ELEMENTS = 8, 4, 10
TRUE, OTHER = torch.ones(ELEMENTS), torch.full((ELEMENTS,), 1.5)
DELAY_S = 1.0


class Swallows(LinearTask):
    """A task in which x tells nothing of the aggregate, and the memory everything."""

    def step(self, parameters: Tensor, aggregate: Tensor, state: Any) -> tuple[Tensor, Memory]:
        """Return x one further, and the sum of the aggregates."""
        return parameters + 1, Memory(state.step + 1, {"sum": state.buffers["sum"] + aggregate})


TASK = Swallows(ELEMENTS)
BEFORE = torch.zeros(ELEMENTS), Memory(ROUND - 1, {"sum": torch.zeros(ELEMENTS)})
CONFIG: Any = SimpleNamespace(
    chunk_size=CHUNK, elements=ELEMENTS, delay_s=DELAY_S, min_bandwidth=1e6, byzantine_bound=None, state_interval=8
)


def claim(aggregate: Tensor) -> Claim:
    """What names an aggregate."""
    return Claim(True, compute_state_root(aggregate, CHUNK))


def seal(*, is_full: bool) -> Any:
    """The seal of the round, by the true aggregate."""
    x, memory = TASK.step(BEFORE[0], TRUE, BEFORE[1])
    root = compute_state_root(x, CHUNK)
    full = compute_full_state_root(root, memory, CHUNK) if is_full else b""
    return SimpleNamespace(round=ROUND, q=bytes(32), state=root, full_state=full)


class Swarm:
    """Members of whom each gives and names what a test says; ``behind`` times they know no name yet."""

    def __init__(self, given: dict[PeerId, Tensor], named: dict[PeerId, Tensor | None], behind: int = 0) -> None:
        self._given, self._named, self._behind = given, named, behind
        self.asked: list[PeerId] = []

    def is_connected(self, peer: PeerId) -> bool:
        """There are links to all."""
        return True

    async def request(
        self, peer: PeerId, kind: Kind, body: bytes, *, timeout_s: float, sink: Callable[..., Any] | None = None
    ) -> Message:
        """Answer in the place of a member."""
        await trio.sleep(DELAY_S / 10)
        if kind is Kind.NAMES:
            return Message(kind, encode(Claims((self._name(peer),))))
        assert decode(body, UpdateRequest).round == ROUND
        self.asked.append(peer)
        assert sink is not None
        if peer not in self._given:
            raise RequestTimedOut("it is silent")
        memory = sink(b"", 4 * ELEMENTS)
        memory[:] = as_bytes(self._given[peer])
        return Message(kind, encode(UpdateHead(True)), memory)

    def _name(self, peer: PeerId) -> Claim:
        aggregate = self._named.get(peer)
        if aggregate is None or trio.current_time() < self._behind:
            return Claim(False, b"")
        return claim(aggregate)


def prepare(swarm: Swarm) -> Steps:
    """A candidate's steps."""
    member: Any = SimpleNamespace(
        config=CONFIG, compute=InlineCompute(), workload=TASK, identity=SimpleNamespace(peer_id=ME)
    )
    return Steps(member, swarm, lambda: MEMBERS)  # type: ignore[arg-type]


def by_all(aggregate: Tensor, *others: Tensor) -> dict[PeerId, Any]:
    """The first members have ``others``, the rest ``aggregate``."""
    return dict(zip(MEMBERS.members, [*others, *[aggregate] * (len(MEMBERS) - len(others))], strict=True))


async def test_what_f_members_give_and_name_alike_is_not_taken(autojump_clock: Clock) -> None:
    """One honest member's word is among more than f: the true aggregate is taken, whoever is asked first."""
    for turn in range(len(MEMBERS)):
        drawn = MEMBERS.members[turn:] + MEMBERS.members[:turn]
        told = {peer: OTHER if peer in drawn[:2] else TRUE for peer in drawn}
        after = await prepare(Swarm(told, told)).take(seal(is_full=False), ROUND - 1, BEFORE)
        assert after is not None
        assert torch.equal(after[1].buffers["sum"], TRUE)


async def test_silent_members_and_liars_together_stop_no_step(autojump_clock: Clock) -> None:
    """More than f names are enough: one silent, one lying, one that gives nothing."""
    one, two, three = MEMBERS.members[:3]
    told = {peer: TRUE for peer in MEMBERS.members if peer not in (one, three)} | {two: OTHER}
    after = await prepare(Swarm(told, told)).take(seal(is_full=False), ROUND - 1, BEFORE)
    assert after is not None
    assert torch.equal(after[1].buffers["sum"], TRUE)


async def test_where_only_f_name_an_aggregate_no_step_is_taken(autojump_clock: Clock) -> None:
    """The others keep silent: within seconds the candidate knows that it must come to the state otherwise."""
    named = dict.fromkeys(MEMBERS.members[:2], OTHER)
    assert await prepare(Swarm(by_all(OTHER), named)).take(seal(is_full=False), ROUND - 1, BEFORE) is None
    assert trio.current_time() < 10 * DELAY_S


async def test_members_that_are_a_phase_behind_are_asked_again(autojump_clock: Clock) -> None:
    """They cannot name what they do not have yet."""
    swarm = Swarm(by_all(TRUE), by_all(TRUE), behind=2)
    assert await prepare(swarm).take(seal(is_full=False), ROUND - 1, BEFORE) is not None
    assert trio.current_time() == pytest.approx(2, abs=DELAY_S)


async def test_wrong_memory_of_our_own_is_no_lie_of_others(autojump_clock: Clock) -> None:
    """A seal of the full state shows it: no step is taken, one member alone was asked, and nobody is asked last."""
    poisoned = BEFORE[0], Memory(ROUND - 1, {"sum": torch.full((ELEMENTS,), 0.1)})
    swarm = Swarm(by_all(TRUE), by_all(TRUE))
    steps = prepare(swarm)
    assert await steps.take(seal(is_full=True), ROUND - 1, poisoned) is None
    assert len(swarm.asked) == 1
    assert await steps.take(seal(is_full=True), ROUND - 1, BEFORE) is not None
    assert swarm.asked[0] == swarm.asked[1]


class Disk:
    """Has the true aggregate of one round."""

    def is_applied(self, number: int) -> bool | None:
        """As it was."""
        return True if number == ROUND - 1 else None

    def map(self, number: int) -> memoryview | None:
        """Its bytes."""
        return as_bytes(TRUE) if number == ROUND - 1 else None


async def test_a_member_names_what_it_holds_to_its_guests(autojump_clock: Clock) -> None:
    """What is on disk and the newest, anew where a round ran again; strangers and who asks too often get nothing."""
    hub = Hub(MemoryNetwork().transport(Identity(b"m" * 32), Terms(bytes(32))), ME)
    guest, stranger = MEMBERS.members[:2]
    teller = UpdateTeller(CONFIG, hub, Disk(), InlineCompute(), lambda peer: peer == guest)  # type: ignore[arg-type]

    async def ask(peer: PeerId) -> tuple[Claim, ...]:
        head, _ = await hub.serve[Kind.NAMES](peer, encode(RoundsQuestion(ROUND - 2, ROUND)))
        return decode(head, Claims).claims if head else ()

    for newest in (TRUE, OTHER):
        teller.begin_round(ROUND + 1)
        teller.finish_round(ROUND, Update(newest, True))
        assert await ask(guest) == (Claim(False, b""), claim(TRUE), claim(newest))
    assert await ask(stranger) == ()
    answers = [await ask(guest) for _ in range(MAX_NAMINGS)]
    assert (answers[-2], answers[-1]) == (answers[0], ())


async def test_a_guest_keeps_one_aggregate_in_memory(autojump_clock: Clock) -> None:
    """Whoever reads slowly is lent the newest of the round that it asked last, and files; others are lent their own."""
    hub = Hub(MemoryNetwork().transport(Identity(b"m" * 32), Terms(bytes(32))), ME)
    teller = UpdateTeller(CONFIG, hub, Disk(), InlineCompute(), lambda peer: True)  # type: ignore[arg-type]
    guest, other = MEMBERS.members[:2]

    async def lend(peer: PeerId, number: int) -> trio.CancelScope:
        _, loan = await hub.serve[Kind.UPDATE](peer, encode(UpdateRequest(number)))
        assert loan is not None
        return loan.scope

    teller.finish_round(ROUND, Update(OTHER, True))
    scopes = [await lend(guest, ROUND), await lend(guest, ROUND - 1), await lend(other, ROUND)]
    teller.begin_round(ROUND + 2)
    teller.finish_round(ROUND + 1, Update(OTHER, True))
    scopes.append(await lend(guest, ROUND + 1))
    assert [scope.cancel_called for scope in scopes] == [True, False, False, False]
    assert max(scope.relative_deadline for scope in scopes) < float("inf")
