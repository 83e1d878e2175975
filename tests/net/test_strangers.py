"""Strangers have their own room: however many dial, members and those whom we dial keep theirs."""

import pytest
import trio
import trio.testing
from tests.net.hub_scenes import KIND, Mailbox, wait_lost

from btard.errors import ConnectionLost
from btard.net import Limits, refuse_bulk
from btard.net.address import find_busiest, find_origin

FEW = Limits(strangers=2, stranger_answers=1, stranger_outbox_bytes=10_000)


async def test_the_idlest_stranger_gives_way(open_hub):
    """With all places of strangers taken, a newcomer gets that of the stranger that was heard last long ago."""
    hub, idle, busy, newcomer = await open_hub(limits=FEW), *[await open_hub() for _ in range(3)]
    mailbox = Mailbox(hub)
    for stranger in (idle, busy):
        await stranger.connect(hub.me, hub.address)
        await hub.wait_connected([stranger.me])
    busy.send(hub.me, KIND, b"I am here")
    await mailbox.take()
    await newcomer.connect(hub.me, hub.address)
    await wait_lost(idle, hub.me)
    assert hub.connected == {busy.me, newcomer.me}


async def test_strangers_never_take_a_members_place(open_hub):
    """Members and those whom we dialled stay connected, and get in, while strangers come and go."""
    hub, member, dialled, late = await open_hub(limits=FEW), *[await open_hub() for _ in range(3)]
    hub.favour(lambda peer: peer == late.me)
    hub.favour(lambda peer: peer == member.me)
    await hub.connect(dialled.me, dialled.address)
    await member.connect(hub.me, hub.address)
    strangers = [await open_hub() for _ in range(6)]
    for stranger in strangers:
        await stranger.connect(hub.me, hub.address)
        await hub.wait_connected([stranger.me])
    await late.connect(hub.me, hub.address)
    await hub.wait_connected([late.me])
    assert hub.connected == {member.me, dialled.me, late.me, *[stranger.me for stranger in strangers[-2:]]}


async def test_who_is_favoured_no_more_is_a_stranger(open_hub):
    """A member that left counts among the strangers from then on."""
    hub, former, *others = await open_hub(limits=FEW), *[await open_hub() for _ in range(3)]
    members = {former.me}
    hub.favour(members.__contains__)
    await former.connect(hub.me, hub.address)
    await hub.wait_connected([former.me])
    members.clear()
    for other in others:
        await other.connect(hub.me, hub.address)
        await hub.wait_connected([other.me])
    assert hub.connected == {other.me for other in others}


@pytest.mark.parametrize(("is_member", "expected"), [(False, 1), (True, 4)])
async def test_a_stranger_is_answered_less(open_hub, is_member, expected):
    """A stranger has fewer requests answered at once than a member has."""
    hub, peer = await open_hub(limits=FEW), await open_hub()
    hub.favour(lambda _peer: is_member)
    begun, enough = [], trio.Event()

    async def serve(sender, body):
        begun.append(body)
        await trio.sleep_forever()

    hub.serve[KIND] = serve
    hub.on_control[KIND] = lambda sender, head: enough.set()
    await peer.connect(hub.me, hub.address)
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(lambda: peer.request(hub.me, KIND, b"", timeout_s=60))
        await trio.testing.wait_all_tasks_blocked()
        peer.send(hub.me, KIND, b"")
        await enough.wait()
        nursery.cancel_scope.cancel()
    assert len(begun) == expected


async def test_a_stranger_that_takes_nothing_fills_little(open_hub, monkeypatch):
    """What waits for a stranger is bounded more tightly than what waits for a member."""
    monkeypatch.setattr("btard.net.pipe.PIPE_MESSAGES", 0)
    hub, peer = await open_hub(limits=FEW), await open_hub()
    await peer.connect(hub.me, hub.address)
    await hub.wait_connected([peer.me])
    members = {peer.me}
    hub.favour(members.__contains__)
    for _ in range(12):
        hub.send(peer.me, KIND, bytes(1000))
    assert hub.is_connected(peer.me)
    members.clear()
    for _ in range(12):
        hub.send(peer.me, KIND, bytes(1000))
    assert not hub.is_connected(peer.me)


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("peer.example", "peer.example"),
    ],
)
def test_all_addresses_of_one_tenant_are_one_origin(host: str, origin: str) -> None:
    """Who rents one more IPv6 address from its own /64 gains no place."""
    assert find_origin(host) == origin


def test_the_busiest_origin_gives_way() -> None:
    """Of the origins the one with most connections is found, however the others come in between."""
    assert find_busiest(["a", "b", "c", "b", "a", "b"]) == "b"


async def test_a_stranger_has_few_links(open_hub, open_transport):
    """One stranger cannot take the memory of many by dialling again and again."""
    hub, transport = await open_hub(), await open_transport()
    links = [await transport.connect(hub.address, hub.me) for _ in range(3)]
    with pytest.raises(ConnectionLost):
        await links[2].receive(refuse_bulk)
    await links[1].send(KIND, b"still here")
    for link in links:
        await link.aclose()
