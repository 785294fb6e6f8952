"""``dnp-guard policy init`` and ``policy migrate``: the commands that write policies."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from dnp_guard.errors import DnpGuardError
from dnp_guard.policy import parse_policy, schema, schema_of_tests
from dnp_guard.policy.model.scalars import IDENTIFIER, IN_WORDS
from dnp_guard.policy.read.loading import read_file
from dnp_guard.policy.read.migrate import FORMAT, migrate
from dnp_guard.policy.read.starter import starter
from dnp_guard.policy.read.testfile import ENDING


def init(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The file to write, such as policies/ours.yaml.")],
) -> None:
    """Write a commented policy to begin with, its tests, and the schemas for editors; what is there stays."""
    if path.suffix != ".yaml" or not re.fullmatch(IDENTIFIER, path.stem):
        raise typer.BadParameter(f"name a file that ends in .yaml, its name {IN_WORDS[IDENTIFIER]}.")
    tests = path.parent / "tests" / f"{path.stem}{ENDING}"
    if there := [each for each in (path, tests) if each.exists()]:
        raise DnpGuardError(f"{there[0]} is already there", hint="Choose another name.")
    tests.parent.mkdir(parents=True, exist_ok=True)
    for file, text in zip((path, tests), starter(path.stem, path.name), strict=True):
        file.write_text(text, encoding="utf-8")
        typer.echo(f"wrote {file}")
    for name, made in (("policy.v1.json", schema()), ("policy-test.v1.json", schema_of_tests())):
        file = path.parent / "schema" / name
        file.parent.mkdir(exist_ok=True)
        if not file.exists():
            file.write_text(json.dumps(made, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def upgrade(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A policy file.")],
    *,
    write: Annotated[bool, typer.Option("--write", help="Write the file in place of printing it.")] = False,
) -> None:
    """Bring an older policy up to date, without keys that are gone, and check it."""
    made = migrate(read_file(path, str(path)), str(path))
    if made is None:
        typer.echo(f"{path} is of format {FORMAT} and has nothing that is gone: nothing to do")
        return
    parse_policy(made, str(path))
    if write:
        path.write_bytes(made)
        typer.echo(f"wrote {path}")
    else:
        typer.echo(made.decode())
