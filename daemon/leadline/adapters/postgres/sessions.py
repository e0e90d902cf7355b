"""Links to sign in by, and sessions, in Postgres (`ports.sessions.SessionStore`).

A link is taken by one statement, which deletes it and adds the session: whoever comes second waits for the first to
commit, and finds no link then.
"""

from datetime import datetime
from importlib.resources import files
from typing import Final

from leadline.adapters.postgres.queries import parse
from leadline.adapters.postgres.store import PostgresStore
from leadline.ports.sessions import Session, StoredLink

QUERIES: Final = parse((files(__package__) / "sessions.sql").read_text(encoding="utf-8"))

FORGOTTEN_AT_A_TIME: Final = 100
"""Of those that have expired: many more than are added at a time, and few enough to keep nobody waiting."""


class PostgresSessions:
    """Links and sessions as stored."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    async def add_link(self, link: StoredLink) -> None:
        """Keep a new link, and forget some of those that had expired when it was made."""
        async with self._store.write() as connection:
            await connection.execute(QUERIES["drop_expired_links"].sql, link.created, FORGOTTEN_AT_A_TIME)
            await connection.execute(
                QUERIES["add_link"].sql,
                link.hash,
                link.person,
                link.role,
                link.teamspace,
                link.created,
                link.expires,
            )

    async def link(self, hash_: bytes) -> StoredLink | None:
        """The link of a hash, which stays as it is; also one that has expired and is not forgotten yet."""
        async with self._store.read() as connection:
            row = await connection.fetchrow(QUERIES["link"].sql, hash_)
        return None if row is None else StoredLink(**row)

    async def take(self, link: bytes, session: bytes, now: datetime, expires: datetime) -> Session | None:
        """Begin a session with the link of a hash; None where there is no such link at that time."""
        async with self._store.write() as connection:
            await connection.execute(QUERIES["drop_expired_sessions"].sql, now, FORGOTTEN_AT_A_TIME)
            row = await connection.fetchrow(QUERIES["take_link"].sql, link, session, now, expires)
        return None if row is None else Session(**row)

    async def session(self, hash_: bytes) -> Session | None:
        """The session of a hash, also one that has expired and is not forgotten yet."""
        async with self._store.read() as connection:
            row = await connection.fetchrow(QUERIES["session"].sql, hash_)
        return None if row is None else Session(**row)

    async def end(self, hash_: bytes) -> None:
        """Forget a session, where there is one."""
        async with self._store.write() as connection:
            await connection.execute(QUERIES["end_session"].sql, hash_)

    async def end_all(self, person: str | None, teamspace: str | None, now: datetime) -> int:
        """Forget the links and the sessions of a person, of a teamspace, or of a person there.

        Returns how many of the sessions had not expired.
        """
        async with self._store.write() as connection:
            await connection.execute(QUERIES["end_links_of"].sql, person, teamspace)
            ended: int = await connection.fetchval(QUERIES["end_sessions_of"].sql, person, teamspace, now)
        return ended
