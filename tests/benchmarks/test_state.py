"""The benchmark of states: what makes it fail."""

from benchmarks.state import find_problems


def judge(cold: float = 0.34, warm: float = 0.34, *, is_right: bool = True) -> list[str]:
    """Return what is wrong where the joiners have these shares of a stream's speed."""
    joiner = {"is_right": True, "ratio": 0.1}
    found = {"joins": [joiner], "resumed": joiner, "as found": joiner | {"is_right": is_right}}
    return find_problems(found | {"cold": {"ratio": cold}, "warm": {"ratio": warm}})


def test_a_third_is_enough():
    """Memory as the host gives it, and what a killed joiner needs, are told and not judged."""
    assert judge() == []


def test_the_first_joiner_is_judged_as_the_later_ones_are():
    """Each is named if it has less than a third."""
    assert judge(cold=0.33) == ["cold: 0.330 of a stream's speed; a third is asked for"]
    assert judge(warm=0.33) == ["warm: 0.330 of a stream's speed; a third is asked for"]


def test_a_wrong_state_fails_at_any_speed():
    """Whoever got it."""
    assert judge(cold=3.0, warm=3.0, is_right=False) == ["a joiner got another state than the seal names"]
