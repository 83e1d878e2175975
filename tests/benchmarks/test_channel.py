"""The benchmark of links: how the speeds of both sides are summed up."""

from benchmarks.channel import format_result, sum_up


def test_speeds_are_compared_run_by_run():
    """The link's share of the bare stream is taken in each run: half and a quarter."""
    summed = sum_up({"bare": [2.0, 4.0], "link": [1.0, 1.0]})
    assert summed["results"]["bare"] == {"median_gb_s": 3.0, "min_gb_s": 2.0, "max_gb_s": 4.0}
    assert summed["throughput"]["bare"] == {"median": 0.375, "min": 0.25, "max": 0.5}
    text = format_result({"command": "c", "machine": "m", "commit": "x", **summed})
    assert "| link | 1 | 1 | 1 |" in text
    assert "| bare | 0.375 | 0.25 | 0.5 |" in text
