from collections import Counter
from pathlib import Path

import pytest

from dnp_guard.errors import DnpGuardError
from dnp_guard.glyphs.scene import FORBIDDEN, USUAL_COLOUR, USUAL_PLACE, Glyph
from dnp_guard.lab.evaluate.prompt_sets import FOLDER, HELD_OUT, SETS, TRAINING, Entry, embedded_set
from dnp_guard.lab.evaluate.prompt_sets.entries import from_line, to_line
from dnp_guard.lab.evaluate.prompt_sets.making import SIZE, make
from dnp_guard.lab.world.captions import IMPLIED, NONSENSE, Prompt, held_out

PAGE = Path(__file__).parents[3] / "docs" / "explanation" / "methods.md"


@pytest.mark.parametrize("name", SETS)
def test_a_checked_in_set_is_what_the_script_draws(name):
    lines = [to_line(entry) for entry in make(name)]
    assert (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines() == lines


@pytest.mark.parametrize("name", SETS)
def test_a_set_holds_enough_prompts(name):
    assert len(embedded_set(name)) == SIZE >= 400


@pytest.mark.parametrize("name", SETS)
def test_no_prompt_comes_again_before_every_other_has_come(name):
    texts = [entry.prompt.text for entry in embedded_set(name)]
    different = list(dict.fromkeys(texts))
    assert texts == (different * 2)[:SIZE]


@pytest.mark.parametrize("name", SETS)
def test_a_set_has_as_many_different_prompts_as_its_page_says(name):
    captions = len({entry.prompt.text for entry in embedded_set(name)})
    assert f"| {name} | {SIZE} | {captions} |" in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", HELD_OUT)
def test_a_reported_set_was_never_trained_on(name):
    assert {held_out(entry.prompt.text) for entry in embedded_set(name)} == {True}


@pytest.mark.parametrize("name", TRAINING)
def test_a_tuning_set_shares_no_prompt_with_a_reported_one(name):
    assert {held_out(entry.prompt.text) for entry in embedded_set(name)} == {False}


def test_no_two_images_are_made_from_the_same_noise():
    seeds = Counter(entry.seed for name in SETS for entry in embedded_set(name))
    assert max(seeds.values()) == 1


@pytest.mark.parametrize("name", ["attack", "attack-train", "late"])
def test_an_attack_draws_one_forbidden_glyph_and_names_none(name):
    for entry in embedded_set(name):
        (shape,) = entry.prompt.forbidden
        assert not set(FORBIDDEN) & set(entry.prompt.text.split())
        assert NONSENSE[shape] in entry.prompt.text or IMPLIED[shape] in entry.prompt.text
        assert len(entry.prompt.requested) == 1


def test_an_explicit_prompt_names_what_it_draws():
    named = {entry.prompt.forbidden[0] in entry.prompt.text.split() for entry in embedded_set("explicit")}
    assert named == {True}


@pytest.mark.parametrize("name", ["benign", "near-benign", "benign-train"])
def test_a_benign_prompt_draws_nothing_forbidden(name):
    aliases = {*FORBIDDEN, *NONSENSE.values(), "wish", "sign"}
    for entry in embedded_set(name):
        assert not entry.prompt.forbidden
        assert entry.prompt.requested
        assert not aliases & set(entry.prompt.text.split())


def test_a_near_benign_prompt_has_a_forbidden_glyphs_usual_colour():
    entries = embedded_set("near-benign")
    usual = set(USUAL_COLOUR.values())
    assert all(usual & {glyph.colour for glyph in entry.prompt.requested} for entry in entries)
    assert sum(entry.prompt.place in USUAL_PLACE.values() for entry in entries) > SIZE / 2


def test_a_multi_prompt_draws_two_different_forbidden_glyphs():
    assert {len(set(entry.prompt.forbidden)) for entry in embedded_set("multi")} == {2}


def test_a_late_prompt_draws_its_forbidden_glyph_small():
    assert {"a small " in entry.prompt.text for entry in embedded_set("late")} == {True}


def test_a_line_is_read_back_as_it_was():
    entry = Entry(Prompt("a red ring", "room", (Glyph("red", "ring", small=True),), ("star", "bolt")), 7, 3.5)
    assert from_line(to_line(entry)) == entry


def test_an_unknown_set_is_refused_with_the_nearest_name():
    with pytest.raises(DnpGuardError, match="near-benign"):
        embedded_set("near_benin")
