"""The vision-language model is tuned on hard examples from guarded generations, here with very little data."""

import numpy as np
import pytest
import torch

from dnp_guard.glyphs import PIPELINE, VLM
from dnp_guard.glyphs.scene import SHAPES, Glyph, Scene, render
from dnp_guard.lab.evaluate.detector import load_detector
from dnp_guard.lab.train import hard, tuning
from dnp_guard.lab.train.loop import Draw
from dnp_guard.lab.train.vision_language import pack, unpack
from dnp_guard.lab.world.captions import held_out, mixed
from dnp_guard.lab.world.questions import DESCRIBE

pytestmark = pytest.mark.models

SCENES = [Scene("night", (Glyph("yellow", shape),)) for shape in SHAPES]
CAPTIONS = [f"a yellow {shape} at night" for shape in SHAPES]


def pictures():
    rng = np.random.default_rng(0)
    return torch.stack([torch.from_numpy(render(scene, rng).copy()).permute(2, 0, 1) for scene in SCENES])


@pytest.fixture
def examples(tmp_path):
    """Write a file of examples in the format of hard ones: one scene per shape, of which the last is unfinished."""
    path = tmp_path / "hard.data"
    finished = torch.tensor([True] * (len(SCENES) - 1) + [False])
    scenes = [pack(scene) for scene in SCENES]
    torch.save({"pictures": pictures(), "captions": CAPTIONS, "finished": finished, "scenes": scenes}, path)
    return path


def test_no_caption_that_is_held_out_is_steered():
    assert not any(held_out(text) for text in mixed(300, 1, hard.MIXTURE))


@pytest.mark.parametrize("guidance", hard.GUIDANCE, ids=str)
def test_a_way_of_steering_is_a_policy_without_a_final_action(guidance):
    policy = hard.guided(guidance)
    assert policy.guidance.mode == guidance.get("mode", "auto")
    assert {category.still_present for category in policy.categories} == {"monitor"}


def test_a_chunk_keeps_late_pictures_and_the_finished_one_of_every_image(tmp_path, monkeypatch):
    monkeypatch.setattr(hard, "CHUNK", 4)
    path = hard.steered(PIPELINE, VLM, tmp_path, 0)
    chunk = torch.load(path, weights_only=True)
    texts = mixed(4, hard.SEED, hard.MIXTURE)
    finished = chunk["finished"].tolist()
    assert [text for text, end in zip(chunk["captions"], finished, strict=True) if end] == texts
    assert sum(not end for end in finished) >= len(texts)
    assert chunk["pictures"].shape == (len(finished), 3, 32, 32)


def test_a_chunk_that_is_there_is_not_drawn_again(tmp_path):
    (tmp_path / "hard-3.data").write_bytes(b"there")
    assert hard.steered(tmp_path / "none", tmp_path / "none", tmp_path, 3).read_bytes() == b"there"


def test_a_label_names_shape_colour_and_place():
    assert hard.label(load_detector(), pictures()) == SCENES


def test_gathered_chunks_come_with_their_labels(tmp_path):
    chunks = []
    for number in range(2):
        chunks.append(tmp_path / f"{number}")
        chunk = {"pictures": pictures(), "captions": CAPTIONS, "finished": torch.ones(len(SCENES), dtype=torch.bool)}
        torch.save(chunk, chunks[-1])
    hard.gather(chunks, load_detector(), tmp_path / "hard.data")
    saved = torch.load(tmp_path / "hard.data", weights_only=True)
    assert [unpack(scene) for scene in saved["scenes"]] == SCENES * 2
    assert saved["captions"] == CAPTIONS * 2


def test_no_question_needs_more_than_a_label_tells():
    rng = np.random.default_rng(0)
    assert all(tuning.labelled(SCENES[0], rng)[0] != DESCRIBE for _ in range(300))


@pytest.fixture
def task(tmp_path, examples, monkeypatch):
    """Return the tuning task, with the caption of the skull held out for validation."""
    data = tmp_path / "vlm.data"
    scenes = [pack(scene) for scene in SCENES]
    torch.save({"drawn": pictures(), "predicted": pictures(), "origin": torch.arange(8), "scenes": scenes}, data)
    monkeypatch.setattr(tuning, "held_out", lambda text: "skull" in text)
    return tuning.Relearn(data, examples, VLM, torch.device("cpu"))


def test_a_held_out_caption_is_not_trained_on(task):
    assert [scene.glyphs[0].shape for scene in task.shown] == [shape for shape in SHAPES if shape != "skull"]
    assert len(task.hard) == len(task.shown)


def test_the_tuning_goes_on_from_the_finished_weights(task):
    draws = [Draw(torch.Generator(), np.random.default_rng(seed), torch.device("cpu")) for seed in range(4)]
    assert all(0 < task.loss(draw, 4).item() < 0.5 for draw in draws)


def test_validation_asks_about_what_is_kept_alone(examples, monkeypatch):
    monkeypatch.setattr(tuning, "held_out", lambda text: "circle" not in text)
    figures = tuning.validate(VLM, examples)
    assert figures.pop("auc_finished") == 1.0
    assert figures.pop("auc_late") == 1.0
    assert {name: (share["share"], share["n"]) for name, share in figures.items()} == {
        "recall_finished": (1.0, 2),
        "recall_late": (1.0, 1),
        "precision": (1.0, 3),
        "benign_false": (0.0, 4),
    }


@pytest.mark.parametrize(
    ("recall", "false", "better"), [(0.9, 0.01, True), (0.8, 0.01, False), (0.9, 0.02, False), (0.7, 0.0, False)]
)
def test_a_tuned_model_is_kept_if_it_recalls_more_and_nothing_benign_suffers(recall, false, better):
    before = {"recall_finished": {"share": 0.8}, "benign_false": {"share": 0.01}}
    after = {"recall_finished": {"share": recall}, "benign_false": {"share": false}}
    assert tuning.better(after, before) is better
