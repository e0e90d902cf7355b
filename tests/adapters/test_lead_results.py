"""What the database keeps of how leads have ended: who is asked about again, and that nobody ends twice."""

import random
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final

import asyncpg
import pytest

from leadline.adapters.postgres.lead_lists import freeze, keep_list
from leadline.adapters.postgres.lead_rows import LIFE, QUERIES
from leadline.adapters.postgres.leads import PostgresLeads
from leadline.adapters.postgres.pool import Connection
from leadline.adapters.postgres.store import PostgresStore
from leadline.core.effects import Records
from leadline.core.model import Counts
from leadline.features.tables.ports import Result, Table
from leadline_protocol.errors import LeadReason
from leadline_protocol.ids import JobId, LeadId, TableId
from tests.contracts.stores import ENRICH, KINDS, NAMES, admission, row, start, submission, together
from tests.postgres import meddle

JOB, RERUN = JobId(1), JobId(2)
PEOPLE: Final = Table(TableId(1), "acme", "people", (), (), datetime.now(UTC))

NUMBERS: Final = [*range(1, 60), *range(1_000, 1_050), *range(2_040, 2_056), 4_095, 4_096, 10**12 - 1, 10**12]
"""Leads at the borders of what shares a row, and far from each other."""

DONE: Final = Result(LeadId(0), "done")
FOUND_LATE: Final = Result(LeadId(0), "done", detail="by the second provider")
ENDS: Final = [
    DONE,
    DONE,
    FOUND_LATE,
    Result(LeadId(0), "failed", LeadReason.SERVER_ERROR),
    Result(LeadId(0), "unknown", LeadReason.UNKNOWN_OUTCOME),
    Result(LeadId(0), "skipped", LeadReason.NOT_FOUND),
    Result(LeadId(0), "skipped", LeadReason.RUN_IF),
    Result(LeadId(0), "skipped", LeadReason.SPEND_CAP),
]


@pytest.fixture
async def store(database: str) -> AsyncIterator[PostgresStore]:
    async with meddle(database) as connection:
        await connection.execute("INSERT INTO lead SELECT 1, unnest($1::bigint[]), '{}'", NUMBERS)
    store = PostgresStore(database)
    await store.take_over(owner="first", kinds=KINDS)
    await store.commit(Records(teamspaces=list(NAMES.items())))
    await store.commit(together(admission(row(JOB, submission(ENRICH))), start(JOB)))
    yield store
    await store.close()


async def settle(store: PostgresStore, results: Sequence[Result]) -> None:
    async with PostgresLeads(store).work(JOB, 1) as work:
        await work.settle(PEOPLE, results)
        await work.save(Counts(), "", None)


async def kept(leads: PostgresLeads, wanted: str) -> set[int]:
    """The leads of a list that runs the job again."""
    frozen = await leads.rerun_list(JOB, wanted)
    assert frozen is not None
    return set(await leads.chunk(frozen[0], 0))


@pytest.mark.parametrize("seed", range(5))
async def test_what_has_no_result_is_due_and_a_rerun_takes_what_its_results_say(
    store: PostgresStore, seed: int
) -> None:
    chance = random.Random(seed)
    leads = PostgresLeads(store)
    async with leads.work(JOB, 1) as work:
        await work.freeze(PEOPLE, None, None, None, None)
    ended: dict[int, Result] = {}
    for _ in range(6):
        due = [number for number in NUMBERS if number not in ended]
        batch = chance.sample(due, min(len(due), chance.randrange(40)))
        results = [of(chance.choice(ENDS), LeadId(number)) for number in batch]
        await settle(store, results)
        ended |= {result.lead: result for result in results}

    def those(*states: str) -> set[int]:
        return {number for number, result in ended.items() if result.state in states}

    due = [LeadId(number) for number in NUMBERS if number not in ended]
    asked = [LeadId(number) for number in chance.sample(NUMBERS, len(NUMBERS))]
    assert await leads.unsettled(JOB, asked) == [number for number in asked if number not in ended]
    capped = {number for number, result in ended.items() if result.reason is LeadReason.SPEND_CAP}
    assert await kept(leads, "all") == set(NUMBERS)
    assert await kept(leads, "failed") == those("failed", "unknown")
    assert await kept(leads, "unfinished") == {*due, *those("failed", "unknown"), *capped}

    await store.commit(together(admission(row(RERUN, submission(ENRICH))), start(RERUN, slot=1)))
    async with leads.work(RERUN, 1) as work:
        left = await work.freeze(PEOPLE, None, None, None, JOB)
    not_asked = {number for number, result in ended.items() if result.reason is LeadReason.RUN_IF}
    assert set(await leads.chunk(left, 0)) == {*due, *those("failed", "unknown"), *not_asked}


