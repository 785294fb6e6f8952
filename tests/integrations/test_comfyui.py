"""The ComfyUI nodes guard workflows in a stand-in for ComfyUI, on the embedded model."""

import asyncio
import json
import sys
from collections import Counter
from contextlib import ExitStack, nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from dnp_guard import Guard
from dnp_guard.glyphs.loading import load_pipeline
from dnp_guard.server.settings import Settings
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.hosts import comfyui_host, host_check_comfyui
from tests.hosts.comfyui_host import INTEGRATION, PREVIEWS, SAMPLER_NAMES, InpaintingModel, install
from tests.integrations.conftest import Guarded, listening
from tests.policies import policy, star, written

pytestmark = [pytest.mark.models, pytest.mark.filterwarnings("ignore:Should have:UserWarning:torchsde")]

STEPS = 8
CLEAN = {"star": 0.0}
SECOND = [{}, {"star": 0.9}, {}]
SHEET = (2 * 16 + 6 + 3 * 102, 6 + 5 * 102)
"""Width and height of the report's picture of looks."""

STEERED = [240, 150, 40]
SEES_A_STAR_ONCE = [[{}, {}, {}], SECOND, CLEAN]


@pytest.fixture(scope="module")
def pipe():
    return load_pipeline()


@pytest.fixture
def comfy(pipe, monkeypatch):
    for name in ("URL", "TOKEN", "TOKEN_FILE", "POLICY", "VLM", "AUDIT", "ENFORCE", "ON_FAILURE"):
        monkeypatch.delenv(f"DNP_GUARD_{name}", raising=False)
    return install(monkeypatch, pipe)


@pytest.fixture
def enforcing(pipe, monkeypatch):
    monkeypatch.setenv("DNP_GUARD_ENFORCE", "server")
    monkeypatch.setenv("DNP_GUARD_VLM", "scripted:")
    return install(monkeypatch, pipe)


def inside(monkeypatch, script=(CLEAN,), of=None):
    """Let the nodes guard in this process with a scripted backend, and return the guard."""
    guard = Guard(of or policy(), vlm=ScriptedBackend(list(script)))
    inprocess = sys.modules["comfyui_dnp_guard.inprocess"]
    monkeypatch.setattr(inprocess, "guard_for", lambda *_: guard)
    return guard


def workflow(*, sampler="euler", cfg=5.0, seed=3, batch=3, steps=STEPS, text="a red circle at night"):
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "glyphs"}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": text}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": ""}},
        "4": {"class_type": "EmptyLatentImage", "inputs": {"width": 32, "height": 32, "batch_size": batch}},
        "5": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["1", 0],
                "positive": ["2", 0],
                "negative": ["3", 0],
                "latent_image": ["4", 0],
                "seed": seed,
                "steps": steps,
                "cfg": cfg,
                "sampler_name": sampler,
                "scheduler": "normal",
                "denoise": 1.0,
            },
        },
        "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
        "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "plain"}},
    }


def with_nodes(plain, **inputs):
    """Add to a workflow *DNP Guard* before the sampler, *Final Look* before saving, and *Guard Report*."""
    chosen = {"policy": "", "mode": "auto", "vlm": "scripted:", "service": "", "vae": ["1", 2], **inputs}
    nodes = json.loads(json.dumps(plain))
    nodes["8"] = {"class_type": "DNPGuard", "inputs": {"model": ["1", 0], "clip": ["1", 1], **chosen}}
    nodes["5"]["inputs"]["model"] = ["8", 0]
    nodes["9"] = {"class_type": "DNPGuardFinalLook", "inputs": {"images": ["6", 0], "guard": ["8", 1]}}
    nodes["7"]["inputs"]["images"] = ["9", 0]
    nodes["10"] = {"class_type": "DNPGuardReport", "inputs": {"guard": ["8", 1], "images": ["9", 0]}}
    return nodes


def drawn(comfy, nodes):
    status, outputs = comfy.server.post(nodes)
    assert status == 200, outputs
    return comfy.saved[-1], outputs


def same(first, other):
    return [bool(torch.equal(a, b)) for a, b in zip(first, other, strict=True)]


def grey(image):
    """Return whether a picture is the placeholder of a withheld one: grey, with words or a sign on it."""
    shown = np.asarray(image)
    colours = shown.reshape(-1, shown.shape[-1]) if shown.ndim == 3 else shown.reshape(-1, 1)
    return bool((colours == colours[:, :1]).all()) and float(colours[0, 0]) == pytest.approx(128 / 255)


