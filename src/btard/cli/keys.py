"""``keygen`` and ``version``."""

import platform
from pathlib import Path
from typing import Annotated

import typer

from btard.identity import Identity, save_identity
from btard.wire import PROTOCOL, find_version


def keygen(path: Annotated[Path, typer.Argument(help="Where to write the key; an existing file is kept.")]) -> None:
    """
    Make a key, readable by you only, and print its peer id.

    A peer is its key: who has the key is the peer. `join` makes one by itself; make it first if you
    want to know your id before, or to keep the key elsewhere.

    For example:

        btard-peer keygen ~/btard.key
    """
    identity = Identity.generate()
    save_identity(identity, path)
    print(identity.peer_id.hex())


def version() -> None:
    """
    Print the versions that matter in a report: btard, protocol, Python, torch.

    For example:

        btard-peer version
    """
    print(f"btard     {find_version('btard')}")
    print(f"protocol  {PROTOCOL}")
    print(f"python    {platform.python_version()}")
    print(f"torch     {find_version('torch')}")
