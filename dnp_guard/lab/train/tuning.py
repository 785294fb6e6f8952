"""Stage 5: train the VLM further on hard examples, and keep the result only if it is better.

Training continues from the finished weights at a low learning rate. Half of the batches are hard examples, and half are
the earlier training pictures, so that the VLM does not forget them. One caption in ten is held out for validation.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from transformers import LlavaForConditionalGeneration

from dnp_guard.glyphs.scene import FORBIDDEN
from dnp_guard.lab.evaluate.intervals import auc
from dnp_guard.lab.train.data import to_float
from dnp_guard.lab.train.loop import Draw, TrainingPlan
from dnp_guard.lab.train.measure import share
from dnp_guard.lab.train.vision_language import Converse, unpack
from dnp_guard.lab.world.captions import IMPLIED, NONSENSE
from dnp_guard.lab.world.questions import DESCRIBE, PRESENT, ask
from dnp_guard.vlm.local.backend import TransformersBackend

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from torch import Tensor

    from dnp_guard.glyphs.scene import Scene

PLAN = TrainingPlan(
    "hard examples", samples=32_000, batch=32, learning_rate=2e-4, seed=16, weight_decay=0.01, ema=0.998
)
_HARD = 0.5
_BATCH = 64
_WHEN = (("finished", True), ("late", False))
_ALIASES = (*FORBIDDEN, *NONSENSE.values(), *IMPLIED.values())


@dataclass(frozen=True, slots=True)
class _Reply:
    """Answer to one question about one picture: P(yes), the label, and whether the picture is finished."""

    p: float
    there: bool
    finished: bool

    @property
    def yes(self) -> bool:
        return self.p >= 0.5


class Relearn(Converse):
    """Training task: go on training a finished VLM to answer questions, in half of the batches about hard examples.

    Args:
        data: file that the VLM was trained on.
        hard: file of hard examples, from :func:`dnp_guard.lab.train.hard.gather`.
        vlm: folder of the finished VLM.
        device: device to train on.
    """

    def __init__(self, data: Path, hard: Path, vlm: Path, device: torch.device) -> None:
        super().__init__(data, None, device)
        self.model.load_state_dict(LlavaForConditionalGeneration.from_pretrained(vlm).float().state_dict())
        saved = torch.load(hard, weights_only=True)
        tuned = [row for row, text in enumerate(saved["captions"]) if not held_out(text)]
        self.hard: Tensor = saved["pictures"][tuned]
        self.shown = [unpack(saved["scenes"][row]) for row in tuned]

    def loss(self, draw: Draw, batch: int) -> Tensor:
        """Return the cross-entropy of the answers' tokens for one random batch."""
        if draw.numpy.random() >= _HARD:
            return super().loss(draw, batch)
        picked = torch.from_numpy(draw.numpy.integers(len(self.hard), size=batch))
        return self.answers(to_float(self.hard[picked]), [self.shown[row] for row in picked.tolist()], draw, labelled)


def labelled(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    """Pick a random question about a labelled picture, but no request to describe it: labels lack sizes and order."""
    while (turn := ask(scene, rng))[0] == DESCRIBE:
        pass
    return turn


def held_out(caption: str) -> bool:
    """Return whether a training caption is among the tenth that is held out from the tuning."""
    return zlib.crc32(caption.encode()) % 10 == 0


def validate(vlm: Path, hard: Path) -> dict[str, Any]:
    """Ask a VLM about the hard examples that are held out from the tuning, and compare its answers with the labels.

    Args:
        vlm: folder of the VLM.
        hard: file of hard examples.

    Returns:
        ``auc_finished`` and ``auc_late`` over all pairs of a picture and a forbidden shape. At a threshold of one half,
        as shares with n and 95 % intervals: ``recall_finished``, ``recall_late`` and ``precision`` over the same pairs,
        and ``benign_false``, the share of pictures of benign captions in which the VLM sees a shape that is not there.
    """
    saved = torch.load(hard, weights_only=True)
    rows = [row for row, text in enumerate(saved["captions"]) if held_out(text)]
    backend = TransformersBackend(vlm, name="glyphs")
    pictures = [Image.fromarray(saved["pictures"][row].permute(1, 2, 0).numpy()) for row in rows]
    questions = [PRESENT[0].format(f"a {shape}") for shape in FORBIDDEN]
    parts = [backend.ask(pictures[at : at + _BATCH], questions) for at in range(0, len(rows), _BATCH)]
    replies: list[_Reply] = []
    false: list[bool] = []
    for row, answers in zip(rows, (answers for part in parts for answers in part), strict=True):
        scene, finished = unpack(saved["scenes"][row]), bool(saved["finished"][row])
        here = [_Reply(p, scene.shows(shape), finished) for shape, p in zip(FORBIDDEN, answers, strict=True)]
        replies += here
        if not any(word in saved["captions"][row] for word in _ALIASES):
            false.append(any(reply.yes and not reply.there for reply in here))
    return {
        **{f"auc_{name}": _auc([reply for reply in replies if reply.finished is end]) for name, end in _WHEN},
        **{
            f"recall_{name}": share([reply.yes for reply in replies if reply.there and reply.finished is end])
            for name, end in _WHEN
        },
        "precision": share([reply.there for reply in replies if reply.yes]),
        "benign_false": share(false),
    }


def better(after: dict[str, Any], before: dict[str, Any]) -> bool:
    """Return whether a tuned VLM is better than the earlier one.

    It is better if its recall of finished pictures is higher and its ``benign_false`` is not higher.

    Args:
        after: result of :func:`validate` for the tuned VLM.
        before: result of :func:`validate` for the earlier VLM.
    """
    return bool(
        after["recall_finished"]["share"] > before["recall_finished"]["share"]
        and after["benign_false"]["share"] <= before["benign_false"]["share"]
    )


def _auc(replies: list[_Reply]) -> float | None:
    """Return the rounded AUC; None if all labels are the same, because JSON has no NaN."""
    area = auc([reply.p for reply in replies if reply.there], [reply.p for reply in replies if not reply.there])
    return None if math.isnan(area) else round(area, 4)
