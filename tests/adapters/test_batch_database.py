"""SQL of tenants' own code on a real server: what comes back, what is refused, and what it may not take."""

from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from leadline.adapters.postgres import batch_database
from leadline.adapters.postgres.batch_database import BatchDatabase, first_word, split
from leadline.features.batch.request_ports import BadRequest, Declined, Query, QueryFailed, Rows, Written


def query(sql: str, *parameters: Any, multi: bool = False) -> Query:
    return Query(sql, parameters, multi)


def values(found: Rows | Written) -> list[Any]:
    assert isinstance(found, Rows)
    return [msgspec.json.decode(each) for each in found.rows]


@pytest.fixture
async def etl(empty_database: str) -> AsyncIterator[str]:
    """A database of the tenant's own, in which the tenant is a superuser."""
    connection = await asyncpg.connect(empty_database)
    await connection.execute("CREATE TABLE sale (id int, price numeric); INSERT INTO sale VALUES (1, 1.10), (2, 2)")
    yield empty_database
    while await connection.fetchval("SELECT count(*) FROM pg_stat_activity WHERE application_name ~ 'batch'"):
        await connection.execute("SELECT pg_sleep(0.01)")  # the server is told of an end, and sees to it in time
    await connection.close()


@pytest.fixture
def reading(etl: str) -> BatchDatabase:
    return BatchDatabase(etl, write=False)


@pytest.fixture
def writing(etl: str) -> BatchDatabase:
    return BatchDatabase(etl, write=True)


async def test_rows_come_with_their_columns(reading: BatchDatabase) -> None:
    found = await reading.run(query("SELECT id, price FROM sale WHERE id > $1 ORDER BY id;", 0))
    assert found == Rows([("id", "other"), ("price", "decimal")], [msgspec.Raw(b'[1,"1.10"]'), msgspec.Raw(b'[2,"2"]')])


@pytest.mark.parametrize(
    ("expression", "kind", "value"),
    [
        ("true", "other", True),
        ("1::bigint", "other", 1),
        ("1.5::float", "other", 1.5),
        ("'NaN'::float", "other", None),
        ("'é'::text", "other", "é"),
        ("NULL", "other", None),
        ("'2026-03-01 12:00+02'::timestamptz", "timestamp", "2026-03-01T10:00:00+00:00"),
        ("'2026-03-01 12:00'::timestamp", "timestamp", "2026-03-01T12:00:00"),
        ("'2026-03-01'::date", "date", "2026-03-01"),
        ("12345678901234567890.10", "decimal", "12345678901234567890.10"),
        ("'\\x00ff'::bytea", "bytes", "AP8="),
        ("""'{"a": [1, null]}'::jsonb""", "other", {"a": [1, None]}),
        ("'null'::json", "other", None),
        ("ARRAY[1, NULL]", "other", [1, None]),
        ("'6f2cbb6a-0000-4000-8000-000000000000'::uuid", "other", "6f2cbb6a-0000-4000-8000-000000000000"),
        ("ROW(1, 'a')", "other", [1, "a"]),
        ("'10.0.0.0/8'::cidr", "other", "10.0.0.0/8"),
    ],
)
async def test_each_value_has_a_form(reading: BatchDatabase, expression: str, kind: str, value: object) -> None:
    found = await reading.run(query(f"SELECT {expression} AS v"))
    assert isinstance(found, Rows)
    assert (found.columns, values(found)) == ([("v", kind)], [[value]])


@pytest.mark.parametrize(
    ("cast", "parameter", "value"),
    [
        ("text", "a'; DROP TABLE sale; --", "a'; DROP TABLE sale; --"),
        ("int", 3, 3),
        ("bool", True, True),
        ("float", 1, 1),
        ("numeric", "1.10", "1.10"),
        ("numeric", 1.5, "1.5"),
        ("date", "2026-03-01", "2026-03-01"),
        ("timestamptz", "2026-03-01T12:00:00+02:00", "2026-03-01T10:00:00+00:00"),
        ("jsonb", '{"a": 1}', {"a": 1}),
        ("text", None, None),
    ],
)
async def test_parameters_are_values_and_never_sql(
    reading: BatchDatabase, cast: str, parameter: object, value: object
) -> None:
    assert values(await reading.run(query(f"SELECT $1::{cast}", parameter))) == [[value]]


