"""Run the guard with the evaluation detector in place of its VLM, to bound what a better VLM could achieve."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch

from dnp_guard.errors import DnpGuardError, VlmBadAnswer
from dnp_guard.glyphs.scene import SHAPES
from dnp_guard.lab.evaluate.methods.guarded import Guarded
from dnp_guard.preview.autoencoder import to_tensor
from dnp_guard.vlm.base import Backend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

    from dnp_guard.lab.evaluate.detector import Detector
    from dnp_guard.lab.evaluate.methods.base import Task
    from dnp_guard.policy import Policy


class DetectorBackend(Backend):
    """Backend that answers a question with the evaluation detector's highest probability of the shapes that it names.

    Args:
        detector: the evaluation detector, which no guard outside a comparison may use.
    """

    name = "evaluation detector"
    revision = "embedded"
    batches = True

    def __init__(self, detector: Detector) -> None:
        self._detector = detector

    @torch.no_grad()
    def ask(self, images: Sequence[Image], questions: Sequence[str]) -> list[list[float]]:
        """Return the probability of "yes", shape [images, questions].

        Raises:
            VlmBadAnswer: if a question names no shape.
        """
        named = [
            [SHAPES.index(word) for word in re.findall(r"\w+", question) if word in SHAPES] for question in questions
        ]
        if not all(named):
            raise VlmBadAnswer(
                "a question names no shape of the embedded world", hint=f"Name one: {', '.join(SHAPES)}."
            )
        logits, _, _ = self._detector(to_tensor(list(images)) * 2 - 1)
        return [[float(row[shapes].max()) for shapes in named] for row in logits.sigmoid()]


class Oracle(Guarded):
    """Guard whose queries the evaluation detector answers.

    Args:
        policy: policy to enforce; None for the shipped ``glyphs``.
        scale: guidance scale of the negatives; None for the policy's own.
    """

    def __init__(self, *, policy: Policy | None = None, scale: float | None = None) -> None:
        super().__init__("oracle", policy=policy, scale=scale)

    def backend(self, task: Task) -> Backend:
        """Return a backend that answers with the task's detector.

        Raises:
            DnpGuardError: if the task has no detector.
        """
        if task.detector is None:
            raise DnpGuardError(
                "the oracle needs the evaluation detector", hint="Build the task with detector=load_detector()."
            )
        return DetectorBackend(task.detector)
