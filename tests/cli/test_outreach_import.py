"""`leadline outreach import`: what lines become rows, and where a line that does not is told."""

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from leadline.cli.outreach_import import ENVELOPE_BYTES, ROWS_MAX, _pieces
from leadline.cli.outreach_rows import Fault, Found
from leadline_protocol.codec import LINE_BYTES_MAX, LineFault, RequestDecoder, encode
from leadline_protocol.errors import ErrorCode
from leadline_protocol.messages import (
    CONTROL_OPERATIONS,
    SUBMISSION_TYPES,
    FollowUps,
    Imported,
    ImportFault,
    OutreachReply,
    Refusal,
)
from tests.cli.conftest import Leadline
from tests.cli.fake_daemon import FakeDaemon, refusal

TO_ACME = ("--teamspace", "acme")


@pytest.fixture
def rows(daemon: FakeDaemon) -> Callable[[], list[dict[str, Any]]]:
    """A daemon that takes all rows but those to bad@acme.example; the rows that it was handed."""

    def take(asked: FollowUps) -> OutreachReply:
        assert asked.rows is not None
        faults = [
            ImportFault(row=place, code="not_found", message="acme has no associate bob", at="associate")
            for place, row in enumerate(asked.rows)
            if row.get("address") == "bad@acme.example"
        ]
        imported = Imported(added=len(asked.rows) - len(faults), changed=0, known=0, faults=faults)
        return OutreachReply(line=0, imported=imported)

    daemon.on(FollowUps, take)
    return lambda: [row for request in daemon.requests if isinstance(request, FollowUps) for row in request.rows or ()]


def written(folder: Path, name: str, *lines: str) -> Path:
    file = folder / name
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def test_lines_of_json_are_rows_as_they_stand(
    leadline: Leadline, tmp_path: Path, rows: Callable[[], list[dict[str, Any]]]
) -> None:
    file = written(
        tmp_path,
        "team.jsonl",
        '{"type":"associate","name":"ada","address":"ada@acme.example"}',
        "",
        '{"type":"follow_up","address":"grace@navy.example","fields":{"n":7,"x":null}}',
    )
    ran = leadline("outreach", "import", file, *TO_ACME)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.splitlines() == [
        "2 added, 0 changed in acme.",
        "Next: leadline outreach preview --teamspace acme",
    ]
    assert rows() == [
        {"type": "associate", "name": "ada", "address": "ada@acme.example"},
        {"type": "follow_up", "address": "grace@navy.example", "fields": {"n": 7, "x": None}},
    ]


def test_each_line_that_is_not_taken_is_told_at_its_place_and_the_others_go_on(
    leadline: Leadline, tmp_path: Path, rows: Callable[[], list[dict[str, Any]]]
) -> None:
    file = written(
        tmp_path,
        "list.jsonl",
        '{"type":"follow_up","address":"bad@acme.example"}',
        "{",
        "[1]",
        '{"type":"asociate","name":"ada"}',
        '{"address":"x@acme.example"}',
        '{"type":"follow_up","address":"a@acme.example","address":"b@acme.example"}',
        '{"type":"follow_up","address":"a@acme.example","fields":{"x":NaN}}',
        '{"type":"follow_up","address":"a@acme.example","fields":{"x":1e999}}',
        '{"type":"follow_up","address":"a@acme.example","fields":{"x":"\\ud800"}}',
        '{"type":"follow_up","address":"good@acme.example"}',
    )
    ran = leadline("outreach", "import", file, *TO_ACME)
    assert ran.status == 1
    types = "associate, script, follow_up, suppression"
    assert ran.err.splitlines() == [
        f"{file}:1: not_found: acme has no associate bob (at associate)",
        f"{file}:2: bad_json: not JSON: Expecting property name enclosed in double quotes at character 3",
        f"{file}:3: bad_request: not a JSON object",
        f"{file}:4: bad_request: there is no type 'asociate'; there are {types} (at type)",
        f"{file}:5: bad_request: no type is given; there are {types} (at type)",
        f"{file}:6: bad_json: the key 'address' stands twice in one object",
        f"{file}:7: bad_json: NaN is no number",
        f"{file}:8: bad_json: 1e999 is no number",
        f"{file}:9: bad_json: half a character (a lone surrogate) is in it",
    ]
    assert ran.out.splitlines()[0] == "1 added, 0 changed, 9 lines not taken in acme."
    assert [row["address"] for row in rows()] == ["bad@acme.example", "good@acme.example"]