@pytest.mark.parametrize("first", [DONE, ENDS[3]], ids=["done", "failed"])
async def test_a_second_result_of_the_same_kind_cannot_be_stored_and_nothing_that_came_with_it_is(
    store: PostgresStore, first: Result
) -> None:
    await settle(store, [of(first, LeadId(7))])
    with pytest.raises(asyncpg.UniqueViolationError):
        await settle(store, [of(first, LeadId(number)) for number in (6, 7, 8)])
    everybody = [LeadId(number) for number in NUMBERS]
    assert await PostgresLeads(store).unsettled(JOB, everybody) == [lead for lead in everybody if lead != 7]


SMALL_JOBS: Final = 20_000
BLOCKS: Final = 500


async def test_leads_are_looked_up_by_the_whole_key_where_nearly_all_jobs_have_few(
    store: PostgresStore, database: str
) -> None:
    """Half a key seems enough to the planner there, and reads for each lead all that a large job has stored."""
    async with meddle(database) as connection:
        for table, values in (
            ("lead_done", "0, ~(0::bit(1024))"),
            ("lead_result", "1, 'failed', 'server_error', NULL, 1"),
            ("charge", "1, number, 1, 1, 'hunter', 'result', NULL"),
            ("refused_row", "1, 1, 'missing_key', '', ''"),
        ):
            await connection.execute(
                f"INSERT INTO {table} SELECT number, {values} FROM generate_series(100, 100 + $1) AS number", SMALL_JOBS
            )
        await connection.execute("ANALYZE")
        large = "generate_series(0, $2::bigint - 1) AS number"
        await connection.execute(f"INSERT INTO lead_done SELECT $1, number, 0::bit(1024) FROM {large}", JOB, BLOCKS)
        await connection.execute(
            f"INSERT INTO lead_result SELECT $1, 10000 + number, 'failed', 'server_error', NULL, 1 FROM {large}",
            JOB,
            10 * BLOCKS,
        )
        await connection.execute(
            f"INSERT INTO charge SELECT $1, number, 1, 1, 1, 'hunter', 'result', NULL FROM {large}", JOB, 10 * BLOCKS
        )
        await connection.execute(
            f"INSERT INTO refused_row SELECT $1, number, 1, 'missing_key', '', '' FROM {large}", JOB, 10 * BLOCKS
        )
        await connection.execute("INSERT INTO lead_order SELECT $1, unnest($2::bigint[]), 'x', 1, 'a'", JOB, NUMBERS)
    async with PostgresLeads(store).work(JOB, 1) as work:
        await work.freeze(PEOPLE, None, None, None, None)
    async with store.write() as writing:
        the_list = await writing.fetchval("SELECT list FROM job_list WHERE job = $1", JOB)

        async def asked(query: str, *arguments: object) -> None:
            await writing.fetch(QUERIES[query].sql, *arguments)

        for reading in (
            partial(asked, "unsettled", JOB, NUMBERS),
            partial(asked, "orders", JOB),
            partial(freeze, writing, PEOPLE, None, None, JOB),
            partial(keep_list, writing, "rerun_of_lead_by_lead", JOB, the_list, "unfinished"),
            partial(keep_list, writing, "rerun_of_sets", JOB, the_list, "failed"),
        ):
            before = await _rows_read(writing)
            await reading()
            assert await _rows_read(writing) - before <= 4 * len(NUMBERS), reading
        for sweep in ("sweep_refused", "sweep_results", "sweep_charges"):
            before = await _rows_read(writing)
            assert await writing.fetchval(LIFE[sweep].sql, JOB, 100)
            assert await _rows_read(writing) - before <= 200 + BLOCKS, sweep


async def _rows_read(connection: Connection) -> int:
    of_results = """
        SELECT sum(idx_tup_fetch + seq_tup_read) FROM pg_stat_xact_user_tables
        WHERE relname IN ('lead_done', 'lead_result', 'charge', 'refused_row')
    """
    return int(await connection.fetchval(of_results))


async def test_a_million_leads_that_are_done_take_less_than_a_byte_each(store: PostgresStore, database: str) -> None:
    step = 5_000
    for first in range(0, 1_000_000, step):
        async with PostgresLeads(store).work(JOB, 1) as work:
            await work.settle(PEOPLE, [Result(LeadId(first + place), "done") for place in range(step)])
            await work.save(Counts(), "", None)
    async with meddle(database) as connection:
        await connection.execute("VACUUM FULL lead_done")
        assert await connection.fetchval("SELECT pg_total_relation_size('lead_done')") < 1_000_000
        assert await connection.fetchval("SELECT sum(bit_count(leads)) FROM lead_done") == 1_000_000


def of(result: Result, lead: LeadId) -> Result:
    return Result(lead, result.state, result.reason, result.detail)
