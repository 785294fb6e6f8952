from __future__ import annotations

import json
from typing import Annotated

import pytest
from jsonschema import Draft7Validator
from pydantic import TypeAdapter

from dnp_guard.policy import (
    Audit,
    Case,
    Category,
    CategoryGuidance,
    CategoryQueries,
    Excepted,
    Expect,
    Floor,
    Guidance,
    Policy,
    PolicyException,
    Preview,
    Queries,
    QuestionTemplate,
    Rule,
    Select,
    Steering,
    TestFile,
    Vlm,
    schema,
    schema_of_tests,
    shipped,
)
from dnp_guard.policy.read.scan import scan

MODELS = [
    Audit,
    Case,
    Category,
    CategoryGuidance,
    CategoryQueries,
    Excepted,
    Expect,
    Floor,
    Guidance,
    Policy,
    PolicyException,
    Preview,
    Queries,
    QuestionTemplate,
    Rule,
    Select,
    Steering,
    TestFile,
    Vlm,
]


def nodes(node):
    yield node
    for part in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from nodes(part)


def test_the_committed_schema_is_what_the_models_say():
    committed = shipped()["default"].parent / "schema" / "policy.v1.json"
    text = json.dumps(schema(), ensure_ascii=False, indent=2) + "\n"
    assert committed.read_text(encoding="utf-8") == text, (
        "run: dnp-guard policy schema > policies/schema/policy.v1.json"
    )


@pytest.mark.parametrize("made", [schema(), schema_of_tests()])
def test_the_schema_uses_draft_07_keywords_only(made):
    keywords = {key for node in nodes(made) if isinstance(node, dict) for key in node}
    assert not keywords & {
        "prefixItems",
        "$defs",
        "unevaluatedProperties",
        "dependentRequired",
        "minContains",
        "$anchor",
    }


def test_every_reference_stands_alone_and_leads_somewhere():
    made = schema()
    references = [node for node in nodes(made) if isinstance(node, dict) and "$ref" in node]
    assert references
    assert all(list(node) == ["$ref"] for node in references)
    assert {node["$ref"].removeprefix("#/definitions/") for node in references} == set(made["definitions"])


def test_no_key_may_be_null():
    assert {"type": "null"} not in list(nodes(schema()))


def test_unknown_keys_are_errors_in_every_mapping():
    made = schema()
    assert all(part["additionalProperties"] is False for part in (made, *made["definitions"].values()))


@pytest.mark.parametrize(("model", "key"), [(model, key) for model in MODELS for key in model.model_fields], ids=str)
def test_a_key_has_a_description_and_a_valid_example(model, key):
    field = model.model_fields[key]
    assert field.description.endswith(".")
    assert field.examples
    if key == "calibration":  # the name of a file, which is read before the model is built
        assert Draft7Validator(schema()["definitions"]["Category"]["properties"][key]).is_valid(field.examples[0])
        return
    for value in field.examples:
        TypeAdapter(Annotated[field.annotation, field]).validate_python(value)


@pytest.mark.parametrize("made", [schema(), schema_of_tests()], ids=["policy", "tests"])
def test_an_editor_is_told_of_every_key(made):
    keys = [
        (key, part)
        for node in nodes(made)
        if isinstance(node, dict) and isinstance(node.get("properties"), dict)
        for key, part in node["properties"].items()
    ]
    assert keys
    assert [key for key, part in keys if not {"description", "examples"} <= part.keys()] == []


@pytest.mark.parametrize("made", [schema(), schema_of_tests()])
def test_the_schema_is_a_json_schema_of_draft_07(made):
    Draft7Validator.check_schema(made)


@pytest.mark.parametrize("path", shipped().values(), ids=lambda path: path.stem)
def test_an_editor_finds_nothing_wrong_with_a_shipped_policy_and_its_tests(path):
    tests = path.parent / "tests" / f"{path.stem}.test.yaml"
    for file, made in ((path, schema()), (tests, schema_of_tests())):
        messages = [e.message for e in Draft7Validator(made).iter_errors(scan(file.read_bytes(), file.name).data)]
        assert messages == []


def test_an_editor_finds_a_misspelt_key():
    wrong = {"format": 1, "name": "a", "categories": [{"id": "a", "treshold": 0.5}]}
    assert [error.validator for error in Draft7Validator(schema()).iter_errors(wrong)] == ["additionalProperties"]
