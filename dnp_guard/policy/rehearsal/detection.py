"""What a model detects of a folder of images, with a policy's questions and thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image, UnidentifiedImageError

from dnp_guard.errors import PolicyError, Problem, did_you_mean
from dnp_guard.generation import judge
from dnp_guard.policy.model.questions import negation, questions
from dnp_guard.shown import NotAsShown, as_shown

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dnp_guard.policy.model.policy import Policy
    from dnp_guard.policy.rehearsal.rehearsed import Answer
    from dnp_guard.types import Question
    from dnp_guard.vlm.base import Backend

CLEAN = "clean"
"""The folder of images that show nothing of the policy."""

_ENDINGS = frozenset({".jpeg", ".jpg", ".png", ".webp"})


@dataclass(frozen=True, slots=True)
class DetectionRate:
    """How often one category was seen.

    Attributes:
        category: its id.
        images: in the folder of the category.
        seen: of those.
        others: images of other folders.
        false_alarms: of those.
        missed: files of the category's own folder in which it was not seen.
        alarmed: files of other folders in which it was.
    """

    category: str
    images: int
    seen: int
    others: int
    false_alarms: int
    missed: tuple[str, ...] = ()
    alarmed: tuple[str, ...] = ()

    def __str__(self) -> str:
        return (
            f"{self.category}: seen in {self.seen} of {self.images}, "
            f"false alarms in {self.false_alarms} of {self.others} others"
        )


def looking_at(path: Path, backend: Backend) -> Answer:
    """Answers about an image file.

    Raises:
        PolicyError: there is no such image, or it is shown otherwise than its pixels say.
    """
    picture = _open(path)

    def answer(asked: Sequence[Question]) -> Sequence[float]:
        return backend.ask([picture], [question.text for question in asked])[0]

    return answer


def detect(policy: Policy, backend: Backend, folder: Path) -> tuple[DetectionRate, ...]:
    """Measure detection on images sorted into folders by category.

    Args:
        policy: gives questions and thresholds.
        backend: who is asked.
        folder: holds a folder for each category, named by its id, and perhaps ``clean``.

    Raises:
        PolicyError: a folder is not named after a category, there are none, or an image cannot be read.
    """
    ids = [category.id for category in policy.categories]
    folders = sorted(each for each in folder.iterdir() if each.is_dir()) if folder.is_dir() else []
    wrong = [
        Problem(str(each), 0, 0, "unknown-category", f"no category `{each.name}`.", did_you_mean(each.name, ids))
        for each in folders
        if each.name not in (*ids, CLEAN)
    ]
    if wrong or not folders:
        empty = Problem(str(folder), 0, 0, "unreadable", "no folders of images here.", "Name them after categories.")
        raise PolicyError(wrong or [empty])
    seen = [(file, _found(policy, backend, file)) for each in folders for file in _images(each)]
    return tuple(_count(category, seen) for category in ids)


def _count(category: str, seen: Sequence[tuple[Path, frozenset[str]]]) -> DetectionRate:
    own = [(file, found) for file, found in seen if file.parent.name == category]
    missed = tuple(str(file) for file, found in own if category not in found)
    others = [(file, found) for file, found in seen if file.parent.name != category]
    alarmed = tuple(str(file) for file, found in others if category in found)
    return DetectionRate(
        category, len(own), len(own) - len(missed), len(others), len(alarmed), missed=missed, alarmed=alarmed
    )


def _found(policy: Policy, backend: Backend, path: Path) -> frozenset[str]:
    asked, look = questions(policy), looking_at(path, backend)
    row = look(asked)
    if policy.question.paired:
        row = judge.stricter(row, look([negation(question) for question in asked]))
    return frozenset(finding.category for finding in judge.find(policy, asked, row, final=True)[0])


def _images(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in _ENDINGS)


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            picture.load()
            return as_shown(picture)
    except NotAsShown as error:
        raise PolicyError([Problem(str(path), 0, 0, "unreadable", f"{error.message}.", error.hint)]) from error
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        raise PolicyError(
            [Problem(str(path), 0, 0, "unreadable", "no image that can be read.", "Check the path.")]
        ) from None
