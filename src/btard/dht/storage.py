"""Records held for others: valid ones only, one per peer, the newest, and no more than a bound."""

from collections.abc import Callable, Iterator

from kademlia.storage import IStorage

from btard.dht.contact import Contact, open_contact

MAX_RECORDS = 1024
"""At 1 KiB each, what strangers can make us hold: 1 MiB."""


class RecordStorage(IStorage):  # type: ignore[misc]  # kademlia has no types
    """The storage of one node; every record is checked when it comes in and again when it goes out.

    When full, the record farthest from our node id gives way to a closer one: keys that flood us
    from all over the key space cannot push out the records that lookups come to us for.
    """

    def __init__(self, run_id: bytes, node_id: bytes, now_ms: Callable[[], int]) -> None:
        self._run_id = run_id
        self._position = int.from_bytes(node_id, "big")
        self._now_ms = now_ms
        self._held: dict[bytes, tuple[Contact, bytes]] = {}

    def put(self, key: bytes, record: object) -> bool:
        """Return whether we now hold ``record`` or a newer one of the same peer; an invalid one changes nothing."""
        contact = open_contact(self._run_id, key, record, self._now_ms())
        if contact is None or not isinstance(record, bytes):
            return False
        held = self._held.get(key)
        if held is not None and held[0].sequence >= contact.sequence:
            return True
        if held is None and not self._make_room(key):
            return False
        self._held[key] = (contact, record)
        return True

    def get(self, key: bytes, default: bytes | None = None) -> bytes | None:
        """Return the record for ``key`` if we hold one that has not expired."""
        held = self._held.get(key)
        if held is None:
            return default
        if held[0].expires_ms <= self._now_ms():
            del self._held[key]
            return default
        return held[1]

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self.put(key, value)

    def __getitem__(self, key: bytes) -> bytes:
        record = self.get(key)
        if record is None:
            raise KeyError(key)
        return record

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return iter([(key, record) for key, (_, record) in self._held.items()])

    @property
    def count(self) -> int:
        """How many records we hold; not ``__len__``, since `kademlia` replaces a storage that is false."""
        return len(self._held)

    def iter_older_than(self, seconds_old: float) -> list[tuple[bytes, bytes]]:
        """Return nothing: only owners publish their record again, with a new expiry."""
        return []

    def _make_room(self, key: bytes) -> bool:
        """Return whether ``key`` may come in, after dropping what is expired or, if still full, farthest from us."""
        if len(self._held) < MAX_RECORDS:
            return True
        now_ms = self._now_ms()
        self._held = {key: held for key, held in self._held.items() if held[0].expires_ms > now_ms}
        if len(self._held) < MAX_RECORDS:
            return True
        farthest = max(self._held, key=self._distance)
        if self._distance(key) >= self._distance(farthest):
            return False
        del self._held[farthest]
        return True

    def _distance(self, key: bytes) -> int:
        return int.from_bytes(key, "big") ^ self._position