def test_as_json_faults_and_the_outcome_are_objects(
    leadline: Leadline, tmp_path: Path, rows: Callable[[], list[dict[str, Any]]]
) -> None:
    file = written(tmp_path, "list.jsonl", '{"type":"follow_up","address":"bad@acme.example"}')
    ran = leadline("outreach", "import", file, *TO_ACME, "--json")
    assert (ran.status, ran.err) == (1, "")
    fault = {"code": "not_found", "message": "acme has no associate bob", "at": "associate"}
    assert list(map(json.loads, ran.out.splitlines())) == [
        {"file": str(file), "line": 1, **fault},
        {"added": 0, "changed": 0, "known": 0, "faults": 1},
    ]


def test_columns_of_csv_that_are_known_are_so_and_the_others_are_fields(
    leadline: Leadline, tmp_path: Path, rows: Callable[[], list[dict[str, Any]]]
) -> None:
    file = written(
        tmp_path,
        "crm.csv",
        "E-Mail;First name;Follow-up date;STEP;company;zone",
        "grace@navy.example;Grace;2026-12-01;2;;America/New_York",
        ";;;;;",
        "alan@bletchley.example;Alan;2026-12-01 09:30+01:00;;Station X;",
    )
    ran = leadline("outreach", "import", file, *TO_ACME, "--script", "fair", "--associate", "ada")
    assert (ran.status, ran.err) == (0, "")
    said = {"type": "follow_up", "script": "fair", "associate": "ada"}
    assert rows() == [
        {
            **said,
            "address": "grace@navy.example",
            "follow_up_date": "2026-12-01T00:00:00+05:30",
            "step": 2,
            "zone": "America/New_York",
            "fields": {"First name": "Grace"},
        },
        {
            **said,
            "address": "alan@bletchley.example",
            "follow_up_date": "2026-12-01T14:00:00+05:30",
            "fields": {"First name": "Alan", "company": "Station X"},
        },
    ]


def test_what_a_row_says_itself_goes_before_what_the_command_line_says(
    leadline: Leadline, tmp_path: Path, rows: Callable[[], list[dict[str, Any]]]
) -> None:
    file = written(tmp_path, "crm.csv", "email,associate", "a@b.example,eve", "c@d.example,")
    leadline("outreach", "import", file, *TO_ACME, "--associate", "ada")
    assert [row["associate"] for row in rows()] == ["eve", "ada"]


def test_a_header_is_called_what_the_command_line_says(
    leadline: Leadline, tmp_path: Path, rows: Callable[[], list[dict[str, Any]]]
) -> None:
    file = written(tmp_path, "crm.csv", "Mail,Vorname,zone", "a@b.example,Jörg,North")
    options = ("--rename", "Mail=address", "--rename", "Vorname=first_name", "--rename", "zone=area")
    assert leadline("outreach", "import", file, *TO_ACME, *options).status == 0
    assert rows() == [
        {"type": "follow_up", "address": "a@b.example", "fields": {"first_name": "Jörg", "area": "North"}}
    ]


def test_suppressions_come_from_csv_too(
    leadline: Leadline, tmp_path: Path, rows: Callable[[], list[dict[str, Any]]]
) -> None:
    file = written(tmp_path, "gone.csv", "email,domain,detail,Since", "a@b.example,,asked,2025", ",c.example,,2026")
    ran = leadline("outreach", "import", file, *TO_ACME, "--type", "suppression")
    assert rows() == [
        {"type": "suppression", "address": "a@b.example", "detail": "asked"},
        {"type": "suppression", "domain": "c.example"},
    ]
    assert ran.err == "Columns that were left out: Since.\n"
    assert ran.out.splitlines()[-1] == "Next: leadline outreach suppressions --teamspace acme"


def test_a_row_of_csv_that_cannot_be_read_is_told_with_its_line(
    leadline: Leadline, tmp_path: Path, rows: Callable[[], list[dict[str, Any]]]
) -> None:
    file = written(
        tmp_path, "crm.csv", "email,name", '"a@b.example","two', 'lines"', "c@d.example", "bad@acme.example,x"
    )
    ran = leadline("outreach", "import", file, *TO_ACME)
    assert ran.err.splitlines() == [
        f"{file}:4: ragged_row: 1 fields; the header has 2",
        f"{file}:5: not_found: acme has no associate bob (at associate)",
    ]
    assert ran.status == 1


