"""Add the console to the service's application."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from anyio import to_thread
from fastapi import Request  # noqa: TC002 (FastAPI reads annotations)

from dnp_guard.errors import DnpGuardError
from dnp_guard.server.console.console import Console, PageRefused
from dnp_guard.server.console.pages import router

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi import FastAPI
    from starlette.responses import Response

    from dnp_guard.server.settings import Settings
    from dnp_guard.server.tokens import Tokens

REFRESH_S: Final = 1.0
"""Seconds between two checks for new records."""

_log = logging.getLogger("dnp_guard.server")


def log_of(settings: Settings, tokens: Tokens) -> Path:
    """Return the path of the audit log that the console shows; refuse settings that the console cannot run with.

    Raises:
        DnpGuardError: no audit log is written to a file, or no token lets a person sign in.
    """
    log = _first_file(settings.audit)
    if log is None:
        raise DnpGuardError("the console needs a log in a file", hint="Add --audit audit.jsonl.")
    if not any(grant.role is not None for grant in tokens.all):
        raise DnpGuardError(
            "nobody could sign in to the console",
            hint="Add --token-file FILE, after: dnp-guard token add FILE --role moderator --name NAME",
        )
    return log


def mount(app: FastAPI, settings: Settings, tokens: Tokens) -> Console:
    """Add the console's pages to the service's application.

    Raises:
        DnpGuardError: no audit log is written to a file, or no token lets a person sign in.
    """
    console = Console(log_of(settings, tokens), tokens, time.time)
    app.include_router(router(console))
    app.add_exception_handler(PageRefused, _refused)
    app.state.console = console
    return console


async def refresh(console: Console) -> None:
    """Keep the console's index up to date until the task is cancelled."""
    while True:
        try:
            await to_thread.run_sync(console.refresh)
        except Exception:  # noqa: BLE001 (the next update must still run, and may succeed)
            _log.exception("the console's index could not be brought up to date")
        await asyncio.sleep(REFRESH_S)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, PageRefused)  # noqa: S101 (registered for this class)
    console: Console = request.app.state.console
    return console.refused(error)


def _first_file(specs: Sequence[str]) -> Path | None:
    """Return the path of the first audit sink that writes to a file; None if none does."""
    for spec in specs:
        kind, colon, rest = spec.partition(":")
        if not colon or kind not in {"jsonl", "sqlite", "stdout", "otel"}:
            return Path(spec)
        if kind in {"jsonl", "sqlite"}:
            return Path(rest.partition("?")[0])
    return None
