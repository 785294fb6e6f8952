"""``dnp-guard receipt``: check the signed receipt that the guard passed an image, before the image is delivered."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from dnp_guard.cli.console import AsJson, print_json, print_problem, problems_of
from dnp_guard.errors import Problem
from dnp_guard.server import receipts

app = typer.Typer(help="Signed decisions about finished images.", no_args_is_help=True)


@app.command()
def verify(
    receipt: Annotated[str, typer.Argument(metavar="RECEIPT", help="Receipt, a file with it, or - for stdin.")],
    *,
    key: Annotated[str, typer.Option(help="Public key, in base64, or a file with it.")],
    image: Annotated[Path | None, typer.Option(help="Image to be delivered.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Tenant that the receipt must be for.")] = None,
    policy: Annotated[str | None, typer.Option(help="Policy, by name or digest, that must have applied.")] = None,
    unlooked: Annotated[bool, typer.Option("--unlooked", help="Accept finished images that were not queried.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check that a receipt permits delivery of an image.

    Exits 1 unless the receipt is signed, unexpired, says `pass`, and fits the options.
    """
    text = sys.stdin.read() if receipt == "-" else _text(receipt)
    claims: dict[str, Any] | None = None
    try:
        claims = receipts.read(text, _text(key))
        problems = tuple(_objections(claims, image, tenant, policy, unlooked=unlooked))
    except receipts.ReceiptRefused as error:
        problems = problems_of(error)
    if as_json:
        print_json({"ok": not problems, "receipt": claims, "errors": [asdict(problem) for problem in problems]})
    else:
        for problem in problems:
            print_problem(problem)
    if problems:
        raise typer.Exit(1)
    if not as_json and claims is not None:
        typer.echo(f"ok: {claims['decision']}, until {datetime.fromtimestamp(claims['exp'], UTC):%Y-%m-%dT%H:%M:%SZ}")


@app.command()
def key(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to write the private key to.")],
) -> None:
    """Create a key for `dnp-guard serve --receipt-key`, and print the public key."""
    typer.echo(receipts.new_key(file))


def _text(given: str) -> str:
    # A receipt is longer than a file name may be, so that looking it up would fail.
    if len(given) < _LONGEST_NAME and Path(given).is_file():
        return Path(given).read_text(encoding="utf-8")
    return given


_LONGEST_NAME = 255


def _objections(
    claims: dict[str, Any], image: Path | None, tenant: str | None, policy: str | None, *, unlooked: bool
) -> list[Problem]:
    objections = []
    if claims["exp"] <= time.time():
        objections.append(
            _objection("expired", f"it expired at {datetime.fromtimestamp(claims['exp'], UTC):%Y-%m-%dT%H:%M:%SZ}")
        )
    if claims["action"] != "pass":
        objections.append(_objection("withheld", f"it says {claims['action']}: {claims['decision']}"))
    if tenant is not None and claims.get("tenant") != tenant:
        objections.append(_objection("other-tenant", "it is for another tenant"))
    if policy is not None and policy not in {claims["policy"]["name"], claims["policy"]["digest"]}:
        objections.append(_objection("other-policy", f"it is under policy {claims['policy']['name']}"))
    if not claims.get("looked", True) and not unlooked:
        objections.append(_objection("not-looked-at", "the finished image was not queried"))
    if image is not None:
        objections += _of_image(claims, image)
    return objections


def _of_image(claims: dict[str, Any], image: Path) -> list[Problem]:
    from dnp_guard.displayed import NotAsShown  # noqa: PLC0415 (needed only with --image)

    try:
        same = _digest(image) == claims["picture"]
    except NotAsShown as error:
        return [_objection("not-as-shown", error.message, str(image))]
    return [] if same else [_objection("other-image", "it is for another image", str(image))]


def _objection(code: str, message: str, file: str = "") -> Problem:
    return Problem(file, 0, 0, code, message, "Do not deliver the image.")


def _digest(image: Path) -> str:
    from PIL import Image  # noqa: PLC0415 (needed only with --image)

    from dnp_guard.server.pictures import digest  # noqa: PLC0415 (as above)

    with Image.open(image) as opened:
        return digest(opened)
