"""The guard steers in the attention over the prompt, in tiny pipelines with cross-attention or joint attention."""

import copy
from types import SimpleNamespace

import pytest
import torch

from dnp_guard import CannotSteer, Guard
from dnp_guard.audit import MemorySink
from dnp_guard.glyphs.loading import load_pipeline
from dnp_guard.hosts.diffusers.asking import arguments
from dnp_guard.hosts.diffusers.attending.injection import AttentionInjection
from dnp_guard.hosts.diffusers.attending.reading import Reach
from dnp_guard.hosts.diffusers.attending.stages import Crossing, Steered
from dnp_guard.steering.attention import normalised
from dnp_guard.types import InAttention
from tests.hosts.bits import same
from tests.hosts.tiny import draw, footprint, tiny
from tests.hosts.tiny.looks import SeesAStarAndABoltOnce, SeesAStarOnce
from tests.policies import bolt, policy, star

pytestmark = [
    pytest.mark.models,
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),  # diffusers' own use of it
]

CROSS = {
    "LTXPipeline": "attn2",
    "PixArtSigmaPipeline": "attn2",
    "SanaPipeline": "attn2",
    "StableDiffusionPipeline": "attn2",
    "StableDiffusionXLPipeline": "attn2",
    "WanPipeline": "attn2",
}
"""Maps families to the end of the name of their layers that read the prompt."""

JOINT = {
    "AuraFlowPipeline": "attn",
    "ChromaPipeline": "attn",
    "CogView4Pipeline": "attn1",
    "FluxPipeline": "attn",
    "StableDiffusion3Pipeline": "attn",
}

PHI, TAU, ALPHA = 8.0, 3.0, 0.6


def guard(sink=None, sees=SeesAStarOnce, **attention):
    how = {"phi": PHI, "tau": TAU, "alpha": ALPHA, **attention}
    guidance = {"mode": "attention", "scale": None, "hold": 9, "attention": how}
    of = policy(guidance=guidance, categories=[star(), bolt(negative=["bolt"])])
    return Guard(of, vlm=sees(), audit=sink)


@pytest.fixture(scope="module")
def embedded():
    return load_pipeline()


@pytest.fixture(params=[*CROSS, *JOINT])
def pipe(request):
    """Yield a pipeline of every family; fail the test if the test leaves changes on the pipeline."""
    made = tiny(request.param)
    made.callback_on_step_end = None
    draw(made, num_inference_steps=1)
    before = footprint(made)
    yield made
    assert footprint(made) == before


def test_only_the_image_concerned_changes_and_the_record_says_how(pipe):
    plain, sink = draw(pipe), MemorySink()
    with guard(sink).attached(pipe):
        steered = draw(pipe)
    assert same(plain, steered) == [True, False, True]
    assert abs(steered[1] - plain[1]).max() > 1e-4
    (injected,) = [record["negative"] for record in sink.records if record["event"] == "negative.injected"]
    assert injected["mode"] == "attention"
    assert injected["attention"] == {"phi": PHI, "tau": TAU, "alpha": ALPHA}
    assert not [record for record in sink.records if record["event"] == "degraded"]


def test_several_categories_change_only_the_image_concerned(pipe):
    plain = draw(pipe)
    with guard(sees=SeesAStarAndABoltOnce).attached(pipe):
        assert same(plain, draw(pipe)) == [True, False, True]


def test_a_separate_term_beside_attention_steers_the_image_concerned_alone_and_the_record_says_both(pipe):
    if type(pipe).__name__ == "FluxPipeline":
        pytest.skip("it runs without guidance")
    plain, sink = draw(pipe), MemorySink()
    with guard(sees=SeesAStarAndABoltOnce).attached(pipe):
        attention = draw(pipe)
    escalates = policy(
        guidance={"mode": "attention", "hold": 9, "escalate": 1, "attention": {"phi": PHI, "tau": TAU, "alpha": ALPHA}},
        categories=[star(), bolt(negative=["bolt"])],
    )
    with Guard(escalates, vlm=SeesAStarAndABoltOnce(), audit=sink).attached(pipe):
        both = draw(pipe)
    assert [*same(plain, both), *same(attention, both)] == [True, False, True] * 2
    (injected,) = [record["negative"] for record in sink.records if record["event"] == "negative.injected"]
    assert injected["mode"] == "attention+separate"
    assert injected["scale"] == 6
    assert not [record for record in sink.records if record["event"] == "degraded"]


@pytest.mark.parametrize("none", [{"phi": 1.0}, {"alpha": 0.0}])
def test_no_extrapolation_and_no_share_leave_every_bit(pipe, none):
    plain = draw(pipe)
    with guard(**none).attached(pipe):
        assert same(plain, draw(pipe)) == [True, True, True]


class Spy:
    """A wrapper that keeps the first steered evaluation of a denoiser, for comparison.

    Attributes:
        kept: the evaluation, its output, the batch row of the steered image's prompt, and the encoded negatives.
    """

    def __init__(self, monkeypatch):
        self.kept = None
        evaluate = AttentionInjection.evaluate

        def watched(injection, evaluation, args, kwargs):
            output = evaluate(injection, evaluation, args, kwargs)
            # Only an injection knows the negatives and the rows that hold the prompt.
            active, copies = dict(injection.call.held.active), injection.rows_of_prompt(evaluation)
            if active and copies and self.kept is None:
                ((image, term),) = active.items()
                negatives = [part.conditioning.of(image) for part in term.parts]
                self.kept = evaluation, arguments.first_of(output), copies[0][image], negatives
            return output

        monkeypatch.setattr(AttentionInjection, "evaluate", watched)


