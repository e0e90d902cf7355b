"""A file's rows become leads: names, types, keys, reasons."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadline.features.tables import ingest
from leadline.features.tables.columns import Column, ColumnType, JsonValue
from leadline.features.tables.ingest import NewRow, UploadPlan, fold, is_email, key_hash, merged, plan_upload
from leadline.features.tables.reading import CsvFile, RefusedRow, Row, UnreadableFileError, sniff
from leadline_protocol.errors import LeadReason
from tests.world import dirty_csv


def plan(
    headers: list[str],
    *rows: list[str],
    table: tuple[Column, ...] = (),
    mapping: dict[str, str] | None = None,
    declared: tuple[Column, ...] = (),
    key: list[str] | None = None,
) -> UploadPlan:
    sample = [Row(number, number + 1, values) for number, values in enumerate(rows, start=1)]
    return plan_upload(headers, sample, table, mapping=mapping or {}, declared=declared, key=key)


def lead(uploading: UploadPlan, *cells: str) -> NewRow | RefusedRow:
    return uploading.lead(Row(1, 2, list(cells)))


def test_columns_get_names_and_types_from_the_file() -> None:
    made = plan(
        ["E-Mail", "Employees", "Since"], ["a@b.example", "12", "2024-01-31"], ["c@d.example", "", "01.02.2024"]
    )
    assert made.columns == (
        Column("e_mail", ColumnType.TEXT),
        Column("employees", ColumnType.NUMBER),
        Column("since", ColumnType.DATE),
    )


def test_a_column_of_the_table_keeps_its_type_and_a_declared_one_gets_its_own() -> None:
    table = (Column("employees", ColumnType.TEXT),)
    made = plan(["employees", "zip"], ["12", "10115"], table=table, declared=(Column("zip", ColumnType.TEXT),))
    assert [column.type for column in made.columns] == [ColumnType.TEXT, ColumnType.TEXT]


@given(st.sampled_from(ColumnType), st.none() | st.text(max_size=8) | st.integers() | st.booleans() | st.just([1]))
def test_a_lead_holds_of_each_cell_what_its_column_keeps(kind: ColumnType, cell: JsonValue) -> None:
    made = plan(["c"], declared=(Column("c", kind),))
    found = made.lead(Row(1, 2, [cell]))
    kept = Column("c", kind).keep(cell)
    assert isinstance(found, NewRow)
    assert found.data == ({} if kept is None or kept == "" else {"c": kept})


def test_headers_are_mapped_however_they_are_spelt() -> None:
    made = plan(["E-Mail Address", "Name"], mapping={"e-mail address": "email"}, key=["email"])
    assert [column.name for column in made.columns] == ["email", "name"]
    assert made.key[0].holds == "email"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"mapping": {"Mail": "email"}}, "no column 'Mail'"),
        ({"mapping": {"Name": "company"}}, "two columns"),
        ({"key": ["email"]}, "no such column"),
        ({"declared": (Column("score", ColumnType.NUMBER),)}, "no such column"),
    ],
)
def test_what_is_not_in_the_file_is_refused_as_a_file(arguments: dict[str, object], says: str) -> None:
    with pytest.raises(UnreadableFileError, match=says):
        plan(["Name", "Company"], **arguments)  # type: ignore[arg-type]


def test_the_key_is_email_where_there_is_such_a_column() -> None:
    assert [part.name for part in plan(["Name", "Email", "Work Email"]).key] == ["email"]
    assert plan(["Name", "Work Email"]).key == ()
    assert [part.name for part in plan(["Name", "City"], key=["city", "name"]).key] == ["city", "name"]


def test_an_address_is_one_key_in_any_case_and_is_stored_so() -> None:
    made = lead(plan(["Email", "Name"]), " Ada@B.Example\t", "Ada")
    assert isinstance(made, NewRow)
    assert (made.key, made.data) == ("ada@b.example", {"email": "ada@b.example", "name": "Ada"})


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("", LeadReason.MISSING_KEY),
        (" \u00a0", LeadReason.MISSING_KEY),
        ("not an address", LeadReason.INVALID_EMAIL),
        ("lead1@", LeadReason.INVALID_EMAIL),
        ("@north.example", LeadReason.INVALID_EMAIL),
        ("a@b@c.example", LeadReason.INVALID_EMAIL),
        ("lead 1@x.example", LeadReason.INVALID_EMAIL),
        ("a@localhost", LeadReason.INVALID_EMAIL),
        ("a@b..example", LeadReason.INVALID_EMAIL),
        ("a@b.example,c@d.example", LeadReason.INVALID_EMAIL),
        ("x" * 250 + "@b.example", LeadReason.INVALID_EMAIL),
    ],
)
def test_a_row_without_a_usable_key_is_refused_with_its_reason(address: str, reason: LeadReason) -> None:
    made = lead(plan(["Email", "Name"]), address, 'A "B", C')
    assert isinstance(made, RefusedRow)
    assert (made.number, made.line, made.reason) == (1, 2, reason)
    assert made.raw.endswith('"A ""B"", C"')


@pytest.mark.parametrize(
    ("written", "domain"),
    [
        ("b.example", "b.example"),
        (" HTTPS://www.B.Example/about?x=1#y ", "b.example"),
        ("//www.b.example:8080", "b.example"),
        ("http://ada:secret@shop.b.example.", "shop.b.example"),
        ("info@b.example", "b.example"),
        ("www.example", "www.example"),
        ("www.Müller.example", "xn--mller-kva.example"),
        ("xn--mller-kva.example", "xn--mller-kva.example"),
        ("n/a", None),
        ("none", None),
        ("https://", None),
        ("b .example", None),
        ("b..example", None),
        ("b.example, c.example", None),
        ("x." * 150 + "example", None),
    ],
)
def test_of_a_website_only_the_domain_counts(written: str, domain: str | None) -> None:
    assert ingest.domain_of(written) == domain


def test_a_lead_may_be_told_by_its_domain_and_keeps_its_website() -> None:
    by_site = plan(["Name", "Website"], key=["website"])
    made = lead(by_site, "B", "https://www.B.example/")
    assert isinstance(made, NewRow)
    assert (made.key, made.data) == ("b.example", {"name": "B", "website": "https://www.B.example/"})
    refused = lead(by_site, "C", "n/a")
    assert isinstance(refused, RefusedRow)
    assert (refused.reason, refused.detail) == (LeadReason.MISSING_KEY, "no domain in website, but 'n/a'")


@pytest.mark.parametrize(
    ("name", "holds"),
    [
        ("email", "email"),
        ("work_e_mail", "email"),
        ("domain", "domain"),
        ("company_domain", "domain"),
        ("website_2", "domain"),
        ("linkedin_url", "text"),
        ("domain_name_of_it", "text"),
        ("name", "text"),
    ],
)
def test_the_name_of_a_key_column_says_what_it_holds(name: str, holds: str) -> None:
    assert ingest.held_by(name) == holds


def test_a_key_may_be_a_number_as_well_as_its_text() -> None:
    by_number = plan(["No"], key=["no"])
    keys = [by_number.lead(Row(1, 2, [value])) for value in (7, "7", " 7 ", 7.0)]
    assert [key.key for key in keys if isinstance(key, NewRow)] == ["7"] * 4


def test_a_key_of_several_columns_needs_them_all() -> None:
    both = plan(["First", "Last"], key=["first", "last"])
    made = lead(both, "Ada ", "LOVELACE")
    assert isinstance(made, NewRow)
    assert made.key == "ada\x1flovelace"
    assert made.data == {"first": "Ada ", "last": "LOVELACE"}
    assert isinstance(lead(both, "Ada", ""), RefusedRow)


def test_empty_cells_are_left_out_and_misfits_stay_text() -> None:
    made = lead(plan(["n", "d", "t"], ["1", "2024-01-31", "x"]), "n/a", "", "  ")
    assert isinstance(made, NewRow)
    assert made.data == {"n": "n/a"}


def rows(*cells: tuple[str | None, dict[str, str]]) -> list[NewRow]:
    return [NewRow(number, number + 1, key, dict(data), []) for number, (key, data) in enumerate(cells, start=1)]


BATCH = rows(("a", {"x": "1", "y": "1"}), ("b", {"x": "2"}), ("a", {"x": "3", "z": "3"}), (None, {}), (None, {}))


def test_rows_with_one_key_in_one_batch_are_skipped_merged_or_filled() -> None:
    kept, folded = fold(BATCH, "skip")
    assert [row.number for row in kept] == [1, 2, 4, 5]
    assert [row.number for row in folded] == [3]
    assert kept[0].data == {"x": "1", "y": "1"}
    assert fold(BATCH, "update")[0][0].data == {"x": "3", "y": "1", "z": "3"}
    assert fold(BATCH, "fill")[0][0].data == {"x": "1", "y": "1", "z": "3"}
    assert ingest.duplicate(folded[0]).reason is LeadReason.DUPLICATE


def test_an_empty_cell_never_empties_one() -> None:
    assert merged({"x": "1"}, {"y": "2"}, "update") == {"x": "1", "y": "2"}
    assert merged({"x": "1"}, {"x": "2"}, "fill") == {"x": "1"}
    assert merged({"x": "1"}, {"x": "2"}, "skip") == {"x": "1"}


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.dictionaries(st.sampled_from("xyz"), st.text(max_size=1))))
)
def test_folding_at_once_or_one_by_one_is_the_same(cells: list[tuple[str | None, dict[str, str]]]) -> None:
    for mode in ("skip", "update", "fill"):
        kept, folded = fold(rows(*cells), mode)
        expected: dict[object, dict[str, object]] = {}
        for row in rows(*cells):
            name = row.key or row.number
            expected[name] = dict(merged(expected[name], row.data, mode)) if name in expected else dict(row.data)  # type: ignore[arg-type]
        assert {row.key or row.number: row.data for row in kept} == expected
        assert len(kept) + len(folded) == len(cells)


def test_a_key_has_a_short_hash_of_its_own() -> None:
    assert len(key_hash("a")) == 16
    assert key_hash("a") != key_hash("b")


@pytest.mark.parametrize(
    "address", ["a@b.example", "jürgen@müller.example", "a.b+c_d@x-y.co.example", "o'brien@b.example"]
)
def test_usual_addresses_are_addresses(address: str) -> None:
    assert is_email(address)


def test_the_demo_file_yields_exactly_the_leads_and_refusals_that_it_was_made_of() -> None:
    made = dirty_csv.generate()
    file = CsvFile([made.data], sniff(made.data[:65_536], complete=False))
    read = list(file.rows())
    uploading = plan_upload(
        file.headers, [row for row in read[:500] if isinstance(row, Row)], (), mapping={}, declared=(), key=None
    )
    results = [uploading.lead(row) if isinstance(row, Row) else row for row in read]
    kept, duplicates = fold([row for row in results if isinstance(row, NewRow)], "skip")
    refused = [row for row in results if isinstance(row, RefusedRow)] + [ingest.duplicate(row) for row in duplicates]
    assert {row.number: (row.line, row.reason.value) for row in refused} == {
        row.row: (row.line, row.reason) for row in made.refused
    }
    assert [row.number for row in kept] == [row.row for row in made.stored]
    for row, expected in zip(kept, made.stored, strict=True):
        assert {name: str(value) for name, value in row.data.items()} == {n: v for n, v in expected.cells.items() if v}
    assert uploading.columns[5] == Column("employees", ColumnType.NUMBER)
