"""Files of every kind and dialect become leads, or rows refused with their reasons.

Each file of tests/expected/uploads has beside it what must become of it, reviewed by eye: which columns, which leads,
which rows are refused for which reason.
"""

import json
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from leadline.features.tables import lead_files, spreadsheets
from leadline.features.tables.columns import encode_cells
from leadline.features.tables.ingest import NewRow, duplicate, fold, plan_upload
from leadline.features.tables.lead_files import recognised, survey
from leadline.features.tables.reading import CsvFormat, RefusedRow, Row, UnreadableFileError, other_than_text
from leadline.features.tables.spreadsheets import SheetFormat
from leadline_protocol import messages as wire
from tests.architecture.repository import ROOT

UPLOADS = ROOT / "tests/expected/uploads"


def upload(name: str, **options: Any) -> wire.Upload:
    return wire.Upload(teamspace="acme", table="prospects", path=name, **options)


def read(path: Path, plain: Path, **options: Any) -> tuple[lead_files.Survey, list[Row | RefusedRow]]:
    """A file's survey and its rows, by way of a plain file where it is a spreadsheet."""
    submission = upload(path.name, **options)
    written = recognised(path, submission)
    if isinstance(written, SheetFormat):
        spreadsheets.unpack(path, submission.sheet, plain, lambda: None)
        path = plain
    found = survey(path, written)
    rows = list(lead_files.rows(path, written, found))
    assert len(rows) == found.rows
    for after in range(len(rows)):
        assert list(lead_files.rows(path, written, found, after=after)) == rows[after:]
    return found, rows


def became(path: Path, plain: Path) -> dict[str, Any]:
    """What becomes of a file's rows, in the words of the expectation."""
    found, rows = read(path, plain)
    plan = plan_upload(found.headers, found.sample, (), mapping={}, declared=(), key=None, typed=found.typed)
    judged = [plan.lead(row) if isinstance(row, Row) else row for row in rows]
    kept, folded = fold([row for row in judged if isinstance(row, NewRow)], "skip")
    refused = [row for row in judged if isinstance(row, RefusedRow)] + [duplicate(row) for row in folded]
    return {
        "columns": {column.name: column.type.value for column in plan.columns},
        "key": [part.name for part in plan.key],
        "leads": [{"row": row.number, "line": row.line, "data": json.loads(encode_cells(row.data))} for row in kept],
        "refused": [msgspec.to_builtins(row) for row in sorted(refused, key=lambda row: row.number)],
    }


def inputs() -> list[Path]:
    return [path for path in sorted(UPLOADS.iterdir()) if path.suffix != ".json"]


@pytest.mark.parametrize("path", inputs(), ids=lambda path: path.name)
def test_a_file_becomes_what_was_reviewed_by_eye(path: Path, tmp_path: Path) -> None:
    expected = json.loads(path.with_name(path.name + ".json").read_text(encoding="utf-8"))
    assert became(path, tmp_path / "plain") == expected


def kind(data: bytes, name: str, path: Path) -> str:
    path.write_bytes(data)
    written = recognised(path, upload(name))
    return {"CsvFormat": "csv", "JsonLinesFormat": "jsonl", "SheetFormat": "xlsx"}[type(written).__name__]


@pytest.mark.parametrize(
    ("data", "name", "wanted"),
    [
        (b'\n {"a":1}\n{"a":2}\n', "leads.csv", "jsonl"),
        (b"\xef\xbb\xbf" + b'{"a":1}\n', "leads", "jsonl"),
        ('{"a":1}\n'.encode("utf-16"), "leads", "jsonl"),
        (b'{"a":\n{"a":2}\n', "leads.jsonl", "jsonl"),
        (b'{"a":\n{"a":2}\n', "leads.NDJSON", "jsonl"),
        (b"{name},email\nAda,a@b.example\n", "leads.txt", "csv"),
        (b'[{"a":1}]\n', "leads.txt", "csv"),
        (b"PK\x03\x04", "leads.csv", "xlsx"),
        (b"a,b\n", "leads.xlsx", "csv"),
    ],
)
def test_what_a_file_is_is_found_by_looking_and_its_name_decides_a_doubt(
    data: bytes, name: str, wanted: str, tmp_path: Path
) -> None:
    assert kind(data, name, tmp_path / "file") == wanted


NOISE = random.Random(1).randbytes(4_096)
OLD_WORKBOOK = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504)


