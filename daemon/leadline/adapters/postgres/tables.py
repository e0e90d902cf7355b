"""The life of tables in Postgres: the port `features.tables.life.TableStore`.

Each step of the sweeper is a fenced transaction of its own, of at most some thousand rows.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from leadline.adapters.postgres.lead_rows import LIFE as QUERIES
from leadline.adapters.postgres.lead_rows import table_of
from leadline.adapters.postgres.store import PostgresStore
from leadline.features.tables.columns import Column
from leadline.features.tables.life import Listed, Outlived, Remains, Sample
from leadline.features.tables.ports import columns_json
from leadline_protocol.ids import Instant, JobId, LeadId, TableId

_FILLED: Final = msgspec.json.Decoder(dict[str, int])


class PostgresTables:
    """The tables of all teamspaces. Raises Fenced, Unavailable and OutcomeUnknown as the store does."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    async def page(
        self, teamspace: str | None, table: str | None, after: tuple[str, str] | None, limit: int
    ) -> Sequence[Listed]:
        """Tables by teamspace and name, from behind `after` on."""
        async with self._store.read() as connection:
            sql = QUERIES["page_of_tables"].sql
            rows = await connection.fetch(sql, teamspace, table, *(after or (None, None)), limit)
        return [Listed(table_of(row), row["leads"], row["jobs"], row["retention_days"]) for row in rows]

    async def create(self, teamspace: str, name: str, columns: Sequence[Column], key: Sequence[str]) -> bool:
        """Make a table, unless there is one of that name."""
        async with self._store.write() as connection:
            sql = QUERIES["create_table"].sql
            return await connection.fetchval(sql, teamspace, name, columns_json(columns), list(key)) is not None

    async def retain(self, table: TableId, days: int | None) -> None:
        """Set how long its leads stay."""
        async with self._store.write() as connection:
            await connection.execute(QUERIES["set_retention"].sql, table, days)

    async def delete(self, table: TableId) -> bool:
        """Move a table to the deleted ones, unless a job on it is live."""
        async with self._store.write() as connection:
            return await connection.fetchval(QUERIES["delete_table"].sql, table) is not None

    async def sample(self, table: TableId, leads: int) -> Sample:
        """Look at so many of its leads."""
        async with self._store.read() as connection:
            row = await connection.fetchrow(QUERIES["sample"].sql, table, leads)
        assert row is not None
        return Sample(row["leads"], int(row["bytes"]), _FILLED.decode(row["filled"]))

    async def deleted(self) -> Sequence[Outlived]:
        """The deleted tables whose leads have not all gone."""
        async with self._store.read() as connection:
            rows = await connection.fetch(QUERIES["tables_to_sweep"].sql)
        return [Outlived(TableId(row["id"]), LeadId(row["first_lead"]), LeadId(row["next_lead"])) for row in rows]

    async def retentions(self, after: TableId, limit: int) -> Sequence[tuple[TableId, str, int | None]]:
        """A page of the tables that have leads: number, teamspace, and what the table itself says of retention."""
        async with self._store.read() as connection:
            rows = await connection.fetch(QUERIES["tables_with_retention"].sql, after, limit)
        return [(TableId(row["id"]), row["teamspace"], row["retention_days"]) for row in rows]

    async def outlived(self, days: Mapping[TableId, int]) -> Sequence[Outlived]:
        """Of these tables the leads that are older than so many days."""
        async with self._store.read() as connection:
            rows = await connection.fetch(QUERIES["outlived"].sql, list(days), list(days.values()))
        return [
            Outlived(TableId(row["id"]), LeadId(row["first_lead"]), LeadId(row["kept_from"]), row["days"])
            for row in rows
        ]

    async def sweep_keys(self, what: Outlived, after: bytes, limit: int) -> bytes | None:
        """Remove, of the next so many keys of the table, those of leads that go; returns the last one looked at."""
        async with self._store.write() as connection:
            found: bytes | None = await connection.fetchval(
                QUERIES["sweep_keys"].sql, what.table, after, what.end, limit
            )
        return found

    async def sweep_leads(self, what: Outlived, first: LeadId, end: LeadId) -> None:
        """Remove the leads from `first` to below `end`, of which there are none below `first`."""
        async with self._store.write() as connection:
            await connection.execute(QUERIES["sweep_leads"].sql, what.table, first, end)
            await connection.execute(QUERIES["begin_at"].sql, what.table, end)

    async def remains(self, after: JobId, limit: int) -> Sequence[Remains]:
        """A page of the ended jobs of which there is a list, results, refused rows or throughput."""
        async with self._store.read() as connection:
            rows = await connection.fetch(QUERIES["jobs_with_remains"].sql, after, limit)
        return [
            Remains(
                JobId(row["job"]),
                row["live"],
                None if row["ended"] is None else Instant(row["ended"]),
                row["teamspace"],
                0 if row["of_deleted"] else row["retention_days"],
            )
            for row in rows
        ]

    async def sweep_remains(self, job: JobId, rows: int, chunks: int, *, everything: bool) -> bool:
        """Remove so many refused rows of a job, and results and chunks of its list too; whether there may be more."""
        async with self._store.write() as connection:
            more: bool = await connection.fetchval(QUERIES["sweep_refused"].sql, job, rows)
            if everything:
                more |= await connection.fetchval(QUERIES["sweep_results"].sql, job, rows)
                more |= await connection.fetchval(QUERIES["sweep_charges"].sql, job, rows)
                more |= await connection.fetchval(QUERIES["sweep_list"].sql, job, chunks)
                if not more:
                    await connection.execute(QUERIES["forget_list"].sql, job)
                    await connection.execute(QUERIES["forget_throughput"].sql, job)
            await connection.execute(QUERIES["forget_errors"].sql, job, everything)
        return more

    async def swept(self, what: Outlived) -> None:
        """All of it is gone."""
        async with self._store.write() as connection:
            await connection.execute(QUERIES["sweep_days"].sql, what.table, what.days)
            if what.days is None:
                await connection.execute(QUERIES["is_swept"].sql, what.table)

    async def forget(self, before: Instant) -> None:
        """Drop what is kept of tables that were deleted before that."""
        async with self._store.write() as connection:
            await connection.execute(QUERIES["forget_deleted"].sql, before / 1_000_000)
