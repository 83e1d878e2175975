"""
How the run stands, as whoever is no member yet has last heard: people are shown it, and nothing else goes by it.

One seal in the data directory, whole or absent; a member's ledger takes its place.
"""

from pathlib import Path

import structlog

from btard.durable import write_durably
from btard.errors import RemoteProtocolError
from btard.rules.seal import Seal
from btard.wire import decode_seal, encode_seal

log = structlog.get_logger(__name__)

HEARD_FILE = "heard.seal"


def note_heard(data_dir: Path, seal: Seal) -> None:
    """Write down the newest seal that we believe; a disk on which that fails stops nobody."""
    try:
        write_durably(data_dir / HEARD_FILE, encode_seal(seal))
    except OSError as error:
        log.warning("how the run stands is not written down", round=seal.round, reason=str(error))


def read_heard(data_dir: Path, run_id: bytes) -> Seal | None:
    """Return the seal of this run that was written down last; None where there is none, or it is damaged."""
    try:
        seal = decode_seal((data_dir / HEARD_FILE).read_bytes())
    except (OSError, RemoteProtocolError):
        return None
    return seal if seal.run_id == run_id else None


def forget_heard(data_dir: Path) -> None:
    """Forget the seal, once we are a member and have seals of our own."""
    (data_dir / HEARD_FILE).unlink(missing_ok=True)
