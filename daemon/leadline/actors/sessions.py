"""Sessions: how a person signs in by a link that is good once, and who a session's secret stands for after that.

Leadline keeps no passwords. The host product knows its people, has a link made for one of them (the operation `links`)
and sends the browser there; the link is given for a session, whose secret the browser keeps. Both secrets are told once
and kept as their SHA-256. They end with a mark that the daemon's own key has made, so that what a stranger makes up is
turned away without a query.

Sessions are held in memory from the first time they are asked for, so that a page costs no query. This daemon is the
only one that ends them. Where that may have taken place or not they are forgotten, and read when they are asked for
again.
"""

import base64
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, get_args

from leadline.actors.api_tokens import SECRET_BYTES, hash_of
from leadline.actors.dispatcher import unavailable
from leadline.actors.losses import STORE_LOST
from leadline.actors.surroundings import Record
from leadline.ports.sessions import Session, SessionStore, StoredLink
from leadline.ports.store import Fenced, Unavailable
from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, Refused

LINK_PREFIX: Final = "ldi_"
SESSION_PREFIX: Final = "lds_"
"""By which scanners of code and logs know them."""

MARK_BYTES: Final = 16
MARK_CHARACTERS: Final = 22
"""The same in base64."""

LINK_LIFETIME: Final = timedelta(minutes=5)
"""A browser is sent to it at once; what lies in a history or a log is soon good for nothing."""

SESSION_LIFETIME: Final = timedelta(hours=12)
"""A working day with its breaks: nobody is sent away in the middle of it, and everybody is known anew the next day."""

REMEMBERED_MAX: Final = 10_000
"""Sessions in memory, which take a few megabytes; whoever was not seen for the longest is read again."""


