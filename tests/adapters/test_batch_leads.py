"""Queries of batch jobs that change leads: their own, as the table declares them, and only while this daemon reigns."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace as but

from leadline.adapters.postgres import batch_access, fence
from leadline.adapters.postgres.batch_access import BatchAccess
from leadline.adapters.postgres.batch_leads import BatchLeads
from leadline.adapters.postgres.pool import Connection
from leadline.adapters.postgres.queries import QUERIES
from leadline.adapters.postgres.store import PostgresStore
from leadline.features.batch.request_ports import Declined, NotAllowed, Query, QueryFailed, Rows, Written
from leadline.ports.store import Fenced
from tests.contracts.stores import KINDS
from tests.postgres import meddle

CANARY = "canary-of-beta"

COLUMNS = [
    {"name": "score", "type": "number"},
    {"name": "note", "type": "text"},
    {"name": "tier", "type": "text", "allowed": ["gold", "iron"]},
    {"name": "vip", "type": "boolean"},
    {"name": "born", "type": "date"},
    {"name": "seen", "type": "timestamp"},
    {"name": "extra", "type": "json"},
    {"name": "dirty", "type": "number", "allowed": []},
]


@pytest.fixture
async def store(database: str) -> AsyncIterator[PostgresStore]:
    async with meddle(database) as connection:
        await connection.execute(
            f"""
            INSERT INTO lead_table (id, teamspace, name) VALUES (1, 'acme', 'people'), (2, 'beta', '{CANARY}');
            UPDATE lead_table SET first_lead = 2, next_lead = 4, columns = '{json.dumps(COLUMNS)}';
            INSERT INTO lead SELECT 1, i, '{{"score": 1, "dirty": "n/a"}}' FROM generate_series(1, 3) AS i;
            INSERT INTO lead SELECT 2, i, '{{"note": "{CANARY}"}}' FROM generate_series(1, 3) AS i;
            """
        )
    store = PostgresStore(database)
    await store.take_over(owner="changed by batch jobs", kinds=KINDS)
    yield store
    await store.close()


@pytest.fixture
def access(store: PostgresStore, database: str) -> BatchAccess:
    return BatchAccess(store, database)


@pytest.fixture
async def acme(access: BatchAccess) -> BatchLeads:
    await access.open("beta", write=True)
    return await access.open("acme", write=True)


async def run(leads: BatchLeads, sql: str, *parameters: Any) -> Any:
    """What comes of one or several statements: rows, or how many leads were changed."""
    found = await leads.run(Query(sql, parameters, multi=not parameters))
    return [msgspec.json.decode(each) for each in found.rows] if isinstance(found, Rows) else found


async def stored(url: str, lead: int = 2) -> Any:
    async with meddle(url) as connection:
        return json.loads(await connection.fetchval("SELECT data FROM lead WHERE table_id = 1 AND id = $1", lead))


async def everything(connection: Connection) -> list[Any]:
    """All that could be harmed: leads, what tables there are, and what waits to be carried over."""
    return [
        await connection.fetch("SELECT * FROM lead ORDER BY table_id, id"),
        await connection.fetch("SELECT oid FROM pg_class WHERE relkind <> 't' ORDER BY oid"),
        await connection.fetch("SELECT proname FROM pg_proc WHERE oid >= 16384 ORDER BY oid"),
        await connection.fetch("SELECT * FROM lead_change"),
    ]


# ------------------------------------------------------------------------------------------------- what may be changed


async def test_data_of_leads_is_changed_and_what_is_not_named_stays(acme: BatchLeads, database: str) -> None:
    sql = "UPDATE leads SET data = data || jsonb_build_object('note', $1::text) WHERE table_name = 'people' AND id = $2"
    assert await run(acme, sql, "called", 2) == Written(1)
    assert await stored(database) == {"score": 1, "dirty": "n/a", "note": "called"}
    assert await stored(database, 3) == {"score": 1, "dirty": "n/a"}
    returned = await run(acme, "UPDATE leads SET data = '{\"score\": 2}' WHERE id = 2 RETURNING id, data")
    assert returned == [[2, {"score": 2}]]
    assert await stored(database) == {"score": 2}, "cells that are left out are empty from then on"


async def test_statements_of_one_query_see_what_those_before_have_changed(acme: BatchLeads, database: str) -> None:
    more = "UPDATE leads SET data = jsonb_set(data, '{score}', to_jsonb((data->>'score')::int + 1)) WHERE id = 2"
    assert await run(acme, f"{more}; {more}; SELECT data->'score' FROM leads WHERE id = 2") == [[3]]
    assert (await stored(database))["score"] == 3
    sql = "UPDATE leads SET data = data - 'score'; UPDATE leads SET data = data || '{\"score\": 9}' WHERE id = 2"
    assert await run(acme, sql) == Written(1)
    assert ((await stored(database))["score"], "score" in await stored(database, 3)) == (9, False)
    assert await run(
        acme, "WITH changed AS (UPDATE leads SET data = '{}' RETURNING id) SELECT count(*) FROM changed"
    ) == [[2]]


async def test_all_statements_of_a_query_or_none_are_carried_over(acme: BatchLeads, database: str) -> None:
    with pytest.raises(QueryFailed):
        await run(acme, "UPDATE leads SET data = '{}'; SELECT missing")
    assert await stored(database) == {"score": 1, "dirty": "n/a"}


async def test_cells_that_a_job_changes_meanwhile_stay_changed(acme: BatchLeads, database: str) -> None:
    async with meddle(database) as connection, connection.transaction():
        await connection.execute("UPDATE lead SET data = data || '{\"vip\": true}' WHERE table_id = 1 AND id = 2")
        changing = asyncio.create_task(run(acme, "UPDATE leads SET data = data || '{\"score\": 5}'"))
        while not await connection.fetchval("SELECT count(*) FROM lead_change"):
            await asyncio.sleep(0.01)
        assert not changing.done()
    assert await changing == Written(2)
    assert await stored(database) == {"score": 5, "dirty": "n/a", "vip": True}


async def test_a_lead_that_a_job_is_at_for_too_long_changes_nothing(
    acme: BatchLeads, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_access, "BUSY_SECONDS", 0.2)
    async with meddle(database) as connection, connection.transaction():
        await connection.execute("SELECT FROM lead WHERE table_id = 1 AND id = 3 FOR UPDATE")
        with pytest.raises(QueryFailed, match="jobs are writing to these leads"):
            await run(acme, "UPDATE leads SET data = '{}'")
        assert await connection.fetchval("SELECT count(*) FROM lead_change") == 0
    assert await stored(database) == {"score": 1, "dirty": "n/a"}


@pytest.mark.parametrize(
    ("column", "given", "kept"),
    [
        ("score", "1.5", 1.5),
        ("score", "-1e39", -(10**39)),
        ("score", "0.123456789012345678901", 0.1234567890123456789),
        ("score", "null", ...),
        ("note", '"7"', "7"),
        ("note", '""', ...),
        ("tier", '"gold"', "gold"),
        ("tier", '""', ...),
        ("vip", "false", False),
        ("born", '"2024-02-29"', "2024-02-29"),
        ("seen", '"2026-01-31 10:00+01:00"', "2026-01-31T09:00:00Z"),
        ("seen", '"2026-01-31"', "2026-01-31T00:00:00Z"),
        ("extra", '[{"a": [1, null]}]', [{"a": [1, None]}]),
        ("extra", '"x"', "x"),
        ("dirty", "null", ...),
        ("dirty", '"n/a"', "n/a"),
    ],
)
async def test_a_value_of_its_columns_type_is_kept(
    acme: BatchLeads, database: str, column: str, given: str, kept: object
) -> None:
    sql = f"UPDATE leads SET data = data || '{{\"{column}\": {given}}}' WHERE id = 2 RETURNING data"
    ((returned,),) = await run(acme, sql)
    assert await stored(database) == returned
    assert returned.get(column, ...) == kept


@pytest.mark.parametrize(
    ("column", "given"),
    [
        ("score", '"7"'),
        ("score", "1e40"),
        ("score", "true"),
        ("note", "7"),
        ("note", '{"a": 1}'),
        ("note", f'"{"x" * 32_769}"'),
        ("tier", '"lead"'),
        ("vip", '"true"'),
        ("vip", "0"),
        ("born", '"2023-02-29"'),
        ("born", '"2026-1-1x"'),
        ("born", '"2026-00-01"'),
        ("born", "20260101"),
        ("seen", '"yesterday"'),
        ("seen", '"2026-01-31T25:00:00Z"'),
        ("seen", "1767225600"),
        ("extra", f'["{"x" * 32_769}"]'),
        ("dirty", '"none"'),
    ],
)
async def test_a_value_of_another_type_is_refused(acme: BatchLeads, database: str, column: str, given: str) -> None:
    sql = f"UPDATE leads SET data = data || '{{\"{column}\": {given}}}' WHERE id = 2"
    with pytest.raises(QueryFailed, match=f"lead 2 of table people: .* is nothing for column {column}, which is "):
        await run(acme, sql)
    assert await stored(database) == {"score": 1, "dirty": "n/a"}


# -------------------------------------------------------------------------------------------------------------- attacks

ELSEWHERE = f"UPDATE leads SET data = '{{}}' WHERE table_name = '{CANARY}'"

REFUSED = {
    "UPDATE lead SET data = '{}'": "permission denied",
    "UPDATE lead_2 SET data = '{}'": "permission denied",
    "UPDATE lead_change SET cells = '{}'": "permission denied",
    "SELECT * FROM lead_change": "permission denied",
    "UPDATE lead_table SET columns = '[]'": "permission denied",
    "UPDATE lead_tables SET columns = '[]'": "permission denied",
    "UPDATE batch_reader SET teamspace = 'beta'": "permission denied",
    "UPDATE leader SET epoch = 99": "permission denied",
    "UPDATE pg_settings SET setting = '0' WHERE name = 'statement_timeout'": "pg_settings may not be named",
    "UPDATE leads SET data = data WHERE set_config('role', '{owner}', true) > ''": "set_config may not be named",
    "UPDATE leads SET data = data WHERE store_lead_changes('7')": "permission denied",
    "UPDATE leads SET data = jsonb_build_object('score', lo_create(0))": "lo_create may not be named",
    "SET ROLE {owner}; UPDATE lead SET data = '{}'": "'SET' is no statement",
    "SET SESSION AUTHORIZATION {owner}; UPDATE lead SET data = '{}'": "'SET' is no statement",
    "WITH gone AS (UPDATE lead SET data = '{}') SELECT 1": "permission denied",
    "WITH new AS (INSERT INTO leads VALUES ('people', 9, '{}') RETURNING id) SELECT * FROM new": "cannot insert",
    "WITH gone AS (DELETE FROM leads RETURNING id) SELECT * FROM gone": "cannot delete from view",
    "INSERT INTO leads VALUES ('people', 9, '{}')": "leads come by uploads",
    "DELETE FROM leads": "leads come by uploads",
    "TRUNCATE leads": "leads come by uploads",
    "MERGE INTO leads USING leads AS l ON true WHEN MATCHED THEN DELETE": "leads come by uploads",
    "CREATE TABLE mine (x int)": "leads come by uploads",
    "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'": "leads come by uploads",
    "CREATE TRIGGER mine INSTEAD OF UPDATE ON leads FOR EACH ROW EXECUTE FUNCTION change_lead()": "by uploads",
    "CREATE TEMP VIEW lead_table AS SELECT 2 AS id": "leads come by uploads",
    "DROP TRIGGER change ON leads": "leads come by uploads",
    "ALTER VIEW leads SET (security_barrier = false)": "leads come by uploads",
    "COMMENT ON VIEW leads IS 'x'": "leads come by uploads",
    "DO $$ BEGIN UPDATE lead SET data = '{}'; END $$": "'DO' is no statement",
    "COMMIT; UPDATE leads SET data = '{}'": "'COMMIT' is no statement",
    "PREPARE x AS UPDATE leads SET data = '{}'": "'PREPARE' is no statement",
    "UPDATE leads SET data = data; SELECT * INTO TEMP mine FROM leads": "leads come by uploads",
    "UPDATE leads SET data = data; SELECT * INTO mine FROM leads": "leads come by uploads",
    "UPDATE leads SET data = data; EXPLAIN ANALYZE CREATE TABLE mine AS SELECT 1": "leads come by uploads",
    "WITH one AS (SELECT 1 AS x) SELECT * INTO TEMP mine FROM one": "leads come by uploads",
    "WITH one AS (SELECT 1 AS x) SELECT * INTO public.mine FROM one": "leads come by uploads",
    "EXPLAIN ANALYZE UPDATE leads SET data = '{}'": "leads come by uploads",
    "EXPLAIN ANALYZE CREATE TABLE mine AS SELECT 1": "leads come by uploads",
    "SELECT * INTO mine FROM leads": "leads come by uploads",
    "UPDATE leads SET data = data; SELECT * FROM leads FOR UPDATE": "outer join",
    "WITH held AS (SELECT * FROM leads FOR UPDATE) SELECT * FROM held": "outer join",
    "WITH held AS (SELECT * FROM leads FOR KEY SHARE) SELECT * FROM held": "outer join",
    "WITH held AS (SELECT * FROM lead_tables FOR UPDATE) SELECT * FROM held": "permission denied",
    "UPDATE leads SET id = 9": "lead 2 of table people: its id and its table cannot be changed",
    f"UPDATE leads SET table_name = '{CANARY}'": "lead 2 of table people: its id and its table cannot be changed",
    "UPDATE leads SET table_name = NULL": "its id and its table cannot be changed",
    "UPDATE leads SET data = NULL": "lead 2 of table people: data must be a JSON object",
    "UPDATE leads SET data = '[]'": "lead 2 of table people: data must be a JSON object",
    """UPDATE leads SET data = data || '{"mine": 1}'""": "lead 2 of table people: the table has no column mine",
    """UPDATE leads SET data = data || '{"": null, "x'';--": 1}'""": "the table has no column",
    "UPDATE leads SET data = jsonb_build_object('note', repeat('x', 10000000))": "is nothing for column note",
    "UPDATE leads SET data = jsonb_build_object(repeat('x', 10000000), 1)": "the table has no column",
}


@pytest.mark.parametrize("sql", REFUSED)
async def test_an_attack_is_refused_and_changes_nothing(acme: BatchLeads, database: str, sql: str) -> None:
    async with meddle(database) as connection:
        owner = await connection.fetchval("SELECT current_user")
        await connection.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")  # so it is by itself in Postgres 14
        before = await everything(connection)
        with pytest.raises(Declined) as refused:
            await run(acme, sql.replace("{owner}", owner))
        assert REFUSED[sql] in str(refused.value)
        assert len(str(refused.value)) < 1_000
        assert await everything(connection) == before


async def test_leads_of_others_are_not_there_to_be_changed(acme: BatchLeads, database: str) -> None:
    async with meddle(database) as connection:
        before = await everything(connection)
        for sql in (ELSEWHERE, "UPDATE leads SET data = '{}' WHERE id = 1", ELSEWHERE + " OR data->>'note' = 'x'"):
            assert await run(acme, sql) == Written(0)
        assert await everything(connection) == before


async def test_a_table_of_ones_own_is_not_taken_for_leadlines(acme: BatchLeads, database: str) -> None:
    """It would be the first to be found by its name; that it is refused in the end would be too late."""
    sql = f"""
        WITH forged (id, teamspace, name, columns) AS (VALUES (2, 'acme', 'people', '{json.dumps(COLUMNS)}'::jsonb))
        SELECT * INTO TEMP lead_table FROM forged;
        UPDATE leads SET data = '{{"note": "forged"}}' WHERE id = 2"""
    async with meddle(database) as connection:
        before = await everything(connection)
        with pytest.raises(NotAllowed):
            await run(acme, sql)
        assert await everything(connection) == before


async def test_a_role_may_write_nothing_but_the_view_and_only_while_the_plan_says_so(
    access: BatchAccess, acme: BatchLeads, database: str
) -> None:
    ((role,),) = await run(acme, "SELECT session_user")
    rights = """
        SELECT relname || ' ' || right_ FROM pg_class,
            unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS right_
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'S', 'm')
            AND CASE relkind WHEN 'S' THEN has_sequence_privilege($1, oid, 'USAGE, UPDATE')
                ELSE has_table_privilege($1, oid, right_) OR has_any_column_privilege($1, oid, 'INSERT, UPDATE') END"""
    callable_ = """
        SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
            AND (prosecdef OR proname = 'store_lead_changes') AND has_function_privilege($1, oid, 'EXECUTE')"""
    async with meddle(database) as connection:
        found = {each[0] for each in await connection.fetch(rights, role)}
        assert {each.split()[0] for each in found} == {"leads"}
        assert "leads UPDATE" in found
        assert await connection.fetch(callable_, role) == []
        await access.open("acme", write=False)
        assert await connection.fetch(rights, role) == []


async def test_who_may_only_read_from_now_on_changes_nothing(
    access: BatchAccess, acme: BatchLeads, database: str
) -> None:
    reading = await access.open("acme", write=False)
    for leads in (reading, acme):
        with pytest.raises(Declined):
            await run(leads, "UPDATE leads SET data = '{}'")
    assert await stored(database) == {"score": 1, "dirty": "n/a"}
    assert await run(await access.open("acme", write=True), "UPDATE leads SET data = '{}'") == Written(2)


async def test_a_query_that_takes_its_time_keeps_nobody_from_the_leads(acme: BatchLeads, database: str) -> None:
    """Locks of a tenant would stop the jobs of everybody, who share the daemon's connections."""
    async with meddle(database) as connection:
        await connection.execute("CREATE FUNCTION take_time() RETURNS void RETURN pg_advisory_xact_lock(1)")
        await connection.execute("SELECT pg_advisory_lock(1)")
        changing = asyncio.create_task(run(acme, "UPDATE leads SET data = '{\"score\": 4}'; SELECT take_time()"))
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'"
        while not (await connection.fetchval(waiting) or changing.done()):
            await asyncio.sleep(0.01)
        await connection.execute("SET lock_timeout = '10s'")
        await connection.execute("UPDATE lead SET data = data || '{\"vip\": true}' WHERE table_id = 1")
        await connection.execute("UPDATE leader SET owner = 'the next one'")
        assert not changing.done()
        await connection.execute("SELECT pg_advisory_unlock(1)")
        await changing
    assert await stored(database) == {"score": 4, "vip": True}


