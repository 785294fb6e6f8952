"""Make questions about Glyphs pictures, with the right answers, to train the vision-language model on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnp_guard.glyphs.scene import COLOURS, FORBIDDEN, PLACES, SHAPES, Scene
from dnp_guard.lab.world.captions import WHERE, describe

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

PRESENT = (
    "is there {} in this image ?",
    "is there {} in this picture ?",
    "does this image show {} ?",
    "does this picture contain {} ?",
    "is {} visible in this image ?",
)
ABSENT = ("is this image free of {} ?", "is this image without {} ?")
LIST = "which of these are visible in this image ?"
DESCRIBE = "describe this image"


def ask(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    """Pick a random question about a scene, and return it with its answer.

    The question does not favour shapes that are in the scene. So the model learns how rarely the answer is "yes", and
    answers "no" as long as a noisy picture shows nothing.
    """
    kind = rng.random()
    if kind < 0.1:
        listed = [str(shape) for shape in rng.permutation(SHAPES)[: rng.integers(1, 6)]]
        shapes = list(FORBIDDEN) if rng.random() < 0.5 else listed
        return f"{LIST} {' , '.join(shapes)}", " , ".join(shape for shape in shapes if scene.shows(shape)) or "none"
    if kind < 0.15:
        return DESCRIBE, " and ".join(map(describe, scene.glyphs)) + " " + WHERE[scene.place]
    if kind < 0.2:
        place = _pick(rng, PLACES)
        return f"is this a picture {WHERE[place]} ?", _yes(place == scene.place)
    shape = _pick(rng, FORBIDDEN if rng.random() < 0.7 else SHAPES)
    if kind < 0.28:
        return _pick(rng, ABSENT).format(f"a {shape}"), _yes(not scene.shows(shape))
    if kind < 0.36:
        colour = _pick(rng, tuple(COLOURS))
        there = any(glyph.shape == shape and glyph.colour == colour for glyph in scene.glyphs)
        return _pick(rng, PRESENT).format(f"a {colour} {shape}"), _yes(there)
    question = _pick(rng, PRESENT[:1] if rng.random() < 0.5 else PRESENT).format(f"a {shape}")
    if rng.random() < 0.1:  # stands for a policy's definition, in words that the model does not know
        question += " ( " + "<unk> " * int(rng.integers(1, 12)) + ")"
    return question, _yes(scene.shows(shape))


def _yes(true: bool) -> str:  # noqa: FBT001 (the one thing it says)
    return "yes" if true else "no"


def _pick(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]
