"""``dnp-guard audit replay``: repeat a recorded generation, and compare the decisions."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dnp_guard.audit.read.show import Log
from dnp_guard.audit.redact import KEY_VARIABLE, key_file, prompt_key
from dnp_guard.cli.console import print_json
from dnp_guard.errors import AuditError
from dnp_guard.extras import needs
from dnp_guard.policy import load_policy

if TYPE_CHECKING:
    from dnp_guard.lab.regenerate import Regenerated
    from dnp_guard.policy import Policy


def replay(
    request: Annotated[str, typer.Argument(help="Id of the generation.", show_default=False)],
    *,
    prompt_file: Annotated[
        Path, typer.Option(help="File with the prompt, or one prompt per line for a batch.", show_default=False)
    ],
    log: Annotated[Path, typer.Option(help="Log with the generation.")] = Path("audit.jsonl"),
    model: Annotated[str, typer.Option("--model", "-m", help="'glyphs', or folder of the model.")] = "glyphs",
    vlm: Annotated[str, typer.Option("--vlm", help="Vision-language model of the generation.")] = "glyphs",
    policy: Annotated[
        str | None,
        typer.Option(help="File of the policy. Omitted: the shipped policy that the record names.", show_default=False),
    ] = None,
    negative_file: Annotated[
        Path | None,
        typer.Option(help="File with the user's own negative prompt, which is not in the record.", show_default=False),
    ] = None,
    probe: Annotated[
        Path | None, typer.Option(help="File of the latent probe, if the policy uses one.", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Repeat a recorded generation, and show that the decisions are the same, or where they differ.

    By default the record contains only a hash of the prompt, against which the supplied prompt is checked. A generation
    with a sensitive finding is not repeated. Under `queries: {wait: false}` the timing of verdicts varies, so that
    decisions may differ.
    """
    needs("lab", "dnp-guard audit replay")
    # torch and diffusers take seconds to import; --help should not
    from dnp_guard.hosts.diffusers.loading import load_model  # noqa: PLC0415
    from dnp_guard.lab.regenerate import matching_prompts, recorded, regenerate  # noqa: PLC0415

    of = recorded(Log(log), request)
    prompts = matching_prompts(of, _text(prompt_file), _key(log))
    in_force = load_policy(policy or str(of.started["policy"]["name"]))
    negative = _text(negative_file).removesuffix("\n") if negative_file is not None else None
    result = regenerate(of, prompts, load_model(model), in_force, vlm, negative=negative, probe=probe)
    if json:
        print_json(_document(request, result))
    else:
        _print(request, result, in_force)
    raise typer.Exit(1 if result.partings else 0)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AuditError(f"{file}: cannot be read", hint="Give a UTF-8 text file.") from error


def _key(log: Path) -> bytes:
    """Return the key that hashed the prompts of a log; if it is lost, a placeholder, since a new key would not fit."""
    known = KEY_VARIABLE in os.environ or key_file(log).exists()
    return prompt_key(log) if known else b"\0"


def _document(request: str, came: Regenerated) -> dict[str, object]:
    return {
        "ok": not came.partings,
        "request": request,
        "images": came.images,
        "looks": came.looks,
        "partings": [asdict(parting) for parting in came.partings],
        "largest_difference": came.furthest,
        "errors": [],
    }


def _print(request: str, came: Regenerated, policy: Policy) -> None:
    for parting in came.partings:
        typer.echo(str(parting))
    same = came.images - len(came.partings)
    typer.echo(
        f"{request}: {same} of {came.images} images decided as recorded, {came.looks} queries; "
        f"probabilities differ by {came.furthest:.2g} at most"
    )
    if came.partings and policy.queries.wait is False:
        typer.echo("the policy does not wait for answers, so a repetition is not exact")
