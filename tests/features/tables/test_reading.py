"""CSV files as they come: every row is a row or is refused, with its number and line, in bounded memory."""

import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadline.features.tables.columns import TEXT_CHARACTERS_MAX
from leadline.features.tables.reading import CsvFile, CsvFormat, RefusedRow, Row, UnreadableFileError, sniff
from leadline_protocol.errors import LeadReason
from tests.world import dirty_csv


def opened(data: bytes, *, block: int = 65_536, dialect: dict[str, str] | None = None) -> CsvFile:
    written = sniff(data[:65_536], complete=len(data) <= 65_536, **(dialect or {}))
    return CsvFile((data[start : start + block] for start in range(0, len(data), block)), written)


def read(data: bytes, *, block: int = 65_536, after: int = 0) -> list[Row | RefusedRow]:
    return list(opened(data, block=block).rows(after=after))


def values(data: bytes, *, block: int = 65_536) -> list[list[str]]:
    return [list(map(str, row.values)) for row in read(data, block=block) if isinstance(row, Row)]


def refused(data: bytes) -> list[tuple[int, int, LeadReason]]:
    return [(row.number, row.line, row.reason) for row in read(data) if isinstance(row, RefusedRow)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_the_usual_ways_to_write_a_table_are_recognised(delimiter: str, line_end: str) -> None:
    rows = [["name", "note"], ["Ada", "likes, commas"], ["Grace", "and; others"], ["Mary", 'says "hi"']]
    quoted = [['"' + field.replace('"', '""') + '"' for field in row] for row in rows] * 3
    data = line_end.join(delimiter.join(row) for row in quoted).encode()
    file = opened(data)
    assert file.headers == ("name", "note")
    assert [row.values for row in file.rows() if isinstance(row, Row)][:3] == rows[1:]


@pytest.mark.parametrize(
    "data",
    [
        "name,city\nZoë,Zürich\n".encode(),
        b"\xef\xbb\xbf" + "name,city\nZoë,Zürich\n".encode(),
        "name,city\nZoë,Zürich\n".encode("utf-16"),
        b"\xfe\xff" + "name,city\nZoë,Zürich\n".encode("utf-16-be"),
        "name,city\nZoë,Zürich\n".encode("cp1252"),
    ],
)
def test_the_encoding_is_recognised(data: bytes) -> None:
    for block in (1, 3, 65_536):
        file = opened(data, block=block)
        assert file.headers == ("name", "city")
        assert list(file.rows()) == [Row(1, 2, ["Zoë", "Zürich"])]


def test_what_is_given_is_not_guessed() -> None:
    file = opened("a;b\n'1;2';ß\n".encode("cp850"), dialect={"delimiter": ";", "quote": "'", "encoding": "cp850"})
    assert list(file.rows()) == [Row(1, 2, ["1;2", "ß"])]
    for bad in ({"encoding": "klingon"}, {"encoding": "rot13"}, {"delimiter": '"'}, {"delimiter": "\n"}):
        with pytest.raises(UnreadableFileError):
            opened(b"a,b\n", dialect=bad)


def test_apostrophes_are_no_quotation_marks() -> None:
    data = b"email,name\n" + b"a@b.example,O'Brien\nc@d.example,'t Hooft\n" * 5
    assert values(data)[:2] == [["a@b.example", "O'Brien"], ["c@d.example", "'t Hooft"]]


def test_a_file_of_one_column_needs_no_delimiter() -> None:
    assert values(b"email\na@b.example\nc@d.example\n") == [["a@b.example"], ["c@d.example"]]


def test_rows_are_counted_below_the_header_and_lines_from_the_top() -> None:
    data = b'\n\nname,note\nAda,"two\nlines"\n\nGrace\nMary,x\n'
    assert read(data) == [
        Row(1, 4, ["Ada", "two\nlines"]),
        RefusedRow(2, 7, LeadReason.RAGGED_ROW, "1 fields; the header has 2", "Grace"),
        Row(3, 8, ["Mary", "x"]),
    ]


def test_the_last_line_needs_no_end() -> None:
    assert values(b"a,b\n1,2") == [["1", "2"]]
    assert values(b'a,b\n1,"2"') == [["1", "2"]]


def test_a_quotation_that_is_never_closed_costs_one_row() -> None:
    data = b'a,b\n1,2\n"3,4\n5,6\n7,8\n'
    assert values(data) == [["1", "2"], ["5", "6"], ["7", "8"]]
    assert refused(data) == [(2, 3, LeadReason.RAGGED_ROW)]


def test_a_quotation_that_is_never_closed_costs_one_row_of_a_large_file() -> None:
    data = b'a,b\n"1,2\n' + b"3,4\n" * 100_000
    assert refused(data) == [(1, 2, LeadReason.RAGGED_ROW)]
    assert len(values(data)) == 100_000


def test_a_file_of_open_quotations_is_read_in_linear_time() -> None:
    """Each pattern would be quadratic if every line were read again for each one before it."""
    for pattern in (b'"""\n', b'"a""\n', b'a,"\n', b'"",""","\n', b'"x\n\n\n\n'):
        count = sum(1 for _ in opened(b"a,b\n" + pattern * 50_000).rows())
        assert 0 < count <= 200_000


def test_fields_up_to_the_longest_length_are_taken_and_longer_ones_refused() -> None:
    long = b"x" * TEXT_CHARACTERS_MAX
    assert [len(row[1]) for row in values(b"a,b\n1," + long + b"\n")] == [TEXT_CHARACTERS_MAX]
    assert refused(b"a,b\n1,x" + long + b"\n2,3\n") == [(1, 2, LeadReason.FIELD_TOO_LONG)]
    assert refused(b"a,b\n1," + 5 * long + b"\n2,3\n") == [(1, 2, LeadReason.FIELD_TOO_LONG)]


def test_an_endless_line_is_refused_without_being_held() -> None:
    def blocks() -> Iterator[bytes]:
        yield b"a,b\n"
        for _ in range(500):
            yield b"x" * 65_536
        yield b"\n1,2\n"

    file = CsvFile(blocks(), sniff(b"a,b\n", complete=False))
    tracemalloc.start()
    try:
        rows = list(file.rows())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [(row.number, row.line, type(row)) for row in rows] == [(1, 2, RefusedRow), (2, 3, Row)]
    assert peak < 8 * 1_048_576


def test_bytes_that_are_no_text_cost_their_own_row() -> None:
    data = "a,b\nZoë,1\n".encode() + b"\xff\xfe,2\n" + b"x\0y,3\n" + b"z,4\n"
    assert refused(data) == [(2, 3, LeadReason.UNDECODABLE), (3, 4, LeadReason.UNDECODABLE)]
    assert values(data) == [["Zoë", "1"], ["z", "4"]]
    raw = [row.raw for row in read(data) if isinstance(row, RefusedRow)]
    assert raw == ["\ufffd\ufffd,2", "x\ufffdy,3"]
    assert refused("a,b\n1,2\n3,4".encode("utf-16") + b"x") == [(2, 3, LeadReason.UNDECODABLE)]


def test_a_line_that_is_read_again_is_judged_again() -> None:
    blocks = [b'a,b\n"open,1\n\xff,2\n', b"3,4\n", b"5,6\n"]
    rows = list(CsvFile(blocks, CsvFormat("utf-8", ",")).rows())
    reasons = [row.reason if isinstance(row, RefusedRow) else None for row in rows]
    assert reasons == [LeadReason.RAGGED_ROW, LeadReason.UNDECODABLE, None, None]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"\xef\xbb\xbf\r\n\n", "empty"),
        (b'"a,b\n1,2\n', "a quotation mark in the header"),
        (b"a\rb,c\n1,2\n", "a carriage return within the line of the header"),
        (b"a," + b"b" * 131_073, "a header has more than 131,072 characters"),
        (b"a" * 1_048_577, "a line of more than 1,048,576 characters"),
        (b"a," * 1_000 + b"b\n", "1,001 columns"),
    ],
)
def test_what_is_no_table_is_refused_as_a_file(data: bytes, says: str) -> None:
    with pytest.raises(UnreadableFileError, match=says):
        opened(data)