@pytest.mark.parametrize(
    ("sql", "parameters", "error"),
    [
        ("SELECT $1::int", ("a",), QueryFailed),
        ("SELECT $1::date", ("a",), BadRequest),
        ("SELECT $1::numeric", ("a",), BadRequest),
        ("SELECT 1", (1,), BadRequest),
        ("SELECT $1::int", (), BadRequest),
        ("SELECT 'a\0b'", (), Declined),
        ("SELECT $1::text", ("a\0b",), Declined),
        ("SELECT", (1,), BadRequest),
        ("", (), BadRequest),
        ("-- nothing", (), BadRequest),
        ("SELECT missing", (), QueryFailed),
        ("SELECT '294276-01-01'::timestamp", (), QueryFailed),
        ("WITH", (), QueryFailed),
    ],
)
async def test_what_is_wrong_is_told(
    reading: BatchDatabase, sql: str, parameters: Sequence[Any], error: type[Declined]
) -> None:
    with pytest.raises(error):
        await reading.run(query(sql, *parameters))


WRITES = [
    "INSERT INTO sale VALUES (3, 3)",
    "UPDATE sale SET price = 0",
    "DELETE FROM sale",
    "TRUNCATE sale",
    "DROP TABLE sale",
    "CREATE TABLE mine (x int)",
    "CREATE TEMP TABLE mine (x int)",
    "SELECT * INTO mine FROM sale",
    "WITH gone AS (DELETE FROM sale RETURNING id) SELECT * FROM gone",
    "EXPLAIN ANALYZE DELETE FROM sale",
    "EXPLAIN ANALYZE CREATE TABLE mine AS SELECT 1",
    "EXPLAIN ANALYZE CREATE TEMP TABLE mine AS SELECT 1",
    "SELECT lo_from_bytea(0, 'mine')",
    "SELECT nextval('number')",
    "SELECT set_config('transaction_read_only', 'off', true); DELETE FROM sale",
    "SELECT set_config('default_transaction_read_only', 'off', false); DELETE FROM sale",
    "SELECT 1 FROM sale FOR UPDATE",
    "SET TRANSACTION READ WRITE; DELETE FROM sale",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE; DELETE FROM sale",
    "COMMIT; DELETE FROM sale",
    "COMMIT AND CHAIN; SET TRANSACTION READ WRITE; DELETE FROM sale",
    "/* /* */ SELECT */ COMMIT; DELETE FROM sale",
    "ROLLBACK; BEGIN; DELETE FROM sale; COMMIT",
    "PREPARE TRANSACTION 'x'",
    "DO $$ BEGIN DELETE FROM sale; END $$",
    "CALL something()",
    "COPY sale FROM PROGRAM 'echo 3,3'",
    "COPY (SELECT 1) TO PROGRAM 'touch {folder}/touched'",
    "COPY (SELECT 1) TO '{folder}/touched'",
    "SELECT 1; SELECT set_config('transaction_read_only', 'off', false); SELECT * INTO mine FROM sale",
    "SET ROLE postgres",
    "SET SESSION AUTHORIZATION postgres",
    "LISTEN x",
    "LOCK TABLE sale",
]


@pytest.mark.parametrize("multi", [False, True])
@pytest.mark.parametrize("sql", WRITES)
async def test_who_may_read_changes_nothing(
    reading: BatchDatabase, etl: str, sql: str, multi: bool, tmp_path: Path
) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(Declined):
        await reading.run(query(sql.format(folder=tmp_path), multi=multi))
    connection = await asyncpg.connect(etl)
    assert await connection.fetchval("SELECT sum(price) FROM sale") == Decimal("3.10")
    assert await connection.fetchval("SELECT to_regclass('mine')") is None
    await connection.close()
    assert list(tmp_path.iterdir()) == []


async def test_the_words_are_not_all_that_keeps_a_reader_from_writing(
    reading: BatchDatabase, etl: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_database, "READING", batch_database.READING | {"SET", "COMMIT", "DELETE", "DO"})
    monkeypatch.setattr(batch_database, "WRITING", frozenset())
    for sql in (
        "DELETE FROM sale",
        "SET TRANSACTION READ WRITE; DELETE FROM sale",
        "COMMIT; DELETE FROM sale",
        "COMMIT AND CHAIN; SET TRANSACTION READ WRITE; DELETE FROM sale",
        "DO $$ BEGIN COMMIT; DELETE FROM sale; END $$",
    ):
        with pytest.raises(Declined):
            await reading.run(query(sql, multi=True))
    assert values(await reading.run(query("SELECT count(*) FROM sale"))) == [[2]]


