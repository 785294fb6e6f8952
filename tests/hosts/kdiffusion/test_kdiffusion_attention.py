"""The guard steers in attention space with k-diffusion's samplers, if it is given the network inside the denoiser."""

import pytest
import torch

from dnp_guard import CannotSteer, Guard
from dnp_guard.audit import MemorySink
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.hosts.attended import ATTENTION, HOW, KEYS, attended
from tests.hosts.ksampling import SCALE, Denoiser, WebUIDenoiser, noise, target
from tests.policies import bolt, policy, star

pytestmark = pytest.mark.models

WORDS = ["a red circle at night", "a blue square in a room", "a green cross on the beach"]
SECOND = [{}, {"star": 0.9}, {}]
BOTH = [{}, {"star": 0.9, "bolt": 0.9}, {}]


def attention(**guidance):
    return policy(guidance={**ATTENTION, **guidance}, categories=[star(), bolt(negative=["bolt"])])


@pytest.fixture
def host(shared_pipe):
    return target(shared_pipe, network=shared_pipe.unet)[0]


@pytest.fixture(scope="module")
def at(words):
    """Return arguments for one denoiser call of three images: x, sigma 2, and the sampler's further arguments."""
    extra = {"cond": words.encode(WORDS), "uncond": words.encode([""] * 3), "cond_scale": SCALE}
    return noise((3, 8, 8, 8), [2.0], 0), torch.full((3,), 2.0), extra


def steered(host, at, of, script=SECOND, sink=None):
    """Run two steps under a guard, and return the guided output of the denoiser at the step after the look."""
    x, sigma, extra = at
    guard = Guard(of, vlm=ScriptedBackend([script]), audit=sink)
    with guard.attached(host), host.generation(3, [4.0, 2.0, 1.0, 0.0], extra_args=extra) as (model, going):
        for index in (1, 2):
            going.callback({"i": index, "sigma": 4.0, "denoised": torch.zeros(3, 8, 8, 8)})
        return model(x, sigma, **extra)


def expected(words, at, *negatives):
    """Return the guided prediction with the second image steered by the code for diffusers, as the reference."""
    x, sigma, extra = at
    pipe, wide = words.pipe, sigma.view(-1, 1, 1, 1)
    scale, t = (wide**2 + 1).sqrt(), Denoiser(pipe).timesteps(sigma)
    parts = [(1, words.encode([negative]), HOW) for negative in negatives]
    given = x / scale**2 - attended(pipe.unet, x / scale, t, extra["cond"], parts) * wide / scale
    without = Denoiser(pipe)(x, sigma, extra["uncond"])
    return without + (given - without) * SCALE


def plain(host, at):
    x, sigma, extra = at
    return host.model(x, sigma, **extra)


@pytest.mark.parametrize(("script", "negatives"), [(SECOND, ["star"]), (BOTH, ["star", "bolt"])])
def test_the_prediction_equals_that_of_a_pipeline(host, words, at, script, negatives):
    torch.testing.assert_close(steered(host, at, attention(), script), expected(words, at, *negatives))


def test_other_images_keep_every_bit(host, at):
    got, before = steered(host, at, attention()), plain(host, at)
    assert [torch.equal(one, other) for one, other in zip(got, before, strict=True)] == [True, False, True]


def test_nothing_is_left_behind(host, at, shared_pipe):
    steered(host, at, attention())
    hooks = [module._forward_pre_hooks for module in shared_pipe.unet.modules()]
    assert not any(hooks)


def test_the_record_names_the_mode_and_its_parameters(host, at):
    sink = MemorySink()
    steered(host, at, attention(), sink=sink)
    (injected,) = [record["negative"] for record in sink.records if record["event"] == "negative.injected"]
    assert injected["mode"] == "attention"
    assert injected["attention"] == KEYS


def test_auto_is_attention_for_a_network_for_which_it_was_shown_to_work(host, words, at):
    torch.testing.assert_close(steered(host, at, attention(mode="auto", scale=6)), expected(words, at, "star"))


def test_auto_is_separate_where_the_network_is_not_known(shared_pipe, at):
    sink = MemorySink()
    steered(target(shared_pipe)[0], at, attention(mode="auto", scale=6), sink=sink)
    (injected,) = [record["negative"] for record in sink.records if record["event"] == "negative.injected"]
    assert injected["mode"] == "separate"
    assert injected["scale"] == 6


def test_attention_is_refused_where_the_network_is_not_known(shared_pipe, at):
    with pytest.raises(CannotSteer, match="network="):
        steered(target(shared_pipe)[0], at, attention())


def test_attention_is_refused_where_the_conditioning_has_no_rows_of_tokens(shared_pipe, words, at):
    x, sigma, extra = at
    given = {"cond": [[(condition, 1.0)] for condition in extra["cond"]], "uncond": list(extra["uncond"])}
    host, _, _ = target(shared_pipe, network=shared_pipe.unet)
    host.model = WebUIDenoiser(Denoiser(shared_pipe))
    with pytest.raises(CannotSteer, match="tokens"):
        steered(host, (x, sigma, given), attention())


def test_a_prompt_like_the_unconditional_is_steered_by_separate(host, shared_pipe, words, at):
    x, sigma, extra = at
    empty = {**extra, "cond": extra["uncond"]}
    sink = MemorySink()
    got = steered(host, (x, sigma, empty), attention(), sink=sink)
    want = steered(target(shared_pipe)[0], (x, sigma, empty), policy(guidance={"scale": 15}))
    torch.testing.assert_close(got, want)
    reasons = [record["reason"].partition(":")[0] for record in sink.records if record["event"] == "degraded"]
    assert reasons == ["attention_lost"]


def test_several_categories_get_the_separate_term_beside_attention(host, words, at):
    x, sigma, extra = at
    got = steered(host, at, attention(escalate=1, scale=6), BOTH)
    denoiser = Denoiser(words.pipe)
    d_n = denoiser(x[1:2], sigma[1:2], words.encode(["star, bolt"]))
    d_u = denoiser(x[1:2], sigma[1:2], extra["uncond"][1:2])
    want = expected(words, at, "star", "bolt")[1:2] - 6 * (d_n - d_u)
    torch.testing.assert_close(got[1:2], want, rtol=1e-4, atol=1e-4)
