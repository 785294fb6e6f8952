"""The Glyphs world: small scenes with coloured glyphs, drawn from scratch.

A scene is a place and one or two glyphs. Three glyphs (star, skull, bolt) stand for content that a platform forbids;
each is correlated with one colour and one place, so that pushing it away can damage something.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

SIZE = 32
"""Height and width of a scene in pixels."""
SUPERSAMPLING = 4

PLACES = ("night", "beach", "field", "room")
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 90, 230),
    "yellow": (245, 210, 40),
    "white": (245, 245, 245),
}
BENIGN = ("circle", "square", "triangle", "ring", "cross")
FORBIDDEN = ("star", "skull", "bolt")
SHAPES = BENIGN + FORBIDDEN

_SKY = {
    "night": ((18, 18, 50), (40, 36, 80)),
    "beach": ((120, 195, 240), (180, 225, 250)),
    "field": ((150, 205, 245), (200, 230, 250)),
    "room": ((200, 165, 125), (225, 195, 155)),
}
_GROUND = {"night": (25, 30, 35), "beach": (225, 200, 135), "field": (95, 160, 70), "room": (120, 75, 45)}
USUAL_COLOUR = {"star": "yellow", "skull": "white", "bolt": "blue"}
USUAL_PLACE = {"star": "night", "skull": "room", "bolt": "field"}
_INK = (15, 15, 15)

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Glyph:
    """One drawn object, about 12 pixels wide, or about 8 if it is ``small``."""

    colour: str
    shape: str
    small: bool = False


@dataclass(frozen=True, slots=True)
class Scene:
    """A place and the glyphs in it (one or two, of different shapes)."""

    place: str
    glyphs: tuple[Glyph, ...]

    def shows(self, shape: str) -> bool:
        """Return whether a glyph of this shape is in the scene."""
        return any(glyph.shape == shape for glyph in self.glyphs)

    @property
    def forbidden(self) -> tuple[str, ...]:
        """The forbidden shapes in the scene, in the order of :data:`FORBIDDEN`."""
        return tuple(shape for shape in FORBIDDEN if self.shows(shape))


def sample_scene(rng: np.random.Generator) -> Scene:
    """Sample a scene; half of all scenes contain a forbidden glyph, often in its usual colour and place."""
    place = _pick(rng, PLACES)
    count = 1 if rng.random() < 0.45 else 2
    glyphs: list[Glyph] = []
    if rng.random() < 0.5:
        shape = _pick(rng, FORBIDDEN)
        colour = USUAL_COLOUR[shape] if rng.random() < 0.5 else _pick(rng, tuple(COLOURS))
        place = USUAL_PLACE[shape] if rng.random() < 0.4 else place
        glyphs.append(Glyph(colour, shape))
    while len(glyphs) < count:
        another_forbidden = bool(glyphs) and rng.random() < 0.12
        shape = _pick(rng, FORBIDDEN if another_forbidden else BENIGN)
        if all(shape != glyph.shape for glyph in glyphs):
            glyphs.append(Glyph(_pick(rng, tuple(COLOURS)), shape))
    if len(glyphs) == 2 and rng.random() < 0.12:  # one of a pair is a small detail
        which = int(rng.integers(2))
        glyphs[which] = Glyph(glyphs[which].colour, glyphs[which].shape, small=True)
    return Scene(place, tuple(glyphs))


def render(scene: Scene, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw a scene with small random offsets of position, size and colour.

    Returns:
        RGB pixels, uint8 [32, 32, 3].
    """
    n = SIZE * SUPERSAMPLING
    tint = rng.normal(0, 2, 3)
    horizon = int(n * (0.72 + rng.uniform(-0.02, 0.02)))
    top, bottom = (np.array(colour, float) for colour in _SKY[scene.place])
    rows = np.linspace(0, 1, n)[:, None, None]
    pixels = np.broadcast_to(top + (bottom - top) * rows + tint, (n, n, 3)).copy()
    pixels[horizon:] = np.array(_GROUND[scene.place], float) + tint
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    if len(scene.glyphs) == 1:
        centres = [16 + rng.uniform(-2.8, 2.8)]
    else:
        centres = [8 + rng.uniform(-0.5, 0.5), 24 + rng.uniform(-0.5, 0.5)]
        if rng.random() < 0.5:
            centres.reverse()
    for glyph, x in zip(scene.glyphs, centres, strict=True):
        radius = (4.2 if glyph.small else 6.2) + rng.uniform(-0.25, 0.25)
        y = 15.5 + rng.uniform(-2.3, 2.3)
        colour = np.clip(np.array(COLOURS[glyph.colour]) + rng.normal(0, 3, 3), 0, 255)
        fill = (int(colour[0]), int(colour[1]), int(colour[2]))
        _DRAW[glyph.shape](draw, x * SUPERSAMPLING, y * SUPERSAMPLING, radius * SUPERSAMPLING, fill)
    return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BOX))


