"""A node holds valid records only, the newest of each peer, and no more than its bound."""

import pytest

from btard.dht import MAX_LIFETIME_MS, contact_key, sign_contact
from btard.dht import storage as storage_module
from btard.dht.storage import RecordStorage
from btard.identity import Identity

RUN = b"r" * 32
NODE_ID = bytes(20)
NOW = 1_800_000_000_000
OWNER = Identity(b"o" * 32)
KEY = contact_key(RUN, OWNER.peer_id)


class Clock:
    """A wall clock that stands still until told."""

    def __init__(self) -> None:
        self.ms = NOW

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def clock() -> Clock:
    """Return a clock that stands at NOW."""
    return Clock()


@pytest.fixture
def storage(clock: Clock) -> RecordStorage:
    """Return an empty storage at the origin of the key space."""
    return RecordStorage(RUN, NODE_ID, clock)


def record_of(identity: Identity, sequence: int, lifetime_ms: int = 1000) -> bytes:
    """Return a record of ``identity`` that is valid at NOW."""
    return sign_contact(identity, RUN, [("192.0.2.1", 4000)], sequence, NOW + lifetime_ms)


def test_the_highest_sequence_wins_in_any_order(storage: RecordStorage) -> None:
    """A replayed older record changes nothing."""
    old, new = record_of(OWNER, 1), record_of(OWNER, 2)
    assert storage.put(KEY, old)
    assert storage.put(KEY, new)
    assert storage.put(KEY, old)
    assert storage[KEY] == new
    assert storage.count == 1


def test_an_invalid_record_is_refused_and_harms_none(storage: RecordStorage) -> None:
    """Forged, foreign and mistyped values are turned away and the good record stays."""
    good, thief = record_of(OWNER, 1), Identity(b"t" * 32)
    storage.put(KEY, good)
    forged = record_of(thief, 9)
    foreign = sign_contact(OWNER, b"f" * 32, [("192.0.2.1", 4000)], 9, NOW + 1000)
    for junk in (forged, foreign, b"", bytes(2000), None, ["list"], good + b"\0"):
        assert not storage.put(KEY, junk)
    assert storage.get(KEY) == good


def test_a_record_is_not_read_after_its_expiry(storage: RecordStorage, clock: Clock) -> None:
    """Expiry counts on the way out too, and frees the place."""
    storage[KEY] = record_of(OWNER, 1)
    clock.ms += 1000
    assert storage.get(KEY) is None
    assert storage.count == 0
    with pytest.raises(KeyError):
        storage[KEY]


def test_a_record_cannot_outlive_the_cap(storage: RecordStorage) -> None:
    """Nobody squats a key for longer than an hour."""
    assert not storage.put(KEY, record_of(OWNER, 1, MAX_LIFETIME_MS + 1))


def test_a_full_storage_keeps_what_is_close_to_it(storage: RecordStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of valid records of made-up keys displaces only records farther away than themselves."""
    monkeypatch.setattr(storage_module, "MAX_RECORDS", 8)
    identities = [Identity(bytes([number]) * 32) for number in range(40)]
    for identity in identities:
        storage.put(contact_key(RUN, identity.peer_id), record_of(identity, 1))
    keys = sorted(contact_key(RUN, identity.peer_id) for identity in identities)
    assert sorted(key for key, _ in storage) == keys[:8]


def test_a_full_storage_drops_the_expired_first(
    storage: RecordStorage, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even the farthest newcomer gets the place of a record that has expired."""
    monkeypatch.setattr(storage_module, "MAX_RECORDS", 2)
    identities = sorted(
        (Identity(bytes([number]) * 32) for number in range(3)), key=lambda one: contact_key(RUN, one.peer_id)
    )
    storage.put(contact_key(RUN, identities[0].peer_id), record_of(identities[0], 1, 1000))
    storage.put(contact_key(RUN, identities[1].peer_id), record_of(identities[1], 1, 9000))
    clock.ms += 1000
    assert storage.put(contact_key(RUN, identities[2].peer_id), record_of(identities[2], 1, 9000))
    assert storage.get(contact_key(RUN, identities[1].peer_id)) is not None


def test_nothing_is_republished_for_others(storage: RecordStorage) -> None:
    """Only an owner renews its record."""
    storage.put(KEY, record_of(OWNER, 1))
    assert storage.iter_older_than(0) == []


def test_one_block_pushes_out_only_what_it_brought(storage: RecordStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records made to lie closer to us than any other drive out those of their own block, not the victim's."""
    monkeypatch.setattr(storage_module, "MAX_RECORDS_PER_BLOCK", 4)
    monkeypatch.setattr(storage_module, "MAX_RECORDS", 6)
    storage.put(KEY, record_of(OWNER, 1), "victim's")
    flood = [Identity(bytes([number]) * 32) for number in range(1, 60)]
    for identity in flood:
        storage.put(contact_key(RUN, identity.peer_id), record_of(identity, 1), "flooder's")
    assert KEY in dict(storage)
    closest = sorted(contact_key(RUN, identity.peer_id) for identity in flood)[:4]
    assert {key for key, _ in storage} == {KEY, *closest}


def test_our_own_record_has_a_place_in_no_blocks_share(storage: RecordStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """What we store ourselves counts against nobody."""
    monkeypatch.setattr(storage_module, "MAX_RECORDS_PER_BLOCK", 0)
    assert storage.put(KEY, record_of(OWNER, 1))
