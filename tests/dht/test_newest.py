"""The newest record wins, and half of its copies are enough."""

from btard.dht import sign_contact
from btard.dht.newest import ENOUGH_COPIES, Newest
from btard.identity import Identity

RUN = b"r" * 32
NOW = 1_800_000_000_000
OWNER = Identity(b"o" * 32)


def record_of(sequence: int, identity: Identity = OWNER, lifetime_ms: int = 1000) -> bytes:
    """Return a record that is valid at NOW."""
    return sign_contact(identity, RUN, [("192.0.2.1", 4000)], sequence, NOW + lifetime_ms)


def newest_of(*records: bytes) -> Newest:
    """Return what is known after these records."""
    newest = Newest(RUN, OWNER.peer_id, lambda: NOW)
    for record in records:
        newest.consider(record)
    return newest


def test_enough_copies_of_one_record_settle_it() -> None:
    """Not one less."""
    copy = record_of(1)
    assert not newest_of(*[copy] * (ENOUGH_COPIES - 1)).is_settled
    assert newest_of(*[copy] * ENOUGH_COPIES).is_settled


def test_replayed_records_settle_nothing_once_a_newer_one_came() -> None:
    """Seven liars with yesterday's record and one honest node: the search goes on, with the true one in hand."""
    newest = newest_of(*[record_of(1)] * (ENOUGH_COPIES - 1), record_of(2), *[record_of(1)] * ENOUGH_COPIES)
    assert newest.contact is not None
    assert newest.contact.sequence == 2
    assert not newest.is_settled


def test_junk_counts_for_nothing() -> None:
    """Forged, expired and malformed records, in any number."""
    junk = [record_of(9, Identity(b"t" * 32)), record_of(9, lifetime_ms=-1), b"", b"x" * 2000]
    newest = newest_of(*junk * ENOUGH_COPIES)
    assert newest.contact is None
    assert not newest.is_settled