@pytest.mark.parametrize(
    ("data", "name", "options", "says"),
    [
        (b"", "leads.xlsx", {}, "the file is empty"),
        (b"", "leads", {"format": "xlsx"}, "the file is empty"),
        (NOISE, "leads.xlsx", {}, "no XLSX workbook, but binary data"),
        (NOISE, "LEADS.XLSX", {}, "no XLSX workbook, but binary data"),
        (NOISE, "leads", {"format": "xlsx"}, "no XLSX workbook, but binary data"),
        (b"a,b\n1,2\n", "leads", {"format": "xlsx"}, "no XLSX workbook, but text"),
        (
            OLD_WORKBOOK,
            "leads.xlsx",
            {},
            r"no XLSX workbook, but an old .* or one with a password",
        ),
        (OLD_WORKBOOK, "leads", {"format": "xlsx"}, "no XLSX workbook, but an old Excel workbook"),
        (OLD_WORKBOOK, "leads.xls", {}, "no CSV file, but an old Excel workbook"),
        (NOISE, "leads.jsonl", {}, "no JSON Lines file, but binary data"),
        (NOISE, "leads", {"format": "jsonl"}, "no JSON Lines file, but binary data"),
        (NOISE, "leads.csv", {}, "no CSV file, but binary data"),
        (NOISE, "leads.xlsx", {"format": "csv"}, "no CSV file, but binary data"),
        (
            b"PK\x03\x04" + bytes(100),
            "leads",
            {"format": "csv"},
            "no CSV file, but a spreadsheet",
        ),
        (b"\x1f\x8b\x08abc", "leads.csv", {}, "no CSV file, but a compressed file"),
        (b"%PDF-1.7", "leads.csv", {}, "no CSV file, but a PDF file"),
        ("a,b\n1,2\n".encode("utf-16-le"), "leads.csv", {}, "UTF-16 without its byte order mark"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_refused_for_what_it_is(
    data: bytes, name: str, options: dict[str, Any], says: str, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(UnreadableFileError, match=f"{says}.*$"):
        recognised(path, upload(name, **options))


@pytest.mark.parametrize("seed", range(100))
@pytest.mark.parametrize("size", [300, 100_000])
def test_random_bytes_are_no_text(seed: int, size: int) -> None:
    assert other_than_text(random.Random(seed).randbytes(size)) is not None


def test_a_text_is_one_with_some_broken_rows_in_it() -> None:
    rows = [f"lead{number}@a.example,Zoë\tZürich".encode() for number in range(200)]
    rows[::10] = [NOISE[at : at + 40].replace(b"\n", b"") for at in range(0, 800, 40)]
    for end in (b"\n", b"\r\n", b"\r"):
        assert other_than_text(end.join(rows)) is None


def test_what_is_said_of_a_file_is_believed(tmp_path: Path) -> None:
    path = tmp_path / "leads.csv"
    path.write_bytes(b"{'a';'b'}\n1;2\n")
    dialect = wire.Dialect(delimiter=";", quote="'", encoding="cp850")
    assert recognised(path, upload("leads.csv", format="csv", dialect=dialect)) == CsvFormat("cp850", ";", "'")
    path.write_bytes("a\u0085b\n1\n".encode("utf-16-le"))
    said = upload("leads.csv", dialect=wire.Dialect(encoding="utf-16-le", delimiter=","))
    assert recognised(path, said) == CsvFormat("utf-16-le", ",")


def test_objects_may_have_any_names_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "leads.jsonl"
    lines = ['{"b":1}'] * 600 + ['{"a":2.50,"b":null}', '{"c":"","b":12345678901234567890}']
    path.write_text("\n".join(lines), encoding="utf-8")
    found, rows = read(path, tmp_path)
    assert (found.headers, found.rows, len(found.sample)) == (("b", "a", "c"), 602, 500)
    assert rows[-2:] == [
        Row(601, 601, [None, Decimal("2.50"), None]),
        Row(602, 602, [12345678901234567890, None, ""]),
    ]


def test_a_line_that_is_no_object_is_refused_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "leads.jsonl"
    bad = [
        b'{"a":1',
        b"[1]",
        b'"a"',
        b'{"a":NaN}',
        b'{"a":"\\ud800"}',
        b'{"a":"\\u0000"}',
        b'{"a":"\xff"}',
        b'{"a":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
        b'{"a":' + b"9" * 5_000 + b"}",
        b'{"a":"' + b"x" * 32_769 + b'"}',
        b'{"a":["' + b"x" * 32_769 + b'"]}',
        b'{"a":"' + b"x" * 1_100_000 + b'"}',
    ]
    path.write_bytes(b"\n".join(['{"a":"ß"}'.encode(), *bad, b'{"a":13}']))
    rows = read(path, tmp_path)[1]
    assert [(row.number, row.line) for row in rows] == [(number, number) for number in range(1, 15)]
    assert [row.values for row in rows if isinstance(row, Row)] == [["ß"], [13]]
    reasons = [row.reason.value for row in rows if isinstance(row, RefusedRow)]
    assert reasons == ["bad_json"] * 5 + ["undecodable"] * 2 + ["bad_json"] * 2 + ["field_too_long"] * 3


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\n \n", "empty"),
        (b"[1]\n", "no line of the file"),
        (b"{}\n", "no line of the file"),
        (json.dumps({f"c{n}": n for n in range(1_001)}).encode(), "more than 1,000 names"),
        (json.dumps({"c" * 1_001: 1}).encode(), "a name of more than 1,000 characters"),
    ],
)
def test_objects_without_usable_names_are_refused_as_a_file(data: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "leads.jsonl"
    path.write_bytes(data)
    with pytest.raises(UnreadableFileError, match=says):
        read(path, tmp_path)
