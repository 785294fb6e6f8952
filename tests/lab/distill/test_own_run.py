"""Training examples for the probe come from a run made for this, or from an audit log with stored latents."""

import json

import pytest
import torch
from safetensors.torch import load_file

from dnp_guard import Guard
from dnp_guard.cli import run as command
from dnp_guard.errors import DnpGuardError
from dnp_guard.glyphs.loading import load_pipeline
from dnp_guard.lab.distill.archive import Latents, read
from dnp_guard.lab.distill.own_run import watch
from dnp_guard.types import Step
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.policies import bolt, policy, star

pytestmark = pytest.mark.models

STEPS = 5
SEEN = [[{"star": 0.9}, {}], [{}, {"bolt": 0.8}], [{}, {}]]


@pytest.fixture(scope="module")
def pipe():
    return load_pipeline()


def test_a_run_looks_at_every_step_from_the_policys_first_on(pipe):
    looks = watch(pipe, ScriptedBackend([{}]), policy(), ["a red circle", "a blue ring"], steps=STEPS)
    assert [(look.image, look.progress) for look in looks] == [
        (image, step / STEPS) for step in range(1, STEPS) for image in ("0 0", "0 1")
    ]
    assert looks[0].latents.shape == (8, 8, 8)


def test_a_run_keeps_what_was_found(pipe):
    looks = watch(pipe, ScriptedBackend(SEEN), policy(), ["a red circle", "a blue ring"], steps=STEPS)
    assert [set(look.found) for look in looks[:4]] == [{"star"}, set(), set(), {"bolt"}]


def test_three_batches_of_four_are_not_steered(pipe):
    calls = []
    backend = ScriptedBackend(lambda images, questions: calls.append(1) or [[1.0] * len(questions) for _ in images])
    rows = []
    counter = pipe.unet.conv_in.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    watch(pipe, backend, policy(), ["a red circle"] * 4, steps=STEPS, batch=1)
    counter.remove()
    # One image of four evaluates a negative from the step after the first look.
    assert sum(rows) == 4 * STEPS * 2 + (STEPS - 2)


def test_nothing_sensitive_is_learned(pipe):
    secret = {"id": "secret", "sensitive": True, "action": "block", "still_present": "block"}
    with pytest.raises(DnpGuardError, match="nothing of the sensitive category 'secret'"):
        watch(pipe, ScriptedBackend([{}]), policy(categories=[star(), secret]), ["a red circle"], steps=STEPS)


@pytest.fixture
def recorded(pipe, tmp_path):
    of = policy()
    log, folder = tmp_path / "audit.jsonl", tmp_path / "latents"
    with Guard(of, vlm=ScriptedBackend(SEEN), audit=log, plugins=[Latents(folder, of)]) as guard, guard.attached(pipe):
        pipe(["a red circle", "a blue ring"], num_inference_steps=STEPS, guidance_scale=5.0)
    return log, folder, of


def test_a_log_and_its_latents_make_the_same_looks(recorded):
    log, folder, of = recorded
    looks, vlm = read(log, folder, of)
    assert vlm[0] == "scripted"
    assert [(look.progress, set(look.found)) for look in looks[:4]] == [
        (0.2, {"star"}),
        (0.2, set()),
        (0.4, set()),
        (0.4, {"bolt"}),
    ]
    assert {look.latents.shape for look in looks} == {(8, 8, 8)}


def test_a_log_of_another_policy_is_refused(recorded):
    log, folder, _ = recorded
    with pytest.raises(DnpGuardError, match="no looks of policy"):
        read(log, folder, policy(categories=[star(threshold=0.6), bolt()]))


def test_a_log_without_its_latents_is_refused(recorded, tmp_path):
    log, _, of = recorded
    with pytest.raises(DnpGuardError, match="no looks of policy"):
        read(log, tmp_path / "elsewhere", of)


def test_the_command_needs_a_log_and_its_latents_together(tmp_path, capsys):
    assert command(["distill", "--from", str(tmp_path / "audit.jsonl")]) == 2
    assert "--from and --latents go together" in capsys.readouterr().err


def test_the_command_needs_prompts_for_another_model(tmp_path, capsys):
    assert command(["distill", "--model", str(tmp_path)]) == 2
    assert "Give --prompts FILE" in capsys.readouterr().err


def test_the_command_trains_from_a_run_and_says_what_the_probe_does(tmp_path, capsys):
    out = tmp_path / "probe.safetensors"
    assert command(["distill", "--images", "48", "--steps", "6", "--out", str(out), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert out.exists()
    assert [row["max_miss"] for row in document["checked"]] == [0.01, 0.02, 0.05]
    assert document["looks"] > 48


def test_two_generations_that_take_turns_keep_all_their_latents(tmp_path):
    latents = Latents(tmp_path, policy())
    for index in range(2):
        for request in ("one", "other"):
            prediction = torch.full((1, 4, 2, 2), float(index))
            latents.dnp_guard_before_query(request, Step(index, 2, None, prediction), [])
    for request in ("one", "other"):
        saved = load_file(tmp_path / f"{request}.safetensors")
        assert {step: tensor.unique().item() for step, tensor in saved.items()} == {"0": 0.0, "1": 1.0}


def test_nothing_is_learned_about_categories_that_a_look_did_not_ask_about(pipe, tmp_path):
    of = policy(categories=[star(), bolt(queries={"steps": [0.6]})])
    log, folder = tmp_path / "audit.jsonl", tmp_path / "latents"
    with Guard(of, vlm=ScriptedBackend(SEEN), audit=log, plugins=[Latents(folder, of)]) as guard, guard.attached(pipe):
        pipe("a red circle", num_inference_steps=STEPS, guidance_scale=5.0)
    looks, _ = read(log, folder, of)
    assert [look.progress for look in looks] == [0.6]