class TestTheNodes:
    @pytest.mark.parametrize("sampler", SAMPLER_NAMES)
    def test_a_run_in_which_nothing_is_found_is_bit_identical(self, comfy, monkeypatch, sampler):
        plain, _ = drawn(comfy, workflow(sampler=sampler))
        guard = inside(monkeypatch)
        watched, _ = drawn(comfy, with_nodes(workflow(sampler=sampler)))
        assert same(plain, watched) == [True] * 3
        assert len(guard.last.images[0].queries) > 2

    @pytest.mark.parametrize("sampler", SAMPLER_NAMES)
    def test_only_the_image_in_which_something_is_found_is_steered(self, comfy, monkeypatch, sampler):
        nodes = workflow(sampler=sampler, steps=16 if sampler == "dpm_fast" else STEPS)  # three evaluations per step
        plain, _ = drawn(comfy, nodes)
        guard = inside(monkeypatch, SEES_A_STAR_ONCE)
        steered, _ = drawn(comfy, with_nodes(nodes))
        alike = sampler != "dpm_adaptive"  # the length of its steps depends on the whole batch
        assert same(plain, steered) == [alike, False, alike]
        assert [len(image.negatives) for image in guard.last.images] == [0, 1, 0]
        assert guard.last.degraded == ()

    def test_a_sampler_whose_steps_grow_shorter_is_steered_in_the_step_that_was_looked_at(self, comfy, monkeypatch):
        nodes = workflow(sampler="dpm_fast", steps=6)  # steps of three, two and one evaluations
        plain, _ = drawn(comfy, nodes)
        inside(monkeypatch, [SECOND, CLEAN])
        steered, _ = drawn(comfy, with_nodes(nodes))
        assert same(plain, steered) == [True, False, True]

    @pytest.mark.parametrize("mode", ["separate", "replace"])
    def test_every_mode_of_guidance_steers(self, comfy, monkeypatch, mode):
        plain, _ = drawn(comfy, workflow())
        settings = {"mode": mode, **({"scale": None, "strength": None} if mode == "replace" else {})}
        guard = inside(monkeypatch, SEES_A_STAR_ONCE, policy(guidance=settings))
        steered, _ = drawn(comfy, with_nodes(workflow()))
        assert same(plain, steered) == [True, False, True]
        assert guard.last.degraded == ()

    def test_a_run_without_guidance_is_steered_from_its_only_prediction(self, comfy, monkeypatch):
        plain, _ = drawn(comfy, workflow(cfg=1.0))
        guard = inside(monkeypatch, SEES_A_STAR_ONCE)
        steered, _ = drawn(comfy, with_nodes(workflow(cfg=1.0)))
        assert same(plain, steered) == [True, False, True]
        assert guard.last.degraded == ()

    def test_replacing_an_unconditional_that_is_not_in_use_is_not_effective_and_says_so(self, comfy, monkeypatch):
        plain, _ = drawn(comfy, workflow(cfg=1.0))
        replacing = policy(guidance={"mode": "replace", "scale": None, "strength": None})
        guard = inside(monkeypatch, SEES_A_STAR_ONCE, replacing)
        images, _ = drawn(comfy, with_nodes(workflow(cfg=1.0)))
        assert same(plain, images) == [True] * 3
        assert set(guard.last.degraded) == {"not_effective"}

    def test_a_guider_without_a_negative_is_guarded(self, comfy, monkeypatch):
        nodes = workflow()
        nodes["11"] = {"class_type": "BasicGuider", "inputs": {"model": ["1", 0], "conditioning": ["2", 0]}}
        taken = {key: nodes["5"]["inputs"][key] for key in ("latent_image", "seed", "steps", "sampler_name")}
        nodes["5"] = {"class_type": "SamplerCustomAdvanced", "inputs": {"guider": ["11", 0], **taken}}
        plain, _ = drawn(comfy, nodes)
        inside(monkeypatch, SEES_A_STAR_ONCE)
        guarded = with_nodes(nodes)
        guarded["5"]["inputs"].pop("model")
        guarded["11"]["inputs"]["model"] = ["8", 0]
        steered, _ = drawn(comfy, guarded)
        assert same(plain, steered) == [True, False, True]

    def test_two_guards_one_behind_the_other_are_one(self, comfy, monkeypatch):
        guard = inside(monkeypatch, SEES_A_STAR_ONCE)
        one, _ = drawn(comfy, with_nodes(workflow()))
        guard = inside(monkeypatch, SEES_A_STAR_ONCE)
        nodes = with_nodes(workflow(seed=3, text="a red circle at night"))
        nodes["12"] = json.loads(json.dumps(nodes["8"]))
        nodes["8"]["inputs"]["model"] = ["12", 0]
        two, _ = drawn(comfy, nodes)
        assert same(one, two) == [True] * 3
        assert len(guard.last.images[0].queries) == 5

    def test_the_model_it_was_made_of_is_left_plain(self, comfy, monkeypatch):
        plain, _ = drawn(comfy, workflow())
        inside(monkeypatch, [SECOND])
        drawn(comfy, with_nodes(workflow()))
        drawn(comfy, workflow(seed=4))
        again, _ = drawn(comfy, workflow())
        assert Counter(comfy.server.executed)["KSampler"] == 0  # it is cached, so run it again under another name
        renamed = {f"{name}0": node for name, node in workflow().items()}
        for node in renamed.values():
            links = {
                key: [f"{value[0]}0", value[1]] for key, value in node["inputs"].items() if isinstance(value, list)
            }
            node["inputs"] |= links
        again, _ = drawn(comfy, renamed)
        assert Counter(comfy.server.executed)["KSampler"] == 1
        assert same(plain, again) == [True] * 3

    def test_a_cached_guard_starts_every_run_anew(self, comfy, monkeypatch):
        guard = inside(monkeypatch, [*SEES_A_STAR_ONCE, CLEAN, CLEAN])
        drawn(comfy, with_nodes(workflow()))
        first = guard.last.request
        comfy.server.post(with_nodes(workflow(seed=4)))
        assert guard.last.request != first
        assert guard.last.images[1].negatives == ()
        assert "DNPGuard" not in comfy.server.executed

    def test_the_models_own_place_is_given_back_after_each_look(self, comfy, monkeypatch):
        guard = inside(monkeypatch)
        drawn(comfy, with_nodes(workflow()))
        assert len(comfy.reloads) == len(guard.last.images[0].queries) - 1

    def test_without_a_vae_the_looks_are_of_the_latents_colours(self, comfy, monkeypatch):
        nodes = with_nodes(workflow())
        del nodes["8"]["inputs"]["vae"]
        guard = inside(monkeypatch)
        _, outputs = drawn(comfy, nodes)
        assert len(guard.last.images[0].queries) == 5
        assert outputs["10"][1].shape == (1, *SHEET, 3)

    def test_the_hosts_own_preview_shows_no_more_than_the_policy_allows(self, comfy, monkeypatch):
        inside(monkeypatch, [SECOND])
        drawn(comfy, with_nodes(workflow()))
        assert [bool(picture.any()) for picture in PREVIEWS[-1]] == [True, False, True]

    def test_a_run_that_is_interrupted_is_abandoned(self, comfy, monkeypatch):
        guard = inside(monkeypatch)
        monkeypatch.setattr(
            "tests.hosts.comfyui_host.calc_cond_batch", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            comfy.server.post(with_nodes(workflow()))
        assert guard.last.decision == "failed_closed"
        assert guard.last.images[0].queries == ()

    def test_a_run_that_cannot_be_steered_goes_on_and_is_recorded(self, comfy, monkeypatch):
        plain, _ = drawn(comfy, workflow())
        guard = inside(monkeypatch, [SECOND, SECOND, SECOND, SECOND, CLEAN])
        monkeypatch.setattr(
            sys.modules["comfyui_dnp_guard.host"], "encode", lambda *_: (_ for _ in ()).throw(RuntimeError("no token"))
        )
        images, _ = drawn(comfy, with_nodes(workflow()))
        assert same(plain, images) == [True] * 3
        assert guard.last.degraded

    def test_the_masked_part_is_kept_and_the_rest_is_steered(self, comfy, monkeypatch):
        nodes = host_check_comfyui.masked(workflow())
        plain, _ = drawn(comfy, nodes)
        guard = inside(monkeypatch, SEES_A_STAR_ONCE)
        steered, _ = drawn(comfy, with_nodes(nodes))
        assert same(plain, steered) == [True, False, True]
        moved = (plain[1] - steered[1]).abs().amax(dim=(0, 2))  # the decoder mixes neighbouring pixels
        assert float(moved[:8].max()) < float(moved[16:].max()) / 10
        assert guard.last.degraded == ()

    @pytest.mark.parametrize("mode", ["separate", "replace"])
    def test_a_negative_is_evaluated_with_all_that_the_run_is_given_besides_words(self, comfy, monkeypatch, mode):
        made = []
        monkeypatch.setattr(comfyui_host, "Model", lambda pipe: made.append(InpaintingModel(pipe)) or made[-1])
        nodes = host_check_comfyui.masked(workflow())
        nodes["22"] = {"class_type": "FluxGuidance", "inputs": {"conditioning": ["3", 0], "guidance": 2.0}}
        nodes["5"]["inputs"]["negative"] = ["22", 0]
        settings = {"mode": mode, **({"scale": None, "strength": None} if mode == "replace" else {})}
        guard = inside(monkeypatch, SEES_A_STAR_ONCE, policy(guidance=settings))
        drawn(comfy, with_nodes(nodes))
        (untouched, _), *_ = made[0].given
        asked = [given for given in made[0].given if len(given[0]) == 1]
        assert asked
        assert all(torch.equal(concat, untouched[1:2]) for concat, _ in asked)
        assert {float(strength) for _, strength in asked} == {2.0}
        assert guard.last.degraded == ()

    def test_words_put_before_the_users_negative_are_attended_to_as_it_is(self, comfy):
        joined = sys.modules["comfyui_dnp_guard.host"].joined
        words = [[torch.zeros(1, 2, 4), {"attention_mask": torch.tensor([[1, 0]])}]]
        users = [{"cross_attn": torch.ones(1, 3, 4), "attention_mask": torch.tensor([[1, 1, 0]])}]
        ((cond, more),) = joined(words, users)
        assert cond[0, :, 0].tolist() == [0, 0, 1, 1, 1]
        assert more["attention_mask"].tolist() == [[1, 0, 1, 1, 0]]


class TestSamplingMoreThanOnce:
    """Several samplers may use the model that one node guards."""

    @staticmethod
    def twice(plain):
        """Add a second sampler of the guarded model, so that both run before either image has its final look."""
        nodes = with_nodes(plain)
        again = {"5": "25", "6": "26", "7": "27", "9": "29"}
        for name, other in again.items():
            nodes[other] = json.loads(json.dumps(nodes[name]))
            links = {
                key: [again.get(value[0], value[0]), value[1]]
                for key, value in nodes[other]["inputs"].items()
                if isinstance(value, list)
            }
            nodes[other]["inputs"] |= links
        nodes["25"]["inputs"]["seed"] += 1
        first = {f"0{name}": {"class_type": "SaveLatent", "inputs": {"samples": [name, 0]}} for name in ("5", "25")}
        return {**first, **nodes}

    @staticmethod
    def delivered(run):
        return [np.asarray(picture) for picture in run.delivered]

    def test_each_run_has_its_final_look_at_what_it_drew(self, comfy, monkeypatch):
        guard = inside(monkeypatch)
        status, _ = comfy.server.post(self.twice(workflow(batch=1)))
        assert status == 200
        runs = sys.modules["comfyui_dnp_guard.runs"].RUNS.latest("8")
        saved = [(images[0].numpy() * 255).round().astype(np.uint8) for images in comfy.saved]
        assert not np.array_equal(*saved)
        assert [np.array_equal(self.delivered(run)[0], image) for run, image in zip(runs, saved, strict=True)] == [
            True,
            True,
        ]
        assert [str(run.batch.decision(0)) for run in runs] == ["clean", "clean"]
        assert len(guard.last.images[0].queries) == 5  # and not the single look at images that nobody drew

    def test_images_from_elsewhere_are_not_taken_for_what_a_run_drew(self, comfy, monkeypatch):
        inside(monkeypatch)
        nodes = with_nodes(workflow(batch=1))
        nodes["1l"] = {"class_type": "LoadImage", "inputs": {"image": "x"}}
        nodes["9"]["inputs"]["images"] = ["1l", 0]
        nodes = {"05": {"class_type": "SaveLatent", "inputs": {"samples": ["5", 0]}}, **nodes}
        comfy.server.post(nodes)
        (run,) = sys.modules["comfyui_dnp_guard.runs"].RUNS.latest("8")
        assert run.delivered == []

    def test_a_further_look_uses_the_guards_own_settings(self, comfy, monkeypatch):
        guard = inside(monkeypatch)
        nodes = with_nodes(workflow(batch=1))
        nodes["29"] = json.loads(json.dumps(nodes["9"]))
        nodes["27"] = {"class_type": "SaveImage", "inputs": {"images": ["29", 0], "filename_prefix": "again"}}
        drawn(comfy, nodes)
        assert not grey(comfy.saved[-1])
        assert guard.last.decision == "clean"

    def test_two_passes_share_the_look_at_what_came_of_both(self, comfy, monkeypatch):
        inside(monkeypatch)
        nodes = workflow(batch=1)
        nodes["25"] = json.loads(json.dumps(nodes["5"]))
        nodes["25"]["inputs"] |= {"latent_image": ["5", 0], "denoise": 0.6}
        nodes["6"]["inputs"]["samples"] = ["25", 0]
        nodes = with_nodes(nodes)
        nodes["25"]["inputs"]["model"] = ["8", 0]
        drawn(comfy, nodes)
        first, second = sys.modules["comfyui_dnp_guard.runs"].RUNS.latest("8")
        assert np.array_equal(self.delivered(first)[0], self.delivered(second)[0])

    @pytest.fixture
    def runs(self, comfy):
        return sys.modules["comfyui_dnp_guard.runs"]

    @staticmethod
    def run(*drawn_by):
        return SimpleNamespace(images=1, prompt="p", drawn_by=drawn_by or None, settle=lambda pictures: None)

    def begun(self, runs, *run_list):
        opened = runs.Runs()
        for run in run_list:
            opened.begin("8", run, (None, ""))
        return opened

    def test_nodes_that_a_node_added_during_the_run_belong_to_it(self, runs):
        inner, other = self.run("5.0.0.3", 0), self.run("50", 0)
        assert self.begun(runs, inner, other).settle(["8"], ["picture"], {"5"}, 0) == [inner]

    def test_runs_over_a_list_have_their_own_images(self, runs):
        first, second = self.run("5", 0), self.run("5", 1)
        opened = self.begun(runs, first, second)
        assert [opened.settle(["8"], ["picture"], {"5"}, item) for item in (0, 1)] == [[first], [second]]

    def test_every_run_is_looked_at_if_the_host_does_not_name_the_running_node(self, runs):
        first, second = self.run(), self.run("5", 0)
        assert self.begun(runs, first, second).settle(["8"], ["picture"], set(), 0) == [first, second]

    def test_nothing_is_known_of_a_graph_without_the_node(self, runs):
        assert runs.made_of(None, "9", "images") == set()

    def test_a_graph_that_turns_in_a_circle_is_gone_through_once(self, runs):
        graph = {"9": {"inputs": {"images": ["6", 0]}}, "6": {"inputs": {"samples": ["5", 0], "vae": "x"}}}
        graph["5"] = {"inputs": {"latent_image": ["6", 0]}}
        assert runs.made_of(SimpleNamespace(get_node=graph.__getitem__), "9", "images") == {"6", "5"}


class TestTheStatus:
    """``GET /dnp-guard/status`` counts images by outcome."""

    @staticmethod
    def images(comfy):
        return asyncio.run(comfy.server.routes["/dnp-guard/status"](None))["images"]

    def test_it_counts_images_by_what_became_of_them(self, comfy, monkeypatch):
        inside(monkeypatch, [SECOND])
        drawn(comfy, with_nodes(workflow()))
        assert self.images(comfy) == {"clean": 2, "blocked": 1}

    def test_it_counts_what_passed_unguarded(self, comfy, monkeypatch):
        monkeypatch.setenv("DNP_GUARD_URL", "http://127.0.0.1:9")
        monkeypatch.setenv("DNP_GUARD_ON_FAILURE", "open")
        drawn(comfy, with_nodes(workflow(), vlm=""))
        assert self.images(comfy) == {"failed_open": 3}

    def test_it_counts_what_was_never_drawn(self, comfy, monkeypatch):
        monkeypatch.setenv("DNP_GUARD_URL", "http://127.0.0.1:9")
        with pytest.raises(sys.modules["comfyui_dnp_guard.batch"].Withheld):
            comfy.server.post(with_nodes(workflow(), vlm=""))
        assert self.images(comfy) == {"failed_closed": 3}


class TestTheFinalLook:
    @pytest.mark.parametrize(("still", "changed"), [("block", True), ("blur", True), ("monitor", False)])
    def test_a_finding_at_the_end_is_blank_blurred_or_passed(self, comfy, monkeypatch, still, changed):
        inside(monkeypatch, [SECOND], policy(categories=[star(still_present="monitor")]))
        passed, _ = drawn(comfy, with_nodes(workflow()))
        inside(monkeypatch, [SECOND], policy(categories=[star(still_present=still)]))
        images, outputs = drawn(comfy, with_nodes(workflow(text="a red circle at night ")))
        assert same(passed, images) == [True, not changed, True]
        assert grey(images[1]) is (still == "block")
        decided = {"block": "blocked", "blur": "blurred", "monitor": "steered"}[still]
        assert f"image 1: {decided}" in outputs["10"][0]

    def test_images_that_no_guard_drew_are_looked_at_once(self, comfy, monkeypatch):
        monkeypatch.setenv("DNP_GUARD_VLM", "scripted:")
        guard = inside(monkeypatch, [{"star": 0.9}])
        nodes = {
            "1": {"class_type": "LoadImage", "inputs": {"image": "x"}},
            "2": {"class_type": "DNPGuardFinalLook", "inputs": {"images": ["1", 0]}},
            "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}},
        }
        images, _ = drawn(comfy, nodes)
        assert guard.last.decision == "blocked"
        assert float(images[0, 0, 0, 0]) == pytest.approx(128 / 255)

    def test_the_report_tells_what_was_steered_and_shows_the_looks(self, comfy, monkeypatch):
        inside(monkeypatch, SEES_A_STAR_ONCE)
        _, outputs = drawn(comfy, with_nodes(workflow()))
        text, timeline = outputs["10"]
        assert text.splitlines() == [
            "run 1: 3 images, looked at after steps [2, 3, 5, 6]",
            "image 0: clean",
            "image 1: steered star@3",
            "image 2: clean",
        ]
        assert timeline.shape == (1, *SHEET, 3)
        frames = np.asarray((timeline[0] * 255).round().int()).tolist()
        steered = {(top, left) for top, row in enumerate(frames) for left, at in enumerate(row) if at == STEERED}
        cells = {((top - 35) // 102, (left - 3) // 102) for top, left in steered}
        assert cells == {(1, 1)}  # it is the second image, at the second look

    def test_the_timeline_is_shown_below_the_report(self, comfy, monkeypatch, tmp_path):
        inside(monkeypatch, SEES_A_STAR_ONCE)
        monkeypatch.setitem(sys.modules, "folder_paths", SimpleNamespace(get_temp_directory=lambda: str(tmp_path)))
        _, outputs = drawn(comfy, with_nodes(workflow()))
        (shown,) = comfy.server.shown["10"]["images"]
        with Image.open(tmp_path / shown["filename"]) as picture:
            assert np.array_equal(np.asarray(picture), (outputs["10"][1][0] * 255).round())
        assert shown["type"] == "temp"

    def test_a_backend_that_is_down_withholds_every_image(self, comfy, monkeypatch):
        inside(monkeypatch, [{"error": "unavailable"}])
        images, _ = drawn(comfy, with_nodes(workflow()))
        assert grey(images)


class TestEnforcing:
    def test_a_plain_workflow_is_guarded_and_looked_at(self, enforcing, monkeypatch):
        guard = inside(monkeypatch, [SECOND])
        images, _ = drawn(enforcing, workflow())
        assert [image.decision for image in guard.last.images] == ["clean", "blocked", "clean"]
        assert [grey(image) for image in images] == [False, True, False]
        assert Counter(enforcing.server.executed)["DNPGuard"] == 1

    def test_a_model_changed_on_its_way_is_guarded_once(self, enforcing, monkeypatch):
        guard = inside(monkeypatch)
        nodes = workflow()
        nodes["13"] = {"class_type": "LoraLoader", "inputs": {"model": ["1", 0], "clip": ["1", 1]}}
        nodes["5"]["inputs"]["model"] = ["13", 0]
        nodes["2"]["inputs"]["clip"] = nodes["3"]["inputs"]["clip"] = ["13", 1]
        drawn(enforcing, nodes)
        assert len(guard.last.images[0].queries) == 5

    def test_a_picture_that_no_model_drew_is_looked_at_before_it_is_saved(self, enforcing, monkeypatch):
        inside(monkeypatch, [{"star": 0.9}])
        nodes = {
            "1": {"class_type": "LoadImage", "inputs": {"image": "x"}},
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
        }
        images, _ = drawn(enforcing, nodes)
        assert float(images[0, 0, 0, 0]) == pytest.approx(128 / 255)

    def test_a_picture_that_is_delivered_twice_is_looked_at_once(self, enforcing, monkeypatch):
        guard = inside(monkeypatch, [CLEAN, CLEAN, CLEAN, CLEAN, {"star": 0.9}, CLEAN])
        nodes = workflow()
        nodes["14"] = {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "again"}}
        drawn(enforcing, nodes)
        assert Counter(enforcing.server.executed)["DNPGuardFinalLook"] == 1
        assert [[grey(image) for image in images] for images in enforcing.saved] == [[True] * 3] * 2
        assert len(guard.last.images[0].queries) == 5

    def test_a_final_look_of_the_workflows_own_leaves_the_run_to_the_guards(self, enforcing, monkeypatch):
        guard = inside(monkeypatch)
        nodes = workflow()
        nodes["15"] = {"class_type": "DNPGuardFinalLook", "inputs": {"images": ["6", 0]}}
        nodes["7"]["inputs"]["images"] = ["15", 0]
        drawn(enforcing, nodes)
        assert len(guard.last.images[0].queries) == 5

    @pytest.mark.parametrize(("delivers", "kind"), [("SaveImage", "IMAGE"), ("SaveLatent", "LATENT")])
    def test_the_type_of_a_link_through_a_node_of_any_type_is_that_of_its_target(self, enforcing, delivers, kind):
        def takes(cls):
            return {"required": {"given": (kind,)}}

        switch = type("AnySwitch", (), {"RETURN_TYPES": ("*",)})
        sink = type(delivers, (), {"RETURN_TYPES": (), "OUTPUT_NODE": True, "INPUT_TYPES": classmethod(takes)})
        nodes = {
            "1": {"class_type": "LoadImage", "inputs": {"image": "x"}},
            "2": {"class_type": "AnySwitch", "inputs": {"any": ["1", 0]}},
            "3": {"class_type": delivers, "inputs": {"given": ["2", 0]}},
        }
        enforce = sys.modules["comfyui_dnp_guard.enforce"]
        loader = type("LoadImage", (), {"RETURN_TYPES": ("IMAGE",)})
        classes = {"LoadImage": loader, "AnySwitch": switch, delivers: sink}
        if kind == "LATENT":
            with pytest.raises(enforce.CannotGuard, match="delivers latents"):
                enforce.guarded(nodes, classes)
        else:
            rewritten = enforce.guarded(nodes, classes)
            look = rewritten[rewritten["3"]["inputs"]["given"][0]]
            assert look["class_type"] == "DNPGuardFinalLook"
            assert look["inputs"]["images"] == ["2", 0]

    def test_a_workflow_that_delivers_latents_is_refused(self, enforcing, monkeypatch):
        inside(monkeypatch)
        nodes = workflow()
        nodes["14"] = {"class_type": "SaveLatent", "inputs": {"samples": ["5", 0]}}
        status, reason = enforcing.server.post(nodes)
        assert status == 400
        assert enforcing.saved == []
        assert "SaveLatent delivers latents, which cannot be looked at" in reason

    def test_a_picture_that_is_delivered_as_a_mask_is_looked_at(self, enforcing, monkeypatch):
        inside(monkeypatch, [{"star": 0.9}])
        nodes = workflow(batch=1)
        nodes["14"] = {"class_type": "ImageToMask", "inputs": {"image": ["6", 0], "channel": "red"}}
        nodes["7"] = {"class_type": "MaskPreview", "inputs": {"mask": ["14", 0]}}
        assert grey(drawn(enforcing, nodes)[0][0])

    def test_a_mask_is_refused_where_the_host_cannot_show_it_as_a_picture(self, enforcing, monkeypatch):
        inside(monkeypatch)
        del enforcing.server.classes["MaskToImage"]
        nodes = workflow(batch=1)
        nodes["14"] = {"class_type": "ImageToMask", "inputs": {"image": ["6", 0], "channel": "red"}}
        nodes["7"] = {"class_type": "MaskPreview", "inputs": {"mask": ["14", 0]}}
        status, reason = enforcing.server.post(nodes)
        assert status == 400
        assert "delivers a mask" in reason

    def test_a_video_of_what_was_drawn_is_looked_at(self, enforcing, monkeypatch):
        inside(monkeypatch, [{"star": 0.9}])
        nodes = workflow(batch=1)
        nodes["14"] = {"class_type": "CreateVideo", "inputs": {"images": ["6", 0], "fps": 8.0}}
        nodes["7"] = {"class_type": "SaveVideo", "inputs": {"video": ["14", 0]}}
        assert grey(drawn(enforcing, nodes)[0][0])

    def test_a_picture_that_a_node_shows_on_its_way_is_looked_at(self, enforcing, monkeypatch):
        inside(monkeypatch, [{"star": 0.9}])
        nodes = workflow(batch=1)
        nodes["13"] = {"class_type": "Region", "inputs": {}}
        nodes["14"] = {"class_type": "ImageCrop", "inputs": {"image": ["6", 0], "region": ["13", 0]}}
        nodes["7"]["inputs"]["images"] = ["14", 0]
        drawn(enforcing, nodes)
        assert [grey(images[0]) for images in enforcing.saved] == [True, True]

    @pytest.mark.parametrize(
        ("maker", "sink", "called"),
        [
            (
                {"class_type": "LoadVideo", "inputs": {"file": "x"}},
                {"class_type": "SaveVideo", "inputs": {"video": ["14", 0]}},
                "SaveVideo delivers a video from elsewhere",
            ),
            (
                {"class_type": "Voxels", "inputs": {"image": ["6", 0]}},
                {"class_type": "SaveVoxels", "inputs": {"voxels": ["14", 0]}},
                "SaveVoxels delivers something of the type VOXEL",
            ),
        ],
    )
    def test_a_type_that_cannot_be_looked_at_is_refused(self, enforcing, monkeypatch, maker, sink, called):
        inside(monkeypatch)
        status, reason = enforcing.server.post({**workflow(), "14": maker, "15": sink})
        assert status == 400
        assert called in reason

    def test_a_node_that_writes_words_takes_anything(self, enforcing, monkeypatch):
        inside(monkeypatch)
        nodes = {**workflow(), "14": {"class_type": "PreviewAny", "inputs": {"source": ["5", 0]}}}
        assert enforcing.server.post(nodes)[0] == 200

    def test_a_workflow_with_its_own_guard_gets_no_second_one(self, enforcing, monkeypatch):
        inside(monkeypatch)
        drawn(enforcing, with_nodes(workflow()))
        ran = Counter(enforcing.server.executed)
        assert ran["DNPGuard"] == 1
        assert ran["DNPGuardFinalLook"] == 1

    def test_a_workflow_that_was_guarded_before_is_guarded_anew(self, enforcing, monkeypatch):
        inside(monkeypatch)
        enforce = sys.modules["comfyui_dnp_guard.enforce"]
        once = enforce.guarded(workflow(), enforcing.server.classes)
        assert enforce.guarded(once, enforcing.server.classes) == once

    def test_a_pictures_metadata_holds_the_workflow_as_it_was_queued(self, enforcing, monkeypatch):
        inside(monkeypatch)
        drawn(enforcing, workflow())
        assert enforcing.server.metadata["prompt_as_queued"] == workflow()

    def test_a_node_with_an_id_of_the_guards_is_refused(self, enforcing, monkeypatch):
        inside(monkeypatch)
        nodes = {**workflow(), "dnp-guard-0": {"class_type": "LoadImage", "inputs": {"image": "x"}}}
        status, reason = enforcing.server.post(nodes)
        assert status == 400
        assert "its node dnp-guard-0 has an id" in reason

    def test_a_workflow_without_a_text_encoder_is_refused(self, enforcing, monkeypatch):
        inside(monkeypatch)
        nodes = workflow()
        for name in ("2", "3"):
            del nodes[name]["inputs"]["clip"]
        status, reason = enforcing.server.post(nodes)
        assert status == 400
        assert "no text encoder" in reason

    @pytest.mark.parametrize("broken", [{"7": None}, {"7": {"inputs": 5}}, []])
    def test_an_unreadable_workflow_is_refused_and_never_passed_on(self, enforcing, monkeypatch, broken):
        inside(monkeypatch)
        nodes = {**workflow(), **broken} if isinstance(broken, dict) else broken
        status, reason = enforcing.server.post(nodes)
        assert status == 400
        assert enforcing.saved == []
        assert "DNP Guard refuses this workflow: it cannot be read." in reason

    def test_a_rewriting_that_raises_refuses_though_the_host_swallows_it(self, enforcing, monkeypatch):
        enforce = sys.modules["comfyui_dnp_guard.enforce"]
        monkeypatch.setattr(enforce, "guarded", lambda *_: (_ for _ in ()).throw(RuntimeError("a bug")))
        status, _ = enforcing.server.post(workflow())
        assert status == 400
        assert enforcing.saved == []

    def test_another_handler_that_raises_changes_nothing(self, enforcing, monkeypatch):
        guard = inside(monkeypatch)
        enforcing.server.add_on_prompt_handler(lambda _: (_ for _ in ()).throw(RuntimeError("another's")))
        drawn(enforcing, workflow())
        assert len(guard.last.images[0].queries) == 5

    def test_settings_that_cannot_be_read_refuse_everything(self, pipe, monkeypatch):
        monkeypatch.setenv("DNP_GUARD_ENFORCE", "sometimes")
        comfy = install(monkeypatch, pipe)
        with pytest.raises(sys.modules["comfyui_dnp_guard.settings"].BadSettings, match="none of off, server"):
            comfy.server.post(workflow())
        assert comfy.saved == []

    def test_without_enforcing_a_plain_workflow_is_left_alone(self, comfy):
        drawn(comfy, workflow())
        assert "DNPGuard" not in comfy.server.executed


class TestTheService:
    """The nodes ask ``dnp-guard serve`` if they have no backend of their own."""

    @pytest.fixture
    def asked(self, pipe, guarded, monkeypatch):
        """Return a function that starts a service with scripted answers, and installs the stand-in for ComfyUI."""

        def start(looks, **changes):
            guarded.serve(looks, **changes)
            return install(monkeypatch, pipe)

        return start

    def test_a_run_in_which_nothing_is_found_is_bit_identical(self, asked, guarded):
        comfy = asked([CLEAN])
        plain, _ = drawn(comfy, workflow())
        watched, _ = drawn(comfy, with_nodes(workflow(), vlm=""))
        assert same(plain, watched) == [True] * 3
        assert [record["decision"] for record in guarded.records("request.finished")] == ["clean"] * 3

    @pytest.mark.parametrize("sampler", ["dpm_fast", "dpm_adaptive"])
    def test_a_sampler_of_few_steps_of_its_own_is_not_withheld(self, asked, guarded, sampler):
        comfy = asked([CLEAN])
        plain, _ = drawn(comfy, workflow(sampler=sampler, steps=4))
        watched, _ = drawn(comfy, with_nodes(workflow(sampler=sampler, steps=4), vlm=""))
        assert same(plain, watched) == [True] * 3
        assert [record["decision"] for record in guarded.records("request.finished")] == ["clean"] * 3

    @pytest.mark.parametrize("mode", ["separate", "replace"])
    def test_only_the_image_in_which_something_is_found_is_steered(self, asked, guarded, mode):
        settings = {"mode": mode, **({"scale": None, "strength": None} if mode == "replace" else {})}
        comfy = asked(SEES_A_STAR_ONCE, guidance=settings)
        plain, _ = drawn(comfy, workflow())
        steered, outputs = drawn(comfy, with_nodes(workflow(), vlm=""))
        assert same(plain, steered) == [True, False, True]
        assert outputs["10"][0].splitlines()[2] == "image 1: steered star@3"
        (injected,) = guarded.records("negative.injected")
        assert injected["image"] == 1
        assert injected["negative"]["text"] == "star"
        assert guarded.records("request.started")[0]["host"]["name"] == "comfyui"

    def test_what_is_seen_when_nothing_can_be_steered_any_more_is_said_to_be_so(self, asked, guarded):
        comfy = asked([CLEAN, SECOND, CLEAN])
        nodes = workflow(sampler="dpm_fast", steps=4)
        plain, _ = drawn(comfy, nodes)
        images, _ = drawn(comfy, with_nodes(nodes, vlm=""))
        assert same(plain, images) == [True] * 3
        assert [record["negative"]["effective"] for record in guarded.records("negative.injected")] == [False]

    def test_a_pictures_metadata_says_its_outcome_and_where_its_record_is(self, asked, guarded):
        comfy = asked([SECOND])
        status, _ = comfy.server.post(with_nodes(workflow(), vlm=""), extra_pnginfo={"workflow": {}})
        (request,) = {record["request"] for record in guarded.records("request.finished")}
        outcomes = ["clean", "blocked", "clean"]
        assert status == 200
        assert comfy.server.metadata["dnp_guard"] == {
            "9": [{"outcome": outcome, "request": request} for outcome in outcomes]
        }

    def test_a_service_that_dies_ends_the_run(self, comfy, tmp_path, monkeypatch):
        steps, batch = [], sys.modules["comfyui_dnp_guard.batch"]
        looked = sys.modules["comfyui_dnp_guard.run"].Run.called_back

        def step(run, *arguments):
            steps.append(arguments[1])
            if len(steps) == 3:
                alive.close()
            looked(run, *arguments)

        monkeypatch.setattr(sys.modules["comfyui_dnp_guard.run"].Run, "called_back", step)
        with ExitStack() as alive:
            Guarded(tmp_path, alive, monkeypatch).serve([CLEAN])
            with pytest.raises(batch.Withheld, match="service_down"):
                comfy.server.post(with_nodes(workflow(), vlm=""))
        assert steps == [0, 1, 2, 3, 4]

    def test_it_says_the_same_as_in_process(self, asked, monkeypatch):
        comfy = asked(SEES_A_STAR_ONCE)
        remote, _ = drawn(comfy, with_nodes(workflow(), vlm=""))
        inside(monkeypatch, SEES_A_STAR_ONCE)
        local, _ = drawn(comfy, with_nodes(workflow()))
        assert same(remote, local) == [True] * 3

    def test_what_is_still_there_is_withheld(self, asked, guarded):
        comfy = asked([SECOND])
        images, _ = drawn(comfy, with_nodes(workflow(), vlm=""))
        assert [grey(image) for image in images] == [False, True, False]

    def test_the_hosts_own_preview_shows_no_more_than_the_service_allows_of_each_image(self, asked):
        comfy = asked([SECOND])
        drawn(comfy, with_nodes(workflow(), vlm=""))
        assert [bool(picture.any()) for picture in PREVIEWS[-1]] == [True, False, True]

    def test_images_that_no_guard_drew_are_looked_at(self, asked):
        comfy = asked([{"star": 0.9}])
        nodes = {
            "1": {"class_type": "LoadImage", "inputs": {"image": "x"}},
            "2": {"class_type": "DNPGuardFinalLook", "inputs": {"images": ["1", 0]}},
            "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}},
        }
        images, _ = drawn(comfy, nodes)
        assert float(images[0, 0, 0, 0]) == pytest.approx(128 / 255)

    def test_a_service_that_is_down_stops_the_run_before_it_starts(self, comfy, monkeypatch):
        monkeypatch.setenv("DNP_GUARD_URL", "http://127.0.0.1:9")
        with pytest.raises(sys.modules["comfyui_dnp_guard.batch"].Withheld, match="service_down"):
            comfy.server.post(with_nodes(workflow(), vlm=""))
        assert comfy.saved == []

    def test_an_operator_may_let_images_pass_while_it_is_down(self, comfy, monkeypatch):
        monkeypatch.setenv("DNP_GUARD_URL", "http://127.0.0.1:9")
        monkeypatch.setenv("DNP_GUARD_ON_FAILURE", "open")
        plain, _ = drawn(comfy, workflow())
        images, outputs = drawn(comfy, with_nodes(workflow(), vlm=""))
        assert same(plain, images) == [True] * 3
        assert "image 0: failed_open (service_down" in outputs["10"][0]

    def test_a_run_that_is_interrupted_is_abandoned(self, asked, guarded, monkeypatch):
        comfy = asked([CLEAN])
        monkeypatch.setattr(
            "tests.hosts.comfyui_host.calc_cond_batch", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            comfy.server.post(with_nodes(workflow(), vlm=""))
        assert guarded.records("request.abandoned")


class TestTheExampleWorkflow:
    """The shipped example workflow, which ComfyUI's page loads, is valid; its widgets have an order but no names."""

    WORKFLOW = INTEGRATION / "example_workflows" / "guarded.json"

    @pytest.fixture
    def document(self):
        return json.loads(self.WORKFLOW.read_text(encoding="utf-8"))

    @staticmethod
    def widgets(kind):
        """Return the inputs of a node class that are set in the node itself: plain values and choices."""
        declared = kind.INPUT_TYPES()
        every = {**declared["required"], **declared.get("optional", {})}
        plain = {"STRING", "INT", "FLOAT", "BOOLEAN"}
        return {key: value[0] for key, value in every.items() if isinstance(value[0], list) or value[0] in plain}

    def queued(self, document, classes):
        """Convert the workflow to the format of ComfyUI's API, as the page does."""
        links = {link[0]: link for link in document["links"]}
        nodes = {}
        for node in document["nodes"]:
            values = list(node["widgets_values"])
            if node["type"] == "KSampler":
                del values[1]  # the page alone decides how the seed changes afterwards
            inputs = dict(zip(self.widgets(classes[node["type"]]), values, strict=True))
            for given in node["inputs"]:
                inputs[given["name"]] = [str(links[given["link"]][1]), links[given["link"]][2]]
            nodes[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
        return nodes

    def test_its_links_are_between_outputs_and_inputs_of_one_type(self, comfy, document):
        nodes = {node["id"]: node for node in document["nodes"]}
        for link, source, slot, target, at, kind in document["links"]:
            given = nodes[target]["inputs"][at]
            declared = comfy.server.classes[nodes[target]["type"]].INPUT_TYPES()
            input_type = {**declared["required"], **declared.get("optional", {})}[given["name"]][0]
            made = comfy.server.classes[nodes[source]["type"]].RETURN_TYPES[slot]
            assert given["link"] == link
            assert given["type"] == kind
            assert input_type == kind
            assert made == kind
            assert link in nodes[source]["outputs"][slot]["links"]

    def test_it_runs(self, comfy, monkeypatch, document):
        guard = inside(monkeypatch, [{"star": 0.9}, CLEAN])
        nodes = self.queued(document, comfy.server.classes)
        for node in nodes.values():
            if node["class_type"] == "EmptyLatentImage":
                node["inputs"] |= {"width": 32, "height": 32}
            if node["class_type"] == "DNPGuard":
                node["inputs"]["vlm"] = "scripted:"
        drawn(comfy, nodes)
        assert guard.last.decision == "steered"


class TestSettings:
    @pytest.fixture
    def settings(self, comfy):
        return sys.modules["comfyui_dnp_guard.settings"]

    def written(self, tmp_path, text):
        (tmp_path / "dnp_guard.json").write_text(text, encoding="utf-8")
        return tmp_path / "dnp_guard.json"

    def test_without_a_file_the_defaults_are_in_force_and_a_workflow_may_choose(self, settings, tmp_path):
        assert settings.load(tmp_path / "dnp_guard.json", {}) == settings.Settings()
        chosen = settings.chosen(settings.Settings(), vlm="glyphs", service="", mode="auto")
        assert chosen.vlm == "glyphs"

    def test_a_file_locks_what_a_workflow_may_choose(self, settings, tmp_path):
        loaded = settings.load(self.written(tmp_path, '{"url": "https://guard.example"}'), {})
        assert settings.chosen(loaded, vlm="scripted:x", service="http://127.0.0.1:9", mode="in process") == loaded

    def test_a_file_that_is_unlocked_does_not(self, settings, tmp_path):
        loaded = settings.load(self.written(tmp_path, '{"locked": false, "vlm": "glyphs"}'), {})
        assert settings.chosen(loaded, vlm="", service="", mode="service").vlm == ""

    def test_where_every_workflow_is_guarded_none_may_choose(self, settings):
        enforcing = settings.Settings(enforce="server")
        assert settings.chosen(enforcing, vlm="scripted:x", service="http://127.0.0.1:9", mode="service") == enforcing

    def test_a_token_goes_to_no_other_service_than_the_operators(self, settings):
        operators = settings.Settings(url="http://127.0.0.1:8777", token="secret")
        assert settings.chosen(operators, vlm="", service="http://127.0.0.1:8777/", mode="service").token == "secret"
        assert settings.chosen(operators, vlm="", service="http://evil.example", mode="service").token == ""

    def test_the_environment_goes_before_the_file(self, settings, tmp_path):
        file = self.written(tmp_path, '{"policy": "default"}')
        assert settings.load(file, {"DNP_GUARD_POLICY": "strict"}).policy == "strict"

    def test_the_token_is_read_from_its_file_and_never_shown(self, settings, tmp_path):
        (tmp_path / "token").write_text("secret\n", encoding="utf-8")
        file = self.written(tmp_path, json.dumps({"token_file": str(tmp_path / "token")}))
        loaded = settings.load(file, {})
        assert loaded.token == "secret"
        assert "secret" not in repr(loaded)

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("{", "Mend the file"),
            ('{"enforced": "server"}', "its keys may be"),
            ('{"enforce": "always"}', "none of off, server"),
            ('{"url": "ftp://x"}', "no http or https address"),
            ('{"start": "dnp-guard serve"}', "is no tuple"),
            ('{"token_file": "/nowhere/at/all"}', "the token cannot be read"),
        ],
    )
    def test_what_cannot_be_used_is_refused_with_the_reason(self, settings, tmp_path, text, reason):
        with pytest.raises(settings.BadSettings, match=reason):
            settings.load(self.written(tmp_path, text), {})


def edit(nodes):
    """Change a workflow so that it starts from an input picture."""
    nodes["20"] = {"class_type": "LoadImage", "inputs": {"image": "a.png"}}
    nodes["21"] = {"class_type": "VAEEncode", "inputs": {"pixels": ["20", 0], "vae": ["1", 2]}}
    nodes["5"]["inputs"] |= {"latent_image": ["21", 0], "denoise": 0.5}
    return nodes


REFUSING = {"inputs": {"query": True, "action": "block"}}


class TestAPictureThatARunStartsFrom:
    def test_refuses_the_run_before_its_first_step(self, comfy, monkeypatch):
        guard = inside(monkeypatch, [{"star": 0.9}, CLEAN], policy(**REFUSING))
        with pytest.raises(Exception, match="one of its own pictures"):
            comfy.server.post(edit(with_nodes(workflow(batch=1))))
        assert guard.last.decision == "blocked"
        assert PREVIEWS == []

    def test_changes_nothing_where_it_passes(self, comfy, monkeypatch):
        guard = inside(monkeypatch, [CLEAN], policy(**REFUSING))
        guarded, _ = drawn(comfy, edit(with_nodes(workflow(batch=1))))
        assert len(guard.last.inputs) == 1
        plain, _ = drawn(comfy, edit(workflow(batch=1)))
        assert same(plain, guarded) == [True]

    def test_is_none_of_an_empty_latent(self, comfy, monkeypatch):
        guard = inside(monkeypatch, [CLEAN], policy(**REFUSING))
        drawn(comfy, with_nodes(workflow()))
        assert guard.last.inputs == ()

    def test_is_none_of_an_empty_latent_of_sound(self, comfy):
        assert sys.modules["comfyui_dnp_guard.host"].brought(SimpleNamespace(conds={}), torch.zeros(1, 64, 9)) == []

    def test_is_also_one_that_an_edit_refers_to(self, comfy):
        start, first, second, empty = (torch.full((1, 8, 2, 2), float(value)) for value in range(4))
        for latents in (start, first, second):
            latents[..., 0] = 9
        beside = [{"concat_latent_image": first, "reference_latents": [second, empty]}]
        guider = SimpleNamespace(conds={"positive": beside, "negative": [*beside, {}]})
        pictures_brought = sys.modules["comfyui_dnp_guard.host"].brought(guider, start)
        assert [id(latents) for latents in pictures_brought] == [id(start), id(first), id(second)]

    def test_is_none_that_a_guarded_run_drew(self, comfy, monkeypatch):
        guard = inside(monkeypatch, [CLEAN], policy(**REFUSING))
        nodes = with_nodes(workflow(batch=1))
        nodes["25"] = json.loads(json.dumps(nodes["5"]))
        nodes["25"]["inputs"] |= {"latent_image": ["5", 0], "denoise": 0.6}
        nodes["6"]["inputs"]["samples"] = ["25", 0]
        executed = []
        for seed in (1, 2):
            nodes["25"]["inputs"]["seed"] = seed
            drawn(comfy, nodes)
            executed.append(comfy.server.executed.count("KSampler"))
            assert guard.last.inputs == ()
        assert executed == [2, 1]  # the second time the host keeps what the first run drew

    def test_is_none_that_a_guarded_run_drew_on_another_device_than_the_hosts_latents(self, comfy, monkeypatch):
        host = sys.modules["comfyui_dnp_guard.host"]
        management = sys.modules["comfy.model_management"]
        monkeypatch.setattr(management, "intermediate_device", lambda: "meta", raising=False)
        passed_on = host.remembered(torch.ones(1, 8, 2, 2)).to("meta")
        assert host.brought(SimpleNamespace(conds={}), passed_on) == []

    def test_is_none_with_the_noise_of_an_earlier_run(self, comfy, monkeypatch):
        guard = inside(monkeypatch, [CLEAN], policy(**REFUSING))
        nodes = edit(with_nodes(workflow(batch=1)))
        nodes["11"] = {"class_type": "BasicGuider", "inputs": {"model": ["8", 0], "conditioning": ["2", 0]}}
        taken = {key: nodes["5"]["inputs"][key] for key in ("latent_image", "seed", "steps", "sampler_name")}
        nodes["5"] = {"class_type": "SamplerCustomAdvanced", "inputs": {"guider": ["11", 0], **taken}}
        monkeypatch.setattr(comfyui_host, "noise", lambda shape, *_: torch.zeros(shape))
        drawn(comfy, nodes)
        assert guard.last.inputs == ()

    @pytest.mark.parametrize(("length", "shown"), [(1, [0]), (2, [0, 1]), (9, [0, 4, 8])])
    def test_is_the_first_middle_and_last_frame_of_a_video(self, comfy, length, shown):
        video = torch.arange(length).view(1, length, 1, 1, 1).expand(1, length, 4, 4, 3) / 255
        vae = SimpleNamespace(decode=lambda _: video)
        model = SimpleNamespace(process_latent_in=lambda latent: latent, process_latent_out=lambda latent: latent)
        host = sys.modules["comfyui_dnp_guard.host"]
        (frames,) = host.shown_of([torch.zeros(1, 8, length, 2, 2)], vae, model)
        assert [frame.getpixel((0, 0))[0] for frame in frames] == shown

    @pytest.mark.parametrize("asks", [False, True])
    def test_in_an_unknown_form_stops_only_a_run_whose_policy_asks(self, comfy, monkeypatch, asks):
        guard = inside(monkeypatch, [CLEAN], policy(**(REFUSING if asks else {})))
        host = sys.modules["comfyui_dnp_guard.host"]
        monkeypatch.setattr(host, "brought", lambda _, latents: latents.no_such_form)
        with pytest.raises(Exception, match="one of its own pictures") if asks else nullcontext():
            drawn(comfy, edit(with_nodes(workflow(batch=1))))
        assert guard.last.decision == ("failed_closed" if asks else "clean")

    @pytest.mark.parametrize("references", [torch.arange(8.0).view(2, 4), torch.arange(16.0).view(1, 1, 4, 4)])
    def test_is_also_a_reference_that_stands_alone(self, comfy, references):
        guider = SimpleNamespace(conds={"positive": [{"reference_latents": references}]})
        assert sys.modules["comfyui_dnp_guard.host"].brought(guider, None) == [references]

    def test_is_decoded_only_if_the_policy_asks(self, comfy, monkeypatch):
        guard = inside(monkeypatch, [CLEAN])
        monkeypatch.setattr(sys.modules["comfyui_dnp_guard.host"], "shown_of", lambda *_: pytest.fail("decoded"))
        drawn(comfy, edit(with_nodes(workflow(batch=1))))
        assert guard.last.decision == "clean"

    def test_does_not_hide_that_the_user_stops_the_workflow(self, comfy, monkeypatch):
        stopped = type("InterruptProcessingException", (Exception,), {})
        inside(monkeypatch, [CLEAN], policy(**REFUSING))
        monkeypatch.setattr(comfyui_host.Vae, "decode", lambda *_: (_ for _ in ()).throw(stopped))
        with pytest.raises(stopped):
            comfy.server.post(edit(with_nodes(workflow(batch=1))))

    def test_is_asked_about_where_every_workflow_is_guarded(self, enforcing, monkeypatch):
        guard = inside(monkeypatch, [{"star": 0.9}, CLEAN], policy(**REFUSING))
        with pytest.raises(Exception, match="one of its own pictures"):
            enforcing.server.post(edit(workflow(batch=1)))
        assert guard.last.decision == "blocked"

    def test_that_cannot_be_shown_refuses_the_run(self, comfy, monkeypatch):
        guard = inside(monkeypatch, [CLEAN], policy(**REFUSING))
        monkeypatch.setattr(comfyui_host.Vae, "decode", lambda *_: 1 / 0)
        with pytest.raises(Exception, match="one of its own pictures"):
            comfy.server.post(edit(with_nodes(workflow(batch=1))))
        assert guard.last.decision == "failed_closed"

    @pytest.mark.parametrize("seen", [0.9, 0.0])
    def test_is_shown_to_the_service(self, comfy, tmp_path, monkeypatch, seen):
        (tmp_path / "looks.json").write_text(json.dumps([{"star": seen}, CLEAN]))
        (tmp_path / "policy.yaml").write_text(policy(**REFUSING).model_dump_json(exclude_defaults=True))
        audit = tmp_path / "audit.jsonl"
        vlm = f"scripted:{tmp_path / 'looks.json'}"
        with listening(Settings(policy=str(tmp_path / "policy.yaml"), vlm=vlm, audit=(str(audit),))) as url:
            monkeypatch.setenv("DNP_GUARD_URL", url)
            with pytest.raises(Exception, match="one of its own pictures") if seen else nullcontext():
                comfy.server.post(edit(with_nodes(workflow(batch=1), vlm="")))
        records = [json.loads(line) for line in audit.read_text().splitlines()]
        assert [record["event"] for record in records].count("query.input") == 1
        decisions = [record["decision"] for record in records if record["event"] == "request.finished"]
        assert decisions == ["blocked" if seen else "clean"]
        counts = sys.modules["comfyui_dnp_guard.counts"].COUNTS
        assert counts["blocked" if seen else "clean"] == 1


class TestTheFingerprint:
    def test_it_changes_with_the_policys_file(self, comfy, tmp_path):
        node = comfy.server.classes["DNPGuard"]
        file = tmp_path / "policy.yaml"
        file.write_text("a", encoding="utf-8")
        first = node.IS_CHANGED(policy=str(file), vlm="glyphs")
        assert node.IS_CHANGED(policy=str(file), vlm="glyphs") == first
        file.write_text("b", encoding="utf-8")
        assert node.IS_CHANGED(policy=str(file), vlm="glyphs") != first

    def test_where_the_service_does_not_answer_every_run_is_a_new_one(self, comfy):
        fingerprint = comfy.server.classes["DNPGuard"].IS_CHANGED(service="http://127.0.0.1:9")
        assert fingerprint != fingerprint  # noqa: PLR0124 (it is not a number, which is equal to nothing)

    @pytest.mark.parametrize("changes", ["policy", "model"])
    def test_an_unchanged_workflow_is_drawn_again_when_what_judges_it_has_changed(
        self, comfy, tmp_path, monkeypatch, changes
    ):
        port, drew = 0, []
        for number in ("1", "2"):
            revision, bolt_seen = (number, 0) if changes == "policy" else ("1", int(number) / 100)
            (tmp_path / "looks.json").write_text(json.dumps([{**CLEAN, "bolt": bolt_seen}]))
            file = written(tmp_path, revision=revision)
            served = Settings(policy=str(file), vlm=f"scripted:{tmp_path / 'looks.json'}")
            with listening(served, port) as url:
                port = int(url.rpartition(":")[2])
                monkeypatch.setenv("DNP_GUARD_URL", url)
                for _ in range(2):
                    drawn(comfy, with_nodes(workflow(), vlm=""))
                    drew.append("KSampler" in comfy.server.executed)
        assert drew == [True, False, True, False]

    @pytest.mark.parametrize("node", ["DNPGuard", "DNPGuardFinalLook"])
    def test_a_policy_whose_name_comes_from_another_node_is_a_new_one_each_time(self, comfy, node):
        fingerprint = comfy.server.classes[node].IS_CHANGED(policy=None)
        assert fingerprint != fingerprint  # noqa: PLR0124 (as above)

    def test_an_image_that_could_not_be_checked_is_drawn_again(self, comfy, tmp_path):
        node, counts = comfy.server.classes["DNPGuard"], sys.modules["comfyui_dnp_guard.counts"].COUNTS
        first = node.IS_CHANGED(vlm="glyphs")
        counts["failed_closed"] += 1
        assert node.IS_CHANGED(vlm="glyphs") != first
