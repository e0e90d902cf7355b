"""How leads are written: each found by its key, once, and alongside others who write into them."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from leadline.adapters.postgres.lead_work import PostgresWork
from leadline.adapters.postgres.pool import Connection
from leadline.adapters.postgres.store import PostgresStore
from leadline.features.tables.columns import Column, ColumnType
from leadline.features.tables.expressions import compile_expression
from leadline.features.tables.ingest import ReadyLead
from leadline.features.tables.ports import Result, Table
from leadline.ports.store import Contended
from leadline_protocol.errors import LeadReason
from leadline_protocol.ids import JobId, LeadId, TableId
from tests.contracts.stores import KINDS
from tests.postgres import meddle


@pytest.fixture
async def store(database: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(database)
    await store.take_over(owner="first", kinds=KINDS)
    yield store
    await store.close()


@pytest.mark.parametrize("leads", [500, 5_000, 50_000])
@pytest.mark.parametrize("wide", [10, 500])
async def test_leads_are_written_by_key_in_a_table_that_nobody_has_counted(
    store: PostgresStore, database: str, leads: int, wide: int
) -> None:
    """Left to itself, the planner takes it for small and reads all its leads, however few are written."""
    async with meddle(database) as connection:
        await connection.execute(
            """
            INSERT INTO lead SELECT 1, i, jsonb_build_object('email', 'lead' || i || '@example.com')
            FROM generate_series(1, $1) AS i
            """,
            leads,
        )
    people = Table(TableId(1), "acme", "people", (), (), datetime.now(UTC))
    value = compile_expression("1 + 1", {}, field="expression")
    ids = [LeadId(number) for number in range(1, wide + 1)]
    again = [ReadyLead(number, number.to_bytes(16), '{"b": 2}') for number in ids]

    async with store.write() as connection:
        await connection.executemany("INSERT INTO lead_key VALUES (1, $1, $2)", [(n.to_bytes(16), n) for n in ids])
        work = PostgresWork(connection, JobId(7), 1)
        for write in (
            work.settle(people, [Result(lead, "done", cells={"a": 1}) for lead in ids]),
            work.apply(people, ids, "a", value),
            work.add(people, again, "update"),
        ):
            before = await _leads_looked_up(connection)
            await write
            assert await _leads_looked_up(connection) - before <= wide


async def _leads_looked_up(connection: Connection) -> int:
    of_leads = "SELECT sum(idx_tup_fetch + seq_tup_read) FROM pg_stat_xact_user_tables WHERE relname LIKE 'lead\\__'"
    return int(await connection.fetchval(of_leads))


async def test_a_formula_over_its_own_column_is_applied_once_whatever_becomes_of_the_other_leads(
    store: PostgresStore, database: str
) -> None:
    n = Column("n", ColumnType.NUMBER)
    people = Table(TableId(1), "acme", "people", (n,), (), datetime.now(UTC))
    value = compile_expression("case when n < 100 then n + 1 end", {"n": ColumnType.NUMBER}, field="expression")
    before: list[object] = [1, 2, "many", None, 500, 41]
    async with meddle(database) as connection:
        for number, cell in enumerate(before, 1):
            await connection.execute("INSERT INTO lead VALUES (1, $1, $2)", number, json.dumps({"n": cell}))
        async with store.write() as writing:
            ids = [LeadId(number) for number in range(1, 8)]
            failed = await PostgresWork(writing, JobId(7), 1).apply(people, ids, "n", value)
        cells = await connection.fetch("SELECT data -> 'n' AS cell FROM lead ORDER BY id")
    assert failed == {LeadReason.BAD_CAST: [3], LeadReason.DELETED: [7]}
    assert [row["cell"] for row in cells] == ["2", "3", '"many"', None, None, "42"]


async def test_of_two_formulas_that_wait_for_each_other_one_is_told_that_it_was_taken_back(
    store: PostgresStore, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each writes one lead at once and empties the other then, the other way round."""
    people = Table(TableId(1), "acme", "people", (), (), datetime.now(UTC))
    both_wrote = asyncio.Barrier(2)
    judge = PostgresWork._judge

    async def judge_together(*arguments: Any) -> Any:
        await both_wrote.wait()
        return await judge(*arguments)

    monkeypatch.setattr(PostgresWork, "_judge", judge_together)

    async def fill(column: str, expression: str) -> str:
        value = compile_expression(expression, dict.fromkeys("mnxy", ColumnType.NUMBER), field="expression")
        try:
            async with store.write() as connection:
                await PostgresWork(connection, JobId(0), 0).apply(people, [LeadId(1), LeadId(2)], column, value)
        except Contended:
            return "taken back"
        return "written"

    async with meddle(database) as connection:
        await connection.execute("""INSERT INTO lead VALUES (1, 1, '{"m": 1, "x": 5}'), (1, 2, '{"n": 1, "y": 7}')""")
        ends = await asyncio.gather(fill("x", "n + 0"), fill("y", "m + 0"))
    assert sorted(ends) == ["taken back", "written"]


async def test_a_formula_writes_into_a_lead_that_somebody_else_was_writing_into(
    store: PostgresStore, database: str
) -> None:
    """By its key, and not by its place in the table: that is another one when the other has written."""
    people = Table(TableId(1), "acme", "people", (), (), datetime.now(UTC))
    value = compile_expression("1 + 1", {}, field="expression")

    async def fill() -> None:
        async with store.write() as connection:
            await PostgresWork(connection, JobId(0), 0).apply(people, [LeadId(1)], "a", value)

    async with meddle(database) as connection:
        await connection.execute("INSERT INTO lead VALUES (1, 1, '{}')")
        async with store.write() as other:
            await other.execute("UPDATE lead SET data = data || '{\"b\": 3}' WHERE table_id = 1")
            filling = asyncio.create_task(fill())
            while not await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                await asyncio.sleep(0.01)
        await filling
        assert json.loads(await connection.fetchval("SELECT data FROM lead")) == {"a": 2, "b": 3}
