"""What compiled expressions are worth in a real Postgres, over dirty cells: no cell makes a statement fail."""

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leadline.adapters.embedded_postgres import embedded_postgres
from leadline.features.tables.columns import ColumnType
from leadline.features.tables.expressions import compile_expression
from leadline_protocol.errors import Refused

pytestmark = pytest.mark.asyncio(loop_scope="module")

COLUMNS = {
    "n": ColumnType.NUMBER,
    "m": ColumnType.NUMBER,
    "t": ColumnType.TEXT,
    "u": ColumnType.TEXT,
    "d": ColumnType.DATE,
    "ts": ColumnType.TIMESTAMP,
    "b": ColumnType.BOOLEAN,
    "j": ColumnType.JSON,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def connection() -> AsyncIterator["asyncpg.Connection[Any]"]:
    folder = Path(tempfile.mkdtemp(prefix="leadline-test-"))
    folder.chmod(0o755)  # as root, Postgres runs as another user
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    done = asyncio.Event()

    async def serve() -> None:
        # From start to stop in one task: the two halves of a fixture are two, which a cancel scope cannot bear.
        async with embedded_postgres(folder) as postgres:
            address.set_result(postgres.url)
            await done.wait()

    server = asyncio.create_task(serve())
    try:
        server.add_done_callback(lambda _: address.done() or address.cancel())
        connection = await asyncpg.connect(await address)
        await connection.execute("SET timezone = 'UTC'")
        await connection.execute("CREATE TABLE lead (table_id bigint, id bigint, data jsonb)")
        await connection.execute(
            (files("leadline.adapters.postgres") / "migrations" / "0003_expressions.sql").read_text()
        )
        yield connection
        await connection.close()
    finally:
        done.set()
        await server
        shutil.rmtree(folder, ignore_errors=True)


async def evaluate(
    connection: "asyncpg.Connection[Any]", text: str, *leads: dict[str, Any]
) -> list[tuple[object, str | None]]:
    """(the cell that the expression makes, why the lead fails) for each lead, all in one statement."""
    compiled = compile_expression(text, COLUMNS, field="formula")
    rows = await connection.fetch(
        f"SELECT {compiled.json} AS cell, {compiled.fails or 'NULL::text'} AS fails, {compiled.value} IS NULL AS empty"
        " FROM (SELECT $1::text[]) AS given, unnest($2::jsonb[]) WITH ORDINALITY AS lead(data, id) ORDER BY id",
        compiled.parameters,
        [json.dumps(lead) for lead in leads],
    )
    for row in rows:
        assert compiled.fails is not None or row["fails"] is None
    cells = [None if row["cell"] is None or row["fails"] else json.loads(row["cell"]) for row in rows]
    return [(cell, row["fails"]) for cell, row in zip(cells, rows, strict=True)]


CASES: list[tuple[str, dict[str, Any], object, str | None]] = [
    # arithmetic
    ("n + 1", {"n": 41}, 42, None),
    ("5 / 2", {}, 2.5, None),
    ("n / m", {"n": 10, "m": 4}, 2.5, None),
    ("n / m", {"n": 10, "m": 0}, None, "division_by_zero"),
    ("n % m", {"n": 10, "m": 0}, None, "division_by_zero"),
    ("mod(n, 3)", {"n": 10}, 1, None),
    ("n / m", {"n": 10}, None, None),
    ("n / m", {"m": 0}, None, "division_by_zero"),
    ("1 / 0", {}, None, "division_by_zero"),
    ("n * 2 - -3", {"n": 4}, 11, None),
    ("n + 1", {"n": "n/a"}, None, "bad_cast"),
    ("n + 1", {"n": " 7 "}, 8, None),
    ("n + 1", {"n": "00123"}, 124, None),
    ("n + 1", {"n": ""}, None, None),
    ("n + 1", {"n": None}, None, None),
    ("n + 1", {"n": True}, None, "bad_cast"),
    ("n + 1", {"n": [1]}, None, "bad_cast"),
    ("n * n", {"n": 10**39}, None, "out_of_range"),
    ("round(n / 3, 2)", {"n": 10}, 3.33, None),
    ("round(n, -2)", {"n": 1250}, 1300, None),
    ("round(n)", {"n": 2.5}, 3, None),
    ("floor(n) + ceil(n) + abs(-n)", {"n": 1.5}, 4.5, None),
    ("n = 10.0", {"n": 10}, True, None),
    # casts
    ("t::numeric * 2", {"t": "1.50"}, 3, None),
    ("t::numeric", {"t": "1e3"}, 1000, None),
    ("t::numeric", {"t": "NaN"}, None, "bad_cast"),
    ("t::numeric", {"t": "1e400000"}, None, "bad_cast"),
    ("t::numeric", {"t": "9" * 200}, None, "bad_cast"),
    ("t::numeric", {"t": "  "}, None, None),
    ("t::integer", {"t": "7.6"}, 8, None),
    ("t::date", {"t": "2024-02-30"}, None, "bad_cast"),
    ("t::date", {"t": "2024-02-29"}, "2024-02-29", None),
    ("t::date", {"t": "2024-00-10"}, None, "bad_cast"),
    ("t::date", {"t": "0000-01-01"}, None, "bad_cast"),
    ("t::date", {"t": "soon"}, None, "bad_cast"),
    ("t::timestamp", {"t": "2024-01-05 09:00:00.5+05:30"}, "2024-01-05T03:30:00.500000Z", None),
    ("t::timestamp", {"t": "2024-01-05T24:00:00Z"}, None, "bad_cast"),
    ("t::timestamp", {"t": "9999-12-31T23:59:59-14:00"}, None, "out_of_range"),
    ("t::boolean", {"t": "Yes"}, True, None),
    ("t::boolean", {"t": "maybe"}, None, "bad_cast"),
    ("n::text || '!'", {"n": 2.50}, "2.5!", None),
    ("b::int + 1", {"b": True}, 2, None),
    ("b::text", {"b": False}, "false", None),
    ("d::text", {"d": "2024-01-31"}, "2024-01-31", None),
    ("ts::text", {"ts": "2024-01-31T09:00:00Z"}, "2024-01-31T09:00:00Z", None),
    ("ts::date", {"ts": "2024-01-31T23:59:59Z"}, "2024-01-31", None),
    ("d::timestamp", {"d": "2024-01-31"}, "2024-01-31T00:00:00Z", None),
    ("j::text", {"j": {"a": 1}}, '{"a": 1}', None),
    # dates
    ("d + 1", {"d": "2024-02-28"}, "2024-02-29", None),
    ("d - n", {"d": "2024-03-01", "n": 1}, "2024-02-29", None),
    ("d - n", {"d": "2024-03-01", "n": 9e9}, None, "out_of_range"),
    ("d - 900000 - 900000", {"d": "2024-03-01"}, None, "out_of_range"),
    ("d + 900000 + 900000 + 900000", {"d": "9999-12-31"}, None, "out_of_range"),
    ("d - 999999", {"d": "0001-01-01"}, None, "out_of_range"),
    ("d - '2024-01-01'", {"d": "2024-01-31"}, 30, None),
    ("'2024-12-31' - d", {"d": "2024-12-01"}, 30, None),
    ("d > '2024-01-01'", {"d": "31.01.2024"}, None, "bad_cast"),
    ("d < ts", {"d": "2024-01-31", "ts": "2024-01-31T00:00:01Z"}, True, None),
    ("extract(year from d) * 100 + extract(month from d)", {"d": "2024-02-29"}, 202402, None),
    ("extract(hour from ts)", {"ts": "2024-01-31T09:30:00Z"}, 9, None),
    ("current_date > '2020-01-01'", {}, True, None),
    # text
    ("lower(trim(t))", {"t": "  ÄCME  "}, "äcme", None),
    ("trim(leading '0' from t)", {"t": "00120"}, "120", None),
    ("t || ' ' || u", {"t": "a"}, None, None),
    ("concat(t, ' ', n, b, d)", {"t": "a", "n": 1.0, "b": True}, "a 1true", None),
    ("substring(t from 2 for 3)", {"t": "größer"}, "röß", None),
    ("left(t, 1) || right(t, 1) || length(t)", {"t": "größer"}, "gr6", None),
    ("split_part(t, '@', 2)", {"t": "a@b.example"}, "b.example", None),
    ("split_part(t, '@', 3)", {"t": "a@b.example"}, None, None),
    ("replace(t, 'a', 'bb')", {"t": "aXa"}, "bbXbb", None),
    ("replace(t, 'a', u)", {"t": "a" * 60_000, "u": "b" * 60_000}, None, "out_of_range"),
    ("t || t", {"t": "a" * 40_000}, None, "out_of_range"),
    ("starts_with(t, 'A')", {"t": "Acme"}, True, None),
    ("t like 'A%e'", {"t": "Acme"}, True, None),
    ("t not ilike 'a\\_%'", {"t": "A_cme"}, False, None),
    ("t = 'it''s'", {"t": "it's"}, True, None),
    # logic: only what decides is looked at, from left to right
    ("m <> 0 and n / m > 2", {"n": 1, "m": 0}, False, None),
    ("m = 0 or n / m > 2", {"n": 1, "m": 0}, True, None),
    ("n / m > 2 and m <> 0", {"n": 1, "m": 0}, None, "division_by_zero"),
    ("n > 1 and b", {"n": "x", "b": False}, None, "bad_cast"),
    ("case when m = 0 then 0 else n / m end", {"n": 1, "m": 0}, 0, None),
    ("case when n / m > 1 then 'a' else 'b' end", {"n": 1, "m": 0}, None, "division_by_zero"),
    ("case n when 1 then 'one' when 2 then 'two' end", {"n": 2}, "two", None),
    ("case n when 1 then 'one' end", {"n": 2}, None, None),
    ("coalesce(n, 1 / m)", {"n": 5, "m": 0}, 5, None),
    ("coalesce(n, 1 / m)", {"m": 0}, None, "division_by_zero"),
    ("coalesce(1 / m, n)", {"n": 5, "m": 0}, None, "division_by_zero"),
    ("coalesce(t, u, 'none')", {}, "none", None),
    ("nullif(t, '')", {"t": ""}, None, None),
    ("n is null", {}, True, None),
    ("n is null", {"n": "x"}, None, "bad_cast"),
    ("n is not null", {"n": 1}, True, None),
    ("b is not true", {}, True, None),
    ("n is distinct from m", {"n": 1}, True, None),
    ("n in (1, 2, m)", {"n": 3, "m": "x"}, None, "bad_cast"),
    ("n in (1, 2, m)", {"n": 1, "m": "x"}, None, "bad_cast"),
    ("t not in ('a', 'b')", {"t": "c"}, True, None),
    ("n between 1 and 3", {"n": 3}, True, None),
    ("n not between 1 and 3", {"n": 3}, False, None),
    ("not b", {"b": True}, False, None),
    ("j is not null", {"j": [1]}, True, None),
    ("not n > 1 and t = 'a' or b", {"n": 0, "t": "b", "b": True}, True, None),
    ("1 + 2 * 3 - 4 / 2 = 5 and not false", {}, True, None),
]


@pytest.mark.parametrize(("text", "lead", "cell", "fails"), CASES)
async def test_an_expression_is_worth_what_it_says(
    connection: "asyncpg.Connection[Any]", text: str, lead: dict[str, Any], cell: object, fails: str | None
) -> None:
    assert await evaluate(connection, text, lead) == [(cell, fails)]


async def test_one_bad_cell_among_good_ones_fails_one_lead(connection: "asyncpg.Connection[Any]") -> None:
    leads = [{"t": str(i)} for i in range(1000)]
    leads[500] = {"t": "n/a"}
    results = await evaluate(connection, "t::numeric * 2", *leads)
    assert [fails for _, fails in results].count("bad_cast") == 1
    assert results[500] == (None, "bad_cast")
    assert results[999] == (1998, None)


async def test_the_statement_of_a_formula_writes_each_lead_once_and_leaves_the_failed(
    connection: "asyncpg.Connection[Any]",
) -> None:
    """The statement in which formulas run, as the docstring of Compiled allows it."""
    compiled = compile_expression("n / m", COLUMNS, field="formula")
    await connection.execute(
        """INSERT INTO lead SELECT 7, i, jsonb_build_object('n', i, 'm', i % 10) FROM generate_series(1, 100) AS i"""
    )
    status = await connection.execute(
        f"UPDATE lead SET data = jsonb_set(data, ARRAY[$3::text], coalesce({compiled.json}, 'null'))"
        f" FROM (SELECT $1::text[]) AS given WHERE table_id = $2 AND ({compiled.fails}) IS NULL",
        compiled.parameters,
        7,
        "ratio",
    )
    assert status == "UPDATE 90"
    rows = await connection.fetch("SELECT id, data->>'ratio' AS ratio FROM lead WHERE table_id = 7 ORDER BY id")
    assert rows[4]["ratio"] == "1"
    assert [row["id"] for row in rows if row["ratio"] is None] == list(range(10, 101, 10))


DIRT = """x 0 7 -1.5 1e99 1e-99 NaN Infinity true no 2024-02-29 2023-02-29 0000-00-00 9999-12-31 0001-01-01 99999-1-1
2024-01-31T09:00:00Z 9999-12-31T23:59:59.9-14:59 0001-01-01T00:00:00+14:59 0000-01-01T00:00:00Z 2024-1-5 12:00 %
\\ it's {} 1_000 0x1f - ١٢٣"""
CELLS = st.sampled_from(["", " ", "9" * 41, "ß" * 50, *DIRT.split()]) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12
)
VALUES = (
    CELLS
    | st.integers(-(10**39), 10**39)
    | st.floats(-1e30, 1e30).map(lambda x: round(x, 10))
    | st.booleans()
    | st.none()
)
LEADS = st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(COLUMNS, VALUES)), min_size=1, max_size=5)


