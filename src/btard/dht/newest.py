"""The newest of the records that nodes give for one peer, and when to stop asking for more."""

from collections.abc import Callable

from btard.dht.contact import Contact, contact_key, open_contact
from btard.dht.messages import BUCKET_SIZE
from btard.identity import PeerId

ENOUGH_COPIES = BUCKET_SIZE // 2
"""So many nodes giving one record, and none a newer, end a lookup: half of those who should hold it."""


class Newest:
    """What is known of ``peer`` after any number of records, true and false; ``contact`` is None without a true one.

    An old record that liars replay does not count once a single node has given a newer one.
    """

    def __init__(self, run_id: bytes, peer: PeerId, now_ms: Callable[[], int]) -> None:
        self.contact: Contact | None = None
        self._key = contact_key(run_id, peer)
        self._run_id, self._now_ms = run_id, now_ms
        self._record: bytes | None = None
        self._copies = 0

    @property
    def is_settled(self) -> bool:
        """Whether enough nodes agree."""
        return self._copies >= ENOUGH_COPIES

    def consider(self, record: bytes) -> None:
        """Take one record into account; it may be anything."""
        if record == self._record:
            self._copies += 1
            return
        contact = open_contact(self._run_id, self._key, record, self._now_ms())
        if contact is not None and (self.contact is None or contact.sequence > self.contact.sequence):
            self.contact, self._record, self._copies = contact, record, 1
