"""``python -m btard.cli``: the same as ``btard-peer``."""

from btard.cli import main

main()
