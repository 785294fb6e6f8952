"""Any ``AutoModelForImageTextToText`` on this machine, queried for probabilities in one forward pass."""

from __future__ import annotations

import threading
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    Gemma3Processor,
    ShieldGemma2ForImageClassification,
)

from dnp_guard.displayed import as_shown
from dnp_guard.errors import VlmBadAnswer, VlmUnavailable
from dnp_guard.vlm.base import Backend
from dnp_guard.vlm.local import weights
from dnp_guard.vlm.local.forms import PLAIN, TOLD
from dnp_guard.vlm.local.forward import Reader, SharedImage, plain
from dnp_guard.vlm.local.shared_vision import SeenOnce
from dnp_guard.vlm.local.weights import first_line

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

    from dnp_guard.vlm.local.forms import Form
    from dnp_guard.vlm.local.weights import Weights

_TRIAL = ("Is this a picture?", "Is there a red circle in this image? (A circle that is red.)")
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
"""How far the log odds of two equal computations may differ; half precision is coarser."""
_HALF_TOLERANCE = 0.25


class TransformersBackend(Backend):
    """Answers with a vision-language model of Hugging Face transformers.

    The probability is that of the next token being "yes" rather than "no", over every single-token spelling of the two
    words: p = Σ p(yes) / (Σ p(yes) + Σ p(no)). Nothing is generated or sampled. A thinking model is made to answer at
    once, if its chat template supports that. A model that prefers words other than yes or no, even when told to use
    one of them, is refused.

    Nothing is downloaded unless that is allowed; code that comes with a model is never run; weights are safetensors.
    The constructor asks two questions about two pictures. This trial warms up the model, and finds out whether an image
    can be processed only once for all questions.

    Args:
        model: a folder, a hub id that is in the cache, or a (model, processor) pair, which is switched to ``eval()``.
        name: name for the audit record; the folder or id by default.
        device: where to compute; by default a CUDA device, Apple's, or the CPU. A pair stays where it is.
        dtype: type of the weights; by default float32 on the CPU, and the checkpoint's own elsewhere. A pair stays as
            it is.
        revision: a commit, tag or branch of the hub; for a folder, the SHA-256 of its files; see
            :func:`~dnp_guard.vlm.local.weights.digest`.
        batch_size: most image-question pairs per forward pass; lower it if memory runs out.
        allow_download: let the hub fill the cache.
        form: how the model is prompted, and which words are its yes and no.

    Attributes:
        name: name for the audit record.
        revision: the commit of a hub snapshot, or the first 12 digits of the SHA-256 of a folder's files.
        least_mass: least probability that "yes" and "no" must have together, so that their ratio is not noise.
        reader: the model with its processor; it asks the questions.
        shares_images: whether an image is processed only once for all questions; the constructor's trial decides.

    Raises:
        VlmUnavailable: there is no such folder or cached id, no weights or only pickled ones, no processor or chat
            template, or no single token for "yes" or "no"; or the model cannot answer the trial.
    """

    batches = True
    least_mass = 0.5

    def __init__(
        self,
        model: str | Path | tuple[PreTrainedModel, ProcessorMixin],
        *,
        name: str | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        revision: str | None = None,
        batch_size: int = 64,
        allow_download: bool = False,
        form: Form = PLAIN,
    ) -> None:
        if isinstance(model, tuple):
            network, processor = model
            if device is not None or dtype is not None:
                network = network.to(device=device, dtype=dtype)
            files = None
        else:
            files = weights.find(model, revision=revision, allow_download=allow_download)
            network, processor = _load(files, torch.device(device) if device is not None else _best_device(), dtype)
        network, processor = _unwrapped(network, processor)
        config = network.config
        self.name = name or (files.name if files else config.name_or_path or type(network).__name__)
        self.revision = files.revision if files else getattr(config, "_commit_hash", None) or "unknown"
        _require_chat(processor, self.name)
        yes, no = _answers(processor.tokenizer, form, self.name)
        self.reader = Reader(network.eval(), processor, yes, no, max(1, batch_size), form, self.least_mass)
        # Tokenizers and caches are not made for use by two threads at once.
        self._turn = threading.Lock()
        with torch.inference_mode(), own_precision(network.device):
            self._shared = self._trial()

    @property
    def shares_images(self) -> bool:
        """Whether an image is processed only once for all questions."""
        return self._shared is not None

    @property
    def pair(self) -> tuple[PreTrainedModel, ProcessorMixin]:
        """The model and its processor, for another backend of the same model."""
        return self.reader.model, self.reader.processor

    def ask(self, images: Sequence[Image.Image], questions: Sequence[str]) -> list[list[float]]:
        """Return the probability of "yes", shape [images, questions]; see :class:`~dnp_guard.vlm.base.Backend`."""
        if not images or not questions:
            return [[] for _ in images]
        pictures = [as_shown(image) for image in images]
        with self._turn, torch.inference_mode(), own_precision(self.reader.model.device):
            odds = self._shared(pictures, questions) if self._shared else plain(self.reader, pictures, questions)
        answer: list[list[float]] = odds.sigmoid().tolist()
        return answer

    def _trial(self) -> SharedImage | SeenOnce | None:
        """Find the fastest way to process an image once for all questions; None if none keeps the answers the same."""
        pictures = [Image.linear_gradient("L").convert("RGB"), Image.new("RGB", (64, 200), (200, 40, 40))]
        expected = self._expected(pictures)
        tolerance = _TOLERANCE.get(self.reader.model.dtype, _HALF_TOLERANCE)
        ways = (
            lambda: SharedImage(self.reader, pictures[1]),
            lambda: SharedImage(self.reader, pictures[1], prefix=False),
            lambda: SeenOnce(self.reader),
        )
        for way in ways:
            with suppress(Exception):  # whatever went wrong, the plain way works
                shared = way()
                if torch.allclose(shared(pictures, _TRIAL), expected, rtol=0, atol=tolerance):
                    return shared
        return None

    def _expected(self, pictures: Sequence[Image.Image]) -> torch.Tensor:
        """Return the reference answers to the trial questions, computed without sharing anything between questions.

        If the model answers at length, switch to prompts that end with "Answer with yes or no."
        """
        try:
            return plain(self.reader, pictures, _TRIAL)
        except VlmBadAnswer as error:
            noise = error
        except Exception as error:
            raise VlmUnavailable(
                f"{self.name}: cannot answer a question about a picture: {first_line(error)}",
                hint="Use a model of AutoModelForImageTextToText whose chat template takes an image and a text.",
            ) from error
        if self.reader.form == PLAIN:
            instructed = replace(self.reader, form=TOLD)
            with suppress(VlmBadAnswer):
                expected = plain(instructed, pictures, _TRIAL)
                self.reader = instructed
                return expected
        raise VlmUnavailable(f"{self.name}: {noise.message}", hint=noise.hint) from noise


