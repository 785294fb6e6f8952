"""Stage 5: train the VLM further on hard examples, and keep the result only if it is better.

It goes on from its finished weights at a low learning rate, half on hard examples and half on what it learned from, so
that nothing is forgotten. One caption in ten is kept from it, to validate by.
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
class _Asked:
    """One question about one picture, and its answer."""

    p: float
    there: bool
    finished: bool

    @property
    def yes(self) -> bool:
        return self.p >= 0.5


class Relearn(Converse):
    """Go on answering questions from finished weights, half of the time about hard examples.

    Args:
        data: the file that the VLM was trained on.
        hard: the file of hard examples.
        vlm: folder of the finished VLM.
        device: to train on.
    """

    def __init__(self, data: Path, hard: Path, vlm: Path, device: torch.device) -> None:
        super().__init__(data, None, device)
        self.model.load_state_dict(LlavaForConditionalGeneration.from_pretrained(vlm).float().state_dict())
        saved = torch.load(hard, weights_only=True)
        tuned = [row for row, text in enumerate(saved["captions"]) if not kept_to_validate(text)]
        self.hard: Tensor = saved["pictures"][tuned]
        self.shown = [unpack(saved["scenes"][row]) for row in tuned]

    def loss(self, draw: Draw, batch: int) -> Tensor:
        """Cross-entropy of the answers' tokens."""
        if draw.numpy.random() >= _HARD:
            return super().loss(draw, batch)
        picked = torch.from_numpy(draw.numpy.integers(len(self.hard), size=batch))
        return self.answers(to_float(self.hard[picked]), [self.shown[row] for row in picked.tolist()], draw, labelled)


def labelled(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    """Draw a question that a label answers: none that needs sizes, or to know which glyph is named first."""
    while (turn := ask(scene, rng))[0] == DESCRIBE:
        pass
    return turn


def kept_to_validate(caption: str) -> bool:
    """Whether a training caption is kept from the tuning: one in ten."""
    return zlib.crc32(caption.encode()) % 10 == 0


def validate(vlm: Path, hard: Path) -> dict[str, Any]:
    """Ask a VLM about the hard examples that are kept from the tuning.

    Args:
        vlm: its folder.
        hard: the file of hard examples.

    Returns:
        Over pairs of a picture and a forbidden shape, by the labels: ``auc_finished`` and ``auc_late``; and shares with
        n and 95 % intervals at probability one half: ``recall_finished`` and ``recall_late``, ``precision``, and
        ``benign_false``, of pictures of benign captions, those in which the VLM sees a shape that the label lacks.
    """
    saved = torch.load(hard, weights_only=True)
    rows = [row for row, text in enumerate(saved["captions"]) if kept_to_validate(text)]
    backend = TransformersBackend(vlm, name="glyphs")
    pictures = [Image.fromarray(saved["pictures"][row].permute(1, 2, 0).numpy()) for row in rows]
    questions = [PRESENT[0].format(f"a {shape}") for shape in FORBIDDEN]
    parts = [backend.ask(pictures[at : at + _BATCH], questions) for at in range(0, len(rows), _BATCH)]
    asked: list[_Asked] = []
    false: list[bool] = []
    for row, answers in zip(rows, (answers for part in parts for answers in part), strict=True):
        scene, finished = unpack(saved["scenes"][row]), bool(saved["finished"][row])
        here = [_Asked(p, scene.shows(shape), finished) for shape, p in zip(FORBIDDEN, answers, strict=True)]
        asked += here
        if not any(word in saved["captions"][row] for word in _ALIASES):
            false.append(any(question.yes and not question.there for question in here))
    return {
        **{f"auc_{name}": _auc([each for each in asked if each.finished is end]) for name, end in _WHEN},
        **{
            f"recall_{name}": share([each.yes for each in asked if each.there and each.finished is end])
            for name, end in _WHEN
        },
        "precision": share([each.there for each in asked if each.yes]),
        "benign_false": share(false),
    }


def better(after: dict[str, Any], before: dict[str, Any]) -> bool:
    """Whether a tuned VLM is to take the place of the one before: more is recalled, and nothing benign suffers."""
    return bool(
        after["recall_finished"]["share"] > before["recall_finished"]["share"]
        and after["benign_false"]["share"] <= before["benign_false"]["share"]
    )


def _auc(asked: list[_Asked]) -> float | None:
    """Return the AUC, rounded; None where one side has no question, which JSON can say and NaN cannot."""
    area = auc([each.p for each in asked if each.there], [each.p for each in asked if not each.there])
    return None if math.isnan(area) else round(area, 4)
