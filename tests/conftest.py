"""Settings of every test: how hard hypothesis searches."""

from hypothesis import HealthCheck, settings

# No deadline: a shared machine stalls for longer than any honest bound. Slow generation is not our concern either.
# The quick search tries the same examples every time, so that a change fails by its own fault; `nox -s properties`
# is where new examples are found.
settings.register_profile(
    "quick", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("thorough", parent=settings.get_profile("quick"), derandomize=False, max_examples=1000)
settings.load_profile("quick")
