"""What only the real store has: statements and round trips, partitions, odd text, a server that dies or is not fit."""

import asyncio
import functools
import itertools
import json
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from leadline.adapters.embedded_postgres import embedded_postgres
from leadline.adapters.postgres import pool, writer
from leadline.adapters.postgres.leads import PostgresLeads
from leadline.adapters.postgres.pool import check_server
from leadline.adapters.postgres.queries import QUERIES, parse
from leadline.adapters.postgres.store import PostgresStore
from leadline.core.effects import CallClosed, CallRow, HistoryRow, JobChange, Records
from leadline.core.model import Counts, Family, JobState
from leadline.features.tables.ingest import ReadyLead
from leadline.features.tables.ports import BulkOrder, Table
from leadline.ports.store import JobFilter, OutcomeUnknown, StoredJob, Unavailable, UnfitDatabase
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import AccountName, CallId, Instant, JobId, LeadId, TableId
from tests.contracts.stores import (
    ENRICH,
    KINDS,
    NAMES,
    T,
    admission,
    end,
    key,
    row,
    start,
    submission,
    together,
)
from tests.postgres import meddle
from tests.postgres_proxy import Proxy

LATER = Instant(T + 10_000_000)


@pytest.fixture
async def store(database: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(database, ids_per_partition=100)
    await store.take_over(owner="first", kinds=KINDS)
    await store.commit(Records(teamspaces=list(NAMES.items())))
    yield store
    await store.close()


async def partitions(url: str) -> set[str]:
    async with meddle(url) as connection:
        return {found["name"] for found in await connection.fetch(QUERIES["partitions"].sql)}


# ------------------------------------------------------------------------------------------------------- the statements


def test_every_statement_is_described_or_says_it_all_in_one_line() -> None:
    bare = [query.name for query in QUERIES.values() if not query.description and len(query.sql.splitlines()) > 5]
    assert bare == []


def test_a_file_of_statements_is_read_by_name() -> None:
    queries = parse(
        "-- about the file\n\n-- name: one\n-- Adds.\n-- Twice.\nSELECT 1\n  + 1\n\n-- name: two\nSELECT 2\n"
    )
    assert {name: (query.description, query.sql) for name, query in queries.items()} == {
        "one": ("Adds. Twice.", "SELECT 1\n  + 1"),
        "two": ("", "SELECT 2"),
    }
    assert parse("-- name: add\nINSERT INTO t (a,\n  b) VALUES (1, 2)")["add"].target == ("t", ("a", "b"))


def come_and_go(first: int, *before: int) -> Records:
    """Two jobs come in and start, where others end."""
    here = (first, first + 1)
    new = together(*(together(admission(row(n)), start(n, slot=n)) for n in here))
    return together(*(end(n, slot=n) for n in before), new, told(*before, *here))


def told(*jobs: int) -> Records:
    """Something is noted of each."""
    return Records(history=[HistoryRow(JobId(job), Instant(T), "noted") for job in jobs])


@pytest.mark.parametrize(
    ("decision", "round_trips"),
    [
        ([admission(row(n)) for n in (1, 2, 3)], 4),
        ([admission(*(row(n + i) for i in range(50))) for n in (1, 60, 120)], 4),
        ([together(*(end(n + i, admitted=row(n + i)) for i in range(50))) for n in (1, 60, 120)], 4),
        ([come_and_go(1), come_and_go(3, 1, 2), come_and_go(5, 3, 4)], 5),
    ],
    ids=["one job", "fifty jobs", "fifty noops, start and end", "a few that start where others end"],
)
async def test_a_decision_costs_four_round_trips_whatever_its_size(
    database: str, tmp_path: Path, decision: list[Records], round_trips: int
) -> None:
    """BEGIN, the fence, the rows, COMMIT; the first of its kind also prepares its statements.

    Where jobs end and others begin, these are two statements; where many do, there is one for each kind of record.
    """
    async with Proxy(database, tmp_path).running() as proxy:
        store = PostgresStore(proxy.url)
        await store.take_over(owner="counted", kinds=KINDS)
        await store.commit(Records(teamspaces=list(NAMES.items())))
        for records in decision[:-1]:
            await store.commit(records)
        before = proxy.round_trips
        await store.commit(decision[-1])
        assert proxy.round_trips - before == round_trips
        await store.close()


TABLES = ("job", "job_ended", "attempt", "running_slot", "job_event", "submission_key")


async def contents(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """All that is stored of jobs, but for the numbers of the lines of their stories and the age of keys."""
    async with meddle(url) as connection:
        stored = {
            table: [tuple(found) for found in await connection.fetch(f"SELECT * FROM {table} ORDER BY 1, 2, 3")]
            for table in TABLES
        }
    stored["job_event"] = [(job, at, event, detail) for job, _, at, event, detail in stored["job_event"]]
    stored["submission_key"] = [columns[:-1] for columns in stored["submission_key"]]
    return stored


async def test_few_rows_and_many_are_stored_alike(
    database: str, store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever one decision may hold, written by the statements for few rows and by those for many."""
    everything = submission(
        ENRICH, table=TableId(7), total=12, warnings=b"[]", uid=1, notify=True, run_at=Instant(T), key=key("one"),
        rerun_of=JobId(1),
    )  # fmt: skip
    asleep = JobChange(JobId(2), JobState.QUEUED, b'{"waits":[]}', 0, None)
    again = start(1, attempt=2)
    again.slots_taken.clear()
    never_ran = together(start(6, slot=6), end(6, JobState.CANCELLED))
    never_ran.slots_taken.clear()
    never_ran.changed.clear()
    decisions = [
        together(admission(row(1, everything), row(2), row(3)), start(1), told(1, 2, 3)),
        together(admission(row(4)), start(3, slot=1), Records(changed={JobId(2): asleep}), told(3)),
        together(end(3, slot=1, counts=Counts(9, 8, 1)), start(4, slot=1), again, told(4, 1)),
        together(admission(row(5), row(6)), start(5, slot=2), end(1, JobState.PARTIAL, message="so far", slot=0)),
        together(never_ran, end(5, JobState.FAILED, reason=JobReason.ERROR, slot=2), told(5, 6)),
        together(end(4, slot=1), admission(row(7)), end(7, counts=Counts(), admitted=row(7)), told(4)),
    ]
    decisions[-1].admitted.pop()
    seen: list[list[dict[str, list[tuple[Any, ...]]]]] = []
    for few in (writer.FEW_JOBS, 0):
        monkeypatch.setattr(writer, "FEW_JOBS", few)
        seen.append([])
        for records in decisions:
            await store.commit(records)
            seen[-1].append(await contents(database))
            async with meddle(database) as connection:
                await connection.execute("UPDATE attempt SET done = 3, unknown = 1 WHERE job = 1")
        async with meddle(database) as connection:
            await connection.execute(f"TRUNCATE {', '.join(TABLES)}")
    assert seen[0] == seen[1]
    assert [len(stored["job"]) for stored in seen[0]] == [3, 4, 3, 4, 2, 1]
    assert [len(stored["attempt"]) for stored in seen[0]] == [1, 2, 2, 2, 1, 0]


async def test_a_session_that_breaks_as_it_is_given_back_spoils_nothing_that_was_done_on_it(
    database: str, tmp_path: Path
) -> None:
    async with Proxy(database, tmp_path).running() as proxy:
        store = PostgresStore(proxy.url)
        await store.take_over(owner="cut off", kinds=KINDS)
        async with store.read() as connection:
            assert await connection.fetchval("SELECT 17") == 17
            proxy.cut_all()
        async with store.read() as connection:
            assert await connection.fetchval("SELECT 18") == 18
        await store.close()


async def test_a_file_that_the_server_may_not_write_is_trouble_and_a_missing_right_is_a_fault(
    store: PostgresStore,
) -> None:
    with pytest.raises(Unavailable, match="Permission denied"):
        async with store.read() as connection:
            await connection.execute("COPY (SELECT 1) TO '/nobody-may-write-here'")
    for statement in ("SELECT FROM job", "CREATE ROLE another", "GRANT leadline_expressions TO leadline"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with store.read() as connection:
                await connection.execute(f"BEGIN; SET LOCAL ROLE leadline_expressions; {statement}")


@pytest.mark.parametrize("way", ["to_server", "to_client"])
async def test_a_database_that_falls_silent_is_given_up(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    async with Proxy(database, tmp_path).running() as proxy:
        store = PostgresStore(proxy.url)
        with monkeypatch.context() as little_patience:
            little_patience.setattr(pool, "ANSWER_SECONDS", 0.5)
            await at_work(store)
        flows: asyncio.Event = getattr(proxy, way)
        flows.clear()
        with pytest.raises(Unavailable):
            async with store.read() as connection:
                await connection.fetchval("SELECT 2")
        with pytest.raises(Unavailable):
            await store.commit(Records(teamspaces=list(NAMES.items())))
        flows.set()
        await store.take_over(owner="left alone", kinds=KINDS)
        await store.commit(Records(teamspaces=list(NAMES.items())))
        await store.close()


async def at_work(store: PostgresStore) -> None:
    """Take over and read; again, where the machine was slower than the store has patience."""
    while True:
        with suppress(Unavailable):
            await store.take_over(owner="left alone", kinds=KINDS)
            async with store.read() as connection:
                await connection.fetchval("SELECT 1")
            return


async def test_no_decision_reads_a_table_from_end_to_end(database: str, store: PostgresStore) -> None:
    """However empty a table was when a statement was planned."""
    for first in range(1, 1_000, 100):
        await store.commit(
            admission(*(row(first + i, submission(ENRICH, key=key(f"{first + i}"))) for i in range(100)))
        )
    for first in range(1, 1_000, 100):
        await store.commit(start(first))
        await store.commit(together(end(first, slot=0), *(end(first + i) for i in range(1, 90))))
        await store.commit(together(*(end(first + i, JobState.FAILED, message=f"{i}") for i in range(90, 100))))
    await store.commit(admission(row(2_000)))
    assert store._reign is not None
    await store._reign.writer.connection.execute("SELECT pg_stat_force_next_flush()")
    await store._reign.writer.connection.execute("SELECT 1")
    async with meddle(database) as connection:
        scanned = (
            "SELECT relname FROM pg_stat_user_tables WHERE seq_tup_read > 0 AND relname ~ '^(job|attempt|running)'"
        )
        assert await connection.fetch(scanned) == []


LISTINGS = [
    JobFilter(),
    JobFilter(teamspace="acme"),
    JobFilter(teamspace="beta"),
    JobFilter(teamspace="beta", states=(JobState.CANCELLED,)),
    JobFilter(families=(Family.OUTREACH,)),
    JobFilter(states=(JobState.FAILED, JobState.PARTIAL)),
    JobFilter(table=TableId(7)),
    JobFilter(uid=5),
    JobFilter(before=JobId(70_000)),
]


async def test_a_listing_costs_the_same_with_any_number_of_ended_jobs(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of beta and of the table 7 there are few jobs and old ones; noops in masses, and others' jobs, lie above."""
    pages = 0
    store = PostgresStore(database)
    await store.take_over(owner="first", kinds=KINDS)
    await store.commit(Records(teamspaces=list(NAMES.items())))
    fetch = store._fetch

    async def explained(query: str, *arguments: object) -> Any:
        nonlocal pages
        async with store._present().readers.acquire() as connection:
            explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {QUERIES[query].sql}"
            [plan] = json.loads(await connection.fetchval(explain, *arguments))
            pages += plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]
        return await fetch(query, *arguments)

    monkeypatch.setattr(store, "_fetch", explained)
    costs: list[list[int]] = []
    for first, last in ((1, 20_000), (20_001, 100_000)):
        async with meddle(database) as connection:
            await connection.execute(FILL, first, last)
        costs.append([])
        for which in LISTINGS:
            pages = 0
            await store.jobs(which)
            costs[-1].append(pages)
    await store.close()
    for which, before, after in zip(LISTINGS, *costs, strict=True):
        assert after <= 1.2 * before + 20, f"{which}: {before} pages of 20,000, {after} of 100,000"
        assert after < 2_000, which


async def test_the_live_jobs_of_a_teamspace_are_found_without_those_of_others(
    database: str, store: PostgresStore
) -> None:
    """Of beta there are 20 old ones; the newest 20,000 are of acme, and are queued."""
    async with meddle(database) as connection:
        await connection.execute(QUEUE)
        await connection.execute("ANALYZE job")
    telling = (Family.TABLES, Family.BATCH, Family.OUTREACH)
    for states in ((JobState.RUNNING, JobState.STOPPING), (JobState.QUEUED, JobState.DELAYED)):
        which = JobFilter(teamspace="beta", states=states, families=telling)
        found, read = await reading(store, which)
        assert (len(found), read < 500) == (10, True), f"{states}: {read} rows"
    _, read = await reading(store, JobFilter(teamspace="beta", states=(JobState.QUEUED,), families=(Family.NOOP,)))
    assert read > 20_000, "noops are in no index: they are looked for in the whole queue"


async def reading(store: PostgresStore, which: JobFilter) -> tuple[Sequence[StoredJob], float]:
    """What a listing finds, and how many rows of jobs that has read."""
    fetch, read = store._fetch, 0.0

    def rows(node: dict[str, Any]) -> float:
        own = 0.0
        if node.get("Relation Name", "").startswith("job"):
            own = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        return own + sum(map(rows, node.get("Plans", [])))

    async def explained(query: str, *arguments: object) -> Any:
        nonlocal read
        async with store._present().readers.acquire() as connection:
            explain = f"EXPLAIN (ANALYZE, FORMAT JSON) {QUERIES[query].sql}"
            [plan] = json.loads(await connection.fetchval(explain, *arguments))
            read += rows(plan["Plan"])
        return await fetch(query, *arguments)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(store, "_fetch", explained)
        return await store.jobs(which), read


QUEUE = """
INSERT INTO job (id, ord, submitted, teamspace, kind, state, stop_on_failure, notify, payload)
SELECT n, n, n, CASE WHEN n <= 20 THEN 2 ELSE 1 END, (SELECT id FROM kind WHERE name = 'enrich'),
    CASE WHEN n <= 10 THEN 2 ELSE 1 END, false, false, '{}'
FROM generate_series(1, 20020) AS n
"""

FILL = """
INSERT INTO job_ended (id, ord, submitted, ended, total, done, failed, skipped, unknown, teamspace, attempt, kind,
    state, stop_on_failure, notify, payload, message, table_id, uid)
SELECT n, n, n, n, 0, 0, 0, 0, 0, CASE WHEN n % 100 = 0 AND n < 10000 THEN 2 ELSE 1 END, 1,
    CASE WHEN n % 10 = 0 THEN (SELECT id FROM kind WHERE name = 'enrich') ELSE 0 END, 4, false, false, '{}', '',
    CASE WHEN n % 100 = 0 AND n < 10000 THEN 7 END, 1
FROM generate_series($1::bigint, $2::bigint) AS n
"""


# ----------------------------------------------------------------------------------------------------------- partitions


async def test_partitions_are_made_before_they_are_needed(database: str, store: PostgresStore) -> None:
    assert "job_ended_0" in await partitions(database)
    await store.commit(admission(*(row(number) for number in range(1, 61))))
    assert {"job_ended_1", "job_event_1"} <= await partitions(database)
    await store.commit(together(*(end(number, admitted=row(number)) for number in range(190, 211))))
    assert "job_ended_2" in await partitions(database)
    await store.commit(Records(calls_sent=[call(950)], history=[HistoryRow(JobId(205), Instant(T), "x")]))
    assert {"call_9", "call_10"} <= await partitions(database)
    assert (await store.take_over(owner="again", kinds=KINDS)).last_job == 210


def call(number: int, *, job: int = 1) -> CallRow:
    return CallRow(CallId(number), JobId(job), 1, LeadId(1), AccountName("snov"), b"{}", Instant(T))


async def test_what_is_old_is_dropped_whole_and_ids_are_not_given_out_again(
    database: str, store: PostgresStore
) -> None:
    for number in (10, 110, 210):
        await store.commit(
            together(
                end(number, admitted=row(number)),
                Records(
                    calls_sent=[call(number, job=number)], history=[HistoryRow(JobId(number), Instant(T), "admitted")]
                ),
            )
        )
        await store.commit(Records(calls_closed=[CallClosed(CallId(number), "failed", "")]))
    dropped = await store.prune(LATER)
    assert dropped == ["call_0", "call_1", "job_ended_0", "job_event_0", "job_ended_1", "job_event_1"]
    assert await store.job(JobId(110)) is None
    assert await store.history(JobId(110)) == []
    assert await store.job(JobId(210)) is not None
    again = await store.take_over(owner="again", kinds=KINDS)
    assert (again.last_job, again.last_call) == (210, 210)
    assert not set(dropped) & await partitions(database)


async def test_what_is_young_or_still_needed_is_not_dropped(store: PostgresStore) -> None:
    await store.commit(admission(row(110), row(120, submission(key=key("k")))))
    await store.commit(end(120))
    await store.commit(together(end(10, admitted=row(10)), end(310, admitted=row(310))))
    await store.commit(Records(calls_sent=[call(10, job=110), call(110, job=10), call(210)]))
    await store.commit(Records(calls_closed=[CallClosed(CallId(10), "failed", "")]))
    assert await store.prune(Instant(T)) == []
    assert await store.prune(LATER) == ["job_ended_0", "job_event_0"], "110 is live, call 110 in flight"
    await store.commit(end(110))
    assert await store.prune(LATER) == ["call_0"], "a key in force stands for 120"


async def test_an_order_in_bulk_is_forgotten_when_it_is_old_and_its_job_has_ended(store: PostgresStore) -> None:
    leads = PostgresLeads(store)
    live, ended, snov = JobId(1), JobId(2), AccountName("snov")
    ordered = {
        live: [BulkOrder(1, snov, (LeadId(1),), "a", Instant(0)), BulkOrder(2, snov, (LeadId(2),), None, LATER)],
        ended: [
            BulkOrder(1, snov, (LeadId(3),), "b", Instant(T - 1)),
            BulkOrder(2, snov, (LeadId(4),), "c", Instant(T)),
        ],
    }
    await store.commit(together(admission(row(live), row(ended)), start(live), start(ended, slot=1)))
    for job, orders in ordered.items():
        async with leads.work(job, 1) as work:
            for order in orders:
                assert await work.may_order(order, Instant(0), None)
    await leads.forget_orders(LATER)
    assert [await leads.bulk_orders(job) for job in (live, ended)] == [ordered[live], ordered[ended]], "both live"
    await store.commit(end(ended, slot=1))
    await leads.forget_orders(Instant(T))
    assert await leads.bulk_orders(ended) == ordered[ended][1:], "as young as that"
    await leads.forget_orders(LATER)
    assert [await leads.bulk_orders(job) for job in (live, ended)] == [ordered[live], []]


# ----------------------------------------------------------------------------------------------------------------- text


async def test_text_that_postgres_cannot_hold_is_stored_as_far_as_it_can_be(store: PostgresStore) -> None:
    await store.commit(admission(row(1), row(2)))
    odd = "a\0b\ud800c"
    history = [HistoryRow(JobId(1), Instant(T), "failed", odd)]
    ends = together(end(1, JobState.FAILED, reason=JobReason.ERROR, message=odd), end(3, message=odd, admitted=row(3)))
    await store.commit(together(ends, Records(history=history)))
    ended = await store.job(JobId(1))
    assert ended is not None
    assert ended.message == "a\ufffdb?c"
    assert [line.detail for line in await store.history(JobId(1))] == ["a\ufffdb?c"]


# ----------------------------------------------------------------------------------------------------------- the server


class Settings:
    """A connection to a server with these settings."""

    def __init__(self, **settings: object) -> None:
        self._settings = {
            "version": 180000, "fsync": "on", "full_page_writes": "on", "in_recovery": False, **settings,
        }  # fmt: skip

    async def fetchrow(self, _: str) -> dict[str, object]:
        return self._settings


@pytest.mark.parametrize(
    ("setting", "error", "told"),
    [
        ({"fsync": "off"}, UnfitDatabase, "fsync is off"),
        ({"full_page_writes": "off"}, UnfitDatabase, "full_page_writes is off"),
        ({"version": 130014}, UnfitDatabase, "Postgres 13 is too old"),
        ({"in_recovery": True}, Unavailable, "standby"),
    ],
)
async def test_a_server_that_cannot_keep_the_promises_is_refused(
    setting: dict[str, object], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        await check_server(Settings(**setting))  # type: ignore[arg-type]


async def test_slices_may_ask_while_all_of_them_work(store: PostgresStore) -> None:
    jobs = range(1, pool.WORKERS + 1)
    await store.commit(admission(*(row(number, submission(ENRICH)) for number in jobs)))
    await store.commit(together(*(start(number, slot=number) for number in jobs)))
    everybody = asyncio.Barrier(pool.WORKERS)

    async def work(number: int) -> int:
        async with store.work(JobId(number), 1):
            await everybody.wait()
            async with store.read() as connection:
                return int(await connection.fetchval("SELECT count(*) FROM attempt"))

    assert set(await asyncio.gather(*map(work, jobs))) == {pool.WORKERS}


async def test_a_real_server_tells_its_settings(store: PostgresStore) -> None:
    async with store.read() as connection:
        await check_server(connection)
        for name, value in pool.SETTINGS.items():
            assert (await connection.fetchval(f"SHOW {name}")).lower() in {value.lower(), "1min", "0"}, name


async def test_a_read_only_database_is_unavailable(database: str, store: PostgresStore) -> None:
    async with meddle(database) as connection:
        name = await connection.fetchval("SELECT current_database()")
        await connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    await store.close()
    with pytest.raises(Unavailable):
        await store.take_over(owner="first", kinds=KINDS)


async def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    nowhere = PostgresStore(f"postgresql://leadline@/leadline?host={tmp_path}")
    with pytest.raises(Unavailable, match="cannot connect"):
        await nowhere.take_over(owner="first", kinds=KINDS)


@pytest.fixture
def state_folder() -> Iterator[Path]:
    """A folder that the server's user can enter, unlike those of tmp_path."""
    folder = Path(tempfile.mkdtemp(prefix="leadline-tests-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


async def test_what_was_acknowledged_survives_the_death_of_the_server(state_folder: Path) -> None:
    """Commits go on one after the other while the server is killed three times, each time in the middle of one."""
    async with embedded_postgres(state_folder) as server:
        store = PostgresStore(server.url)
        await store.take_over(owner="first", kinds=KINDS)
        await store.commit(Records(teamspaces=list(NAMES.items())))
        acknowledged: set[int] = set()
        numbers = itertools.count(1)

        async def commit(times: int | None) -> None:
            for number in itertools.islice(numbers, times):
                await store.commit(admission(*(row(number * 10 + i) for i in range(10))))
                acknowledged.add(number * 10)

        for round_number in range(1, 4):
            await commit(10)
            died = asyncio.create_task(kill_after(server.pid, 0.05 * round_number))
            with pytest.raises((Unavailable, OutcomeUnknown)):
                await commit(None)
            await died
            await server.wait_until_ready()
            while True:
                try:
                    await store.take_over(owner="first", kinds=KINDS)
                    break
                except Unavailable:
                    await asyncio.sleep(0.05)
            kept = [job.id async for page in store.live_jobs() for job in page]
            assert acknowledged <= set(kept)
            assert len(kept) % 10 == 0, "a decision is there whole or not at all"
        await store.close()


@pytest.mark.parametrize("decided", [True, False])
async def test_what_may_be_redone_is_lost_as_a_whole_or_kept_and_kept_for_certain_by_the_next_decision(
    state_folder: Path, decided: bool
) -> None:
    async with embedded_postgres(state_folder) as server:
        store = PostgresStore(server.url)
        await store.take_over(owner="first", kinds=KINDS)
        await store.commit(Records(teamspaces=list(NAMES.items())))
        await store.commit(together(admission(row(1)), start(1)))
        people = Table(TableId(1), "acme", "people", (), (), datetime.now(UTC))
        async with meddle(server.url) as connection:
            await connection.execute("INSERT INTO lead_table (id, teamspace, name) VALUES (1, 'acme', 'people')")
        async with PostgresLeads(store).work(JobId(1), 1) as work:
            await work.may_be_redone()
            await work.add(people, [ReadyLead(number, None, "{}") for number in range(1, 11)], "skip")
            await work.save(Counts(total=10, done=10), "", {"row": 10})
        if decided:
            await store.commit(admission(row(2)))
        await kill_after(server.pid, 0)
        await server.wait_until_ready()
        while True:
            try:
                await store.take_over(owner="first", kinds=KINDS)
                break
            except Unavailable:
                await asyncio.sleep(0.05)
        async with meddle(server.url) as connection:
            leads = await connection.fetchval("SELECT count(*) FROM lead")
        assert (leads, await PostgresLeads(store).checkpoint(JobId(1))) in [(10, {"row": 10}), (0, None)][: 2 - decided]
        await store.close()


async def kill_after(pid: int, seconds: float) -> None:
    await asyncio.sleep(seconds)
    os.kill(pid, signal.SIGKILL)


async def test_a_decision_that_meets_a_lock_waits_and_those_behind_it_keep_their_order(
    database: str, store: PostgresStore
) -> None:
    async with meddle(database) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("LOCK TABLE job IN ACCESS EXCLUSIVE MODE")
        commits = [asyncio.create_task(store.commit(admission(row(number)))) for number in (3, 1, 2)]
        finished: list[int] = []
        for number, commit in zip((3, 1, 2), commits, strict=True):
            commit.add_done_callback(functools.partial(lambda number, _: finished.append(number), number))
        await asyncio.sleep(0)
        await transaction.rollback()
        await asyncio.gather(*commits)
    assert finished == [3, 1, 2]


async def test_counts_of_a_million_leads_fit(store: PostgresStore) -> None:
    huge = Counts(3_000_000_000, 2_999_999_999, 1)
    await store.commit(together(admission(row(1, submission(ENRICH, total=3_000_000_000))), start(1)))
    await store.commit(end(1, counts=huge, slot=0))
    ended = await store.job(JobId(1))
    assert ended is not None
    assert ended.counts == huge
