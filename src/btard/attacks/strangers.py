"""
Sieges by strangers: whoever is no member, has the run's public terms, and dials everybody.

Each is a task given a transport of its own and the addresses of its victims; it goes on until cancelled.
"""

from collections.abc import Awaitable, Callable, Sequence

import trio

from btard.attacks.attacker import choose
from btard.attacks.flooding import draw_bytes
from btard.errors import BtardError
from btard.net import MAX_CONTROL, Address, Link, Transport, refuse_bulk
from btard.net.session import REQUEST

PAUSE_S = 1.0
"""Between two dials, and between two words of a slow one."""
PER_LINK = 20
"""Messages of garbage on one link, if it lasts."""

Siege = Callable[[Link, int], Awaitable[None]]


async def hold_open(link: Link, seed: int) -> None:
    """Say nothing and read nothing."""
    await trio.sleep_forever()


async def speak_slowly(link: Link, seed: int) -> None:
    """Say one byte at a time, for ever, and read everything."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_read, link)
        while True:
            await link.send(choose(range(REQUEST), seed), b"\x00")
            await trio.sleep(PAUSE_S)


async def send_garbage(link: Link, seed: int) -> None:
    """Say what means nothing: random kinds, random bytes, requests, bulk."""
    for number in range(PER_LINK):
        kind, size = choose(range(256), seed, "kind", number), choose((0, 1, 40, 3_000), seed, "size", number)
        data = draw_bytes(size, seed, number)
        payload = memoryview(bytearray(64)) if choose((True, False), seed, "bulk", number) else None
        await link.send(kind if number % 4 else REQUEST, data, payload)


async def send_too_much(link: Link, seed: int) -> None:
    """Say the longest things that a link can carry."""
    for number in range(PER_LINK):
        kind = choose(range(REQUEST), seed, number)
        if number % 2:
            await link.send(kind, bytes(MAX_CONTROL))
        else:
            await link.send(kind, b"", memoryview(bytearray(4 * MAX_CONTROL)))


SIEGES: dict[str, Siege] = {
    "half-open": hold_open,
    "slow-loris": speak_slowly,
    "garbage": send_garbage,
    "oversized": send_too_much,
}
"""What a stranger does on its links, by name."""


async def besiege(transport: Transport, addresses: Sequence[Address], kind: str, seed: int) -> None:
    """Keep one link to every address and do ``kind`` on it, again whenever it ends, until cancelled."""
    async with trio.open_nursery() as nursery:
        for place, address in enumerate(addresses):
            nursery.start_soon(_besiege_one, transport, address, SIEGES[kind], (seed << 8) + place)


async def _besiege_one(transport: Transport, address: Address, siege: Siege, seed: int) -> None:
    while True:
        try:
            link = await transport.connect(address, None)
            try:
                await siege(link, seed)
            finally:
                await link.aclose()
        except* BtardError:
            seed += 1
        await trio.sleep(PAUSE_S)


async def _read(link: Link) -> None:
    while True:
        await link.receive(refuse_bulk)
