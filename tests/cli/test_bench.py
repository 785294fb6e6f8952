import json

import pytest
from diffusers import StableDiffusionPipeline

from dnp_guard.cli import run
from tests.hosts.tiny.stable_diffusion import sd

pytestmark = pytest.mark.models


def test_the_file_names_the_machine_and_has_a_row_for_every_kind(tmp_path, capsys):
    out = tmp_path / "bench.json"
    assert run(["bench", "--batches", "1", "--steps", "4", "--rounds", "1", "--out", str(out)]) == 0
    document = json.loads(out.read_text())
    assert document["machine"]["device"] == "cpu"
    assert [row["kind"] for row in document["rows"]] == [
        "unguarded", "unqueried", "guarded-clean", "guarded-steering", "static-separate", "vl-dnp",
    ]  # fmt: skip
    assert "guarded-steering" in capsys.readouterr().out


def test_a_model_of_ones_own_is_timed_with_a_backend_of_ones_own(tmp_path):
    StableDiffusionPipeline(**sd()).save_pretrained(tmp_path / "model")
    (tmp_path / "tiny.yaml").write_text(
        "format: 1\nname: tiny\nqueries: {steps: [0.0]}\nguidance: {scale: 15}\n"
        "categories: [{id: nudity, look_for: [nudity], negative: [nudity]}]\n"
    )
    own = ["--model", str(tmp_path / "model"), "--vlm", "detector:opennsfw", "--policy", str(tmp_path / "tiny.yaml")]
    out = tmp_path / "bench.json"
    assert run(["bench", *own, "--batches", "1", "--steps", "3", "--rounds", "1", "--out", str(out)]) == 0
    rows = {row["kind"]: row for row in json.loads(out.read_text())["rows"]}
    assert {"unguarded", "guarded-steering", "static-separate", "vl-dnp"} <= set(rows)
    assert "evaluate" in rows["guarded-steering"]["stages"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--batches", "1,x"], "--batches"),
        (["--batches", "0"], "--batches"),
        (["--device", "tpu"], "cpu or cuda"),
        (["--random-weights", "sd3"], "tiny-sd15"),
        (["--random-weights", "tiny-sd15", "--vlm", "detector:nudenet"], "leave --model and --vlm out"),
        (["--model", "nowhere"], "--vlm"),
    ],
)
def test_what_cannot_be_timed_is_refused_in_words(tmp_path, capsys, arguments, expected):
    assert run(["bench", "--out", str(tmp_path / "bench.json"), *arguments]) == 2
    assert expected in capsys.readouterr().err
