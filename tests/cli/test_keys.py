"""``keygen`` and ``version``."""

import platform
import stat

from btard.identity import load_identity


def test_key_is_private_and_printed_by_its_id(call, tmp_path):
    """A new key is readable by its owner only; what is printed is the peer's id, not the key."""
    ended = call("keygen", tmp_path / "key")
    assert ended.code == 0
    assert ended.out.strip() == load_identity(tmp_path / "key").peer_id.hex()
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_key_is_never_overwritten(call, tmp_path):
    """A key that exists stays."""
    first = call("keygen", tmp_path / "key")
    second = call("keygen", tmp_path / "key")
    assert second.code == 2
    assert "never overwritten" in second.complaint
    assert load_identity(tmp_path / "key").peer_id.hex() == first.out.strip()


def test_version_names_what_matters(call):
    """The versions that a report needs are printed."""
    ended = call("version")
    assert ended.code == 0
    assert platform.python_version() in ended.out
    assert all(word in ended.out for word in ("btard", "torch", "protocol"))
