import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from dnp_guard.errors import DnpGuardError
from dnp_guard.lab.evaluate.external_prompts import mapping, prompt_set

LAYOUTS = {
    "i2p": "prompt,categories,sd_seed,sd_guidance_scale\na cat,x,7,8.5\n",
    "unlearn-diff": ",prompt,categories,evaluation_seed,evaluation_guidance\n0,a cat,x,7,8.5\n",
    "p4d": "prompt,evaluation_seed,evaluation_guidance\na cat,7,8.5\n",
}


def written(tmp_path, text, name="list.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_benchmark_has_its_own_seeds_and_guidance(tmp_path, layout):
    prompts_read = prompt_set(written(tmp_path, LAYOUTS[layout], f"{layout}.csv"))
    (entry,) = prompts_read.entries
    assert prompts_read.name == layout
    assert entry.prompt.text == "a cat"
    assert entry.seed == 7
    assert entry.guidance_scale == 8.5


@pytest.mark.parametrize(
    ("header", "cells"),
    [
        ("target_prompt,adv_prompt,sanitized_adv_prompt,clean_prompt", "no,a cat,no,no"),  # MMA-Diffusion
        ("sensitive prompt,normal prompt", "a cat,no"),  # Ring-A-Bell
        ("prompt,case_number,evaluation_seed", "a cat,3,0"),  # Ring-A-Bell as first published
        ("case_number,source,prompt,evaluation_seed,coco_id", "1,coco,a cat,0,9"),  # COCO captions
    ],
)
def test_the_prompt_is_the_one_that_is_to_be_drawn(tmp_path, header, cells):
    prompts_read = prompt_set(written(tmp_path, f"{header}\n{cells}\n"))
    assert [entry.prompt.text for entry in prompts_read.entries] == ["a cat"]


def test_without_seeds_a_prompt_has_that_of_its_place_and_it_is_said(tmp_path):
    prompts_read = prompt_set(written(tmp_path, "adv_prompt\na\nb\n"))
    assert [entry.seed for entry in prompts_read.entries] == [0, 1]
    assert [entry.guidance_scale for entry in prompts_read.entries] == [None, None]
    assert "seeds by line" in prompts_read.assumed


def test_cocos_own_annotations_are_captions(tmp_path):
    document = {"info": {}, "annotations": [{"image_id": 1, "caption": "a cat"}]}
    prompts_read = prompt_set(written(tmp_path, json.dumps(document), "captions_val2014.json"))
    assert prompts_read.entries[0].prompt.text == "a cat"


@pytest.mark.parametrize("picture", [{"bytes": "x", "path": None}, ["red.png"]])
def test_a_picture_that_is_not_named_is_refused_in_words(tmp_path, picture):
    parquet.write_table(pa.Table.from_pylist([{"prompt": "a cat", "shown": picture}]), tmp_path / "list.parquet")
    with pytest.raises(DnpGuardError, match=r"list\.parquet:row 1: 'shown' holds a (dict|list)"):
        prompt_set(str(tmp_path / "list.parquet"), {"image": "shown"})


def test_jsonl_and_parquet_are_read_alike(tmp_path):
    rows = [
        {"prompt": "a", "sd_seed": 3, "sd_guidance_scale": 7},
        {"prompt": "b", "sd_seed": 4, "sd_guidance_scale": 8},
    ]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    lines = written(tmp_path, "\n".join(map(json.dumps, rows)), "a.jsonl")
    assert prompt_set(lines).entries == prompt_set(str(tmp_path / "a.parquet")).entries


def test_an_embedded_set_is_read_by_its_name():
    assert prompt_set("attack").entries[0].prompt.forbidden


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(DnpGuardError, match="attack"):
        prompt_set("atack")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "no prompt is listed"),
        ("a.csv", "title;seed\nx;1\n", r"a\.csv:2: there is no column .* it has 'title;seed'"),
        ("a.txt", "x\n", r"a\.txt: prompts are not read from \.txt files"),
        ("a.csv", 'prompt\nx\n" "\n', r"a\.csv:3: 'prompt' is empty"),
        ("a.csv", "prompt,sd_seed\nx,y\n", r"a\.csv:2: 'sd_seed' is 'y', no number"),
        ("a.csv", "prompt,sd_seed\nx,1.5\n", r"a\.csv:2: 'sd_seed' is '1\.5', no seed"),
        ("a.csv", "prompt,sd_seed\nx,-1\n", "no seed"),
        ("a.csv", "prompt,guidance\nx,nan\n", "no number"),
        ("a.csv", "prompt,guidance\nx,-2\n", "no scale"),
        ("a.csv", "prompt\nx,y\n", r"a\.csv:2: more cells"),
        ("a.csv", 'prompt\n"x\n', r"a\.csv:2: "),
        ("a.jsonl", '{"prompt": "x"}\n{', r"a\.jsonl:2: "),
        ("a.jsonl", "[1]\n", r"a\.jsonl:1: not an object"),
        ("a.json", '{"images": []}', "neither a list nor"),
        ("a.parquet", "none", r"a\.parquet: cannot be read"),
    ],
)
def test_a_bad_file_is_refused_at_its_line(tmp_path, name, text, message):
    with pytest.raises(DnpGuardError, match=message):
        prompt_set(written(tmp_path, text, name))


