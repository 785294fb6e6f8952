"""A plugin that adds a row to the table of pipelines."""

import pytest
from diffusers import StableDiffusionPipeline

from dnp_guard import CannotSteer, Guard, hookimpl
from dnp_guard.hosts.diffusers.families import FAMILIES, Family, classes
from dnp_guard.hosts.diffusers.families.encoding import by
from dnp_guard.hosts.diffusers.families.refused import REFUSED, why_not
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.hosts.tiny import draw, tiny
from tests.hosts.tiny.looks import SeesAStarOnce
from tests.policies import policy

pytestmark = pytest.mark.models


class HousePipeline(StableDiffusionPipeline):
    """A pipeline that diffusers does not know."""


class House:
    """Says how it is steered."""

    @hookimpl
    def dnp_guard_pipeline_family(self):
        encode = by("encoder_hidden_states")
        return [Family("House", frozenset({"HousePipeline"}), encode, denoisers=("unet",))]


@pytest.fixture
def pipe():
    parts = tiny("StableDiffusionPipeline").components
    made = HousePipeline(**parts, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return made


def test_a_pipeline_without_a_row_is_refused_with_the_reason(pipe):
    with pytest.raises(CannotSteer, match=r"HousePipeline is not a pipeline .*: no test has shown where its negative"):
        Guard(policy(), vlm=ScriptedBackend([{}])).attach(pipe)


def test_a_pipeline_of_a_plugins_row_is_steered(pipe):
    plain = draw(pipe)
    with Guard(policy(guidance={"hold": 9}), vlm=SeesAStarOnce(), plugins=[House()]).attached(pipe):
        steered = draw(pipe)
    assert [bool((a == b).all()) for a, b in zip(plain, steered, strict=True)] == [True, False, True]


def test_a_row_of_a_plugin_does_not_take_the_place_of_a_built_in_one():
    class Careless:
        @hookimpl
        def dnp_guard_pipeline_family(self):
            return [Family("Careless", frozenset({"StableDiffusionPipeline"}), by(), denoisers=())]

    pipe = tiny("StableDiffusionPipeline")
    plain = draw(pipe)
    with Guard(policy(guidance={"hold": 9}), vlm=SeesAStarOnce(), plugins=[Careless()]).attached(pipe):
        assert (plain[1] != draw(pipe)[1]).any()


def test_every_class_of_diffusers_is_steered_or_refused_with_a_reason_but_never_both():
    steered = {name for family in FAMILIES for name in family.pipelines}
    assert not steered & set(REFUSED)
    assert set(REFUSED) <= set(classes())
    assert all(why_not(name)[0] for name in classes() if name not in steered)
