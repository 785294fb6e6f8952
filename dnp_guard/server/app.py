"""The HTTP application of the service: routes, authentication, limits and error responses."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import sys
import time
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.exceptions import HTTPException
from uvicorn.config import STARTUP_FAILURE

from dnp_guard._version import __version__
from dnp_guard.errors import DnpGuardError
from dnp_guard.hosts.protocol import (
    FEATURES,
    AnswerMessage,
    Finish,
    InputsMessage,
    InputVerdicts,
    Line,
    Open,
    Opened,
    PolicyInForce,
    ProblemDocument,
    QueryMessage,
    Verdicts,
)
from dnp_guard.server import policies, problems
from dnp_guard.server.console.serving import mount, refresh
from dnp_guard.server.gate import Gate
from dnp_guard.server.guards import Guards
from dnp_guard.server.problems import Refusal
from dnp_guard.server.readiness import Readiness
from dnp_guard.server.receipts import issuer
from dnp_guard.server.service import SessionService
from dnp_guard.server.settings import VARIABLE, Settings
from dnp_guard.server.stores import open_store
from dnp_guard.server.tokens import Grant, Tokens
from dnp_guard.telemetry.ended_workers import ended_merged

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from dnp_guard.vlm.base import Backend

_log = logging.getLogger("dnp_guard.server")

SWITCH_S = 0.0005
"""Seconds that a request's thread may keep the interpreter while the event loop waits for it. Python's default of 5 ms
is as long as a whole query, and concurrent requests waited several times that long for an answer."""

_MOST_TOLD, _LONGEST = 16, 200
"""How many errors of a request are reported, and how many characters of each are quoted."""

_WATCH_S = 1.0
SWEEP_S = 5.0
"""Seconds between two sweeps for expired sessions."""


def from_environment() -> FastAPI:
    """Create a worker's application from settings in the environment; end the service if that fails."""
    try:
        return create(Settings.model_validate_json(os.environ[VARIABLE]))
    except DnpGuardError as error:
        sys.stderr.write(f"dnp-guard: {error}\n")
        sys.exit(STARTUP_FAILURE)


def create(settings: Settings, backend: Backend | None = None, clock: Callable[[], float] = time.time) -> FastAPI:
    """Create the service's FastAPI application: its routes, the checks of requests, and the guards behind them.

    Args:
        settings: settings of the service; the files and stores that they name are opened.
        backend: the vision-language backend to query; built from the settings by default.
        clock: returns the time in seconds since 1970.

    Raises:
        DnpGuardError: a setting is invalid, or a file, store or backend that it names cannot be opened.
    """
    app = FastAPI(
        title="dnp_guard",
        version=__version__,
        description="The guard as a service: it looks at images while they are denoised, and steers them.",
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        default_response_class=JSONResponse,
        responses={
            status: {"model": ProblemDocument, "content": {"application/problem+json": {}}, "description": title}
            for status, title in {400: "The body is not JSON", **_titles(), 500: "The service failed"}.items()
        },
    )
    app.state.settings = settings
    app.state.tokens = Tokens(settings.token_file)
    # Refuse bad settings before serving starts.
    app.state.service = _service(settings, app.state.tokens, backend, clock)
    app.add_middleware(Gate, state=app.state, body=settings.limits.body, rate=settings.limits.rate)
    app.add_exception_handler(Refusal, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _plain)
    app.add_exception_handler(Exception, _failed)
    _routes(app)
    app.state.console = mount(app, settings, app.state.tokens) if settings.console else None
    app.openapi()  # builds all routes now: FastAPI builds them at their first request, which threads may not share
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    service: SessionService = app.state.service
    to_thread.current_default_thread_limiter().total_tokens = settings.threads
    app.state.aside = CapacityLimiter(2)  # lets health checks run while all threads wait for the model
    app.state.readiness = Readiness(service)
    sweeping = asyncio.create_task(_sweep(service, app.state.aside))
    watching = asyncio.create_task(_watch_parent(settings.parent))
    tasks = [sweeping, watching]
    if app.state.console is not None:
        tasks.append(asyncio.create_task(refresh(app.state.console)))
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await to_thread.run_sync(partial(service.close, keep=settings.keep), limiter=app.state.aside)
        if settings.shared is not None and os.getppid() != settings.parent:
            shutil.rmtree(settings.shared, ignore_errors=True)


async def _watch_parent(parent: int | None) -> None:
    """End this worker process when its parent process has died; otherwise it would run on and occupy the port."""
    while parent is not None and os.getppid() == parent:  # noqa: ASYNC110 (no event announces it)
        await asyncio.sleep(_WATCH_S)
    if parent is not None:
        _log.warning("the parent process has gone; this worker ends")
        signal.raise_signal(signal.SIGTERM)


def _service(settings: Settings, tokens: Tokens, backend: Backend | None, clock: Callable[[], float]) -> SessionService:
    signer = issuer(settings.receipt_key, settings.receipt_s) if settings.receipt_key else None
    guards = Guards(settings, backend)
    service = SessionService(guards, open_store(settings.store), settings.limits, signer, clock)
    for grant in tokens.all:
        for policy in (guards.of(grant.tenant).policy, *guards.stricter(grant).values()):
            service.check(policy)
    return service


async def _sweep(service: SessionService, aside: CapacityLimiter) -> None:
    while True:
        await asyncio.sleep(SWEEP_S)
        try:
            await to_thread.run_sync(service.sweep, limiter=aside)
        except Exception:  # noqa: BLE001 (the next sweep must still run, and may succeed)
            _log.exception("expired sessions could not be ended")


