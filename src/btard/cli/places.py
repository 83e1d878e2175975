"""The addresses of a command line: where a peer listens, and what it announces, given once or several times."""

from collections.abc import Sequence

from btard.errors import ConfigError
from btard.net import Address

NOBODY = "none"
MAX_PLACES = 8
"""What a contact record holds; not imported from there, for the DHT is slow to import, and the help should not be."""
ANY_PORT = Address("127.0.0.1", 0)
ANYWHERE = Address("0.0.0.0", 0)
"""Where a peer is that only dials out: from a UDP socket of loopback no packet leaves the machine."""

LISTEN_HELP = (
    "Where to listen, TCP and UDP; several times for several addresses, then UDP at the first. "
    "[127.0.0.1, a free port; founder: its ticket's]"
)
ANNOUNCE_HELP = (
    "Where others reach you, best first, if that differs from --listen; several times for several addresses. "
    "none: nobody does, you dial out (each pair of members needs one that can be reached)."
)


def parse_places(texts: Sequence[str]) -> tuple[Address, ...]:
    """Return the addresses in some words, each once.

    Raises:
        ConfigError: one is none, or there are more than a contact record holds.
    """
    places = tuple(dict.fromkeys(map(Address.parse, texts)))
    if len(places) > MAX_PLACES:
        raise ConfigError(f"{len(places)} addresses are too many; give up to {MAX_PLACES}, the best ones first")
    return places


def parse_announced(texts: Sequence[str]) -> tuple[Address, ...] | None:
    """Return what to announce: None where nothing is said (then where we listen), nothing for ``none``.

    Raises:
        ConfigError: ``none`` beside addresses, or one that is no address to dial.
    """
    if NOBODY in texts:
        if len(texts) > 1:
            raise ConfigError("--announce none is for a peer that nobody reaches; leave it out, or the addresses")
        return ()
    places = parse_places(texts)
    for place in places:
        if place.port == 0:
            raise ConfigError(f"{place} is no address to dial; give the port too: --announce HOST:PORT")
    return places or None


def choose_listening(
    listen: Sequence[str], announced: tuple[Address, ...] | None, founders: Address | None
) -> tuple[Address, ...]:
    """Return where to listen; ``founders`` is the ticket's first address if we are the founder.

    Raises:
        ConfigError: an address that is none, or a founder that nobody reaches.
    """
    if announced == () and founders is not None:
        raise ConfigError("everybody comes to the founder first, so it must be reachable: give --announce HOST:PORT")
    default = ANYWHERE if announced == () else founders or ANY_PORT
    return parse_places(listen) or (default,)
