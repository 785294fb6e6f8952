"""Send HTTP requests to the guard service with a bearer token, and turn every failure into a :class:`ServiceFailed`."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from http import HTTPStatus
from http.client import HTTPException
from typing import Any

_LARGEST_ANSWER = 4 * 1024 * 1024

_NOT_THE_REQUEST = (401, 408, 429)
"""Statuses below 500 that the contents of the request did not cause."""

_OWN = "urn:dnp-guard:problem:"
"""Prefix of the ``type`` in the problem documents (RFC 9457) that the service itself sends."""

_BUSY = f"{_OWN}busy"
"""``type`` of the refusal of a busy service, which the contents of the request did not cause either."""

_UNREACHED = (502, 503, 504)
"""Statuses by which a proxy reports that the service did not answer the proxy."""


class ServiceFailed(Exception):
    """A request to the guard service got no usable answer.

    Attributes:
        reason: a short name: ``service_down``, ``service_refused``, ``request_refused``, ``bad_answer``.
        request_caused: whether the request itself was at fault; the images are then withheld, whatever the policy says.
        features: protocol features that the service names in a refusal; None if it names none.
        foreign: whether another server answered in place of the service, such as a proxy that asks for a login.
    """

    def __init__(self, reason: str, detail: str, *, request_caused: bool = False) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.request_caused = request_caused
        self.features: Any = None
        self.foreign = False


class Connection:
    """A sender of HTTP requests to one guard service.

    Args:
        url: address of the service, without a path.
        token: the bearer token; None if the service asks for none.

    Raises:
        ValueError: the token holds characters that a header cannot carry.
    """

    def __init__(self, url: str, token: str | None) -> None:
        self.url = url.rstrip("/")
        self._headers = {"Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {plain_token(token)}"
        # No proxy from the environment: pictures must go only where the operator chose.
        handlers: list[Any] = [urllib.request.ProxyHandler({}), _NoRedirect()]
        if self.url.startswith("https:"):
            handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context()))
        self._opener = urllib.request.build_opener(*handlers)

    def ready(self, timeout: float = 2.0, path: str = "/readyz") -> bool:
        """Return whether a GET of the path answers with 200; at the default path that means the service can guard."""
        try:
            with self._opener.open(self.url + path, timeout=timeout) as answer:
                return bool(answer.status == HTTPStatus.OK)
        except (OSError, ValueError):
            return False

    def call(self, method: str, path: str, body: dict[str, Any] | None, timeout: float) -> dict[str, Any]:
        """Send a request, and return the JSON object that the service answers.

        Raises:
            ServiceFailed: the service did not answer, refused the request, or sent no JSON object.
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, self._headers, method=method)  # noqa: S310 (checked)
        try:
            with self._opener.open(request, timeout=timeout) as answer:
                text = answer.read(_LARGEST_ANSWER)
        except urllib.error.HTTPError as error:
            raise _refusal(error) from error
        except (OSError, ValueError, HTTPException) as error:
            # Not the error's own text: it may quote a header.
            raise ServiceFailed("service_down", _named(getattr(error, "reason", error))) from None
        try:
            document = json.loads(text) if text else {}
        except ValueError:
            document = None
        if not isinstance(document, dict):
            failure = ServiceFailed("bad_answer", "no JSON object")
            failure.foreign = True
            raise failure
        return document


def plain_token(token: str) -> str:
    """Return the token without surrounding white space.

    Raises:
        ValueError: the token holds characters that a header cannot carry.
    """
    token = token.strip()
    if not all("!" <= sign <= "~" for sign in token):
        raise ValueError("a token holds no space, no control character and no letter beyond ASCII")
    return token


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Follow no redirect: the token is for the configured service only."""
        return


def _refusal(error: urllib.error.HTTPError) -> ServiceFailed:
    features, type_ = None, ""
    with error:
        try:
            problem = json.loads(error.read(_LARGEST_ANSWER))
            detail = str(problem.get("detail") or problem.get("title"))
            features, type_ = problem.get("features"), str(problem.get("type"))
        except (OSError, ValueError, AttributeError):
            detail = error.reason
    blameless = error.code in _NOT_THE_REQUEST or type_ == _BUSY
    caused = error.code < HTTPStatus.INTERNAL_SERVER_ERROR and not blameless
    name = "request_refused" if caused else "service_refused"
    failure = ServiceFailed(name, f"{error.code} {detail}", request_caused=caused)
    failure.features = features
    failure.foreign = not type_.startswith(_OWN) and error.code not in _UNREACHED
    return failure


def _named(error: object) -> str:
    """Return the operating system's message for an error, or its class name without one."""
    return (error.strerror if isinstance(error, OSError) else "") or type(error).__name__
