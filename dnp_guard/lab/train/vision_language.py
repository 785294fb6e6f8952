"""Stage 4: train the LLaVA on rendered pictures and on predictions x̂0 of the denoiser at all noise levels.

The vision tower is trained first, to name every glyph from the image patches; this takes a hundred times fewer samples
than training it through language. Then the whole model is trained to answer questions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPVisionModel

from dnp_guard.glyphs.scene import COLOURS, PLACES, SHAPES, SIZE, Glyph, Scene
from dnp_guard.lab.train.data import to_float
from dnp_guard.lab.train.detector import degrade, labels
from dnp_guard.lab.train.loop import Draw, TrainingPlan
from dnp_guard.lab.world import models
from dnp_guard.lab.world.questions import ask

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from torch import Tensor

    Questions = Callable[[Scene, np.random.Generator], tuple[str, str]]

SEEING = TrainingPlan(
    "vision tower", samples=400_000, batch=32, learning_rate=1e-3, seed=13, weight_decay=0.01, ema=0.998
)
TALKING = TrainingPlan(
    "vision-language", samples=160_000, batch=32, learning_rate=1e-3, seed=14, weight_decay=0.01, ema=0.998
)
TURNS = 4
"""Number of questions per training conversation; the picture is encoded once for all of them."""
_PREDICTIONS = 0.7
"""Share of the batches that are predictions."""
_IGNORED = -100


class TrainingPictures:
    """Training pictures of the VLM, with their scenes: rendered pictures, some of them degraded, and predictions x̂0."""

    def __init__(self, data: Path) -> None:
        saved = torch.load(data, weights_only=True)
        self.drawn: Tensor = saved["drawn"]
        self.predicted: Tensor = saved["predicted"]
        self.origin: Tensor = saved["origin"]
        self.scenes = [unpack(packed) for packed in saved["scenes"]]

    def batch(self, draw: Draw, size: int) -> tuple[Tensor, list[int]]:
        """Pick a random batch of either kind; return pictures, float [size, 3, 32, 32], and their scenes' indices."""
        if draw.numpy.random() < _PREDICTIONS:
            picked = torch.from_numpy(draw.numpy.integers(len(self.predicted), size=size))
            return to_float(self.predicted[picked]), self.origin[picked].tolist()
        picked = torch.from_numpy(draw.numpy.integers(len(self.drawn), size=size))
        return degrade(to_float(self.drawn[picked]), draw), picked.tolist()


class See:
    """Training task of the vision tower: name shapes, colours and place. Its linear heads are dropped afterwards."""

    def __init__(self, data: Path, device: torch.device) -> None:
        self.pictures = TrainingPictures(data)
        pairs, self.places = labels(self.pictures.scenes)
        self.targets = torch.cat([pairs.flatten(1), pairs.amax(2)], 1)
        self.tower = CLIPVisionModel(models.vlm(models.vlm_processor()).config.vision_config).to(device)
        width = self.tower.config.hidden_size
        self.heads = nn.ModuleList(
            [nn.Linear(width, len(SHAPES) * (len(COLOURS) + 1)), nn.Linear(width, len(PLACES))]
        ).to(device)
        self.modules: list[nn.Module] = [self.tower, self.heads]

    def loss(self, draw: Draw, batch: int) -> Tensor:
        """Return the binary cross-entropy of glyphs, scored by their best patch, plus the place's cross-entropy."""
        images, scenes = self.pictures.batch(draw, batch)
        patches = self.tower(images.to(draw.device)).last_hidden_state[:, 1:]
        glyphs, place = self.heads[0](patches).amax(1), self.heads[1](patches.mean(1))
        targets, places = self.targets[scenes].to(draw.device), self.places[scenes].to(draw.device)
        seen = F.binary_cross_entropy_with_logits(glyphs, targets, reduction="none").sum(1).mean()
        return 0.1 * seen + 0.2 * F.cross_entropy(place, places)


class Converse:
    """Training task: answer several questions about a picture in one conversation; only answers are in the loss."""

    def __init__(self, data: Path, tower: dict[str, Tensor] | None, device: torch.device) -> None:
        self.pictures = TrainingPictures(data)
        processor = models.vlm_processor()
        self.vocabulary = processor.tokenizer.get_vocab()
        self.eos: int = processor.tokenizer.eos_token_id
        self.pad: int = processor.tokenizer.pad_token_id
        self.model = models.vlm(processor).to(device)
        if tower is not None:
            self.model.model.vision_tower.load_state_dict(tower)
        self.modules: list[nn.Module] = [self.model]

    def loss(self, draw: Draw, batch: int) -> Tensor:
        """Return the cross-entropy of the answers' tokens for one random batch."""
        images, scenes = self.pictures.batch(draw, batch)
        return self.answers(images, [self.pictures.scenes[scene] for scene in scenes], draw)

    def answers(self, images: Tensor, scenes: list[Scene], draw: Draw, questions: Questions = ask) -> Tensor:
        """Return the cross-entropy of the answers' tokens for given pictures.

        Args:
            images: pictures, floats [B, 3, 32, 32] in -1…1.
            scenes: one scene per picture.
            draw: random generators of the step.
            questions: function that returns a random question about a scene, with its answer.
        """
        pairs = [self._conversation(scene, draw, questions) for scene in scenes]
        longest = max(len(tokens) for tokens, _ in pairs)
        fill = [longest - len(tokens) for tokens, _ in pairs]
        tokens = torch.tensor([[self.pad] * n + t for n, (t, _) in zip(fill, pairs, strict=True)])
        answers = torch.tensor([[_IGNORED] * n + a for n, (_, a) in zip(fill, pairs, strict=True)])
        mask = torch.tensor([[0] * n + [1] * (longest - n) for n in fill])
        output = self.model(
            input_ids=tokens.to(draw.device),
            attention_mask=mask.to(draw.device),
            pixel_values=images.to(draw.device),
            labels=answers.to(draw.device),
        )
        loss: Tensor = output.loss
        return loss

    def _conversation(self, scene: Scene, draw: Draw, questions: Questions) -> tuple[list[int], list[int]]:
        tokens: list[int] = []
        labels: list[int] = []
        for turn in range(TURNS):
            question, answer = questions(scene, draw.numpy)
            picture = "<image> " * (SIZE // models.PATCH) ** 2 if turn == 0 else ""
            prompt = self._ids(f"user : {picture}{question} assistant :")
            reply = [*self._ids(answer), self.eos]
            tokens += prompt + reply
            labels += [_IGNORED] * len(prompt) + reply
        return tokens, labels

    def _ids(self, text: str) -> list[int]:
        return [self.vocabulary[word] for word in text.split()]


def pack(scene: Scene) -> tuple[str, list[tuple[str, str, bool]]]:
    """Return a scene as plain values, for a data file that loads without running code."""
    return scene.place, [(glyph.colour, glyph.shape, glyph.small) for glyph in scene.glyphs]


def unpack(packed: tuple[str, list[tuple[str, str, bool]]]) -> Scene:
    """Return the scene that :func:`pack` packed."""
    place, glyphs = packed
    return Scene(place, tuple(Glyph(*values) for values in glyphs))
