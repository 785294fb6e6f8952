"""The console's pages over HTTP: sign-in, queue, image, verdict, appeal, overview, thresholds, changes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, RedirectResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from dnp_guard.audit import previews
from dnp_guard.audit.events import AppealAnswered, AppealMade, VerdictGiven
from dnp_guard.audit.read import verdict as giving
from dnp_guard.audit.read.plots import legend, stacked
from dnp_guard.errors import AuditError
from dnp_guard.server.console import access, queries
from dnp_guard.server.console.console import SECURITY, PageRefused
from dnp_guard.server.console.overview import DAYS, OverviewFilter
from dnp_guard.server.console.overview import overview as counted
from dnp_guard.server.console.timeline import timeline
from dnp_guard.server.problems import Refusal
from dnp_guard.types import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dnp_guard.server.console.console import Console

STATIC: Final = Path(__file__).parent / "static"
_KINDS: Final = {"console.css": "text/css", "console.js": "text/javascript", "icon.svg": "image/svg+xml"}
_LONGEST_NOTE: Final = 2_000
_NEAREST: Final = 40


class AppealAsked(BaseModel):
    """A host's request for a link with which its user can appeal the decision on an image.

    Attributes:
        session: id of the session in which the image was generated.
        image: index of the image in the batch.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    session: str = Field(max_length=200)
    image: int = Field(default=0, ge=0)


@dataclass(frozen=True, slots=True)
class _Form:
    """The fields of a form whose token was checked, trimmed and cut to a maximal length; empty if missing."""

    values: Mapping[str, str]

    def __getitem__(self, name: str) -> str:
        return self.values.get(name, "").strip()[:_LONGEST_NOTE]


def router(console: Console) -> APIRouter:
    """Make the routes of a console's pages."""
    pages = APIRouter(include_in_schema=False)
    _sign_in(pages, console)
    _reading(pages, console)
    _pictures(pages, console)
    _figures(pages, console)
    _judging(pages, console)
    _appeals(pages, console)
    _hosts(pages, console)

    @pages.get("/console/static/{name}")
    def static(name: str) -> Response:
        if name not in _KINDS:
            raise PageRefused(404, "There is no such file.")
        return FileResponse(STATIC / name, media_type=_KINDS[name], headers={"Cache-Control": "max-age=3600"})

    return pages


def _sign_in(pages: APIRouter, console: Console) -> None:
    @pages.get("/console/sign-in")
    def show() -> Response:
        return console.page("sign-in.html", None, wrong=False)

    @pages.post("/console/sign-in")
    async def enter(request: Request) -> Response:
        token = (await console.form(request)).get("token", "")
        cookie = console.signed_in(request, token)
        if cookie is None:
            return console.page("sign-in.html", None, status=401, wrong=True)
        answer = RedirectResponse("/console", 303)
        console.set_cookie(answer, request, cookie)
        return answer

    @pages.post("/console/sign-out")
    async def leave(request: Request) -> Response:
        await console.checked(request, console.person(request, access.READ))
        answer = RedirectResponse("/console/sign-in", 303)
        console.set_cookie(answer, request, "")
        return answer


def _reading(pages: APIRouter, console: Console) -> None:
    @pages.get("/console")
    def queue(
        http: Request,
        show: str = "open",
        decision: str = "",
        category: str = "",
        tenant: str = "",
        policy: str = "",
        request: str = "",
        before: int = 0,
    ) -> Response:
        person = console.person(http, access.READ)
        if show not in queries.SHOWN:
            raise PageRefused(404, "There is no such list.")
        asked = queries.QueueFilter(show, decision, category, person.tenant or tenant, policy, request, before)
        with console.index.reading() as database:
            entries = queries.queue(database, asked)
            known = queries.names(database, person.tenant)
        more = replace(asked, before=entries[-1].id) if len(entries) == queries.PAGE else None
        return console.page(
            "queue.html",
            person,
            asked=asked,
            entries=entries,
            more=asdict(more) if more else None,
            known=known | {"decision": [str(outcome) for outcome in Outcome], "show": list(queries.SHOWN)},
        )

    @pages.get("/console/image/{request}/{image}")
    def image(http: Request, request: str, image: int) -> Response:
        person = console.person(http, access.READ)
        with console.index.reading() as database:
            entry = console.visible(person, queries.entry(database, request, image))
            following = queries.following(database, entry, person.tenant)
        records = [record for record in console.index.records(request) if record.get("image", image) == image]
        return console.page(
            "image.html",
            person,
            entry=entry,
            following=following,
            looks=timeline(records),
            said=[record for record in records if record["event"] in _SAID],
            pictures=previews.folder(console.index.log).is_dir(),
            appeal=f"/appeal/{console.keys.appeal(request, image)}" if person.role in access.JUDGE else "",
        )


def _pictures(pages: APIRouter, console: Console) -> None:
    @pages.get("/console/picture/{request}/{name}")
    def picture(http: Request, request: str, name: str) -> Response:
        person = console.person(http, access.JUDGE)
        named = previews.is_name(name) and any(
            previews.named(record) == name for record in console.index.records(request)
        )
        file = previews.folder(console.index.log) / name
        with console.index.reading() as database:
            row = database.execute("SELECT tenant FROM image WHERE request = ? LIMIT 1", (request,)).fetchone()
        seen = row is not None and person.tenant in {"", row["tenant"]}
        if not named or not seen or not file.is_file():
            raise PageRefused(404, "There is no such picture; it may have been purged.")
        try:
            data = previews.shown(file, previews.read_key())
        except AuditError as error:
            raise PageRefused(409, f"{error.message}. {error.hint}") from error
        return Response(data, media_type="image/png", headers=SECURITY)


