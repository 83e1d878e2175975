"""The tree of exceptions."""

import inspect
import re

import pytest

from btard import errors

NAME = re.compile(r"^(?P<branch>[│├└─ ]*)(?P<name>[A-Z][A-Za-z]+)\b")


def drawn_tree() -> dict[str, str | None]:
    """Return each name drawn in the docstring of the module, with the name that it hangs from."""
    parents: dict[str, str | None] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").split("BtardError\n", 1)[1].split("\n\n", 1)[0].splitlines():
        match = NAME.match(line)
        assert match, f"not a line of the tree: {line!r}"
        depth = len(match["branch"])
        above = [(d, name) for d, name in above if d < depth]
        parents[match["name"]] = above[-1][1] if above else "BtardError"
        above.append((depth, match["name"]))
    return {"BtardError": None, **parents}


def written_tree() -> dict[str, str | None]:
    """Return each exception class of the module, with its parent in the module."""
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__]
    own = {c.__name__ for c in classes}
    return {c.__name__: next((b.__name__ for b in c.__bases__ if b.__name__ in own), None) for c in classes}


def test_the_docstring_draws_the_tree_that_the_classes_form():
    """Whoever reads the drawing knows every exception and its parent."""
    assert drawn_tree() == written_tree()


def test_a_configuration_error_is_a_value_error():
    """Callers who know nothing of btard catch impossible arguments as usual."""
    with pytest.raises(ValueError, match="choose another"):
        raise errors.ConfigError("choose another")


@pytest.mark.parametrize("peer", [None, b"\x07" * 32])
def test_a_remote_error_names_the_peer_if_known(peer):
    """The link's owner learns whom to distrust, and the reason is the text."""
    error = errors.RemoteProtocolError("frame too long", peer)
    assert error.peer == peer
    assert str(error) == "frame too long"


def test_faults_of_ours_and_of_theirs_are_unrelated_types():
    """Catching a peer's mistake never hides a bug of ours, nor the other way round."""
    for ours in (errors.LocalProtocolError, errors.InternalError, errors.ConfigError):
        for theirs in (errors.RemoteProtocolError, errors.NetworkError):
            assert not issubclass(ours, theirs)
            assert not issubclass(theirs, ours)


def test_every_network_error_is_caught_as_one():
    """Nobody's fault is one `except` clause."""
    assert {c.__name__ for c in errors.NetworkError.__subclasses__()} == {
        "Unreachable",
        "ConnectionLost",
        "RequestTimedOut",
    }
