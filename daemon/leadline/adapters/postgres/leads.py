"""Tables of leads in Postgres: the port `features.tables.ports.LeadStore`.

Reading is done on any connection. Writing happens in work transactions of an attempt, each of which holds the
attempt's row, so that nothing of a killed attempt lands after it was retired. What a tenant wrote, a filter or a
formula, runs as the role leadline_expressions, which can read leads and write their data and reach nothing else, and
the session bounds its time; that is the second wall behind the parser that compiled it.

Ids travel as text, one string of numbers: asyncpg encodes an array of 5,000 integers element by element, a string at
once. The ids of a whole list do not travel at all.
"""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from importlib.resources import files
from typing import Any, Final

import asyncpg
import msgspec
from msgspec.structs import replace

from leadline.adapters.postgres.pool import Connection
from leadline.adapters.postgres.queries import parse
from leadline.adapters.postgres.store import Claim, PostgresStore
from leadline.core.model import SECOND, Counts
from leadline.core.throughput import Point, Throughput, with_point
from leadline.features.tables.columns import Cells, Column, encode_cells_of_many
from leadline.features.tables.expressions import Compiled
from leadline.features.tables.ingest import OnDuplicate, ReadyLead
from leadline.features.tables.ports import (
    ATTACH_FILE,
    ATTACH_LIST,
    DECLARE_COLUMNS,
    MAKE_TABLE,
    AnsweredCall,
    Answers,
    BulkOrder,
    Charge,
    CutOff,
    JobList,
    LeadErrors,
    ListReceipt,
    Order,
    Passed,
    PlacedOrder,
    Result,
    Spending,
    Table,
    Work,
    WorkAhead,
    columns_json,
)
from leadline.features.tables.preview import Tried
from leadline.features.tables.reading import RefusedRow, record, values_of
from leadline_protocol.errors import ErrorCode, LeadReason, Refused
from leadline_protocol.ids import AccountName, CallId, Instant, JobId, LeadId, TableId

CHUNK_LEADS: Final = 5_000
"""Leads in one chunk of a list: what one work transaction takes on at most."""

LEADS_PER_BLOCK: Final = 1_024
"""Bits in a row of `lead_done`."""

REFUSED_ROWS_MAX: Final = 1_000
"""Refused rows in one page."""

HEADER_CHARACTERS_MAX: Final = 1 << 20
"""How much of a file's header is kept: all of it, as an upload bounds both their number and their length."""

REFUSED_BYTES_MAX: Final = 1 << 20
"""Their text in one page, but for the row that goes beyond: a page is one line on a socket."""

SAMPLES_MAX: Final = 3
"""Leads that are kept as samples of those that ended for the same reason."""

SETS: Final = frozenset({"formula"})
"""Kinds of job that store results of exceptions only."""

QUERIES: Final = parse((files(__package__) / "leads.sql").read_text(encoding="utf-8"))

LIFE: Final = parse((files(__package__) / "tables.sql").read_text(encoding="utf-8"))

STATEMENTS: Final[Mapping[str, str]] = {
    name: QUERIES[name].sql for name in (DECLARE_COLUMNS, MAKE_TABLE, ATTACH_LIST, ATTACH_FILE)
}
"""What an admission may carry out in its own transaction; given to `PostgresStore`."""

