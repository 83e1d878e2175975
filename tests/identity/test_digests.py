"""Digests: one context per use, and part boundaries count."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from btard.identity import DIGEST_SIZE, Context, digest, expand

LEAF_OF_ABC = "7c3c3108143bf93f7175e385ac1ca563cabbd3c5c9c0b4fe66b25d826971b8b1"
EXPANDED_ABC = "27b659bc544658dc6403c774038c23cac8701441a89da85733bf1fa342ff1bf057e0886de18ca61a"

contexts = st.sampled_from(Context)
parts = st.lists(st.binary(max_size=40), max_size=5)


def test_known_values():
    """The digests are part of the protocol: other implementations must find the same bytes."""
    assert digest(Context.LEAF, b"abc").hex() == LEAF_OF_ABC
    assert expand(Context.EXPAND, b"abc", 40).hex() == EXPANDED_ABC


def test_contexts_differ():
    """No two uses share a context, so no digest of one use can stand in for another's."""
    values = [context.value for context in Context]
    assert len(values) == len(set(values)) == len(Context.__members__)
    assert all(value.startswith("btard 1 ") for value in values)


@given(contexts, contexts, parts)
def test_the_context_separates(one, other, data):
    """Equal parts under two contexts have two digests."""
    assume(one != other)
    assert digest(one, *data) != digest(other, *data)


@given(contexts, parts, parts)
def test_part_boundaries_count(context, one, other):
    """Two lists of parts share a digest only if they are the same list."""
    assert (digest(context, *one) == digest(context, *other)) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((b"ab", b"c"), (b"a", b"bc")),
        ((b"abc",), (b"abc", b"")),
        ((), (b"",)),
        ((b"", b"a"), (b"a", b"")),
        ((b"a",), ((1).to_bytes(8, "little") + b"a",)),
    ],
)
def test_moved_boundaries_change_the_digest(one, other):
    """The same bytes cut elsewhere are another value."""
    assert digest(Context.MESSAGE, *one) != digest(Context.MESSAGE, *other)


@given(contexts, parts)
def test_a_digest_has_its_size(context, data):
    """Every digest has 32 bytes, whatever went in."""
    assert len(digest(context, *data)) == DIGEST_SIZE


@given(contexts, st.binary(max_size=40), st.integers(0, 300), st.integers(0, 300))
def test_expansion_is_a_stream(context, seed, short, more):
    """A longer expansion begins with the shorter one and has the length asked for."""
    longer = expand(context, seed, short + more)
    assert len(longer) == short + more
    assert longer[:short] == expand(context, seed, short)


@given(contexts, contexts, st.binary(max_size=40), st.binary(max_size=40))
def test_expansions_of_different_seeds_or_contexts_differ(one, other, seed, another):
    """Neither another seed nor another context gives the same stream."""
    assume((one, seed) != (other, another))
    assert expand(one, seed, 32) != expand(other, another, 32)


@given(contexts, st.binary(max_size=40))
def test_an_expansion_is_no_digest(context, data):
    """Even in one context, a value that is public as a digest says nothing of the stream."""
    assert expand(context, data, DIGEST_SIZE) != digest(context, data)
