"""The benchmark of Sybils that are processes: both swarms have one run file, and what makes it fail."""

from dataclasses import replace

from benchmarks.sybil_processes import FIELDS, find_problems

from btard.cli.demo_plan import Settings, make_plan

FINE = {"promoted": 0, "states": 1}


def test_both_swarms_run_by_the_same_values(tmp_path):
    """What a demo changes for strangers is as in any run, but for the work of tickets, with Sybils and without."""
    settings = Settings(4, 0, rounds=120, sybils=6, fields=FIELDS)
    configs = [make_plan(replace(settings, sybils=n), tmp_path / str(n)).config for n in (0, 6)]
    for config in configs:
        assert (config.check_rate, config.probation, config.state_interval) == (0.5, 32, 16)
        assert (config.identity_bits, config.ticket_bits, config.ticket_memory_kib) == (8, 3, 256)


def test_what_makes_it_fail():
    """A Sybil that came in, members with two states, or a tenth more of something."""
    assert find_problems([FINE, FINE], {"bytes": 0.05, "cpu_ms": 0.09}) == []
    assert find_problems([FINE, FINE | {"promoted": 1}], {}) == ["1 Sybils were promoted"]
    assert find_problems([FINE | {"states": 2}, FINE], {}) == ["2 states in the end"]
    [problem] = find_problems([FINE, FINE], {"bytes": 0.05, "cpu_ms": 0.11})
    assert problem.startswith("the members' CPU seconds grew by 11.0%")
