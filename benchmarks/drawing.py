"""Two plots as SVG, without a library: bars, and lines on logarithmic axes. What a table cannot show at a glance."""

import math
from collections.abc import Mapping, Sequence
from html import escape

COLOURS = ("#1b6ca8", "#d1495b", "#3a7d44", "#edae49", "#6c4f8c", "#66717e")
WIDTH, LEFT, TOP, LINE = 720, 250, 40, 22
PLOT = 400
"""Width and height of what lies between the axes of a plot with lines."""

Points = Sequence[tuple[float, float]]


def draw_bars(title: str, values: Mapping[str, float], unit: str) -> str:
    """Return an SVG with one bar for each value, as long as the value, in the order given."""
    most = max([*values.values(), 0.0]) or 1.0
    body = [_write(10, 22, title, size=15)]
    for row, (name, value) in enumerate(values.items()):
        y = TOP + LINE * row
        length = max(value, 0.0) / most * (WIDTH - LEFT - 90)
        body.append(_write(LEFT - 8, y + 13, name, anchor="end"))
        body.append(f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{LINE - 6}" fill="{COLOURS[0]}"/>')
        body.append(_write(LEFT + length + 6, y + 13, f"{value:.3g} {unit}"))
    return _frame(body, WIDTH, TOP + LINE * len(values) + 10)


def draw_lines(title: str, series: Mapping[str, Points], x_label: str, y_label: str) -> str:
    """Return an SVG with one line for each series, both axes logarithmic; points that are not above 0 are left out."""
    kept = {name: [(x, y) for x, y in points if x > 0 and y > 0] for name, points in series.items()}
    lines = {name: points for name, points in kept.items() if points}
    x_axis = _span([x for points in lines.values() for x, _ in points])
    y_axis = _span([y for points in lines.values() for _, y in points])
    body = [_write(10, 22, title, size=15), _write(LEFT, TOP + PLOT + 40, x_label), _write(10, TOP + 12, y_label)]
    body += [
        f'<rect x="{LEFT}" y="{TOP}" width="{PLOT}" height="{PLOT}" fill="none" stroke="#999"/>',
        *(_write(LEFT - 6, TOP + PLOT - _place(y, y_axis) + 4, f"{y:.0e}", anchor="end") for y in _list_powers(y_axis)),
        *(_write(LEFT + _place(x, x_axis), TOP + PLOT + 16, f"{x:g}") for x in _list_powers(x_axis)),
    ]
    for row, (name, points) in enumerate(lines.items()):
        colour = COLOURS[row % len(COLOURS)]
        path = " ".join(f"{LEFT + _place(x, x_axis):.1f},{TOP + PLOT - _place(y, y_axis):.1f}" for x, y in points)
        body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        body.append(_write(10, TOP + 40 + LINE * row, name, colour=colour))
    return _frame(body, LEFT + PLOT + 40, TOP + PLOT + 50)


def _span(values: Sequence[float]) -> tuple[float, float]:
    """The powers of ten (as exponents) between which all values lie."""
    low, high = math.floor(math.log10(min(values, default=1.0))), math.ceil(math.log10(max(values, default=10.0)))
    return low, max(high, low + 1)


def _place(value: float, axis: tuple[float, float]) -> float:
    return (math.log10(value) - axis[0]) / (axis[1] - axis[0]) * PLOT


def _list_powers(axis: tuple[float, float]) -> list[float]:
    return [10.0**power for power in range(int(axis[0]), int(axis[1]) + 1)]


def _write(x: float, y: float, text: str, anchor: str = "start", size: int = 12, colour: str = "#222") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}"'
    return f"<text {place}>{escape(text)}</text>"


def _frame(body: Sequence[str], width: float, height: float) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" font-family="sans-serif">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *body, "</svg>"]) + "\n"
