"""Queries of batch jobs to their own leads: each teamspace sees its own rows, whatever it says, and changes nothing."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from leadline.adapters.postgres.batch_access import BatchAccess, scram_verifier
from leadline.adapters.postgres.batch_leads import BatchLeads
from leadline.adapters.postgres.store import PostgresStore
from leadline.features.batch.request_ports import Declined, NotAllowed, Query, QueryFailed, Rows
from leadline.ports.store import UnfitDatabase
from tests.contracts.stores import KINDS
from tests.postgres import meddle

CANARY = "canary-of-beta"


@pytest.fixture
async def store(database: str) -> AsyncIterator[PostgresStore]:
    async with meddle(database) as connection:
        await connection.execute(
            f"""
            INSERT INTO lead_table (id, teamspace, name) VALUES (1, 'acme', 'people'), (2, 'beta', '{CANARY}');
            UPDATE lead_table SET first_lead = 2, next_lead = 4;
            INSERT INTO lead SELECT 1, i, '{{"a": 1}}' FROM generate_series(1, 3) AS i;
            INSERT INTO lead SELECT 2, i, '{{"a": "{CANARY}"}}' FROM generate_series(1, 4) AS i;
            """
        )
    store = PostgresStore(database)
    await store.take_over(owner="asked by batch jobs", kinds=KINDS)
    yield store
    await store.close()


@pytest.fixture
def access(store: PostgresStore, database: str) -> BatchAccess:
    return BatchAccess(store, database)


@pytest.fixture
async def acme(access: BatchAccess) -> BatchLeads:
    await access.open("beta", write=False)
    return await access.open("acme", write=False)


async def rows(database: BatchLeads, sql: str) -> list[Any]:
    found = await database.run(Query(sql, (), multi=False))
    assert isinstance(found, Rows)
    return [msgspec.json.decode(each) for each in found.rows]


async def test_each_teamspace_sees_its_own_leads_that_are_kept(access: BatchAccess) -> None:
    acme, beta, none = [await access.open(name, write=False) for name in ("acme", "beta", "none")]
    assert await rows(acme, "SELECT * FROM leads ORDER BY id") == [["people", 2, {"a": 1}], ["people", 3, {"a": 1}]]
    assert await rows(beta, "SELECT table_name, data->>'a' FROM leads WHERE id = 2") == [[CANARY, CANARY]]
    assert await rows(none, "SELECT * FROM leads") == await rows(none, "SELECT * FROM lead_tables") == []
    assert [row[0] for row in await rows(acme, "SELECT * FROM lead_tables")] == ["people"]


async def test_a_role_is_the_same_for_the_next_daemon_with_another_password(
    access: BatchAccess, store: PostgresStore, database: str
) -> None:
    first = await access.open("acme", write=False)
    assert await access.open("acme", write=False) is first
    second = await BatchAccess(store, database).open("acme", write=False)
    assert await rows(first, "SELECT session_user") == await rows(second, "SELECT session_user")


ATTACKS = [
    "SELECT * FROM lead",
    "SELECT * FROM lead_2",
    "SELECT * FROM lead_table",
    "SELECT * FROM batch_reader",
    "SELECT * FROM job",
    "SELECT * FROM pg_authid",
    "SELECT pg_read_file('PG_VERSION')",
    "SELECT pg_ls_dir('.')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT set_config('role', 'leadline_expressions', false)",
    "SELECT set_config('session_authorization', '{owner}', false)",
    "SELECT set_config('role', '{owner}', true)",
    "SELECT set_config('session_replication_role', 'replica', true)",
    "SET ROLE {owner}",
    "SET SESSION AUTHORIZATION {owner}",
    "COPY (SELECT 1) TO PROGRAM 'touch {folder}/touched'",
    "COPY leads TO '{folder}/touched'",
    "SELECT run_expression('SELECT 1', '{{}}')",
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_try_advisory_xact_lock(1)",
    'SELECT "pg_advisory_lock"(1)',
    "SELECT PG_Advisory_Lock(1)",
    'SELECT U&"pg\\005fadvisory_lock"(1)',
    "SELECT pg_notify('leadline', '')",
    "SELECT set_config('work_mem', '100GB', false)",
    "SELECT query_to_xml('SELECT pg_advi' || 'sory_lock(1)', true, true, '')",
    "SELECT * FROM ts_stat('SELECT to_tsvector(pg_advi' || 'sory_lock(1)::text)')",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{owner}'",
    "SELECT lo_from_bytea(0, 'mine')",
    "SELECT lo_create(0)",
    "SELECT * FROM pg_settings",
    "SELECT * FROM leads FOR UPDATE",
    "UPDATE leads SET data = '{{}}'",
    "DELETE FROM leads",
    "INSERT INTO lead_tables (name) VALUES ('x')",
    "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "ALTER VIEW leads SET (security_barrier = false)",
    "DO $$ BEGIN PERFORM 1; END $$",
    "SELECT count(*) FROM leads; SELECT * FROM lead",
]


@pytest.mark.parametrize("multi", [False, True])
@pytest.mark.parametrize("sql", ATTACKS)
async def test_an_attack_is_refused(acme: BatchLeads, database: str, sql: str, multi: bool, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    async with meddle(database) as connection:
        owner = await connection.fetchval("SELECT current_user")
        before = await connection.fetch("SELECT * FROM lead ORDER BY table_id, id")
        with pytest.raises(Declined) as refused:
            await acme.run(Query(sql.format(owner=owner, folder=tmp_path), (), multi))
        assert CANARY not in str(refused.value)
        assert await connection.fetch("SELECT * FROM lead ORDER BY table_id, id") == before
    assert list(tmp_path.iterdir()) == []


LOOKS = [
    "SELECT * FROM leads",
    "SELECT * FROM lead_tables",
    "SELECT * FROM leads WHERE true OR table_name = 'x'",
    "SELECT table_to_xml('leads', true, true, '')",
    "SELECT schema_to_xml('public', true, true, '')",
    "SELECT * FROM pg_stats",
    "SELECT * FROM pg_stat_activity",
    "SELECT * FROM pg_roles",
    "SELECT * FROM pg_stat_user_tables",
    "SELECT query FROM pg_stat_activity",
    "EXPLAIN ANALYZE SELECT * FROM leads",
    "SELECT current_setting(name, true) FROM pg_settings",
]


@pytest.mark.parametrize("sql", LOOKS)
async def test_nothing_that_can_be_looked_at_shows_anothers_rows(acme: BatchLeads, sql: str) -> None:
    try:
        said = str(await rows(acme, sql))
    except Declined as error:
        said = str(error)
    assert CANARY not in said


PROBE = "SELECT count(*) FROM leads WHERE 1 / (id - 4) < 1"
"""It fails on a lead that beta has."""


async def test_a_condition_is_not_tried_on_a_row_that_is_not_shown(acme: BatchLeads, database: str) -> None:
    ((role,),) = await rows(acme, "SELECT session_user")
    async with meddle(database) as connection:
        await connection.execute(f"ALTER ROLE {role} SET enable_nestloop = off")
        assert await rows(acme, PROBE) == [[2]]
        await connection.execute("ALTER VIEW leads SET (security_barrier = false)")
    with pytest.raises(QueryFailed, match="division by zero"):
        await rows(acme, PROBE)


async def test_a_write_is_not_allowed_by_its_word(acme: BatchLeads) -> None:
    with pytest.raises(NotAllowed, match="read only"):
        await rows(acme, "DELETE FROM leads")


async def test_who_may_not_make_roles_is_told_what_to_do(database: str) -> None:
    async with meddle(database) as connection:
        await connection.execute("CREATE ROLE plain LOGIN")
        await connection.execute("GRANT leadline TO plain")  # whose rights it has, and not its attributes
        try:
            plain = PostgresStore(database.replace("//leadline@", "//plain@"))
            await plain.take_over(owner="plain", kinds=KINDS)
            with pytest.raises(UnfitDatabase, match="CREATEROLE"):
                await BatchAccess(plain, database).open("acme", write=False)
            await plain.close()
        finally:
            await connection.execute("REASSIGN OWNED BY plain TO leadline; DROP ROLE plain")


async def test_a_password_is_one_for_the_server(database: str) -> None:
    async with meddle(database) as connection:
        await connection.execute(f"CREATE ROLE named LOGIN PASSWORD '{scram_verifier('secret')}'")
        try:
            kept = await connection.fetchval("SELECT rolpassword FROM pg_authid WHERE rolname = 'named'")
            assert kept.startswith("SCRAM-SHA-256$4096:"), "or the server has taken it for the password itself"
        finally:
            await connection.execute("DROP ROLE named")
