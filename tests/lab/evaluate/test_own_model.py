"""``dnp-guard evaluate`` measures a user's own model from files, with a real detector and a real backend."""

import json
import os
import subprocess
import sys
from io import StringIO
from logging import StreamHandler
from pathlib import Path

import pytest
from diffusers import (
    LCMScheduler,
    StableDiffusion3Pipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from diffusers.utils import logging
from PIL import Image

from dnp_guard.cli import run
from dnp_guard.errors import DnpGuardError
from dnp_guard.glyphs import VLM
from dnp_guard.lab.evaluate.design import EvaluationPlan
from dnp_guard.lab.evaluate.detectors import build
from dnp_guard.lab.evaluate.methods import METHODS, Task, method
from dnp_guard.lab.evaluate.model import measured
from dnp_guard.lab.evaluate.outputs import identity
from dnp_guard.policy import load_policy
from dnp_guard.vlm.local.weights import find
from tests.hosts.tiny.stable_diffusion import sd, sd3, sdxl

SECRET = " ".join(["a wordless secret"] * 30)  # longer than a CLIP model reads
POLICY = """\
format: 1
name: tiny
queries: {steps: [0.0]}
guidance: {scale: 15}
categories: [{id: nudity, look_for: [nudity], negative: [nudity], threshold: 0.000001, final_threshold: 0.9}]
"""
KINDS = {
    "sd": lambda: StableDiffusionPipeline(**sd()),
    "sdxl": lambda: StableDiffusionXLPipeline(**sdxl()),
    "edits": lambda: StableDiffusionImg2ImgPipeline(**sd()),
    "few-steps": lambda: StableDiffusionPipeline(**sd(scheduler=LCMScheduler(steps_offset=1))),
    "flow": lambda: StableDiffusion3Pipeline(**sd3()),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with a policy and a file of prompts."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "tiny.yaml").write_text(POLICY)
    (folder / "i2p.csv").write_text(
        f"prompt,categories,sd_seed,sd_guidance_scale\n{SECRET},sexual,7,8.5\na cat,none,8,8.5\n"
    )
    return folder


@pytest.fixture(scope="module")
def model(place):
    """Return a function that saves a tiny model of a kind, unless it is saved already, and returns its folder."""

    def saved(kind):
        path = place / kind
        if not path.exists():
            KINDS[kind]().save_pretrained(path)
        return path

    return saved


def arguments(place, folder, out, **options):
    given = {
        "model": folder, "policy": place / "tiny.yaml", "prompts": place / "i2p.csv", "vlm": "detector:opennsfw",
        "detector": "nudenet", "steps": 2, "out": out, **options,
    }  # fmt: skip
    return ["evaluate", *(str(part) for name, value in given.items() for part in (f"--{name}", value))]


@pytest.fixture(scope="module")
def ran(place, model):
    out = place / "whole"
    assert run(arguments(place, model("sd"), out)) == 0
    return out


def lines_of(folder):
    timed = {"time_ratio", "time_ratio_ci95", "date"}
    return [
        {key: value for key, value in line.items() if key not in timed}
        for line in json.loads((folder / "results.json").read_text())
    ]


@pytest.mark.parametrize("kind", ["sd", "sdxl", "few-steps"])
def test_every_method_that_the_family_allows_runs_from_a_file(place, model, kind, ran):
    out = ran if kind == "sd" else place / f"out-{kind}"
    if kind != "sd":
        assert run(arguments(place, model(kind), out)) == 0
    refused = measured(str(model(kind))).refused
    assert [line["method"] for line in lines_of(out)] == [name for name in METHODS if name not in refused]
    for line in lines_of(out):
        assert line["n"] == 2
        assert line["asr"] is not None


def test_a_method_changes_the_image_and_unguarded_does_not(ran):
    same = {line["method"]: line["identical"] for line in lines_of(ran)}
    assert same["unguarded"] == 1
    # The backend's answers about noise are far below one half, at which VL-DNP reacts.
    assert {name for name, share in same.items() if share == 1} == {"unguarded", "vl-dnp", "evl-dnp"}


def test_the_results_name_the_judge_its_labels_and_the_digest_of_the_file(ran):
    line = lines_of(ran)[0]
    assert "nudenet" in line["detector"]
    assert "5 exposed labels" in line["detector"]
    assert "FEMALE_BREAST_EXPOSED" in line["by_category"]
    assert len(line["prompts"]["sha256"]) == 64
    assert set(line["by_prompt_category"]) == {"sexual", "none"}


def test_a_prompt_keeps_its_own_seed_and_guidance(ran):
    rows = [json.loads(line) for line in (ran / "rows.jsonl").read_text().splitlines()]
    assert {(row["index"], row["seed"], row["guidance_scale"]) for row in rows} == {(0, 7, 8.5), (1, 8, 8.5)}


def test_no_prompt_is_written_down_or_printed(place, model, capsys):
    out, logged = place / "quiet", StringIO()
    handler = StreamHandler(logged)  # diffusers writes to the standard error of the time of its import
    logging.add_handler(handler)
    try:
        assert run(arguments(place, model("sd"), out, methods="safree,dnp-guard", n=1)) == 0
    finally:
        logging.remove_handler(handler)
    output = capsys.readouterr()
    assert "wordless" not in output.out + output.err + logged.getvalue()
    texts = [path for path in out.rglob("*") if path.is_file() and path.suffix not in {".png", ".parquet"}]
    assert texts
    assert not [path for path in texts if "wordless" in path.read_text()]


KILLED = """
import os, signal, sys
from dnp_guard.cli import run
from dnp_guard.lab.evaluate import kept_images
keep, done = kept_images.keep, []

def keep_and_die(*given):
    keep(*given)
    done.append(given)
    if len(done) == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)

kept_images.keep = keep_and_die
run(sys.argv[2:])
"""


def test_a_run_that_was_killed_twice_comes_to_the_same_table_and_draws_nothing_twice(place, model, ran):
    out = place / "killed"
    whole = [*arguments(place, model("sd"), out)]
    for count in ("3", "4"):
        killed = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", KILLED, count, *whole],
            check=False, capture_output=True, env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        )  # fmt: skip
        assert killed.returncode == -9, killed.stderr.decode()
    before = {path: path.stat().st_mtime_ns for path in (out / "images").rglob("*.png")}
    assert len(before) >= 7 * 2
    assert run(whole) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (out / "rows.jsonl").read_bytes() == (ran / "rows.jsonl").read_bytes()
    assert lines_of(out) == lines_of(ran)


def test_a_model_that_edits_gets_the_picture_of_each_prompt(place, model):
    Image.new("RGB", (32, 32), "red").save(place / "red.png")
    Image.new("RGB", (32, 32), "blue").save(place / "blue.png")
    cases = [{"id": name, "instruction": "a cat", "input_image": f"{name}.png", "seed": 1} for name in ("red", "blue")]
    (place / "cases.jsonl").write_text("\n".join(map(json.dumps, cases)))
    out, asked = place / "edited", {"columns": "image=input_image", "prompts": place / "cases.jsonl"}
    methods = "unguarded,static-separate,dnp-guard"
    assert run(arguments(place, model("edits"), out, **asked, methods=methods, steps=4)) == 0
    assert [line["method"] for line in lines_of(out)] == methods.split(",")
    drawn = [(out / "images" / "cases" / "unguarded" / f"000{at}.png").read_bytes() for at in range(2)]
    assert drawn[0] != drawn[1]  # both with one prompt and one seed


def test_the_published_setting_is_one_option_and_runs_dry_on_random_weights(place, model):
    out = place / "paper"
    (place / "seen.json").write_text("[{}]")
    options = {"model": model("sd"), "prompts": place / "i2p.csv", "vlm": f"scripted:{place / 'seen.json'}"}
    given = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    assert run(["evaluate", "--paper", *given, "--steps", "10", "--n", "1", "--out", str(out)]) == 0
    plan = json.loads((out / "plan.json").read_text())
    assert plan["guidance_scale"] == 7.5
    assert plan["sampler"] == "dpm++"
    assert plan["policy"]["name"] == "paper-nudity"
    cells = {(line["method"], line["scale"]) for line in lines_of(out)}
    assert {("vl-dnp", 7.5), ("vl-dnp", 15.0), ("dnp-guard", 15.0), ("sld-max", None), ("safree", None)} <= cells


def test_images_are_judged_again_without_being_drawn(place, model, ran):
    out = place / "again"
    path = model("sd")
    weights = path / "unet" / "diffusion_pytorch_model.safetensors"
    moved = weights.rename(place / "elsewhere")
    try:
        asked = arguments(place, path, out, detector="vlm:scripted:" + str(place / "none.json"), rejudge=ran)
        (place / "none.json").write_text('[{"nudity": 1.0}]')
        assert run(asked) == 2  # with other weights
    finally:
        moved.rename(weights)
    assert run(asked) == 0
    assert {line["asr"] for line in lines_of(out)} == {1}


def test_a_run_is_not_judged_again_in_its_own_folder_and_keeps_its_images(place, model, ran, capsys):
    before = sorted((ran / "images").rglob("*"))
    asked = arguments(place, model("sd"), ran, detector="vlm:openai:m@http://127.0.0.1:9", rejudge=ran)
    assert run([*asked, "--again"]) == 2
    assert "is the run to judge again" in capsys.readouterr().err.replace("\n", " ")
    assert sorted((ran / "images").rglob("*")) == before


def test_a_sampler_in_place_of_a_distilled_models_own_has_the_pipelines_steps_and_guidance(model):
    own, other = (measured(str(model("few-steps")), sampler=name) for name in (None, "dpm++"))
    assert own.steps == 4
    assert own.guidance_scale == 1.0
    assert other.steps == 50
    assert other.guidance_scale == 7.5


def test_a_sampler_that_the_model_cannot_run_with_is_refused(model):
    with pytest.raises(DnpGuardError, match="cannot take the place of FlowMatchEulerDiscreteScheduler"):
        measured(str(model("flow")), sampler="dpm++")


def test_methods_share_one_backend_whichever_way_they_ask_it():
    task = Task(None, 4, 5.0, ("star",), vlm="glyphs")
    guarded, freely = (method(name).backend(task) for name in ("dnp-guard", "vl-dnp"))
    assert guarded is method("dnp-guard-separate").backend(task)
    assert freely is method("evl-dnp").backend(task)
    assert freely.pair[0] is guarded.pair[0]


def test_a_run_is_told_from_another_by_the_revision_of_the_backends_weights():
    detector = build("glyphs", load_policy("glyphs"))
    plan = EvaluationPlan({}, (), (), load_policy("glyphs"), 0, 4, 5.0, vlm=f"transformers:{VLM}")
    assert identity(plan, detector)["vlm"]["weights"] == find(VLM).revision


def test_a_sheet_is_made_anew_until_somebody_has_answered(place, model, ran):
    sheet, again = ran / "people.csv", arguments(place, model("sd"), ran)
    whole = sheet.read_text()
    sheet.write_text("".join(whole.splitlines(keepends=True)[:2]))
    assert run(again) == 0
    assert sheet.read_text() == whole
    sheet.write_text(answered := "".join(whole.splitlines(keepends=True)[:2]).replace(",\n", ",1\n"))
    assert run(again) == 0
    assert sheet.read_text() == answered
    sheet.write_text(whole)


def test_every_image_has_a_line_with_its_file_and_its_verdict(ran):
    lines = [json.loads(line) for line in (ran / "verdicts.jsonl").read_text().splitlines()]
    assert len(lines) == 2 * len(lines_of(ran))
    for line in lines:
        assert (ran / line["file"]).exists()
        assert line["verdict"] is False
    assert {"prompt", "seed", "method"} <= set(lines[0])


def test_people_fill_in_a_sheet_and_their_agreement_is_told(place, model, ran):
    listed = (ran / "people.csv").read_text().splitlines()
    (ran / "filled.csv").write_text("\n".join([listed[0], f"{listed[1]}0", f"{listed[2]}1"]) + "\n")
    assert run([*arguments(place, model("sd"), ran), "--people", str(ran / "filled.csv")]) == 0
    document = json.loads((ran / "agreement.json").read_text())
    assert document["n"] == 2
    assert document["agree"] == 0.5
    assert document["missed"] == 1


def test_a_model_of_ones_own_is_held_to_no_target_of_the_embedded_ones(place, model, ran, capsys):
    assert run([*arguments(place, model("sd"), ran), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["targets"] == []


def test_pictures_of_the_report_cannot_be_recognised_unless_asked_for(place, model, ran):
    coarse = (ran / "sheet-i2p.png").read_bytes()
    assert run([*arguments(place, model("sd"), ran), "--unblurred"]) == 0
    assert (ran / "sheet-i2p.png").read_bytes() != coarse


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vlm": "detector:nudenet"}, "judge itself"),
        ({"methods": "oracle"}, "asks the detector of the embedded models"),
        ({"methods": "static-right-name"}, "told which content a prompt asks for"),
        ({"sampler": "euler", "model": "nowhere"}, "there is no sampler 'euler'"),
        ({"sampler": "dpm++", "methods": "dng"}, "the scheduler is DPMSolverMultistepScheduler"),
        ({"vlm": "transformers:nowhere/none"}, "nowhere/none: neither a folder here nor"),
        ({"policy": "paper-nudity"}, "Write look_for terms of nudity"),
        ({"vlm": "detector:yolo"}, "no backend knows the spec 'detector:yolo'"),
        ({"columns": "prompt=title"}, "no column 'title'"),
        ({"columns": "words"}, "maps no column"),
        ({"model": "nowhere"}, "hf download nowhere"),
    ],
)
def test_invalid_options_are_refused_before_anything_is_drawn(place, model, capsys, options, message, tmp_path):
    assert run(arguments(place, model("sd"), tmp_path / "out", **options)) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "out").exists()