@pytest.mark.parametrize(
    ("leads", "note", "fine"), [(10_000, 1, True), (10_001, 1, False), (510, 32_768, True), (520, 32_768, False)]
)
async def test_what_a_query_may_change_is_bounded(
    acme: BatchLeads, database: str, leads: int, note: int, fine: bool
) -> None:
    async with meddle(database) as connection:
        await connection.execute("INSERT INTO lead SELECT 1, i, '{}' FROM generate_series(4, 20000) AS i")
    sql = f"UPDATE leads SET data = jsonb_build_object('note', repeat('x', {note})) WHERE id <= {leads + 1}"
    if fine:
        assert await run(acme, sql) == Written(leads)
        assert len((await stored(database, leads + 1))["note"]) == note
    else:
        with pytest.raises(QueryFailed, match="at most 10,000 leads and 16 MiB"):
            await run(acme, sql)
        assert await stored(database, 5) == {}


# ------------------------------------------------------------------------------------------------------------ the fence


@asynccontextmanager
async def replaced(database: str, store: PostgresStore) -> AsyncIterator[None]:
    """Another daemon has taken over, and ours does not know."""
    successor = PostgresStore(database)
    assert store._owner is not None
    store._owner.terminate()
    await successor.take_over(owner="successor", kinds=KINDS)
    yield
    await successor.close()


