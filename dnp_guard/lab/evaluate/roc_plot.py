"""Draw ROC curves as an SVG."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dnp_guard.lab.evaluate.calibration import Calibration

_SIDE, _MARGIN, _LEGEND = 360, 48, 300
_COLOURS = ("#0b6e99", "#c0392b", "#27763d", "#8e44ad", "#b9770e", "#34495e", "#d35483", "#117a65")


def draw_roc(title: str, calibrations: Mapping[str, Sequence[Calibration]]) -> str:
    """Draw one ROC curve per category and range of denoising progress, with its AUC in the legend, as an SVG document.

    Args:
        title: one line of text.
        calibrations: calibrations per category, one per range of progress.
    """
    curves = [(name, part) for name, ranges in calibrations.items() for part in ranges if part.roc]
    parts = [_frame(title, len(curves))]
    for number, (name, part) in enumerate(curves):
        colour = _COLOURS[number % len(_COLOURS)]
        points = " ".join(f"{_MARGIN + x * _SIDE:.1f},{_MARGIN + (1 - y) * _SIDE:.1f}" for x, y in part.roc)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        label = f"{name}, {part.begin:g} to {part.end:g}: AUC {part.auc:.3f}"
        y = _MARGIN + 16 + 18 * number
        parts.append(f'<text x="{_MARGIN + _SIDE + 16}" y="{y}" fill="{colour}">{escape(label)}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _frame(title: str, curves: int) -> str:
    width, height = _SIDE + 2 * _MARGIN + _LEGEND, max(_SIDE, 18 * curves) + 2 * _MARGIN
    low = _MARGIN + _SIDE
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
        f'font-size="13">\n<rect width="100%" height="100%" fill="white"/>\n'
        f'<text x="{_MARGIN}" y="28" font-size="15">{escape(title)}</text>\n'
        f'<rect x="{_MARGIN}" y="{_MARGIN}" width="{_SIDE}" height="{_SIDE}" fill="none" stroke="#888"/>\n'
        f'<path d="M{_MARGIN} {low}L{low} {_MARGIN}" stroke="#ccc" stroke-dasharray="4"/>\n'
        f'<text x="{_MARGIN}" y="{low + 20}">false positive rate, 0 to 1</text>\n'
        f'<text transform="translate({_MARGIN - 12} {low}) rotate(-90)">true positive rate, 0 to 1</text>'
    )
