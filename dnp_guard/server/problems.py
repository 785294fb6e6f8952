"""Errors as problem documents (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from collections.abc import Mapping

TYPE = "urn:dnp-guard:problem:"
"""Prefix of every problem's type."""

KINDS: Mapping[str, tuple[int, str]] = {
    "token": (401, "No valid token"),
    "host": (403, "The token is not for this host"),
    "policy": (403, "The token is not for this policy"),
    "address": (403, "Not addressed to this machine"),
    "session": (404, "No such session"),
    "step": (409, "Steps only grow"),
    "over": (409, "The session is over"),
    "busy": (409, "Another request changed the session meanwhile, or too much is in flight"),
    "body": (413, "The request is too large"),
    "request": (422, "The request does not have the form of the protocol"),
    "images": (422, "Not the images of this session"),
    "picture": (422, "A picture cannot be accepted"),
    "refused": (422, "The generation is refused"),
    "rate": (429, "Too many requests"),
    "sessions": (429, "Too many open sessions"),
    "unready": (503, "Nothing can be guarded now"),
}
"""Status and title per kind of problem."""


class Refusal(Exception):
    """A request that is refused with a problem document.

    Args:
        kind: a key of :data:`KINDS`.
        detail: the problem in this case, and what to do.
        more: other members of the document.
        wait: seconds after which to try again.
    """

    def __init__(self, kind: str, detail: str, *, wait: int | None = None, **more: Any) -> None:
        super().__init__(detail)
        self.kind, self.detail, self.more, self.wait = kind, detail, more, wait


class ProblemResponse(JSONResponse):
    """An HTTP response with a problem document (RFC 9457) as its body."""

    media_type = "application/problem+json"

    def render(self, content: Any) -> bytes:
        """Encode the document as JSON in ASCII, because text quoted from a request may be invalid Unicode."""
        import json  # noqa: PLC0415 (kept beside its only use)

        return json.dumps(content, allow_nan=False).encode()


def response(problem: Refusal) -> ProblemResponse:
    """Make the response for a refusal."""
    status, title = KINDS[problem.kind]
    headers = {} if problem.wait is None else {"Retry-After": str(problem.wait)}
    if problem.kind == "token":
        headers["WWW-Authenticate"] = "Bearer"
    document = {"type": TYPE + problem.kind, "title": title, "status": status, "detail": problem.detail, **problem.more}
    return ProblemResponse(document, status, headers)


def plain(status: int, detail: str = "", headers: Mapping[str, str] | None = None, **more: Any) -> ProblemResponse:
    """Make a problem document of type ``about:blank``, whose title is the standard phrase of its HTTP status."""
    title = HTTPStatus(status).phrase
    document = {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
    return ProblemResponse(document, status, dict(headers or {}))
