"""
Frozen structs to MessagePack and back; every limit is checked before anything is built.

Tensor bytes never pass through here. Whatever the input, decode returns a struct of the wanted type
or raises RemoteProtocolError.
"""

from typing import Any, TypeVar

import msgpack
import msgspec

from btard.errors import RemoteProtocolError

MAX_MESSAGE = 768 * 1024
"""Largest encoded struct: a VIEW that supplies the messages of two stages of 64 members fits."""
MAX_ITEMS = 65_536

T = TypeVar("T")


def encode(value: msgspec.Struct | list[Any] | tuple[Any, ...]) -> bytes:
    """Return the MessagePack bytes of a struct: arrays only, bytes as bin, floats as float64."""
    packed: bytes = msgpack.packb(msgspec.to_builtins(value, builtin_types=(bytes,)), use_bin_type=True)
    return packed


def decode(data: bytes | memoryview, wanted: type[T], *, limit: int = MAX_MESSAGE) -> T:
    """Return the value of type ``wanted`` that ``data``, of at most ``limit`` bytes, encodes.

    Raises:
        RemoteProtocolError: too long, not MessagePack, trailing bytes, or not of that type.
    """
    if len(data) > limit:
        raise RemoteProtocolError(f"a message of {len(data)} bytes is longer than the {limit} allowed")
    try:
        plain = msgpack.unpackb(
            data,
            raw=False,
            max_bin_len=MAX_MESSAGE,
            max_str_len=4096,
            max_array_len=MAX_ITEMS,
            max_map_len=256,
            max_ext_len=0,
        )
        converted: T = msgspec.convert(plain, wanted, builtin_types=(bytes,))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        # msgspec.ValidationError and msgpack's FormatError, StackError and ExtraData are among these.
        raise RemoteProtocolError(f"not a valid message: {type(error).__name__}") from None
    return converted
