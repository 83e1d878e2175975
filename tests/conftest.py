"""Settings of every test: how hard hypothesis searches."""

from hypothesis import HealthCheck, settings

# No deadline: a shared machine stalls for longer than any honest bound. Slow generation is not our concern either.
settings.register_profile("quick", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", parent=settings.get_profile("quick"), max_examples=5000)
settings.load_profile("quick")
