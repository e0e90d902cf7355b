"""What a column is called, and which JSON value stands for a cell."""

import json
import math
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from leadline.features.tables.columns import (
    NAME_CHARACTERS_MAX,
    TEXT_CHARACTERS_MAX,
    BadValueError,
    Cells,
    Column,
    ColumnType,
    JsonValue,
    cell_text,
    declared_columns,
    encode_cells,
    inferred_type,
    normal_name,
    normal_names,
)
from leadline_protocol.errors import ErrorCode, Refused


def column(kind: str, *allowed: str) -> Column:
    return Column("c", ColumnType(kind), allowed)


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("E-Mail Address", "e_mail_address"),
        ("  First   Name ", "first_name"),
        ("Größe (m²)", "größe_m2"),
        ("姓名", "姓名"),
        ("हिन्दी नाम", "हिन्दी_नाम"),
        ("2nd e-mail", "_2nd_e_mail"),
        ("\ufeffEmail", "email"),
        ("%%%", ""),
        ("a" * 100, "a" * 63),
        ("already_fine", "already_fine"),
        ("_2nd_e_mail", "_2nd_e_mail"),
    ],
)
def test_a_header_becomes_a_plain_name(header: str, name: str) -> None:
    assert normal_name(header) == name


def test_headers_get_names_that_are_all_different() -> None:
    assert normal_names(["E-Mail", "e mail", "", "e_mail_2", "E-MAIL", ""]) == [
        "e_mail",
        "e_mail_2",
        "column_3",
        "e_mail_2_2",
        "e_mail_3",
        "column_6",
    ]


@given(st.lists(st.text(max_size=80), max_size=20))
@example(["H\u0331"])
@example(["a" * 60 + " b"] * 2)
def test_any_headers_get_names_that_a_submission_could_declare(headers: list[str]) -> None:
    names = normal_names(headers)
    assert len(set(names)) == len(headers)
    for name in names:
        assert 0 < len(name) <= NAME_CHARACTERS_MAX
        assert normal_name(name) == name
        assert declared_columns({name: "text"})[0].name == name


def test_into_declares_types_and_lists_of_allowed_texts() -> None:
    assert declared_columns({"score": "number", "tier": ["A", "B"]}) == (
        Column("score", ColumnType.NUMBER),
        Column("tier", ColumnType.TEXT, ("A", "B")),
    )


@pytest.mark.parametrize(
    ("into", "at"),
    [
        ({}, "into"),
        ({"AI score": "number"}, "into.AI score"),
        ({"2x": "number"}, "into.2x"),
        ({"": "number"}, "into."),
        ({"score": "float"}, "into.score"),
        ({"score": 7}, "into.score"),
        ({"tier": []}, "into.tier"),
        ({"tier": ["a", "A"]}, "into.tier"),
        ({"tier": ["a", 1]}, "into.tier"),
        ({"tier": ["a", " "]}, "into.tier"),
        ({"ok": "text", "tier": ["a", "\0"]}, "into.tier"),
    ],
)
def test_a_bad_declaration_is_refused_where_it_stands(into: dict[str, object], at: str) -> None:
    with pytest.raises(Refused) as caught:
        declared_columns(into)
    assert (caught.value.code, caught.value.at) == (ErrorCode.BAD_REQUEST, at)


def test_a_bad_name_is_answered_with_a_good_one() -> None:
    with pytest.raises(Refused, match="'ai_score' would be one"):
        declared_columns({"AI score": "number"})


