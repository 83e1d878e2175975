"""What one address may cost is bounded, and bounded memory pays for remembering it."""

import pytest

from btard.dht import limits
from btard.dht.limits import DeadNodes, RequestLimit, TokenBucket, plausible_host


def test_a_bucket_allows_its_burst_and_then_its_rate() -> None:
    """After the burst, one more event per 1/rate seconds, and never more than the burst at once."""
    bucket = TokenBucket(rate=2.0, burst=3.0, now=10.0)
    assert [bucket.take(10.0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(10.5), bucket.take(10.5)] == [True, False]
    assert [bucket.take(1000.0) for _ in range(4)] == [True, True, True, False]


def test_one_sender_cannot_use_up_anothers_share() -> None:
    """A flooding host is cut off whatever ports it uses, and another host is not."""
    limit = RequestLimit(now=0.0)
    allowed = sum(limit.allows(("192.0.2.1", 1024 + number), 0.0) for number in range(5000))
    assert allowed == limits.REQUESTS_BURST
    assert limit.allows(("192.0.2.2", 1), 0.0)


def test_all_senders_together_are_bounded() -> None:
    """Forged sources do not buy unlimited signature checks."""
    limit = RequestLimit(now=0.0)
    addresses = [(f"198.51.{high}.{low}", 1) for high in range(100) for low in range(100)]
    assert sum(limit.allows(address, 0.0) for address in addresses) == limits.TOTAL_BURST


def test_strangers_cannot_use_up_the_share_of_known_nodes() -> None:
    """A flood from forged sources leaves those in the routing table their own total, which is bounded too."""
    limit = RequestLimit(now=0.0)
    addresses = [(f"198.51.{high}.{low}", 1) for high in range(100) for low in range(100)]
    for address in addresses:
        limit.allows(address, 0.0)
    assert not limit.allows(("192.0.2.1", 1), 0.0)
    assert sum(limit.allows(address, 0.0, is_known=True) for address in addresses) == limits.TOTAL_BURST


def test_one_ipv6_network_is_one_sender() -> None:
    """Changing the address within a /64 costs nothing, so it gains nothing."""
    limit = RequestLimit(now=0.0)
    allowed = sum(limit.allows((f"2a00::{number:x}", 1), 0.0) for number in range(5000))
    assert allowed == limits.REQUESTS_BURST


def test_many_peers_of_one_machine_have_a_share_each() -> None:
    """On loopback the port tells senders apart."""
    limit = RequestLimit(now=0.0)
    for _ in range(5000):
        limit.allows(("127.0.0.1", 1), 0.0)
    assert limit.allows(("127.0.0.1", 2), 0.0)


def test_a_silent_node_rests_twice_as_long_each_time() -> None:
    """1, 2, 4 seconds and so on up to the cap, until it answers."""
    dead, now = DeadNodes(), 100.0
    for pause in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0):
        dead.failed("node", now)
        assert dead.is_dead("node", now + pause - 0.01)
        now += pause
        assert not dead.is_dead("node", now)
    dead.failed("node", now)
    dead.answered("node")
    assert not dead.is_dead("node", now)


def test_a_node_that_only_answers_pings_is_asked_ever_more_rarely() -> None:
    """It may be asked again at once, but its silence goes on counting; an answer wipes the slate clean."""
    dead = DeadNodes()
    for pause in (1.0, 2.0, 4.0):
        dead.failed("node", 0.0)
        assert dead.is_dead("node", pause - 0.01)
        assert not dead.is_dead("node", pause)
        dead.alive("node")
        assert not dead.is_dead("node", 0.0)
    dead.answered("node")
    dead.failed("node", 0.0)
    assert not dead.is_dead("node", 1.0)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest entries make room for new ones."""
    monkeypatch.setattr(limits, "MAX_TRACKED", 3)
    dead = DeadNodes()
    for node in range(4):
        dead.failed(node, 0.0)
    assert [dead.is_dead(node, 0.5) for node in range(4)] == [False, True, True, True]


@pytest.mark.parametrize(
    ("host", "told_by", "expected"),
    [
        ("8.8.8.8", "1.1.1.1", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "8.8.8.8", False),
        ("127.0.0.1", "192.168.1.2", False),
        ("192.168.1.3", "192.168.1.2", True),
        ("192.168.1.3", "8.8.8.8", False),
        ("169.254.169.254", "8.8.8.8", False),
        ("8.8.8.8", "192.168.1.2", True),
        ("0.0.0.0", "127.0.0.1", False),
        ("224.0.0.1", "127.0.0.1", False),
        ("255.255.255.255", "127.0.0.1", False),
        ("2606:4700::1", "8.8.8.8", False),
        ("::1", "::1", True),
        ("fe80::1%eth0", "::1", False),
        ("example.org", "127.0.0.1", False),
        ("", "127.0.0.1", False),
        ("127.0.0.1\0", "127.0.0.1", False),
    ],
)
def test_a_node_points_only_where_it_could_be_heard_from(host: str, told_by: str, expected: bool) -> None:
    """Outsiders cannot aim us at private networks, nor anyone at special addresses or names."""
    assert (plausible_host(host, told_by) is not None) is expected


def test_one_address_has_one_form() -> None:
    """Entries are compared by address, so spelling must not multiply them."""
    assert plausible_host("0:0::0:1", "::1") == "::1"
