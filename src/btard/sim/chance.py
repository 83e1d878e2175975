"""Chance from one seed: named streams that are the same in every process and on every machine."""

from random import Random

from btard.identity import Context, digest


def open_stream(seed: int, purpose: str) -> Random:
    """Return the stream of one purpose; two purposes of one seed have nothing to do with each other."""
    key = digest(Context.EXPAND, b"simulation", str(seed).encode(), purpose.encode())
    return Random(int.from_bytes(key, "little"))  # noqa: S311  repeatable is what it is for
