"""Draw small plots as SVG, for a page that loads no other files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from markupsafe import Markup

from dnp_guard.types import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

COLOURS: Final = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5", "#9c6b4e")
"""Colours of categories; after the last, they repeat from the first."""

OUTCOME_COLOURS: Final = {
    Outcome.FAILED_OPEN: "#d1495b",
    Outcome.UNASKED: "#9aa3ad",
    Outcome.CLEAN: "#2f8f46",
    Outcome.MONITORED: "#4269d0",
    Outcome.STEERED: "#e0a100",
    Outcome.BLURRED: "#e8743b",
    Outcome.BLOCKED: "#b3261e",
    Outcome.FAILED_CLOSED: "#6d3a3a",
}
"""Colour of every outcome, the same on all pages; a series such as ``would be blocked`` has a lighter tint of it."""

_WIDTH, _HEIGHT = 720, 180
_LEFT, _BOTTOM, _TOP = 44, 24, 10
_LABEL = 70
_WOULD, _TINT = "would be ", "80"


def stacked(slots: Sequence[tuple[str, Mapping[str, int]]], series: Sequence[str], title: str) -> Markup:
    """Draw a stacked bar chart over time.

    Args:
        slots: label of every bar, and its counts by series.
        series: names of the series, from the bottom up.
        title: description of the plot for people who cannot see it.
    """
    most = max((sum(counts.values()) for _, counts in slots), default=0) or 1
    scale = (_HEIGHT - _BOTTOM - _TOP) / most
    step = (_WIDTH - _LEFT) / max(len(slots), 12)
    parts, colours = [_axis(most, scale)], colours_of(series)
    for place, (label, counts) in enumerate(slots):
        x, y = _LEFT + place * step, float(_HEIGHT - _BOTTOM)
        for name, colour in zip(series, colours, strict=True):
            if not (count := counts.get(name, 0)):
                continue
            height = count * scale
            y -= height
            parts.append(
                Markup(
                    '<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill="{}"><title>{}</title></rect>'
                ).format(x + 1, y, max(step - 2, 1), height, colour, f"{label} {name}: {count}")
            )
        if place % max(1, len(slots) // 6) == 0 and x <= _WIDTH - _LABEL / 2:
            anchor, at = ("end", _WIDTH) if x > _WIDTH - _LABEL else ("start", x + 1)
            parts.append(
                Markup('<text x="{:.1f}" y="{}" text-anchor="{}" class="tick">{}</text>').format(
                    at, _HEIGHT - 8, anchor, _short(label)
                )
            )
    return _svg(parts, _HEIGHT, title)


def bars(counts: Sequence[tuple[str, int]], title: str) -> Markup:
    """Draw a horizontal bar chart, with the name and the count of every bar.

    Args:
        counts: names and counts, from the top down.
        title: description of the plot for people who cannot see it.
    """
    most = max((count for _, count in counts), default=0) or 1
    parts = []
    for place, (name, count) in enumerate(counts):
        y, width = place * 22, count / most * (_WIDTH - 300)
        parts.append(
            Markup(
                '<text x="190" y="{}" text-anchor="end">{}</text>'
                '<rect x="198" y="{}" width="{:.1f}" height="14" fill="{}"/><text x="{:.1f}" y="{}">{:,}</text>'
            ).format(y + 15, name, y + 4, width, COLOURS[0], 204 + width, y + 15, count)
        )
    return _svg(parts, 22 * max(len(counts), 1), title)


def colours_of(series: Sequence[str]) -> list[str]:
    """Return the colour of every series of a plot: an outcome has a fixed colour, other series get the next in turn."""
    return [_of_outcome(name) or COLOURS[number % len(COLOURS)] for number, name in enumerate(series)]


def legend(series: Sequence[str]) -> list[tuple[str, Markup]]:
    """Return the legend of a plot: the name of every series with a small square in its colour, as SVG."""
    square = Markup(
        '<svg class="swatch" viewBox="0 0 10 10" aria-hidden="true"><rect width="10" height="10" fill="{}"/></svg>'
    )
    return [(name, square.format(colour)) for name, colour in zip(series, colours_of(series), strict=True)]


def _of_outcome(name: str) -> str | None:
    outcome = name.removeprefix(_WOULD)
    if outcome not in set(Outcome):
        return None
    return OUTCOME_COLOURS[Outcome(outcome)] + (_TINT if name != outcome else "")


def _axis(most: int, scale: float) -> Markup:
    base = _HEIGHT - _BOTTOM
    lines = [Markup('<line x1="{0}" y1="{1}" x2="{2}" y2="{1}" class="axis"/>').format(_LEFT, base, _WIDTH)]
    for value in sorted({most, most // 2} - {0}):
        y = base - value * scale
        lines.append(
            Markup(
                '<line x1="{0}" y1="{1:.1f}" x2="{2}" y2="{1:.1f}" class="grid"/>'
                '<text x="{3}" y="{4:.1f}" text-anchor="end" class="tick">{5:,}</text>'
            ).format(_LEFT, y, _WIDTH, _LEFT - 6, y + 4, value)
        )
    return Markup("").join(lines)


def _short(label: str) -> str:
    if len(label) == len("2026-01-01"):
        return label[5:]
    return f"{label[5:10]} {label[11:]}h" if len(label) == len("2026-01-01T00") else label


def _svg(parts: Sequence[Markup], height: int, title: str) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _WIDTH, height, title, Markup("").join(parts)
    )
