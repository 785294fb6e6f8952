"""Read pictures with known answers, which show whether a backend still answers correctly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnp_guard.policy import questions
from dnp_guard.vlm.canary import Known
from dnp_guard.vlm.labelled import read_labelled

if TYPE_CHECKING:
    from pathlib import Path

    from dnp_guard.policy import Policy


def read_known(images: Path, labels: Path, policy: Policy) -> Known:
    """Read pictures with labels, in the layout of ``dnp-guard vlm calibrate``; sensitive categories are left out.

    Args:
        images: folder of the pictures; the paths in the column ``file`` are relative to it.
        labels: a CSV file with the column ``file``, and a column of 1 or 0 for each category.
        policy: provides the questions, and the thresholds for finished images.

    Raises:
        DnpGuardError: the file or a picture cannot be read, or a label is missing.
    """
    asked = [question for question in questions(policy) if not policy.category(question.category).sensitive]
    names = tuple(dict.fromkeys(question.category for question in asked))
    pictures = read_labelled(images, labels, names)
    return Known(
        tuple(picture.image for picture in pictures),
        tuple(question.text for question in asked),
        tuple(question.category for question in asked),
        tuple(picture.shows for picture in pictures),
        {name: policy.category(name).final_threshold for name in names},
    )
