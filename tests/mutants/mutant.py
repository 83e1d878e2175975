"""A mutant: one rule of the protocol, broken in one place."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One broken rule: ``old`` becomes ``new`` in ``path`` below ``src/btard``."""

    name: str
    source: str
    path: str
    old: str
    new: str
    tests: tuple[str, ...]


def mutant(name: str, source: str, path: str, old: str, new: str, *tests: str) -> Mutant:
    """Return a mutant; ``source`` is where its rule comes from, ``tests`` are where its end is expected."""
    return Mutant(name, source, path, old, new, tests)
