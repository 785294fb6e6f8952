from __future__ import annotations

import pytest

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
