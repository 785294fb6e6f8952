"""Pictures with known answers, for watching a backend by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnp_guard.policy import questions
from dnp_guard.vlm.canary import Known
from dnp_guard.vlm.labelled import read_labelled

if TYPE_CHECKING:
    from pathlib import Path

    from dnp_guard.policy import Policy


def read_known(images: Path, labels: Path, policy: Policy) -> Known:
    """Read a set of canaries, laid out as for ``dnp-guard vlm calibrate``; sensitive categories are left out.

    Args:
        images: the folder that ``file`` is relative to.
        labels: a CSV file: ``file``, and a column of 1 or 0 for each category.
        policy: gives the questions, and the thresholds of the final look.

    Raises:
        DnpGuardError: the file or a picture cannot be read, or a label is missing.
    """
    asked = [each for each in questions(policy) if not policy.category(each.category).sensitive]
    names = tuple(dict.fromkeys(each.category for each in asked))
    pictures = read_labelled(images, labels, names)
    return Known(
        tuple(each.image for each in pictures),
        tuple(each.text for each in asked),
        tuple(each.category for each in asked),
        tuple(each.shows for each in pictures),
        {name: policy.category(name).final_threshold for name in names},
    )
