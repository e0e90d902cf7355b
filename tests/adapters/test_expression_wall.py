"""The wall behind the parser: SQL of a tenant's own, handed to the store as if it had been compiled, reaches nothing.

Each attack stands where a compiled filter stands. It ends in an error, and nothing is any different afterwards; that
the same SQL would do harm without the wall is shown by running it as the daemon's own role.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import asyncpg
import pytest

from leadline.adapters.postgres import pool
from leadline.adapters.postgres.leads import PostgresLeads
from leadline.adapters.postgres.store import PostgresStore
from leadline.features.tables.columns import ColumnType
from leadline.features.tables.expressions import Compiled, compile_expression
from leadline.features.tables.ports import Table
from leadline.ports.store import Unavailable
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.ids import LeadId, TableId
from tests.contracts.stores import KINDS
from tests.postgres import meddle

PEOPLE = Table(TableId(1), "acme", "people", (), (), datetime.now(UTC))
ALL = [LeadId(1), LeadId(2), LeadId(3)]


def raw(sql: str) -> Compiled:
    """A filter that no compiler has written."""
    return Compiled(sql, None, sql, true_is_sound=True, json="", parameters=(), type=ColumnType.BOOLEAN, columns=())


@pytest.fixture
async def leads(database: str) -> AsyncIterator[PostgresLeads]:
    async with meddle(database) as connection:
        await connection.execute("INSERT INTO lead SELECT 1, i, '{}' FROM generate_series(1, 3) AS i")
        await connection.execute("INSERT INTO lead_table (teamspace, name) VALUES ('beta', 'secret')")
        await connection.execute("CREATE EXTENSION dblink")
    store = PostgresStore(database)
    await store.take_over(owner="under attack", kinds=KINDS)
    yield PostgresLeads(store)
    await store.close()


ATTACKS = {
    "another table": "EXISTS (SELECT FROM lead_table)",
    "a table of the queue": "(SELECT count(*) FROM job) >= 0",
    "the keys of leads": "EXISTS (SELECT FROM lead_key) IS NOT NULL",
    "the passwords of the server": "EXISTS (SELECT FROM pg_authid)",
    "a file of the server": "pg_read_file('PG_VERSION') IS NOT NULL",
    "a directory of the server": "pg_ls_dir('.') IS NOT NULL",
    "a number of a sequence": "nextval('lead_table_id_seq') > 0",
    "another database": "EXISTS (SELECT FROM dblink('dbname=postgres', 'SELECT 1') AS found (one int))",
    "the role that was, by a function": "set_config('role', 'none', true) IS NOT NULL",
    "the role that was, for the session": "set_config('role', 'none', false) IS NOT NULL",
    "another session's user": "set_config('session_authorization', session_user, true) IS NOT NULL",
    "a query within, after a change of role": (
        "CASE WHEN set_config('role', 'none', true) IS NOT NULL"
        " THEN EXISTS (SELECT FROM ts_stat('SELECT to_tsvector(name) FROM lead_table')) END"
    ),
    "a query within": "EXISTS (SELECT FROM ts_stat('SELECT to_tsvector(name) FROM lead_table'))",
    "the end of another session": (
        "(SELECT bool_or(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid())"
    ),
    "a second statement that deletes": "true; DELETE FROM lead",
    "a second statement that drops": "true; DROP TABLE lead",
    "a second statement that changes the role": "true; SET ROLE NONE",
    "a second statement that ends the transaction": "true; COMMIT",
    "a second statement that makes a table": "true; CREATE TABLE mine (x int)",
    "a second statement that lends a right": "true; GRANT ALL ON lead TO PUBLIC",
    "a write within": "true), gone AS (DELETE FROM lead RETURNING id) SELECT id FROM gone WHERE (true",
    "a program of the server": "true; COPY (SELECT 1) TO PROGRAM 'touch /tmp/leadline-was-here'",
    "a lock on another table": "true; LOCK TABLE leader",
    "code": "true; DO $$ BEGIN PERFORM 1 FROM job; END $$",
}


@pytest.mark.parametrize("sql", ATTACKS.values(), ids=ATTACKS.keys())
@pytest.mark.parametrize("way", ["a list", "a condition"])
async def test_sql_that_got_past_the_parser_reaches_nothing(
    leads: PostgresLeads, database: str, way: str, sql: str
) -> None:
    before = await everything(database)
    with pytest.raises((asyncpg.PostgresError, Unavailable)):
        await (leads.freeze_now(PEOPLE, raw(sql), None) if way == "a list" else leads.matching(PEOPLE, ALL, raw(sql)))
    assert await everything(database) == before
    job_list, _ = await leads.freeze_now(PEOPLE, compile_expression("1 = 1", {}, field="where"), None)
    assert job_list.total == 3, "the store goes on as if nothing had been"


async def everything(database: str) -> list[object]:
    """What an attack might have changed."""
    async with meddle(database) as connection:
        tables = await connection.fetch("SELECT relname, relacl::text FROM pg_class ORDER BY oid")
        rows = await connection.fetch("SELECT * FROM lead ORDER BY id")
        return [*tables, *rows, await connection.fetchval("SELECT last_value FROM lead_table_id_seq")]


async def test_the_same_sql_would_do_harm_without_the_wall(leads: PostgresLeads, database: str) -> None:
    """The role alone, as SET ROLE gives it, holds nobody who can change it back."""
    async with meddle(database) as connection, connection.transaction():
        await connection.execute("SET LOCAL ROLE leadline_expressions")
        assert await connection.fetchval(f"SELECT {ATTACKS['a query within, after a change of role']}")


async def test_a_lead_is_all_that_the_role_may_read_and_its_data_all_that_it_may_write(database: str) -> None:
    async with meddle(database) as connection:
        granted = await connection.fetch(
            """
            SELECT class.relname, acl.privilege_type, NULL AS attname
            FROM pg_class AS class, aclexplode(class.relacl) AS acl
            WHERE acl.grantee = 'leadline_expressions'::regrole
            UNION ALL
            SELECT class.relname, acl.privilege_type, attribute.attname
            FROM pg_class AS class JOIN pg_attribute AS attribute ON attribute.attrelid = class.oid,
                aclexplode(attribute.attacl) AS acl
            WHERE acl.grantee = 'leadline_expressions'::regrole
            """
        )
        assert {tuple(row) for row in granted} == {("lead", "SELECT", None), ("lead", "UPDATE", "data")}
        can_create = "SELECT has_schema_privilege('leadline_expressions', 'public', 'CREATE')"
        assert not await connection.fetchval(can_create)
        anybody = "SELECT has_function_privilege('pg_monitor', 'run_expression(text, text[])', 'EXECUTE')"
        assert not await connection.fetchval(anybody), "who may run it has the rights of the role"


async def test_a_function_that_was_restored_without_its_owner_lends_nobodys_rights(
    leads: PostgresLeads, database: str
) -> None:
    async with meddle(database) as connection:
        await connection.execute("ALTER FUNCTION run_expression OWNER TO CURRENT_USER")
    with pytest.raises(Unavailable, match="does not belong to leadline_expressions"):
        await leads.freeze_now(PEOPLE, None, None)


@pytest.mark.parametrize(
    "sql",
    [
        "pg_sleep(600) IS NOT NULL",
        "set_config('statement_timeout', '0', true) IS NOT NULL AND pg_sleep(600) IS NOT NULL",
        "(SELECT count(*) FROM generate_series(1, 1000000000000)) > 0",
    ],
)
async def test_what_takes_too_long_is_given_up_and_is_the_expressions_fault(
    database: str, monkeypatch: pytest.MonkeyPatch, sql: str
) -> None:
    """Not the database's: who waits for a database that is lost would wait, and try again, for ever."""
    async with meddle(database) as connection:
        await connection.execute("INSERT INTO lead VALUES (1, 1, '{}')")
    store = PostgresStore(database)
    await store.take_over(owner="patient", kinds=KINDS)
    assert store._reign is not None
    monkeypatch.setitem(pool.SETTINGS, "statement_timeout", "300ms")
    store._reign.workers = await store._connections.workers()
    with pytest.raises(Refused, match="statement timeout") as refused:
        await PostgresLeads(store).freeze_now(PEOPLE, raw(sql), None)
    assert (refused.value.code, refused.value.at) == (ErrorCode.BAD_EXPRESSION, "where")
    await store.close()
