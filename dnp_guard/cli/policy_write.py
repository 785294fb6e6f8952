"""``dnp-guard policy init`` and ``policy migrate``: the commands that write policies."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from dnp_guard.errors import DnpGuardError, did_you_mean
from dnp_guard.policy import parse_policy, schema, schema_of_tests, shipped
from dnp_guard.policy.model.scalars import IDENTIFIER, IN_WORDS
from dnp_guard.policy.read.defaults import changed_defaults
from dnp_guard.policy.read.loading import example_store, packs, read_file
from dnp_guard.policy.read.migrate import FORMAT, migrate
from dnp_guard.policy.read.starter import starter
from dnp_guard.policy.read.testfile import ENDING


def init(
    path: Annotated[
        Path,
        typer.Argument(metavar="PATH", help="File to write, such as policies/ours.yaml; with --store, a folder."),
    ],
    *,
    from_: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="NAME", help="Start from a shipped policy or pack and its tests; repeatable."),
    ] = None,
    store: Annotated[
        bool,
        typer.Option(
            "--store", help="Write an example folder of policies, for everyone, tenants and a region, and tokens."
        ),
    ] = False,
) -> None:
    """Write a commented starter policy, its tests, and schemas for editors, without overwriting files."""
    if store and from_:
        raise typer.BadParameter("--store and --from do not go together.")
    if store:
        _write(_store(path))
        _schemas(path)
        _tokens(path / TOKENS)
        return
    if path.suffix != ".yaml" or not re.fullmatch(IDENTIFIER, path.stem):
        raise typer.BadParameter(f"name a file that ends in .yaml, its name {IN_WORDS[IDENTIFIER]}.")
    if not from_:
        _write(_starter(path))
    else:
        _write(copied(from_[0], path) if len(from_) == 1 else composed(from_, path))
    _schemas(path.parent)


TOKENS = "tokens.json"
TENANTS = ("kids", "museum")
"""Tenants of the example store, who get tokens."""


def _starter(path: Path) -> dict[Path, bytes]:
    texts = starter(path.stem, path.name)
    return dict(zip((path, _tests_of(path)), (text.encode() for text in texts), strict=True))


def copied(name: str, path: Path) -> dict[Path, bytes]:
    """Copy a shipped policy under another name: the policy, its tests, and its bases unless they exist.

    Args:
        name: name of the shipped policy.
        path: path of the copy.

    Returns:
        Contents of the files, by path.
    """
    known = shipped() | packs()
    if name not in known:
        raise typer.BadParameter(f"no shipped policy is named '{name}'. {did_you_mean(name, list(known))}")
    source = known[name]
    text = source.read_text(encoding="utf-8")
    files = {path: re.sub(rf"^name: {source.stem}$", f"name: {path.stem}", text, flags=re.MULTILINE).encode()}
    tests = _tests_of(source).read_text(encoding="utf-8")
    files[_tests_of(path)] = tests.replace(f"policy: ../{source.name}", f"policy: ../{path.name}").encode()
    for picture in re.findall(r"image: (\S+\.png)", tests):
        files[_tests_of(path).parent / picture] = (_tests_of(source).parent / picture).read_bytes()
    for base in re.findall(r"^extends: (\S+)$", text, flags=re.MULTILINE):
        files |= {
            file: content for file, content in copied(Path(base).stem, path.parent / base).items() if not file.exists()
        }
    return files


def composed(names: list[str], path: Path) -> dict[Path, bytes]:
    """Make a policy that extends several shipped ones, all their tests, and copies of the policies that are missing.

    Args:
        names: names of the shipped policies, in order.
        path: path of the policy.

    Returns:
        Contents of the files, by path.
    """
    bases = {f"{name}.yaml": copied(name, path.parent / f"{name}.yaml") for name in names}
    cases = [files[_tests_of(path.parent / base)].decode().partition("cases:\n")[2] for base, files in bases.items()]
    # Drop the first case of the others, which is the same.
    cases = [cases[0], *(case.partition("\n\n")[2] for case in cases[1:])]
    head = "# yaml-language-server: $schema={}schema/policy{}.v1.json\nformat: 1\n"
    text = f'{head.format("", "")}name: {path.stem}\nrevision: "0.1.0"\nextends: [{", ".join(bases)}]\n'
    tests = f"{head.format('../', '-test')}policy: ../{path.name}\ncases:\n{chr(10).join(cases)}"
    files = {path: text.encode(), _tests_of(path): tests.encode()}
    theirs = {file: content for copies in bases.values() for file, content in copies.items()}
    return files | {file: content for file, content in theirs.items() if not file.exists()}


def _store(folder: Path) -> dict[Path, bytes]:
    source = example_store()
    return {
        folder / file.relative_to(source): file.read_bytes()
        for file in sorted(source.rglob("*"))
        if file.suffix in {".yaml", ".md"}
    }


def _tests_of(path: Path) -> Path:
    return path.parent / "tests" / f"{path.stem}{ENDING}"


def _write(files: dict[Path, bytes]) -> None:
    if there := [file for file in files if file.exists()]:
        raise DnpGuardError(f"{there[0]} already exists", hint="Choose another name.")
    for file, content in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        typer.echo(f"wrote {file}")


def _schemas(folder: Path) -> None:
    for name, made in (("policy.v1.json", schema()), ("policy-test.v1.json", schema_of_tests())):
        file = folder / "schema" / name
        file.parent.mkdir(exist_ok=True)
        if not file.exists():
            file.write_text(json.dumps(made, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _tokens(file: Path) -> None:
    from dnp_guard.server import tokens  # noqa: PLC0415 (needed with --store alone)

    for tenant in TENANTS:
        typer.echo(f"token of {tenant}, shown only once: {tokens.add(file, name=tenant, tenant=tenant)}")
    typer.echo(f"wrote {file}")


def upgrade(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Policy file.")],
    *,
    write: Annotated[bool, typer.Option("--write", help="Overwrite the file instead of printing.")] = False,
) -> None:
    """Update an older policy, delete removed keys, check the result, and list changed defaults."""
    text = read_file(path, str(path))
    made = migrate(text, str(path))
    for changed in changed_defaults(text, str(path)):
        typer.echo(f"dnp-guard: {path}: {changed}", err=True)
    if made is None:
        typer.echo(f"{path} has format {FORMAT} and no removed keys: nothing to do")
        return
    parse_policy(made, str(path))
    if write:
        path.write_bytes(made)
        typer.echo(f"wrote {path}")
    else:
        typer.echo(made.decode())
