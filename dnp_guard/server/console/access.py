"""Access to the console: roles, sign-in cookies, and the tokens of forms and appeals. Pure except for the clock.

Every cookie and token is signed with a key derived from the key of the audit log, so that every worker can verify it,
even after a restart.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dnp_guard.audit.redact import prompt_key

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIGNED_IN_S: Final = 12 * 3600
"""Seconds after which a person has to sign in again."""

APPEAL_S: Final = 30 * 24 * 3600
"""Seconds for which an appeal's link is valid."""

READ: Final = frozenset({"moderator", "policy_owner", "auditor"})
"""Roles that may see the queue, images and the overview."""

JUDGE: Final = frozenset({"moderator", "policy_owner"})
"""Roles that may give verdicts and answer appeals."""

CHANGES: Final = frozenset({"policy_owner", "auditor"})
"""Roles that may see who changed what: names, reasons and sources."""


@dataclass(frozen=True, slots=True)
class Keyring:
    """Signs and verifies the sign-in cookies, form tokens and appeal tokens that browsers send.

    Args:
        key: secret bytes.
        clock: returns the time in seconds since 1970.
    """

    key: bytes
    clock: Callable[[], float]

    def cookie(self, grant: str) -> str:
        """Make the cookie of a person who signed in.

        Args:
            grant: SHA-256 of the token that the person signed in with.
        """
        return self._sealed("cookie", {"grant": grant, "until": int(self.clock()) + SIGNED_IN_S})

    def grant(self, cookie: str) -> str | None:
        """Return the SHA-256 of the token that a cookie was made for; None if the cookie is invalid or has expired."""
        content = self._opened("cookie", cookie)
        return str(content["grant"]) if content is not None else None

    def form(self, cookie: str) -> str:
        """Make the CSRF token for the forms of the person who holds a cookie, so that no other site can submit them."""
        return self._mac("form", cookie.encode())

    def is_form(self, cookie: str, token: str) -> bool:
        """Return whether a form's CSRF token was made for this cookie."""
        return hmac.compare_digest(self.form(cookie).encode(), token.encode("utf-8", "surrogatepass"))

    def appeal(self, request: str, image: int) -> str:
        """Make a token that lets its holder appeal the decision on one image, and nothing else."""
        return self._sealed("appeal", {"request": request, "image": image, "until": int(self.clock()) + APPEAL_S})

    def appealed(self, token: str) -> tuple[str, int] | None:
        """Return the request id and image index that an appeal token is for; None if it is invalid or has expired."""
        content = self._opened("appeal", token)
        return (str(content["request"]), int(content["image"])) if content is not None else None

    def _sealed(self, purpose: str, content: dict[str, Any]) -> str:
        body = base64.urlsafe_b64encode(json.dumps(content, separators=(",", ":")).encode()).rstrip(b"=")
        return f"{body.decode()}.{self._mac(purpose, body)}"

    def _opened(self, purpose: str, sealed: str) -> dict[str, Any] | None:
        body, _, mac = sealed.partition(".")
        try:
            data = body.encode("ascii")
            if not hmac.compare_digest(self._mac(purpose, data).encode(), mac.encode("ascii")):
                return None
            content: dict[str, Any] = json.loads(base64.urlsafe_b64decode(data + b"=" * (-len(data) % 4)))
        except (ValueError, UnicodeError):
            return None
        return content if content["until"] > self.clock() else None

    def _mac(self, purpose: str, data: bytes) -> str:
        return hmac.new(self.key, purpose.encode() + b"\0" + data, hashlib.sha256).hexdigest()


def keyring(log: Path, clock: Callable[[], float]) -> Keyring:
    """Make the keyring of the console that shows an audit log.

    Raises:
        AuditError: the log's key cannot be read or made.
    """
    return Keyring(hmac.digest(prompt_key(log), b"console", "sha256"), clock)
