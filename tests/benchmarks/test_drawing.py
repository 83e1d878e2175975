"""Plots as SVG: well-formed, in proportion, and never broken by a value that has no logarithm."""

from xml.etree import ElementTree as ET

import pytest
from benchmarks.drawing import PLOT, draw_bars, draw_lines

SVG = "{http://www.w3.org/2000/svg}"


def parse(text: str) -> ET.Element:
    """Return the root of a well-formed drawing."""
    return ET.fromstring(text)  # noqa: S314 - we have just written it


def test_bars_are_as_long_as_their_values():
    """Half the value is half the bar; names may hold what XML does not."""
    root = parse(draw_bars("a < b", {"x & y": 4.0, "half": 2.0, "none": 0.0}, "ms"))
    _background, *bars = root.iter(f"{SVG}rect")
    first, half, none = (float(bar.attrib["width"]) for bar in bars)
    assert first == pytest.approx(2 * half)
    assert none == 0


def test_lines_are_straight_where_the_law_is_a_power():
    """n² from 1 to 100 goes from corner to corner of decades; points at zero are left out, an empty series too."""
    text = draw_lines("t", {"square": [(1, 1), (10, 100), (100, 10_000), (0, 5)], "empty": [(1, 0)]}, "n", "bytes")
    lines = list(parse(text).iter(f"{SVG}polyline"))
    assert len(lines) == 1
    (x0, y0), (x1, y1), (x2, y2) = (map(float, point.split(",")) for point in lines[0].attrib["points"].split())
    assert (x1 - x0, y0 - y1) == pytest.approx((x2 - x1, y1 - y2))
    assert (x2 - x0, y0 - y2) == pytest.approx((PLOT, PLOT))


def test_nothing_to_draw_is_an_empty_plot():
    """A result without figures is no reason to fail."""
    assert parse(draw_lines("t", {}, "n", "s")) is not None
    assert parse(draw_bars("t", {}, "s")) is not None
