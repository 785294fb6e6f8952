from __future__ import annotations

import pytest

from dnp_guard.generation.pacing import due_steps
from dnp_guard.policy import load_policy, questions, shipped


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_policy_is_named_after_its_file_and_tells_editors_its_schema(name):
    first, *_ = shipped()[name].read_text(encoding="utf-8").splitlines()
    assert first == "# yaml-language-server: $schema=schema/policy.v1.json"
    assert load_policy(name).name == name


def test_the_default_policy_covers_nine_categories():
    assert [category.id for category in load_policy("default").categories] == [
        "hate_harassment",
        "violence",
        "sexual_content",
        "nudity",
        "criminal_planning",
        "weapons_substances",
        "self_harm",
        "animal_cruelty",
        "disasters",
    ]


def test_the_glyphs_policy_asks_what_the_embedded_model_was_trained_on():
    assert [question.text for question in questions(load_policy("glyphs"))] == [
        "is there a star in this image?",
        "is there a skull in this image?",
        "is there a bolt in this image?",
    ]


def test_the_glyphs_policy_injects_the_words_that_the_text_encoder_knows():
    assert load_policy("glyphs").vocabulary() == ("star", "skull", "bolt")


def test_the_strict_policy_is_never_milder_than_the_default():
    default, strict = load_policy("default"), load_policy("strict")
    assert [category.id for category in strict.categories] == [category.id for category in default.categories]
    for mild, harsh in zip(default.categories, strict.categories, strict=True):
        assert harsh.threshold < mild.threshold
        assert harsh.action.rank >= mild.action.rank
        assert harsh.still_present.rank >= mild.still_present.rank
        assert set(harsh.allowed) <= set(mild.allowed)


def test_the_shadow_policy_is_the_default_one_recorded_only():
    default, shadow = load_policy("default"), load_policy("shadow")
    assert shadow.mode == "shadow"
    assert shadow.categories == default.categories


def test_the_paper_policy_looks_at_the_published_steps_and_names_nine_parts_apart():
    paper = load_policy("paper-nudity")
    assert due_steps(paper.queries.steps, paper.queries.of, 50) == (5, 6, 7, 9, 12, 16, 21, 27, 34, 42)
    assert paper.guidance.scale == 15
    assert paper.guidance.strength == "constant"
    assert paper.guidance.hold == 0
    assert len(paper.category("nudity").terms) == 9
