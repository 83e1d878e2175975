"""Numbers of requests: an answer to an earlier process of ours must settle none of this one."""

from btard.net.requests import OpenRequests

EACH = 1000


def list_numbers(serial: int) -> set[int]:
    """The numbers of a session's first requests, whose first link has this serial."""
    requests = OpenRequests()
    requests.scatter(serial)
    return {requests.begin(1, None).number for _ in range(EACH)}


def test_sessions_count_from_elsewhere() -> None:
    """Whether links are a nanosecond apart, or years."""
    serials = [*range(100), *(1_790_000_000_000_000_000 + 10**exponent for exponent in range(18))]
    numbers = [list_numbers(serial) for serial in serials]
    assert len(set.union(*numbers)) == EACH * len(serials)


def test_numbers_fit_into_a_request_for_ever() -> None:
    """They go round."""
    requests = OpenRequests()
    requests.scatter(1)
    requests._next_number = (1 << 32) - 1
    assert [requests.begin(1, None).number for _ in range(2)] == [(1 << 32) - 1, 0]
