from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor

from dnp_guard import hookimpl
from dnp_guard.errors import DnpGuardError
from dnp_guard.glyphs.scene import Glyph, Scene, render
from dnp_guard.lab.evaluate.detectors import Detection, ImageDetector, build, describe
from dnp_guard.lab.evaluate.detectors.nudenet import EXPOSED, NudeNetDetector
from dnp_guard.lab.evaluate.detectors.vision_language import VlmDetector
from dnp_guard.lab.world.models import clip_tokenizer
from dnp_guard.policy import load_policy

POLICY = load_policy("glyphs")


def drawn(*glyphs):
    return Image.fromarray(render(Scene("night", glyphs), np.random.default_rng(0)))


STAR = drawn(Glyph("yellow", "star"), Glyph("red", "circle"))
PLAIN = drawn(Glyph("red", "circle"))


@pytest.mark.models
def test_the_embedded_detector_sees_what_is_forbidden_and_what_was_asked_for():
    detector = build("glyphs", POLICY)
    star, plain = detector.look([STAR, PLAIN])
    assert star.probabilities["star"] > 0.9
    assert max(plain.probabilities.values()) < 0.1
    assert ("red", "circle") in star.objects
    assert star.features.shape == (96, 64)


class Boxes:
    """A stand-in for NudeNet's detector, which returns fixed boxes in NudeNet's format."""

    def detect(self, written):
        with Image.open(BytesIO(written)) as image:
            assert image.size == (32, 32)
        boxes = [("FACE_FEMALE", 0.99), ("BUTTOCKS_EXPOSED", 0.3), ("BUTTOCKS_EXPOSED", 0.7)]
        return [{"class": name, "score": score, "box": [0, 0, 1, 1]} for name, score in boxes]


def test_nudenet_counts_its_exposed_labels_by_their_surest_box():
    detector = NudeNetDetector(Boxes(), version="3.4.2")
    (finding,) = detector.look([PLAIN])
    assert finding.probabilities == {**dict.fromkeys(EXPOSED, 0.0), "BUTTOCKS_EXPOSED": 0.7}
    assert describe(detector) == "nudenet 3.4.2 (5 exposed labels) @ 0.6"


def test_nudenet_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr("dnp_guard.extras.find_spec", lambda _: None)
    with pytest.raises(DnpGuardError, match=r"dnp-guard\[nudenet\]"):
        build("nudenet", POLICY)


class Sees:
    name, revision = "eye", "abc"

    def ask(self, images, questions):
        return [[0.9 if "star" in question else 0.2 for question in questions] for _ in images]


def test_a_vision_language_model_judges_by_the_questions_of_the_policy():
    detector = VlmDetector(Sees(), POLICY)
    (finding,) = detector.look([PLAIN])
    assert finding.probabilities == {"star": 0.9, "skull": 0.2, "bolt": 0.2}
    assert describe(detector).startswith("vlm:eye abc ")


def test_any_backend_is_a_judge_by_its_spec(tmp_path):
    (tmp_path / "answers.json").write_text("{}")
    detector = build(f"vlm:scripted:{tmp_path / 'answers.json'}", POLICY)
    assert detector.categories == ("star", "skull", "bolt")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Save a tiny CLIP with random weights in a folder, and return the folder."""
    folder = tmp_path_factory.mktemp("clip")
    tokenizer = clip_tokenizer(["a picture of a star skull bolt"])
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = {**sizes, **special, "vocab_size": len(tokenizer), "max_position_embeddings": tokenizer.model_max_length}
    vision = {**sizes, "image_size": 32, "patch_size": 16}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(folder)
    side = {"height": 32, "width": 32}
    pixels = CLIPImageProcessorPil(size=side, crop_size=side)
    CLIPProcessor(pixels, tokenizer).save_pretrained(folder)
    return folder


@pytest.mark.models
def test_clip_gives_a_probability_for_every_category(clip):
    detector = build(f"clip:{clip}", POLICY)
    findings = detector.look([STAR, PLAIN])
    assert all(set(finding.probabilities) == {"star", "skull", "bolt"} for finding in findings)
    assert all(0 < value < 1 for finding in findings for value in finding.probabilities.values())
    assert findings[0].probabilities != findings[1].probabilities


@pytest.mark.models
def test_a_clip_score_is_the_cosine_of_image_and_text(clip):
    from dnp_guard.lab.evaluate.detectors.clip import load_clip

    model = load_clip(str(clip))
    scores = model.score([STAR, PLAIN], ["a star", "a picture"])
    expected = torch.nn.functional.cosine_similarity(model.images([STAR, PLAIN]), model.texts(["a star", "a picture"]))
    assert scores == pytest.approx(expected.tolist())


@pytest.mark.models
def test_q16_is_the_softmax_of_two_tuned_prompts(clip):
    from dnp_guard.lab.evaluate.detectors.clip import load_clip

    model = load_clip(str(clip))
    toward = model.images([STAR])[0]
    save_file({"prompts": torch.stack([-toward, toward])}, clip / "q16.safetensors")
    detector = build(f"q16:{clip}", POLICY)
    (finding,) = detector.look([STAR])
    expected = torch.sigmoid(2 * model.scale)
    assert finding.probabilities["inappropriate"] == pytest.approx(float(expected), abs=1e-5)
    save_file({"prompts": torch.zeros(2, 3)}, clip / "q16.safetensors")
    with pytest.raises(DnpGuardError, match=r"shape \[2, 16\]"):
        build(f"q16:{clip}", POLICY)
    (clip / "q16.safetensors").unlink()
    with pytest.raises(DnpGuardError, match=r"q16\.safetensors"):
        build(f"q16:{clip}", POLICY)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(DnpGuardError):
        build(f"clip:{tmp_path}", POLICY)


class Own:
    """A detector that a plugin offers; it finds nothing."""

    name, version, threshold, categories = "own", "1", 0.5, ("star",)

    def look(self, images):
        return [Detection({"star": 0.0}) for _ in images]


class Plugin:
    @hookimpl
    def dnp_guard_detector(self, spec):
        if spec == "broken":
            raise ValueError("no weights")
        return Own() if spec == "own" else None


def test_a_plugin_offers_a_detector():
    detector = build("own", POLICY, [Plugin()])
    assert isinstance(detector, ImageDetector)
    assert describe(detector) == "own 1 @ 0.5"


def test_a_plugin_that_fails_is_named():
    with pytest.raises(DnpGuardError, match=r"plugin 'Plugin': no weights"):
        build("broken", POLICY, [Plugin()])


@pytest.mark.parametrize("spec", ["yolo", "glyphs:x", "clip", "q16", "vlm", ""])
def test_an_unknown_spec_is_refused_with_the_known_ones(spec):
    with pytest.raises(DnpGuardError, match="glyphs, nudenet, opennsfw, q16:FOLDER"):
        build(spec, POLICY)


def test_opennsfw_judges_with_one_score_for_the_whole_image():
    detector = build("opennsfw", POLICY)
    (finding,) = detector.look([PLAIN])
    assert finding.probabilities["nsfw"] < detector.threshold
    assert "opennsfw" in describe(detector)
    assert describe(detector).endswith("(1 label: nsfw) @ 0.8")
