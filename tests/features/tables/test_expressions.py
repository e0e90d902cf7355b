"""The language of filters and formulas: what it admits, what it refuses and where, and that no text of it leaks."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from leadline.features.tables import expressions
from leadline.features.tables.columns import ColumnType
from leadline.features.tables.expressions import Compiled, compile_expression, grammar
from leadline_protocol.errors import ErrorCode, Refused

COLUMNS = {
    "score": ColumnType.NUMBER,
    "staff": ColumnType.NUMBER,
    "company": ColumnType.TEXT,
    "price": ColumnType.TEXT,
    "größe": ColumnType.NUMBER,
    "founded": ColumnType.DATE,
    "seen": ColumnType.TIMESTAMP,
    "active": ColumnType.BOOLEAN,
    "extra": ColumnType.JSON,
    "date": ColumnType.DATE,
    "order": ColumnType.NUMBER,
}


def compiled(text: str, wants: ColumnType | None = None) -> Compiled:
    return compile_expression(text, COLUMNS, field="where", wants=wants)


def refusal(text: str, wants: ColumnType | None = None) -> Refused:
    with pytest.raises(Refused) as caught:
        compiled(text, wants)
    return caught.value


# (expression, the 1-based character at which it is refused)
ATTACKS = [
    # reaching other tables
    ("(select 1)", 2),
    ("score in (select 1)", 11),
    ("score = (select max(score) from lead)", 10),
    ("exists(select 1)", 1),
    ("exists (select 1)", 1),
    ("score = any(select 1)", 9),
    ("score = all(array[1])", 9),
    ("1 union select 2", 3),
    ("with x as (select 1) select 1", 1),
    ("table lead", 1),
    ("values (1)", 1),
    ("lead.data", 1),
    ("lead.company = 'a'", 1),
    ("public.lead.company", 1),
    ("data->>'company' = 'x'", 1),
    ("*", 1),
    ("count(*)", 1),
    # reaching the server
    ("pg_sleep(10)", 1),
    ("pg_read_file('/etc/passwd')", 1),
    ("pg_catalog.pg_sleep(1)", 1),
    ('"pg_sleep"(1)', 1),
    ("set_config('role', 'postgres', false)", 1),
    ("current_setting('data_directory')", 1),
    ("query_to_xml('select 1', true, true, '')", 1),
    ("lo_import('/etc/passwd')", 1),
    ("dblink('', 'select 1')", 1),
    ("version()", 1),
    ("now()", 1),
    ("current_user", 1),
    ("session_user", 1),
    ("random()", 1),
    ("gen_random_uuid()", 1),
    ("nextval('x')", 1),
    ("txid_current()", 1),
    ("pg_terminate_backend(1)", 1),
    ("lower(pg_sleep(1))", 7),
    ("upper(current_schema)", 7),
    # casts that look things up
    ("company::regclass", 10),
    ("company::regproc = 'x'", 10),
    ("company::xml is null", 10),
    ("company::json is null", 10),
    ("'{}'::jsonb is null", 7),
    ("cast(company as oid)", 17),
    ("company::varchar(3)", 10),
    ("score::numeric(10, 2)", 8),
    ("company::text[]", 14),
    ("company::interval is null", 10),
    ("company::lead", 10),
    # smuggling
    ("score; select 1", 6),
    ("score;", 6),
    ("score -- > 7", 7),
    ("score /* hidden */ > 7", 7),
    ("/**/ score", 1),
    ("score > 7 --", 11),
    ("$$x$$ = company", 1),
    ("$tag$x$tag$ = company", 1),
    ("$1 = 2", 1),
    (":name = 2", 1),
    ("? = 2", 1),
    ("%s", 2),
    ("@x", 1),
    ("{score}", 1),
    ("{{score}}", 1),
    ("score \\ 2", 7),
    ("E'a\\n' = company", 1),
    ("U&'\\0041' = company", 1),
    ('U&"\\0041" = company', 1),
    ("x'41' = company", 1),
    ("b'01' = company", 1),
    ("n'a' = company", 1),
    ("0x1F > score", 1),
    ("1_000 > score", 2),
    ("'abc", 1),
    ("company = 'x' || \"y", 18),
    ("company = 'a' 'b'", 15),
    ("company = 'x\0'", 13),
    ("company \0 = 'x'", 9),
    # what costs without bound
    ("company ~ '(a+)+$'", 9),
    ("company ~* 'x'", 9),
    ("company !~ 'x'", 9),
    ("company similar to 'x'", 9),
    ("company not similar to 'x'", 13),
    ("regexp_replace(company, 'a', 'b')", 1),
    ("substring(company from '(a+)+$')", 24),
    ("substring(company, staff)", 20),
    ("repeat(company, 1000000000)", 1),
    ("lpad(company, 1000000000)", 15),
    ("format('%1000000000s', company)", 1),
    ("score ^ 100000", 7),
    ("power(score, 1e9)", 14),
    ("power(score, staff)", 14),
    ("exp(score)", 1),
    ("factorial(score)", 1),
    ("score!", 6),
    ("generate_series(1, 10)", 1),
    ("round(score, 1000)", 14),
    ("round(score, staff)", 14),
    ("left(company, score)", 15),
    ("split_part(company, ',', 0)", 26),
    ("company like company", 14),
    ("company like '" + "%a" * 9 + "'", 14),
    ("company like '" + "a" * 201 + "'", 14),
    ("company like 'a\\'", 14),
    ("company like 'a!%' escape '!'", 20),
    ("score > 1" + "0" * 41, 9),
    ("score > 1e99", 9),
    # other operators and shapes
    ("extra @> '{}'", 7),
    ("extra ? 'a'", 7),
    ("extra -> 'a'", 7),
    ("extra #>> 'a'", 7),
    ("score & 1", 7),
    ("score | 1", 7),
    ("score # 1", 7),
    ("score << 1", 1),
    ("~score", 1),
    ("@score", 1),
    ("|/ score", 1),
    ("!active", 1),
    ("score == 1", 7),
    ("score <=> 1", 7),
    ("company[1]", 8),
    ("array[1]", 1),
    ("row(1, 2)", 1),
    ("(score, staff) = (1, 2)", 2),
    ("row_number() over ()", 1),
    ("sum(score)", 1),
    ("max(score) over (partition by company)", 1),
    ("lower(distinct company)", 16),
    ("lower(company order by company)", 15),
    ("lower(company) filter (where true)", 16),
    ("company collate \"C\" = 'a'", 9),
    ("seen at time zone 'UTC'", 6),
    ("interval '1 day'", 1),
    ("score between symmetric 1 and 2", 15),
    ("score as other", 10),
    ("score staff", 7),
    ("score, staff", 6),
    ("if(active, 1, 2)", 1),
    ("try_cast(company as int)", 1),
    ("date_part('year', founded)", 1),
    ("overlay(company placing 'x' from 1)", 1),
    ("(score", 1),
    ("score)", 6),
    ("score >", 7),
    ("", 1),
    ("   ", 1),
    ("null::lead", 7),
    # what looks like something else
    ("\uff53core > 1", 1),  # full-width
    ("sc\u043ere > 1", 1),  # Cyrillic
    ("sco\u200bre > 1", 1),  # zero width
    ("\u202escore > 1", 1),  # right to left
    ("\ufeffscore > 1", 1),
    ("score > 1\ufeff", 10),
    ("score > 1\u2028-- x", 11),
    ("score > 1\x1a", 10),
    ("score \uff1e 1", 7),
    ("score\uff1b select 1", 1),
    ("score > \u0661", 9),  # an Arabic one
    ("score > \u00b2", 9),
    ("company = \u2018a\u2019", 11),
    ("company = 'a\u2019; select 1", 11),
    ("company = 'a\ud800'", 13),  # half a surrogate pair
    ("dbl\u0131nk('x')", 1),  # without a dot
    ("lower\u200b(company)", 1),
    ("pg_sleep\u00a0(1)", 1),
    ("lower/**/(company)", 6),
    ("lower\n(\npg_sleep(1))", 9),
    # clauses, and statements
    ("score from lead", 12),
    ("score where true", 7),
    ("score limit 1", 7),
    ("score for update", 11),
    ("score into x", 7),
    ("score is json", 10),
    ("score operator(pg_catalog.+) 1", 7),
    ("company in (table lead)", 13),
    ("company like any (array['a'])", 14),
    ("coalesce(score, (select 1))", 18),
    ("case when active then (select 1) end", 24),
    ("true and (delete from lead returning true)", 11),
    ("copy lead to '/tmp/x'", 1),
    ("do $$ begin end $$", 1),
    ("(company).x", 10),
    ("unnest(array[1])", 1),
    ("current_catalog", 1),
    ("score > 1 \\g /tmp/x", 11),
]


@pytest.mark.parametrize(("text", "character"), ATTACKS, ids=[text[:40] for text, _ in ATTACKS])
def test_what_is_not_in_the_language_is_refused_at_its_place(text: str, character: int) -> None:
    refused = refusal(text)
    assert refused.code in {ErrorCode.BAD_EXPRESSION, ErrorCode.UNKNOWN_COLUMN}
    assert refused.at == f"where:{character}", refused.message


@pytest.mark.parametrize(
    ("text", "character"),
    [
        ("score > 'high'", 9),
        ("score + company > 1", 9),
        ("company > 7", 11),
        ("active + 1", 1),
        ("lower(score)", 7),
        ("abs(company)", 5),
        ("score and active", 1),
        ("active and score", 12),
        ("not company", 5),
        ("founded > '2024-02-30'", 11),
        ("founded + 'soon' > founded", 11),
        ("seen + 1 > seen", 1),
        ("founded + founded", 1),
        ("case when score then 1 end", 11),
        ("case when active then 1 else 'x' end", 30),
        ("case score when 'x' then 1 end", 17),
        ("coalesce(score, company)", 17),
        ("score in (1, 'two')", 14),
        ("score between 1 and 'x'", 21),
        ("extract(hour from founded)", 19),
        ("extract(year from company)", 19),
        ("score::boolean", 1),
        ("active::date", 1),
        ("extra = extra", 1),
        ("starts_with(company, 1)", 22),
        ("score is true", 1),
        ("'abc'::numeric > 1", 1),
        ("lower(company, price)", 16),
        ("lower()", 1),
        ("nullif(score)", 1),
        ("round(score, 2, 1)", 17),
        ("concat()", 1),
        ("replace(company, 'a')", 1),
        ("score in ()", 1),
        ("greatest(score, company)", 17),
        ("least(active, active)", 7),
        ("date_add('fortnight', 1, founded)", 10),
        ("date_add('hour', 1, founded)", 10),
        ("date_add(company, 1, founded)", 10),
        ("date_add('day', company, founded)", 17),
        ("date_add('day', 1, score)", 20),
        ("date_diff('day', founded, score)", 27),
        ("date_trunc('decade', founded)", 12),
        ("to_date(company, 'DD/MM/YY')", 18),
        ("to_date(company, 'DD/DD/YYYY')", 18),
        ("to_date(company, 'DD/MM-YYYY')", 18),
        ("to_date(company, company)", 18),
        ("json_get(company, 'a')", 10),
        ("json_get(extra, company)", 17),
        ("json_get(extra, 'a..b')", 17),
        ("json_text(extra, '1.2.3.4.5.6.7.8.9.10.11')", 18),
        ("json_contains(extra, founded)", 22),
        ("json_length(score)", 13),
        ("coalesce(extra, 'not json')", 17),
        ("rpad(company, 1001)", 15),
        ("power(score, 11)", 14),
        ("power(score, 1.5)", 14),
        ("trunc(score, 21)", 14),
        ("is_number()", 1),
    ],
)
def test_what_does_not_fit_together_is_refused_at_the_part_that_does_not_fit(text: str, character: int) -> None:
    refused = refusal(text)
    assert (refused.code, refused.at) == (ErrorCode.BAD_EXPRESSION, f"where:{character}"), refused.message


def test_an_unknown_column_has_a_code_of_its_own() -> None:
    assert refusal("score > 1 and sccore < 9").code is ErrorCode.UNKNOWN_COLUMN
    assert refusal("score > 1 and sccore < 9").at == "where:15"
    assert refusal('"Full Name" is null').at == "where:1"


def test_characters_are_counted_not_bytes() -> None:
    assert refusal("größe > 1 and 姓名 > 2").at == "where:15"
    assert refusal("company = '🦊' and ~ 1").at == "where:19"


def test_a_column_is_found_in_any_case_and_in_quotes() -> None:
    assert compiled("SCORE > 1 and Company is null").columns == ("score", "company")
    assert compiled('"score" > 1 and "GRÖSSE" > 1').columns == ("score", "größe")


def test_a_column_may_bear_the_name_of_a_word_of_sql() -> None:
    assert compiled("date > '2024-01-01' and order = 1").columns == ("date", "order")


def test_two_columns_that_differ_in_case_must_be_quoted() -> None:
    columns = {"Score": ColumnType.NUMBER, "sCORE": ColumnType.NUMBER}
    assert compile_expression('"Score" > 1', columns, field="where").columns == ("Score",)
    with pytest.raises(Refused, match="may be Score or sCORE"):
        compile_expression("score > 1", columns, field="where")


def test_the_result_must_be_of_the_type_wanted() -> None:
    assert compiled("score > 7", ColumnType.BOOLEAN).type is ColumnType.BOOLEAN
    assert compiled("'2024-01-31'", ColumnType.DATE).type is ColumnType.DATE
    assert compiled("founded", ColumnType.TIMESTAMP).type is ColumnType.TIMESTAMP
    assert compiled("null", ColumnType.NUMBER).type is ColumnType.NUMBER
    refused = refusal("company || score", ColumnType.BOOLEAN)
    assert refused.at == "where:1"
    assert "the result is to be true or false, and this is text" in refused.message


@pytest.mark.parametrize(
    "text",
    [
        "score >= 7",
        "price::numeric * 1.5 > 100 and company ilike 'a%' and founded - 30 < '2024-01-01'",
        "case score when 1 then 'one' else replace(lower(company), 'x', 'it''s') end",
        "concat(company, ' ', score, ' ', active, founded, seen)",
        "round(score / nullif(staff, 0), 2)",
        "founded + staff",
        "-5 + -score",
        "true and not false or null",
        "coalesce(nullif(trim(both ' ' from company), ''), split_part(price, ',', -1), 'none')",
        "extract(year from founded) + extract(hour from seen)",
        "current_date - founded",
        "extra is not null and extra::text like '%a%'",
        "substring(company from 1 for 3) || substr(company, 2) || left(company, 2) || right(company, -2)",
        "score is distinct from staff and score in (1, 2, staff) and score between 1 and staff",
        "floor(score) + ceil(score) + ceiling(score) + abs(score) + mod(score, 3) + length(company)",
        "starts_with(company, 'A') is true",
        "seen::date = '2024-01-01' and founded::timestamp < seen and '1'::int = 1",
    ],
)
def test_every_parameter_is_used_by_the_value_and_no_literal_is_in_the_text(text: str) -> None:
    result = compiled(text)
    used = {int(number) for number in re.findall(r"\(\$1\)\[(\d+)\]", result.value)}
    assert used == set(range(1, len(result.parameters) + 1))
    for fragment in (result.value, result.fails or "", result.json):
        known = {
            "'bad_cast'",
            "'division_by_zero'",
            "'out_of_range'",
            "'UTC'",
            "'YYYY-MM-DD'",
            "''",
            "'{}'",
            "'5000-07-02'",
        }
        assert set(re.findall(r"'[^']*'", fragment)) <= known


def test_what_cannot_fail_says_so() -> None:
    assert compiled("lower(trim(company))").fails is None
    assert compiled("company = 'x' and company is not null").fails is None
    assert compiled("score > 7").fails is not None


def test_a_hostile_column_name_stays_a_parameter() -> None:
    name = "x'); drop table lead; --"
    result = compile_expression(f"\"{name}\" = 'y'", {name: ColumnType.TEXT}, field="where")
    assert result.parameters == (name, "y")
    assert "drop" not in result.value + result.json


def test_length_nodes_and_depth_are_capped() -> None:
    assert refusal("score > 1 or " * 400 + "active").at == "where:4001"
    assert "parts" in refusal(" or ".join(["score = 1"] * 67)).message
    assert "deep" in refusal("(" * 33 + "score" + ")" * 33).message
    assert refusal("(" * 33 + "score" + ")" * 33).at == "where:33"
    assert "deep" in refusal("not " * 40 + "active").message
    assert "deep" in refusal("- " * 900 + "score").message
    assert "deep" in refusal("not " * 990 + "active").message
    assert "deep" in refusal("lower(" * 33 + "company" + ")" * 33).message
    compiled(" or ".join(["score = 1"] * 60))
    compiled(" + ".join(["score"] * 90))
    compiled("(" * 30 + "score" + ")" * 30)


def test_an_expression_is_compiled_once() -> None:
    assert compiled("score * 17") is compiled("score * 17")
    assert compiled("score * 17") is not compile_expression("score * 17", {"score": ColumnType.NUMBER}, field="where")


def test_every_function_is_documented_and_compiles() -> None:
    of_number = "abs sign ceil ceiling floor round trunc"
    of_text = "length char_length lower upper initcap trim btrim ltrim rtrim reverse email_domain domain_of"
    of_two_texts = "strpos contains starts_with ends_with"
    of_anything = "greatest least concat coalesce is_number is_boolean is_date is_timestamp"
    examples = {
        **{name: f"{name}(score)" for name in of_number.split()},
        **{name: f"{name}(company)" for name in of_text.split()},
        **{name: f"{name}(company, 'a')" for name in of_two_texts.split()},
        **{name: f"{name}(score)" for name in of_anything.split()},
        "mod": "mod(score, 2)",
        "power": "power(score, 2)",
        "substring": "substring(company, 1, 2)",
        "substr": "substr(company, 1, 2)",
        "left": "left(company, 2)",
        "right": "right(company, 2)",
        "lpad": "lpad(company, 9)",
        "rpad": "rpad(company, 9, '.')",
        "replace": "replace(company, 'a', 'b')",
        "split_part": "split_part(company, ',', 1)",
        "position": "position('a' in company)",
        "nullif": "nullif(score, 1)",
        "date_add": "date_add('month', 1, founded)",
        "date_diff": "date_diff('month', founded, seen)",
        "date_trunc": "date_trunc('month', seen)",
        "to_date": "to_date(company, 'DD.MM.YYYY')",
        "json_get": "json_get(extra, 'a.0')",
        "json_text": "json_text(extra, 'a.0')",
        "json_length": "json_length(extra)",
        "json_contains": "json_contains(extra, 'a')",
        "extract": "extract(year from founded)",
        "cast": "cast(price as numeric)",
    }
    assert examples.keys() == expressions.DOCUMENTATION.keys()
    for name, documentation in expressions.DOCUMENTATION.items():
        assert documentation.startswith(name + "(")
        compiled(examples[name])


SYMBOLS = "( ) , 'a' 1 and or not :: text ->> + - / = < || case when then else end in is null ; -- /* $1 ' select from"
WORDS = st.sampled_from([*COLUMNS, *expressions.DOCUMENTATION, *SYMBOLS.split()])


@given(st.lists(WORDS, max_size=25).map(" ".join) | st.text(max_size=60))
@example("case when null then 1 end")
@example("coalesce(null, null)")
@example("null || null")
@example("'a' in ('b')")
def test_any_text_compiles_or_is_refused_with_a_place_inside_it(text: str) -> None:
    place = None
    try:
        compiled(text)
    except Refused as refused:
        place = refused.at or ""
    assert place is None or 1 <= int(place.removeprefix("where:")) <= max(1, len(text))


HARMLESS = {
    "score;",
    "score -- > 7",
    "score /* hidden */ > 7",
    "/**/ score",
    "score > 7 --",
    "!active",
    "score == 1",
    "score <=> 1",
    "score > 1\u2028-- x",
    "lower/**/(company)",
}


@pytest.mark.parametrize("text", [text for text, _ in ATTACKS])
def test_the_tree_alone_keeps_the_gate(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pass over the tokens knows the places; were it blind, only what means something harmless would come in."""
    monkeypatch.setattr(grammar, "_admit", lambda *_: None)
    try:
        if text in HARMLESS:
            compiled(text)
        else:
            refusal(text)
    finally:
        expressions._compiled.cache_clear()
