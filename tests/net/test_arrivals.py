"""Who may begin a handshake: floods wait outside, whoever else comes is let in, and members are told from both."""

import os
from collections.abc import Sequence

import pytest

from btard.identity import Identity
from btard.net import Pace, Terms
from btard.net.arrivals import BLOCK, KNOWN, ORIGIN, TOTAL, Arrivals
from btard.net.hail import MAX_HAIL, encode_hail, find_hail
from btard.net.handshake import Credentials, Handshake
from btard.net.pace import MAX_REMEMBERED

RUN = b"run"
MEMBER, STRANGER = Identity(b"m" * 32), Identity(b"s" * 32)
FLOODER = "127.9.9.5"
NAMELESS = bytes(32)
"""The first message of a dialler that does not hail."""
HOUR_S = 3600.0
NOW = 100.5
"""When a flood has gone on for so long, nobody else's turn has come for half a second."""


@pytest.fixture
def arrivals() -> Arrivals:
    """Return what decides for a peer that knows one member."""
    arrivals = Arrivals(RUN)
    arrivals.is_known = MEMBER.peer_id.__eq__
    return arrivals


def hail(identity: Identity = MEMBER, serial: int = 1, run_id: bytes = RUN) -> bytes:
    """Return a first message with a hail."""
    ephemeral = os.urandom(32)
    return ephemeral + encode_hail(identity, run_id, serial, ephemeral)


def flood(arrivals: Arrivals, hosts: Sequence[str], seconds: float, per_s: int, first: bytes = NAMELESS) -> int:
    """Return how many handshakes were admitted while strangers dialled from these hosts in turn, from time 0 on."""
    moments = [step / per_s for step in range(int(seconds * per_s))]
    return sum(arrivals.admit(hosts[step % len(hosts)], first, now) is not None for step, now in enumerate(moments))


@pytest.mark.parametrize(
    ("hosts", "pace"),
    [
        ([FLOODER], ORIGIN),
        ([f"127.9.9.{number}" for number in range(1, 250)], BLOCK),
        ([f"2600:1f18:1:{number}::1" for number in range(200)], BLOCK),
        ([f"127.{number // 250 + 1}.{number % 250}.5" for number in range(5000)], TOTAL),
    ],
)
def test_a_flood_has_its_pace(arrivals: Arrivals, hosts: Sequence[str], pace: tuple[float, int]) -> None:
    """Of one address, one block or all the world no more come in than the burst and what the pace allows."""
    per_s, burst = pace
    admitted = flood(arrivals, hosts, NOW, 50)
    assert burst + 99 * per_s <= admitted <= burst + 102 * per_s


def test_a_flood_from_one_block_delays_no_other(arrivals: Arrivals) -> None:
    """While all addresses of a block dial, strangers from other blocks are let in whenever they come."""
    hosts = [f"127.9.9.{number}" for number in range(1, 250)]
    assert not all(arrivals.admit(hosts[step % 249], NAMELESS, step / 100) for step in range(10_000))
    assert all(arrivals.admit(f"127.1.{number}.7", NAMELESS, NOW) for number in range(50))


def test_a_flood_from_one_address_leaves_its_neighbours_room(arrivals: Arrivals) -> None:
    """One address uses up half of what its block has, never all of it."""
    flood(arrivals, [FLOODER], 1000.0, 10)
    assert arrivals.admit("127.9.9.6", NAMELESS, 1000.0)


def test_a_flooder_may_come_again(arrivals: Arrivals) -> None:
    """Nobody is shut out: when the flood is over, the burst is back."""
    flood(arrivals, [FLOODER], NOW, 50)
    assert not arrivals.admit(FLOODER, NAMELESS, NOW)
    assert all(arrivals.admit(FLOODER, NAMELESS, NOW + HOUR_S) for _ in range(ORIGIN[1]))