def nag(z_pos, z_neg):
    """Steer attention outputs by equations 7 to 10 of arXiv 2505.21179, written as in the paper."""
    extrapolated = PHI * z_pos - (PHI - 1) * z_neg
    ratio = extrapolated.norm(p=1, dim=-1, keepdim=True) / z_pos.norm(p=1, dim=-1, keepdim=True)
    normalised = torch.minimum(ratio, torch.full_like(ratio, TAU)) / ratio * extrapolated
    return ALPHA * normalised + (1 - ALPHA) * z_pos


def beside(z, picture):
    """Steer the first row's features away from those of the other rows, and put the result into all rows.

    Args:
        z: attention outputs, one row for the prompt and one per negative.
        picture: positions of the picture, which are steered.
    """
    z, steered = z.clone(), z[:1, picture]
    for negative in z[1:, picture]:
        steered = nag(steered, negative[None])
    z[:, picture] = steered
    return z


def steer(denoiser, end, text):
    """Return a copy of a denoiser that steers the first row away from the other rows in its attention layers.

    Args:
        denoiser: the denoiser.
        end: last part of the names of the layers.
        text: number of text positions before those of the picture.
    """
    denoiser = copy.deepcopy(denoiser)
    for name, layer in denoiser.named_modules():
        if not name.endswith(f".{end}") or "refiner" in name:
            continue
        single = "single" in name
        if isinstance(getattr(layer, "to_out", None), torch.nn.ModuleList):
            joined = single or end == "attn1"
            picture = slice(text if joined else 0, None)
            layer.to_out[0].register_forward_pre_hook(lambda _, args, picture=picture: (beside(args[0], picture),))
        else:
            layer.register_forward_hook(lambda *args: beside(args[-1], slice(text, None)))
    return denoiser


@pytest.mark.parametrize(
    ("name", "sees", "categories"),
    [
        *((name, SeesAStarOnce, 1) for name in [*CROSS, *JOINT]),
        *((name, SeesAStarAndABoltOnce, 2) for name in ["PixArtSigmaPipeline", "StableDiffusionPipeline", *JOINT]),
    ],
)
def test_the_output_is_that_of_attention_written_by_hand(name, sees, categories, monkeypatch):
    pipe, spy = tiny(name), Spy(monkeypatch)
    with guard(sees=sees).attached(pipe):
        draw(pipe)
    evaluation, output, row, negatives = spy.kept
    assert len(negatives) == categories
    rows = arguments.Rows([row] * (1 + categories), len(output), latents=next(iter(evaluation.given)))
    given = {key: rows.of(value, (key,)) for key, value in evaluation.given.items()}
    for path in negatives[0]:
        own = arguments.at(given, path)
        if own.ndim > 2 or "mask" in str(path[-1]):
            given = arguments.replaced(given, path, torch.cat([own[:1], *(negative[path] for negative in negatives)]))
    text = given["encoder_hidden_states"].shape[1]
    denoiser = steer(evaluation.part, {**CROSS, **JOINT}[name], text)
    with torch.no_grad():
        reference = arguments.first_of(denoiser(*[given.pop(argument) for argument in evaluation.by_place], **given))
    assert torch.allclose(output[row], reference[0], atol=1e-5)


def test_a_compiled_denoiser_is_refused_with_the_reason():
    pipe = copy.copy(tiny("StableDiffusionPipeline"))
    pipe.unet = copy.deepcopy(pipe.unet)
    pipe.unet._compiled_call_impl = pipe.unet._call_impl  # as `compile()` leaves a module
    with guard().attached(pipe), pytest.raises(CannotSteer, match="compiled"):
        draw(pipe)


def test_auto_is_attention_in_the_embedded_model_where_its_effect_was_shown(embedded):
    sink = MemorySink()
    with Guard("glyphs", vlm=SeesAStarOnce(), audit=sink).attached(embedded):
        draw(embedded)
    (injected,) = [record["negative"] for record in sink.records if record["event"] == "negative.injected"]
    assert injected["mode"] == "attention"


def test_auto_is_separate_where_the_effect_was_not_shown():
    pipe, sink = tiny("StableDiffusionPipeline"), MemorySink()
    with Guard(policy(guidance={"mode": "auto", "hold": 9}), vlm=SeesAStarOnce(), audit=sink).attached(pipe):
        draw(pipe)
    (injected,) = [record["negative"] for record in sink.records if record["event"] == "negative.injected"]
    assert injected["mode"] == "separate"
    assert injected["scale"] == 6


@pytest.mark.parametrize("row", [0, 1])
def test_each_image_of_a_batch_is_steered_with_its_own_tau(row):
    prompt, negative = torch.randn(2, 2, 5, 8, generator=torch.Generator().manual_seed(0))
    how = [InAttention(PHI, tau, ALPHA) for tau in (1.0, 3.0)]
    groups = [Steered((0, 1), how, {"encoder_hidden_states": negative})]
    stage, layer = Crossing(Reach(frozenset({"a"}), {}), groups, 2, None), SimpleNamespace(name="a", taps=())
    given = {"hidden_states": torch.zeros(2, 5, 8), "encoder_hidden_states": prompt}
    steered = stage.attend(layer, given, lambda encoder_hidden_states, **_: encoder_hidden_states)
    assert torch.equal(steered[row], normalised(prompt[row], negative[row], PHI, how[row].tau, ALPHA))
