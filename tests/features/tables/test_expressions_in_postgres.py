"""What compiled expressions are worth in a real Postgres, over dirty cells: no cell makes a statement fail."""

import asyncio
import calendar
import datetime as dt
import json
import math
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, Phase, given, settings
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
    "e": ColumnType.DATE,
    "k": ColumnType.NUMBER,
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
        for name in ("0003_expressions", "0013_functions"):
            migration = files("leadline.adapters.postgres") / "migrations" / f"{name}.sql"
            await connection.execute(migration.read_text())
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
        f"SELECT {compiled.json} AS cell, {compiled.fails or 'NULL::text'} AS fails, {compiled.value} IS NULL AS empty,"
        f" {compiled.sound} AS sound, to_jsonb({compiled.value}) = 'true' AS true"
        " FROM (SELECT $1::text[]) AS given, unnest($2::jsonb[]) WITH ORDINALITY AS lead(data, id) ORDER BY id",
        compiled.parameters,
        [json.dumps(lead) for lead in leads],
    )
    for row in rows:
        assert compiled.fails is not None or row["fails"] is None
        assert (row["sound"] is True) == (row["cell"] is not None and row["fails"] is None)
        assert not (compiled.true_is_sound and row["true"] and row["fails"])
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
    ("initcap(t)", {"t": "ada LOVELACE"}, "Ada Lovelace", None),
    ("lpad(t, 5, '0') || rpad(t, 3)", {"t": "42"}, "0004242 ", None),
    ("lpad(t, 5, '')", {"t": "42"}, "42", None),
    ("reverse(t)", {"t": "größe"}, "eßörg", None),
    ("position('b' in t) * 10 + strpos(t, 'z')", {"t": "abc"}, 20, None),
    ("contains(t, u)", {"t": "abc", "u": "bc"}, True, None),
    ("contains(t, '')", {"t": "abc"}, True, None),
    ("ends_with(t, 'bc')", {"t": "abc"}, True, None),
    ("ends_with(t, u)", {"t": "abc", "u": "xabc"}, False, None),
    ("email_domain(t)", {"t": " Ada@Analytical.Example "}, "analytical.example", None),
    ("email_domain(t)", {"t": "a@b@c.example"}, None, None),
    ("email_domain(t)", {"t": "nobody"}, None, None),
    ("domain_of(t)", {"t": "https://user:pw@WWW.Example.com:8080/a?b=http://c#d"}, "example.com", None),
    ("domain_of(t)", {"t": "www.example.com/about"}, "example.com", None),
    ("domain_of(t)", {"t": "example.com?x=1"}, "example.com", None),
    ("domain_of(t)", {"t": "  "}, None, None),
    # the later numbers
    ("greatest(n, m, 3)", {"n": 1, "m": 2}, 3, None),
    ("least(n, m)", {"n": 1}, 1, None),
    ("greatest(n, m)", {"n": 1, "m": "x"}, None, "bad_cast"),
    ("greatest(t, 'b')", {"t": "a"}, "b", None),
    ("greatest(d, '2024-01-01')", {"d": "2023-01-01"}, "2024-01-01", None),
    ("sign(n)", {"n": -2.5}, -1, None),
    ("trunc(n) + trunc(m, 1)", {"n": -1.9, "m": 2.39}, 1.3, None),
    ("power(n, 3)", {"n": -2}, -8, None),
    ("power(n, 0)", {"n": 0}, 1, None),
    ("power(n, 10)", {"n": 10**30}, None, "out_of_range"),
    ("power(power(power(power(n, 10), 10), 10), 10)", {"n": 10**39}, None, "out_of_range"),
    # the later dates
    ("date_add('month', 1, d)", {"d": "2024-01-31"}, "2024-02-29", None),
    ("date_add('month', -1, d)", {"d": "2024-03-31"}, "2024-02-29", None),
    ("date_add('year', n, d)", {"d": "2024-02-29", "n": 1}, "2025-02-28", None),
    ("date_add('quarter', 1.9, d)", {"d": "2024-01-31"}, "2024-04-30", None),
    ("date_add('week', 2, d)", {"d": "2024-02-20"}, "2024-03-05", None),
    ("date_add('year', n, d)", {"d": "2024-02-29", "n": 8000}, None, "out_of_range"),
    ("date_add('year', n, d)", {"d": "2024-02-29", "n": -2024}, None, "out_of_range"),
    ("date_add('year', n, d)", {"d": "2024-02-29", "n": 1e30}, None, "out_of_range"),
    ("date_add('month', 1, d)", {"d": "soon"}, None, "bad_cast"),
    ("date_add('month', 1, '2024-01-31')", {}, "2024-02-29", None),
    ("date_add('hour', 25, ts)", {"ts": "2024-02-28T23:30:00.25Z"}, "2024-03-01T00:30:00.250000Z", None),
    ("date_add('month', 1, ts)", {"ts": "2024-01-31T23:30:00Z"}, "2024-02-29T23:30:00Z", None),
    ("date_add('second', n, ts)", {"ts": "9999-12-31T23:59:59.9Z", "n": 1}, None, "out_of_range"),
    ("date_diff('day', d, '2024-03-01')", {"d": "2024-02-01"}, 29, None),
    ("date_diff('week', d, '2024-02-14')", {"d": "2024-02-01"}, 1, None),
    ("date_diff('month', d, '2024-02-29')", {"d": "2024-01-31"}, 0, None),
    ("date_diff('month', d, '2023-11-30')", {"d": "2024-01-31"}, -2, None),
    ("date_diff('year', d, '2024-02-28')", {"d": "2000-02-29"}, 23, None),
    ("date_diff('hour', ts, d)", {"ts": "2024-01-31T09:30:00Z", "d": "2024-02-01"}, 14, None),
    ("date_trunc('month', d)", {"d": "2024-02-29"}, "2024-02-01", None),
    ("date_trunc('week', d)", {"d": "2024-02-29"}, "2024-02-26", None),
    ("date_trunc('hour', ts)", {"ts": "2024-01-31T09:30:00Z"}, "2024-01-31T09:00:00Z", None),
    ("date_trunc('year', d - 999999)", {"d": "0001-01-01"}, None, "out_of_range"),
    ("to_date(t, 'DD/MM/YYYY')", {"t": "5/2/2024"}, "2024-02-05", None),
    ("to_date(t, 'mm/dd/yyyy')", {"t": " 02/05/2024 "}, "2024-02-05", None),
    ("to_date(t, 'YYYY MM DD')", {"t": "2024 2 5"}, "2024-02-05", None),
    ("to_date(t, 'DD/MM/YYYY')", {"t": "30/02/2024"}, None, "bad_cast"),
    ("to_date(t, 'DD/MM/YYYY')", {"t": "5-2-2024"}, None, "bad_cast"),
    ("to_date(t, 'DD/MM/YYYY')", {"t": "5//022024"}, None, "bad_cast"),
    ("to_date(t, 'DD/MM/YYYY')", {"t": "0/2/2024"}, None, "bad_cast"),
    ("to_date(t, 'DD-MM-YYYY')", {"t": "-5-2024"}, None, "bad_cast"),
    ("to_date(t, 'DD/MM/YYYY')", {"t": ""}, None, None),
    # JSON
    ("json_get(j, 'a.1')", {"j": {"a": [1, {"b": 2}]}}, {"b": 2}, None),
    ("json_get(j, 'a.1.b')::numeric + 1", {"j": {"a": [1, {"b": 2}]}}, 3, None),
    ("json_get(j, 'a.9')", {"j": {"a": [1]}}, None, None),
    ("json_get(j, 'a')", {"j": {"a": None}}, None, None),
    ("json_get(j, 'a')", {"j": "just text"}, None, None),
    ("json_get(j, 'a')::numeric", {"j": {"a": "x"}}, None, "bad_cast"),
    ("json_text(j, 'a.0')", {"j": {"a": ["x"]}}, "x", None),
    ("json_text(j, 'a')", {"j": {"a": [1, 2]}}, "[1, 2]", None),
    ("json_length(json_get(j, 'a'))", {"j": {"a": [1, 2]}}, 2, None),
    ("json_length(j)", {"j": {"a": 1}}, None, None),
    ("json_length('{}')", {}, None, None),
    ("json_contains(j, 'x')", {"j": ["x", 1]}, True, None),
    ("json_contains(j, 2)", {"j": ["x", 1]}, False, None),
    ("json_contains(j, true)", {"j": [True]}, True, None),
    ("coalesce(j, '[]')", {}, [], None),
    ("j", {"j": {"a": 1}}, {"a": 1}, None),
    # what a cell can be read as
    ("is_number(n)", {"n": "x"}, False, None),
    ("is_number(n)", {"n": 7}, True, None),
    ("is_number(t)", {"t": " 1e3 "}, True, None),
    ("is_number(t)", {}, False, None),
    ("is_number(json_get(j, 'a'))", {"j": {"a": "12"}}, True, None),
    ("is_number(1 / m)", {"m": 0}, None, "division_by_zero"),
    ("is_date(d)", {"d": "31.01.2024"}, False, None),
    ("is_date(t)", {"t": "2024-02-29"}, True, None),
    ("is_timestamp(t)", {"t": "2024-02-29"}, True, None),
    ("is_boolean(t)", {"t": "maybe"}, False, None),
    # logic: only what decides is looked at, from left to right
    ("m <> 0 and n / m > 2", {"n": 1, "m": 0}, False, None),
    ("m = 0 or n / m > 2", {"n": 1, "m": 0}, True, None),
    ("n / m > 2 and m <> 0", {"n": 1, "m": 0}, None, "division_by_zero"),
    ("n > 1 and b", {"n": "x", "b": False}, None, "bad_cast"),
    ("n > 1 or b", {"n": "x", "b": True}, None, "bad_cast"),
    ("b and (n > 1 or b)", {"n": "x", "b": True}, None, "bad_cast"),
    ("not (n > 1 and b)", {"n": "x", "b": False}, None, "bad_cast"),
    ("b or n > 1", {"n": "x", "b": True}, True, None),
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
JSON_VALUES = st.recursive(VALUES, lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.just("a"), inside))
LEADS = st.lists(
    st.fixed_dictionaries({}, optional=dict.fromkeys(COLUMNS, VALUES) | {"j": VALUES | JSON_VALUES}),
    min_size=1,
    max_size=5,
)


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
json_value = st.deferred(lambda: LANGUAGE["j"])
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
    | _call("case when {} then {} else {} end", truth, number, number)
    | _call("power({}, {})", number, st.sampled_from(["0", "3", "10"]))
    | _call("trunc({}, {})", number, st.sampled_from(["0", "20", "-20"]))
    | _call("greatest({}, {})", number, number)
    | _call("position({} in {})", text, text)
    | _call("date_diff('{}', {}, {})", st.sampled_from(["day", "week", "month", "year"]), date, date)
    | _call("date_diff('{}', {}, {})", st.sampled_from(["second", "day", "quarter"]), moment, moment)
    | _call("json_length({})", json_value),
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
    | _call("concat({}, {}, {})", number, date, truth)
    | _call("lpad({}, 1000, {})", text, text)
    | _call("reverse(initcap({}))", text)
    | _call("email_domain({})", text)
    | _call("domain_of({})", text)
    | _call("json_text({}, 'a.0')", json_value),
    "d": st.sampled_from(["d", "current_date"])
    | _call("{}::date", text)
    | _call("{}::date", moment)
    | _binary(["+", "-"], date, number)
    | _binary(["+", "-"], date, st.just("999999"))
    | _call("nullif({}, {})", date, date)
    | _call("date_add('{}', {}, {})", st.sampled_from(["day", "week", "month", "year"]), number, date)
    | _call("date_trunc('{}', {})", st.sampled_from(["week", "quarter", "year"]), date)
    | _call("to_date({}, '{}')", text, st.sampled_from(["YYYY-MM-DD", "DD/MM/YYYY", "MM DD YYYY"])),
    "ts": st.sampled_from(["ts"])
    | _call("{}::timestamp", text)
    | _call("{}::timestamp", date)
    | _call("date_add('{}', {}, {})", st.sampled_from(["second", "day", "month"]), number, moment)
    | _call("date_trunc('{}', {})", st.sampled_from(["second", "hour", "week"]), moment),
    "j": st.sampled_from(["j", "'[]'"]) | _call("json_get({}, 'a.0')", json_value),
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
    | _call("contains({}, {})", text, text)
    | _call("ends_with({}, {})", text, text)
    | _call("json_contains({}, {})", json_value, number)
    | _call("is_number({})", text)
    | _call("is_date({})", st.sampled_from(["d", "n", "j", "t"]))
    | _call("{}::boolean", text),
}


