"""How a service is set up; passed to its workers as JSON."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

VARIABLE = "DNP_GUARD_SERVE"
"""The environment variable in which a worker finds its settings."""


class Limits(BaseModel):
    """What one request, one session and one token may ask for.

    Attributes:
        body: bytes of a request.
        pixels: of one image, looked up before it is decoded.
        total_pixels: of all images of a request.
        pixels_held: of all images of all requests that are worked on, a worker; those of one request at least.
        images: of a session, and so of a query.
        sessions: open at once, a token.
        questions: that a session may need.
        rate: requests a minute, a token.
        idle_s: seconds without a request after which a session expires.
        connections: at once, a worker; fewer where the system has no file descriptors for them.
        request_s: seconds in which a request's body has to come.
    """

    model_config = ConfigDict(frozen=True)

    body: int = Field(default=32 << 20, ge=1)
    pixels: int = Field(default=16 << 20, ge=1)
    total_pixels: int = Field(default=64 << 20, ge=1)
    pixels_held: int = Field(default=256 << 20, ge=1)
    images: int = Field(default=16, ge=1)
    sessions: int = Field(default=256, ge=1)
    questions: int = Field(default=20_000, ge=1)
    rate: int = Field(default=12_000, ge=1)
    idle_s: float = Field(default=600, gt=0)
    connections: int = Field(default=4096, ge=1)
    request_s: float = Field(default=60, gt=0)


class Settings(BaseModel):
    """What a worker needs to know.

    Attributes:
        policy: path or shipped name.
        vlm: spec of the backend.
        second_opinion: spec of one that is asked beside it; see :class:`~dnp_guard.vlm.either.Either`.
        final_vlm: spec of one that judges finished images in its place; see :class:`~dnp_guard.vlm.either.AtFinal`.
        audit: specs of the audit sinks.
        token_file: tokens; None lets everyone on this machine in.
        receipt_key: file of the private key that receipts are signed with.
        receipt_s: seconds for which a receipt counts.
        store: ``sqlite:PATH`` or a ``redis://`` URL.
        keep: whether open sessions outlive the service; otherwise they are abandoned when it ends.
        threads: requests worked on at once, a worker.
        watch: whether the policy is reloaded when its file changes.
        metrics_tenants: how many tenants are told apart in the metrics.
        require_signature: public key that policies have to be signed with.
        console: whether people sign in to pages of their own.
        limits: see there.
        parent: process whose worker this is, and which it does not outlive; None where there is one process.
        shared: folder of what the workers share; the last of them removes it where the parent cannot.
    """

    model_config = ConfigDict(frozen=True)

    policy: str
    vlm: str
    second_opinion: str | None = None
    final_vlm: str | None = None
    audit: tuple[str, ...] = ()
    token_file: Path | None = None
    receipt_key: Path | None = None
    receipt_s: int = Field(default=24 * 3600, ge=1)
    store: str = "sqlite::memory:"
    keep: bool = False
    threads: int = Field(default=256, ge=1)
    watch: bool = False
    metrics_tenants: int = 0
    require_signature: str | None = None
    console: bool = False
    limits: Limits = Limits()
    parent: int | None = None
    shared: Path | None = None
