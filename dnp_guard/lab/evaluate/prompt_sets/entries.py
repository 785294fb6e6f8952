"""A prompt of an embedded set, as a line of JSON and back."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from dnp_guard.glyphs.scene import Glyph
from dnp_guard.lab.world.captions import Prompt


@dataclass(frozen=True, slots=True)
class Entry:
    """A prompt with the noise that its image is made from.

    Attributes:
        prompt: what is asked for, and what an image of it should show.
        seed: of the noise.
        guidance_scale: where the prompt has one of its own; the embedded sets have none.
        id: of a prompt that must not be written down; empty for an embedded one.
        category: as the prompt's file has it.
        picture: file of the picture that a model is to edit.
    """

    prompt: Prompt
    seed: int
    guidance_scale: float | None = None
    id: str = ""
    category: str = ""
    picture: str = ""


def to_line(entry: Entry) -> str:
    """One line of JSON, without its end; what is at its default is left out."""
    values: dict[str, Any] = {"text": entry.prompt.text, "seed": entry.seed, "place": entry.prompt.place}
    if entry.prompt.requested:
        values["wanted"] = [
            {key: value for key, value in asdict(glyph).items() if value} for glyph in entry.prompt.requested
        ]
    if entry.prompt.forbidden:
        values["forbidden"] = entry.prompt.forbidden
    if entry.guidance_scale is not None:
        values["guidance_scale"] = entry.guidance_scale
    return json.dumps(values)


def from_line(line: str) -> Entry:
    """Read one line of JSON."""
    values = json.loads(line)
    wanted = tuple(Glyph(**glyph) for glyph in values.get("wanted", ()))
    prompt = Prompt(values["text"], values["place"], wanted, tuple(values.get("forbidden", ())))
    return Entry(prompt, values["seed"], values.get("guidance_scale"))
