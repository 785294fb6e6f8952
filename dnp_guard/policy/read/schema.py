"""JSON Schemas of policies and of their tests for editors: draft-07, generated from the models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dnp_guard.policy.model.policy import Policy
from dnp_guard.policy.read.testfile import TestFile

if TYPE_CHECKING:
    from pydantic import BaseModel


def schema() -> dict[str, Any]:
    """Return the JSON Schema of policies; rules that concern several fields are checked only by ``policy check``."""
    made = _schema(Policy, "dnp_guard policy, format 1")
    needed = [key for key in made.pop("required") if key != "categories"]
    return {**made, "required": needed, "anyOf": [{"required": ["categories"]}, {"required": ["extends"]}]}


def schema_of_tests() -> dict[str, Any]:
    """Return the JSON Schema of test files."""
    return _schema(TestFile, "dnp_guard policy tests, format 1")


def _schema(model: type[BaseModel], title: str) -> dict[str, Any]:
    made = _tidy(model.model_json_schema(ref_template="#/definitions/{model}"))
    definitions = made.pop("$defs")
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": title,
        **made,
        "definitions": definitions,
    }


def _tidy(node: Any, *, names: bool = False) -> Any:
    """Convert a schema to draft-07, and remove what does not apply to policy files.

    Nulls are removed, since a key without a value is an error, and titles, which only repeat the key. A reference with
    siblings moves into ``allOf``, since draft-07 ignores its siblings.

    Args:
        node: any part of a schema.
        names: whether the keys of this mapping are names of properties or definitions, not schema keywords.
    """
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node
    if names:
        return {name: _tidy(part) for name, part in node.items()}
    made = {
        key: part if key in {"examples", "default", "enum"} else _tidy(part, names=key in {"properties", "$defs"})
        for key, part in node.items()
        if not (key == "title" or (key == "default" and part in (None, "")))
    }
    options = [option for option in made.get("anyOf", ()) if option != {"type": "null"}]
    if options:
        made["anyOf"] = options
    if len(options) == 1:
        del made["anyOf"]
        made = {**options[0], **made}
    elif options:
        made["anyOf"] = options
    if "$ref" in made and len(made) > 1:
        made = {"allOf": [{"$ref": made.pop("$ref")}], **made}
    return made
