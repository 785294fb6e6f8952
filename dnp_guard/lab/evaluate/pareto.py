"""Plot two figures of every method against each other, as an SVG."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_WIDTH, _HEIGHT, _MARGIN, _LEGEND = 420, 300, 52, 240
_OURS, _THEIRS, _FRONT = "#c0392b", "#34495e", "#b9770e"


@dataclass(frozen=True, slots=True)
class Point:
    """One method in the plot.

    Attributes:
        label: name of the method.
        x: figure on the horizontal axis; lower is better.
        y: figure on the vertical axis; lower is better.
        ours: whether to highlight the point.
    """

    label: str
    x: float
    y: float
    ours: bool = False


def front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other point beats in both figures, ordered by rising x."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.x, point.y)):
        if not best or point.y < best[-1].y:
            best.append(point)
    return best


def draw_pareto(title: str, x: str, y: str, points: Sequence[Point]) -> str:
    """Draw a scatter plot of numbered methods, with a line along the Pareto front; return an SVG element.

    Args:
        title: one line of text.
        x: label of the horizontal axis, on which lower is better.
        y: label of the vertical axis, on which lower is better.
        points: the methods.
    """
    most_x, most_y = (max([value for value in values if value > 0], default=1.0) * 1.05 for values in _axes(points))

    def at(point: Point) -> tuple[float, float]:
        return _MARGIN + point.x / most_x * _WIDTH, _MARGIN + (1 - point.y / most_y) * _HEIGHT

    parts = [_frame(title, x, y, most_x, most_y, len(points))]
    line = " ".join(f"{px:.1f},{py:.1f}" for px, py in map(at, front(points)))
    parts.append(f'<polyline points="{line}" fill="none" stroke="{_FRONT}" stroke-dasharray="5 3"/>')
    for number, point in enumerate(points, 1):
        colour, (px, py) = _OURS if point.ours else _THEIRS, at(point)
        label = escape(f"{number}  {point.label}: {point.x:.3g}, {point.y:.3g}")
        parts.append(
            f'<circle cx="{px:.1f}" cy="{py:.1f}" r="{5 if point.ours else 3.5}" fill="{colour}"><title>{label}</title>'
            f'</circle><text x="{px + 6:.1f}" y="{py - 5:.1f}" font-size="10" fill="{colour}">{number}</text>'
        )
        below = _MARGIN + 10 + 15 * (number - 1)
        parts.append(f'<text x="{_MARGIN + _WIDTH + 16}" y="{below}" font-size="11" fill="{colour}">{label}</text>')
    return "\n".join([*parts, "</svg>"])


def _axes(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [point.x for point in points], [point.y for point in points]


def _frame(title: str, x: str, y: str, most_x: float, most_y: float, count: int) -> str:
    width, height = _WIDTH + 2 * _MARGIN + _LEGEND, max(_HEIGHT, 15 * count) + 2 * _MARGIN
    low, right = _MARGIN + _HEIGHT, _MARGIN + _WIDTH
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n'
        f'<text x="{_MARGIN}" y="28" font-size="15">{escape(title)}</text>\n'
        f'<rect x="{_MARGIN}" y="{_MARGIN}" width="{_WIDTH}" height="{_HEIGHT}" fill="none" stroke="#888"/>\n'
        f'<text x="{_MARGIN}" y="{low + 18}">0</text>'
        f'<text x="{right}" y="{low + 18}" text-anchor="end">{most_x:.3g}</text>'
        f'<text x="{_MARGIN - 6}" y="{_MARGIN + 10}" text-anchor="end">{most_y:.3g}</text>\n'
        f'<text x="{_MARGIN + _WIDTH / 2}" y="{low + 34}" text-anchor="middle">{escape(x)}</text>\n'
        f'<text transform="translate({_MARGIN - 34} {_MARGIN + _HEIGHT / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(y)}</text>"
    )
