"""
``btard-peer``: commands, progress, exit codes.

Start with app.py, which lists the commands; each has its file. Nothing heavy is imported before a
command needs it: torch takes seconds, ``--help`` must not.
"""

from btard.cli.app import main

__all__ = ["main"]
