"""The drawn diagrams of the explanation: each is a list of boxes and arrows, made into SVG."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

STATIC = Path(__file__).parent / "_static"

_FILL: Final = {"host": "#dbe8f6", "driver": "#fbe9cf", "session": "#d9efdc", "edge": "#f0dff0"}
_STROKE: Final = {"host": "#2f6395", "driver": "#a2660d", "session": "#2b7a3d", "edge": "#7d3f83"}
_INK: Final = "#1d2329"
_GREY: Final = "#5c6670"
_FONT: Final = "font-family='system-ui, sans-serif'"
_MONO: Final = "font-family='ui-monospace, monospace'"


@dataclass(frozen=True, slots=True)
class Box:
    """A box of a diagram; places and sizes in pixels.

    Attributes:
        x: of its left side.
        y: of its upper side.
        width: of the box.
        kind: gives its colours.
        title: code, in the first line.
        lines: what it does, below.
    """

    x: int
    y: int
    width: int
    kind: str
    title: str
    lines: tuple[str, ...] = ()

    @property
    def height(self) -> int:
        """Of the box: a title, and a line each."""
        return 34 + 18 * len(self.lines)

    def svg(self) -> str:
        """The box as SVG."""
        rect = (
            f"<rect x='{self.x}' y='{self.y}' width='{self.width}' height='{self.height}' rx='7' "
            f"fill='{_FILL[self.kind]}' stroke='{_STROKE[self.kind]}' stroke-width='1.5'/>"
        )
        title = _text(self.x + 12, self.y + 22, self.title, size=14, font=_MONO, weight=600)
        rows = [_text(self.x + 12, self.y + 41 + 18 * at, line, size=13) for at, line in enumerate(self.lines)]
        return "\n".join((rect, title, *rows))


def _text(x: int, y: int, text: str, *, size: int = 13, font: str = _FONT, weight: int = 400, fill: str = _INK) -> str:
    return f"<text x='{x}' y='{y}' font-size='{size}' {font} font-weight='{weight}' fill='{fill}'>{escape(text)}</text>"


def _arrow(*points: tuple[int, int], label: str = "", at: tuple[int, int] = (0, 0)) -> str:
    path = " L".join(f"{x} {y}" for x, y in points)
    line = f"<path d='M{path}' fill='none' stroke='{_GREY}' stroke-width='1.6' marker-end='url(#head)'/>"
    return f"{line}\n{_text(*at, label, size=12, fill=_GREY)}" if label else line


def _page(width: int, height: int, title: str, parts: list[str]) -> str:
    head = (
        "<defs><marker id='head' viewBox='0 0 10 10' refX='9' refY='5' markerWidth='7' markerHeight='7' "
        f"orient='auto-start-reverse'><path d='M0 0 L10 5 L0 10 z' fill='{_GREY}'/></marker></defs>"
    )
    opening = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' role='img'>"
    ground = f"<rect width='{width}' height='{height}' fill='#ffffff'/>"
    return "\n".join((opening, f"<title>{escape(title)}</title>", head, ground, *parts, "</svg>\n"))


def loop() -> str:
    """One step of one generation, from the sampler to the record."""
    left, middle, right, wide = 20, 330, 690, 290
    host = Box(left, 70, 270, "host", "scheduler.step", ("the sampler's own step", "→ Step(i, n, σ, x̂0)"))
    step = Box(middle, 70, 300, "driver", "Driver.step(step, view)", ("is a query due?",))
    plan = Box(right, 70, wide, "session", "Session.plan(step)", ("whom to ask, what,", "who is passed over and why"))
    view = Box(left, 180, 270, "edge", "View.pictures()", ("preview/: x̂0 → RGB",))
    query = Box(middle, 180, 300, "driver", "Inquiry.put(plan, pictures)", ("questions about pictures",))
    desk = Box(left, 290, 270, "edge", "Desk.ask → Backend.put", ("vlm/: images × questions", "→ probabilities"))
    answer = Box(
        right, 290, wide, "session", "Session.answered(plan, answer)", ("the judge decides", "→ negatives, events")
    )
    held = Box(
        left, 420, 270, "host", "Held.hold(negatives)", ("steering/: encoded once,", "in force at the next step")
    )
    tell = Box(middle, 440, 300, "driver", "Account.tell(events)", ("records, metrics, spans",))
    log = Box(right, 440, wide, "edge", "audit/ · telemetry/", ("outside the loop",))
    boxes = (host, step, plan, view, query, desk, answer, held, tell, log)
    parts = [
        _text(left, 40, "host and model", size=16, weight=600),
        _text(middle, 40, "driver: the only effects", size=16, weight=600),
        _text(right, 40, "session: pure values", size=16, weight=600),
        *(box.svg() for box in boxes),
        _arrow((290, 96), (330, 96)),
        _arrow((630, 88), (690, 88)),
        _arrow((690, 118), (660, 118), (660, 190), (630, 190), label="Plan", at=(668, 160)),
        _arrow((330, 196), (290, 196)),
        _arrow((290, 216), (330, 216), label="RGB", at=(297, 232)),
        _arrow((400, 232), (400, 312), (290, 312), label="deadline, turn", at=(410, 280)),
        _arrow((290, 338), (470, 338), (690, 338), label="Answer", at=(520, 330)),
        _arrow((760, 360), (760, 395), (310, 395), (310, 440), (290, 440), label="negatives", at=(430, 388)),
        _arrow((840, 360), (840, 412), (480, 412), (480, 440), label="events", at=(560, 428)),
        _arrow((630, 466), (690, 466)),
        _arrow((60, 420), (60, 400), (8, 400), (8, 96), (20, 96), label="next step", at=(66, 408)),
    ]
    return _page(1000, 520, "One step of one generation", parts)


def diagrams() -> dict[Path, str]:
    """Every diagram: file and SVG."""
    return {STATIC / "loop.svg": loop()}
