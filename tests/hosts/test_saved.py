import json

import pytest

from dnp_guard import CannotSteer
from dnp_guard.cli import checks
from dnp_guard.glyphs import PIPELINE
from dnp_guard.hosts.diffusers.saved import family_in


def index(folder, **entries):
    (folder / "model_index.json").write_text(json.dumps(entries))
    return folder


def test_the_embedded_pipeline_has_the_row_of_its_class():
    name, family = family_in(PIPELINE)
    assert (name, family.name) == ("StableDiffusionPipeline", "Stable Diffusion 1 and 2")


def test_a_class_without_a_row_is_refused(tmp_path):
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler/scheduler_config.json").write_text("{}")
    folder = index(tmp_path, _class_name="AmusedPipeline", scheduler=["diffusers", "DDIMScheduler"])
    with pytest.raises(CannotSteer, match="AmusedPipeline is not a pipeline this version can steer"):
        family_in(folder)


def test_a_part_that_was_not_saved_is_named(tmp_path):
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler/scheduler_config.json").write_text("{}")
    parts = {"unet": ["diffusers", "UNet2DConditionModel"], "vae": [None, None]}
    folder = index(tmp_path, _class_name="StableDiffusionPipeline", scheduler=["diffusers", "DDIMScheduler"], **parts)
    with pytest.raises(CannotSteer, match="StableDiffusionPipeline has no vae"):
        family_in(folder)


def test_a_scheduler_that_diffusers_lacks_is_refused(tmp_path):
    folder = index(tmp_path, _class_name="StableDiffusionPipeline", scheduler=["mine", "StrangeScheduler"])
    with pytest.raises(CannotSteer, match="no scheduler that diffusers knows"):
        family_in(folder)


def test_doctor_says_how_a_folder_is_steered():
    check = checks.model(PIPELINE)
    assert check.status == "ok"
    assert check.found == "StableDiffusionPipeline is steered as Stable Diffusion 1 and 2, through its unet"


@pytest.mark.parametrize("content", [None, "[]", "{}", "no json"])
def test_doctor_says_that_a_folder_is_no_pipeline(tmp_path, content):
    if content is not None:
        (tmp_path / "model_index.json").write_text(content)
    (problem,) = checks.model(tmp_path).problems
    assert problem.code == "not-a-pipeline"
