"""Collect hard examples: labelled pictures of glyphs that steering left half destroyed.

The finished models generate images of training captions under a guard, which steers with guidance of many kinds and
strengths. The hard examples are the finished images and the previews that late queries show. A labelling detector
labels them. It is trained in the same way as the evaluation detector, with another seed and other pictures: the
evaluation detector must have no part in training the models that it judges.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dnp_guard.files import replacing
from dnp_guard.glyphs.loading import GUIDANCE_SCALE, STEPS, load_pipeline
from dnp_guard.glyphs.scene import COLOURS, PLACES, SHAPES, Glyph, Scene
from dnp_guard.guard import Guard
from dnp_guard.lab.evaluate.album import Album
from dnp_guard.lab.train import detector
from dnp_guard.lab.train.data import to_bytes, to_float
from dnp_guard.lab.train.vision_language import pack
from dnp_guard.lab.world.captions import mixed
from dnp_guard.policy import Policy, load_policy
from dnp_guard.preview.autoencoder import to_tensor
from dnp_guard.vlm.local.backend import TransformersBackend

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from PIL.Image import Image
    from torch import Tensor

    from dnp_guard.lab.evaluate.detector import Detector
    from dnp_guard.lab.world.captions import PromptSet

LABELLING = replace(detector.PLAN, name="labelling detector", seed=78)
LABELLED = 950
"""Seed of the rendered pictures that the labelling detector is trained on."""
IMAGES, CHUNK = 1_280, 160
_BATCH = 32
SEED = 700
_NOISE = 9_000_000
_LATE = 10
"""First step whose previews are kept."""
_LOOKS = 2
"""Largest number of previews kept per image; the finished image is kept in addition."""
MIXTURE: Mapping[PromptSet, float] = MappingProxyType({"attack": 0.4, "multi": 0.2, "explicit": 0.15, "benign": 0.25})
GUIDANCE: tuple[Mapping[str, Any], ...] = (
    {},
    *({"mode": "separate", "strength": "constant", "scale": scale} for scale in (5, 8, 11, 15)),
    {"mode": "attention", "attention": {"phi": 10, "tau": 2.5, "alpha": 0.5}},
    {"mode": "attention", "attention": {"phi": 20, "tau": 2, "alpha": 0.7}},
    {"mode": "attention", "attention": {"phi": 40, "tau": 1.5, "alpha": 0.9}},
)
"""Values of the policy's ``guidance``, which the batches take in turn; ``{}`` keeps the policy's own."""


def steered(pipeline: Path, vlm: Path, work: Path, number: int) -> Path:
    """Generate one chunk of steered images, and write them to a file unless it exists.

    Args:
        pipeline: folder of the text-to-image model.
        vlm: folder of the vision-language model that answers the guard's queries.
        work: folder for the chunk.
        number: number of the chunk, which also sets its seeds.

    Returns:
        Path of a file with ``pictures``, uint8 [n, 3, 32, 32], their ``captions``, and ``finished``, bool [n]: whether
        a picture is a finished image or a preview.
    """
    path = work / f"hard-{number}.data"
    if not path.exists():
        pipe, backend = load_pipeline(pipeline), TransformersBackend(vlm, name="glyphs")
        texts = mixed(CHUNK, SEED + 10 * number, MIXTURE)
        rng = np.random.default_rng([SEED, number])
        pictures, captions, finished = [], [], []
        for turn, at in enumerate(range(0, len(texts), _BATCH)):
            part = texts[at : at + _BATCH]
            policy = guided(GUIDANCE[(turn + number * CHUNK // _BATCH) % len(GUIDANCE)])
            looks = _looks(pipe, backend, policy, part, _NOISE + number * 1000 + at, rng)
            for text, (late, end) in zip(part, looks, strict=True):
                pictures += [*late, end]
                finished += [False] * len(late) + [True]
                captions += [text] * (len(late) + 1)
        with replacing(path) as draft:
            torch.save(
                {
                    "pictures": to_bytes(to_tensor(pictures) * 2 - 1),
                    "captions": captions,
                    "finished": torch.tensor(finished),
                },
                draft,
            )
    return path


def gather(chunks: list[Path], labeller: Detector, path: Path) -> None:
    """Label every picture with the scene that the detector sees in it, and write pictures and scenes into one file.

    Args:
        chunks: files that :func:`steered` wrote.
        labeller: the labelling detector.
        path: file to write: the keys of a chunk, and ``scenes``, packed by :func:`vision_language.pack`.
    """
    parts = [torch.load(chunk, weights_only=True) for chunk in chunks]
    pictures = torch.cat([part["pictures"] for part in parts])
    scenes = [pack(scene) for scene in label(labeller, pictures)]
    with replacing(path) as draft:
        torch.save(
            {
                "pictures": pictures,
                "captions": [text for part in parts for text in part["captions"]],
                "finished": torch.cat([part["finished"] for part in parts]),
                "scenes": scenes,
            },
            draft,
        )


@torch.no_grad()
def label(labeller: Detector, pictures: Tensor) -> list[Scene]:
    """Label every picture with the scene that a detector sees in it.

    A shape belongs to the scene if its probability is over one half. It occurs once in every colour whose probability
    is over one half; if there is no such colour, it occurs once in the likeliest one.

    Args:
        labeller: the labelling detector.
        pictures: uint8 [N, 3, 32, 32].

    Returns:
        One scene per picture.
    """
    scenes = []
    for part in pictures.split(256):
        shapes, pairs, places = labeller(to_float(part))
        coloured = (pairs > 0).scatter(2, pairs.argmax(2, keepdim=True), value=True) & (shapes > 0)[:, :, None]
        for rows, place in zip(coloured.tolist(), places.argmax(1).tolist(), strict=True):
            glyphs = tuple(
                Glyph(colour, shape)
                for shape, row in zip(SHAPES, rows, strict=True)
                for colour, there in zip(COLOURS, row, strict=True)
                if there
            )
            scenes.append(Scene(PLACES[place], glyphs))
    return scenes


def guided(guidance: Mapping[str, Any]) -> Policy:
    """Return the shipped policy with another ``guidance``, no limit of questions, and ``monitor`` as the final action.

    Args:
        guidance: new value of the policy's ``guidance``, without ``hold``, which is kept; empty to keep all of it.
    """
    data = load_policy("glyphs").resolved()
    if guidance:
        data["guidance"] = {"hold": data["guidance"]["hold"], **guidance}
    for category in data["categories"]:
        category["still_present"] = "monitor"
    data["queries"]["max_questions"] = 1_000_000
    return Policy.model_validate(data)


def _looks(
    pipe: Any, backend: TransformersBackend, policy: Policy, texts: list[str], seed: int, rng: np.random.Generator
) -> list[tuple[list[Image], Image]]:
    """Generate one batch under a guard; return, per image, some late previews and the finished image."""
    album = Album()
    with Guard(policy, vlm=backend, plugins=[album]) as guard, guard.attached(pipe):
        pipe(
            texts,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE_SCALE,
            generator=[torch.Generator().manual_seed(seed + row) for row in range(len(texts))],
        )
    late = [step for step in album.looks if step >= _LATE]
    return [
        ([album.looks[int(step)][row] for step in rng.permutation(late)[:_LOOKS]], end)
        for row, end in enumerate(album.final)
    ]
