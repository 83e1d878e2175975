"""
Succession: when one seal may follow another, for whoever was not there (design section 6, State transfer; attacks B9).

A seal s_k may follow a verified seal s_i if more than half of s_i's roster, still members in s_k, signed
s_k; k need not be i + 1, and where it is, all of s_i's roster made it, and whoever left with it counts too. At
least one of them is honest, and an honest member signs only what it computed in the run. Whoever could forge
such a step holds the keys of more than half of s_i's roster and could sign s_{i+1} just as well: skipping
admits no forgery that the whole chain would not (docs/explanation/joining.md).
"""

from functools import lru_cache

from btard.rules.config import RunConfig
from btard.rules.roster import Roster
from btard.rules.seal import Seal


@lru_cache(maxsize=16)  # of the newest seals, and of those that strangers' lines begin with
def roster_of(seal: Seal) -> Roster:
    """Return the members of the round after ``seal``.

    Raises:
        ValueError: they are not sorted, or named twice.
    """
    return Roster(seal.roster)  # type: ignore[arg-type]  # 32 bytes each, as the seal's type says


def find_vouchers(before: Seal, seal: Seal, signers: frozenset[bytes]) -> frozenset[bytes]:
    """Return which signers speak for ``before``'s roster: members then, and still in ``seal``'s own.

    In the very next seal those count too who left with it: they took part in its round, and sign before they go.
    """
    vouchers = signers & frozenset(before.roster)
    return vouchers if seal.round == before.round + 1 else vouchers & frozenset(seal.roster)


def find_objection(
    config: RunConfig, before: Seal, before_digest: bytes, seal: Seal, signers: frozenset[bytes]
) -> str | None:
    """Return why ``seal`` may not follow the verified ``before``, in words; None if it may.

    ``signers`` are those whose signatures over ``seal`` are valid; others do not count.
    """
    misfit = _find_misfit(config, before, before_digest, seal)
    if misfit is not None:
        return f"seal {seal.round} {misfit}"
    count, needed = len(find_vouchers(before, seal, signers)), roster_of(before).majority
    if count < needed:
        return (
            f"seal {seal.round} has valid signatures of {count} of the {len(before.roster)} members of "
            f"seal {before.round}, and {needed} are needed"
        )
    return None


def _find_misfit(config: RunConfig, before: Seal, before_digest: bytes, seal: Seal) -> str | None:
    if not before.round < seal.round <= config.rounds:
        return f"does not come after seal {before.round}, or after the last round of the run"
    if seal.run_id != config.run_id:
        return "belongs to another run"
    if seal.round == before.round + 1 and seal.previous != before_digest:
        return f"does not follow seal {before.round}"
    if not is_well_formed(config, seal):
        return "is not of the form that the run's configuration gives it"
    if seal.attempt < before.attempt or not frozenset(before.banned) <= frozenset(seal.banned):
        return f"takes back an attempt or a ban of seal {before.round}"
    return None


def is_well_formed(config: RunConfig, seal: Seal) -> bool:
    """Return whether a seal after the genesis has all digests, an orderly roster, and bans that concern no member."""
    is_full = seal.round % config.state_interval == 0
    sizes = (len(seal.transcript), len(seal.previous), len(seal.full_state))
    lists = (seal.roster, seal.banned)
    return (
        sizes == (32, 32, 32 if is_full else 0)
        and bool(seal.roster)
        and all(list(peers) == sorted(set(peers)) for peers in lists)
        and not frozenset(seal.roster) & frozenset(seal.banned)
    )


def agrees(config: RunConfig, older: Seal, older_digest: bytes, newer: Seal, signers: frozenset[bytes]) -> bool:
    """Return whether ``newer``, of the same round or later, belongs to the history that ``older`` belongs to.

    Of one round they must be the same seal; else the newer one must follow the older.
    """
    if newer.round == older.round:
        return newer == older
    return find_objection(config, older, older_digest, newer, signers) is None
