"""What a run puts on the links of a peer is gone after it: no handler reads a ledger that is closed."""

from contextlib import suppress

import pytest
import trio
import trio.testing
from tests.net.hub_scenes import KIND, open_pair

from btard.errors import ConnectionLost, RequestTimedOut


@pytest.mark.parametrize("is_lost", [False, True])
async def test_what_is_lent_to_a_run_ends_with_it(open_hub, nursery, *, is_lost):
    """Its handlers are gone afterwards and none is at work, not even for a peer whose link broke just now."""
    one, two = await open_pair(open_hub)
    begun, at_work = trio.Event(), True

    async def slow(peer, body):
        nonlocal at_work
        begun.set()
        try:
            await trio.sleep_forever()
        finally:
            nursery.start_soon(ask)  # once more, of whom no handler is left
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
            at_work = False

    async def answer(peer, body):
        return body, None

    async def ask() -> None:
        with suppress(RequestTimedOut, ConnectionLost):
            await one.request(two.me, 1, b"", timeout_s=0.2)

    two.serve[2], told = answer, two.on_connected
    async with two.lent():
        two.serve[1], two.on_control[KIND] = slow, lambda peer, head: None
        two.on_connected = two.on_lost = lambda peer: None
        nursery.start_soon(ask)
        await begun.wait()
        ended = trio.current_time()
        if is_lost:
            two.close(one.me, "for example")
    assert not at_work
    assert trio.current_time() - ended < 5  # a question without a handler waits for one longer than that
    assert (two.serve, two.on_control, two.on_connected) == ({2: answer}, {}, told)
    if not is_lost:
        assert (await one.request(two.me, 2, b"still here", timeout_s=5)).head == b"still here"
