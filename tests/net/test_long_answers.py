"""Answers that no message holds: over TCP and in memory."""

from tests.net.hub_scenes import open_pair

from btard.net import MAX_CONTROL, MAX_HEADER
from btard.net.requests import ANSWER_OVERHEAD


async def test_an_answer_that_is_too_long_is_left_empty(open_hub):
    """Whoever asks can make nobody break by it; neither the link nor the hub ends, and the next one is answered."""
    one, two = await open_pair(open_hub)

    async def bloat(peer, body):
        payload = memoryview(b"payload") if body == b"with payload" else None
        return bytes((MAX_HEADER if payload else MAX_CONTROL) - ANSWER_OVERHEAD + (body != b"fits")), payload

    two.serve[1] = bloat
    for body, length in ((b"too long", 0), (b"with payload", 0), (b"fits", MAX_CONTROL - ANSWER_OVERHEAD)):
        answer = await one.request(two.me, 1, body, timeout_s=5, sink=lambda head, size: None)
        assert (len(answer.head), answer.payload) == (length, None)
