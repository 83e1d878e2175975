"""Addresses as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btard.errors import ConfigError
from btard.net import Address, find_block


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:4000", "127.0.0.1", 4000),
        ("[::1]:0", "::1", 0),
        ("peer-1.example.org:65535", "peer-1.example.org", 65535),
        ("[fe80::1]:22", "fe80::1", 22),
        ("memory:7", "memory", 7),
    ],
)
def test_an_address_reads_as_it_is_written(text, host, port):
    """Parsing gives host and port, printing gives the text back."""
    address = Address.parse(text)
    assert (address.host, address.port) == (host, port)
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        *["", ":", "host", "host:", ":1", "host:65536", "host:-1", "host:+1", "host:1.0", "::1:4000", "[::1]"],
        *["[host]:1", "[]:1", "ho st:1", "a/b:1", "host:\u0661", "x" * 254 + ":1", "host:000001"],
    ],
)
def test_nonsense_is_a_configuration_error(text):
    """What is no address is refused with an example of one."""
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1:4000"):
        Address.parse(text)


@given(st.text())
def test_any_text_is_an_address_or_an_error(text):
    """No text raises anything but ConfigError, and what parses prints to something that parses to the same."""
    try:
        address = Address.parse(text)
    except ConfigError:
        return
    assert Address.parse(str(address)) == address


def test_addresses_sort():
    """Addresses have an order, by host and port."""
    assert Address("a", 1) < Address("a", 2) < Address("b", 1)


@pytest.mark.parametrize(
    ("one", "other", "are_one"),
    [
        ("8.8.8.5", "8.8.8.200", True),
        ("8.8.4.5", "8.8.8.5", False),
        ("2600:1f18:1::1", "2600:1f18:2::1", False),
        ("2600:1f18:1::1", "2600:1f18:1:2::9", True),
        ("::ffff:8.8.8.8", "8.8.8.9", True),
        ("192.168.0.4", "192.168.0.5", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("fe80::1%eth0", "fe80::1%eth1", True),
        ("", "", True),
        ("peer-3", "peer-4", False),
    ],
)
def test_blocks_of_hosts(one, other, are_one):
    """A public network is one block; private addresses count one by one; a name or nothing is itself."""
    assert (find_block(one) == find_block(other)) is are_one
