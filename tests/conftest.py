"""Settings of every test: how hard hypothesis searches, and where log lines go."""

from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

# No deadline: a shared machine stalls for longer than any honest bound. Slow generation is not our concern either.
# The quick search tries the same examples every time, so that a change fails by its own fault; `nox -s properties`
# is where new examples are found.
settings.register_profile(
    "quick", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("thorough", parent=settings.get_profile("quick"), derandomize=False, max_examples=1000)
settings.load_profile("quick")


@pytest.fixture(autouse=True)
def _log_to_the_default_place() -> Iterator[None]:
    """Commands send log lines to the standard error of their time, which a test runner closes after them."""
    yield
    structlog.reset_defaults()
