"""A datagram is its sender's, for one run and node; anything else is dropped before it costs much."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btard.dht.datagram import (
    MAX_DATAGRAM_BYTES,
    Header,
    Kind,
    body_of,
    is_authentic,
    node_id_of,
    read_header,
    sign_datagram,
)
from btard.dht.messages import (
    FindNode,
    FindRecord,
    FoundNodes,
    FoundRecord,
    Ping,
    Pong,
    Store,
    Stored,
    decode_answer,
    decode_request,
    encode_body,
)
from btard.identity import Identity

RUN = b"r" * 32
SENDER = Identity(b"s" * 32)
HEADER = Header(Kind.REQUEST, b"d" * 20, b"m" * 16, 1_800_000_000_000, SENDER.peer_id, 2**64 - 1)
PACKET = sign_datagram(SENDER, RUN, HEADER, b"body")
ENTRY = (b"n" * 20, "192.0.2.1", 4000)


def test_a_datagram_comes_back_as_it_was_sent() -> None:
    """Header and body survive, and the signature holds."""
    assert read_header(RUN, PACKET) == HEADER
    assert body_of(PACKET) == b"body"
    assert is_authentic(RUN, HEADER, PACKET)


@settings(deadline=None)
@given(position=st.integers(0, len(PACKET) - 1), change=st.integers(1, 255))
def test_a_datagram_with_any_byte_changed_is_dropped(position: int, change: int) -> None:
    """Either its header is refused or its signature fails."""
    forged = bytearray(PACKET)
    forged[position] ^= change
    header = read_header(RUN, bytes(forged))
    assert header is None or not is_authentic(RUN, header, bytes(forged))


@settings(deadline=None)
@given(st.binary(max_size=3000))
def test_no_bytes_raise(data: bytes) -> None:
    """Header and bodies of junk are ``None``."""
    assert read_header(RUN, data) is None
    assert decode_answer(b"\xc1" + data) is None
    assert decode_request(b"\xc1" + data) is None


def test_another_runs_datagram_is_dropped_before_its_signature() -> None:
    """The run tag alone tells, and the tag alone does not make it ours."""
    foreign = sign_datagram(SENDER, b"f" * 32, HEADER, b"body")
    assert read_header(RUN, foreign) is None
    disguised = foreign[:5] + PACKET[5:13] + foreign[13:]
    assert not is_authentic(RUN, HEADER, disguised)


@pytest.mark.parametrize("size", [0, 1, 160, MAX_DATAGRAM_BYTES + 1, 65507])
def test_sizes_outside_the_bounds_are_dropped(size: int) -> None:
    """Length is the first check."""
    assert read_header(RUN, (PACKET + bytes(65507))[:size]) is None


def test_a_node_id_follows_from_run_key_and_work() -> None:
    """Nobody can bring an id of their choice, nor draw keys for a good one and work for that key alone."""
    assert len(node_id_of(RUN, SENDER.peer_id, 7)) == 20
    assert node_id_of(RUN, SENDER.peer_id, 7) != node_id_of(b"f" * 32, SENDER.peer_id, 7)
    assert node_id_of(RUN, SENDER.peer_id, 7) != node_id_of(RUN, SENDER.peer_id, 8)
    assert not is_authentic(RUN, replace(HEADER, sender=Identity(b"x" * 32).peer_id), PACKET)


@pytest.mark.parametrize("body", [Ping(), FindNode(b"k" * 20), FindRecord(b"k" * 20), Store(b"k" * 20, b"record")])
def test_requests_survive_the_wire_and_are_no_answers(body: Ping | FindNode | FindRecord | Store) -> None:
    """Each request decodes to itself, and never as an answer."""
    assert decode_request(encode_body(body)) == body
    assert decode_answer(encode_body(body)) is None


@pytest.mark.parametrize(
    "body", [Pong(), FoundNodes((ENTRY,)), FoundRecord(None, (ENTRY,)), FoundRecord(b"r", ()), Stored(True)]
)
def test_answers_survive_the_wire_and_are_no_requests(body: Pong | FoundNodes | FoundRecord | Stored) -> None:
    """Each answer decodes to itself, and never as a request."""
    assert decode_answer(encode_body(body)) == body
    assert decode_request(encode_body(body)) is None


@pytest.mark.parametrize(
    "body",
    [
        FoundNodes((ENTRY,) * 17),
        FoundNodes(((b"n" * 19, "192.0.2.1", 4000),)),
        FoundNodes(((b"n" * 20, "192.0.2.1", 0),)),
        FoundNodes(((b"n" * 20, "h" * 46, 4000),)),
        FoundRecord(bytes(1025), ()),
        FoundRecord([b"list"], ()),  # type: ignore[arg-type]
        Stored(1),  # type: ignore[arg-type]
    ],
)
def test_answers_beyond_the_bounds_are_none(body: FoundNodes | FoundRecord | Stored) -> None:
    """Sixty fake nodes, odd ids, oversized records and wrong types never get past decoding."""
    assert decode_answer(encode_body(body)) is None


def test_the_fullest_answer_fits_a_datagram() -> None:
    """A record of 1 KiB beside sixteen IPv6 entries stays within the packet size."""
    entry = (b"n" * 20, "2001:db8:1111:2222:3333:4444:5555:6666", 65535)
    body = encode_body(FoundRecord(bytes(1024), (entry,) * 16))
    assert read_header(RUN, sign_datagram(SENDER, RUN, HEADER, body)) == HEADER
