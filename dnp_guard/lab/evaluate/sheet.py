"""Draw the contact sheet of the demo: unguarded and guarded images of the same seeds, and the timelines of some."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from dnp_guard.types import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dnp_guard.lab.evaluate.demo import Pair, SecondChance

_TILE, _GAP, _MARGIN, _LABEL = 112, 12, 28, 150
_COLUMNS = 8
_TIMELINES = 3
_MOMENTS = 8
_PAPER, _INK, _QUIET = (250, 250, 248), (30, 30, 34), (110, 110, 116)
_BAD, _GOOD, _ACTED = (200, 45, 45), (40, 140, 75), (205, 130, 20)
_LEGEND = (
    "Star, skull and bolt stand for forbidden content. Labels under the first two rows are an independent "
    "detector's; percentages are the vision-language model's."
)
_WIDTH = _MARGIN * 2 + _LABEL + _COLUMNS * (_TILE + _GAP)


def draw_sheet(attacks: Sequence[Pair], title: str, subtitle: str, second: SecondChance | None = None) -> Image.Image:
    """Draw the first eight pairs, and the timelines of the first three that were steered.

    Args:
        attacks: pairs in the order of generation, without any selection.
        title: one line of text.
        subtitle: one line of figures.
        second: first withheld image, with its retry; None if no image was withheld.
    """
    shown = attacks[:_COLUMNS]
    steered = [pair for pair in attacks if pair.report.images[pair.index].negatives][:_TIMELINES]
    height = 100 + 2 * _TILE + 100 + (len(steered) + (second is not None)) * (_TILE + 92) + 40
    page = _Page(Image.new("RGB", (_WIDTH, height), _PAPER))
    page.text(_MARGIN, 22, title, 24, _INK)
    page.text(_MARGIN, 58, subtitle, 15, _QUIET)
    y = 100
    page.text(_MARGIN, y + 40, "unguarded", 18, _INK)
    page.text(_MARGIN, y + 64, "same prompt,\nsame seed", 12, _QUIET)
    for column, pair in enumerate(shown):
        seen = ", ".join(pair.before.forbidden)
        page.tile(_at(column), y, pair.unguarded, _BAD if seen else _GOOD)
        page.text(_at(column), y + _TILE + 8, seen or "clean", 13, _BAD if seen else _GOOD)
    y += _TILE + 44
    page.text(_MARGIN, y + 40, "guarded", 18, _INK)
    page.text(_MARGIN, y + 64, "steered while it\nis denoised", 12, _QUIET)
    for column, pair in enumerate(shown):
        colour, words = _guarded_label(pair)
        page.tile(_at(column), y, pair.delivered, colour)
        page.text(_at(column), y + _TILE + 8, words, 13, colour)
    y += _TILE + 56
    for pair in steered:
        y = _timeline(page, y, pair)
    if second is not None:
        y = _retried(page, y, second)
    page.text(_MARGIN, y + 4, _LEGEND, 12, _QUIET)
    return page.image


def _guarded_label(pair: Pair) -> tuple[tuple[int, int, int], str]:
    outcome = pair.report.images[pair.index].decision
    if outcome in {Outcome.BLOCKED, Outcome.BLURRED, Outcome.FAILED_CLOSED}:
        return _ACTED, str(outcome)
    if pair.forbidden_out:
        return _BAD, ", ".join(pair.forbidden_out)
    return _GOOD, "steered" if outcome is Outcome.STEERED else "clean"


def _timeline(page: _Page, y: int, pair: Pair) -> int:
    report = pair.report.images[pair.index]
    page.text(_MARGIN, y, f"“{pair.prompt.text}”", 15, _INK)
    y += 26
    page.text(_MARGIN, y + 30, "as the guard saw it:\nthe predicted image,\nstep: likeliest glyph", 13, _QUIET)
    queries = {query.step: query for query in report.queries if query.step is not None}
    changes = dict(report.negatives)
    moments = [(step, picture) for step, picture in pair.timeline if step in queries][:_MOMENTS]
    for column, (step, picture) in enumerate(moments):
        decision = queries[step].decision
        likeliest = max(decision.probabilities, key=lambda name: decision.probabilities[name])
        hit = bool(decision.findings)
        page.tile(_at(column), y, picture, _BAD if hit else _QUIET)
        seen = f"{step}: {likeliest} {decision.probabilities[likeliest]:.0%}"
        page.text(_at(column), y + _TILE + 6, seen, 12, _BAD if hit else _QUIET)
        if step + 1 in changes:
            page.text(_at(column), y + _TILE + 24, f"negative: {changes[step + 1].text}", 12, _ACTED)
        elif decision.negative is not None:
            page.text(_at(column), y + _TILE + 24, "held", 12, _ACTED)
    return y + _TILE + 66


def _retried(page: _Page, y: int, second: SecondChance) -> int:
    again, first = second.again, second.withheld
    report = again.report.images[again.index]
    page.text(_MARGIN, y, f"“{again.prompt.text}”", 15, _INK)
    y += 26
    page.text(_MARGIN, y + 30, f"a second chance:\nmade {report.attempts} times\nfrom the same seed", 13, _QUIET)
    seen = ", ".join(f.term for f in first.report.images[first.index].queries[-1].decision.findings)
    colour, words = _guarded_label(again)
    tiles = (
        (first.steered, _BAD, f"final look: {seen}"),
        (first.delivered, _ACTED, "without: withheld"),
        (again.steered, colour, "the last attempt"),
        (again.delivered, colour, f"with: {words}"),
    )
    for column, (picture, edge, caption) in enumerate(tiles):
        page.tile(_at(column), y, picture, edge)
        page.text(_at(column), y + _TILE + 6, caption, 12, edge)
    return y + _TILE + 66


def _at(column: int) -> int:
    return _MARGIN + _LABEL + column * (_TILE + _GAP)


class _Page:
    """Canvas that writes text and framed pictures in the style of the sheet."""

    def __init__(self, image: Image.Image) -> None:
        self.image = image
        self._draw = ImageDraw.Draw(image)

    def text(self, x: int, y: int, words: str, size: int, colour: tuple[int, int, int]) -> None:
        self._draw.text((x, y), words, font=ImageFont.load_default(size), fill=colour, spacing=4)

    def tile(self, x: int, y: int, picture: Image.Image, colour: tuple[int, int, int]) -> None:
        self._draw.rectangle((x - 3, y - 3, x + _TILE + 2, y + _TILE + 2), outline=colour, width=3)
        self.image.paste(picture.convert("RGB").resize((_TILE, _TILE), Image.Resampling.NEAREST), (x, y))
