"""Write a prompt of an embedded set as a line of JSON, and read it back."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from dnp_guard.glyphs.scene import Glyph
from dnp_guard.lab.world.captions import Prompt


@dataclass(frozen=True, slots=True)
class Entry:
    """A prompt with the seed of its image.

    Attributes:
        prompt: the prompt, and the content that an image of it should show.
        seed: seed of the noise.
        guidance_scale: guidance scale of this prompt; None to use the run's, as in the embedded sets.
        id: id that results give in place of the text, which may be harmful; empty for an embedded prompt.
        category: category in the prompt's file; empty if it has none.
        picture: path of the picture to edit; empty if there is none.
    """

    prompt: Prompt
    seed: int
    guidance_scale: float | None = None
    id: str = ""
    category: str = ""
    picture: str = ""


def to_line(entry: Entry) -> str:
    """Return an entry as one line of JSON, without a line end and without fields that have their default value."""
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
    """Read an entry from one line of JSON."""
    values = json.loads(line)
    requested = tuple(Glyph(**glyph) for glyph in values.get("wanted", ()))
    prompt = Prompt(values["text"], values["place"], requested, tuple(values.get("forbidden", ())))
    return Entry(prompt, values["seed"], values.get("guidance_scale"))
