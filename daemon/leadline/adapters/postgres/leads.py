"""Tables of leads in Postgres: the port `features.tables.ports.LeadStore`.

Reading is done on any connection. Writing happens in work transactions of an attempt (`lead_work`).
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import date
from decimal import Decimal
from typing import Any, Final

import msgspec

from leadline.adapters.postgres.lead_lists import freeze, keep_list
from leadline.adapters.postgres.lead_rows import CELLS, LIFE, QUERIES, table_by_id, table_of, throughput_of
from leadline.adapters.postgres.lead_work import PostgresWork, PostgresWorkAhead
from leadline.adapters.postgres.store import PostgresStore
from leadline.adapters.postgres.tenant_sql import Given, held_against, is_true
from leadline.core.throughput import Point
from leadline.features.tables.columns import Cells
from leadline.features.tables.expressions import Compiled
from leadline.features.tables.ports import (
    ATTACH_FILE,
    ATTACH_LIST,
    DECLARE_COLUMNS,
    MAKE_TABLE,
    Answers,
    BulkOrder,
    CutOff,
    JobList,
    LeadErrors,
    ListReceipt,
    NotDone,
    PlacedOrder,
    Spending,
    Table,
    Work,
    WorkAhead,
)
from leadline.features.tables.reading import RefusedRow, values_of
from leadline_protocol.errors import LeadReason
from leadline_protocol.ids import AccountName, CallId, Instant, JobId, LeadId, TableId

PAGE_ROWS_MAX: Final = 1_000
"""Refused rows, or leads that were not done, in one page."""

PAGE_BYTES_MAX: Final = 1 << 20
"""Their text in one page, but for the one that goes beyond: a page is one line on a socket."""

SETS: Final = frozenset({"formula"})
"""Kinds of job that store results of exceptions only."""

STATEMENTS: Final[Mapping[str, str]] = {
    name: QUERIES[name].sql for name in (DECLARE_COLUMNS, MAKE_TABLE, ATTACH_LIST, ATTACH_FILE)
}
"""What an admission may carry out in its own transaction; given to `PostgresStore`."""


class PostgresLeads:
    """The tables of all teamspaces, in the store's database."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    # -- tables -----------------------------------------------------------------------------------------------------

    async def table(self, teamspace: str, name: str) -> Table | None:
        """A table as it is now."""
        async with self._store.read() as connection:
            row = await connection.fetchrow(QUERIES["table_by_name"].sql, teamspace, name)
        return None if row is None else table_of(row)

    async def table_by_id(self, table: TableId) -> Table:
        """The same by its number."""
        async with self._store.read() as connection:
            return await table_by_id(connection, table)

    async def new_table_id(self) -> TableId:
        """A number for a table that does not exist yet."""
        async with self._store.read() as connection:
            return TableId(await connection.fetchval(QUERIES["new_table_id"].sql))

    async def column_names(self, table: TableId) -> Sequence[str]:
        """The names of a table's columns, those of its key first; none where it is gone, however long ago."""
        async with self._store.read() as connection:
            row = await connection.fetchrow(QUERIES["table_by_id"].sql, table)
        if row is None:
            return ()
        found = table_of(row)
        return list(dict.fromkeys([*found.key_columns, *(column.name for column in found.columns)]))

    async def was_deleted(self, table: TableId) -> bool:
        """Whether there was a table of that number, which is gone."""
        async with self._store.read() as connection:
            return bool(await connection.fetchval(LIFE["was_deleted"].sql, table))

    # -- lists ------------------------------------------------------------------------------------------------------

    async def freeze_now(self, table: Table, where: Compiled | None, first: int | None) -> tuple[JobList, bytes]:
        """Freeze a list before there is a job for it; the hash of its ids goes onto the receipt."""
        async with self._store.write() as connection:
            return await freeze(connection, table, where, first)

    async def rerun_list(self, original: JobId, leads: str) -> tuple[JobList, bytes] | None:
        """A new list of the leads of an ended job: unfinished, failed or all. None where that job has no list."""
        async with self._store.write() as connection:
            known = await connection.fetchrow(QUERIES["list_of"].sql, original)
            if known is None:
                return None
            kind = await connection.fetchval(QUERIES["kind_of"].sql, original)
            wanted = "rerun_of_sets" if kind in SETS else "rerun_of_lead_by_lead"
            return await keep_list(connection, wanted, original, known["list"], leads)

    async def list_of(self, job: JobId) -> JobList | None:
        """The list of a job, where it has been frozen."""
        async with self._store.read() as connection:
            row = await connection.fetchrow(QUERIES["list_of"].sql, job)
        return None if row is None else JobList(row["list"], row["total"])

    async def list_receipts(self, jobs: Sequence[JobId]) -> Mapping[JobId, ListReceipt]:
        """How the lists of these jobs came about; those that have none yet are absent."""
        async with self._store.read() as connection:
            rows = await connection.fetch(QUERIES["list_receipts"].sql, jobs)
        return {
            JobId(row["job"]): ListReceipt(row["total"], row["filter"], row["list_hash"], row["frozen"], row["at"])
            for row in rows
        }

    async def chunk(self, job_list: JobList, chunk: int) -> Sequence[LeadId]:
        """One chunk of a list; empty after the last."""
        async with self._store.read() as connection:
            return await connection.fetchval(QUERIES["chunk"].sql, job_list.list, chunk) or []

    async def unsettled(self, job: JobId, leads: Sequence[LeadId]) -> Sequence[LeadId]:
        """Those of these leads that have no result in the job yet, in the same order."""
        async with self._store.read() as connection:
            rows = await connection.fetch(QUERIES["unsettled"].sql, job, leads)
        return [LeadId(row["lead"]) for row in rows]

    async def leads(self, table: TableId, ids: Sequence[LeadId]) -> Mapping[LeadId, Cells]:
        """These leads as they are now; deleted ones are absent."""
        async with self._store.read() as connection:
            rows = await connection.fetch(QUERIES["leads"].sql, table, ids)
        return {LeadId(row["id"]): CELLS.decode(row["data"]) for row in rows}

    async def lead_texts(self, table: TableId, ids: Sequence[LeadId]) -> Mapping[LeadId, str]:
        """The same as JSON."""
        async with self._store.read() as connection:
            rows = await connection.fetch(QUERIES["leads"].sql, table, ids)
        return {LeadId(row["id"]): row["data"] for row in rows}

    async def matching(self, table: Table, ids: Sequence[LeadId], condition: Compiled) -> frozenset[LeadId]:
        """Those of these leads for which a condition is true."""
        given = Given(condition)
        of_table = f"SELECT id FROM lead WHERE table_id = {given.number(table.id)}"  # noqa: S608  numbers are parameters
        statement = f"{of_table} AND id = ANY ({given.numbers(ids)}) AND {is_true(condition)}"
        async with self._store.read() as connection, connection.transaction(readonly=True):
            with held_against("run_if"):
                rows = await connection.fetch(QUERIES["matching"].sql, statement, given.parameters)
        return frozenset(LeadId(row["lead"]) for row in rows)

    # -- what earlier attempts left ---------------------------------------------------------------------------------

    async def orders(self, job: JobId) -> Mapping[LeadId, PlacedOrder]:
        """What a provider has taken on for leads of the job that have no result yet."""
        async with self._store.read() as connection:
            rows = await connection.fetch(QUERIES["orders"].sql, job)
        return {
            LeadId(row["lead"]): PlacedOrder(row["provider_task"], row["ordered"], AccountName(row["account"]))
            for row in rows
        }

    async def answers(self, job: JobId, leads: Sequence[LeadId]) -> Sequence[Answers]:
        """What accounts have said about these leads in the job, as far as the ledger tells."""
        async with self._store.read() as connection:
            rows = await connection.fetch(QUERIES["answers"].sql, job, leads)
        return [
            Answers(
                LeadId(row["lead"]),
                AccountName(row["account"]),
                row["answer"],
                None if row["reason"] is None else LeadReason(row["reason"]),
            )
            for row in rows
        ]

    async def gone(self, job: JobId) -> Decimal:
        """The credits that a job has spent, or may have: by calls of which nobody knows how they ended."""
        async with self._store.read() as connection:
            return Decimal(await connection.fetchval(QUERIES["gone"].sql, job))

    async def spent(self, job: JobId) -> Sequence[Spending]:
        """What a job, or the steps of a chain, have cost, by account."""
        async with self._store.read() as connection:
            rows = await connection.fetch(QUERIES["spent"].sql, job)
        return [_spending(row) for row in rows]

    async def usage(
        self,
        month: date,
        *,
        by_teamspace: bool,
        by_account: bool,
        teamspace: str | None,
        after: tuple[str, str],
        limit: int,
    ) -> Sequence[Spending]:
        """What a month has cost by teamspace, account or both, in their order; behind those that `after` names."""
        async with self._store.read() as connection:
            rows = await connection.fetch(
                QUERIES["usage"].sql, month, by_teamspace, by_account, teamspace, *after, limit
            )
        return [_spending(row) for row in rows]

    async def errors(self, job: JobId) -> Sequence[LeadErrors]:
        """Why leads of a job, or of the steps of a chain, were not done; of each job the most frequent first."""
        async with self._store.read() as connection:
            rows = await connection.fetch(QUERIES["errors"].sql, job)
        return [
            LeadErrors(
                JobId(row["job"]),
                row["of_file"],
                row["state"],
                LeadReason(row["reason"]),
                row["leads"],
                tuple(zip(row["samples"], row["details"], strict=True)),
            )
            for row in rows
        ]

    async def throughput(self, job: JobId) -> Sequence[Point]:
        """How far a job was at which time, oldest first."""
        async with self._store.read() as connection:
            return (await throughput_of(connection, job)).points

    async def run_of(self, job: JobId) -> JobId:
        """The first of a job and its reruns."""
        async with self._store.read() as connection:
            return JobId(await connection.fetchval(QUERIES["run_of"].sql, job))

    async def paid_elsewhere(self, run: JobId, job: JobId, leads: Sequence[LeadId]) -> frozenset[LeadId]:
        """Those of these leads for which other jobs of the same run have paid and got a result."""
        async with self._store.read() as connection:
            rows = await connection.fetch(QUERIES["paid_elsewhere"].sql, run, job, leads)
        return frozenset(LeadId(row["lead"]) for row in rows)

    async def skipped(self, job: JobId, reason: LeadReason) -> int:
        """How many leads of the job were skipped for this reason."""
        async with self._store.read() as connection:
            return int(await connection.fetchval(QUERIES["skipped"].sql, job, reason))

    async def bulk_orders(self, job: JobId) -> Sequence[BulkOrder]:
        """The orders of the job that have not been delivered in full."""
        async with self._store.read() as connection:
            rows = await connection.fetch(QUERIES["bulk_orders"].sql, job)
        return [
            BulkOrder(
                row["number"], AccountName(row["account"]), tuple(row["leads"]), row["provider_task"], row["ordered"]
            )
            for row in rows
        ]

    async def forget_orders(self, before: Instant) -> None:
        """Drop what jobs that have ended had ordered before then and never fetched."""
        async with self._store.write() as connection:
            await connection.execute(QUERIES["drop_old_bulk_orders"].sql, before)

    async def cut_off(self, job: JobId) -> Sequence[CutOff]:
        """The calls of earlier attempts whose end nobody knows."""
        async with self._store.read() as connection:
            rows = await connection.fetch(QUERIES["cut_off"].sql, job)
        return [
            CutOff(LeadId(row["lead"]), row["cause"], CallId(row["id"]), AccountName(row["account"]), row["open"])
            for row in rows
        ]

    async def checkpoint(self, job: JobId) -> Any:
        """What the last attempt stored with `Work.save`; None where there is nothing."""
        async with self._store.read() as connection:
            text = await connection.fetchval(QUERIES["checkpoint"].sql, job)
        return None if text is None else msgspec.json.decode(text)

    async def upload_file(self, job: JobId) -> tuple[str, str]:
        """The daemon's copy of an uploaded file, and the name it came under."""
        async with self._store.read() as connection:
            row = await connection.fetchrow(QUERIES["upload_file"].sql, job)
        assert row is not None, f"upload {job} was admitted with its file"
        return row["file"], row["original"]

    async def files_of_live_uploads(self) -> frozenset[str]:
        """The daemon's copies that live jobs read, or will."""
        async with self._store.read() as connection:
            return frozenset(row["file"] for row in await connection.fetch(QUERIES["files_of_live_uploads"].sql))

    async def refused(self, job: JobId, after: int) -> Sequence[RefusedRow]:
        """A page of the rows of an upload that were not taken, in their order, from behind row number `after` on."""
        async with self._store.read() as connection:
            rows = await connection.fetch(QUERIES["refused_rows"].sql, job, after, PAGE_ROWS_MAX, PAGE_BYTES_MAX)
        return [
            RefusedRow(row["row_number"], row["line"], LeadReason(row["reason"]), row["detail"], row["raw"])
            for row in rows
        ]

    async def not_done(self, job: JobId, table: TableId, after: int) -> Sequence[NotDone]:
        """A page of the leads that a job on a table is through with and has not done, from behind lead `after` on."""
        async with self._store.read() as connection:
            rows = await connection.fetch(
                QUERIES["leads_not_done"].sql, job, table, after, PAGE_ROWS_MAX, PAGE_BYTES_MAX
            )
        return [
            NotDone(
                LeadId(row["lead"]),
                row["state"],
                None if row["reason"] is None else LeadReason(row["reason"]),
                row["detail"],
                CELLS.decode(row["data"]) if row["data"] else None,
            )
            for row in rows
        ]

    async def headers(self, job: JobId) -> Sequence[str]:
        """The headers of an uploaded file; none before it was surveyed, or where the job is no upload."""
        async with self._store.read() as connection:
            header = await connection.fetchval(QUERIES["header"].sql, job)
        return () if header is None else values_of(header)

    def work(self, job: JobId, number: int) -> AbstractAsyncContextManager[Work]:
        """A work transaction of an attempt. Raises AttemptRetired, Fenced, Unavailable, OutcomeUnknown."""
        return self._work(job, number)

    def work_ahead(self, job: JobId, number: int) -> AbstractAsyncContextManager[WorkAhead]:
        """One that may overlap with the attempt's transaction before. Raises the same."""
        return self._work_ahead(job, number)

    @asynccontextmanager
    async def _work_ahead(self, job: JobId, number: int) -> AsyncIterator["PostgresWorkAhead"]:
        async with self._store.work_ahead(job, number) as (connection, claim):
            yield PostgresWorkAhead(connection, job, number, claim)

    @asynccontextmanager
    async def _work(self, job: JobId, number: int) -> AsyncIterator["PostgresWork"]:
        async with self._store.work(job, number) as connection:
            yield PostgresWork(connection, job, number)


def _spending(row: Any) -> Spending:
    return Spending(row["teamspace"], row["account"], row["calls"], row["credits"], row["perhaps"])
