"""The benchmark harness eval-unlearn can run the guard; the tests use a tiny pipeline and a scripted backend."""

import json

import numpy as np
import pytest
from diffusers import StableDiffusionPipeline
from eval_unlearn.registry.entrypoints import load_entrypoints
from eval_unlearn.registry.local import get_technique

from dnp_guard.errors import DnpGuardError
from dnp_guard.lab.unlearn import AttentionTechnique, GuardTechnique
from tests.hosts.tiny.stable_diffusion import sd

CLEAN, SEEN = {"star": 0.0}, {"star": 0.9}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unlearn") / "model"
    StableDiffusionPipeline(**sd()).save_pretrained(folder)
    return folder


@pytest.fixture
def config(model, tmp_path):
    def made(*script):
        file, policy = tmp_path / "script.json", tmp_path / "star.yaml"
        file.write_text(json.dumps(script))
        policy.write_text(
            "format: 1\nname: star\nqueries: {steps: [0.3]}\nguidance: {scale: 15}\n"
            "categories: [{id: star, look_for: [star], negative: [star], still_present: monitor}]\n"
        )
        return {"model_id": str(model), "vlm": f"scripted:{file}", "policy": str(policy), "num_inference_steps": 4}

    return made


def pixels(images):
    return [np.asarray(image) for image in images]


@pytest.mark.parametrize(("name", "kind"), [("dnp-guard", GuardTechnique), ("dnp-guard-attention", AttentionTechnique)])
def test_the_harness_finds_the_technique(name, kind):
    load_entrypoints()
    assert get_technique(name) is kind


def test_it_draws_one_image_per_prompt_by_its_own_seed(config):
    technique = GuardTechnique(**config(CLEAN))
    both, second = pixels(technique.generate(["a", "b"], seed=1)), pixels(technique.generate(["b"], seed=2))
    assert np.array_equal(both[1], second[0])


@pytest.mark.parametrize("kind", [GuardTechnique, AttentionTechnique])
def test_a_finding_is_steered_away_from(config, kind):
    (clean,) = pixels(kind(**config(CLEAN)).generate(["a"], seed=1))
    (steered,) = pixels(kind(**config(SEEN)).generate(["a"], seed=1))
    assert not np.array_equal(clean, steered)


def test_a_key_that_the_technique_does_not_have_is_refused_with_the_nearest():
    with pytest.raises(DnpGuardError, match="'polcy'") as raised:
        GuardTechnique(polcy="default")
    assert "policy" in raised.value.hint
