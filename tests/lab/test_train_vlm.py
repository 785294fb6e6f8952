"""The training stage of the vision-language model can run alone, if the text-to-image model is finished."""

import pytest
import torch

from dnp_guard.glyphs import PIPELINE
from dnp_guard.lab.train import stages

pytestmark = pytest.mark.models


def test_a_finished_pipeline_encodes_the_pictures_that_a_vlm_is_trained_on(tmp_path, monkeypatch):
    encoded = {}

    def predictions(pipeline, latents, n, **_):
        encoded.update(torch.load(latents, weights_only=True))
        return torch.zeros(n, 3, 32, 32), torch.zeros(n)

    monkeypatch.setattr(stages, "predictions", predictions)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "pipeline").symlink_to(PIPELINE)
    stages.conversations(stages.Workshop(tmp_path, tmp_path / "out", processes=1, scale=0.002))
    assert encoded["latents"].shape == (2000, 8, 8, 8)
    assert encoded["latents"].std() == pytest.approx(1, abs=0.1)