@pytest.mark.parametrize(
    ("content", "options", "status", "fault"),
    [
        (b"Name,Mail\nA,a@b.example\n", [], 1, "has no column address or email; it has Name, Mail"),
        (b"email,Mail\na,b\n", ["--rename", "Mail=address"], 1, "has address twice: --rename HEADER=COLUMN"),
        (b"email\na@b.example\n", ["--rename", "Mail=address"], 2, "has no column Mail; it has email"),
        (b"email\na@b.example\n", ["--rename", "Mail"], 2, "--rename takes HEADER=COLUMN, not Mail"),
        (b'{"type":"script"}\n', ["--rename", "a=b"], 2, "--rename is for the columns of a CSV file"),
        (b'[{"type":"script"}]\n', [], 1, "holds one JSON array: write JSON Lines"),
        (b"PK\x03\x04", [], 1, "is a spreadsheet or another ZIP archive: save it as CSV"),
        (b"", [], 1, "the file is empty"),
    ],
)
def test_a_file_that_is_none_is_refused_as_a_whole(
    leadline: Leadline,
    tmp_path: Path,
    daemon: FakeDaemon,
    content: bytes,
    options: Sequence[str],
    status: int,
    fault: str,
) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    ran = leadline("outreach", "import", file, *TO_ACME, *options)
    assert (ran.status, ran.out) == (status, "")
    assert fault in ran.err
    assert daemon.requests == []


def test_a_dash_is_standard_input(
    leadline: Leadline, monkeypatch: pytest.MonkeyPatch, rows: Callable[[], list[dict[str, Any]]]
) -> None:
    text = b'{"type":"follow_up","address":"a@b.example"}\n{"type":"follow_up","address":"bad@acme.example"}'
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
    ran = leadline("outreach", "import", "-", *TO_ACME)
    assert ran.err == "-:2: not_found: acme has no associate bob (at associate)\n"
    assert len(rows()) == 2


def test_a_password_is_read_from_a_file_beside_the_import_and_printed_nowhere(
    leadline: Leadline, tmp_path: Path, rows: Callable[[], list[dict[str, Any]]]
) -> None:
    written(tmp_path, "ada.password", "hush hush")
    smtp = {"host": "mail.acme.example", "user": "ada", "password_file": "ada.password"}
    row = {"type": "associate", "name": "ada", "address": "ada@acme.example", "smtp": smtp}
    ran = leadline("outreach", "import", written(tmp_path, "team.jsonl", json.dumps(row)), *TO_ACME)
    assert ran.status == 0
    assert rows()[0]["smtp"] == {"host": "mail.acme.example", "user": "ada", "password": "hush hush"}
    assert "hush" not in ran.out + ran.err


@pytest.mark.parametrize(
    ("smtp", "fault"),
    [
        ({"password_file": "gone"}, "gone: No such file or directory"),
        ({"password_file": 7}, "expected `str`"),
        ({"password_file": "x", "password": "y"}, "give a password or a password_file, not both"),
    ],
)
def test_a_password_that_cannot_be_had_is_a_fault_of_its_line(
    leadline: Leadline, tmp_path: Path, daemon: FakeDaemon, smtp: dict[str, Any], fault: str
) -> None:
    row = {"type": "associate", "name": "ada", "address": "ada@acme.example", "smtp": smtp}
    ran = leadline("outreach", "import", written(tmp_path, "team.jsonl", json.dumps(row)), *TO_ACME)
    assert ran.status == 1
    assert ran.err.rstrip("\n").endswith(f"{fault} (at smtp.password_file)")
    assert daemon.requests == []


def test_a_row_for_which_a_whole_request_is_refused_is_found(
    leadline: Leadline, tmp_path: Path, daemon: FakeDaemon
) -> None:
    def take(asked: FollowUps) -> OutreachReply | Refusal:
        assert asked.rows is not None
        if any(row["address"] == "evil@acme.example" for row in asked.rows):
            return refusal(ErrorCode.BAD_JSON, "a text may not hold the character NUL")
        return OutreachReply(line=0, imported=Imported(added=len(asked.rows), changed=0, known=0, faults=[]))

    daemon.on(FollowUps, take)
    lines = [f'{{"type":"follow_up","address":"{name}@acme.example"}}' for name in ("a", "b", "evil", "c", "d")]
    file = written(tmp_path, "list.jsonl", *lines)
    ran = leadline("outreach", "import", file, *TO_ACME)
    assert ran.err == f"{file}:3: bad_json: a text may not hold the character NUL\n"
    assert ran.out.splitlines()[0] == "4 added, 0 changed, 1 line not taken in acme."


