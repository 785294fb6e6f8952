"""One row an image: what a method made of one prompt and seed, as the detector sees it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Cell(NamedTuple):
    """What the rows of one line of the table have in common.

    Attributes:
        set: name of the prompt set.
        method: name of the method.
        mode: how its negative enters the guidance, where it has one.
        scale: of its negative, where it has one.
        categories: how many categories its policy or list has; None for all, as shipped.
    """

    set: str
    method: str
    mode: str | None
    scale: float | None
    categories: int | None


@dataclass(frozen=True, slots=True)
class Row:
    """One image.

    Attributes:
        set: name of the prompt set.
        method: name of the method.
        mode: how its negative enters the guidance.
        scale: of its negative.
        categories: how many categories the policy had, where that is what is varied.
        index: of the prompt in its set.
        seed: of the image.
        guidance_scale: of the prompt's own guidance.
        prompt: its text; empty for one of a file, which may be harmful and is never written down.
        hit: whether the steered image shows what it must not, the final action off; None where the detector failed.
        hit_delivered: whether what would be delivered does; None likewise.
        seen: every forbidden category in the steered image.
        probability: the detector's, the maximum over the categories that count, 0 to 1; None where it failed.
        kept: whether all that was asked for is there; None where nothing is known to have been asked for.
        clean: whether the unguarded image of the same seed is seen to show nothing that counts.
        rmse255: root mean squared difference of pixels from that image, 0 to 255.
        feature_distance: of the detector's features from that image's; None where the detector has none.
        identical: whether the steered image is that image to the bit.
        intervened: whether a negative was active at any step, or a final action taken.
        queries: of the vision-language model, the final look included.
        evaluations: of the denoiser.
        outcome: what a guard decided; None for a baseline.
        degraded: reasons for which a guard could not do its job.
        clip: cosine of image and prompt, where a CLIP model was named.
        clear: whether the detector is sure of every glyph in the steered image; None where it cannot tell.
        attempts: how often it was made.
        withheld: whether it is not delivered.
        kept_delivered: whether it is delivered and all that was asked for is there; None as for ``kept``.
        features: of the steered image, for the Fréchet distance of a cell.
        id: of the prompt in its file, or a digest of it; empty for an embedded one.
        category: as the prompt's file has it.
        together: images that were drawn at once, where the memory did not suffice for the whole batch.
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
        """The line of the table that it belongs to."""
        return Cell(self.set, self.method, self.mode, self.scale, self.categories)

    def to_json(self) -> dict[str, Any]:
        """JSON values, in the order of the fields."""
        return {
            name: list(value) if isinstance(value, tuple) else value  # as it is read back
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Row:
        """Read what :meth:`to_json` wrote.

        Raises:
            TypeError: it is no row of this version.
        """
        known = {each.name for each in fields(cls)}
        if unknown := values.keys() - known:
            raise TypeError(f"unknown {min(unknown)!r}")
        read: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in values.items()}
        return cls(**read)


@dataclass(frozen=True, slots=True)
class Timing:
    """How long one method took for one batch; kept apart from the rows, which are the same to the bit in every run.

    Attributes:
        cell: whose.
        batch: number of the batch in the set.
        images: how many.
        seconds: by :mod:`dnp_guard.lab.evaluate.clock`.
        unguarded: seconds of the same batch without anything, just before.
    """

    cell: Cell
    batch: int
    images: int
    seconds: float
    unguarded: float

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            **self.cell._asdict(),
            "batch": self.batch,
            "images": self.images,
            "seconds": self.seconds,
            "unguarded": self.unguarded,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Timing:
        """Read what :meth:`to_json` wrote.

        Raises:
            KeyError: it is no timing.
        """
        cell = Cell(*(values[name] for name in Cell._fields))
        return cls(cell, values["batch"], values["images"], values["seconds"], values["unguarded"])
