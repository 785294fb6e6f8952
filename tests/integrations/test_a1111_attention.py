"""The extension steers in attention space in the stand-ins for AUTOMATIC1111's web UI, Forge and reForge."""

import sys
from types import SimpleNamespace

import pytest
import torch

from dnp_guard.glyphs.loading import load_pipeline
from tests.hosts.a1111_host import EXTENSION, Processing, SdModel
from tests.hosts.attended import ATTENTION, HOW, attended
from tests.hosts.compvis_unet import compvis
from tests.hosts.ksampling import Conditioning
from tests.integrations.test_a1111 import ASKED, bytes_of
from tests.policies import bolt, star
from tests.same_code import code

pytestmark = pytest.mark.models

AUTO = {**ATTENTION, "mode": "auto", "scale": 6}
CLEAN = [{"star": 0.0}, {"star": 0.0}]
FIRST = [[{"star": 0.9}, {}], CLEAN]
KINDS = [{}, {"forge": True}, {"reforge": True}, {"sdxl": True}, {"forge": True, "sdxl": True}]


@pytest.fixture(scope="module")
def shared_pipe():
    return load_pipeline()


def serve(guarded, guidance, looks=FIRST):
    guarded.serve(looks, guidance=guidance, categories=[star(), bolt(negative=["bolt"])])


def modes(guarded):
    return [record["negative"]["mode"] for record in guarded.records("negative.injected")]


def reasons(guarded):
    return [record["reason"].partition(":")[0] for record in guarded.records("degraded")]


def footprint(host):
    """Return the hooks and options of the host's model, in which steering could leave changes."""
    hooks = [len(module._forward_pre_hooks) for module in host.model.network.modules()]
    forge = getattr(host.model, "forge_objects", None)
    return hooks, None if forge is None else dict(forge.unet.model_options)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_seen_category_is_steered_away_from_where_it_is_seen_and_nowhere_else(guarded, plain, kind):
    serve(guarded, ATTENTION)
    host = guarded.host(**kind)
    result, without = host.process(Processing(**ASKED, batch_size=2)), plain(**ASKED, batch_size=2, options=kind)
    assert not host.errors
    assert [one == other for one, other in zip(bytes_of(result), bytes_of(without), strict=True)] == [False, True]
    assert modes(guarded) == ["attention"]
    assert reasons(guarded) == []


@pytest.mark.parametrize("kind", [{}, {"forge": True}], ids=str)
def test_nothing_is_left_behind_in_the_model(guarded, kind):
    serve(guarded, ATTENTION)
    host = guarded.host(**kind)
    before = footprint(host)[0]
    host.process(Processing(**ASKED, batch_size=2))
    hooks, options = footprint(host)
    assert hooks == before
    assert options in (None, {"transformer_options": {}})


@pytest.mark.parametrize("kind", [{}, {"forge": True}], ids=str)
def test_nothing_is_left_behind_in_a_model_that_raises(guarded, kind):
    serve(guarded, ATTENTION)
    host = guarded.host(**kind)
    evaluate, footprints = host.model.velocity, []

    def failing(*given):
        footprints.append(footprint(host))
        if footprints[-1] != footprints[0]:  # steered by now
            raise RuntimeError("out of memory")
        return evaluate(*given)

    host.model.velocity = failing
    with pytest.raises(RuntimeError, match="out of memory"):
        host.process(Processing(**ASKED, batch_size=2))
    assert footprint(host) == footprints[0]


def test_a_prompt_that_is_longer_than_the_unconditional_is_steered(guarded, plain):
    serve(guarded, ATTENTION)
    asked = {**ASKED, "prompt": ", ".join([ASKED["prompt"]] * 6), "batch_size": 2}
    result, without = guarded.host().process(Processing(**asked)), plain(**asked)
    assert [one == other for one, other in zip(bytes_of(result), bytes_of(without), strict=True)] == [False, True]
    assert reasons(guarded) == []


def test_a_job_without_guidance_is_steered(guarded, plain):
    serve(guarded, ATTENTION)
    asked = {**ASKED, "cfg_scale": 1.0, "batch_size": 2}
    result, without = guarded.host().process(Processing(**asked)), plain(**asked)
    assert [one == other for one, other in zip(bytes_of(result), bytes_of(without), strict=True)] == [False, True]


@pytest.mark.parametrize("kind", [{}, {"forge": True}], ids=str)
def test_attention_gets_the_separate_term_beside_it_where_it_escalates(guarded, kind):
    drawn, host = [], guarded.host(**kind)
    for guidance in (ATTENTION, {**ATTENTION, "escalate": 1, "scale": 6}):
        serve(guarded, guidance, [[{"star": 0.9, "bolt": 0.9}, {}], CLEAN])
        drawn.append(bytes_of(host.process(Processing(**ASKED, batch_size=2))))
    assert [one == other for one, other in zip(*drawn, strict=True)] == [False, True]
    assert modes(guarded) == ["attention", "attention+separate"]


