"""The guard steers modular pipelines of diffusers with any guider, with a user's own blocks and with shared parts."""

import diffusers
import pytest
import torch
from diffusers.modular_pipelines import (
    ComponentsManager,
    InputParam,
    ModularPipelineBlocks,
    OutputParam,
    SequentialPipelineBlocks,
)

from dnp_guard import Guard
from dnp_guard.audit import MemorySink
from tests.hosts.matrix import SeesOnce
from tests.hosts.tiny import modular
from tests.policies import policy

pytestmark = [
    pytest.mark.models,
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # diffusers' own use of its modules
]

GUIDERS = {
    "AdaptiveProjectedGuidance": {},
    "AdaptiveProjectedMixGuidance": {},
    "ClassifierFreeGuidance": {},
    "ClassifierFreeZeroStarGuidance": {},
    "MagnitudeAwareGuidance": {},
    "PerturbedAttentionGuidance": {"perturbed_guidance_layers": [0]},
    "SkipLayerGuidance": {"skip_layer_guidance_layers": [0]},
    "SmoothedEnergyGuidance": {"seg_guidance_layers": [0]},
    "TangentialClassifierFreeGuidance": {},
}
PARTS = {"throughout": {}, "over a part of the steps": {"start": 0.3, "stop": 0.7}}
NAME = "QwenImageModularPipeline"
GUIDED = "StableDiffusion3ModularPipeline"
KNOWN = {NAME, GUIDED}
OF = policy(queries={"steps": [0, 1], "of": 4, "final": True}, guidance={"mode": "separate", "hold": 9, "scale": 15})


def drawn(pipe):
    torch.manual_seed(0)  # some blocks draw without the call's generator
    # An ended call leaves its last step in the guider, which cannot forget it otherwise.
    pipe.guider._step = pipe.guider._num_inference_steps = None  # noqa: SLF001
    return modular.draw(pipe, 3, type(pipe).__name__ if type(pipe).__name__ in KNOWN else NAME)


def moved(pipe, other=None):
    """Return per image the largest change of a pixel when a star is seen in the second image.

    Fail if the guard records a failure.
    """
    plain, sink = drawn(other or pipe), MemorySink()
    with Guard(OF, vlm=SeesOnce(3, 1), audit=sink).attached(pipe):
        steered = drawn(other or pipe)
    assert not [record for record in sink.records if record["event"] == "degraded"]
    return [float(abs(a - b).max()) for a, b in zip(plain, steered, strict=True)]


def steered_alone(distances):
    return distances[0] == distances[2] == 0 and distances[1] > 1e-4


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("guider", GUIDERS)
def test_a_guider_is_steered(guider, part):
    pipe = modular.built(NAME if guider == "MagnitudeAwareGuidance" else GUIDED)  # it takes only sequences
    pipe.update_components(guider=getattr(diffusers.guiders, guider)(**GUIDERS[guider], **PARTS[part]))
    assert steered_alone(moved(pipe))


def test_a_guider_that_is_switched_off_is_steered():
    pipe = modular.built(NAME)
    pipe.update_components(guider=diffusers.ClassifierFreeGuidance(enabled=False))
    assert steered_alone(moved(pipe))


class Repeats(ModularPipelineBlocks):
    """A user's own pipeline block, which writes the words of every prompt twice."""

    model_name = "qwenimage"

    @property
    def inputs(self):
        return [InputParam("prompt", required=True)]

    @property
    def intermediate_outputs(self):
        return [OutputParam("prompt")]

    def __call__(self, components, state):
        block = self.get_block_state(state)
        block.prompt = [f"{prompt} {prompt}" for prompt in block.prompt]
        self.set_block_state(state, block)
        return components, state


def test_blocks_that_a_user_puts_together_are_steered():
    of = modular.built(NAME)
    blocks = SequentialPipelineBlocks.from_blocks_dict({"repeats": Repeats(), **of.blocks.sub_blocks})
    pipe = blocks.init_pipeline()
    pipe.update_components(**{name: part for name, part in of.components.items() if part is not None})
    pipe.set_progress_bar_config(disable=True)
    assert (drawn(pipe) != drawn(of)).any()
    assert steered_alone(moved(pipe))


def test_a_pipeline_that_shares_its_parts_with_a_guarded_one_is_not_steered():
    manager = ComponentsManager()
    guarded, other = (
        diffusers.QwenImageModularPipeline(components_manager=manager, collection=name) for name in ("one", "other")
    )
    parts = {name: part for name, part in modular.built(NAME).components.items() if part is not None}
    for pipe in (guarded, other):
        pipe.update_components(**parts)
        pipe.set_progress_bar_config(disable=True)
    assert steered_alone(moved(guarded))
    assert moved(guarded, other) == [0, 0, 0]