_COLUMNS: Final = msgspec.json.Decoder(tuple[Column, ...])
_CELLS: Final = msgspec.json.Decoder(dict[str, Any])


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
            return await _table_by_id(connection, table)

    async def new_table_id(self) -> TableId:
        """A number for a table that does not exist yet."""
        async with self._store.read() as connection:
            return TableId(await connection.fetchval(QUERIES["new_table_id"].sql))

    async def was_deleted(self, table: TableId) -> bool:
        """Whether there was a table of that number, which is gone."""
        async with self._store.read() as connection:
            return bool(await connection.fetchval(LIFE["was_deleted"].sql, table))

    # -- lists ------------------------------------------------------------------------------------------------------

    async def freeze_now(self, table: Table, where: Compiled | None, first: int | None) -> tuple[JobList, bytes]:
        """Freeze a list before there is a job for it; the hash of its ids goes onto the receipt."""
        async with self._store.write() as connection:
            return await _freeze(connection, table, where, first)

    async def rerun_list(self, original: JobId, leads: str) -> tuple[JobList, bytes] | None:
        """A new list of the leads of an ended job: unfinished, failed or all. None where that job has no list."""
        async with self._store.write() as connection:
            known = await connection.fetchrow(QUERIES["list_of"].sql, original)
            if known is None:
                return None
            kind = await connection.fetchval(QUERIES["kind_of"].sql, original)
            wanted = "rerun_of_sets" if kind in SETS else "rerun_of_lead_by_lead"
            return await _keep_list(connection, wanted, original, known["list"], leads)

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
        return {LeadId(row["id"]): _CELLS.decode(row["data"]) for row in rows}

    async def lead_texts(self, table: TableId, ids: Sequence[LeadId]) -> Mapping[LeadId, str]:
        """The same as JSON."""
        async with self._store.read() as connection:
            rows = await connection.fetch(QUERIES["leads"].sql, table, ids)
        return {LeadId(row["id"]): row["data"] for row in rows}

    async def matching(self, table: Table, ids: Sequence[LeadId], condition: Compiled) -> frozenset[LeadId]:
        """Those of these leads for which a condition is true."""
        given = _Given(condition)
        of_table = f"SELECT id FROM lead WHERE table_id = {given.number(table.id)}"  # noqa: S608  numbers are parameters
        statement = f"{of_table} AND id = ANY ({given.numbers(ids)}) AND {_true(condition)}"
        async with self._store.read() as connection, connection.transaction(readonly=True):
            with _held_against("run_if"):
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
            return (await _throughput(connection, job)).points

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
            rows = await connection.fetch(QUERIES["refused_rows"].sql, job, after, REFUSED_ROWS_MAX, REFUSED_BYTES_MAX)
        return [
            RefusedRow(row["row_number"], row["line"], LeadReason(row["reason"]), row["detail"], row["raw"])
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


class PostgresWork:
    """One work transaction (`features.tables.ports.Work`)."""

    def __init__(self, connection: Connection, job: JobId, number: int) -> None:
        self._connection = connection
        self._job = job
        self._number = number
        self._done: list[LeadId] = []
        """Stored with the counts, and not before: many share a row, which whoever is ahead must not hold."""

    async def declare(self, table: TableId, columns: Sequence[Column], key: Sequence[str] | None) -> Table:
        """Add the columns that the table lacks; those that it has keep their type. Set its key where it has none."""
        await self._connection.execute(QUERIES[DECLARE_COLUMNS].sql, table, columns_json(columns))
        if key is not None:
            await self._connection.execute(QUERIES["set_key"].sql, table, list(key))
        return await _table_by_id(self._connection, table)

    async def keep_headers(self, headers: Sequence[str]) -> None:
        """Store the headers of the uploaded file."""
        await self._connection.execute(QUERIES["keep_header"].sql, self._job, record(headers, HEADER_CHARACTERS_MAX))

    async def save(self, counts: Counts, activity: str, checkpoint: object) -> None:
        """Store the job's counts and where to go on after a crash."""
        text = None if checkpoint is None else msgspec.json.encode(checkpoint).decode()
        due_at = await self._connection.fetchval(
            QUERIES["save_attempt"].sql,
            self._job,
            counts.total,
            counts.done,
            counts.failed,
            counts.skipped,
            counts.unknown,
            activity,
            text,
            *_bits(self._done),
        )
        self._done.clear()
        if due_at is not None:
            await self._keep_point(Point(due_at, counts.settled))

    async def may_be_redone(self) -> None:
        """Do not wait for the disk when this is committed; see the port."""
        await self._connection.execute("SET LOCAL synchronous_commit = off")

    async def chunks_done(self, chunks: int) -> None:
        """Store how far a job that works on whole sets has got in its list."""
        await self._connection.execute(QUERIES["save_chunks_done"].sql, self._job, chunks)

    async def freeze(
        self, table: Table, where: Compiled | None, text: str | None, first: int | None, rerun_of: JobId | None
    ) -> JobList:
        """Freeze the list of the job, without the leads about which the job that it runs again was answered."""
        job_list, digest = await _freeze(self._connection, table, where, first, rerun_of)
        await self._connection.execute(
            QUERIES["attach_started_list"].sql, self._job, job_list.list, job_list.total, text, digest
        )
        return job_list

    async def apply(
        self, table: Table, leads: Sequence[LeadId], column: str, value: Compiled
    ) -> Mapping[LeadReason, Sequence[LeadId]]:
        """Write an expression's value into a column of these leads: nearly all of them in one plain UPDATE."""
        given = _Given(value)
        table_id, ids, name = given.number(table.id), given.numbers(leads), given.text(column)
        statement = f"""
            WITH written AS (
                UPDATE lead SET data = data || jsonb_build_object({name}, {value.json})
                WHERE table_id = {table_id} AND id = ANY ({ids}) AND {value.sound}
                AND (NOT data ? {name} OR data -> {name} IS DISTINCT FROM {value.json})
                RETURNING id
            )
            SELECT CASE WHEN count(*) < {len(leads)} THEN coalesce(array_agg(id), '{{}}') END FROM written
            """  # noqa: S608  written anew by the compiler, every literal a parameter
        with _held_against("expression"):
            written = await self._connection.fetchval(QUERIES["written"].sql, statement, given.parameters)
        if written is None:
            return {}
        return await self._judge(table, sorted(set(leads).difference(written)), column, value)

    async def _judge(
        self, table: Table, leads: Sequence[LeadId], column: str, value: Compiled
    ) -> Mapping[LeadReason, Sequence[LeadId]]:
        """The same for leads that may fail, be empty, have the value already, or be gone."""
        given = _Given(value)
        table_id, ids, name = given.number(table.id), given.numbers(leads), given.text(column)
        reason = value.fails or "NULL::text"
        statement = f"""
            WITH judged AS MATERIALIZED (
                SELECT lead.table_id, lead.id, ({reason}) AS reason, ({value.json}) AS cell
                FROM lead WHERE lead.table_id = {table_id} AND lead.id = ANY ({ids})
            ), written AS (
                UPDATE lead SET data = CASE WHEN judged.cell IS NULL THEN lead.data - {name}
                    ELSE lead.data || jsonb_build_object({name}, judged.cell) END
                FROM judged WHERE lead.table_id = judged.table_id AND lead.id = judged.id AND judged.reason IS NULL
                AND lead.data -> {name} IS DISTINCT FROM judged.cell
            )
            SELECT reason, count(*) AS leads, array_agg(id) FILTER (WHERE reason IS NOT NULL) AS ids
            FROM judged GROUP BY reason
            """  # noqa: S608  written anew by the compiler, every literal a parameter
        with _held_against("expression"):
            rows = await self._connection.fetch(QUERIES["applied"].sql, statement, given.parameters)
        failed: dict[LeadReason, Sequence[LeadId]] = {
            LeadReason(row["reason"]): row["ids"] for row in rows if row["reason"] is not None
        }
        if sum(row["leads"] for row in rows) < len(leads):
            there = await self._connection.fetch(QUERIES["leads"].sql, table.id, leads)
            present = {row["id"] for row in there}
            failed[LeadReason.DELETED] = [lead for lead in leads if lead not in present]
        results = [
            Result(lead, "skipped" if why is LeadReason.DELETED else "failed", why)
            for why, ids in failed.items()
            for lead in ids
        ]
        if results:
            await self._keep_results(table, results)
        return failed

    async def add(self, table: Table, rows: Sequence[ReadyLead], on_duplicate: OnDuplicate) -> frozenset[int]:
        """Store new rows, no two of one key; do what `on_duplicate` says of those whose key is in the table already."""
        number = await self._connection.fetchval(QUERIES["lock_table"].sql, table.id)
        wanted = [row.key_hash for row in rows if row.key_hash is not None]
        known: dict[bytes, int] = {
            found["key_hash"]: found["lead"]
            for found in await self._connection.fetch(QUERIES["known_keys_of_leads"].sql, table.id, wanted)
        }
        new: list[tuple[int, int, str]] = []
        keys: list[tuple[int, bytes, int]] = []
        there: list[tuple[int, int, str]] = []
        for row in rows:
            lead = known.get(row.key_hash) if row.key_hash is not None else None
            if lead is not None:
                there.append((row.number, lead, row.data))
                continue
            new.append((table.id, number, row.data))
            if row.key_hash is not None:
                keys.append((table.id, row.key_hash, number))
            number += 1
        await self._connection.copy_records_to_table("lead", records=new, columns=("table_id", "id", "data"))
        await self._connection.copy_records_to_table("lead_key", records=keys, columns=("table_id", "key_hash", "lead"))
        await self._connection.execute(QUERIES["advance_table"].sql, table.id, number)
        if new:
            await self._connection.execute(LIFE["note_day"].sql, table.id, new[0][1])
        if there and on_duplicate != "skip":
            leads = _numbers(lead for _, lead, _ in there)
            cells = "{" + ",".join(f'"{lead}":{data}' for _, lead, data in there) + "}"
            await self._connection.execute(QUERIES["write_cells"].sql, table.id, leads, cells, on_duplicate == "fill")
        return frozenset(row for row, _, _ in there)

    async def refuse(self, rows: Sequence[RefusedRow]) -> None:
        """Store rows that are not taken."""
        if rows:
            await self._connection.copy_records_to_table(
                "refused_row",
                records=[(self._job, row.number, row.line, row.reason, row.detail, row.raw) for row in rows],
                columns=("job", "row_number", "line", "reason", "detail", "raw"),
            )
            ends = (("failed", row.reason, row.number, row.detail) for row in rows)
            await self._count_errors(ends, of_file=True)

    async def settle(self, table: Table, results: Sequence[Result]) -> None:
        """Store results, what they write into leads, and that their calls are done."""
        await self._keep_results(table, results)
        calls = [result.call for result in results if result.call is not None]
        if calls:
            await self._calls_are_done(calls)
            leads = tuple(result.lead for result in results)
            await self._connection.execute(QUERIES["orders_are_done"].sql, self._job, leads)

    async def note(self, news: Sequence[Order | Passed]) -> None:
        """Store what accounts have said about leads that have not ended by it, and that their calls are done."""
        last = {each.lead: each for each in news}
        orders = [each for each in last.values() if isinstance(each, Order)]
        if orders:
            await self._connection.execute(
                QUERIES["keep_orders"].sql,
                self._job,
                [order.lead for order in orders],
                [order.provider_task for order in orders],
                [order.ordered for order in orders],
                [order.account for order in orders],
            )
        over = [each.lead for each in last.values() if isinstance(each, Passed) and each.charge.answer == "none"]
        if over:
            await self._connection.execute(QUERIES["orders_are_done"].sql, self._job, over)
        await self._calls_are_done([each.call for each in news if each.call is not None])

    async def owe(self, run: JobId, teamspace: str, charges: Sequence[tuple[LeadId, Charge]]) -> None:
        """Enter charges into the ledger, in this order, and into its sums."""
        entries: dict[tuple[LeadId, AccountName], Charge] = {}
        sums: dict[tuple[date, AccountName], list[Decimal]] = {}
        for lead, charge in charges:
            before = entries.get((lead, charge.account))
            owed = charge.credits if before is None else before.credits + charge.credits
            entries[lead, charge.account] = replace(charge, credits=owed)
            if charge.credits:
                month = datetime.fromtimestamp(charge.at / SECOND, UTC).date().replace(day=1)
                sums.setdefault((month, charge.account), []).append(charge.credits)
        await self._connection.execute(
            QUERIES["keep_charges"].sql,
            self._job,
            run,
            [lead for lead, _ in entries],
            [account for _, account in entries],
            [charge.at for charge in entries.values()],
            [charge.credits for charge in entries.values()],
            [charge.answer for charge in entries.values()],
            [charge.reason or "" for charge in entries.values()],
        )
        if sums:
            await self._connection.execute(
                QUERIES["keep_spending"].sql,
                self._job,
                teamspace,
                [month for month, _ in sums],
                [account for _, account in sums],
                [len(amounts) for amounts in sums.values()],
                [sum(amounts) for amounts in sums.values()],
            )

    async def may_order(self, order: BulkOrder, since: Instant, orders_max: int | None) -> bool:
        """Keep an order that is about to be sent, unless so many others of its account, since then, are kept."""
        if orders_max is not None:
            await self._connection.execute(QUERIES["lock_orders_of"].sql, order.account)
            query = QUERIES["open_bulk_orders"].sql
            if await self._connection.fetchval(query, order.account, since, self._job, order.number) >= orders_max:
                return False
        await self._keep_order(order)
        return True

    async def ordered(self, order: BulkOrder, call: AnsweredCall) -> None:
        """Store that the provider has taken an order on, and that the call which ordered it is done."""
        await self._keep_order(order)
        await self._calls_are_done([call])

    async def delivered(self, numbers: Sequence[int]) -> None:
        """Every lead of these orders has its result, or they were never sent: forget them."""
        await self._connection.execute(QUERIES["drop_bulk_orders"].sql, self._job, numbers)

    async def _keep_point(self, point: Point) -> None:
        course = with_point(await _throughput(self._connection, self._job), point)
        await self._connection.execute(
            QUERIES["keep_throughput"].sql,
            self._job,
            course.due,
            course.seconds,
            [point.at for point in course.points],
            [point.settled for point in course.points],
        )

    async def _keep_order(self, order: BulkOrder) -> None:
        query = QUERIES["keep_bulk_order"].sql
        what = (order.number, order.account, order.leads, order.task, order.ordered)
        await self._connection.execute(query, self._job, *what)

    async def _calls_are_done(self, calls: Sequence[AnsweredCall]) -> None:
        await self._connection.execute(
            QUERIES["calls_are_done"].sql,
            [call.id for call in calls],
            [call.at for call in calls],
            [None if call.cost is None else msgspec.json.encode(call.cost) for call in calls],
        )

    async def _keep_results(self, table: Table, results: Sequence[Result]) -> None:
        plain = [result.lead for result in results if result.state == "done" and not (result.reason or result.detail)]
        others = (
            []
            if len(plain) == len(results)
            else [
                (result.lead, result.state, result.reason or "", result.detail)
                for result in results
                if result.state != "done" or result.reason or result.detail
            ]
        )
        writing = {result.lead: result.cells for result in results if result.cells}
        await self._connection.execute(
            QUERIES["keep_results"].sql,
            self._job,
            self._number,
            *(zip(*others, strict=True) if others else ([], [], [], [])),
            table.id,
            _numbers(writing),
            encode_cells_of_many(writing).decode(),
        )
        self._done += plain
        await self._count_errors(
            (result.state, result.reason, result.lead, result.detail) for result in results if result.state != "done"
        )

    async def _count_errors(
        self, ends: Iterable[tuple[str, LeadReason | None, int, str]], *, of_file: bool = False
    ) -> None:
        """Add leads, or rows of a file, that ended otherwise than done: state, reason, number, detail."""
        groups: dict[tuple[str, LeadReason], list[tuple[int, str]]] = {}
        for state, reason, number, detail in ends:
            assert reason is not None, f"{number} is {state} without a reason"
            groups.setdefault((state, reason), []).append((number, detail))
        if groups:
            rows = [
                (*key, 0 if place else len(group), number, detail)
                for key, group in groups.items()
                for place, (number, detail) in enumerate(group[:SAMPLES_MAX])
            ]
            query = QUERIES["count_errors"].sql
            await self._connection.execute(query, self._job, of_file, *zip(*rows, strict=True), SAMPLES_MAX)


class PostgresWorkAhead(PostgresWork):
    """One that may overlap with the attempt's transaction before (`features.tables.ports.WorkAhead`)."""

    def __init__(self, connection: Connection, job: JobId, number: int, claim: Claim) -> None:
        super().__init__(connection, job, number)
        self._claim = claim

    async def claim(self) -> None:
        """Hold the attempt's row, as every other work transaction does from its beginning."""
        await self._claim()


class PostgresTrial(PostgresLeads):
    """The same for a dry run (`features.tables.preview.Trial`): what a submission would have stored is not."""

    async def new_table_id(self) -> TableId:
        """No number at all: no table is made."""
        return TableId(0)

    async def freeze_now(self, table: Table, where: Compiled | None, first: int | None) -> tuple[JobList, bytes]:
        """How long the list would be."""
        return JobList(0, len(await self.match(table, where, first))), b""

    async def match(self, table: Table, where: Compiled | None, first: int | None) -> Sequence[LeadId]:
        """The leads that a list would hold if it were frozen now."""
        async with self._store.read() as connection, connection.transaction(readonly=True):
            statement, parameters = _selection(table, where, first)
            with _held_against("where"):
                rows = await connection.fetch(QUERIES["matching"].sql, statement, parameters)
        return [LeadId(row["lead"]) for row in rows]

    async def try_formula(
        self, table: Table, leads: Sequence[LeadId], column: str, value: Compiled
    ) -> Mapping[LeadId, Tried]:
        """What a formula would do to these leads: it is done, looked at and taken back."""
        before = await self.leads(table.id, leads)
        tried: dict[LeadId, Tried] = {}
        with suppress(_TakenBack):
            async with self._store.write() as connection:
                failed = await PostgresWork(connection, JobId(0), 0).apply(table, leads, column, value)
                reasons = {lead: reason for reason, ids in failed.items() for lead in ids}
                for row in await connection.fetch(QUERIES["leads"].sql, table.id, leads):
                    lead = LeadId(row["id"])
                    after = _CELLS.decode(row["data"]).get(column)
                    tried[lead] = Tried(before.get(lead, {}).get(column), after, reasons.get(lead))
                raise _TakenBack
        return tried


class _TakenBack(Exception):
    """Ends a transaction without effect."""


async def _table_by_id(connection: Connection, table: TableId) -> Table:
    row = await connection.fetchrow(QUERIES["table_by_id"].sql, table)
    assert row is not None, f"table {table} was there when its job was admitted"
    return table_of(row)


async def _throughput(connection: Connection, job: JobId) -> Throughput:
    row = await connection.fetchrow(QUERIES["throughput"].sql, job)
    if row is None:
        return Throughput()
    return Throughput(row["seconds"], tuple(map(Point, row["at"], row["settled"])))


def _spending(row: Any) -> Spending:
    return Spending(row["teamspace"], row["account"], row["calls"], row["credits"], row["perhaps"])


def table_of(row: Any) -> Table:
    """A table from its row."""
    return Table(
        TableId(row["id"]),
        row["teamspace"],
        row["name"],
        _COLUMNS.decode(row["columns"]),
        tuple(row["key_columns"]),
        row["created"],
        row["uploading"],
    )


def _true(condition: Compiled) -> str:
    """SQL that is true where the condition is."""
    return f"({condition.value})" if condition.true_is_sound else f"({condition.value}) AND ({condition.fails}) IS NULL"


class _Given:
    """The parameters of a statement with a compiled expression in it.

    Everything travels in one array of texts because a function takes a fixed number of arguments. The statement is
    planned anew each time, so that Postgres takes them for constants and folds them.
    """

    def __init__(self, expression: Compiled | None) -> None:
        self.parameters: Final = list(expression.parameters) if expression is not None else []

    def text(self, value: str) -> str:
        """SQL that reads one more parameter."""
        self.parameters.append(value)
        return f"($1)[{len(self.parameters)}]"

    def number(self, value: int) -> str:
        """SQL that reads one more, a number."""
        return f"{self.text(str(value))}::bigint"

    def numbers(self, values: Sequence[int]) -> str:
        """SQL that reads one more, an array of numbers."""
        return f"string_to_array({self.text(_numbers(values))}, ',')::bigint[]"


def _numbers(values: Iterable[int]) -> str:
    return ",".join(map(str, values))


def _bits(leads: Iterable[LeadId]) -> tuple[Sequence[int], Sequence[asyncpg.BitString]]:
    """The blocks of `lead_done` in which leads have a bit, and of each these bits."""
    blocks: dict[int, bytearray] = {}
    for lead in leads:
        bits = blocks.get(lead >> 10)
        if bits is None:
            bits = blocks[lead >> 10] = bytearray(LEADS_PER_BLOCK // 8)
        bits[lead >> 3 & 127] |= 128 >> (lead & 7)
    return [*blocks], [asyncpg.BitString.frombytes(bytes(bits)) for bits in blocks.values()]


@contextmanager
def _held_against(field: str) -> Iterator[None]:
    """What takes too long is the expression's fault, and not the database's: to try again would change nothing."""
    try:
        yield
    except asyncpg.QueryCanceledError as error:
        raise Refused(ErrorCode.BAD_EXPRESSION, f"given up by the database: {error}", at=field) from error


def _selection(table: Table, where: Compiled | None, first: int | None) -> tuple[str, Sequence[str]]:
    """The statement of the leads that match now, in their order, and its parameters."""
    given = _Given(where)
    statement = f"SELECT id FROM lead WHERE table_id = {given.number(table.id)}"  # noqa: S608  numbers are parameters
    if where is not None:
        statement += f" AND {_true(where)}"
    statement += " ORDER BY id"
    if first is not None:
        statement += f" LIMIT {given.number(first)}"
    return statement, given.parameters


async def _freeze(
    connection: Connection, table: Table, where: Compiled | None, first: int | None, rerun_of: JobId | None = None
) -> tuple[JobList, bytes]:
    """Freeze the leads that match now; with the hash of their ids."""
    selection, parameters = _selection(table, where, first)
    statement = f"SELECT array_agg(id) FROM ({selection}) AS chosen"  # noqa: S608  put together there
    with _held_against("where"):
        if rerun_of is None:
            return await _keep_list(connection, "matching_leads", statement, parameters)
        return await _keep_list(connection, "unanswered_leads", statement, parameters, rerun_of)


async def _keep_list(connection: Connection, wanted: str, *arguments: object) -> tuple[JobList, bytes]:
    """Freeze the leads that a query gives; with the hash of their ids."""
    number = await connection.fetchval(QUERIES["new_list"].sql)
    query = QUERIES["keep_list"].sql.format(wanted=QUERIES[wanted].sql)
    kept = await connection.fetchrow(query, number, CHUNK_LEADS, *arguments)
    assert kept is not None, "an aggregate has one row"
    return JobList(number, kept["total"]), kept["list_hash"]
