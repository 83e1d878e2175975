"""The page on misbehaviour names tests that exist, and every kind of adversary."""

import re
from pathlib import Path

from btard.attacks import ADVERSARIES

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "explanation" / "misbehaviour.md").read_text()


def test_every_test_of_the_traces_exists():
    """Each trace names a file and a function in it; none is a promise."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
    assert len(named) > 30
    missing = [f"{file}::{name}" for file, name in named if not _is_defined(ROOT / file, name)]
    assert missing == []


def _is_defined(path: Path, name: str) -> bool:
    return path.exists() and re.search(rf"^(async )?def {name}\(", path.read_text(), re.MULTILINE) is not None


def test_every_adversary_has_an_entry():
    """Whoever can order an attack can read what it is, what is seen of it, and what nobody can prove."""
    described = set(re.findall(r"`([a-z-]+)`", PAGE))
    assert sorted(set(ADVERSARIES) - described) == []


def test_every_entry_defines_and_observes():
    """An entry says what the misbehaviour is and what the others see."""
    entries = re.findall(r"^### (.+?)$(.*?)(?=^##)", PAGE, re.MULTILINE | re.DOTALL)
    assert len(entries) > 20
    assert [title for title, text in entries if "**Definition.**" not in text] == []