@pytest.mark.parametrize(
    ("kind", "raw", "value"),
    [
        ("number", 7, 7),
        ("number", "7", 7),
        ("number", " -1.50 ", -1.5),
        ("number", 7.0, 7),
        ("number", "1e3", 1000),
        ("number", Decimal("0.1"), 0.1),
        ("number", "12345678901234567890.5", Decimal("12345678901234567890.5")),
        ("number", "007", 7),
        ("number", "", None),
        ("number", None, None),
        ("text", "x", "x"),
        ("text", "", None),
        ("text", 7, "7"),
        ("text", True, "true"),
        ("boolean", "Yes", True),
        ("boolean", False, False),
        ("date", "2026-01-31", "2026-01-31"),
        ("date", "31.01.2026", "2026-01-31"),
        ("timestamp", "2026-01-31T09:00:00+02:00", "2026-01-31T07:00:00Z"),
        ("timestamp", "2026-01-31 09:00", "2026-01-31T09:00:00Z"),
        ("timestamp", "2026-01-31", "2026-01-31T00:00:00Z"),
        ("timestamp", "2026-01-31T09:00:00.5Z", "2026-01-31T09:00:00.500000Z"),
        ("json", {"a": [1]}, {"a": [1]}),
    ],
)
def test_a_value_of_the_declared_type_is_accepted(kind: str, raw: object, value: object) -> None:
    accepted = column(kind).accept(raw)
    assert (accepted, type(accepted)) == (value, type(value))


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        ("number", "seven"),
        ("number", True),
        ("number", math.nan),
        ("number", math.inf),
        ("number", "1e40"),
        ("number", 10**40),
        ("number", "١٢٣"),
        ("number", "1,234"),
        ("number", [1]),
        ("text", {"a": 1}),
        ("text", "a\0b"),
        ("text", "\ud800"),
        ("text", "x" * (TEXT_CHARACTERS_MAX + 1)),
        ("boolean", "maybe"),
        ("boolean", 1),
        ("date", "2026-02-30"),
        ("date", "01/02/2026"),
        ("date", 20260131),
        ("timestamp", "2026-01-31T25:00"),
        ("timestamp", "0001-01-01T00:00:00+14:00"),
        ("json", {"a": "\0"}),
        ("json", {"a": math.nan, "b": object()}),
    ],
)
def test_a_value_of_another_type_is_refused(kind: str, raw: object) -> None:
    with pytest.raises(BadValueError):
        column(kind).accept(raw)


def test_an_allowed_text_is_found_in_any_case_and_stored_as_declared() -> None:
    tier = column("text", "Gold", "Silver")
    assert tier.accept(" gold") == "Gold"
    with pytest.raises(BadValueError, match="none of Gold, Silver"):
        tier.accept("bronze")


def test_an_uploaded_cell_that_does_not_fit_stays_the_text_that_it_was() -> None:
    assert column("number").keep("12") == 12
    assert column("number").keep("n/a") == "n/a"
    assert column("number").keep("00123") == "00123"
    assert column("number").keep("+491234") == "+491234"
    assert column("number").keep("1e3") == "1e3"
    assert column("number").keep("9" * 50) == "9" * 50
    assert column("date").keep("soon") == "soon"
    assert column("boolean").keep("yes") is True
    assert column("text").keep("  ") is None
    assert column("text").keep(" x ") == " x "


@example("2026-02-30")
@example("2026-W01-1")
@example("2026-01-31\n")
@example("31.01.2026")
@given(
    st.dates().map(str) | st.from_regex(r"[0-9]{4}[-.W][0-9]{2}[-.W][0-9]{1,2}", fullmatch=True) | st.text(max_size=12)
)
def test_an_uploaded_date_is_stored_as_a_providers_would_be(cell: str) -> None:
    try:
        expected = column("date").accept(cell)
    except BadValueError:
        expected = cell
    assert column("date").keep(cell) == (None if not cell or cell.isspace() else expected)


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1", "", "-2.5", "0"], "number"),
        (["01234", "99999"], "text"),
        (["+49 30 1"], "text"),
        (["true", "No"], "boolean"),
        (["2026-01-31", "31.01.2026"], "date"),
        (["2026-01-31", "2026-01-31T09:00Z"], "timestamp"),
        (["01/02/2026"], "text"),
        (["1", "x"], "text"),
        (["", " "], "text"),
        ([], "text"),
    ],
)
def test_a_type_is_inferred_only_where_nothing_would_be_lost(cells: list[str], kind: str) -> None:
    assert inferred_type(cells) == kind


def test_cells_are_written_as_json_with_empty_ones_left_out() -> None:
    cells: Cells = {"n": Decimal("12345678901234567890.5"), "t": "ä", "b": True, "e": None}
    assert encode_cells(cells) == b'{"n":12345678901234567890.5,"t":"\xc3\xa4","b":true}'


def test_a_cell_reads_as_a_person_would_write_it() -> None:
    values: list[JsonValue] = [None, "x", 7, 7.0, 0.5, True, Decimal("1.5"), {"a": 1}]
    assert [cell_text(value) for value in values] == ["", "x", "7", "7", "0.5", "true", "1.5", '{"a":1}']


@example(math.nan, ColumnType.JSON)
@given(
    st.text() | st.integers() | st.floats() | st.booleans() | st.none() | st.lists(st.text()),
    st.sampled_from(ColumnType),
)
def test_what_is_accepted_is_accepted_again_unchanged(raw: object, kind: ColumnType) -> None:
    try:
        value = Column("c", kind).accept(raw)
    except BadValueError:
        return
    again = Column("c", kind).accept(value)
    assert again == value
    json.loads(encode_cells({"c": value}))