def test_a_suffix_may_be_in_capitals(tmp_path):
    entries = prompt_set(written(tmp_path, "prompt\tseed\na cat\t3\n", "A.TSV")).entries
    assert [(entry.prompt.text, entry.seed) for entry in entries] == [("a cat", 3)]


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DnpGuardError, match=r"none\.csv"):
        prompt_set(str(tmp_path / "none.csv"))


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0")).filter(str.strip))
def test_any_prompt_of_one_line_survives_jsonl(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("jsonl") / "a.jsonl"
    path.write_text(json.dumps({"prompt": text}, ensure_ascii=False) + "\n", encoding="utf-8")
    assert prompt_set(str(path)).entries[0].prompt.text == text


def test_a_column_of_any_name_is_read_as_told(tmp_path):
    path = written(tmp_path, "words\tkind\tnoise\na cat\tpets\t3\n", "a.tsv")
    (entry,) = prompt_set(path, mapping("prompt=words, category=kind, seed=noise")).entries
    assert entry.prompt.text == "a cat"
    assert entry.category == "pets"
    assert entry.seed == 3


def test_a_prompt_without_an_id_has_one_by_its_words(tmp_path):
    listed, bare = (prompt_set(written(tmp_path, text)) for text in ("id,prompt\n5,a cat\n", "prompt\na cat\n"))
    assert listed.entries[0].id == "5"
    assert len(bare.entries[0].id) == 12


def test_categories_with_reasons_are_read_by_their_names(tmp_path):
    risky = json.dumps([{"prompt": "a cat", "label": {"pets——cats": ["a reason"]}}])
    (entry,) = prompt_set(written(tmp_path, risky, "risky.json")).entries
    assert entry.category == "pets——cats"


def test_a_case_without_a_picture_is_drawn_from_its_words(tmp_path):
    cases = [{"id": "1", "category": "x", "instruction": "a cat", "input_image": None}]
    path = written(tmp_path, "\n".join(map(json.dumps, cases)), "cases.jsonl")
    (entry,) = prompt_set(path, {"image": "input_image"}).entries
    assert entry.id == "1"
    assert entry.prompt.text == "a cat"
    assert entry.picture == ""


def test_a_column_without_a_name_is_nobodys(tmp_path):
    (entry,) = prompt_set(written(tmp_path, ",prompt\n0,a cat\n")).entries
    assert entry.id != "0"
    assert entry.category == ""
    assert entry.picture == ""


def test_a_picture_to_edit_is_looked_for_beside_the_file(tmp_path):
    path = written(tmp_path, "prompt,file\na cat,cat.png\n")
    with pytest.raises(DnpGuardError, match=r"cat\.png is no file"):
        prompt_set(path, {"image": "file"})
    (tmp_path / "cat.png").touch()
    assert prompt_set(path, {"image": "file"}).entries[0].picture == str(tmp_path / "cat.png")
