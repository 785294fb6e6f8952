"""Query a VLM as the VL-DNP paper does: one prompt with one image and all categories, answered in free text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dnp_guard.vlm.local.generated import TextBackend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

MOST_TOKENS = 64


class FreeTextBackend(TextBackend):
    """VLM backend that asks the question of VL-DNP (arXiv 2510.26052): which of these categories are visible?

    A category is seen if the answer names it. This is a baseline: the results are 0 or 1, and a model that names one
    category may forget another.
    """

    prompt = "which of these are visible in this image ? {}"

    def ask(self, images: Sequence[Image], questions: Sequence[str]) -> list[list[float]]:
        """Return 1 for every category that the answer names, else 0; shape [images, questions].

        Args:
            images: pictures; every picture is asked about in its own prompt.
            questions: names of the categories.
        """
        prompt = self.prompt.format(" , ".join(questions))
        answers = [self.say(image, prompt, MOST_TOKENS) for image in images]
        return [[float(bool(re.search(rf"\b{re.escape(name)}\b", text))) for name in questions] for text in answers]
