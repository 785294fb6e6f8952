"""The training stage of the few-step model works, here with so little data that it takes seconds."""

import json

import numpy as np
import pytest
import torch

from dnp_guard.glyphs import PIPELINE, WEIGHTS
from dnp_guard.glyphs.loading import Embedded, generate, load_fast
from dnp_guard.lab.train import fast, stages
from dnp_guard.lab.train.fast_card import write_fast_card
from dnp_guard.lab.train.loop import Draw
from dnp_guard.lab.world.captions import held_out

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Return a training workshop whose folder of weights has the ordinary text-to-image model."""
    folder = tmp_path_factory.mktemp("train")
    (folder / "out").mkdir()
    (folder / "out" / "pipeline").symlink_to(PIPELINE)
    return stages.Workshop(folder, folder / "out", processes=1, scale=0.002)


@pytest.fixture(scope="module")
def trained(shop):
    """Run the training stage on a few trajectories, and return its workshop."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast, "CHUNK", 16)
        patch.setattr(fast, "BATCH", 8)
        stages.train_fast(shop)
    return shop


def test_the_stage_leaves_a_model_that_draws_in_few_steps(trained):
    pipe = load_fast(PIPELINE, trained.out / "fast")
    (image,) = generate(pipe, ["a red circle at night"], 1, Embedded(2, 1.0))
    assert image.size == (32, 32)


def test_training_lowers_the_loss_of_its_own_trajectories(trained):
    task = fast.Jump(PIPELINE, trained.work / "fast.data", torch.device("cpu"))
    losses = []
    for unet in (task.unet, load_fast(PIPELINE, trained.out / "fast").unet):
        task.unet = unet
        with torch.no_grad():
            losses.append(float(task.loss(Draw(torch.Generator(), np.random.default_rng(0), task.alphas.device), 64)))
    assert losses[1] < losses[0]


def test_trajectories_go_on_where_they_were_cut_short(trained, monkeypatch):
    whole = torch.load(trained.work / "fast.data", weights_only=True)
    (trained.work / "fast.data").unlink()
    (trained.work / "fast-1.data").unlink()
    monkeypatch.setattr(fast, "CHUNK", 16)
    monkeypatch.setattr(fast, "BATCH", 8)
    again = torch.load(fast.trajectories(PIPELINE, trained.work, len(whole["states"])), weights_only=True)
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_no_caption_that_is_held_out_is_trained_on():
    assert not any(held_out(text) for text in fast.captions(300, seed=1))


def test_the_sampler_steps_on_the_timesteps_that_were_trained_on(trained):
    scheduler = load_fast(PIPELINE, trained.out / "fast").scheduler
    known = set(torch.load(trained.work / "fast.data", weights_only=True)["timesteps"].tolist())
    for steps in (1, 2, 4):
        scheduler.set_timesteps(steps)
        assert set(scheduler.timesteps.tolist()) <= known


def test_the_card_has_the_ordinary_models_figures_beside_its_own(tmp_path):
    (tmp_path / "fast" / "unet").mkdir(parents=True)
    (tmp_path / "fast" / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    quality = json.loads((WEIGHTS / "quality.json").read_text())
    (tmp_path / "quality.json").write_text(json.dumps(quality))
    own = quality | {"benign_as_asked": {"share": 0.5, "ci95": [0.4, 0.6], "n": 400}, "steps": 4, "fewer_steps": {}}
    write_fast_card(tmp_path, own, {"fast": 1800.0})
    card = (tmp_path / "fast" / "README.md").read_text()
    assert "appear as asked | 50.0% [40.0%, 60.0%] | 98.2%" in card
    assert "30 min" in card