@pytest.mark.parametrize(("shown", "mode"), [(True, "attention"), (False, "separate")])
def test_auto_is_attention_where_the_measurement_lies_beside_the_checkpoint(guarded, tmp_path, shown, mode):
    serve(guarded, AUTO)
    file = tmp_path / "model.safetensors"
    if shown:
        (tmp_path / "model.attention.json").write_text("{}")
    host = guarded.host()
    host.model.sd_checkpoint_info = SimpleNamespace(filename=str(file))
    host.process(Processing(**ASKED, batch_size=2))
    assert modes(guarded) == [mode]


def test_what_cannot_be_reached_is_steered_by_separate_and_the_record_says_so(guarded, monkeypatch):
    serve(guarded, ATTENTION)
    host = guarded.host()
    attending = sys.modules["dnp_guard_extension.attending"]
    monkeypatch.setattr(attending, "in_order", lambda *_: lambda _: {})
    host.process(Processing(**ASKED, batch_size=2))
    assert modes(guarded) == ["attention", "separate"]
    assert reasons(guarded) == ["attention_lost"]


def test_a_model_without_such_layers_is_refused_attention(guarded, monkeypatch):
    serve(guarded, ATTENTION)
    host = guarded.host()
    host.model.model.diffusion_model = torch.nn.Linear(1, 1)
    result = host.process(Processing(**ASKED, batch_size=2))
    assert ["failed_closed" in text for text in result.infotexts] == [True, True]


def unreached(model, folder):
    """Hide a model's network from the extension, so that its attention cannot be steered."""
    model.model = SimpleNamespace(conditioning_key="crossattn")


def unmeasured(model, folder):
    model.sd_checkpoint_info = SimpleNamespace(filename=str(folder / "refiner.safetensors"))


@pytest.mark.parametrize("other", [unreached, unmeasured])
@pytest.mark.parametrize("when", ["refiner", "hires"])
def test_attention_that_another_checkpoint_takes_away_becomes_separate_and_the_record_says_so(
    guarded, tmp_path, other, when
):
    serve(guarded, AUTO)
    (tmp_path / "model.attention.json").write_text("{}")
    host = guarded.host()
    host.model.sd_checkpoint_info = SimpleNamespace(filename=str(tmp_path / "model.safetensors"))
    model = SdModel(load_pipeline(), sdxl=False, forge=False)
    other(model, tmp_path)
    asked = {"refiner": (model, 0.5)} if when == "refiner" else {"enable_hr": True, "hr_checkpoint": model}
    host.process(Processing(**ASKED, **asked, batch_size=2))
    assert modes(guarded) == ["attention", "separate"]
    assert reasons(guarded) == ["attention_lost"]


def test_a_refiner_that_was_measured_too_is_steered_in_attention_on(guarded, tmp_path):
    serve(guarded, AUTO)
    host = guarded.host()
    model = SdModel(load_pipeline(), sdxl=False, forge=False)
    for name, loaded in (("model", host.model), ("refiner", model)):
        (tmp_path / f"{name}.attention.json").write_text("{}")
        loaded.sd_checkpoint_info = SimpleNamespace(filename=str(tmp_path / f"{name}.safetensors"))
    host.process(Processing(**ASKED, refiner=(model, 0.5), batch_size=2))
    assert modes(guarded) == ["attention"]
    assert reasons(guarded) == []


def test_each_of_many_negatives_is_encoded_once(guarded):
    names = ["star", "bolt", "skull", "ring", "cross", "square", "circle"]
    categories = [{"id": name, "look_for": [f"a {name}"], "negative": [name]} for name in names]
    guarded.serve([[dict.fromkeys(names, 0.9)] * 2, CLEAN], guidance=ATTENTION, categories=categories)
    host = guarded.host()
    host.process(Processing(**ASKED, batch_size=2))
    encoded = [texts[0] for texts in host.model.encoded if len(texts) == 1 and texts[0] in names]
    assert sorted(encoded) == sorted(names)


@pytest.fixture
def layers(guarded):
    """Return the extension's module ``layers``, as imported on a host."""
    guarded.host()
    return sys.modules["dnp_guard_extension.layers"]


def test_an_evaluation_equals_that_of_a_pipeline(layers, shared_pipe):
    words = Conditioning(shared_pipe)
    network = compvis(shared_pipe.unet)
    x = torch.randn(2, 8, 8, 8, generator=torch.Generator().manual_seed(5))
    timesteps, context = torch.full((2,), 500), words.encode(["a red circle", "a blue square"])
    parts = [layers.Part((1,), words.encode([text]), HOW.phi, HOW.tau, HOW.alpha) for text in ("star", "bolt")]
    with layers.Layers(network).steered(parts, lambda _: {0: 0, 1: 1}) as steering, torch.no_grad():
        got = network(x, timesteps, context).sample
    negatives = [(1, words.encode([text]), HOW) for text in ("star", "bolt")]
    torch.testing.assert_close(got, attended(shared_pipe.unet, x, timesteps, context, negatives))
    assert steering.failure is None


def test_the_layers_are_hooked_as_the_package_does_it():
    package = EXTENSION.parents[1] / "dnp_guard" / "hosts" / "kdiffusion" / "layers.py"
    assert code(EXTENSION / "dnp_guard_extension" / "layers.py") == code(package)
