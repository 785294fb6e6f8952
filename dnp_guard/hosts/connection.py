"""The connection to a guard service: where images may be sent, which requests are retried, and its errors."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

import httpx2
from pydantic import BaseModel, ValidationError

from dnp_guard.errors import DnpGuardError
from dnp_guard.hosts.protocol import VERSION
from dnp_guard.secret import plain
from dnp_guard.vlm.remote.transport import described

if TYPE_CHECKING:
    from collections.abc import Callable

Message = TypeVar("Message", bound=BaseModel)

TRIES: Final = 3
"""Maximum number of attempts per request; the request that opens a session is sent only once."""
_OWN: Final = "urn:dnp-guard:problem:"
"""Beginning of the types of the service's own problems."""
_AGAIN: Final = frozenset({f"{_OWN}busy", f"{_OWN}rate"})
_UNREACHED: Final = frozenset({502, 503, 504})
"""Statuses by which a proxy says that the service did not answer it."""
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_LONGEST_WAIT_S: Final = 2.0


class ServiceError(DnpGuardError):
    """The guard service cannot be reached, or answers with a problem; this error never permits an image.

    Attributes:
        status: HTTP status; None if there was no answer.
        type: type of the problem, a URI (RFC 9457); empty if the answer has none.
    """

    def __init__(self, message: str, *, hint: str = "", status: int | None = None, type_: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status, self.type = status, type_


class Connection:
    """An HTTP connection to a guard service; its arguments are those of :class:`dnp_guard.hosts.remote.Service`.

    Attributes:
        client: HTTP client, with the token in its headers.

    Raises:
        ServiceError: images may not be sent to this address, or the token does not fit into a header.
    """

    def __init__(self, url: str, token: str | None, *, timeout_s: float, verify: str | None, plain_http: bool) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ServiceError(f"{url!r} is no base URL", hint="Write http://127.0.0.1:8777.")
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK and not plain_http:
            raise ServiceError(
                f"{url}: images would go to another machine unencrypted",
                hint="Use https://, or plain_http=True where the network between is yours.",
            )
        headers = {"Authorization": f"Bearer {_plain(token)}"} if token else {}
        # Read nothing from the environment, so that no proxy sees the images, and no other certificates are trusted.
        self.client = httpx2.Client(
            base_url=url,
            headers=headers,
            timeout=timeout_s,
            trust_env=False,
            follow_redirects=False,
            verify=_context(verify),
        )

    def _tried(self, send: Callable[[], httpx2.Response], tries: int) -> httpx2.Response:
        """Send a request, and repeat it after some failures.

        These are connection errors, except timeouts, and the answers that the service is busy or limits the rate.

        Args:
            send: sends the request.
            tries: maximum number of attempts.

        Raises:
            ServiceError: there was no answer, or the answer is a problem.
        """
        for left in reversed(range(tries)):
            try:
                response = send()
            except httpx2.HTTPError as error:
                if not left or isinstance(error, httpx2.TimeoutException):
                    raise self._unreached(error) from None
                continue
            if response.is_success:
                return response
            problem = _problem(response)
            if not left or problem.type not in _AGAIN:
                raise problem
            time.sleep(min(_wait(response), _LONGEST_WAIT_S))
        raise AssertionError  # the last try returns or raises

    def send(self, path: str, message: BaseModel, answer: type[Message], *, tries: int = TRIES) -> Message:
        """Post a message, and read the answer.

        Raises:
            ServiceError: there was no answer, the service answered with an error, or the answer is not a message of the
                expected kind.
        """
        # Send no unset values: a service that does not know a newer key refuses the message.
        body = message.model_dump(mode="json", exclude_none=True)
        response = self._tried(lambda: self.client.post(path, json=body), tries)
        try:
            # Newer answers may have more keys.
            return answer.model_validate_json(response.content, extra="ignore")
        except ValidationError as error:
            raise ServiceError(f"{path}: not an answer of version {VERSION}", hint="Check the base URL.") from error

    def delete(self, path: str) -> None:
        """Delete the resource at a path.

        Raises:
            ServiceError: there was no answer, or the answer is a problem.
        """
        self._tried(lambda: self.client.delete(path), TRIES)

    def features(self) -> tuple[str, ...]:
        """Return the protocol features that the service lists, whether or not it is ready.

        The tuple is empty if another server answers in its place, such as a proxy that asks for a login.

        Raises:
            ServiceError: the service did not answer, or answered with a problem that lists no features.
        """
        try:
            response = self.client.get("/readyz")
        except httpx2.HTTPError as error:
            raise self._unreached(error) from None
        try:
            listed = response.json().get("features")
        except (ValueError, AttributeError):
            listed = None
        if listed is None and not response.is_success:
            problem = _problem(response)
            if problem.type.startswith(_OWN) or response.status_code in _UNREACHED:
                raise problem
        return tuple(name for name in listed if isinstance(name, str)) if isinstance(listed, list) else ()

    def _unreached(self, error: httpx2.HTTPError) -> ServiceError:
        hint = "Is the service running, and reachable?"
        return ServiceError(f"{self.client.base_url}: {described(error)}", hint=hint)


def _plain(token: str) -> str:
    try:
        return plain(token, "token")
    except DnpGuardError as error:
        raise ServiceError(error.message, hint=error.hint) from None


def _problem(response: httpx2.Response) -> ServiceError:
    try:
        document: Any = response.json()
        type_, title, detail = (str(document.get(key, "")) for key in ("type", "title", "detail"))
    except (ValueError, AttributeError):
        type_, title, detail = "", response.reason_phrase, ""
    return ServiceError(f"HTTP {response.status_code} {title}", hint=detail, status=response.status_code, type_=type_)


def _wait(response: httpx2.Response) -> float:
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdigit() else 0.0


def _context(verify: str | None) -> Any:
    import ssl  # noqa: PLC0415 (kept beside its only use)

    return ssl.create_default_context(cafile=verify)
