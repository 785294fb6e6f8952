"""Use CLIP (Radford et al. 2021) through transformers: alignment score, zero-shot detection, and Q16."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from dnp_guard.errors import DnpGuardError
from dnp_guard.lab.evaluate.detectors.base import Detection
from dnp_guard.vlm.local import weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image
    from torch import Tensor

    from dnp_guard.policy import Policy
    from dnp_guard.vlm.local.weights import Weights

_SHOWS, _PLAIN = "a picture of {}", "a picture"
Q16_PROMPTS = "q16.safetensors"


@dataclass(frozen=True, slots=True)
class Clip:
    """A CLIP model and its processor.

    Attributes:
        model: ``CLIPModel``.
        processor: processor of the model.
        weights: folder, name and revision of the model.
    """

    model: Any
    processor: Any
    weights: Weights

    @torch.no_grad()
    def images(self, images: Sequence[Image]) -> Tensor:
        """Embed images as unit vectors, [images, channels]."""
        inputs = self.processor(images=[image.convert("RGB") for image in images], return_tensors="pt")
        return F.normalize(self.model.get_image_features(**inputs).pooler_output, dim=-1)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Embed texts as unit vectors, [texts, channels]."""
        inputs = self.processor(text=list(texts), return_tensors="pt", padding=True, truncation=True)
        return F.normalize(self.model.get_text_features(**inputs).pooler_output, dim=-1)

    def score(self, images: Sequence[Image], texts: Sequence[str]) -> list[float]:
        """Return the cosine similarity of every image to its text (Hessel et al. 2021, without the factor of 2.5)."""
        return [float(x) for x in (self.images(images) * self.texts(texts)).sum(-1)]

    @property
    def scale(self) -> Tensor:
        """Learned factor by which CLIP multiplies cosines before a softmax, a scalar tensor."""
        return self.model.logit_scale.exp().detach()


def load_clip(name: str) -> Clip:
    """Load a CLIP model in float32; nothing is downloaded.

    Args:
        name: folder of the model, or an id in the hub's cache.

    Raises:
        DnpGuardError: if there is no such model, or it is no CLIP model.
    """
    from transformers import AutoProcessor, CLIPModel  # noqa: PLC0415 (takes a second)

    files = weights.find(name)
    try:
        model = CLIPModel.from_pretrained(files.folder, use_safetensors=True).eval()
        processor = AutoProcessor.from_pretrained(files.folder)
    except (OSError, ValueError) as error:
        raise DnpGuardError(
            f"{name}: no CLIP model could be loaded: {weights.first_line(error)}",
            hint="Name a folder with a CLIPModel in safetensors and its processor, or an id in the hub's cache.",
        ) from error
    return Clip(model, processor, files)


class ClipDetector:
    """Zero-shot detector: P(category) is the maximum, over the category's terms, of a softmax over two texts.

    The two texts are "a picture of TERM" and "a picture".

    Args:
        clip: the CLIP model.
        policy: policy with the categories to detect.
    """

    threshold = 0.5

    def __init__(self, clip: Clip, policy: Policy) -> None:
        self._clip = clip
        self._terms = [(category.id, term) for category in policy.categories for term in category.terms]
        texts = clip.texts([_PLAIN, *(_SHOWS.format(term) for _, term in self._terms)])
        self._plain, self._shows = texts[:1], texts[1:]
        self.name, self.version = "clip", f"{clip.weights.name} {clip.weights.revision[:12]} {policy.digest[:12]}"
        self.categories = tuple(category.id for category in policy.categories)

    def look(self, images: Sequence[Image]) -> list[Detection]:
        """Return one detection per image, from its similarity to the texts."""
        seen = self._clip.images(images)
        # A softmax over two is the sigmoid of their difference.
        shown = torch.sigmoid(self._clip.scale * (seen @ self._shows.T - seen @ self._plain.T))
        return [Detection(_strongest(self._terms, row)) for row in shown.tolist()]


class Q16Detector:
    """Q16 (Schramowski et al. 2022): compares an image with two tuned prompts, for fine and for inappropriate images.

    The folder of the CLIP ViT-L/14 has to hold the prompts as ``q16.safetensors`` with one tensor ``prompts``, [2,
    channels]. The authors publish them as a pickle, which is not read here.

    Args:
        clip: the CLIP model.

    Raises:
        DnpGuardError: if the file is missing, or its prompts do not fit the model.
    """

    threshold = 0.5
    categories = ("inappropriate",)

    def __init__(self, clip: Clip) -> None:
        path = clip.weights.folder / Q16_PROMPTS
        if not path.exists():
            raise DnpGuardError(
                f"{path}: there is no such file",
                hint="Name a folder with a CLIP model and Q16's tuned prompts, converted to safetensors as `prompts`.",
            )
        prompts = load_file(path).get("prompts")
        width = clip.model.config.projection_dim
        if prompts is None or tuple(prompts.shape) != (2, width):
            raise DnpGuardError(f"{path}: it holds no tensor `prompts` of shape [2, {width}]", hint="Convert it again.")
        self._clip, self._prompts = clip, F.normalize(prompts.float(), dim=-1)
        self.name, self.version = "q16", f"{clip.weights.name} {clip.weights.revision[:12]}"

    def look(self, images: Sequence[Image]) -> list[Detection]:
        """Return one detection per image, from its similarity to the two prompts."""
        shares = (self._clip.scale * self._clip.images(images) @ self._prompts.T).softmax(-1)
        return [Detection({"inappropriate": share}) for share in shares[:, 1].tolist()]


def _strongest(terms: Sequence[tuple[str, str]], row: Sequence[float]) -> dict[str, float]:
    """Return, per category, the highest probability of its terms."""
    strongest: dict[str, float] = {}
    for (category, _), share in zip(terms, row, strict=True):
        strongest[category] = max(strongest.get(category, 0.0), share)
    return strongest
