"""A departure as the ledger stores it."""

from btard.errors import LocalProtocolError, RemoteProtocolError
from btard.identity import short
from btard.rules.evidence import Departure
from btard.wire import decode, encode

MAX_DEPARTURE = 256 * 1024 * 1024
"""Largest departure, in bytes: 256 members' VIEWs and BALLOTs, each as large as the wire carries it, fit."""


def decode_departure(data: bytes) -> Departure:
    """Return a departure as it is stored.

    Raises:
        RemoteProtocolError: the bytes are none.
    """
    departure: Departure = decode(data, Departure, limit=MAX_DEPARTURE)
    return departure


def encode_departure(departure: Departure) -> bytes:
    """Return the bytes to store; what could not be read back would be a loss of evidence that nobody notices.

    Raises:
        LocalProtocolError: it could not be read back.
    """
    data = encode(departure)
    try:
        is_same = decode_departure(data) == departure
    except RemoteProtocolError as error:
        raise LocalProtocolError(f"the departure of {short(departure.peer)} cannot be stored: {error}") from None
    if not is_same:
        raise LocalProtocolError(f"the departure of {short(departure.peer)} would be read back as another one")
    return data
