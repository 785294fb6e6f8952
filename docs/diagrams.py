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
        lines: of explanation, below the title.
    """

    x: int
    y: int
    width: int
    kind: str
    title: str
    lines: tuple[str, ...] = ()

    @property
    def height(self) -> int:
        """The height of the box, which has room for a title and for each of its lines."""
        return 34 + 18 * len(self.lines)

    def svg(self) -> str:
        """Return the box as SVG."""
        rect = (
            f"<rect x='{self.x}' y='{self.y}' width='{self.width}' height='{self.height}' rx='7' "
            f"fill='{_FILL[self.kind]}' stroke='{_STROKE[self.kind]}' stroke-width='1.5'/>"
        )
        title = _text(self.x + 12, self.y + 22, self.title, size=14, font=_MONO, weight=600)
        rows = [_text(self.x + 12, self.y + 41 + 18 * at, line, size=13) for at, line in enumerate(self.lines)]
        return "\n".join((rect, title, *rows))


def _column(x: int, width: int, rows: list[tuple[int, str, str, tuple[str, ...]]]) -> list[Box]:
    """Return boxes below one another: given their upper side, kind, title and lines."""
    return [Box(x, y, width, kind, title, lines) for y, kind, title, lines in rows]


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
    """Draw one step of one generation, from the sampler to the record."""
    left, middle, right, wide = 20, 330, 690, 290
    host = Box(left, 70, 270, "host", "scheduler.step", ("the sampler's own step", "→ Step(i, n, σ, x̂0)"))
    step = Box(middle, 70, 300, "driver", "Driver.step(step, view)", ("is a query due?",))
    plan = Box(
        right, 70, wide, "session", "Session.plan(step)", ("images to query, questions,", "skipped images with reasons")
    )
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


def deployment() -> str:
    """Draw the service between hosts, people, the model and the places where something is kept."""
    hosts = [
        (70, "host", "A1111, Forge, ComfyUI", ("draw, steer, blur and blank", "as the service says")),
        (180, "host", "engine or your program", ("speaks the same protocol",)),
        (270, "host", "dnp_guard in process", ("guards a pipeline by itself;", "needs no service")),
    ]
    service = [
        (70, "session", "dnp-guard serve", ("workers: sessions, judge,", "receipts, tokens per tenant")),
        (180, "session", "console", ("queue, verdicts, changes", "for people who sign in")),
        (290, "driver", "appeal link", ("one image, one text,", "no sign-in")),
    ]
    kept = [
        (70, "edge", "vision-language model", ("in process, or on a server:", "vLLM, SGLang, transformers")),
        (180, "edge", "session store", ("SQLite, or Redis for", "several machines")),
        (290, "edge", "policies", ("a folder, signed, watched",)),
        (380, "edge", "audit log", ("one chain per replica;", "checkpoints kept elsewhere")),
        (490, "edge", "Prometheus, Grafana", ("/metrics, dashboard, alerts",)),
    ]
    boxes = [*_column(20, 230, hosts), *_column(320, 230, service), *_column(620, 230, kept)]
    parts = [
        _text(20, 40, "hosts", size=16, weight=600),
        _text(320, 40, "service", size=16, weight=600),
        _text(620, 40, "backends and stores", size=16, weight=600),
        *(box.svg() for box in boxes),
        _arrow((250, 92), (320, 92), label="queries", at=(263, 86)),
        _arrow((320, 114), (250, 114), label="words", at=(266, 108)),
        _arrow((250, 205), (285, 205), (285, 130), (320, 130)),
        *(_arrow((550, 105), (585, 105), (585, y), (620, y)) for y in (105, 215, 315, 415, 516)),
        _arrow((435, 180), (435, 140)),
        _arrow((435, 290), (435, 250)),
    ]
    return _page(870, 570, "The guard as a service, with what is around it", parts)


def policy_life() -> str:
    """Draw how a policy comes into force, and how what people say comes back to it."""
    down = [
        (20, "session", "policy init", ("from a template, a pack,", "or one that ships")),
        (120, "session", "policy check", ("every mistake with its", "file, line and column")),
        (220, "session", "policy test", ("answers a model might give,", "and the expected outcomes")),
    ]
    across = [
        (20, "driver", "mode: shadow", ("queries and records;", "alters nothing")),
        (120, "driver", "policy promote", ("effect of enforcing it", "on recorded images")),
        (220, "driver", "policy diff --approve", ("stricter or milder; a milder", "one needs a name, a reason")),
    ]
    up = [
        (20, "host", "watched folder", ("checked, tested, approved", "or signed: else refused")),
        (120, "host", "mode: enforce", ("its digest is in", "every record")),
        (220, "edge", "people's verdicts", ("false alarm, missed, right", "on the console")),
    ]
    boxes = [*_column(20, 230, down), *_column(320, 230, across), *_column(620, 230, up)]
    parts = [
        *(box.svg() for box in boxes),
        *(_arrow((x, y), (x, y + 30)) for x in (135, 435) for y in (90, 190)),
        _arrow((250, 255), (285, 255), (285, 55), (320, 55)),
        _arrow((550, 255), (585, 255), (585, 55), (620, 55)),
        *(_arrow((735, y), (735, y + 30)) for y in (90, 190)),
        _arrow((735, 290), (735, 325), (135, 325), (135, 290), label="policy cases, vlm calibrate", at=(350, 318)),
    ]
    return _page(870, 345, "The life of a policy", parts)


def record_life() -> str:
    """Draw a record from the event to its end."""
    written = [
        (20, "driver", "event", ("of a generation, a policy", "or a person")),
        (120, "session", "recorder", ("redacts the prompt,", "links hash to hash")),
        (220, "edge", "spool", ("if a sink fails; written", "when it works again")),
    ]
    stored = [
        (20, "edge", "sinks", ("JSONL, SQLite, stdout,", "OpenTelemetry, yours")),
        (120, "edge", "checkpoint", ("signed, in a second place,", "within 60 s of a record")),
        (220, "session", "audit verify", ("finds edits at their line;", "a cut tail by a checkpoint")),
    ]
    used = [
        (20, "host", "show, report, export", ("by policy, tenant, category,", "period; replay of one")),
        (120, "host", "hold", ("outranks a purge", "and an erasure")),
        (220, "host", "purge, erase", ("leave tombstones, signed", "like a checkpoint")),
    ]
    boxes = [*_column(20, 230, written), *_column(320, 230, stored), *_column(620, 230, used)]
    parts = [
        *(box.svg() for box in boxes),
        _arrow((135, 90), (135, 120)),
        _arrow((135, 190), (135, 220)),
        _arrow((250, 155), (285, 155), (285, 55), (320, 55)),
        _arrow((250, 255), (300, 255), (300, 70), (320, 70)),
        _arrow((435, 90), (435, 120)),
        _arrow((435, 190), (435, 220)),
        _arrow((550, 55), (620, 55)),
        _arrow((735, 90), (735, 120)),
        _arrow((735, 190), (735, 220)),
        _arrow((620, 255), (550, 255)),
    ]
    return _page(870, 310, "The life of a record", parts)


def diagrams() -> dict[Path, str]:
    """Return every diagram: file and SVG."""
    drawn = {"loop": loop, "deployment": deployment, "policy": policy_life, "record": record_life}
    return {STATIC / f"{name}.svg": draw() for name, draw in drawn.items()}
