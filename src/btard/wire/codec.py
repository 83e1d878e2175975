"""
Frozen structs to MessagePack and back; every limit is checked before anything is built.

Tensor bytes never pass through here. Whatever the input, decode returns a struct of the wanted type
or raises RemoteProtocolError. It builds nothing that the wanted type has no place for: what others say costs
time and memory in proportion to its bytes at most.
"""

from functools import cache
from typing import Any, TypeVar

import msgpack
import msgspec

from btard.errors import RemoteProtocolError

MAX_MESSAGE = 768 * 1024
"""Largest encoded struct, unless its reader says otherwise; no message of a round is longer than 128 KiB."""

BUFFER = 4096
"""Bytes in which a packer begins: most messages fit, and the quarter of a megabyte that it asks for else is slow."""

T = TypeVar("T")


def encode(value: msgspec.Struct | list[Any] | tuple[Any, ...]) -> bytes:
    """Return the MessagePack bytes of a struct: arrays only, bytes as bin, floats as float64."""
    packer = msgpack.Packer(use_bin_type=True, buf_size=BUFFER)
    packed: bytes = packer.pack(msgspec.to_builtins(value, builtin_types=(bytes,)))
    return packed


def decode(data: bytes | memoryview, wanted: type[T], *, limit: int = MAX_MESSAGE) -> T:
    """Return the value of type ``wanted`` that ``data``, of at most ``limit`` bytes, encodes.

    Raises:
        RemoteProtocolError: too long, not MessagePack, trailing bytes, or not of that type.
    """
    if len(data) > limit:
        raise RemoteProtocolError(f"a message of {len(data)} bytes is longer than the {limit} allowed")
    try:
        value: T = _make_decoder(wanted).decode(data)  # type: ignore[arg-type]  # types are hashable
    except (ValueError, RecursionError) as error:  # msgspec.DecodeError and UnicodeDecodeError are among these
        raise RemoteProtocolError(f"not a valid message: {type(error).__name__}") from None
    return value


@cache
def _make_decoder(wanted: Any) -> msgspec.msgpack.Decoder[Any]:
    """Return the decoder of one of our types; they are a few dozen."""
    return msgspec.msgpack.Decoder(wanted)
