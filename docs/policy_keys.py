"""The page of the policy language, from the schemas that editors use."""

from __future__ import annotations

import json
from typing import Any

from dnp_guard.policy import schema, schema_of_tests

_HEAD = """\
# Policy, format 1

Every key of a policy file, and of a file of tests. `dnp-guard policy check` says what is wrong with one; an editor that
knows YAML schemas completes and explains the keys where the file begins with the line that the shipped policies have.
The rules between keys, such as that `steer` needs a `negative`, are checked by `policy check` alone.
"""

_TESTS = """\
## Tests

A file `tests/NAME.test.yaml` beside the policy, run by `dnp-guard policy test`.
"""


def policy() -> str:
    """Return the page of the policy language and of its tests."""
    parts = [_HEAD, *_sections(schema(), "policy")]
    return "\n".join([*parts, _TESTS, *_sections(schema_of_tests(), "tests")])


def _sections(made: dict[str, Any], prefix: str) -> list[str]:
    definitions = made["definitions"]
    sections: list[str] = []
    waiting: list[tuple[str, dict[str, Any]]] = [(prefix, made)]
    seen: set[str] = set()
    while waiting:
        way, part = waiting.pop(0)
        rows = []
        for key, field in part["properties"].items():
            name, many = _refers(field)
            if "description" not in field and name is not None:  # it is the same as that of what the key holds
                field = {**field, "description": definitions[name]["description"]}  # noqa: PLW2901
            rows.append(_row(key, field, key in part.get("required", ()), name))
            if name is not None and name not in seen:
                seen.add(name)
                waiting.append((f"{way}.{key}{'[]' if many else ''}", definitions[name]))
        about = f"{part['description']}\n\n" if part.get("description") else ""
        table = "| key | takes | omitted | says |\n|---|---|---|---|\n" + "\n".join(rows)
        sections.append(f"## `{way}`\n\n{about}{table}\n")
    return sections


def _refers(field: dict[str, Any]) -> tuple[str | None, bool]:
    """Return the name of the model that a key holds, and whether it holds several."""
    for part in (field, *field.get("allOf", ()), *field.get("anyOf", ())):
        if "$ref" in part:
            return part["$ref"].rpartition("/")[2], False
    items = field.get("items", {})
    return (items["$ref"].rpartition("/")[2], True) if "$ref" in items else (None, False)


def _row(key: str, field: dict[str, Any], required: bool, name: str | None) -> str:  # noqa: FBT001 (a column)
    default = field.get("default")
    if required:
        omitted = "needed"
    elif default in (None, [], ""):
        omitted = ""
    else:
        omitted = "see its table" if isinstance(default, dict) else f"`{json.dumps(default, ensure_ascii=False)}`"
    example = json.dumps(field["examples"][0], ensure_ascii=False)
    says = f"{field['description']} Example: `{example}`"
    return f"| `{key}` | {_takes(field, name)} | {omitted} | {_cell(says)} |"


def _takes(field: dict[str, Any], name: str | None) -> str:
    if name is not None:
        return "a list" if field.get("type") == "array" else "keys"
    if "const" in field:
        return f"`{field['const']}`"
    options = field.get("enum")
    if options:
        return ", ".join(f"`{option}`" for option in options)
    kind = {"array": "a list", "boolean": "`true`, `false`", "integer": "a whole number", "number": "a number"}
    words = kind.get(field.get("type", ""), "text" if field.get("type") == "string" else "see the text")
    bounds = [field.get("minimum"), field.get("maximum")]
    if bounds[0] is not None and bounds[1] is not None and bounds[1] <= 1000:  # noqa: PLR2004 (larger is no bound)
        words += f" {bounds[0]:g} to {bounds[1]:g}"
    return words


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
