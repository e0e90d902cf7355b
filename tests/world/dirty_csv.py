"""A lead list as people really export them, and what must become of each of its rows.

An expectation computed by a second parser would share the first one's mistakes. So nothing is parsed here: every row
is made to be stored or to be refused for one reason, and written out by hand; the expectation is the making. The file
has a BOM and CRLF, names in six scripts (some from right to left), commas, quotes and line breaks inside cells, empty
cells, cells that a spreadsheet would run as formulas, a column heading with spaces round it, fields of exactly the
longest length allowed, and addresses in any case with spaces round them. Refused are repeated addresses, missing and
broken ones, rows with too few or too many fields, and fields one character too long.

Drawn from `random.Random(seed).random()` alone, the one method whose sequence Python promises to keep, so the file is
the same byte for byte everywhere. Standard library only: the demo's verifier runs it by itself.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, assert_never

T = TypeVar("T")

SEED = 20_261_122
"""The seed of the demo; tests/expected/demo holds what it yields."""

ROWS = 5_000
FIELD_CHARACTERS_MAX = 32_768

HEADINGS = ("Email", "First Name", " Last Name ", "Company", "Country", "Employees", "Notes")
COLUMNS = ("email", "first_name", "last_name", "company", "country", "employees", "notes")
"""The headings, and the names that columns get from them."""

Reason = Literal["duplicate", "missing_key", "invalid_email", "ragged_row", "field_too_long"]
REFUSED_PER_5000: Mapping[Reason, int] = {
    "duplicate": 60,
    "missing_key": 25,
    "invalid_email": 30,
    "ragged_row": 25,
    "field_too_long": 5,
}
LONGEST_FIELD_EVERY = 971
"""Every so many leads have a field of exactly the longest length: five in 5,000 rows."""


@dataclass(frozen=True, slots=True)
class StoredLead:
    """A row that becomes a lead. `row` counts the rows below the heading from 1, `line` the file's lines from 1. The
    address in `cells` is as it identifies the lead: lower case, without spaces round it.
    """

    row: int
    line: int
    cells: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row that must not become a lead, and why."""

    row: int
    line: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class DirtyCsv:
    """The file's bytes, and what must become of its rows, in their order."""

    data: bytes
    stored: tuple[StoredLead, ...]
    refused: tuple[RefusedRow, ...]


def generate(seed: int = SEED, rows: int = ROWS) -> DirtyCsv:
    """The file of `rows` rows that `seed` yields; a multiple of 1,000 keeps the mixture exact."""
    draw = random.Random(seed)
    text = [_line(HEADINGS, draw)]
    line_number = 2
    stored: list[StoredLead] = []
    refused: list[RefusedRow] = []
    for row, reason in enumerate(_fates(rows, draw), start=1):
        cells = _lead(row, draw)
        if reason is None:
            if len(stored) % LONGEST_FIELD_EVERY == LONGEST_FIELD_EVERY - 1:
                cells["notes"] = _long(FIELD_CHARACTERS_MAX, draw)
            stored.append(StoredLead(row, line_number, cells))
            address, *others = cells.values()
            fields = [_disguised(address, draw) if draw.random() < 0.1 else address, *others]
        else:
            fields = _spoiled(reason, row, list(cells.values()), stored, draw)
            refused.append(RefusedRow(row, line_number, reason))
        text.append(_line(fields, draw))
        line_number += text[-1].count("\n")
    return DirtyCsv(b"\xef\xbb\xbf" + "".join(text).encode(), tuple(stored), tuple(refused))