@pytest.mark.parametrize(
    "answer",
    [
        refusal(ErrorCode.FORBIDDEN, "no"),
        refusal(ErrorCode.BAD_REQUEST, "expected `str` of length >= 1", at="teamspace"),
    ],
)
def test_what_is_refused_for_another_reason_than_a_row_is_asked_once(
    leadline: Leadline, tmp_path: Path, daemon: FakeDaemon, answer: Refusal
) -> None:
    daemon.on(FollowUps, lambda _: answer)
    lines = ['{"type":"follow_up","address":"a@acme.example"}'] * 5
    assert leadline("outreach", "import", written(tmp_path, "list.jsonl", *lines), *TO_ACME).status == 1
    assert len(daemon.requests) == 1


def test_a_long_file_goes_in_pieces_and_an_end_in_between_is_told(
    leadline: Leadline, tmp_path: Path, daemon: FakeDaemon
) -> None:
    def take(asked: FollowUps) -> OutreachReply | Refusal:
        assert asked.rows is not None
        if len(daemon.requests) == 3:
            return refusal(ErrorCode.INTERNAL, "no more")
        return OutreachReply(line=0, imported=Imported(added=len(asked.rows), changed=0, known=0, faults=[]))

    daemon.on(FollowUps, take)
    lines = [f'{{"type":"follow_up","address":"a{number}@acme.example"}}' for number in range(2500)]
    ran = leadline("outreach", "import", written(tmp_path, "list.jsonl", *lines), *TO_ACME)
    assert [len(request.rows or ()) for request in daemon.requests if isinstance(request, FollowUps)] == [
        1000,
        1000,
        500,
    ]
    assert ran.status == 1
    assert ran.err.splitlines() == [
        "What stands before line 2001 is imported; import the file once more.",
        "leadline: internal: no more",
    ]


DECODER = RequestDecoder(SUBMISSION_TYPES, CONTROL_OPERATIONS)


def rows_of(bytes_: int, parts: int, at_most: int) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Rows, so many at most, of about so many bytes or values in one of them at most."""
    return st.lists(
        st.one_of(
            st.builds(lambda size: {"a": "é" * size}, st.integers(0, bytes_ // 2)),
            st.builds(lambda size: {"a": [{}] * size}, st.integers(0, parts)),
            st.builds(lambda size: {"a": {str(key): key for key in range(size)}}, st.integers(0, 30)),
        ),
        max_size=at_most,
    )


LARGE_ROWS = rows_of(280_000, 12_000, 8)
SMALL_ROWS = rows_of(1_000, 100, 30)


@settings(max_examples=50, deadline=None)
@given(LARGE_ROWS, SMALL_ROWS, st.integers(1, 60), LARGE_ROWS)
@example([], [{"a": ""}] * 30, 60, [])
def test_every_row_is_in_one_piece_or_a_fault_and_every_piece_is_a_line(
    before: list[dict[str, Any]], small: list[dict[str, Any]], times: int, after: list[dict[str, Any]]
) -> None:
    kinds = [*before, *small * times, *after]
    rows = [Found(line, {"type": "script", **row}) for line, row in enumerate(kinds, 1)]
    seen: list[int] = []
    for piece in _pieces(iter(rows)):
        assert len(piece.found) <= ROWS_MAX
        seen += [*(each.line for each in piece.found), *(each.line for each in piece.faults)]
        if piece.found:
            asked = FollowUps(action="import", teamspace="é" * 100, rows=[each.row for each in piece.found])
            line = encode([asked]).rstrip(b"\n")
            assert len(line) <= LINE_BYTES_MAX
            assert not isinstance(DECODER.decode(line), LineFault)
        for fault in piece.faults:
            row = rows[fault.line - 1].row
            assert fault.code == ErrorCode.TOO_LARGE
            assert len(json.dumps(row)) > LINE_BYTES_MAX - ENVELOPE_BYTES or len(row["a"]) > 9_900
    assert sorted(seen) == [each.line for each in rows]


def test_a_line_that_was_not_read_is_told_with_its_piece() -> None:
    fault = Fault(2, "bad_json", "no")
    (piece,) = _pieces(iter([Found(1, {}), fault, Found(3, {})]))
    assert (piece.faults, [each.line for each in piece.found]) == ([fault], [1, 3])