def test_a_member_comes_back_from_where_the_flood_is(arrivals: Arrivals) -> None:
    """Its hail tells it from the strangers behind its own router."""
    flood(arrivals, [FLOODER], NOW, 50)
    assert arrivals.admit(FLOODER, hail(), NOW)
    assert not arrivals.admit(FLOODER, NAMELESS, NOW)


@pytest.mark.parametrize(
    "first",
    [
        hail(STRANGER),
        hail(run_id=b"other"),
        os.urandom(32) + hail()[32:],
        hail()[:-1],
        hail() + b"\0" * MAX_HAIL,
        NAMELESS + b"\xc1" * 20,
        b"",
    ],
)
def test_a_hail_that_is_not_a_members_opens_no_door(arrivals: Arrivals, first: bytes) -> None:
    """A stranger's, for another run, for another handshake, cut off, too long, and no hail at all."""
    flood(arrivals, [FLOODER], NOW, 50)
    assert not arrivals.admit(FLOODER, first, NOW)


def test_a_forged_hail_takes_nothing_from_the_member(arrivals: Arrivals) -> None:
    """Whoever signs in its name with another key neither gets in nor uses up its numbers and its pace."""
    flood(arrivals, [FLOODER], NOW, 50)
    forged = hail(STRANGER, 2**60).replace(STRANGER.peer_id, MEMBER.peer_id)
    assert find_hail(forged).peer == MEMBER.peer_id
    assert not any(arrivals.admit(FLOODER, forged, NOW) for _ in range(2 * KNOWN[1]))
    assert arrivals.admit(FLOODER, hail(), NOW)


def test_a_hail_is_good_once(arrivals: Arrivals) -> None:
    """Overheard and shown again, or older than one that came, it is a stranger's."""
    flood(arrivals, [FLOODER], NOW, 50)
    first = hail(serial=5)
    assert arrivals.admit(FLOODER, first, NOW)
    assert not arrivals.admit(FLOODER, first, NOW)
    assert not arrivals.admit(FLOODER, hail(serial=4), NOW)
    assert arrivals.admit(FLOODER, hail(serial=6), NOW)


def test_a_member_has_a_pace_too(arrivals: Arrivals) -> None:
    """One that dials again and again, from wherever, is let in at its own pace, and takes from nobody else's."""
    hosts = [f"127.1.{step % 250}.1" for step in range(1000)]
    admitted = sum(bool(arrivals.admit(host, hail(serial=step), step / 50)) for step, host in enumerate(hosts))
    assert KNOWN[1] + 19 * KNOWN[0] <= admitted <= KNOWN[1] + 21 * KNOWN[0]
    assert all(arrivals.admit(FLOODER, NAMELESS, 20.0) for _ in range(ORIGIN[1]))


def test_a_handshake_begins_with_the_diallers_hail() -> None:
    """What a dialler says in the clear names it, with its link's number, and holds for this handshake alone."""
    credentials = Credentials(MEMBER, Terms(RUN))
    ephemeral = Handshake(credentials, is_dialler=True).write()
    found = find_hail(ephemeral + credentials.hail(7, ephemeral))
    assert (found.peer, found.serial) == (MEMBER.peer_id, 7)
    assert found.is_signed(RUN, ephemeral)
    assert not found.is_signed(RUN, os.urandom(32))


def test_a_pace_forgets_the_oldest() -> None:
    """However many keys come, a bounded number is remembered."""
    pace = Pace(1.0, 1)
    for key in range(MAX_REMEMBERED + 1):
        pace.count(key, 0.0)
    assert len(pace._booked) == MAX_REMEMBERED
    assert (pace.find_wait(0, 0.0), pace.find_wait(1, 0.0)) == (0.0, 1.0)


def test_limits_fit_together() -> None:
    """No origin can use up its block, no block all that strangers have."""
    assert ORIGIN[0] < BLOCK[0] < TOTAL[0]
    assert ORIGIN[1] < BLOCK[1] < TOTAL[1]