def own_precision(device: torch.device) -> AbstractContextManager[object]:
    """Turn off autocast, which a host may have enabled in this thread and which would change the answers."""
    available = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if available else nullcontext()


def _best_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _load(files: Weights, device: torch.device, dtype: torch.dtype | None) -> tuple[PreTrainedModel, ProcessorMixin]:
    try:
        processor = AutoProcessor.from_pretrained(files.folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:
        raise VlmUnavailable(
            f"{files.name}: no processor can be made from it: {first_line(error)}",
            hint="Save the processor beside the model: AutoProcessor.from_pretrained(…).save_pretrained(folder).",
        ) from error
    try:
        network, report = _class(files).from_pretrained(
            files.folder,
            dtype=dtype or (torch.float32 if device.type == "cpu" else "auto"),
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:
        raise VlmUnavailable(
            f"{files.name}: cannot be loaded: {first_line(error)}",
            hint="It must be a complete AutoModelForImageTextToText, of a kind that this transformers knows.",
        ) from error
    if missing := sorted(report["missing_keys"]):
        raise VlmUnavailable(
            f"{files.name}: {len(missing)} weights are missing, {missing[0]} first; it would answer at random",
            hint="Copy or download the whole model.",
        )
    return network.to(device), processor


def _class(files: Weights) -> Any:
    """Return the class to load a model with. ShieldGemma 2 is registered as an image classifier, unlike the others."""
    kind = AutoConfig.from_pretrained(files.folder, local_files_only=True, trust_remote_code=False).model_type
    return ShieldGemma2ForImageClassification if kind == "shieldgemma2" else AutoModelForImageTextToText


def _unwrapped(network: PreTrainedModel, processor: ProcessorMixin) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Return the vision-language model in ShieldGemma 2, with a processor that accepts a prompt; others unchanged."""
    if not isinstance(network, ShieldGemma2ForImageClassification):
        return network, processor
    return network.model, Gemma3Processor(
        processor.image_processor,
        processor.tokenizer,
        chat_template=processor.chat_template,
        image_seq_length=processor.image_seq_length,
    )


def _require_chat(processor: ProcessorMixin, name: str) -> None:
    lacking = [part for part in ("image_processor", "tokenizer") if getattr(processor, part, None) is None]
    if lacking:
        raise VlmUnavailable(
            f"{name}: its processor has no {' and no '.join(lacking)}",
            hint="Save the model's whole processor beside it, not its tokenizer alone.",
        )
    if not getattr(processor, "chat_template", None):
        raise VlmUnavailable(
            f"{name}: its processor has no chat template, so a question cannot be put to it",
            hint="Use an instruction-tuned checkpoint, or set processor.chat_template and save it.",
        )


def _answers(tokenizer: PreTrainedTokenizerBase, form: Form, name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the ids of the tokens that mean yes, and of those that mean no."""
    if form.whole:
        return _spellings(tokenizer, form.yes, name), _spellings(tokenizer, form.no, name)
    yes, no = (_first_tokens(tokenizer, word) for word in (form.yes, form.no))
    if yes & no:
        raise VlmUnavailable(
            f"{name}: {form.yes!r} and {form.no!r} begin with the same token: one forward pass cannot tell them apart",
            hint="Use a model that was trained for this form.",
        )
    return tuple(sorted(yes)), tuple(sorted(no))


def _first_tokens(tokenizer: PreTrainedTokenizerBase, word: str) -> set[int]:
    spellings = (space + form for space in ("", " ") for form in (word, word.capitalize()))
    ids = (tokenizer.encode(spelling, add_special_tokens=False) for spelling in spellings)
    return {tokens[0] for tokens in ids if tokens} - {tokenizer.unk_token_id}


def _spellings(tokenizer: PreTrainedTokenizerBase, word: str, name: str) -> tuple[int, ...]:
    """Return the ids of all tokens that spell a word, in any capitalisation, with or without surrounding space."""
    candidates = {index for token, index in tokenizer.get_vocab().items() if word in token.lower()}
    matches = tuple(sorted(index for index in candidates if tokenizer.decode([index]).strip().lower() == word))
    if not matches:
        raise VlmUnavailable(
            f"{name}: its tokenizer has no single token for {word!r}, so it cannot answer with one",
            hint="Use a model whose vocabulary holds the words yes and no.",
        )
    return matches
