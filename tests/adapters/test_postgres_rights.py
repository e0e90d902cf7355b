"""What a role without rights is told to have done for it is enough, on a server that has never seen Leadline."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import pytest

from leadline.adapters.postgres.lead_work import PostgresWork
from leadline.adapters.postgres.leads import PostgresLeads
from leadline.adapters.postgres.migrate import MIGRATIONS, migrate_database
from leadline.adapters.postgres.rights import Rights, missing
from leadline.adapters.postgres.store import PostgresStore
from leadline.features.tables.columns import Column, ColumnType
from leadline.features.tables.expressions import compile_expression
from leadline.features.tables.ports import Table
from leadline.ports.store import UnfitDatabase
from leadline_protocol.ids import JobId, LeadId, TableId
from tests.contracts.stores import KINDS
from tests.postgres import meddle

TOLD = "lacks rights; let an administrator run in its database: "


@pytest.fixture
async def untouched(empty_database: str) -> AsyncIterator[str]:
    """A database on a server without the role of expressions, and with a role `service` that may log in, no more."""
    async with meddle(empty_database) as connection:
        await connection.execute("ALTER ROLE leadline_expressions RENAME TO set_aside; CREATE ROLE service LOGIN")
    yield empty_database
    async with meddle(empty_database) as connection:
        await connection.execute("ALTER SCHEMA public OWNER TO pg_database_owner")
        for role in ("service", "leadline_expressions"):
            if await connection.fetchval("SELECT count(*) FROM pg_roles WHERE rolname = $1", role):
                await connection.execute(
                    f"REASSIGN OWNED BY {role} TO leadline; DROP OWNED BY {role}; DROP ROLE {role}"
                )
        await connection.execute("ALTER ROLE set_aside RENAME TO leadline_expressions")


async def run(url: str, *statements: str) -> None:
    """As an administrator."""
    async with meddle(url) as connection:
        for statement in statements:
            await connection.execute(statement)


def as_service(url: str) -> str:
    return url.replace("//leadline@", "//service@")


OWNER = "ALTER SCHEMA public OWNER TO service"


@pytest.mark.parametrize(
    ("before", "told"),
    [
        (
            [],
            ["GRANT CREATE, USAGE ON SCHEMA public", "CREATE ROLE leadline_expressions", "GRANT leadline_expressions"],
        ),
        ([OWNER], ["CREATE ROLE leadline_expressions", "GRANT leadline_expressions"]),
        ([OWNER, "CREATE ROLE leadline_expressions"], ["GRANT leadline_expressions"]),
        ([OWNER, "CREATE ROLE leadline_expressions", "ALTER ROLE service CREATEROLE"], ["GRANT leadline_expressions"]),
        (
            ["GRANT CREATE ON SCHEMA public TO service", "ALTER ROLE service CREATEROLE"],
            ["GRANT CREATE, USAGE ON SCHEMA public"],
        ),
        (["REVOKE ALL ON SCHEMA public FROM PUBLIC", "ALTER ROLE service CREATEROLE"], ["GRANT CREATE, USAGE"]),
        (
            [
                OWNER,
                "CREATE ROLE leadline_expressions",
                "GRANT leadline_expressions TO service WITH INHERIT FALSE, SET FALSE",
            ],
            ["GRANT leadline_expressions"],
        ),
        ([OWNER, "CREATE ROLE leadline_expressions", "GRANT leadline_expressions TO service"], []),
        ([OWNER, "ALTER ROLE service CREATEROLE"], []),
        ([OWNER, "ALTER ROLE service CREATEROLE NOINHERIT"], []),
    ],
)
async def test_what_a_role_is_told_to_have_done_lets_it_migrate_filter_and_compute(
    untouched: str, before: Sequence[str], told: Sequence[str]
) -> None:
    await run(untouched, *before)
    if told:
        with pytest.raises(UnfitDatabase, match=f"^service {TOLD}") as unfit:
            await migrate_database(as_service(untouched))
        statements = str(unfit.value).removeprefix(f"service {TOLD}").rstrip(";").split("; ")
        assert [said[: len(begin)] for said, begin in zip(statements, told, strict=True)] == told
        await run(untouched, *statements)
    assert len(await migrate_database(as_service(untouched))) == len(MIGRATIONS)
    await run(untouched, "INSERT INTO lead SELECT 1, i, jsonb_build_object('n', i) FROM generate_series(1, 3) AS i")
    store = PostgresStore(as_service(untouched))
    await store.take_over(owner="first", kinds=KINDS)
    columns = {"n": ColumnType.NUMBER}
    people = Table(TableId(1), "acme", "people", (Column("n", ColumnType.NUMBER),), (), datetime.now(UTC))
    where = compile_expression("n > 1", columns, field="where", wants=ColumnType.BOOLEAN)
    frozen, _ = await PostgresLeads(store).freeze_now(people, where, None)
    assert frozen.total == 2
    async with store.write() as connection:
        doubled = compile_expression("n * 2", columns, field="expression")
        assert await PostgresWork(connection, JobId(1), 1).apply(people, [LeadId(3)], "n", doubled) == {}
        assert await connection.fetchval("SELECT data->>'n' FROM lead WHERE id = 3") == "6"
    await store.close()


@pytest.mark.parametrize(
    ("rights", "own", "others"),
    [
        ({}, [], ["CREATE ROLE leadline_expressions NOLOGIN", "GRANT leadline_expressions TO service"]),
        (
            {"makes_roles": True},
            ["CREATE ROLE leadline_expressions NOLOGIN", "GRANT leadline_expressions TO service"],
            [],
        ),
        ({"makes_roles": True, "made": True}, ["GRANT leadline_expressions TO service"], []),
        (
            {"made": True, "inherits": False},
            [],
            ["ALTER ROLE service INHERIT", "GRANT leadline_expressions TO service"],
        ),
        ({"superuser": True, "inherits": False, "lends_schema": False}, [], []),
    ],
)
def test_before_postgres_16_who_makes_roles_makes_members_and_a_role_inherits_all_or_nothing(
    rights: dict[str, bool], own: Sequence[str], others: Sequence[str]
) -> None:
    usual = {"superuser": False, "makes_roles": False, "inherits": True, "lends_schema": True, "made": False}
    of_15 = Rights("service", "public", 150_000, member=False, grants=False, **usual | rights)
    assert missing(of_15) == (own, others)
