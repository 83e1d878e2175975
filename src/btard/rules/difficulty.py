"""
The difficulty of join tickets follows how many were admitted, within bounds (design section 6; attacks B8d).

It rises while newcomers take every place, so that a crowd of identities costs its maker more, and falls while places
stay free. The bound is what keeps it from becoming a weapon: whoever fills all places, epoch after epoch, makes the
work of an honest newcomer eight times what the run file says, and never more. Among more valid tickets than places
a draw decides, so further work buys further entries in it and prices nobody out.
"""

from btard.rules.config import RunConfig

MAX_RISE = 3
"""Bits above the run's own: eight times the work, about ten minutes of one core at the default."""


def adjust_ticket_bits(config: RunConfig, bits: int, admitted: int, places: int) -> int:
    """Return the difficulty of an epoch, in bits.

    Args:
        config: of the run; its ``ticket_bits`` are the difficulty of the first epoch, and the least.
        bits: the difficulty of the epoch before.
        admitted: the candidates sealed in the epoch before.
        places: how many candidates could have been admitted then.
    """
    change = 1 if admitted >= places else -1 if 2 * admitted < places else 0
    return min(max(bits + change, config.ticket_bits), config.ticket_bits + MAX_RISE)
