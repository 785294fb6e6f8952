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
    """Options for the policy and the vision-language backends."""

    policy: Annotated[str, typer.Option("--policy", help="Policy file, folder of policies, or shipped name.")]
    vlm: Annotated[str, typer.Option("--vlm", help="Backend, such as glyphs or systemone:MODEL@URL.")]
    second_opinion: Annotated[
        str | None, typer.Option(help="Second backend, queried too; a finding of either applies.")
    ] = None
    final_vlm: Annotated[str | None, typer.Option(help="Backend for finished images, in place of --vlm.")] = None


@dataclass(frozen=True, slots=True)
class Listening:
    """Options for the address, access, audit records and receipts."""

    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any free port.")] = 8777
    token_file: Annotated[
        Path | None, typer.Option(help="Token file of `dnp-guard token add`; without it, only this machine has access.")
    ] = None
    audit: Annotated[list[str] | None, typer.Option(help="Audit sink; repeatable.")] = None
    receipt_key: Annotated[Path | None, typer.Option(help="Key to sign receipts with.")] = None
    receipt_seconds: Annotated[int, typer.Option(min=1, help="Validity of a receipt, in seconds.")] = 86_400
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate chain, PEM.")] = None
    tls_key: Annotated[Path | None, typer.Option(help="Private key of the certificate, PEM.")] = None
    tls_clients: Annotated[
        Path | None, typer.Option(help="Authorities that must have issued the clients' certificates, PEM.")
    ] = None
    plain_http: Annotated[
        bool, typer.Option("--plain-http", help="Serve other machines without TLS, behind a proxy that terminates it.")
    ] = False


@dataclass(frozen=True, slots=True)
class Working:
    """Options for processes, sessions and optional features."""

    workers: Annotated[int, typer.Option(min=1, help="Number of processes, which share sessions.")] = 1
    store: Annotated[
        str | None,
        typer.Option(
            envvar="DNP_GUARD_STORE", help="Store for sessions that survive a restart: sqlite:PATH or redis://HOST."
        ),
    ] = None
    watch: Annotated[bool, typer.Option("--watch", help="Reload the policy when its files change.")] = False
    metrics_tenants: Annotated[
        int, typer.Option(min=0, help="Number of tenants with a label in metrics; the rest are `other`.")
    ] = 0
    require_signature: Annotated[
        str | None, typer.Option(help="Public key, in base64, that policies must be signed with.")
    ] = None
    console: Annotated[
        bool,
        typer.Option("--console", help="Serve the console for people, who sign in with tokens that have a role."),
    ] = False


@dataclass(frozen=True, slots=True)
class Bounds:
    """Options that limit requests and sessions."""

    max_body: Annotated[int, typer.Option(min=1, help="Most bytes of a request.")] = 32 << 20
    max_pixels: Annotated[int, typer.Option(min=1, help="Most pixels of an image.")] = 16 << 20
    max_total_pixels: Annotated[int, typer.Option(min=1, help="Most pixels of all images of a request.")] = 64 << 20
    max_pixels_held: Annotated[
        int, typer.Option(min=1, help="Most pixels of all requests in progress, per worker.")
    ] = 256 << 20
    max_images: Annotated[int, typer.Option(min=1, help="Most images of a session.")] = 16
    max_sessions: Annotated[int, typer.Option(min=1, help="Most open sessions per token.")] = 256
    max_questions: Annotated[int, typer.Option(min=1, help="Most questions per session.")] = 20_000
    rate: Annotated[int, typer.Option(min=1, help="Most requests per minute and token.")] = 12_000
    idle_seconds: Annotated[
        float, typer.Option(min=1, help="Seconds without a request after which a session expires.")
    ] = 600
    max_connections: Annotated[int, typer.Option(min=1, help="Most connections at once, per worker.")] = 4096
    request_seconds: Annotated[float, typer.Option(min=1, help="Most seconds to receive a request's body.")] = 60
    threads: Annotated[int, typer.Option(min=1, help="Most requests in progress, per worker.")] = 256
    grace_seconds: Annotated[int, typer.Option(min=0, help="Seconds for requests in progress to end at shutdown.")] = 30


@grouped
def serve(judging: Judging, listening: Listening, working: Working, bounds: Bounds) -> None:
    """Serve the guard over HTTP to hosts that cannot import it, by the documented protocol."""
    from dnp_guard.server import run  # noqa: PLC0415 (--help should not wait for it)

    settings, listener = _settings(judging, listening, working, bounds), _listener(listening)
    run.check(listener, settings, plain_http=listening.plain_http)
    if not listening.audit:
        typer.echo("there is no audit log: add --audit audit.jsonl to record events", err=True)
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
