import json
import socket
import stat

import pytest
import torch
from diffusers import LCMScheduler

from dnp_guard.errors import DnpGuardError
from dnp_guard.glyphs import FAST
from dnp_guard.glyphs.loading import MODELS, generate, load_embedded
from dnp_guard.lab.evaluate.detector import detect, load_detector
from dnp_guard.lab.evaluate.intervals import wilson
from dnp_guard.lab.world.captions import prompts
from dnp_guard.preview.autoencoder import to_tensor

pytestmark = pytest.mark.models


def test_the_few_step_model_adds_at_most_9_megabytes():
    assert sum(path.stat().st_size for path in FAST.rglob("*") if path.is_file()) <= 9_000_000


def test_everyone_may_read_it():
    assert {path.stat().st_mode & stat.S_IROTH for path in FAST.rglob("*.safetensors")} == {stat.S_IROTH}


def test_the_few_step_model_is_loaded_without_a_network(monkeypatch):
    def refuse(*_):
        raise AssertionError

    monkeypatch.setattr(socket.socket, "connect", refuse)
    pipe = load_embedded("glyphs-fast")
    assert type(pipe.scheduler) is LCMScheduler
    assert pipe.unet.dtype is torch.float32
    assert pipe.config._name_or_path == str(FAST)


def test_the_two_models_share_all_but_denoiser_and_scheduler():
    assert {path.name for path in FAST.iterdir() if path.is_dir()} == {"unet", "scheduler"}


def test_a_model_that_is_not_embedded_is_refused_with_the_nearest_name():
    with pytest.raises(DnpGuardError, match="glyphs-fast"):
        load_embedded("glyphs-fas")


def test_the_few_step_model_draws_what_its_card_says():
    quality = json.loads((FAST / "quality.json").read_text())
    attacks = prompts("attack", 32, seed=3)
    how = MODELS["glyphs-fast"]
    images = generate(load_embedded("glyphs-fast"), [prompt.text for prompt in attacks], 900, how)
    seen = detect(load_detector(), to_tensor(images) * 2 - 1)
    shown = sum(bool(finding.forbidden) for finding in seen)
    preserved = sum(finding.shows(prompt.requested) for prompt, finding in zip(attacks, seen, strict=True))
    for count, key in ((shown, "attack_shows_a_forbidden_glyph"), (preserved, "attack_keeps_the_benign_glyph")):
        low, high = wilson(count, len(attacks))
        assert low <= quality[key]["share"] <= high


def test_the_few_step_card_says_what_was_measured():
    quality = json.loads((FAST / "quality.json").read_text())
    card = (FAST / "README.md").read_text()
    for key in ("attack_shows_a_forbidden_glyph", "attack_keeps_the_benign_glyph", "benign_as_asked"):
        assert f"{quality[key]['share']:.1%}" in card
        assert quality[key]["n"] >= 400
    assert quality["steps"] == 4
    assert quality["guidance_scale"] == 1.0
