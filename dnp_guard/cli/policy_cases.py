"""``dnp-guard policy cases``: write test cases from people's verdicts on recorded images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from dnp_guard.audit.read.show import Log
from dnp_guard.audit.read.verdicts import reviews
from dnp_guard.cli.console import AsJson, print_json
from dnp_guard.errors import DnpGuardError
from dnp_guard.policy import load_policy, shipped
from dnp_guard.policy.rehearsal.from_verdicts import cases as made_cases


def cases(
    policy: Annotated[str, typer.Argument(metavar="POLICY", help="Policy file, or name of a shipped policy.")],
    *,
    from_verdicts: Annotated[Path, typer.Option(metavar="LOG", help="An audit log with verdicts.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="Test file to write, NAME.test.yaml.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write test cases for a policy from people's verdicts on the images of an audit log.

    A case expects that a right decision stays the same, or that an image with a false alarm is clean. A missed
    category gives no case, because the record does not contain its probability.
    """
    of = load_policy(policy)
    log = Log(from_verdicts)
    made, left = made_cases(of, reviews(log).images, log)
    if out is not None:
        _write(out, policy, made)
    if as_json:
        print_json({"ok": True, "cases": made, "left_out": left, "file": str(out) if out else None, "errors": []})
        return
    typer.echo(f"cases from verdicts: {len(made)}; reviewed images without a case: {left}")
    if out is None:
        for case in made:
            typer.echo(f"  {case['name']}: {case['expect']['decision']}")
    else:
        typer.echo(f"wrote {out}; run them: dnp-guard policy test {out}")


def _write(out: Path, policy: str, made: list[dict[str, object]]) -> None:
    from ruamel.yaml import YAML  # noqa: PLC0415 (needed only to write a file)

    if not out.name.endswith(".test.yaml"):
        raise DnpGuardError(f"{out}: a test file ends in .test.yaml", hint="Give --out NAME.test.yaml.")
    if out.exists():
        raise DnpGuardError(f"{out} already exists", hint="Choose another name.")
    if not made:
        raise DnpGuardError("no verdict in this log gives a case for this policy", hint="Review some of its images.")
    source = shipped().get(policy, Path(policy))
    name = os.path.relpath(source, out.parent)
    with out.open("w", encoding="utf-8") as file:
        YAML().dump({"format": 1, "policy": name, "cases": made}, file)
