"""Who may use the pages in a browser, as it is kept: never a secret, only the hash by which one is known again."""

from datetime import datetime
from typing import Protocol

from msgspec import Struct

from leadline_protocol.messages import Role


class StoredLink(Struct, frozen=True, gc=False):
    """A link by which somebody may sign in, once."""

    hash: bytes
    """SHA-256 of the secret, which is long and random enough for a plain hash."""
    person: str
    role: Role
    teamspace: str | None
    """None: all of them."""
    created: datetime
    expires: datetime


class Session(Struct, frozen=True, gc=False):
    """Somebody who has signed in."""

    hash: bytes
    """As of a link, of a secret of its own."""
    person: str
    role: Role
    teamspace: str | None
    """None: all of them."""
    expires: datetime


class SessionStore(Protocol):
    """Where they are kept. Everything raises Unavailable, Fenced and OutcomeUnknown as the store does."""

    async def add_link(self, link: StoredLink) -> None:
        """Keep a new link, and forget some of those that had expired when it was made."""
        ...

    async def link(self, hash_: bytes) -> StoredLink | None:
        """The link of a hash, which stays as it is; also one that has expired and is not forgotten yet."""
        ...

    async def take(self, link: bytes, session: bytes, now: datetime, expires: datetime) -> Session | None:
        """Begin a session with the link of a hash, which is good no more then; forget some that have expired.

        None where there is no such link at that time. Of several who take it at once one is given a session.
        """
        ...

    async def session(self, hash_: bytes) -> Session | None:
        """The session of a hash, also one that has expired and is not forgotten yet."""
        ...

    async def end(self, hash_: bytes) -> None:
        """Forget a session, where there is one."""
        ...

    async def end_all(self, person: str | None, teamspace: str | None, now: datetime) -> int:
        """Forget the links and the sessions of a person, of a teamspace, or of a person there.

        Returns how many of the sessions had not expired.
        """
        ...
