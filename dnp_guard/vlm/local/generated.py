"""A local model that generates its answer as text, for models whose next token is neither yes nor no; it is slower."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from dnp_guard.displayed import as_shown
from dnp_guard.vlm.local.backend import TransformersBackend, own_precision
from dnp_guard.vlm.worded_answers import yes_or_no

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

MOST_TOKENS = 8


class TextBackend(TransformersBackend):
    """Answers 1 or 0, depending on whether the generated text begins with "yes" or "no".

    Decoding is greedy; nothing is sampled. A policy in ``mode: enforce`` must allow text answers with
    ``question: {answer: text}``. Takes the arguments of :class:`~dnp_guard.vlm.local.backend.TransformersBackend`.
    """

    answers = "text"
    least_mass = 0.0

    def ask(self, images: Sequence[Image], questions: Sequence[str]) -> list[list[float]]:
        """Return 1 for "yes" and 0 for "no", shape [images, questions]; see :class:`~dnp_guard.vlm.base.Backend`.

        Raises:
            VlmBadAnswer: the model answers neither yes nor no.
        """
        return [[yes_or_no(self.say(image, question, MOST_TOKENS)) for question in questions] for image in images]

    def say(self, image: Image, question: str, most_tokens: int) -> str:
        """Generate text about one image.

        Args:
            image: opaque, of any size.
            question: the question, which the model's chat template makes into a prompt.
            most_tokens: most tokens to generate.
        """
        shown = as_shown(image)
        reader: Any = self.reader
        with self._turn, torch.inference_mode(), own_precision(reader.model.device):
            inputs = reader.encode([(shown, reader.prompt(question))])
            tokens = reader.model.generate(**inputs, max_new_tokens=most_tokens, do_sample=False)
        answer = tokens[0, inputs["input_ids"].shape[1] :]
        return str(reader.processor.tokenizer.decode(answer, skip_special_tokens=True))
