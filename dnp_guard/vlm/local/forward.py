"""Answer questions about images in batched forward passes, as the log odds of "yes" against "no".

The processor's chat template renders one user message, an image and a question, and the model's next token answers.
There are two ways through the model:

- :func:`plain` computes one whole sequence of tokens per image and question, and works for every model.
- :class:`SharedImage` computes the part of the sequence up to the image once per image, and the rest once per question.
  It is used if a trial at construction shows that it gives the same answers.
"""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from dnp_guard.vlm.local.forms import PLAIN
from dnp_guard.vlm.worded_answers import noise

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from PIL.Image import Image
    from transformers import BatchFeature, PreTrainedModel, ProcessorMixin

    from dnp_guard.vlm.local.forms import Form

T = TypeVar("T")


@dataclass(frozen=True)
class Reader:
    """A vision-language model, its processor, and the tokens of the two answers.

    Attributes:
        model: any ``AutoModelForImageTextToText``.
        processor: its ``AutoProcessor``, with a chat template.
        yes: ids of every token that spells "yes".
        no: ids of every token that spells "no".
        rows: most image-question pairs per forward pass.
        form: the prompt format.
        least_mass: least probability that the two answers must have together, so that their ratio is not noise.
    """

    model: PreTrainedModel
    processor: ProcessorMixin
    yes: tuple[int, ...]
    no: tuple[int, ...]
    rows: int
    form: Form = PLAIN
    least_mass: float = 0.5

    def prompt(self, question: str) -> str:
        """Render the chat template: a user message, the image before the question, and the start of the answer."""
        content = [{"type": "image"}, {"type": "text", "text": self.form.ask(self._harmless(question))}]
        conversation = [{"role": "user", "content": content}]
        # transformers logs a warning for a variable that the template does not have.
        thinking = {"enable_thinking": False} if "enable_thinking" in str(self.processor.chat_template) else {}
        rendered = self.processor.apply_chat_template(
            conversation, add_generation_prompt=self.form.turn, tokenize=False, **thinking
        )
        return f"{rendered}{self.form.start}"

    def _harmless(self, question: str) -> str:
        """Remove control tokens from a question, because they could end the user's turn or begin another image."""
        tokenizer = self.processor.tokenizer
        added = {str(token) for token in getattr(tokenizer, "added_tokens_decoder", {}).values()}
        control = sorted((token for token in added if not token.isalnum() and token.strip()), key=len, reverse=True)
        while any(token in question for token in control):
            for token in control:
                question = question.replace(token, " ")
        return question

    def encode(self, pairs: Sequence[tuple[Image, str]]) -> BatchFeature:
        """Encode (image, prompt) pairs as model inputs, padded on the left."""
        prompts = [prompt for _, prompt in pairs]
        bos = self.processor.tokenizer.bos_token
        inputs = self.processor(
            text=prompts,
            images=[[image] for image, _ in pairs],
            padding=True,
            padding_side="left",
            # A template that writes the first token itself must not get another one.
            add_special_tokens=not (bos and prompts[0].startswith(bos)),
            return_tensors="pt",
        )
        inputs.pop("labels", None)  # PaliGemma's, for training
        return inputs.to(self.model.device, dtype=self.model.dtype)

    def logits(self, keep: int | torch.Tensor, **inputs: Any) -> tuple[torch.Tensor, Any]:
        """Run the model; return its logits [rows, kept positions, vocabulary] and its key-value cache.

        Args:
            keep: how many last positions to keep, or which positions.
            inputs: the model's inputs.
        """
        if "logits_to_keep" in inspect.signature(self.model.forward).parameters:
            output = self.model(**inputs, logits_to_keep=keep)
            return output.logits, output.get("past_key_values")
        output = self.model(**inputs)
        at = slice(-keep, None) if isinstance(keep, int) else keep
        return output.logits[:, at], output.get("past_key_values")

    def log_odds(self, logits: torch.Tensor) -> torch.Tensor:
        """Return log(Σ p(yes tokens) / Σ p(no tokens)) of next-token logits [..., vocabulary].

        The denominator of the softmax cancels out of the ratio.

        Raises:
            VlmBadAnswer: most of the probability is on other tokens.
        """
        logits = logits.float()
        yes, no = (logits[..., list(tokens)].logsumexp(-1) for tokens in (self.yes, self.no))
        mass = float((torch.logaddexp(yes, no) - logits.logsumexp(-1)).min().exp())
        if mass < self.least_mass:
            raise noise(f'"{self.form.yes}" and "{self.form.no}"', mass)
        return yes - no


