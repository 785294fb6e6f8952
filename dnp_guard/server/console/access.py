"""Who may see and do what: roles, sign-in cookies, and the tokens of forms and appeals. Pure but for the time.

Everything is signed with a key derived from the log's, so that every worker, and the next process too, reads it.
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
"""Seconds for which an appeal's link is good."""

READ: Final = frozenset({"moderator", "policy_owner", "auditor"})
"""Roles that see the queue, an image and the overview."""

JUDGE: Final = frozenset({"moderator", "policy_owner"})
"""Roles that give verdicts and answer appeals."""

CHANGES: Final = frozenset({"policy_owner", "auditor"})
"""Roles that see who changed what: names, reasons and sources."""


@dataclass(frozen=True, slots=True)
class Keyring:
    """Signs and reads what goes through a browser.

    Args:
        key: secret bytes.
        clock: seconds since 1970.
    """

    key: bytes
    clock: Callable[[], float]

    def cookie(self, grant: str) -> str:
        """The cookie of a person who signed in.

        Args:
            grant: SHA-256 of the token.
        """
        return self._sealed("cookie", {"grant": grant, "until": int(self.clock()) + SIGNED_IN_S})

    def grant(self, cookie: str) -> str | None:
        """SHA-256 of the token that a cookie was given for; None where it is none, or has expired."""
        content = self._opened("cookie", cookie)
        return str(content["grant"]) if content is not None else None

    def form(self, cookie: str) -> str:
        """The token that a form of this cookie's pages has to send, so that no other site can send one."""
        return self._mac("form", cookie.encode())

    def is_form(self, cookie: str, token: str) -> bool:
        """Whether a form was made for this cookie."""
        return hmac.compare_digest(self.form(cookie).encode(), token.encode("utf-8", "surrogatepass"))

    def appeal(self, request: str, image: int) -> str:
        """A token that lets its holder appeal the decision on one image, and do nothing else."""
        return self._sealed("appeal", {"request": request, "image": image, "until": int(self.clock()) + APPEAL_S})

    def appealed(self, token: str) -> tuple[str, int] | None:
        """The image that an appeal's token is for; None where it is none, or has expired."""
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
    """The keyring of a log's console.

    Raises:
        AuditError: the log's key cannot be read or made.
    """
    return Keyring(hmac.digest(prompt_key(log), b"console", "sha256"), clock)
