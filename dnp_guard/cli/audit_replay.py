"""``dnp-guard audit replay``: make a recorded generation again, and see whether the same is decided."""

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
    prompt_file: Annotated[Path, typer.Option(help="Its prompt; of a batch, one prompt a line.", show_default=False)],
    log: Annotated[Path, typer.Option(help="The log it is in.")] = Path("audit.jsonl"),
    model: Annotated[str, typer.Option("--model", "-m", help="'glyphs', or the folder of the model.")] = "glyphs",
    vlm: Annotated[str, typer.Option("--vlm", help="The vision-language model that looked.")] = "glyphs",
    policy: Annotated[
        str | None,
        typer.Option(help="The policy's file. Omitted: the shipped one of the record's name.", show_default=False),
    ] = None,
    negative_file: Annotated[
        Path | None,
        typer.Option(help="The user's own negative prompt; nothing of it is in the record.", show_default=False),
    ] = None,
    probe: Annotated[
        Path | None, typer.Option(help="The latent probe, where the policy skips looks by one.", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Make a recorded generation again and show that the same is decided, or where it parts.

    The prompt is not in the record: supply it, and it is checked. Nothing that a sensitive category was seen in is
    made again. Under `queries: {wait: false}`, verdicts come when they come, and decisions may part for that alone.
    """
    needs("lab", "dnp-guard audit replay")
    # torch and diffusers take seconds to import; --help should not
    from dnp_guard.hosts.diffusers.loading import load_model  # noqa: PLC0415
    from dnp_guard.lab.regenerate import matching_prompts, recorded, regenerate  # noqa: PLC0415

    of = recorded(Log(log), request)
    prompts = matching_prompts(of, _text(prompt_file), _key(log))
    wanted = load_policy(policy or str(of.started["policy"]["name"]))
    negative = _text(negative_file).removesuffix("\n") if negative_file is not None else None
    came = regenerate(of, prompts, load_model(model), wanted, vlm, negative=negative, probe=probe)
    if json:
        print_json(_document(request, came))
    else:
        _print(request, came, wanted)
    raise typer.Exit(1 if came.partings else 0)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AuditError(f"{file}: it cannot be read", hint="Write it to a UTF-8 text file.") from error


def _key(log: Path) -> bytes:
    """The key of the log's hashes; none is made here, since prompts were not hashed with it."""
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
        f"{request}: {same} of {came.images} images decided as recorded, {came.looks} looks; "
        f"probabilities differ by {came.furthest:.2g} at most"
    )
    if came.partings and policy.queries.wait is False:
        typer.echo("the policy does not wait for answers, and so does not repeat exactly")