def _fates(rows: int, draw: random.Random) -> list[Reason | None]:
    """Why each row is to be refused (None: stored), mixed. A lead comes first: every repetition repeats something."""
    reasons = [reason for reason, count in REFUSED_PER_5000.items() for _ in range(count * rows // 5_000)]
    fates: list[Reason | None] = [None] * rows
    places = sorted(range(1, rows), key=lambda _: draw.random())
    for place, reason in zip(places, reasons, strict=False):
        fates[place] = reason
    return fates


def _spoiled(
    reason: Reason, row: int, fields: list[str], stored: Sequence[StoredLead], draw: random.Random
) -> list[str]:
    """A lead's fields, spoiled in the one way that `reason` names."""
    match reason:
        case "duplicate":
            return [_disguised(_pick(stored, draw).cells["email"], draw), *fields[1:]]
        case "missing_key":
            return [_pick(("", "", " ", "\u00a0"), draw), *fields[1:]]
        case "invalid_email":
            return [_broken_address(row, draw), *fields[1:]]
        case "ragged_row":
            return fields[: 2 + int(draw.random() * 4)] if draw.random() < 0.5 else [*fields, "one too many"]
        case "field_too_long":
            return [*fields[:-1], _long(FIELD_CHARACTERS_MAX + 1, draw)]
        case never:
            assert_never(never)


# Each name with the plain form that its address is made of.
_FIRST_NAMES = (
    ("Ada", "ada"), ("José", "jose"), ("Zoë", "zoe"), ("Jürgen", "juergen"), ("Łukasz", "lukasz"), ("Siân", "sian"),
    ("Ægir", "aegir"), ("Nguyễn", "nguyen"), ("太郎", "taro"), ("小芳", "xiaofang"), ("지우", "jiwoo"),
    ("משה", "moshe"), ("فاطمة", "fatima"), ("Дмитрий", "dmitri"), ("Αθηνά", "athina"), ("Mary Ann", "mary-ann"),
    ("Rene\u0301", "rene"),
)  # fmt: skip
_LAST_NAMES = (
    ("Lovelace", "lovelace"), ("Müller-Lüdenscheidt", "mueller"), ("O'Brien", "obrien"), ("d’Arc", "darc"),
    ("山田", "yamada"), ("王", "wang"), ("김", "kim"), ("כהן", "cohen"), ("العلي", "alali"), ("Çelik", "celik"),
    ("Ångström", "angstrom"), ("Smith, Jr.", "smith"), ('"Ace" Novák', "novak"), ("Достоевский", "dostoevski"),
    ("", "x"),
)  # fmt: skip
_COMPANIES = (
    "North Wind Ltd", "Müller, Söhne & Co. KG", 'Bar "Le Chat"', "株式会社 山田製作所", "北京科技有限公司",
    "한빛 주식회사", 'כהן ובניו בע"מ', "شركة النور", "Über Bier GmbH", "Ødegård AS", "Smith,Smith,Smith",
    "L'Étoile\nParis", "Ampère; Watt", "Tab\tand Spaces", "", "Null", "N/A", "👩🏽\u200d🔬 Labs",
    "=1+1 Consulting", "+Plus AG", "-5°C Foods", "@home Care",
)  # fmt: skip
_COUNTRIES = ("DE", "FR", "JP", "CN", "KR", "IL", "EG", "NO", "NA", "US", "")
_NOTES = (
    "", "", "", "met at the fair", "Called twice, no answer", "Line one\nline two\r\nline three",
    'said "call me in May"',
    "\u202bשיחה טובה\u202c, follow up", "看过演示，感兴趣", "100%; really?", "trailing comma,", ",", '"',
)  # fmt: skip
_DOMAINS = (
    "north-wind",
    "mueller-soehne",
    "lechat",
    "yamada",
    "hanbit",
    "cohen",
    "alnoor",
    "odegard",
    "ampere",
    "labs",
)


def _lead(row: int, draw: random.Random) -> dict[str, str]:
    """A lead of its own: the row's number makes the address unlike any other."""
    first, plain_first = _pick(_FIRST_NAMES, draw)
    last, plain_last = _pick(_LAST_NAMES, draw)
    tag = _pick((".", "_", "+"), draw)
    address = f"{plain_first}.{plain_last}{tag}{row}@{_pick(_DOMAINS, draw)}{int(draw.random() * 90)}.example"
    employees = "" if draw.random() < 0.1 else str(1 + int(draw.random() ** 3 * 20_000))
    values = (address, first, last, _pick(_COMPANIES, draw), _pick(_COUNTRIES, draw), employees, _pick(_NOTES, draw))
    return dict(zip(COLUMNS, values, strict=True))


def _disguised(address: str, draw: random.Random) -> str:
    """The same address as people type it: in other letters, with spaces round it, always changed somehow."""
    name, _, domain = address.partition("@")
    spelt = _pick((address.upper(), address.title(), f"{name}@{domain.upper()}", address), draw)
    before, after = _pick(((" ", ""), ("", " "), ("  ", " "), ("", "\t"), ("", "")), draw)
    return address.upper() if before + spelt + after == address else before + spelt + after


def _broken_address(row: int, draw: random.Random) -> str:
    broken = (
        "not an address",
        f"lead{row}",
        f"lead{row}@",
        f"@north{row}.example",
        f"a@b@c{row}.example",
        f"lead {row}@x.example",
    )
    return _pick(broken, draw)


def _long(characters: int, draw: random.Random) -> str:
    """A field of exactly so many characters: some of one byte each, some of three."""
    return _pick(("long", "長い話、", "a,\nb"), draw) * (characters // 4) + "!" * (characters % 4)


def _line(fields: Sequence[str], draw: random.Random) -> str:
    """One row as it is written: quoted where it must be, and here and there where it need not."""
    return ",".join(_quoted(field, always=draw.random() < 0.05) for field in fields) + "\r\n"


def _quoted(field: str, *, always: bool) -> str:
    if always or any(special in field for special in ',"\r\n'):
        return '"' + field.replace('"', '""') + '"'
    return field


def _pick(choices: Sequence[T], draw: random.Random) -> T:
    return choices[int(draw.random() * len(choices))]
