"""Records held for others: valid ones only, one per peer, the newest, and no more than a bound."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kademlia.storage import IStorage

from btard.dht.contact import Contact, open_contact

MAX_RECORDS = 1024
"""At 1 KiB each, what strangers can make us hold: 1 MiB."""
MAX_RECORDS_PER_BLOCK = 64
"""Of these, what one address block can: keys near ours are cheap, so distance alone protects nobody's record."""
OURSELVES = ""


@dataclass(frozen=True)
class _Held:
    contact: Contact
    record: bytes
    block: str


class RecordStorage(IStorage):  # type: ignore[misc]  # kademlia has no types
    """The storage of one node; every record is checked when it comes in and again when it goes out.

    When full, the record farthest from our node id gives way to a closer one: keys that flood us
    from all over the key space cannot push out the records that lookups come to us for. Who stores
    keys made to lie close can only push out what its own address block brought.
    """

    def __init__(self, run_id: bytes, node_id: bytes, now_ms: Callable[[], int]) -> None:
        self._run_id = run_id
        self._position = int.from_bytes(node_id, "big")
        self._now_ms = now_ms
        self._held: dict[bytes, _Held] = {}

    def put(self, key: bytes, record: object, block: str = OURSELVES) -> bool:
        """Return whether we now hold ``record``, brought from ``block``, or a newer one of the same peer.

        An invalid record changes nothing.
        """
        contact = open_contact(self._run_id, key, record, self._now_ms())
        if contact is None or not isinstance(record, bytes):
            return False
        held = self._held.get(key)
        if held is not None and held.contact.sequence >= contact.sequence:
            return True
        if held is None and not self._make_room(key, block):
            return False
        self._held[key] = _Held(contact, record, block)
        return True

    def get(self, key: bytes, default: bytes | None = None) -> bytes | None:
        """Return the record for ``key`` if we hold one that has not expired."""
        held = self._held.get(key)
        if held is None:
            return default
        if held.contact.expires_ms <= self._now_ms():
            del self._held[key]
            return default
        return held.record

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self.put(key, value)

    def __getitem__(self, key: bytes) -> bytes:
        record = self.get(key)
        if record is None:
            raise KeyError(key)
        return record

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return iter([(key, held.record) for key, held in self._held.items()])

    @property
    def count(self) -> int:
        """How many records we hold; not ``__len__``, since `kademlia` replaces a storage that is false."""
        return len(self._held)

    def iter_older_than(self, seconds_old: float) -> list[tuple[bytes, bytes]]:
        """Return nothing: only owners publish their record again, with a new expiry."""
        return []

    def _make_room(self, key: bytes, block: str) -> bool:
        """Return whether ``key`` may come in, after dropping what is expired or else the farthest of the rivals."""
        if self._rivals(block) is None:
            return True
        now_ms = self._now_ms()
        self._held = {key: held for key, held in self._held.items() if held.contact.expires_ms > now_ms}
        rivals = self._rivals(block)
        if rivals is None:
            return True
        farthest = max(rivals, key=self._distance)
        if self._distance(key) >= self._distance(farthest):
            return False
        del self._held[farthest]
        return True

    def _rivals(self, block: str) -> list[bytes] | None:
        """Return the keys of which one must go for another from ``block``, or ``None`` if there is room."""
        of_block = [key for key, held in self._held.items() if held.block == block]
        if block != OURSELVES and len(of_block) >= MAX_RECORDS_PER_BLOCK:
            return of_block
        return list(self._held) if len(self._held) >= MAX_RECORDS else None

    def _distance(self, key: bytes) -> int:
        return int.from_bytes(key, "big") ^ self._position
