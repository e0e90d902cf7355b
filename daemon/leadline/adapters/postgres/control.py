"""Overrides, the audit trail, and who submitted what, in Postgres.

All is written in fenced transactions of its own: a daemon that was replaced changes nothing, and records nothing, any
more.
"""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Final

import msgspec

from leadline.adapters.postgres.pool import Connection
from leadline.adapters.postgres.queries import parse
from leadline.adapters.postgres.store import PostgresStore
from leadline.ports.control import Act, Override, Scope
from leadline_protocol.ids import Instant, JobId

QUERIES: Final = parse((files(__package__) / "control.sql").read_text(encoding="utf-8"))


class PostgresControl:
    """What was set live, and who did what. Raises Fenced, Unavailable and OutcomeUnknown as the store does."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    async def overrides(self) -> Sequence[Override]:
        """All that is set live."""
        async with self._store.read() as connection:
            rows = await connection.fetch(QUERIES["overrides"].sql)
        return [Override(row["scope"], row["name"], row["key"], msgspec.json.decode(row["value"])) for row in rows]

    async def override(self, scope: Scope, name: str, key: str, value: object, act: Act) -> None:
        """Set a limit, or take back what was set (None), and record who did, both or neither."""
        async with self._store.write() as connection:
            if value is None:
                await connection.execute(QUERIES["take_override_back"].sql, scope, name, key)
            else:
                text = msgspec.json.encode(value).decode()
                await connection.execute(QUERIES["set_override"].sql, scope, name, key, text, act.uid, act.at)
            await _record(connection, act)

    async def record(self, act: Act) -> None:
        """Write down what is about to be done."""
        async with self._store.write() as connection:
            await _record(connection, act)

    async def acts(self, target: str) -> Sequence[Act]:
        """What was done to something, oldest first."""
        async with self._store.read() as connection:
            rows = await connection.fetch(QUERIES["acts"].sql, target)
        return [Act(Instant(row["at"]), *tuple(row)[1:]) for row in rows]

    async def submitters(self, jobs: Sequence[JobId]) -> Mapping[JobId, int | None]:
        """Who submitted these jobs; what is no ended job is absent."""
        async with self._store.read() as connection:
            rows = await connection.fetch(QUERIES["submitters"].sql, jobs)
        return {JobId(row["id"]): row["uid"] for row in rows}

    async def forget(self, before: Instant) -> None:
        """Drop acts older than that."""
        async with self._store.write() as connection:
            await connection.execute(QUERIES["drop_old_acts"].sql, before)


async def _record(connection: Connection, act: Act) -> None:
    await connection.execute(
        QUERIES["record_act"].sql, act.at, act.uid, act.pid, act.person, act.role, act.op, act.target, act.detail
    )
