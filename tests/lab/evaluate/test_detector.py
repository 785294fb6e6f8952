import numpy as np
import pytest
import torch

from dnp_guard.glyphs.scene import render, sample_scene
from dnp_guard.lab.evaluate.detector import detect, load_detector
from dnp_guard.lab.evaluate.intervals import auc, wilson

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def held_out_renders():
    rng = np.random.default_rng(31_337)
    scenes = [sample_scene(rng) for _ in range(500)]
    pixels = np.stack([render(scene, rng) for scene in scenes])
    return scenes, torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def test_the_detector_names_every_glyph_of_held_out_renders(held_out_renders):
    scenes, pictures = held_out_renders
    seen = detect(load_detector(), pictures)
    right = sum(s.shapes == {g.shape for g in scene.glyphs} for s, scene in zip(seen, scenes, strict=True))
    coloured = sum(s.shows(scene.glyphs) for s, scene in zip(seen, scenes, strict=True))
    assert right >= 0.99 * len(scenes)
    assert coloured >= 0.99 * len(scenes)


def test_a_blank_picture_shows_nothing():
    (seen,) = detect(load_detector(), torch.zeros(1, 3, 32, 32))
    assert not seen.shapes


def test_the_wilson_interval_holds_the_share_and_stays_inside_zero_and_one():
    for n in (1, 7, 100):
        for hits in range(n + 1):
            low, high = wilson(hits, n)
            assert 0 <= low <= hits / n <= high <= 1


def test_auc_of_a_perfect_and_a_useless_score():
    assert auc([0.8, 0.9], [0.1, 0.2]) == 1
    assert auc([0.5, 0.5], [0.5, 0.5]) == 0.5
