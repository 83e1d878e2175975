"""Run tickets."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.wire.strategies import tickets

from btard.errors import ConfigError
from btard.wire import Ticket, encode, format_ticket, parse_ticket

TICKET = Ticket(b"r" * 32, b"f" * 32, ("198.51.100.7:4001", "peer.example:4001"), b"s" * 32)


@given(tickets)
def test_ticket_survives_the_round_trip(ticket: Ticket) -> None:
    """parse_ticket reads what format_ticket wrote, also with white space around it."""
    word = format_ticket(ticket)
    assert parse_ticket(f"  {word}\n") == ticket
    assert word.split() == [word]


@given(tickets)
def test_ticket_is_one_word_of_safe_characters(ticket: Ticket) -> None:
    """Chat programs and shells leave it alone."""
    assert all(character.isalnum() or character in "-_" for character in format_ticket(ticket))


@pytest.mark.parametrize("length", range(len(format_ticket(TICKET))))
def test_ticket_cut_short_is_refused(length: int) -> None:
    """A ticket copied without its end is refused with advice."""
    with pytest.raises(ConfigError, match="btard1-"):
        parse_ticket(format_ticket(TICKET)[:length])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "btard1-",
        "btard1-!!!!",
        "btard1-ééé",
        "btard2-abcd",
        "btard1-" + "A" * 100,
        "btard1-" + "A" * 2**21,
    ],
    ids=lambda text: text[:12],
)
def test_text_that_is_no_ticket_is_refused(text: str) -> None:
    """Anything else is refused with a line that says what a ticket looks like."""
    with pytest.raises(ConfigError, match="a ticket is one word that begins with btard1-"):
        parse_ticket(text)


@given(st.text(max_size=120))
def test_any_text_gives_a_ticket_or_a_config_error(text: str) -> None:
    """No text raises anything but ConfigError."""
    for word in (text, "btard1-" + text):
        try:
            parse_ticket(word)
        except ConfigError:
            continue


@pytest.mark.parametrize(
    "ticket",
    [
        Ticket(b"r" * 31, b"f" * 32, ()),
        Ticket(b"r" * 32, b"f" * 33, ()),
        Ticket(b"r" * 32, b"f" * 32, ("host:1",) * 17),
        Ticket(b"r" * 32, b"f" * 32, ("h" * 257,)),
        Ticket(b"r" * 32, b"f" * 32, (), b"s" * 33),
    ],
    ids=["short run id", "long key", "17 addresses", "long address", "long seal"],
)
def test_ticket_beyond_its_bounds_is_refused(ticket: Ticket) -> None:
    """Each field of a ticket is bounded."""
    with pytest.raises(ConfigError, match="damaged"):
        parse_ticket(format_ticket(ticket))


@pytest.mark.parametrize("position", range(len("btard1-"), len(format_ticket(TICKET)) - 1))
def test_a_mistyped_letter_is_called_damage(position: int) -> None:
    """One wrong letter anywhere is noticed at once, not when nobody knows the run."""
    word = format_ticket(TICKET)
    wrong = word[:position] + ("A" if word[position] != "A" else "B") + word[position + 1 :]
    with pytest.raises(ConfigError, match="damaged, mistyped or cut short"):
        parse_ticket(wrong)


def test_a_ticket_without_a_checksum_is_called_old() -> None:
    """Tickets that an older btard printed are refused with advice that helps."""
    old = "btard1-" + base64.urlsafe_b64encode(encode(TICKET)).decode().rstrip("=")
    with pytest.raises(ConfigError, match="older btard, without a checksum: ask the founder for a new one"):
        parse_ticket(old)


def test_ticket_of_a_newer_format_with_more_fields_is_refused() -> None:
    """Unknown fields are never ignored."""
    longer = encode((b"r" * 32, b"f" * 32, (), b"", b"new"))
    with pytest.raises(ConfigError, match="damaged"):
        parse_ticket("btard1-" + base64.urlsafe_b64encode(longer).decode())
