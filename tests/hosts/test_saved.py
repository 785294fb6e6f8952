import json

import pytest

from dnp_guard import CannotSteer
from dnp_guard.cli import checks
from dnp_guard.glyphs import PIPELINE
from dnp_guard.hosts.diffusers.saved import class_in


def index(folder, **entries):
    (folder / "model_index.json").write_text(json.dumps(entries))
    return folder


def test_the_class_of_the_embedded_pipeline_is_read():
    assert class_in(PIPELINE) == "StableDiffusionPipeline"


def test_a_scheduler_whose_predictions_are_not_known_is_refused(tmp_path):
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler/scheduler_config.json").write_text('{"mask_token_id": 1}')
    folder = index(tmp_path, _class_name="AmusedPipeline", scheduler=["diffusers", "AmusedScheduler"])
    with pytest.raises(CannotSteer, match="the prediction of a AmusedScheduler is not known"):
        class_in(folder)


def test_a_scheduler_that_diffusers_lacks_is_refused(tmp_path):
    folder = index(tmp_path, _class_name="StableDiffusionPipeline", scheduler=["mine", "StrangeScheduler"])
    with pytest.raises(CannotSteer, match="no scheduler that diffusers knows"):
        class_in(folder)


def test_doctor_says_how_a_folder_is_steered():
    check = checks.model(PIPELINE)
    assert check.status == "ok"
    assert check.found.startswith("a guard can be attached to StableDiffusionPipeline")


@pytest.mark.parametrize("content", [None, "[]", "{}", "no json"])
def test_doctor_says_that_a_folder_is_no_pipeline(tmp_path, content):
    if content is not None:
        (tmp_path / "model_index.json").write_text(content)
    (problem,) = checks.model(tmp_path).problems
    assert problem.code == "not-a-pipeline"
