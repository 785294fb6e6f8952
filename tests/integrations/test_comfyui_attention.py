"""The nodes steer in attention space in the stand-in for ComfyUI, through the patches of its blocks."""

import sys

import pytest
import torch

from dnp_guard import Guard
from dnp_guard.audit import MemorySink
from dnp_guard.glyphs.loading import load_pipeline
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.hosts.attended import ATTENTION, HOW, KEYS, attended
from tests.hosts.comfyui_host import INTEGRATION, Model, ModelPatcher, install
from tests.hosts.ksampling import Conditioning
from tests.hosts.patched_unet import UNetModel, optimized_attention
from tests.integrations.test_comfyui import drawn, inside, same, with_nodes, workflow
from tests.policies import bolt, policy, star
from tests.same_code import code

pytestmark = pytest.mark.models

SECOND = [{}, {"star": 0.9}, {}]
BOTH = [{}, {"star": 0.9, "bolt": 0.9}, {}]
CLEAN = {"star": 0.0}


def attention(**guidance):
    return policy(guidance={**ATTENTION, **guidance}, categories=[star(), bolt(negative=["bolt"])])


@pytest.fixture(scope="module")
def shared_pipe():
    return load_pipeline()


@pytest.fixture
def comfy(shared_pipe, monkeypatch):
    for name in ("URL", "TOKEN", "TOKEN_FILE", "POLICY", "VLM", "AUDIT", "ENFORCE", "ON_FAILURE"):
        monkeypatch.delenv(f"DNP_GUARD_{name}", raising=False)
    return install(monkeypatch, shared_pipe)


@pytest.fixture
def patched(comfy):
    return sys.modules["comfyui_dnp_guard.patched"]


def module(name):
    return sys.modules[f"comfyui_dnp_guard.{name}"]


def attend(q, k, v, options):
    return optimized_attention(q, k, v, options["n_heads"])


@pytest.fixture(scope="module")
def at(shared_pipe):
    """Return inputs for one evaluation of three images, with the unconditional rows first, and the text encoder."""
    words = Conditioning(shared_pipe)
    prompts = words.encode(["a red circle", "a blue square", "a green cross"])
    x = torch.randn(3, 8, 8, 8, generator=torch.Generator().manual_seed(5))
    context = torch.cat([words.encode([""] * 3), prompts])
    return torch.cat([x, x]), torch.full((6,), 500), context, words


def evaluated(network, at, options):
    x, timesteps, context, _ = at
    with torch.no_grad():
        return network(x, timesteps, context, {"cond_or_uncond": [1, 0], **options})


def steered(patched, network, at, texts, images=(1,), before=None):
    """Evaluate a network with patches that steer images away from texts; return the output and the failure, if any."""
    acting = [patched.Part(images, at[3].encode([text]), HOW.phi, HOW.tau, HOW.alpha) for text in texts]
    patches = patched.Patched(patched.blocks(network), acting, attend)
    options = patches.options({"cond_or_uncond": [1, 0], **(before or {})})
    return evaluated(network, at, options), patches.failure


@pytest.mark.parametrize("texts", [["star"], ["star", "bolt"]])
def test_an_evaluation_equals_that_of_a_pipeline(patched, shared_pipe, at, texts):
    got, failure = steered(patched, UNetModel(shared_pipe.unet), at, texts)
    x, timesteps, context, words = at
    negatives = [(4, words.encode([text]), HOW) for text in texts]
    torch.testing.assert_close(got, attended(shared_pipe.unet, x, timesteps, context, negatives))
    assert failure is None


def test_the_rows_of_other_images_and_of_the_unconditional_keep_every_bit(patched, shared_pipe, at):
    network = UNetModel(shared_pipe.unet)
    got, _ = steered(patched, network, at, ["star"])
    assert same(got, evaluated(network, at, {})) == [True, True, True, True, False, True]


def test_a_patch_that_another_extension_put_there_goes_on_working_inside(patched, shared_pipe, at):
    network, rows = UNetModel(shared_pipe.unet), []

    def doubled(q, k, v, options):
        rows.append(len(q))
        return 2 * attend(q, k, v, options)

    others = {"patches_replace": {"attn2": {("middle", 0): doubled}}}
    got, _ = steered(patched, network, at, ["star"], before=others)
    assert same(got, evaluated(network, at, others)) == [True, True, True, True, False, True]
    assert set(rows) == {6}


def test_the_hosts_own_options_are_not_changed(patched, shared_pipe, at):
    given = {"patches_replace": {"attn2": {}}, "cond_or_uncond": [1, 0]}
    steered(patched, UNetModel(shared_pipe.unet), at, ["star"], before=given)
    assert given == {"patches_replace": {"attn2": {}}, "cond_or_uncond": [1, 0]}


def test_a_network_of_another_kind_has_no_layers(patched):
    network = torch.nn.ModuleDict({"double_blocks": torch.nn.ModuleList([torch.nn.Linear(1, 1)])})
    assert patched.blocks(network) == {}
    assert patched.blocks(None) == {}


def test_an_image_whose_prompt_is_not_read_is_said(patched, shared_pipe, at):
    patches = patched.Patched({}, [], attend)
    evaluated(UNetModel(shared_pipe.unet), at, patches.options({}))
    assert isinstance(patches.failure, patched.NotReached)


def test_the_arithmetic_is_that_of_the_package():
    package = INTEGRATION.parents[1] / "dnp_guard" / "steering" / "attention.py"
    assert code(INTEGRATION / "attention.py") == code(package)


