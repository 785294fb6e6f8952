"""The console of one audit log: sign-in, permissions, forms and pages."""

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
"""Headers of every response: only the console's own scripts run, nothing is loaded from elsewhere or cached."""


class PageRefused(Exception):
    """Raised in place of returning a page; the browser gets a page with the reason.

    Args:
        status: HTTP status.
        why: reason to show to the person.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


@dataclass(frozen=True, slots=True)
class Person:
    """A person who is signed in.

    Attributes:
        name: name that the token file gives the person's token.
        role: ``moderator``, ``policy_owner`` or ``auditor``.
        tenant: the only tenant whose images the person sees; "" for all.
        cookie: the browser's cookie.
    """

    name: str
    role: str
    tenant: str
    cookie: str


class TryLimit:
    """Limits the attempts per minute to sign in or to appeal; every worker process counts separately.

    Args:
        most: most attempts per minute and client; all clients together may make 50 times as many.
        clock: returns the time in seconds since 1970.
    """

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._most, self._clock, self._lock = most, clock, Lock()
        self._minute, self._counts = 0, Counter[str]()

    def count(self, who: str) -> None:
        """Count one attempt of a client, such as an address.

        Raises:
            PageRefused: there were too many attempts in this minute.
        """
        with self._lock:
            minute = int(self._clock() // 60)
            if minute != self._minute:
                self._minute, self._counts = minute, Counter()
            self._counts[who] += 1
            if self._counts[who] > self._most or self._counts.total() > 50 * self._most:
                raise PageRefused(429, "Too many tries; wait a minute.")


class Console:
    """The web console where people review the decisions in one audit log.

    Args:
        log: path of the audit log.
        tokens: the tokens of the service; a person signs in with one that has a role.
        clock: returns the time in seconds since 1970.

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
        """Sign a person in with a token, and return the cookie; None if the token is not for the console."""
        self.tries.count(request.client.host if request.client else "")
        grant = self._tokens.grant(f"Bearer {token}")
        return self.keys.cookie(grant.sha256) if grant is not None and grant.role is not None else None

    def person(self, request: Request, roles: frozenset[str]) -> Person:
        """Return the person who sent a request.

        Args:
            request: a browser's request.
            roles: roles that may see the page.

        Raises:
            PageRefused: nobody is signed in, or the person has another role.
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
        """Read the fields of a form, within size limits.

        Raises:
            PageRefused: the body is too large, or is not a form.
        """
        data = b""
        async for chunk in request.stream():
            data += chunk
            if len(data) > LARGEST_FORM:
                raise PageRefused(413, "The form is too large.")
        try:
            return dict(parse_qsl(data.decode("utf-8"), keep_blank_values=True, max_num_fields=_FIELDS))
        except ValueError as error:
            raise PageRefused(422, "This is not a form.") from error

    async def checked(self, request: Request, person: Person) -> dict[str, str]:
        """Read the fields of a form, and check that one of this person's pages sent it.

        Raises:
            PageRefused: another page sent it.
        """
        fields = await self.form(request)
        if not self.keys.is_form(person.cookie, fields.get("form", "")):
            raise PageRefused(403, "The form is not from this page; load the page again.")
        return fields

    def entry(self, person: Person, request: str, image: int) -> queries.QueueEntry:
        """Find an image by its request id and its index in the batch.

        Raises:
            PageRefused: there is no such image, or the person may not see it.
        """
        with self.index.reading() as database:
            return self.visible(person, queries.entry(database, request, image))

    @staticmethod
    def visible(person: Person, entry: queries.QueueEntry | None) -> queries.QueueEntry:
        """Return an image's queue entry if a person may see it.

        Raises:
            PageRefused: there is no entry, or it belongs to another tenant; the message is the same in both cases.
        """
        if entry is None or person.tenant not in {"", entry.row.tenant}:
            raise PageRefused(404, "There is no such image; it may have been purged.")
        return entry

    def appealed(self, token: str) -> queries.QueueEntry:
        """Find the image that an appeal link is for.

        Args:
            token: the last part of the link.

        Raises:
            PageRefused: the link is invalid, has expired or is used too often, or the image's record was deleted.
        """
        image = self.keys.appealed(token)
        self.tries.count(hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest() if image else "unknown")
        if image is None:
            raise PageRefused(404, "This link is invalid or has expired.")
        with self.index.reading() as database:
            entry = queries.entry(database, *image)
        if entry is None:
            raise PageRefused(404, "The record of this image and of its decision is gone.")
        return entry

    def common(self, request: str, image: int) -> Common:
        """Return the tenant and the policy of an image, to be copied into the records of its reviews."""
        for record in self.index.records(request):
            if record["event"] == RequestFinished.name and record.get("image") == image:
                return giving.shared(record)
        return {}

    def page(self, template: str, person: Person | None, status: int = 200, **values: Any) -> Response:
        """Render a template as a page for a person; None stands for a person who is not signed in."""
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
        """Render the page that replaces a refused one: the sign-in form if nobody is signed in, else the reason."""
        wrong = problem.status == 401  # noqa: PLR2004 (not signed in)
        if wrong:
            return self.page("sign-in.html", None, problem.status, wrong=False)
        return self.page("refused.html", None, problem.status, why=problem.why)

    @staticmethod
    def set_cookie(answer: Response, request: Request, value: str) -> None:
        """Set the sign-in cookie: out of reach of scripts, and never sent from another site."""
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
        """Run a blocking call, such as a write to disk, in a thread, so that the event loop goes on."""
        return await to_thread.run_sync(write)

    def refresh(self) -> None:
        """Bring the index up to date, one batch of records at a time, so that pages can be served in between."""
        while not self.index.update(_AT_ONCE):
            pass


_AT_ONCE: Final = 20_000


def _name(grant: Grant) -> str:
    return grant.name or f"token {grant.sha256[:8]}"
