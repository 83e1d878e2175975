"""What two peers must agree on before they talk: the run, and every configuration field both know."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from btard.errors import Refused

FIELD_DIGEST_SIZE = 8
MAX_FIELDS = 256
MAX_FIELD_NAME = 64
MAX_RUN_ID = 64


@dataclass(frozen=True)
class Terms:
    """The run a peer belongs to and an 8-byte digest of each of its configuration fields.

    ``fields`` is empty for a newcomer who holds only a ticket: its ``run_id`` alone must match.
    """

    run_id: bytes
    fields: Mapping[str, bytes] = field(default_factory=dict)


def check_terms(ours: Terms, theirs: Terms) -> None:
    """Return if both peers may talk; only names that we hold ourselves appear in the message.

    Raises:
        Refused: a field both hold differs, or the run does.
    """
    both = sorted(ours.fields.keys() & theirs.fields.keys())
    different = [name for name in both if ours.fields[name] != theirs.fields[name]]
    if different:
        raise Refused(f"run configuration differs in: {', '.join(different)}")
    if ours.run_id != theirs.run_id:
        raise Refused("this peer belongs to another run")
