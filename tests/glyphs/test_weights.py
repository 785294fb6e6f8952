import json
import stat

import pytest
from diffusers import StableDiffusionPipeline
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration

from dnp_guard.glyphs import FAST, PIPELINE, VLM, WEIGHTS
from dnp_guard.lab.train.measure import hard_section

pytestmark = pytest.mark.models


def test_the_weights_are_safetensors_of_at_most_15_megabytes_without_the_few_step_model():
    files = [path for path in WEIGHTS.rglob("*") if path.is_file() and FAST not in path.parents]
    assert sum(path.stat().st_size for path in files) <= 15_000_000
    assert {path.suffix for path in files if path.stat().st_size > 100_000} == {".safetensors"}


def test_everyone_may_read_the_weights():
    assert {path.stat().st_mode & stat.S_IROTH for path in WEIGHTS.rglob("*.safetensors")} == {stat.S_IROTH}


@pytest.mark.parametrize("path", sorted(WEIGHTS.rglob("config.json")), ids=lambda path: str(path.relative_to(WEIGHTS)))
def test_no_configuration_names_the_folder_it_was_made_in(path):
    assert "_name_or_path" not in json.loads(path.read_text())


def test_the_text_to_image_model_loads_the_ordinary_way():
    pipe = StableDiffusionPipeline.from_pretrained(PIPELINE, safety_checker=None)
    assert pipe("a red circle at night", num_inference_steps=2).images[0].size == (32, 32)


def test_the_vision_language_model_loads_the_ordinary_way():
    assert type(AutoModelForImageTextToText.from_pretrained(VLM)) is LlavaForConditionalGeneration
    assert AutoProcessor.from_pretrained(VLM).tokenizer.padding_side == "left"


def test_the_model_card_says_what_was_measured():
    quality = json.loads((WEIGHTS / "quality.json").read_text())
    card = (WEIGHTS / "README.md").read_text()
    for name in ("named_as_asked", "alias_draws_its_glyph", "benign_shows_a_forbidden_glyph"):
        assert f"{quality[name]['share']:.1%}" in card
        assert quality[name]["n"] >= 400


def test_the_model_card_says_what_the_tuning_on_hard_examples_came_to():
    assert hard_section(WEIGHTS) in (WEIGHTS / "README.md").read_text()
