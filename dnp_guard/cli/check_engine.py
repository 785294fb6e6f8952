"""``dnp-guard doctor --engine URL``: check that every worker of a serving engine reports that it is guarded."""

from __future__ import annotations

from typing import Any

import httpx2

from dnp_guard.cli.checks import Check, failed
from dnp_guard.hosts.engines.attestation import PATH, VERSION

_WAIT_S = 10.0
_UNATTESTED = (
    "Let the engine load the plugin and the middleware: see docs/how-to/engines.md. Until then it may serve unguarded."
)


def asked(url: str) -> Check:
    """Check that all workers of a serving engine report that they are guarded, by asking the middleware in it."""
    try:
        answer = httpx2.get(url.rstrip("/") + PATH, timeout=_WAIT_S)
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        return failed("engine", "engine-unreachable", f"{url} does not answer: {error}", "Give the URL of the engine.")
    try:
        body = answer.json()
        workers, guarded = body["workers"], body["guarded"]
        newer = any(worker["version"] > VERSION for worker in workers)
        rows = [] if newer else [_row(worker) for worker in workers]
    except (ValueError, KeyError, TypeError):
        message = f"{url} does not report how it is guarded: HTTP {answer.status_code} at {PATH}"
        return failed("engine", "engine-unattested", message, _UNATTESTED)
    if not workers:
        return failed("engine", "engine-unattested", f"no worker of {url} reports that it is guarded", _UNATTESTED)
    if newer:
        return failed("engine", "engine-newer", f"{url} answers in an unknown format", "Update this dnp-guard.")
    if guarded is not True or any(worker["serving"] != "guarded" for worker in workers):
        return failed("engine", "engine-unguarded", f"{url}: {'; '.join(rows)}", "See the log of the worker.")
    return Check("engine", "ok", "; ".join(rows))


def _row(worker: dict[str, Any]) -> str:
    what = f"{worker['engine']} worker {worker['pid']} is {worker['serving']}"
    if worker["serving"] != "guarded":
        return f"{what}: {worker['reason']}" if worker["reason"] else what
    policy = f"{worker['policy']} {worker['revision']} ({worker['mode']}, {worker['digest']})"
    return f"{what} by dnp-guard {worker['guard']} with {policy}"
