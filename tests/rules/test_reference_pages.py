"""The reference pages name every field that exists, so that they cannot rot."""

import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from btard.rules import messages
from btard.rules.config import RunConfig
from btard.rules.messages import (
    MAX_EVIDENCE,
    MAX_MARKED,
    MAX_PROJECTIONS,
    MAX_ROSTER,
    MAX_SUPPLIED,
    PAYLOAD_OF_PHASE,
    Phase,
)
from btard.wire import MAX_CHAIN, MAX_MESSAGE
from btard.wire.chains import CHAIN_TAG, Chain, Countersignature
from btard.wire.envelope import ENVELOPE_TAG, Envelope, Header
from btard.wire.seals import SEAL_TAG

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
MESSAGES = (REFERENCE / "messages.md").read_text()
RUN_FILE = (REFERENCE / "run-file.md").read_text()
NESTED = (messages.Verdict, messages.Report, messages.Opinion, messages.Holding, messages.Position, Envelope, Header)
CHAINS = (Chain, Countersignature)


def read_section(phase: Phase) -> str:
    """The part of the page on one phase; PUBLISH and DISPUTE_PUBLISH share one."""
    heading = next(
        line for line in MESSAGES.splitlines() if line.startswith("### ") and f"{phase.value} {phase.name}" in line
    )
    return MESSAGES.split(heading, 1)[1].split("\n### ", 1)[0].split("\n## ", 1)[0]


@pytest.mark.parametrize("phase", list(Phase))
def test_every_message_and_each_of_its_fields_is_documented_in_order(phase: Phase) -> None:
    """Each phase has its line in the overview and a section with exactly its fields, in the order of the wire."""
    assert re.search(rf"^\| {phase.value} {phase.name} \|", MESSAGES, re.MULTILINE)
    documented = re.findall(r"^\| `(\w+)` \|", read_section(phase), re.MULTILINE)
    assert documented == list(PAYLOAD_OF_PHASE[phase].__struct_fields__)


@pytest.mark.parametrize("kind", [*NESTED, *CHAINS], ids=lambda kind: kind.__name__)
def test_every_nested_struct_is_documented(kind: type) -> None:
    """Structs within messages, and the envelope around them, are named with their fields."""
    assert f"`{kind.__name__}`" in MESSAGES or kind is messages.Verdict
    assert all(f"`{name}`" in MESSAGES for name in kind.__struct_fields__)  # type: ignore[attr-defined]


def test_limits_on_the_page_are_those_in_force() -> None:
    """Numbers in the text are the constants of the code."""
    assert f"more than {MAX_MESSAGE // 1024} KiB" in MESSAGES
    for text in (
        f"| array of `Bytes32` | at most {MAX_ROSTER} |",
        f"at most {MAX_PROJECTIONS} floats",
        f"`Envelope`, at most {MAX_SUPPLIED} |",
        f"array of bin, at most {MAX_EVIDENCE} |",
        f"array of `bool`, at most {MAX_ROSTER * MAX_ROSTER:,} |",
    ):
        assert text in MESSAGES
    assert f"array of `Count`, at most {MAX_MARKED} |" in MESSAGES
    assert f"is at most {MAX_CHAIN // 1024} KiB" in MESSAGES.replace("\n", " ")
    for tag in (ENVELOPE_TAG, SEAL_TAG, CHAIN_TAG):
        assert f'"{tag.decode().rstrip(chr(0))}\\0"' in MESSAGES


@pytest.mark.parametrize("item", fields(RunConfig), ids=lambda item: item.name)
def test_every_field_of_the_run_file_is_documented_with_its_default(item: object) -> None:
    """One row each, with the default that the code has."""
    name, default = item.name, item.default  # type: ignore[attr-defined]
    if default is MISSING:
        assert isinstance(getattr(RunConfig(), name), Mapping)
        assert f"| `[{name}]` | empty |" in RUN_FILE
    else:
        assert f"| `{name}` | `{json.dumps(default)}` |" in RUN_FILE


def test_run_file_page_documents_no_field_that_does_not_exist() -> None:
    """A removed field leaves the page too."""
    documented = re.findall(r"^\| `\[?(\w+)\]?` \|", RUN_FILE, re.MULTILINE)
    assert sorted(documented) == sorted(item.name for item in fields(RunConfig))