def plain(reader: Reader, images: Sequence[Image], questions: Sequence[str]) -> torch.Tensor:
    """Return the log odds of "yes", float32 on the CPU, shape [images, questions], from one sequence per pair."""
    prompts = [reader.prompt(question) for question in questions]
    odds = []
    for pairs in _batches([(image, prompt) for image in images for prompt in prompts], reader.rows):
        logits, _ = reader.logits(1, **reader.encode(pairs), use_cache=False)
        odds.append(reader.log_odds(logits[:, -1]))
    return torch.cat(odds).reshape(len(images), len(questions)).cpu()


class SharedImage:
    """Computes an image once for all questions, and continues from the key-value cache at the image's end.

    The rest of the token sequence, which differs between questions, is padded on the right: later tokens cannot change
    earlier ones, so positions and masks stay as they are. Text before the image, such as a system prompt, is the same
    in every query, and is computed only once with ``prefix``.

    Args:
        reader: the model.
        example: any image; every image must become as many tokens as this one.
        prefix: whether to keep the cache of the text before the image.

    Raises:
        ValueError: the model needs more inputs than one sequence of tokens and one block of pixels per image.
    """

    def __init__(self, reader: Reader, example: Image, *, prefix: bool = True) -> None:
        self.reader = reader
        inputs = reader.encode([(example, reader.prompt("?"))])
        if set(inputs) - {"attention_mask"} != {"input_ids", "pixel_values"}:
            raise ValueError(f"this model also takes {sorted(inputs)}")
        self._pixels = inputs["pixel_values"].shape[1:]
        row = inputs["input_ids"][0]
        image = (row == reader.model.config.image_token_id).nonzero()
        end = int(image.max()) + 1
        self._start = row[:end]
        self._known = int(image.min()) if prefix else 0
        self._prefix = self._read(row[None, : self._known]) if self._known else None

        @lru_cache(maxsize=4096)
        def rest(question: str) -> torch.Tensor:
            ids: torch.Tensor = reader.encode([(example, reader.prompt(question))])["input_ids"][0]
            if not torch.equal(ids[:end], row[:end]):
                raise ValueError("the template puts the question before the image")
            return ids[end:]

        self._rest = rest

    def __call__(self, images: Sequence[Image], questions: Sequence[str]) -> torch.Tensor:
        """Return the log odds of "yes", float32 on the CPU, shape [images, questions].

        Raises:
            ValueError: an image becomes a different number of tokens than the example.
        """
        rests = [self._rest(question) for question in questions]
        size = max(1, self.reader.rows // len(questions))
        return torch.cat([self._batch(batch, rests) for batch in _batches(images, size)]).cpu()

    def _batch(self, images: Sequence[Image], rests: Sequence[torch.Tensor]) -> torch.Tensor:
        reader = self.reader
        # Pixels of the same shape become the same tokens, so the text need not be encoded again.
        pixels = reader.processor.image_processor(list(images), return_tensors="pt")["pixel_values"]
        if len(pixels) != len(images) or pixels.shape[1:] != self._pixels:
            raise ValueError("an image that is read as another number of tokens")
        start = self._start.expand(len(images), -1)
        cache = self._read(start[:, self._known :], pixel_values=pixels.to(reader.model.device, reader.model.dtype))
        groups = list(_batches(rests, max(1, reader.rows // len(images))))
        # A forward pass writes into the cache it is given.
        caches = [cache, *(copy.deepcopy(cache) for _ in groups[1:])]
        return torch.cat([self._questions(*pair, len(images)) for pair in zip(groups, caches, strict=True)], dim=1)

    def _read(self, tokens: torch.Tensor, **pixels: torch.Tensor) -> Any:
        """Return the key-value cache after some tokens; with pixels, continue from the cached text before the image."""
        known: dict[str, Any] = {}
        if pixels and self._prefix is not None:
            known["past_key_values"] = copy.deepcopy(self._prefix)
            known["past_key_values"].batch_repeat_interleave(len(tokens))
        mask = torch.ones(len(tokens), tokens.shape[1] + (self._known if known else 0), dtype=torch.long)
        _, cache = self.reader.logits(
            1, input_ids=tokens, attention_mask=mask.to(tokens.device), use_cache=True, **known, **pixels
        )
        return cache

    def _questions(self, rests: Sequence[torch.Tensor], cache: Any, images: int) -> torch.Tensor:
        """Continue from the images' key-value cache by the rest of every prompt; return log odds [images, rests]."""
        cache.batch_repeat_interleave(len(rests))
        ids = torch.nn.utils.rnn.pad_sequence(list(rests), batch_first=True).repeat(images, 1)
        last = torch.tensor([len(rest) - 1 for rest in rests], device=ids.device).repeat(images)
        positions, column = last.unique(return_inverse=True)
        mask = torch.ones(len(ids), len(self._start) + ids.shape[1], dtype=torch.long, device=ids.device)
        logits, _ = self.reader.logits(
            positions, input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True
        )
        rows = torch.arange(len(ids), device=ids.device)
        return self.reader.log_odds(logits[rows, column]).reshape(images, len(rests))


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