class TestARun:
    def test_steers_only_the_image_in_which_something_is_found(self, comfy, monkeypatch):
        plain, _ = drawn(comfy, workflow())
        guard = inside(monkeypatch, [[{}, {}, {}], SECOND, CLEAN], attention())
        steered, _ = drawn(comfy, with_nodes(workflow()))
        assert same(plain, steered) == [True, False, True]
        assert guard.last.degraded == ()

    def test_needs_no_further_evaluation(self, comfy, monkeypatch, shared_pipe):
        made = []
        patch = monkeypatch.setattr
        patch("tests.hosts.comfyui_host.Model", lambda pipe: made.append(Model(pipe)) or made[-1])
        drawn(comfy, workflow())
        plain, made[-1].evaluated = list(made[-1].evaluated), []
        inside(monkeypatch, [SECOND], attention())
        drawn(comfy, with_nodes(workflow()))
        assert made[-1].evaluated == plain

    def test_is_steered_without_guidance(self, comfy, monkeypatch):
        plain, _ = drawn(comfy, workflow(cfg=1.0))
        guard = inside(monkeypatch, [SECOND, CLEAN], attention())
        steered, _ = drawn(comfy, with_nodes(workflow(cfg=1.0)))
        assert same(plain, steered) == [True, False, True]
        assert guard.last.degraded == ()

    def test_gets_the_separate_term_beside_attention_where_it_escalates(self, comfy, monkeypatch):
        inside(monkeypatch, [BOTH, CLEAN], attention())
        alone, _ = drawn(comfy, with_nodes(workflow()))
        inside(monkeypatch, [BOTH, CLEAN], attention(escalate=1, scale=6))
        comfy.server.cache.clear()
        both, _ = drawn(comfy, with_nodes(workflow()))
        assert same(alone, both) == [True, False, True]

    def test_falls_back_to_separate_where_the_attention_is_not_reached(self, comfy, monkeypatch):
        steered = {}
        for guidance in (attention(), policy(guidance={"scale": 15, "hold": 9})):
            sink = MemorySink()
            guard = Guard(guidance, vlm=ScriptedBackend([SECOND, CLEAN]), audit=sink)
            monkeypatch.setattr(module("inprocess"), "guard_for", lambda *_, guard=guard: guard)
            monkeypatch.setattr(module("patched").Patched, "options", lambda _, given: dict(given))
            comfy.server.cache.clear()
            steered[guidance.guidance.mode], _ = drawn(comfy, with_nodes(workflow()))
            steered[f"{guidance.guidance.mode} said"] = [
                record["reason"].partition(":")[0] for record in sink.records if record["event"] == "degraded"
            ]
        assert steered["attention said"] == ["attention_lost"]
        assert same(steered["attention"], steered["separate"]) == [True, True, True]

    def test_a_model_without_such_layers_is_withheld_under_attention(self, comfy, monkeypatch):
        monkeypatch.setattr(module("attending").patched, "blocks", lambda _: {})
        inside(monkeypatch, [SECOND], attention())
        with pytest.raises(Exception, match="not reached in this model"):
            drawn(comfy, with_nodes(workflow()))


def measured(monkeypatch, folder, *, shown):
    """Let models come from a checkpoint file, with a measurement of attention steering beside it if ``shown``."""
    file = folder / "model.safetensors"
    file.touch()
    if shown:
        (folder / "model.attention.json").write_text("{}")
    monkeypatch.setattr(ModelPatcher, "cached_patcher_init", (None, (str(file), None)), raising=False)


@pytest.mark.parametrize(("shown", "mode"), [(True, "attention"), (False, "separate")])
def test_auto_is_attention_where_the_measurement_lies_beside_the_checkpoint(comfy, monkeypatch, tmp_path, shown, mode):
    measured(monkeypatch, tmp_path, shown=shown)
    guard = inside(monkeypatch, [SECOND], attention(mode="auto", scale=6))
    drawn(comfy, with_nodes(workflow()))
    assert [negative.mode for _, negative in guard.last.images[1].negatives] == [mode]


@pytest.mark.parametrize(("shown", "mode"), [(True, "attention"), (False, "separate")])
def test_the_service_is_told_what_the_host_reaches(comfy, guarded, monkeypatch, tmp_path, shown, mode):
    measured(monkeypatch, tmp_path, shown=shown)
    guidance = {"mode": "auto", "scale": 6, "strength": "constant", "hold": 9, "attention": KEYS}
    guarded.serve([SECOND], guidance=guidance)
    drawn(comfy, with_nodes(workflow(), vlm=""))
    negatives = [record["negative"] for record in guarded.records("negative.injected")]
    assert [negative["mode"] for negative in negatives] == [mode]


def test_a_fallback_is_told_to_the_service(comfy, guarded, monkeypatch):
    monkeypatch.setattr(module("patched").Patched, "options", lambda _, given: dict(given))
    guidance = {"mode": "attention", "scale": None, "strength": "constant", "hold": 9, "attention": KEYS}
    guarded.serve([SECOND], guidance=guidance)
    drawn(comfy, with_nodes(workflow(), vlm=""))
    reasons = [record["reason"].partition(":")[0] for record in guarded.records("degraded")]
    assert reasons == ["attention_lost"]
    assert [record["negative"]["mode"] for record in guarded.records("negative.injected")] == ["attention", "separate"]