async def test_who_may_write_does(writing: BatchDatabase) -> None:
    assert await writing.run(query("INSERT INTO sale VALUES ($1, $2), (4, 4)", 3, "3.5")) == Written(2)
    assert values(await writing.run(query("UPDATE sale SET price = 0 WHERE id > 2 RETURNING id"))) == [[3], [4]]
    assert await writing.run(query("CREATE TABLE mine (x int)")) == Written(0)


async def test_several_statements_are_all_or_none(writing: BatchDatabase) -> None:
    sql = "INSERT INTO sale VALUES (3, 3); /* ; */ ; SELECT ';', count(*) FROM sale -- ;"
    assert values(await writing.run(query(sql, multi=True))) == [[";", 3]]
    with pytest.raises(QueryFailed):
        await writing.run(query("DELETE FROM sale; SELECT missing", multi=True))
    with pytest.raises(Declined):
        await writing.run(query("DELETE FROM sale; COMMIT; SELECT missing", multi=True))
    with pytest.raises(QueryFailed, match="multiple commands"):
        await writing.run(query("DELETE FROM sale; SELECT 1"))
    with pytest.raises(BadRequest):
        await writing.run(query("SELECT $1::int; SELECT 1", 1, multi=True))
    assert values(await writing.run(query("SELECT count(*) FROM sale"))) == [[3]]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT repeat('x', 200000000)",
        "SELECT repeat('x', 1000) FROM generate_series(1, 1000000)",
        "SELECT 1; SELECT repeat('x', 200000000)",
    ],
)
async def test_what_comes_back_is_bounded_before_it_is_there(reading: BatchDatabase, sql: str) -> None:
    with pytest.raises(QueryFailed, match="larger than"):
        await reading.run(query(sql, multi=True))


async def test_time_is_bounded(reading: BatchDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_database, "SECONDS_MAX", 0.3)
    sql = "SELECT set_config('statement_timeout', '0', false); SELECT pg_sleep(600)"
    with pytest.raises(QueryFailed, match="took longer"):
        await reading.run(query(sql, multi=True))


async def test_nothing_is_left_of_one_query_for_the_next(writing: BatchDatabase) -> None:
    await writing.run(query("SELECT set_config('leadline.kept', 'x', false), pg_advisory_lock(1)"))
    assert values(await writing.run(query("SELECT current_setting('leadline.kept', true)"))) == [[None]]
    assert values(await writing.run(query("SELECT pg_try_advisory_lock(1)"))) == [[True]]


async def test_a_database_that_is_not_there_is_told_without_its_address(tmp_path: Path) -> None:
    database = BatchDatabase(f"postgresql://me:secret@/x?host={tmp_path}", write=False)
    with pytest.raises(QueryFailed, match=r"^the database cannot be reached$"):
        await database.run(query("SELECT 1"))


@pytest.mark.parametrize(
    ("sql", "statements"),
    [
        ("a;b", ["a", "b"]),
        (" ; a ;; ", [" a "]),
        ("a';''b'';'c; d", ["a';''b'';'c", " d"]),
        ("""a";" ; $$;$$ ; $x$;$$;$x$; $1;""", ['a";" ', " $$;$$ ", " $x$;$$;$x$", " $1"]),
        (r"e'\';' ; '\' ; b", [r"e'\';' ", r" '\' ", " b"]),
        ("a$b$;$b$c", ["a$b$", "$b$c"]),
        ("-- ;\n a /* ; /* ; */ ; */ b", ["-- ;\n a /* ; /* ; */ ; */ b"]),
        ("'never ends ; a", ["'never ends ", " a"]),
        ("/* never ; ends", []),
    ],
)
def test_a_text_is_split_where_statements_end(sql: str, statements: list[str]) -> None:
    assert list(split(sql)) == statements


@given(st.text(alphabet=" ;'\"$/*-e\\ax1\n", max_size=40))
@example("$a$")
def test_nothing_gets_lost_between_statements(sql: str) -> None:
    place = 0
    for statement in [*split(sql), ""]:
        begin = sql.index(statement, place) if statement else len(sql)
        assert first_word(sql[place:begin].replace(";", " ")) == "", "what is left out says nothing"
        place = begin + len(statement)
        assert first_word(statement) or not statement