async def test_what_an_ex_daemons_code_changes_does_not_land(
    acme: BatchLeads, database: str, store: PostgresStore
) -> None:
    async with replaced(database, store):
        with pytest.raises(Fenced):
            await run(acme, "UPDATE leads SET data = '{}'")
        assert await stored(database) == {"score": 1, "dirty": "n/a"}
        assert len(await run(acme, "SELECT * FROM leads")) == 2, "reading harms nobody"


async def test_without_the_epoch_it_would_land(
    acme: BatchLeads, database: str, store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the test above."""
    query = QUERIES["fence"]
    careless = but(query, sql=query.sql.replace("epoch = $1", "$1::bigint IS NOT NULL"))
    monkeypatch.setattr(fence, "QUERIES", {**QUERIES, "fence": careless})
    async with replaced(database, store):
        await run(acme, "UPDATE leads SET data = '{}'")
        assert await stored(database) == {}


async def test_what_a_dead_daemon_has_left_is_forgotten(
    acme: BatchLeads, database: str, store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dies(_: str) -> None:
        raise ConnectionResetError

    monkeypatch.setattr(acme, "_keep", dies)
    with pytest.raises(ConnectionResetError):
        await run(acme, "UPDATE leads SET data = '{}'")
    async with meddle(database) as connection:
        assert await connection.fetchval("SELECT count(*) FROM lead_change") == 2
        next_one = await BatchAccess(store, database).open("acme", write=True)
        assert await connection.fetchval("SELECT count(*) FROM lead_change") == 0
    assert len(await run(next_one, "SELECT * FROM leads WHERE data->'score' = '1'")) == 2
