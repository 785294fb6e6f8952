"""Settings of a service, which its workers get as JSON."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

VARIABLE = "DNP_GUARD_SERVE"
"""Name of the environment variable with a worker's settings."""


class Limits(BaseModel):
    """Limits per request, session and token.

    Attributes:
        body: most bytes of a request.
        pixels: most pixels of an image, checked before it is decoded.
        total_pixels: most pixels of all images of a request.
        pixels_held: most pixels of all requests in progress, per worker; at least those of one request.
        images: most images of a session, and so of a query.
        sessions: most open sessions per token.
        questions: most questions that a session may need.
        rate: most requests per minute and token.
        idle_s: seconds without a request after which a session expires.
        connections: most connections per worker; fewer if the system lacks file descriptors.
        request_s: seconds within which a request's body has to arrive.
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
    """Settings of a worker.

    Attributes:
        policy: path or shipped name of the policy.
        vlm: spec of the vision-language backend, such as ``openai:MODEL@URL``.
        second_opinion: spec of a backend that is queried as well; see :class:`~dnp_guard.vlm.combined.Either`.
        final_vlm: spec of a backend that judges finished images instead; see :class:`~dnp_guard.vlm.combined.AtFinal`.
        audit: specs of the audit sinks.
        token_file: file of tokens; None admits everyone on this machine.
        receipt_key: file of the private key that signs receipts.
        receipt_s: seconds for which a receipt is valid.
        store: ``sqlite:PATH`` or a ``redis://`` URL.
        keep: whether open sessions outlive the service; otherwise they are abandoned when it ends.
        threads: most requests in progress per worker.
        watch: whether the policy is reloaded when its file changes.
        metrics_tenants: how many tenants the metrics distinguish.
        require_signature: public key that policies must be signed with.
        console: whether to serve the console.
        limits: limits per request, session and token.
        parent: process id of the parent, which a worker does not outlive; None if there is one process.
        shared: folder that the workers share; the last worker removes it if the parent cannot.
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
