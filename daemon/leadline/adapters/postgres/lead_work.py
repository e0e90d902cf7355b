"""Work transactions in Postgres: the ports `features.tables.ports.Work` and `WorkAhead`.

Each holds the attempt's row, so that nothing of a killed attempt lands after it was retired. The ids of a whole list do
not travel: it is frozen, and cut into chunks, where it is.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Final

import asyncpg
import msgspec
from msgspec.structs import replace

from leadline.adapters.postgres.lead_lists import freeze
from leadline.adapters.postgres.lead_rows import LIFE, QUERIES, numbers, table_by_id, throughput_of
from leadline.adapters.postgres.pool import Connection
from leadline.adapters.postgres.store import Claim
from leadline.adapters.postgres.tenant_sql import Given, held_against
from leadline.core.model import SECOND, Counts
from leadline.core.throughput import Point, with_point
from leadline.features.tables.columns import Column, encode_cells_of_many
from leadline.features.tables.expressions import Compiled
from leadline.features.tables.ingest import OnDuplicate, ReadyLead
from leadline.features.tables.ports import (
    DECLARE_COLUMNS,
    AnsweredCall,
    BulkOrder,
    Charge,
    JobList,
    Order,
    Passed,
    Result,
    Table,
    columns_json,
)
from leadline.features.tables.reading import RefusedRow, record
from leadline_protocol.errors import LeadReason
from leadline_protocol.ids import AccountName, Instant, JobId, LeadId, TableId

LEADS_PER_BLOCK: Final = 1_024
"""Bits in a row of `lead_done`."""

_ONE: Final = ord("1")

HEADER_CHARACTERS_MAX: Final = 1 << 20
"""How much of a file's header is kept: all of it, as an upload bounds both their number and their length."""

SAMPLES_MAX: Final = 3
"""Leads that are kept as samples of those that ended for the same reason."""


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
        return await table_by_id(self._connection, table)

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
        job_list, digest = await freeze(self._connection, table, where, first, rerun_of)
        await self._connection.execute(
            QUERIES["attach_started_list"].sql, self._job, job_list.list, job_list.total, text, digest
        )
        return job_list

    async def apply(
        self, table: Table, leads: Sequence[LeadId], column: str, value: Compiled
    ) -> Mapping[LeadReason, Sequence[LeadId]]:
        """Write an expression's value into a column of these leads: nearly all of them in one plain UPDATE."""
        given = Given(value)
        table_id, ids, name = given.number(table.id), given.numbers(leads), given.text(column)
        statement = f"""
            WITH written AS (
                UPDATE lead SET data = data || jsonb_build_object({name}, {value.json})
                WHERE table_id = {table_id} AND id = ANY ({ids}) AND ({value.sound})
                AND (NOT data ? {name} OR data -> {name} IS DISTINCT FROM {value.json})
                RETURNING id
            )
            SELECT CASE WHEN count(*) < {len(leads)} THEN coalesce(array_agg(id), '{{}}') END FROM written
            """  # noqa: S608  written anew by the compiler, every literal a parameter
        with held_against("expression"):
            written = await self._connection.fetchval(QUERIES["written"].sql, statement, given.parameters)
        if written is None:
            return {}
        return await self._judge(table, sorted(set(leads).difference(written)), column, value)

    async def _judge(
        self, table: Table, leads: Sequence[LeadId], column: str, value: Compiled
    ) -> Mapping[LeadReason, Sequence[LeadId]]:
        """The same for leads that may fail, be empty, have the value already, or be gone."""
        given = Given(value)
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
        with held_against("expression"):
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
            leads = numbers(lead for _, lead, _ in there)
            cells = "{" + ",".join(f'"{lead}":{data}' for _, lead, data in there) + "}"
            await self._connection.execute(QUERIES["lay_cells"].sql, table.id, leads, cells, on_duplicate == "fill")
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
        course = with_point(await throughput_of(self._connection, self._job), point)
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
        telling = [result for result in results if result.state != "done" or result.reason or result.detail]
        told = {result.lead for result in telling}
        self._done += [result.lead for result in results if result.lead not in told]
        writing = {result.lead: result.cells for result in results if result.cells}
        await self._connection.execute(
            QUERIES["keep_results"].sql,
            self._job,
            self._number,
            [result.lead for result in telling],
            [result.state for result in telling],
            [result.reason or "" for result in telling],
            [result.detail for result in telling],
            table.id,
            numbers(writing),
            encode_cells_of_many(writing).decode(),
        )
        await self._count_errors(
            (result.state, result.reason, result.lead, result.detail) for result in telling if result.state != "done"
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


def _bits(leads: Sequence[LeadId]) -> tuple[Sequence[int], Sequence[asyncpg.BitString]]:
    """The blocks of `lead_done` in which leads have a bit, and of each these bits."""
    blocks: dict[int, bytearray] = {}
    for lead in leads:
        digits = blocks.get(lead >> 10)
        if digits is None:
            digits = blocks[lead >> 10] = bytearray(b"0" * LEADS_PER_BLOCK)
        digits[lead & 1023] = _ONE
    assert sum(digits.count(_ONE) for digits in blocks.values()) == len(leads), "a lead was done twice"
    bits = [int(digits, 2).to_bytes(LEADS_PER_BLOCK // 8, "big") for digits in blocks.values()]
    return [*blocks], [asyncpg.BitString.frombytes(each) for each in bits]