class Sessions:
    """Those who have signed in."""

    def __init__(
        self,
        store: SessionStore,
        key: bytes,
        base_url: Callable[[], str | None] = lambda: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`key` is the daemon's own secret; `base_url` what addresses begin with, as far as that is known."""
        self._store = store
        self._key = key
        self._base_url = base_url
        self._now = now
        self._known: OrderedDict[bytes, Session] = OrderedDict()
        """By hash, the one asked for last at the end."""
        self._changes = 0
        """Counts on with each end: what was read before one is not kept."""

    async def perform(self, operation: wire.Links, record: Record, line: int) -> wire.LinksReply:
        """Carry out one operation. Raises Refused, and what the store raises."""
        if operation.action == "end":
            ended = await self._end_all(operation, record)
            return wire.LinksReply(line=line, ended=ended, ref=operation.ref)
        someone = operation.as_
        if someone is not None and _rank(operation.role) > _rank(someone.role):
            message = f"{someone.person} is {someone.role}, and makes no links for a role above that"
            raise Refused(ErrorCode.FORBIDDEN, message, at="role")
        assert operation.person is not None
        await record(f"person {operation.person}", f"create for {_whose(operation.teamspace)}, {operation.role}")
        secret, expires = await self.mint(operation.person, operation.role, operation.teamspace)
        path, base = f"/in/{secret}", self._base_url()
        url = None if base is None else base + path
        return wire.LinksReply(line=line, path=path, url=url, expires_at=expires, ref=operation.ref)

    async def mint(self, person: str, role: wire.Role, teamspace: str | None) -> tuple[str, datetime]:
        """A new link: its secret, and until when it is good. Raises what the store raises."""
        secret, now = self._new_secret(LINK_PREFIX), self._now()
        link = StoredLink(hash_of(secret), person, role, teamspace, now, now + LINK_LIFETIME)
        await self._store.add_link(link)
        return secret, link.expires

    async def is_for(self, link_secret: str, session: Session) -> bool:
        """Whether a link, which stays good, was made for whoever is signed in. Raises Refused with unavailable."""
        link = None
        if self._is_made_here(link_secret, LINK_PREFIX):
            try:
                link = await self._store.link(hash_of(link_secret))
            except STORE_LOST:
                raise unavailable() from None
        return link is not None and (link.person, link.teamspace) == (session.person, session.teamspace)

    async def begin(self, link_secret: str) -> tuple[str, Session]:
        """Take a link: the secret of the session that begins, and the session.

        Raises Refused: unauthorized, in the same words whether the link was taken, has expired or never was; or
        unavailable. Raises OutcomeUnknown, after which the link may be good no more.
        """
        session = None
        secret, now = self._new_secret(SESSION_PREFIX), self._now()
        if self._is_made_here(link_secret, LINK_PREFIX):
            try:
                session = await self._store.take(hash_of(link_secret), hash_of(secret), now, now + SESSION_LIFETIME)
            except (Unavailable, Fenced):
                raise unavailable() from None
        if session is None:
            message = "the link was used already, has expired or never was: ask for a new one where it came from"
            raise Refused(ErrorCode.UNAUTHORIZED, message)
        return secret, session

    async def find(self, session_secret: str) -> Session:
        """Who a secret stands for. Raises Refused: unauthorized, or unavailable."""
        session = None
        if self._is_made_here(session_secret, SESSION_PREFIX):
            hash_ = hash_of(session_secret)
            session = self._recall(hash_) or await self._read(hash_)
        if session is None or self._now() >= session.expires:
            raise Refused(ErrorCode.UNAUTHORIZED, "nobody is signed in by this, or no longer")
        return session

    async def _read(self, hash_: bytes) -> Session | None:
        changes = self._changes
        try:
            session = await self._store.session(hash_)
        except STORE_LOST:
            raise unavailable() from None
        if session is not None and changes == self._changes:
            self._known[hash_] = session
            if len(self._known) > REMEMBERED_MAX:
                self._known.popitem(last=False)
        return session

    def is_good(self, session: Session) -> bool:
        """Whether a session that was found before goes on, as far as is known without asking the database.

        Where sessions were forgotten none does, until it is found again.
        """
        return self._recall(session.hash) is not None and self._now() < session.expires

    def _recall(self, hash_: bytes) -> Session | None:
        session = self._known.get(hash_)
        if session is not None:
            self._known.move_to_end(hash_)
        return session

    async def end(self, session_secret: str) -> None:
        """Sign out. Raises Refused with unavailable, and OutcomeUnknown."""
        if not self._is_made_here(session_secret, SESSION_PREFIX):
            return
        hash_ = hash_of(session_secret)
        if self._recall(hash_) is None and await self._read(hash_) is None:
            return  # who was signed out before costs no commit, however often they come
        try:
            await self._store.end(hash_)
        except (Unavailable, Fenced):
            raise unavailable() from None
        finally:
            self._known.pop(hash_, None)
            self._changes += 1

    async def _end_all(self, operation: wire.Links, record: Record) -> int:
        person, teamspace = operation.person, operation.teamspace
        target = f"teamspace {teamspace}" if person is None else f"person {person}"
        await record(target, f"end in {_whose(teamspace)}")
        try:
            return await self._store.end_all(person, teamspace, self._now())
        finally:  # also where nobody can say whether it took place
            self._known.clear()
            self._changes += 1

    def csrf_of(self, session: Session) -> str:
        """What a form of this session sends, so that no other site can have it sent."""
        return hmac.new(self._key, b"csrf of " + session.hash, hashlib.sha256).hexdigest()

    def is_csrf_of(self, session: Session, token: str) -> bool:
        """Whether a form was this session's."""
        return token.isascii() and hmac.compare_digest(self.csrf_of(session), token)

    def _new_secret(self, prefix: str) -> str:
        body = prefix + secrets.token_urlsafe(SECRET_BYTES)
        return body + self._mark(body)

    def _is_made_here(self, secret: str, prefix: str) -> bool:
        body, mark = secret[:-MARK_CHARACTERS], secret[-MARK_CHARACTERS:]
        return secret.isascii() and body.startswith(prefix) and hmac.compare_digest(self._mark(body), mark)

    def _mark(self, body: str) -> str:
        mark = hmac.new(self._key, b"sign in by " + body.encode(), hashlib.sha256).digest()[:MARK_BYTES]
        return base64.urlsafe_b64encode(mark).decode().rstrip("=")


def _rank(role: wire.Role) -> int:
    return get_args(wire.Role).index(role)


def _whose(teamspace: str | None) -> str:
    return "all teamspaces" if teamspace is None else teamspace