async def _grant(request: Request) -> Grant:
    grant: Grant = request.scope["dnp_guard.grant"]
    return grant


Granted = Annotated[Grant, Depends(_grant)]
_BEARER = HTTPBearer(auto_error=False, description="A token from the token file.")


def _routes(app: FastAPI) -> None:
    state = app.state
    v1 = APIRouter(prefix="/v1", tags=["sessions"], dependencies=[Depends(_BEARER)])

    @v1.post("/sessions", status_code=201)
    def open_session(asked: Open, grant: Granted) -> Opened:
        """Open a session, which guards one generation; return the steps at which the host has to send queries."""
        opened: Opened = state.service.open(grant, asked)
        return opened

    @v1.post("/sessions/{session}/inputs")
    def inputs(session: str, asked: InputsMessage, grant: Granted) -> InputVerdicts:
        """Check a generation's input pictures, such as an image to edit, before its first step; return the verdicts."""
        verdicts: InputVerdicts = state.service.inputs(grant, session, asked)
        return verdicts

    @v1.post("/sessions/{session}/queries")
    def query(session: str, asked: QueryMessage, grant: Granted, request: Request) -> AnswerMessage:
        """Check the images at a denoising step; return the negative prompts. A repeated step gets the same answer."""
        answer: AnswerMessage
        answer, request.scope["dnp_guard.waited_ms"] = state.service.query(grant, session, asked)
        return answer

    @v1.post("/sessions/{session}/final")
    def final(session: str, asked: Finish, grant: Granted) -> Verdicts:
        """Check the finished images; return a verdict on every image: pass, blur, block or retry it."""
        verdicts: Verdicts = state.service.final(grant, session, asked)
        return verdicts

    @v1.delete("/sessions/{session}", status_code=204)
    def abandon(session: str, grant: Granted) -> None:
        """End a session whose generation has failed or was cancelled, so that it has no finished images."""
        state.service.abandon(grant, session)

    @v1.get("/policy")
    def policy(
        grant: Granted, policy: Line | None = None, region: Line | None = None, surface: Line | None = None
    ) -> PolicyInForce:
        """Return the policy that a session opened now would run under, and the model that would answer its queries."""
        state.service.admit(grant)
        with policies.selected(state.service.guards, grant, policy, region, surface) as guard:
            chosen, backend = guard.policy, guard.desk.info.digest
        return PolicyInForce(
            policy=chosen.name, revision=chosen.revision, digest=chosen.digest, mode=chosen.mode, backend=backend
        )

    app.include_router(v1)

    @app.get("/healthz", tags=["health"])
    async def alive() -> dict[str, str]:
        """Return whether the process runs."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["health"], responses={503: {"model": ProblemDocument, "description": "Not ready"}})
    async def ready() -> Response:
        """Return 200 if generations can be guarded now, or 503 with the reason why not."""
        why = await state.readiness.why()
        known = list(FEATURES)
        return problems.plain(503, why, features=known) if why else JSONResponse({"status": "ok", "features": known})

    @app.get("/metrics", tags=["health"], response_class=Response)
    async def metrics() -> Response:
        """Return the Prometheus metrics of all workers."""
        page = await to_thread.run_sync(_metrics, state.service.guards.registry, limiter=state.aside)
        return Response(page, media_type=CONTENT_TYPE_LATEST)


def _metrics(own: CollectorRegistry) -> bytes:
    """Render the Prometheus metrics: those of all workers if there are several, otherwise those of this process."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if folder is None:
        return generate_latest(own)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    with ended_merged(Path(folder)):
        return generate_latest(registry)


def _titles() -> dict[int, str]:
    titles: dict[int, list[str]] = {}
    for status, title in problems.KINDS.values():
        titles.setdefault(status, []).append(title)
    return {status: "; ".join(kinds) for status, kinds in titles.items()}


async def _problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)  # noqa: S101 (registered for this class)
    return problems.response(error)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 (registered for this class)
    try:
        await _counted(request)
    except Refusal as problem:
        return problems.response(problem)
    mistakes = error.errors()
    errors = [
        {"pointer": "/" + "/".join(str(part)[:_LONGEST] for part in item["loc"][1:]), "detail": item["msg"][:_LONGEST]}
        for item in mistakes[:_MOST_TOLD]
    ]
    first = errors[0] if errors else {"pointer": "/", "detail": "invalid"}
    more = {"more": len(mistakes) - _MOST_TOLD} if len(mistakes) > _MOST_TOLD else {}
    return problems.response(Refusal("request", f"{first['pointer']}: {first['detail']}", errors=errors, **more))


async def _counted(request: Request) -> None:
    """Count an invalid request against the rate limit of its token, like a valid one."""
    if (grant := request.scope.get("dnp_guard.grant")) is not None:
        await to_thread.run_sync(request.app.state.service.admit, grant, limiter=request.app.state.aside)


async def _plain(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 (registered for this class)
    try:
        await _counted(request)
    except Refusal as problem:
        return problems.response(problem)
    if error.status_code == problems.KINDS["body"][0]:
        return problems.response(Refusal("body", str(error.detail)))
    return problems.plain(error.status_code, str(error.detail), error.headers)


async def _failed(_: Request, __: Exception) -> Response:
    return problems.plain(500, "The service failed; nothing is decided. Its log says more.")