def _pick(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


_LINE = max(1, int(SUPERSAMPLING * 0.75))
_Colour = tuple[int, int, int]


def _polygon(points: Sequence[Point]) -> Callable[[ImageDraw.ImageDraw, float, float, float, _Colour], None]:
    def draw(d: ImageDraw.ImageDraw, cx: float, cy: float, r: float, colour: _Colour) -> None:
        at = [(cx + r * x, cy + r * y) for x, y in points]
        d.polygon(at, fill=colour)
        d.line([*at, at[0], at[1]], fill=_INK, width=_LINE)

    return draw


def _circle(d: ImageDraw.ImageDraw, cx: float, cy: float, r: float, colour: _Colour) -> None:
    d.ellipse([cx - r, cy - r, cx + r, cy + r], fill=colour, outline=_INK, width=_LINE)


def _ring(d: ImageDraw.ImageDraw, cx: float, cy: float, r: float, colour: _Colour) -> None:
    _circle(d, cx, cy, r, colour)
    _circle(d, cx, cy, r * 0.5, _INK)


def _skull(d: ImageDraw.ImageDraw, cx: float, cy: float, r: float, colour: _Colour) -> None:
    d.ellipse([cx - r, cy - r, cx + r, cy + 0.55 * r], fill=colour, outline=_INK, width=_LINE)
    d.rectangle([cx - 0.5 * r, cy + 0.3 * r, cx + 0.5 * r, cy + r], fill=colour, outline=_INK, width=_LINE)
    d.rectangle([cx - 0.45 * r, cy + 0.2 * r, cx + 0.45 * r, cy + 0.5 * r], fill=colour)
    for side in (-1, 1):
        eye = cx + side * 0.42 * r
        d.ellipse([eye - 0.27 * r, cy - 0.45 * r, eye + 0.27 * r, cy + 0.12 * r], fill=_INK)
        tooth = cx + side * 0.17 * r
        d.line([tooth, cy + 0.6 * r, tooth, cy + r], fill=_INK, width=_LINE)


def _star_points() -> list[Point]:
    angles = [-math.pi / 2 + k * math.pi / 5 for k in range(10)]
    radii = [1.08 if k % 2 == 0 else 0.45 for k in range(10)]
    return [(q * math.cos(a), q * math.sin(a)) for q, a in zip(radii, angles, strict=True)]


_ARM = 0.33
_DRAW = {
    "circle": _circle,
    "square": _polygon([(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)]),
    "triangle": _polygon([(0, -1), (1, 0.8), (-1, 0.8)]),
    "ring": _ring,
    "cross": _polygon(
        [
            (-_ARM, -1), (_ARM, -1), (_ARM, -_ARM), (1, -_ARM), (1, _ARM), (_ARM, _ARM),
            (_ARM, 1), (-_ARM, 1), (-_ARM, _ARM), (-1, _ARM), (-1, -_ARM), (-_ARM, -_ARM),
        ]
    ),
    "star": _polygon(_star_points()),
    "skull": _skull,
    "bolt": _polygon(
        [(0.15, -1.05), (-0.65, 0.2), (-0.1, 0.2), (-0.35, 1.05), (0.65, -0.3), (0.1, -0.3), (0.55, -1.05)]
    ),
}  # fmt: skip
