"""Refused rows go out as a file that a person repairs, and come back as what they were."""

import csv
import io

from hypothesis import given
from hypothesis import strategies as st

from leadline.features.tables import repair
from leadline.features.tables.formula_cells import defused, is_formula, restored
from leadline.features.tables.reading import RefusedRow, Row, record
from leadline_protocol.errors import LeadReason

TEXTS = st.text(st.sampled_from("'=+-@\t\ra\"\n,;"), max_size=6)


@given(TEXTS)
def test_a_text_is_defused_and_is_itself_again(text: str) -> None:
    assert restored(defused(text)) == text
    assert not is_formula(defused(text))


def test_what_is_no_formula_is_left_alone() -> None:
    assert [defused(text) for text in ("a", "'t Hooft", "1-1", "", "=1", "'=1", "''")] == [
        "a", "'t Hooft", "1-1", "", "'=1", "''=1", "''",
    ]  # fmt: skip


@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_a_row_comes_back_as_it_was(values: list[str]) -> None:
    headers = [f"h{n}" for n in range(len(values))]
    out = io.StringIO(newline="")
    table = csv.writer(out)
    table.writerow(repair.heading(headers))
    table.writerow(repair.line(7, 9, LeadReason.DUPLICATE, "=known", record(values)))
    heading, line = csv.reader(io.StringIO(out.getvalue(), newline=""))
    assert repair.is_repaired(heading)
    assert repair.own_headers(heading) == tuple(headers)
    assert line[:4] == ["7", "9", "duplicate", "'=known"]
    (again,) = repair.own_rows(iter([Row(1, 2, line)]))
    assert again == Row(1, 2, values)
    refused = RefusedRow(1, 2, LeadReason.DUPLICATE, "", record(line))
    (twice,) = repair.own_rows(iter([refused]))
    assert isinstance(twice, RefusedRow)
    assert twice.raw == record(values)


def test_a_row_that_could_not_be_taken_apart_stays_whole() -> None:
    broken = RefusedRow(1, 2, LeadReason.RAGGED_ROW, "a quotation mark is not closed", record(['"a,b']))
    assert repair.line(1, 2, "ragged_row", "x", broken.raw) == ["1", "2", "ragged_row", "x", '"a,b']
    assert list(repair.own_rows(iter([broken]))) == [broken]


def test_other_files_are_not_taken_for_repaired_ones() -> None:
    assert not repair.is_repaired(["refused_row", "email"])
    assert not repair.is_repaired(["email", *repair.HEADERS])
    assert not repair.is_repaired(repair.HEADERS)
