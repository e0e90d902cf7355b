"""What the handler of a page has in hand."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode

import msgspec
from aiohttp import web
from msgspec import Struct

from leadline.adapters.http.pages.forms import Form
from leadline.adapters.http.pages.rendering import PAGE, Templates
from leadline.adapters.http.pages.typed import whole
from leadline.adapters.http.reach import ON_LINE, Caller, Reach, peer, refusal
from leadline.adapters.http.reading import refused
from leadline.ports.sessions import Session
from leadline_protocol import messages as wire
from leadline_protocol.codec import LineFault
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.ids import JobId

R = TypeVar("R", bound=wire.Reply)
A = TypeVar("A", bound=wire.Operation[Any])

_ID: Final = msgspec.json.Decoder(wire.Id, strict=False)

UNSEEN: Final = "none"
"""No event: whoever goes on from it is told that something was missed."""


class Place(Struct, frozen=True):
    """A place in the navigation."""

    name: str
    path: str
    below: str = ""
    """How addresses of further pages that belong to it begin, besides its own."""

    def holds(self, path: str) -> bool:
        """Whether the page at that path belongs to it."""
        return path == self.path or path.startswith((f"{self.path}/", self.below or f"{self.path}/"))


_OF_TEAMSPACE: Final = (
    Place("Jobs", "/jobs"),
    Place("Tables", "/tables", "/t/"),
    Place("Batch", "/batch"),
    Place("Schedules", "/schedules"),
    Place("Outreach", "/outreach"),
)
_OF_OPERATOR: Final = (Place("Overview", "/operator"),)


class Visit:
    """One request of a person who has signed in."""

    def __init__(
        self,
        http: web.BaseRequest,
        reach: Reach,
        templates: Templates,
        session: Session,
        csrf: str,
        values: tuple[str, ...],
        query: Mapping[str, str],
        form: Form,
    ) -> None:
        """`values`: of the names in the address, in order."""
        self.http: Final = http
        self.reach: Final = reach
        self.session: Final = session
        self.values: Final = values
        self.query: Final = query
        self.form: Final = form
        self.caller: Final = Caller(session.hash, session.person, session.role, session.teamspace)
        self._templates = templates
        self._csrf = csrf
        self._seen = reach.desk.feed.position or UNSEEN

    # -- where ----------------------------------------------------------------------------------------------------

    @property
    def is_operator(self) -> bool:
        """Whether the person sees all teamspaces."""
        return self.session.teamspace is None

    @property
    def may_change(self) -> bool:
        """Whether the person may do more than look, as far as the pages decide it: an operator that is a member not."""
        return not self.is_operator or self.session.role != "member"

    @property
    def teamspace(self) -> str | None:
        """The teamspace that the page is about: a customer's own; of an operator the one the address names, if any."""
        return self.session.teamspace or self.query.get("teamspace") or None

    @property
    def certain_teamspace(self) -> str:
        """The same, where the page is about one. Raises Refused."""
        if self.teamspace is None:
            raise Refused(ErrorCode.BAD_REQUEST, "choose a teamspace first", at="teamspace")
        return self.teamspace

    def check_may_change(self) -> None:
        """Raises Refused where the person may only look."""
        if not self.may_change:
            raise Refused(ErrorCode.FORBIDDEN, "you may look, and change nothing here: sign in as an admin")

    def link(self, path: str, /, **query: object) -> str:
        """An address of another page about the same teamspace; None among the parameters are left out."""
        said = {name: value for name, value in query.items() if value is not None}
        if self.is_operator and self.teamspace is not None:
            said.setdefault("teamspace", self.teamspace)
        return path if not said else f"{path}?{urlencode(said)}"

    def id(self) -> int:
        """The number of what the address names first. Raises Refused."""
        said = self.values[0]
        with suppress(msgspec.MsgspecError):
            if said.isascii() and said.isdigit():  # white space, which JSON has around a number, is no part of a path
                return _ID.decode(said)
        raise Refused(ErrorCode.NOT_FOUND, "there is nothing at this address")

    def job(self) -> JobId:
        """The job that the address names first. Raises Refused."""
        return JobId(self.id())

    def number(self, name: str, absent: int = 0) -> int:
        """A parameter of the address, whose bounds the operation knows. Raises Refused."""
        said = self.query.get(name, "")
        return whole(said, name, "the address cannot be read") if said else absent

    # -- ask ------------------------------------------------------------------------------------------------------

    async def ask(self, asked: wire.Operation[R]) -> R:
        """Carry an operation out, on behalf of the person. Raises Refused."""
        return await self.reach.perform(self.caller, self.http, self.read(asked))

    def read(self, asked: A) -> A:
        """An operation as it is carried out on behalf of the person. Raises Refused.

        What a person has typed may stand in it as it is: it is read by the codec, like whatever comes by a socket.
        """
        if isinstance(asked, wire.ControlOperation):
            asked = msgspec.structs.replace(asked, as_=self.caller.person)
        try:
            read = self.reach.decoder.decode(msgspec.json.encode(asked))
        except UnicodeEncodeError:
            raise Refused(ErrorCode.BAD_REQUEST, "that is no text") from None
        if isinstance(read, LineFault):
            raise refused(read)
        assert isinstance(read, type(asked))
        return read

    async def submit(self, submission: Mapping[str, Any]) -> wire.Receipt | wire.Preview:
        """Submit a job, or with `dry_run` ask what it would take. Raises Refused.

        A job belongs to the daemon's user, whoever is at the browser; so that is written down.
        """
        read = self.reach.read_submission(self.caller, msgspec.json.encode(submission))
        if isinstance(read, LineFault):
            raise refused(read)
        if not read[0].dry_run:
            await self.reach.desk.operations.record_submission(read[0], self.caller.person, peer(self.http))
        (reply,) = await self.reach.hand_in(self.caller, self.http, [(ON_LINE, *read)])
        if isinstance(reply, wire.Refusal):
            raise refusal(reply)
        return reply

    # -- answer ---------------------------------------------------------------------------------------------------

    def page(self, template: str, /, *, status: int = 200, **context: object) -> web.Response:
        """A page of the site."""
        around = {
            "visit": self,
            "link": self.link,
            "csrf": self._csrf,
            "seen": self._seen,
            "places": [*(_OF_OPERATOR if self.is_operator else ()), *(_OF_TEAMSPACE if self.teamspace else ())],
            "here": self.http.path,
            "said": self.query.get("said"),
        }
        return self._templates.page(template, {**around, **context}, status)

    def see(self, path: str, /, *, said: str | None = None, **query: object) -> web.Response:
        """What follows a form that was carried out: look at that page, which tells what was done (`said.html`)."""
        return web.Response(status=303, headers={**PAGE, "Location": self.link(path, said=said, **query)})


Handler = Callable[[Visit], Awaitable[web.StreamResponse]]


def in_path(name: str) -> str:
    """A name as a part of an address."""
    return quote(name, safe="")
