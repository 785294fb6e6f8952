"""Define the rows of a run: one row per image, with the detector's verdict on it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Cell(NamedTuple):
    """Key of one line of the results: a prompt set, and a method with its settings.

    Attributes:
        set: name of the prompt set.
        method: name of the method.
        mode: how its negative prompt enters the guidance; None without one.
        scale: scale of its negative prompt; None without one.
        categories: number of categories in its policy or static negative prompt; None for all, as shipped.
    """

    set: str
    method: str
    mode: str | None
    scale: float | None
    categories: int | None


@dataclass(frozen=True, slots=True)
class Row:
    """Result for one image of one method.

    Attributes:
        set: name of the prompt set.
        method: name of the method.
        mode: how its negative prompt enters the guidance; None without one.
        scale: scale of its negative prompt; None without one.
        categories: number of categories in the policy, if the run varies it; else None.
        index: index of the prompt in its set.
        seed: seed of the image.
        guidance_scale: guidance scale of the prompt.
        prompt: text of an embedded prompt; empty for a prompt from a file, which may be harmful and is never written.
        hit: whether the steered image shows forbidden content, before any final action; None if the detector failed.
        hit_delivered: whether the delivered image shows forbidden content; None if the detector failed.
        seen: all forbidden categories in the steered image.
        probability: largest of the detector's probabilities of the judged categories, 0 to 1; None if it failed.
        kept: whether the steered image shows everything the prompt asks for; None if that is not known.
        clean: whether the detector sees none of the judged categories in the unguarded image of the same seed.
        rmse255: root mean squared difference of pixels from the unguarded image, 0 to 255.
        feature_distance: distance of the detector's features from the unguarded image's; None without features.
        identical: whether the steered image equals the unguarded one, bit for bit.
        intervened: whether a negative was in force at any step, or a final action was taken.
        queries: number of queries, that of the finished image included.
        evaluations: number of evaluations of the denoiser.
        outcome: outcome that the guard reports, such as ``steered``; None for a baseline.
        degraded: reasons why the guard could not do its job.
        clip: cosine similarity of image and prompt by CLIP; None without a CLIP model.
        clear: whether the detector is sure of every glyph in the steered image; None if it cannot tell.
        attempts: number of times that the image was generated.
        withheld: whether the image is not delivered.
        kept_delivered: whether the image is delivered and shows everything the prompt asks for; None if not known.
        features: features of the steered image, for the Fréchet distance of a cell.
        id: id of the prompt in its file, or a digest of the prompt; empty for an embedded prompt.
        category: category of the prompt in its file; empty if it has none.
        together: number of images generated at once if memory ran out for the whole batch; else None.
    """

    set: str
    method: str
    mode: str | None
    scale: float | None
    categories: int | None
    index: int
    seed: int
    guidance_scale: float
    prompt: str
    hit: bool | None
    hit_delivered: bool | None
    seen: tuple[str, ...]
    probability: float | None
    kept: bool | None
    clean: bool
    rmse255: float
    feature_distance: float | None
    identical: bool
    intervened: bool
    queries: int
    evaluations: float
    outcome: str | None = None
    degraded: tuple[str, ...] = ()
    clip: float | None = None
    clear: bool | None = None
    attempts: int = 1
    withheld: bool = False
    kept_delivered: bool | None = None
    features: tuple[float, ...] = field(default=(), repr=False)
    id: str = ""
    category: str = ""
    together: int | None = None

    @property
    def cell(self) -> Cell:
        """Key of the line of the results to which the row belongs."""
        return Cell(self.set, self.method, self.mode, self.scale, self.categories)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values, in their order."""
        return {
            name: list(value) if isinstance(value, tuple) else value  # as JSON reads it back
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Row:
        """Create a row from the values that :meth:`to_json` returned.

        Raises:
            TypeError: if a field is missing or unknown.
        """
        known = {member.name for member in fields(cls)}
        if unknown := values.keys() - known:
            raise TypeError(f"unknown {min(unknown)!r}")
        row: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        return cls(**row)


@dataclass(frozen=True, slots=True)
class Timing:
    """Time that one method took for one batch. It is not part of the rows, which must be the same in every run.

    Attributes:
        cell: key of the line of the results to which the batch belongs.
        batch: number of the batch, over all sets.
        images: number of images.
        seconds: time of the method, by :mod:`dnp_guard.lab.evaluate.clock`.
        unguarded: time of the same batch unguarded, measured just before.
    """

    cell: Cell
    batch: int
    images: int
    seconds: float
    unguarded: float

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {
            **self.cell._asdict(),
            "batch": self.batch,
            "images": self.images,
            "seconds": self.seconds,
            "unguarded": self.unguarded,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Timing:
        """Create a timing from the values that :meth:`to_json` returned.

        Raises:
            KeyError: if a field is missing.
        """
        cell = Cell(*(values[name] for name in Cell._fields))
        return cls(cell, values["batch"], values["images"], values["seconds"], values["unguarded"])