@given(text=st.one_of(number, text, date, moment, truth), leads=LEADS)
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
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


def _months_later(months: int, date: dt.date) -> object:
    year, month = divmod(12 * date.year + date.month - 1 + months, 12)
    if not 1 <= year <= 9999:
        return "out_of_range"
    return dt.date(year, month + 1, min(date.day, calendar.monthrange(year, month + 1)[1])).isoformat()


def _days_later(days: int, date: dt.date) -> object:
    try:
        return (date + dt.timedelta(days)).isoformat()
    except OverflowError:
        return "out_of_range"


def _months_between(start: dt.date, end: dt.date) -> int:
    """Counted as a calendar does: a month is over on the day of the same number."""
    if end < start:
        return -_months_between(end, start)
    return 12 * (end.year - start.year) + end.month - start.month - (end.day < start.day)


def _toward_zero(number: Decimal, step: str) -> Decimal:
    return number.quantize(Decimal(step), ROUND_DOWN)


def _padded(text: str, length: int, fill: str) -> str:
    return text[:length] if len(text) >= length else (fill * length)[: length - len(text)] + text


ORACLES: dict[str, Callable[..., object]] = {
    "abs(n)": abs,
    "sign(n)": lambda n: (n > 0) - (n < 0),
    "floor(n) * 10 + ceil(n)": lambda n: math.floor(n) * 10 + math.ceil(n),
    "round(n, 1)": lambda n: n.quantize(Decimal("0.1"), ROUND_HALF_UP),
    "trunc(n, 1)": lambda n: _toward_zero(n, "0.1"),
    "mod(n, m)": lambda n, m: n % m if m else "division_by_zero",
    "power(n, 5)": lambda n: float(n) ** 5,
    "greatest(n, m) - least(n, m)": lambda n, m: abs(n - m),
    "length(t)": len,
    "reverse(t)": lambda t: t[::-1],
    "left(t, 3) || right(t, -2)": lambda t: t[:3] + t[2:],
    "lpad(t, 7, 'xy')": lambda t: _padded(t, 7, "xy"),
    "substring(t, 2, 3)": lambda t: t[1:4],
    "position(u in t)": lambda u, t: t.find(u) + 1,
    "contains(t, u)": lambda t, u: u in t,
    "starts_with(t, u)": lambda t, u: t.startswith(u),
    "ends_with(t, u)": lambda t, u: t.endswith(u),
    "replace(t, 'a', u)": lambda t, u: t.replace("a", u),
    "split_part(t, 'a', 2)": lambda t: [*t.split("a"), ""][1],
    "split_part(t, 'a', -1)": lambda t: t.split("a")[-1],
    "date_add('month', k, d)": _months_later,
    "date_add('day', k, d)": _days_later,
    "date_diff('month', d, e)": _months_between,
    "date_diff('year', d, e)": lambda d, e: int(_months_between(d, e) / 12),
    "date_diff('day', d, e)": lambda d, e: (e - d).days,
    "date_diff('week', d, e)": lambda d, e: int((e - d).days / 7),
    "date_trunc('week', d)": lambda d: (d - dt.timedelta(d.weekday())).isoformat(),
    "date_trunc('quarter', d)": lambda d: d.replace(month=(d.month - 1) // 3 * 3 + 1, day=1).isoformat(),
    "extract(week from d)": lambda d: d.isocalendar().week,
}
"""Expressions over some of the columns below, and what Python says of the same values, in the order of the text."""

DECIMAL = st.decimals(-(10**6), 10**6, places=3)
WORD = st.text("aábXY1 ", max_size=9)
VALUES_OF = {
    "d": st.dates(),
    "e": st.dates(),
    "k": st.integers(-120_000, 120_000),
    "m": DECIMAL,
    "n": DECIMAL,
    "t": WORD,
    "u": WORD,
}


@pytest.mark.parametrize("text", ORACLES)
@given(data=st.data())
@settings(max_examples=10, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
async def test_a_function_agrees_with_python(
    connection: "asyncpg.Connection[Any]", text: str, data: st.DataObject
) -> None:
    oracle = ORACLES[text]
    names = dict.fromkeys(re.findall(r"\b[a-z]\b", re.sub("'.*?'", "", text)))
    leads = data.draw(
        st.lists(st.fixed_dictionaries({name: VALUES_OF[name] for name in names}), min_size=8, max_size=8)
    )
    cells = [
        {name: value.isoformat() if isinstance(value, dt.date) else _exact(value) for name, value in lead.items()}
        for lead in leads
    ]
    results = await evaluate(connection, text, *cells)
    for lead, (cell, fails) in zip(leads, results, strict=True):
        expected = oracle(*(lead[name] for name in names))
        said = fails if fails is not None else cell
        if isinstance(expected, str):
            assert said == (expected or None), lead
        else:
            assert said == pytest.approx(float(expected), rel=1e-12), lead  # type: ignore[arg-type]


def _exact(value: object) -> object:
    return float(value) if isinstance(value, Decimal) else value