def _binary(
    operators: list[str], left: st.SearchStrategy[str], right: st.SearchStrategy[str]
) -> st.SearchStrategy[str]:
    return st.tuples(left, st.sampled_from(operators), right).map(lambda parts: f"({' '.join(parts)})")


def _call(template: str, *arguments: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(*arguments).map(lambda parts: template.format(*parts))


number = st.deferred(lambda: LANGUAGE["n"])
text = st.deferred(lambda: LANGUAGE["t"])
date = st.deferred(lambda: LANGUAGE["d"])
moment = st.deferred(lambda: LANGUAGE["ts"])
truth = st.deferred(lambda: LANGUAGE["b"])
LANGUAGE: dict[str, st.SearchStrategy[str]] = {
    "n": st.sampled_from(["n", "m", "0", "1", "2.5", "-3", "0.00000000000000000001", "9" * 40])
    | _binary(["+", "-", "*", "/", "%"], number, number)
    | _call("{}::numeric", text)
    | _call("{}::int", text)
    | _call("round({}, {})", number, st.sampled_from(["0", "20", "-20"]))
    | _call("length({})", text)
    | _call("coalesce({}, {})", number, number)
    | _call("({} - {})", date, date)
    | _call("extract(isodow from {})", date)
    | _call("case when {} then {} else {} end", truth, number, number),
    "t": st.sampled_from(["t", "u", "'x'", "''", "'%'", "'2024-02-29'"])
    | _binary(["||"], text, text)
    | _call("{}::text", number)
    | _call("{}::text", moment)
    | _call("{}::text", date)
    | _call("replace({}, {}, {})", text, text, text)
    | _call("split_part({}, {}, -2)", text, text)
    | _call("substring({}, 2, 3)", text)
    | _call("left({}, -2)", text)
    | _call("trim(both {} from {})", text, text)
    | _call("concat({}, {}, {})", number, date, truth),
    "d": st.sampled_from(["d", "current_date"])
    | _call("{}::date", text)
    | _call("{}::date", moment)
    | _binary(["+", "-"], date, number)
    | _binary(["+", "-"], date, st.just("999999"))
    | _call("nullif({}, {})", date, date),
    "ts": st.sampled_from(["ts"]) | _call("{}::timestamp", text) | _call("{}::timestamp", date),
    "b": st.sampled_from(["b", "true"])
    | _binary(["<", "=", "<>", "is distinct from"], number, number)
    | _binary(["<", "="], moment, date)
    | _binary(["and", "or"], truth, truth)
    | _call("({} in ({}, {}))", number, number, number)
    | _call("({} between {} and {})", date, date, date)
    | _call("({} is null)", date)
    | _call("({} ilike 'a%_\\%')", text)
    | _call("starts_with({}, {})", text, text)
    | _call("not {}", truth)
    | _call("{}::boolean", text),
}


@given(text=st.one_of(number, text, date, moment, truth), leads=LEADS)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
async def test_no_cell_and_no_expression_makes_a_statement_fail(
    connection: "asyncpg.Connection[Any]", text: str, leads: list[dict[str, Any]]
) -> None:
    try:
        results = await evaluate(connection, text, *leads)
    except Refused:
        return
    for cell, fails in results:
        assert fails in {None, "bad_cast", "division_by_zero", "out_of_range"}
        if fails is None and isinstance(cell, int | float):
            assert abs(cell) < 10**40
