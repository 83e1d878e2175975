"""The members of a round, the same at every honest peer."""

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property

from btard.identity import Context, PeerId, digest


@dataclass(frozen=True)
class Roster:
    """The members of a round, sorted by PeerId; ``everyone`` are the same, for whoever asks often who is one."""

    members: tuple[PeerId, ...]
    everyone: frozenset[PeerId] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "everyone", frozenset(self.members))
        if list(self.members) != sorted(self.everyone):
            raise ValueError("a roster is sorted and names each peer once")

    @classmethod
    def of(cls, peers: Collection[PeerId]) -> "Roster":
        """The roster of these peers, in order."""
        return cls(tuple(sorted(set(peers))))

    @cached_property
    def digest(self) -> bytes:
        """32 bytes that every signature of its time covers."""
        return digest(Context.ROSTER, *self.members)

    def __len__(self) -> int:
        return len(self.members)

    def __contains__(self, peer: object) -> bool:
        return peer in self.everyone

    @property
    def majority(self) -> int:
        """The smallest number that is more than half."""
        return len(self) // 2 + 1

    def tolerated(self, max_byzantine: int | None = None) -> int:
        """f: how many Byzantine members this roster bears, at most ``max_byzantine`` of the run."""
        bound = (len(self) + 1) // 2 - 1
        return bound if max_byzantine is None else min(bound, max_byzantine)

    def count_validators(self, wanted: int, max_byzantine: int | None = None) -> int:
        """m: the validators of a round, at most max(1, n-2f-1): honest contributors keep their majority."""
        return min(wanted, max(1, len(self) - 2 * self.tolerated(max_byzantine) - 1))

    def without(self, peers: Collection[PeerId]) -> "Roster":
        """The roster that remains after a ban or removal."""
        return Roster(tuple(member for member in self.members if member not in peers))


def compute_bans_digest(banned: Collection[PeerId]) -> bytes:
    """Return the digest of the ban list, in order of PeerId."""
    return digest(Context.BANS, *sorted(banned))
