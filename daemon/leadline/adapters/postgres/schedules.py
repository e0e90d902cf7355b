"""Schedules in Postgres: the port `ports.schedules.ScheduleStore`."""

from collections.abc import Sequence
from importlib.resources import files
from typing import Any, Final

import msgspec

from leadline.adapters.postgres.queries import parse
from leadline.adapters.postgres.store import PostgresStore
from leadline.ports.schedules import FIRE, NewSchedule, ScheduleId, StoredOccurrence, StoredSchedule
from leadline_protocol.ids import Instant, JobId
from leadline_protocol.schedules import Schedule

QUERIES: Final = parse((files(__package__) / "schedules.sql").read_text(encoding="utf-8"))

STATEMENTS: Final = {FIRE: QUERIES[FIRE].sql}
"""By which an admission says for which time it is."""

_TIMETABLE: Final = msgspec.json.Decoder(Schedule)


class PostgresSchedules:
    """Schedules as stored."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    async def active(self, name: tuple[str, str] | None = None) -> Sequence[StoredSchedule]:
        """Those that are not paused, or the one of that teamspace and name; with the last job that each submitted."""
        async with self._store.read() as connection:
            rows = await connection.fetch(QUERIES["active_schedules"].sql, *(name or (None, None)))
        return [_schedule(row) for row in rows]

    async def page(
        self, teamspace: str | None, name: str | None, after: tuple[str, str] | None, limit: int
    ) -> Sequence[StoredSchedule]:
        """Schedules by teamspace and name, from behind `after` on."""
        async with self._store.read() as connection:
            sql = QUERIES["page_of_schedules"].sql
            rows = await connection.fetch(sql, teamspace, name, *(after or (None, None)), limit)
        return [_schedule(row) for row in rows]

    async def add(self, new: NewSchedule, since: Instant) -> bool:
        """Store one that is in force from now on, unless there is one of that name."""
        async with self._store.write() as connection:
            stored = await connection.fetchval(
                QUERIES["add_schedule"].sql,
                new.teamspace,
                new.name,
                msgspec.json.encode(new.timetable).decode(),
                new.submission.decode(),
                new.missed,
                new.overlap,
                since,
                new.uid,
            )
        return stored is not None

    async def pause(self, teamspace: str, name: str) -> bool:
        """Have one fire no more for now; False where there is none."""
        return await self._change("pause_schedule", teamspace, name)

    async def resume(self, teamspace: str, name: str, since: Instant) -> bool:
        """Have one fire again, from now on; False where there is none."""
        return await self._change("resume_schedule", teamspace, name, since)

    async def delete(self, teamspace: str, name: str) -> bool:
        """Drop one with its history; False where there is none."""
        return await self._change("delete_schedule", teamspace, name)

    async def skip(self, schedule: ScheduleId, skipped: Sequence[StoredOccurrence]) -> None:
        """Store that nothing was submitted at these times."""
        async with self._store.write() as connection:
            await connection.execute(
                QUERIES["skip_occurrences"].sql,
                schedule,
                [each.at for each in skipped],
                [each.verdict for each in skipped],
                [each.message.replace("\0", "\ufffd") for each in skipped],
            )

    async def occurrences(self, schedule: ScheduleId, limit: int) -> Sequence[StoredOccurrence]:
        """The newest times that were decided, newest first."""
        async with self._store.read() as connection:
            rows = await connection.fetch(QUERIES["occurrences"].sql, schedule, limit)
        return [StoredOccurrence(Instant(row["at"]), row["verdict"], _job(row), row["message"] or "") for row in rows]

    async def forget(self, before: Instant) -> None:
        """Drop what became of older times."""
        async with self._store.write() as connection:
            await connection.execute(QUERIES["drop_old_occurrences"].sql, before)

    async def _change(self, query: str, *arguments: object) -> bool:
        async with self._store.write() as connection:
            return await connection.fetchval(QUERIES[query].sql, *arguments) is not None


def _schedule(row: Any) -> StoredSchedule:
    return StoredSchedule(
        ScheduleId(row["id"]),
        row["teamspace"],
        row["name"],
        _TIMETABLE.decode(row["timetable"]),
        row["submission"].encode(),
        row["missed"],
        row["overlap"],
        row["paused"],
        Instant(row["decided"]),
        row["uid"],
        row["created"],
        _job(row),
    )


def _job(row: Any) -> JobId | None:
    return None if row["job"] is None else JobId(row["job"])
