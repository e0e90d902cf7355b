"""The demo's list and its expectation: made, not parsed; then read once by the standard library to see that it is a
CSV.

The checked-in copy of the expectation (tests/expected/demo) holds the generator to the same bytes on every Python.
`python -m tests.world.test_dirty_csv` writes it anew after a deliberate change.
"""

import csv
import io
import json
from collections import Counter
from hashlib import sha256
from pathlib import Path

from tests.world import dirty_csv
from tests.world.dirty_csv import DirtyCsv

EXPECTED = Path(__file__).parent.parent / "expected" / "demo" / "prospects.json"
LIST = dirty_csv.generate()


def summary(generated: DirtyCsv) -> dict[str, object]:
    """What is checked in: digests of what is large, the refused rows one by one."""
    stored = json.dumps([[lead.row, lead.line, *lead.cells.values()] for lead in generated.stored])
    return {
        "seed": dirty_csv.SEED,
        "rows": len(generated.stored) + len(generated.refused),
        "csv_sha256": sha256(generated.data).hexdigest(),
        "stored": len(generated.stored),
        "stored_sha256": sha256(stored.encode()).hexdigest(),
        "refused": dict(sorted(Counter(row.reason for row in generated.refused).items())),
        "refused_rows": {str(row.row): row.reason for row in generated.refused},
    }


def parsed() -> list[list[str]]:
    csv.field_size_limit(10**6)
    return list(csv.reader(io.StringIO(LIST.data.decode("utf-8-sig"), newline=""), strict=True))


def test_the_seed_yields_the_checked_in_list() -> None:
    assert summary(LIST) == json.loads(EXPECTED.read_text())


def test_a_csv_reader_finds_the_rows_that_were_made_at_the_lines_that_were_noted() -> None:
    heading, *rows = parsed()
    assert heading == list(dirty_csv.HEADINGS)
    assert len(rows) == 5_000
    for lead in LIST.stored:
        address, *others = rows[lead.row - 1]
        assert [address.strip().lower(), *others] == list(lead.cells.values())
    lines = LIST.data.decode("utf-8-sig").split("\n")
    for row in LIST.refused:
        assert rows[row.row - 1][0] in lines[row.line - 1].replace('""', '"')


def test_each_refused_row_has_its_fault_and_no_other() -> None:
    _, *rows = parsed()
    stored_at = {lead.cells["email"]: lead.row for lead in LIST.stored}
    assert len(stored_at) == len(LIST.stored)
    for refused in LIST.refused:
        fields = rows[refused.row - 1]
        address = fields[0].strip().lower()
        faults = {
            "duplicate": stored_at.get(address, refused.row) < refused.row,
            "missing_key": not address,
            "invalid_email": bool(address)
            and (address.count("@") != 1 or " " in address or address[0] == "@" or address[-1] == "@"),
            "ragged_row": len(fields) != 7,
            "field_too_long": any(len(field) > 32_768 for field in fields),
        }
        assert [name for name, found in faults.items() if found] == [refused.reason]


def test_the_dirt_is_there() -> None:
    text = LIST.data.decode("utf-8")
    assert text.startswith("\ufeff")
    assert "\r\n" in text
    cells = [cell for lead in LIST.stored for cell in lead.cells.values()]
    joined = "".join(cells)
    for wanted in (",", '"', "\n", "é", "山田", "ש", "ف", "Д", "🔬", "\u202b", "\t"):
        assert wanted in joined
    assert sum(len(cell) == 32_768 for cell in cells) == 5
    assert {cell[0] for cell in cells if cell} >= set("=+-@")
    assert cells.count("") > 1_000
    assert "NA" in cells


def test_another_seed_yields_another_list_and_a_smaller_one_keeps_the_mixture() -> None:
    small = dirty_csv.generate(seed=1, rows=1_000)
    assert (len(small.stored), len(small.refused)) == (971, 29)
    assert dirty_csv.generate(seed=2, rows=1_000).data != small.data


if __name__ == "__main__":
    EXPECTED.write_text(json.dumps(summary(LIST), indent=1, sort_keys=True) + "\n")
