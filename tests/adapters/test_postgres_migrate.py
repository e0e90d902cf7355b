"""Migrations: each once, all or nothing, and refused where the database and the code do not agree."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from leadline.adapters.postgres.migrate import MIGRATIONS, Migration, migrate, migration_sql
from leadline.adapters.postgres.pool import Connection
from leadline.adapters.postgres.store import PostgresStore
from leadline.ports.store import SchemaChanged, SchemaTooNew, UnfitDatabase
from tests.contracts.stores import KINDS

ONE = Migration(1, "0001_one", "CREATE TABLE one (n int);")
TWO = Migration(2, "0002_two", "CREATE TABLE two (n int);\nINSERT INTO one VALUES (1);")
BROKEN = Migration(3, "0003_broken", "CREATE TABLE three (n int); SELECT 1 / 0;")


@pytest.fixture
async def connection(empty_database: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(empty_database)
    yield connection
    await connection.close()


async def tables(connection: Connection) -> set[str]:
    found = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    return {row["tablename"] for row in found}


async def test_each_migration_is_applied_once(connection: Connection) -> None:
    assert await migrate(connection, [ONE]) == ["0001_one"]
    assert await migrate(connection, [ONE, TWO]) == ["0002_two"]
    assert await migrate(connection, [ONE, TWO]) == []
    assert await tables(connection) == {"migration", "one", "two"}
    assert await connection.fetchval("SELECT count(*) FROM one") == 1


async def test_a_migration_that_fails_leaves_nothing_behind(connection: Connection) -> None:
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(connection, [ONE, TWO, BROKEN])
    assert await tables(connection) == set()


async def test_a_database_newer_than_the_code_is_refused(connection: Connection) -> None:
    await migrate(connection, [ONE, TWO])
    with pytest.raises(SchemaTooNew, match="0002_two"):
        await migrate(connection, [ONE])


async def test_a_migration_that_was_edited_after_it_was_applied_is_refused(
    connection: Connection,
) -> None:
    await migrate(connection, [ONE])
    edited = Migration(1, "0001_one", ONE.sql + " -- better")
    with pytest.raises(SchemaChanged, match="0001_one"):
        await migrate(connection, [edited, TWO])
    assert await tables(connection) == {"migration", "one"}


async def test_two_that_migrate_at_the_same_time_do_it_once(empty_database: str) -> None:
    connections = [await asyncpg.connect(empty_database) for _ in range(3)]
    done = await asyncio.gather(*(migrate(connection, [ONE, TWO]) for connection in connections))
    assert sorted(map(list, done)) == [[], [], ["0001_one", "0002_two"]]
    for connection in connections:
        await connection.close()


async def test_the_script_for_people_makes_the_same_schema(connection: Connection) -> None:
    async with connection.transaction():
        await connection.execute(migration_sql())
    assert await migrate(connection) == []


async def test_a_daemon_does_not_start_on_a_database_it_does_not_know(empty_database: str) -> None:
    store = PostgresStore(empty_database)
    await store.take_over(owner="first", kinds=KINDS)
    await store.close()
    connection = await asyncpg.connect(empty_database)
    await connection.execute("INSERT INTO migration (number, name, checksum) VALUES (9999, '9999_later', '')")
    await connection.close()
    with pytest.raises(UnfitDatabase, match="9999_later"):
        await store.take_over(owner="first", kinds=KINDS)
    await store.close()


def test_migrations_are_numbered_without_gaps_from_1() -> None:
    assert [migration.number for migration in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))


async def test_runs_from_before_are_in_the_sums_of_their_quarters(connection: Connection) -> None:
    before = next(place for place, each in enumerate(MIGRATIONS) if each.name == "0021_batch_quarters")
    await migrate(connection, MIGRATIONS[:before])
    await connection.execute(
        """
        INSERT INTO batch_run (job, batch_job, teamspace, token, started)
        SELECT job, job % 2, 'acme', job::text::bytea, started
        FROM (VALUES (1, 0), (2, 900000000), (3, 1799999999), (4, 1799999999), (5, NULL)) AS run (job, started);
        INSERT INTO batch_attempt (job, retry, began, timeout_ms, cap_ms, real_ms)
        VALUES (1, 0, 0, 9, 9, 5), (2, 0, 0, 9, 9, 5), (2, 1, 0, 9, 7, NULL), (3, 0, 0, 9, 9, NULL);
        """
    )
    await migrate(connection)
    await connection.execute("INSERT INTO batch_attempt VALUES (4, 0, 0, 9, 8, NULL), (4, 1, 0, 9, 8, 2)")
    await connection.execute("UPDATE batch_run SET started = 9 WHERE job = 5")
    await connection.execute("UPDATE batch_attempt SET real_ms = 6 WHERE job = 3")
    sums = await connection.fetch(
        "SELECT quarter, batch_job, executions, recorded_ms, in_progress_ms FROM batch_quarter ORDER BY 1, 2"
    )
    assert [tuple(row) for row in sums] == [(0, 1, 2, 5, 0), (1, 0, 2, 7, 15), (1, 1, 1, 6, 0)]