def _figures(pages: APIRouter, console: Console) -> None:
    @pages.get("/console/overview")
    def overview(http: Request, tenant: str = "", policy: str = "", category: str = "") -> Response:
        person = console.person(http, access.READ)
        asked = OverviewFilter(person.tenant or tenant, policy, category)
        with console.index.reading() as database:
            totals = counted(database, asked)
            reviews = queries.reviews(database, person.tenant)
            known = queries.names(database, person.tenant)
        plot = stacked(totals.days, totals.outcomes, "Images by day and outcome")
        return console.page(
            "overview.html",
            person,
            asked=asked,
            found=totals,
            most_days=DAYS,
            known=known,
            plot=plot,
            swatches=legend(totals.outcomes),
            reviews=reviews,
        )

    @pages.get("/console/thresholds")
    def thresholds(http: Request, category: str = "", at: float = 0.0, *, pictures: bool = False) -> Response:
        person = console.person(http, access.READ)
        with console.index.reading() as database:
            known = queries.categories(database)
            category = category or next(iter(known), "")
            sights = queries.sights(database, category, person.tenant)
        now = max((seen.threshold for seen in sights), default=0.5)
        at = min(1.0, max(at, now))
        nearest = sorted(sights, key=lambda seen: abs(seen.probability - at))[:_NEAREST]
        place = previews.folder(console.index.log)
        existing = {
            seen.picture for seen in nearest if previews.is_name(seen.picture) and (place / seen.picture).is_file()
        }
        return console.page(
            "thresholds.html",
            person,
            known=known,
            category=category,
            at=at,
            now=now,
            sights=sights,
            nearest=sorted(nearest, key=attrgetter("probability")),
            kept=existing,
            pictures=pictures and person.role in access.JUDGE,
        )

    @pages.get("/console/changes")
    def changes(http: Request) -> Response:
        person = console.person(http, access.CHANGES)
        with console.index.reading() as database:
            return console.page("changes.html", person, changes=queries.changed(database, person.tenant))


def _judging(pages: APIRouter, console: Console) -> None:
    @pages.post("/console/image/{request}/{image}/verdict")
    async def judge(http: Request, request: str, image: int) -> Response:
        person = console.person(http, access.JUDGE)
        form = _Form(await console.checked(http, person))
        if form["verdict"] not in {"right", "false_alarm", "missed"}:
            raise PageRefused(422, "Choose right, false alarm or missed.")

        def write() -> str:
            entry = console.entry(person, request, image)
            record = VerdictGiven(
                request=request,
                image=image,
                verdict=form["verdict"],  # type: ignore[arg-type]
                category=form["category"] or None,
                by=person.name,
                note=form["note"] or None,
            )
            giving.judge(console.index.log, console.common(request, image), record)
            console.index.update()
            with console.index.reading() as database:
                following = queries.following(database, entry, person.tenant)
            return f"/console/image/{following.row.id}" if following is not None else "/console"

        return RedirectResponse(await console.aside(write), 303)

    @pages.post("/console/image/{request}/{image}/answer")
    async def answer(http: Request, request: str, image: int) -> Response:
        person = console.person(http, access.JUDGE)
        form = _Form(await console.checked(http, person))
        if form["answer"] not in {"upheld", "overturned"}:
            raise PageRefused(422, "Choose upheld or overturned.")

        def write() -> str:
            if console.entry(person, request, image).appeal != "open":
                raise PageRefused(409, "There is no open appeal about this image.")
            record = AppealAnswered(
                request=request,
                image=image,
                answer=form["answer"],  # type: ignore[arg-type]
                by=person.name,
                note=form["note"] or None,
            )
            giving.answer(console.index.log, console.common(request, image), record)
            console.index.update()
            return f"/console/image/{request}/{image}"

        return RedirectResponse(await console.aside(write), 303)


def _appeals(pages: APIRouter, console: Console) -> None:
    @pages.get("/appeal/{token}")
    def show(token: str) -> Response:
        entry = console.appealed(token)
        return console.page("appeal.html", None, entry=entry, code=code(entry.row.decision))

    @pages.post("/appeal/{token}")
    async def send(http: Request, token: str) -> Response:
        text = _Form(await console.form(http))["text"]

        def write() -> None:
            entry = console.appealed(token)
            if entry.appeal:
                raise PageRefused(409, "This decision has been appealed already.")
            console.appeals.count(token)
            if not text:
                raise PageRefused(422, "Write why the decision should be changed.")
            record = AppealMade(request=entry.row.request, image=entry.row.image, text=text)
            giving.appeal(console.index.log, console.common(entry.row.request, entry.row.image), record)
            console.index.update()

        await console.aside(write)
        return RedirectResponse(f"/appeal/{token}", 303)


def _hosts(pages: APIRouter, console: Console) -> None:
    @pages.post("/v1/appeals", status_code=201)
    def link(http: Request, asked: AppealAsked) -> dict[str, str | int]:
        """Make a link with which the user who asked for an image can appeal the decision on it, once."""
        console.index.update()
        with console.index.reading() as database:
            entry = queries.entry(database, asked.session, asked.image)
        grant = http.scope["dnp_guard.grant"]
        if entry is None or (grant.tenant or "") != entry.row.tenant:
            raise Refusal("session", "There is no finished image of this session and index.")
        return {"path": f"/appeal/{console.keys.appeal(asked.session, asked.image)}", "seconds": access.APPEAL_S}


def code(decision: str) -> str:
    """Return a word that names a decision without revealing anything about the policy, such as ``withheld``."""
    return {"blocked": "withheld", "blurred": "blurred", "failed_closed": "unchecked"}.get(decision, "delivered")


_SAID: Final = frozenset({VerdictGiven.name, AppealMade.name, AppealAnswered.name})
