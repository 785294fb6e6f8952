"""The paper's way of asking: one image and all categories in one prompt, answered in free text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dnp_guard.vlm.local.generated import TextBackend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

MOST_TOKENS = 64


class FreeTextBackend(TextBackend):
    """VL-DNP's question (arXiv 2510.26052): which of the categories are visible; those that the answer names are seen.

    A baseline to measure against: its answers are 0 or 1, and one category can talk over another.
    """

    prompt = "which of these are visible in this image ? {}"

    def ask(self, images: Sequence[Image], questions: Sequence[str]) -> list[list[float]]:
        """1 for each category that is named, shape [images, questions].

        Args:
            images: each gets a prompt of its own.
            questions: names of the categories.
        """
        prompt = self.prompt.format(" , ".join(questions))
        said = [self.say(image, prompt, MOST_TOKENS) for image in images]
        return [[float(bool(re.search(rf"\b{re.escape(name)}\b", text))) for name in questions] for text in said]
