"""What a member charges: the very sample that it found false."""

from types import SimpleNamespace
from typing import Any

import pytest
import trio
from tests.swarm.transfer.sealed_run import SealedRun

from btard.identity import Identity
from btard.net import Hub, MemoryNetwork, Terms
from btard.rules.admission import Check, Work
from btard.rules.messages import Report
from btard.swarm.compute import InlineCompute
from btard.swarm.conduct import Conduct
from btard.swarm.joining.reception import Reception

ME, CANDIDATE = (Identity(bytes([number]) * 32) for number in (203, 204))
ROUND = 3


@pytest.mark.parametrize("is_agreed_again", [False, True])
async def test_charge_is_about_the_sample_that_was_redone(
    autojump_clock: trio.testing.MockClock, *, is_agreed_again: bool
) -> None:
    """A round that is run again may agree on another sample: what was found of the first says nothing of that."""
    run, tasks, given = SealedRun(), list[Any](), SimpleNamespace(gradient=lambda parameters, seed: parameters)
    hub = Hub(MemoryNetwork().transport(ME, Terms(run.config.run_id)), ME.peer_id)
    reception = Reception(
        run.config,
        ME.peer_id,
        hub,
        given,
        Conduct(),
        InlineCompute(),
        given,
        given,
        tasks.append,  # type: ignore[arg-type]
    )
    guests = [SimpleNamespace(peer=CANDIDATE.peer_id, since=0)]

    def state(number: int, **checks: tuple[Check, ...]) -> Any:
        seal = SimpleNamespace(candidates=guests, roster=(ME.peer_id,), banned=(), round=number - 1, admitted=0)
        place = {"round": number, "attempt": 0, "parameters": run.states[0][0], "q": b"q" * 32}
        rest = {"newcomers": frozenset(), "checks": (), "due": (), **checks}
        return SimpleNamespace(seal=seal, roster=SimpleNamespace(members=()), **place, **rest)

    false, other = (Work(CANDIDATE.peer_id, ROUND, Report((value,) * 10, 1.0)) for value in (0.0, 0.5))
    reception.begin_round(state(ROUND))
    reception.begin_round(state(ROUND + 2, checks=(Check(ME.peer_id, false),)))
    for task in tasks:
        await task()
    due = (Check(ME.peer_id, false if is_agreed_again else other),)
    quotes = reception.quote(state(ROUND + 3, due=due))
    assert quotes.charged == ((CANDIDATE.peer_id,) if is_agreed_again else ())
