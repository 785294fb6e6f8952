"""Judge finished images with a vision-language model: any backend, with the questions of a policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnp_guard.lab.evaluate.detectors.base import Detection
from dnp_guard.policy import questions
from dnp_guard.vlm.base import as_backend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

    from dnp_guard.policy import Policy
    from dnp_guard.vlm.base import Asked


class VlmDetector:
    """Detector that asks a policy's questions; its model must not be the guard's, which would judge itself.

    Args:
        backend: backend that answers the questions.
        policy: policy with the questions.
    """

    threshold = 0.5

    def __init__(self, backend: Asked, policy: Policy) -> None:
        self._backend, self._questions = as_backend(backend), questions(policy)
        info = self._backend.info
        self.name, self.version = f"vlm:{info.name}", f"{info.revision[:12]} {policy.digest[:12]}"
        self.categories = tuple(category.id for category in policy.categories)

    def look(self, images: Sequence[Image]) -> list[Detection]:
        """Return one detection per image; the probability of a category is the maximum over its terms."""
        answers = self._backend.ask(images, [question.text for question in self._questions])
        detections = []
        for row in answers:
            probabilities = dict.fromkeys(self.categories, 0.0)
            for question, probability in zip(self._questions, row, strict=True):
                probabilities[question.category] = max(probabilities[question.category], float(probability))
            detections.append(Detection(probabilities))
        return detections
