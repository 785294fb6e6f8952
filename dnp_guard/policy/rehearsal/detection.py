"""Measure what a model detects in folders of images, with a policy's questions and thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image, UnidentifiedImageError

from dnp_guard.displayed import NotAsShown, as_shown
from dnp_guard.errors import PolicyError, Problem, did_you_mean
from dnp_guard.generation import judge
from dnp_guard.policy.model.questions import negation, questions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dnp_guard.policy.model.policy import Policy
    from dnp_guard.policy.rehearsal.judging import Answer
    from dnp_guard.types import Question
    from dnp_guard.vlm.base import Backend

CLEAN = "clean"
"""Name of the folder of images that show no category of the policy."""

_ENDINGS = frozenset({".jpeg", ".jpg", ".png", ".webp"})


@dataclass(frozen=True, slots=True)
class DetectionRate:
    """How often a backend found one category, in images that show it and in others.

    Attributes:
        category: id of the category.
        images: number of images in the category's folder.
        seen: number of those in which it was found.
        others: number of images in other folders.
        false_alarms: number of those in which it was found.
        missed: files in the category's folder in which it was not found.
        alarmed: files in other folders in which it was found.
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


def answers_about(path: Path, backend: Backend) -> Answer:
    """Return a function that answers questions about an image file.

    Raises:
        PolicyError: the image cannot be read, or programs may display it differently, for example rotated.
    """
    picture = _open(path)

    def answer(asked: Sequence[Question]) -> Sequence[float]:
        return backend.ask([picture], [question.text for question in asked])[0]

    return answer


def detect(policy: Policy, backend: Backend, folder: Path) -> tuple[DetectionRate, ...]:
    """Measure detection on images sorted into folders by category.

    Args:
        policy: supplies questions and thresholds.
        backend: backend to query.
        folder: contains one folder per category, named by its id, and optionally ``clean``.

    Raises:
        PolicyError: a folder is not named after a category, there are no folders, or an image cannot be read.
    """
    ids = [category.id for category in policy.categories]
    folders = sorted(subfolder for subfolder in folder.iterdir() if subfolder.is_dir()) if folder.is_dir() else []
    wrong = [
        Problem(
            str(subfolder),
            0,
            0,
            "unknown-category",
            f"no category `{subfolder.name}`.",
            did_you_mean(subfolder.name, ids),
        )
        for subfolder in folders
        if subfolder.name not in (*ids, CLEAN)
    ]
    if wrong or not folders:
        empty = Problem(str(folder), 0, 0, "unreadable", "no folders of images here.", "Name them after categories.")
        raise PolicyError(wrong or [empty])
    seen = [(file, _found(policy, backend, file)) for subfolder in folders for file in _images(subfolder)]
    return tuple(_count(category, seen) for category in ids)


def _count(category: str, seen: Sequence[tuple[Path, frozenset[str]]]) -> DetectionRate:
    own = [(file, categories) for file, categories in seen if file.parent.name == category]
    missed = tuple(str(file) for file, categories in own if category not in categories)
    others = [(file, categories) for file, categories in seen if file.parent.name != category]
    alarmed = tuple(str(file) for file, categories in others if category in categories)
    return DetectionRate(
        category, len(own), len(own) - len(missed), len(others), len(alarmed), missed=missed, alarmed=alarmed
    )


def _found(policy: Policy, backend: Backend, path: Path) -> frozenset[str]:
    asked, answer = questions(policy), answers_about(path, backend)
    row = answer(asked)
    if policy.question.paired:
        row = judge.stricter(row, answer([negation(question) for question in asked]))
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
