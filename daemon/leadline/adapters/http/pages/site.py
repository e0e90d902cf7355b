"""One request of a person: which page, who asks, and whether a form is one of ours.

    page ─▶ session ─▶ rate ─▶ (a form: its origin, its token) ─▶ the page's handler ─▶ HTML

Who has no session is told how to get one; nothing is shown to anybody else. A form is taken only from a page of ours,
twice over: the browser says where it comes from, and the form has a token that no other site can know.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from aiohttp import web
from msgspec import Struct

from leadline.actors.sessions import SESSION_LIFETIME
from leadline.adapters.http.headers import API
from leadline.adapters.http.limits import BODIES_BYTES_MAX, Rates, Room
from leadline.adapters.http.pages import forms
from leadline.adapters.http.pages.directory import PAGES, Page
from leadline.adapters.http.pages.rendering import ASSET, PAGE, Assets, Templates
from leadline.adapters.http.pages.typed import NUMBER_DIGITS_MAX
from leadline.adapters.http.pages.visit import Visit
from leadline.adapters.http.problems import STATUS
from leadline.adapters.http.reach import Reach
from leadline.adapters.http.routes import AddressTable
from leadline.ports.sessions import Session
from leadline_protocol.errors import ERROR_CODES, ErrorCode, Refused
from leadline_protocol.ids import JobId

COOKIE: Final = "__Host-leadline"
"""By its prefix browsers take it from this host alone, over TLS or loopback, for all of its addresses."""

QUERY_FIELDS_MAX: Final = 32

FORMS_MAX: Final = BODIES_BYTES_MAX // forms.FORM_BYTES_MAX
"""Forms that are being read at a time: the fields of each are in memory, and may take half a minute to come in."""

FORMS_PER_SESSION_MAX: Final = 8


class _Open(Struct, frozen=True):
    """An address that asks for no session."""

    method: str
    path: str
    answer: Callable[[web.BaseRequest, str], Awaitable[web.StreamResponse]]


class Site:
    """Answers people."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._assets = Assets()
        self._templates = Templates(self._assets)
        self._rates = Rates()
        self._forms = Room("forms on their way", FORMS_MAX, FORMS_PER_SESSION_MAX)
        self._pages = AddressTable(PAGES)
        self._open = AddressTable(
            (
                _Open("GET", "/assets/{asset}", self._asset),
                _Open("GET", "/in/{link}", self._door),
                _Open("POST", "/in/{link}", self._sign_in),
                _Open("POST", "/out", self._sign_out),
                _Open("GET", "/live", self._live),
            )
        )

    async def answer(self, http: web.BaseRequest) -> web.StreamResponse:
        """Answer a request. Raises TimeoutError, ConnectionError and what a bug raises."""
        try:
            return await self._answer(http)
        except Refused as no:
            return self.refusal(no)

    async def _answer(self, http: web.BaseRequest) -> web.StreamResponse:
        path, _, query = http.raw_path.partition("?")
        opened, values = self._open.find(path)
        if opened:
            if http.method not in opened:
                raise Refused(ErrorCode.UNKNOWN_OP, "this is not how to use this address")
            return await opened[http.method].answer(http, values[0] if values else "")
        session = await self._session(http)
        self._rates.take(session.hash, self._reach.desk.numbers().requests_per_second)
        pages, values = self._pages.find(path)
        form = forms.Form({})
        if http.method == "POST" and pages:
            self._check_origin(http)
            with self._forms.one(session.hash):
                form = await forms.read(http)
            if not self._reach.desk.sessions.is_csrf_of(session, form.fields.get("csrf", "")):
                raise Refused(ErrorCode.FORBIDDEN, "the form is too old: load the page again and send it from there")
        visit = self._visit(http, session, tuple(values), query, form)
        try:
            if not pages:
                raise Refused(ErrorCode.NOT_FOUND, "there is nothing at this address")
            page: Page | None = pages.get(http.method)
            if page is None:
                raise Refused(ErrorCode.UNKNOWN_OP, "this is not how to use this address")
            if page.method == "POST":
                visit.check_may_change()
            return await page.handler(visit)
        except Refused as no:
            return visit.page("refused.html", status=STATUS[no.code], refused=no, meaning=ERROR_CODES[no.code])

    def _visit(
        self, http: web.BaseRequest, session: Session, values: tuple[str, ...], query: str, form: forms.Form
    ) -> Visit:
        try:
            said = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=QUERY_FIELDS_MAX)
        except ValueError:
            raise Refused(ErrorCode.BAD_REQUEST, "the address cannot be read") from None
        csrf = self._reach.desk.sessions.csrf_of(session)
        return Visit(http, self._reach, self._templates, session, csrf, values, dict(said), form)

    def refusal(self, no: Refused, status: int | None = None) -> web.Response:
        """What somebody is told whom no page can be shown."""
        page = self._templates.page("outside.html", {"refused": no}, status or STATUS[no.code])
        if no.retry_after is not None:
            page.headers["Retry-After"] = str(max(1, round(no.retry_after)))
        return page

    # -- who ------------------------------------------------------------------------------------------------------

    async def _session(self, http: web.BaseRequest) -> Session:
        """Who asks. Raises Refused."""
        secret = http.cookies.get(COOKIE, "")
        if not secret:
            raise Refused(ErrorCode.UNAUTHORIZED, "you are not signed in here")
        return await self._reach.desk.sessions.find(secret)

    def _check_origin(self, http: web.BaseRequest) -> None:
        """Raises Refused where a form comes from another site than this one."""
        origin = http.headers.get("Origin", "")
        own = self._reach.desk.public_url()
        same = origin == own if own is not None else bool(origin) and urlsplit(origin).netloc == http.host
        if not same or http.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
            raise Refused(ErrorCode.FORBIDDEN, "the form does not come from a page of ours")

    async def _door(self, http: web.BaseRequest, link: str) -> web.StreamResponse:
        """What a link shows: it is taken by a form, so that nobody who only looks at links uses it up.

        Who is signed in as somebody else is asked first: it may be a stranger's link, by which they would work for him.
        """
        present: Session | None = None
        with suppress(Refused):
            present = await self._session(http)
        if present is not None and await self._reach.desk.sessions.is_for(link, present):
            present = None
        return self._templates.page("door.html", {"link": link, "present": present})

    async def _sign_in(self, http: web.BaseRequest, link: str) -> web.StreamResponse:
        self._check_origin(http)
        secret, _ = await self._reach.desk.sessions.begin(link)
        await self._reach.desk.sessions.end(http.cookies.get(COOKIE, ""))
        response = web.Response(status=303, headers={**PAGE, "Location": "/"})
        lives = round(SESSION_LIFETIME.total_seconds())
        response.set_cookie(COOKIE, secret, max_age=lives, path="/", secure=True, httponly=True, samesite="Lax")
        return response

    async def _sign_out(self, http: web.BaseRequest, _: str) -> web.StreamResponse:
        self._check_origin(http)
        await self._reach.desk.sessions.end(http.cookies.get(COOKIE, ""))
        page = self._templates.page("outside.html", {"refused": None})
        page.set_cookie(COOKIE, "", max_age=0, path="/", secure=True, httponly=True, samesite="Lax")
        return page

    # -- what pages load ------------------------------------------------------------------------------------------

    async def _asset(self, _: web.BaseRequest, name: str) -> web.StreamResponse:
        asset = self._assets.find(name)
        if asset is None:
            raise Refused(ErrorCode.NOT_FOUND, "there is nothing at this address")
        return web.Response(body=asset.body, content_type=asset.content_type, headers=ASSET)

    async def _live(self, http: web.BaseRequest, _: str) -> web.StreamResponse:
        """What happens to the jobs that a page shows (`/live?job=41`, `/live?teamspace=acme`), since it was written."""
        try:
            session = await self._session(http)
            self._rates.take(session.hash, self._reach.desk.numbers().requests_per_second)
            visit = self._visit(http, session, (), http.raw_path.partition("?")[2], forms.Form({}))
            job = visit.query.get("job")
            if job is not None and not (job.isascii() and job.isdigit() and len(job) <= NUMBER_DIGITS_MAX):
                raise Refused(ErrorCode.NOT_FOUND, "there is no such job")
            wanted = None if job is None else JobId(int(job))
            may_go_on = partial(self._reach.desk.sessions.is_good, session)
            return await self._reach.stream(
                visit.caller, http, visit.teamspace, wanted, may_go_on, visit.query.get("seen")
            )
        except Refused as no:
            return web.Response(status=STATUS[no.code], text=f"{no.message}\n", headers=API)
