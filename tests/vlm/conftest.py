from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def llava() -> tuple[Any, Any]:
    """A tiny LLaVA with random weights, large enough for its answers to differ, and its processor."""
    from dnp_guard.glyphs import models

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        processor = models.vlm_processor()
        model = models.vlm(processor)
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(4)
    return model.eval(), processor


@pytest.fixture(scope="session")
def llava_folder(llava: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, saved."""
    folder = tmp_path_factory.mktemp("llava")
    for part in llava:
        part.save_pretrained(folder)
    return folder