def test_reading_goes_on_after_any_row_as_if_it_had_never_stopped() -> None:
    data = b'a,b\n1,2\nragged\n"open,4\n5,"6\n6"\n\xff,7\n\n8,9\n'
    whole = read(data)
    for row in range(len(whole) + 1):
        assert read(data, after=row) == whole[row:]
        assert read(data, block=1, after=row) == whole[row:]


PIECES = st.sampled_from([b'"', b",", b"\n", b"\r\n", b"\r", b"a", b"\xff", b"\0", "ß".encode(), b'""', b";", b"x,y\n"])


@given(st.lists(PIECES, max_size=40).map(b"".join), st.sampled_from([1, 2, 7, 65_536]))
def test_any_bytes_are_read_alike_however_they_are_cut(body: bytes, block: int) -> None:
    data = b"a,b\n" + body
    written = CsvFormat("utf-8", ",")
    rows = list(CsvFile([data], written).rows())
    assert list(CsvFile((data[i : i + block] for i in range(0, len(data), block)), written).rows()) == rows
    assert [row.number for row in rows] == list(range(1, len(rows) + 1))
    assert [row.line for row in rows] == sorted({row.line for row in rows})
    for row in rows:
        if isinstance(row, Row):
            assert len(row.values) == 2
            "".join(map(str, row.values)).encode()


def test_the_demo_file_is_read_row_by_row_as_it_was_made() -> None:
    made = dirty_csv.generate()
    rows = {row.number: row for row in read(made.data)}
    assert len(rows) == 5_000
    for lead in made.stored:
        row = rows[lead.row]
        assert isinstance(row, Row)
        assert (row.line, row.values[1:]) == (lead.line, list(lead.cells.values())[1:])
    told_by_the_reader = {LeadReason.RAGGED_ROW, LeadReason.FIELD_TOO_LONG}
    found = {n: (row.line, row.reason.value) for n, row in rows.items() if isinstance(row, RefusedRow)}
    assert found == {row.row: (row.line, row.reason) for row in made.refused if row.reason in told_by_the_reader}
