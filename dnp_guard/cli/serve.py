"""``dnp-guard serve``: the guard as a service."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dnp_guard.cli.console import print_problem
from dnp_guard.cli.options import grouped

if TYPE_CHECKING:
    from dnp_guard.server.run import Listener
    from dnp_guard.server.settings import Settings


@dataclass(frozen=True, slots=True)
class Judging:
    """What is guarded by, and where that is recorded."""

    policy: Annotated[str, typer.Option("--policy", help="A policy file, a folder of them, or a shipped name.")]
    vlm: Annotated[str, typer.Option("--vlm", help="The backend, such as glyphs or systemone:MODEL@URL.")]
    second_opinion: Annotated[
        str | None, typer.Option(help="Another backend, asked beside it; what either sees is seen.")
    ] = None
    final_vlm: Annotated[str | None, typer.Option(help="The backend that judges finished images in its place.")] = None


@dataclass(frozen=True, slots=True)
class Listening:
    """Where it listens, who is let in, and what is kept of it."""

    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1"
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any that is free.")] = 8777
    token_file: Annotated[
        Path | None, typer.Option(help="Tokens, as `dnp-guard token add` makes them; without, this machine alone.")
    ] = None
    audit: Annotated[list[str] | None, typer.Option(help="Where records go; may be given several times.")] = None
    receipt_key: Annotated[Path | None, typer.Option(help="Key that receipts are signed with.")] = None
    receipt_seconds: Annotated[int, typer.Option(min=1, help="How long a receipt counts.")] = 86_400
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate chain, PEM.")] = None
    tls_key: Annotated[Path | None, typer.Option(help="Its private key, PEM.")] = None
    tls_clients: Annotated[
        Path | None, typer.Option(help="Authorities whose certificates clients have to show, PEM.")
    ] = None
    plain_http: Annotated[
        bool, typer.Option("--plain-http", help="Serve other machines without TLS: it ends before this.")
    ] = False


@dataclass(frozen=True, slots=True)
class Working:
    """How it works."""

    workers: Annotated[int, typer.Option(min=1, help="Processes; they share sessions.")] = 1
    store: Annotated[
        str | None,
        typer.Option(envvar="DNP_GUARD_STORE", help="Keep sessions over a restart: sqlite:PATH or redis://HOST."),
    ] = None
    watch: Annotated[bool, typer.Option("--watch", help="Reload the policy when it changes.")] = False
    metrics_tenants: Annotated[
        int, typer.Option(min=0, help="Label metrics with the tenant, for so many of them; the rest are `other`.")
    ] = 0
    require_signature: Annotated[
        str | None, typer.Option(help="The public key, in base64, that policies have to be signed with.")
    ] = None
    console: Annotated[
        bool,
        typer.Option("--console", help="Serve the pages for people; they sign in with tokens that have a role."),
    ] = False


@dataclass(frozen=True, slots=True)
class Bounds:
    """What may be asked for."""

    max_body: Annotated[int, typer.Option(min=1, help="Bytes of a request.")] = 32 << 20
    max_pixels: Annotated[int, typer.Option(min=1, help="Pixels of an image.")] = 16 << 20
    max_total_pixels: Annotated[int, typer.Option(min=1, help="Pixels of all images of a request.")] = 64 << 20
    max_pixels_held: Annotated[
        int, typer.Option(min=1, help="Pixels of all requests that are worked on, a worker.")
    ] = 256 << 20
    max_images: Annotated[int, typer.Option(min=1, help="Images of a session.")] = 16
    max_sessions: Annotated[int, typer.Option(min=1, help="Open sessions, a token.")] = 256
    max_questions: Annotated[int, typer.Option(min=1, help="Questions that a session may need.")] = 20_000
    rate: Annotated[int, typer.Option(min=1, help="Requests a minute, a token.")] = 12_000
    idle_seconds: Annotated[float, typer.Option(min=1, help="A session that hears nothing so long expires.")] = 600
    max_connections: Annotated[int, typer.Option(min=1, help="Connections at once, a worker.")] = 4096
    request_seconds: Annotated[float, typer.Option(min=1, help="In which a request's body has to come.")] = 60
    threads: Annotated[int, typer.Option(min=1, help="Requests worked on at once, a worker.")] = 256
    grace_seconds: Annotated[int, typer.Option(min=0, help="What requests in flight have to end.")] = 30


@grouped
def serve(judging: Judging, listening: Listening, working: Working, bounds: Bounds) -> None:
    """Serve the guard to hosts that cannot import it; the protocol is in the documentation."""
    from dnp_guard.server import run  # noqa: PLC0415 (--help should not wait for it)

    settings, listener = _settings(judging, listening, working, bounds), _listener(listening)
    run.check(listener, settings, plain_http=listening.plain_http)
    if not listening.audit:
        typer.echo("nothing is recorded: add --audit audit.jsonl to keep a record", err=True)
    for problem in run.check_tested(settings):
        print_problem(replace(problem, message=f"warning: {problem.message}"))
    code = run.run(
        listener,
        settings,
        workers=working.workers,
        grace_s=bounds.grace_seconds,
        started=lambda url: typer.echo(
            f"serving {judging.policy} with {judging.vlm} at {url}"
            + (f"\nthe console: {url}/console" if working.console else "")
        ),
    )
    if code:
        raise typer.Exit(code)


def _listener(listening: Listening) -> Listener:
    from dnp_guard.server.run import Listener  # noqa: PLC0415 (as above)

    return Listener(listening.host, listening.port, listening.tls_cert, listening.tls_key, listening.tls_clients)


def _settings(judging: Judging, listening: Listening, working: Working, bounds: Bounds) -> Settings:
    from dnp_guard.server.settings import Limits, Settings  # noqa: PLC0415 (as above)

    return Settings(
        policy=judging.policy,
        vlm=judging.vlm,
        second_opinion=judging.second_opinion,
        final_vlm=judging.final_vlm,
        audit=tuple(listening.audit or ()),
        token_file=listening.token_file,
        receipt_key=listening.receipt_key,
        receipt_s=listening.receipt_seconds,
        store=working.store or "sqlite::memory:",
        keep=working.store is not None,
        threads=bounds.threads,
        watch=working.watch,
        metrics_tenants=working.metrics_tenants,
        require_signature=working.require_signature,
        console=working.console,
        limits=Limits(
            body=bounds.max_body,
            pixels=bounds.max_pixels,
            total_pixels=bounds.max_total_pixels,
            pixels_held=bounds.max_pixels_held,
            images=bounds.max_images,
            sessions=bounds.max_sessions,
            questions=bounds.max_questions,
            rate=bounds.rate,
            idle_s=bounds.idle_seconds,
            connections=bounds.max_connections,
            request_s=bounds.request_seconds,
        ),
    )
