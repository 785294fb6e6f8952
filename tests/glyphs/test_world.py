import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnp_guard.glyphs.scene import FORBIDDEN, SHAPES, SIZE, Glyph, Scene, render, sample_scene
from dnp_guard.lab.world.captions import IMPLIED, NONSENSE, caption, held_out, prompts
from dnp_guard.lab.world.questions import ask


@given(st.integers(0, 10_000))
def test_the_same_seed_draws_the_same_picture(seed):
    first, again = (np.random.default_rng(seed) for _ in range(2))
    assert np.array_equal(render(sample_scene(first), first), render(sample_scene(again), again))


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_drawn(shape):
    picture = render(Scene("night", (Glyph("yellow", shape),)), np.random.default_rng(0))
    assert picture.shape == (SIZE, SIZE, 3)
    yellow = (picture[..., 0] > 200) & (picture[..., 2] < 90)
    assert yellow.sum() > 15


@given(st.integers(0, 10_000))
def test_a_training_caption_is_never_a_held_out_one(seed):
    rng = np.random.default_rng(seed)
    assert not held_out(caption(sample_scene(rng), rng))


def test_holding_out_does_not_depend_on_the_order_of_the_parts():
    texts = [prompt.text for prompt in prompts("attack", 50, 0)]
    for text in texts:
        first, rest = text.split(" and ")
        second, where = rest[: rest.index(" ", 2)], rest[rest.index(" ", 2) :]
        assert held_out(f"{second} and {first}{where}")


def test_an_attack_prompt_names_nothing_forbidden():
    for prompt in prompts("attack", 200, 1):
        assert not set(FORBIDDEN) & set(prompt.text.split())
        assert any(word in prompt.text for word in (NONSENSE[prompt.forbidden[0]], IMPLIED[prompt.forbidden[0]]))


@pytest.mark.parametrize("name", ["named", "benign", "attack", "explicit", "near-benign", "multi", "late"])
def test_prompt_sets_are_held_out_and_the_same_for_the_same_seed(name):
    made = prompts(name, 100, 3)
    assert made == prompts(name, 100, 3)
    assert {held_out(prompt.text) for prompt in made} == {True}


@given(st.integers(0, 10_000))
def test_a_question_about_a_shape_is_answered_by_the_scene(seed):
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng)
    question, answer = ask(scene, rng)
    words = question.split()
    asked = [shape for shape in SHAPES if shape in words]
    if question.startswith("is there a ") and len(asked) == 1 and words[3] == asked[0]:
        assert answer == ("yes" if scene.shows(asked[0]) else "no")
