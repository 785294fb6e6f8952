"""One console: whom it lets in, what it reads, and how it answers."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import parse_qsl

from anyio import to_thread
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse

from dnp_guard._version import __version__
from dnp_guard.audit.events import RequestFinished
from dnp_guard.audit.read import verdict as giving
from dnp_guard.server.console import access, queries
from dnp_guard.server.console.index import Index

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from starlette.requests import Request
    from starlette.responses import Response

    from dnp_guard.audit.shapes import Common
    from dnp_guard.server.console.access import Keyring
    from dnp_guard.server.tokens import Grant, Tokens

Result = TypeVar("Result")

COOKIE: Final = "dnp_guard_console"
LARGEST_FORM: Final = 64 << 10
_FIELDS: Final = 32
_A_MINUTE: Final = 20

SECURITY: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
"""Of every answer: no script but the console's own, nothing from elsewhere, nothing kept by the browser."""


class PageRefused(Exception):
    """A page that is not shown.

    Args:
        status: of the answer.
        why: for the person.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


@dataclass(frozen=True, slots=True)
class Person:
    """Who is signed in.

    Attributes:
        name: as the token's.
        role: ``moderator``, ``policy_owner`` or ``auditor``.
        tenant: whose images alone the person sees; "" for all.
        cookie: of the browser.
    """

    name: str
    role: str
    tenant: str
    cookie: str


class TryLimit:
    """Bounds how often something may be tried in a minute, in this worker.

    Args:
        most: times a minute.
        clock: seconds since 1970.
    """

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._most, self._clock, self._lock = most, clock, Lock()
        self._minute, self._counts = 0, Counter[str]()

    def count(self, who: str) -> None:
        """Count one try.

        Raises:
            Refused: it is one too many.
        """
        with self._lock:
            minute = int(self._clock() // 60)
            if minute != self._minute:
                self._minute, self._counts = minute, Counter()
            self._counts[who] += 1
            if self._counts[who] > self._most or self._counts.total() > 50 * self._most:
                raise PageRefused(429, "Too many tries; wait a minute.")


class Console:
    """The console of one log.

    Args:
        log: whose images people look at.
        tokens: who may sign in: those with a role.
        clock: seconds since 1970.

    Raises:
        AuditError: the log's key cannot be read or made.
    """

    def __init__(self, log: Path, tokens: Tokens, clock: Callable[[], float]) -> None:
        self.index = Index(log)
        self.keys: Keyring = access.keyring(log, clock)
        self.tries, self.appeals = TryLimit(_A_MINUTE, clock), TryLimit(_A_MINUTE, clock)
        self._tokens = tokens
        self._templates = Environment(
            loader=PackageLoader("dnp_guard.server.console"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters["when"] = lambda time: str(time)[:19].replace("T", " ")
        self._templates.filters["words"] = lambda name: str(name).replace("_", " ")
        self._templates.filters["n"] = lambda value: f"{value:,}"

    def signed_in(self, request: Request, token: str) -> str | None:
        """The cookie of a person who signs in with a token; None where the token lets nobody in here."""
        self.tries.count(request.client.host if request.client else "")
        grant = self._tokens.grant(f"Bearer {token}")
        return self.keys.cookie(grant.sha256) if grant is not None and grant.role is not None else None

    def person(self, request: Request, roles: frozenset[str]) -> Person:
        """Who asks.

        Args:
            request: of a browser.
            roles: that may.

        Raises:
            Refused: nobody who is signed in, or somebody without such a role.
        """
        cookie = request.cookies.get(COOKIE, "")
        digest = self.keys.grant(cookie)
        grant = self._tokens.by_digest(digest) if digest is not None else None
        if grant is None or grant.role is None:
            raise PageRefused(401, "Sign in first.")
        if grant.role not in roles:
            raise PageRefused(403, f"This page is not for the role {grant.role.replace('_', ' ')}.")
        return Person(_name(grant), grant.role, grant.tenant or "", cookie)

    async def form(self, request: Request) -> dict[str, str]:
        """The fields of a form, within its bounds.

        Raises:
            Refused: it is too large, or no form.
        """
        data = b""
        async for chunk in request.stream():
            data += chunk
            if len(data) > LARGEST_FORM:
                raise PageRefused(413, "The form is too large.")
        try:
            return dict(parse_qsl(data.decode("utf-8"), keep_blank_values=True, max_num_fields=_FIELDS))
        except ValueError as error:
            raise PageRefused(422, "This is no form.") from error

    async def checked(self, request: Request, person: Person) -> dict[str, str]:
        """The fields of a form that one of this person's pages sent.

        Raises:
            Refused: another page did.
        """
        fields = await self.form(request)
        if not self.keys.is_form(person.cookie, fields.get("form", "")):
            raise PageRefused(403, "The form is not from this page; load the page again.")
        return fields

    def entry(self, person: Person, request: str, image: int) -> queries.QueueEntry:
        """One image that a person may see.

        Raises:
            Refused: there is none.
        """
        with self.index.reading() as database:
            return self.visible(person, queries.entry(database, request, image))

    @staticmethod
    def visible(person: Person, entry: queries.QueueEntry | None) -> queries.QueueEntry:
        """The image, where a person may see it.

        Raises:
            Refused: there is none, or it is of another tenant, which is answered alike.
        """
        if entry is None or person.tenant not in {"", entry.row.tenant}:
            raise PageRefused(404, "There is no such image; it may have been purged.")
        return entry

    def appealed(self, token: str) -> queries.QueueEntry:
        """The image that an appeal's link is for.

        Raises:
            Refused: the link is none, has expired, or is asked for too often.
        """
        image = self.keys.appealed(token)
        self.tries.count(hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest() if image else "unknown")
        if image is None:
            raise PageRefused(404, "This link is not valid, or no longer.")
        with self.index.reading() as database:
            entry = queries.entry(database, *image)
        if entry is None:
            raise PageRefused(404, "The record of this image is gone, and with it the decision.")
        return entry

    def common(self, request: str, image: int) -> Common:
        """The tenant and the policy of an image, which what is said of it has too."""
        for record in self.index.records(request):
            if record["event"] == RequestFinished.name and record.get("image") == image:
                return giving.shared(record)
        return {}

    def page(self, template: str, person: Person | None, status: int = 200, **values: Any) -> Response:
        """A page."""
        form = self.keys.form(person.cookie) if person is not None else ""
        text = self._templates.get_template(template).render(
            person=person,
            form=form,
            version=__version__,
            may_judge=person is not None and person.role in access.JUDGE,
            may_see_changes=person is not None and person.role in access.CHANGES,
            **values,
        )
        return HTMLResponse(text, status, headers=SECURITY)

    def refused(self, problem: PageRefused) -> Response:
        """The page that is shown in place of one that is not."""
        wrong = problem.status == 401  # noqa: PLR2004 (not signed in)
        if wrong:
            return self.page("sign-in.html", None, problem.status, wrong=False)
        return self.page("refused.html", None, problem.status, why=problem.why)

    @staticmethod
    def set_cookie(answer: Response, request: Request, value: str) -> None:
        """Keep who is signed in: out of reach of scripts, and never sent along by another site."""
        answer.set_cookie(
            COOKIE,
            value,
            max_age=access.SIGNED_IN_S if value else 0,
            path="/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )

    @staticmethod
    async def aside(write: Callable[[], Result]) -> Result:
        """Do what waits for the disk apart from the event loop."""
        return await to_thread.run_sync(write)

    def refresh(self) -> None:
        """Bring the index up to date, some records at a time, so that pages are answered meanwhile."""
        while not self.index.update(_AT_ONCE):
            pass


_AT_ONCE: Final = 20_000


def _name(grant: Grant) -> str:
    return grant.name or f"token {grant.sha256[:8]}"
