"""The outbox in Postgres (`ports.notices.Outbox`): all but the writing of notices, which is part of decisions."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from leadline.adapters.postgres.queries import NOTICES
from leadline.adapters.postgres.store import PostgresStore
from leadline.ports.notices import WISH_NOTICE, Letter, Notice, NoticeState, StoredNotice
from leadline_protocol.ids import JobId

STATEMENTS: Final = {WISH_NOTICE: NOTICES[WISH_NOTICE].sql}
"""By which an admission says whom to tell."""


class PostgresNotices:
    """Notices as stored."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    async def recover(self, in_hand: Collection[UUID]) -> None:
        """See to what somebody was sending who is not there any more; see the port."""
        async with self._store.write() as connection:
            await connection.execute(NOTICES["recover_webhooks"].sql, list(in_hand))
            await connection.execute(NOTICES["recover_mails"].sql, list(in_hand))

    async def due(self, limit: int, in_hand: Collection[UUID]) -> Sequence[Notice]:
        """What is to be sent now."""
        async with self._store.read() as connection:
            rows = await connection.fetch(NOTICES["due_notices"].sql, limit, list(in_hand))
        return [_notice(row) for row in rows]

    async def next_due(self, in_hand: Collection[UUID]) -> float | None:
        """Seconds until something is to be sent."""
        async with self._store.read() as connection:
            seconds: float | None = await connection.fetchval(NOTICES["next_due"].sql, list(in_hand))
        return seconds

    async def begin(self, notice: UUID) -> bool:
        """Store that it is being sent."""
        async with self._store.write() as connection:
            return bool((await connection.execute(NOTICES["begin_notice"].sql, notice)).endswith(" 1"))

    async def end(self, notice: UUID, state: NoticeState, again_seconds: float, detail: str) -> None:
        """Store what became of it."""
        text = detail.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
        async with self._store.write() as connection:
            await connection.execute(NOTICES["end_notice"].sql, notice, state, again_seconds, text)

    async def again(self, notice: UUID) -> bool:
        """A person wants it sent once more; False where it was neither given up nor held."""
        async with self._store.write() as connection:
            return bool((await connection.execute(NOTICES["send_again"].sql, notice)).endswith(" 1"))

    async def notices(
        self, *, job: JobId | None, teamspace: str | None, states: Sequence[NoticeState], limit: int
    ) -> Sequence[StoredNotice]:
        """Notices, newest first."""
        async with self._store.read() as connection:
            rows = await connection.fetch(NOTICES["notices"].sql, job, teamspace, list(states), limit)
        return [StoredNotice(**{**row, "id": UUID(bytes=row["id"].bytes)}) for row in rows]

    async def undelivered(self) -> int:
        """How many were given up, or are held."""
        async with self._store.read() as connection:
            count: int = await connection.fetchval(NOTICES["undelivered"].sql)
        return count

    async def forget(self, before: datetime) -> None:
        """Drop notices that are older."""
        async with self._store.write() as connection:
            await connection.execute(NOTICES["drop_old_notices"].sql, before)


def _notice(row: Any) -> Notice:
    letter = None if row["subject"] is None else Letter(row["subject"], row["body"], row["html"])
    return Notice(
        UUID(bytes=row["id"].bytes),
        JobId(row["job"]),
        row["teamspace"],
        row["event"],
        row["medium"],
        row["target"],
        row["tries"],
        row["made"],
        letter,
    )
