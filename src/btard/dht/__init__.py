"""
The DHT: finding a peer's addresses from one bootstrap address, with no server.

Kademlia from the `kademlia` package, on UDP, hardened against what an open network sends.
Read `directory` first; below it, from the outside in: `server` (one node), `crawl` (lookups),
`protocol` (datagrams in and out), `datagram` and `messages` (their form), `limits`, `storage`,
`contact` (what is stored), `sequence`.
"""

from btard.dht.contact import (
    MAX_ADDRESSES,
    MAX_LIFETIME_MS,
    MAX_RECORD_BYTES,
    Contact,
    contact_key,
    open_contact,
    sign_contact,
)
from btard.dht.datagram import IdentityWork
from btard.dht.directory import Directory, open_directory

__all__ = [
    "MAX_ADDRESSES",
    "MAX_LIFETIME_MS",
    "MAX_RECORD_BYTES",
    "Contact",
    "Directory",
    "IdentityWork",
    "contact_key",
    "open_contact",
    "open_directory",
    "sign_contact",
]
