"""Files of every kind become the leads of a table, and the rest comes back with its reasons."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import xlsxwriter

from leadline_protocol.client import Client
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.ids import JobId
from leadline_protocol.messages import Dialect, Ended, Job, Upload
from tests.daemon.running import Place


async def upload(place: Place, client: Client, name: str, **options: Any) -> tuple[JobId, Ended]:
    job = (await client.submit(Upload(teamspace="acme", table="prospects", path=name, **options))).job
    return job, await client.wait(job)


async def stored(place: Place) -> Sequence[dict[str, Any]]:
    """The leads as the database has them."""
    connection = await asyncpg.connect(place.url)
    try:
        return [json.loads(row["data"]) for row in await connection.fetch("SELECT data FROM lead ORDER BY id")]
    finally:
        await connection.close()


ROWS = [
    {"email": "a@a.example", "employees": 5, "revenue": 12.5, "zip": "01067", "since": "2026-01-31"},
    {"email": "b@b.example", "employees": 7, "revenue": None, "zip": "8001", "since": "2025-12-31"},
    {"email": "no address", "employees": 1, "revenue": 1, "zip": "", "since": "2025-12-31"},
]


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Rows as a file of the kind that the path's name says."""
    match path.suffix:
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        case ".xlsx":
            with xlsxwriter.Workbook(str(path)) as book:
                book.add_worksheet("Notes").write(0, 0, "not this one")
                sheet = book.add_worksheet("Leads")
                sheet.write_row(0, 0, list(rows[0]))
                for number, row in enumerate(rows, start=1):
                    sheet.write_row(number, 0, list(row.values()))
        case _:
            lines = [list(rows[0]), *(["" if cell is None else str(cell) for cell in row.values()] for row in rows)]
            path.write_text("".join(",".join(line) + "\n" for line in lines))


@pytest.mark.parametrize("kind", ["csv", "jsonl", "xlsx"])
async def test_a_file_of_any_kind_becomes_the_same_leads(kind: str, place: Place) -> None:
    async with place.daemon() as (_, client):
        write(place.state / "incoming" / f"leads.{kind}", ROWS)
        (place.state / "incoming" / f"leads.{kind}").rename(place.state / "incoming" / "leads")
        job, ended = await upload(place, client, "leads", sheet="leads" if kind == "xlsx" else None)
        assert ended.state == "partial"
        (refused,) = (await client.call(Job(job=job, refused_after=0))).refused
        assert list((place.state / "uploads").iterdir()) == []
    assert await stored(place) == [
        {"email": "a@a.example", "employees": 5, "revenue": 12.5, "zip": "01067", "since": "2026-01-31"},
        {"email": "b@b.example", "employees": 7, "zip": "8001", "since": "2025-12-31"},
    ]
    assert (refused.row, refused.reason) == (3, "invalid_email")


async def test_5000_rows_with_120_duplicates_and_30_invalid_ones_are_4850_leads_and_150_reasons(place: Place) -> None:
    lines = ["Name,E-Mail Address"]
    for number in range(5_000):
        address = f"lead{number}@a.example"
        if number % 40 == 39 and number < 4_800:
            address = f" LEAD{number - 39}@A.example "
        elif number >= 4_970:
            address = f"lead{number}.a.example"
        lines.append(f"Lead {number},{address}")
    async with place.daemon() as (_, client):
        (place.state / "incoming" / "fair.csv").write_text("\n".join(lines))
        job, ended = await upload(place, client, "fair.csv", mapping={"E-Mail Address": "email"})
        assert (ended.state, ended.counts.total, ended.counts.done, ended.counts.failed) == (
            "partial",
            5_000,
            4_850,
            150,
        )
        refused = (await client.call(Job(job=job, refused_after=0))).refused
    assert Counter(row.reason.value for row in refused) == {"duplicate": 120, "invalid_email": 30}
    assert [row.row for row in refused][:2] == [40, 80]
    assert len(await stored(place)) == 4_850


FIRST = "email,name,city\na@a.example,Ada,\nb@b.example,Bob,Bonn\n"
AGAIN = (
    "email,name,city,zip\n B@B.example,Rob,,53111\nA@a.example,,Leeds,\nc@c.example,Cid,Rome,00100\nC@C.EXAMPLE,Sid,,\n"
)


@pytest.mark.parametrize(
    ("on_duplicate", "refused", "leads"),
    [
        ("skip", [1, 2, 4], [("Ada", None, None), ("Bob", "Bonn", None), ("Cid", "Rome", "00100")]),
        ("update", [], [("Ada", "Leeds", None), ("Rob", "Bonn", "53111"), ("Sid", "Rome", "00100")]),
        ("fill", [], [("Ada", "Leeds", None), ("Bob", "Bonn", "53111"), ("Cid", "Rome", "00100")]),
    ],
)
async def test_a_lead_that_is_there_is_left_or_updated_or_filled(
    on_duplicate: str, refused: list[int], leads: list[tuple[str | None, ...]], place: Place
) -> None:
    async with place.daemon() as (_, client):
        for name, text in (("first.csv", FIRST), ("again.csv", AGAIN)):
            (place.state / "incoming" / name).write_text(text)
            job, ended = await upload(place, client, name, on_duplicate=on_duplicate)
        assert (ended.state, ended.counts.done) == ("partial" if refused else "completed", 4 - len(refused))
        told = (await client.call(Job(job=job, refused_after=0))).refused
        assert [(row.row, row.reason.value) for row in told] == [(row, "duplicate") for row in refused]
    found = await stored(place)
    assert [(lead.get("name"), lead.get("city"), lead.get("zip")) for lead in found] == leads
    assert [lead["email"] for lead in found] == ["a@a.example", "b@b.example", "c@c.example"]


async def test_duplicates_are_found_however_far_they_are_apart(place: Place) -> None:
    """Far more rows lie between them than one transaction stores."""
    sites = [f"https://www.site{number}.example/" for number in range(2_500)]
    lines = [
        "website,team",
        *(f"{site},a" for site in sites),
        "SITE0.example,A ",
        "site0.example,b",
        "site1.example:80,a",
    ]
    async with place.daemon() as (_, client):
        (place.state / "incoming" / "sites.csv").write_text("\n".join(lines))
        job, ended = await upload(place, client, "sites.csv", key=["website", "team"])
        assert (ended.counts.done, ended.counts.failed) == (2_501, 2)
        told = (await client.call(Job(job=job, refused_after=0))).refused
    assert [(row.row, row.detail) for row in told] == [
        (2_501, "'site0.example, a' is there already"),
        (2_503, "'site1.example, a' is there already"),
    ]


async def test_a_spreadsheet_goes_on_behind_its_checkpoint(place: Place) -> None:
    """The second daemon unpacks it again, and the rows have the same numbers."""
    rows = [{"email": f"lead{number}@a.example", "n": number} for number in range(20_000)]
    place.configure("database.records_per_hour = 120000")
    async with place.daemon() as (_, client):
        write(place.state / "incoming" / "leads.xlsx", rows)
        receipt = await client.submit(Upload(teamspace="acme", table="prospects", path="leads.xlsx", sheet="Leads"))
        while (await client.call(Job(job=receipt.job))).view.counts.done == 0:
            pass
    assert 0 < len(await stored(place)) < 20_000
    place.configure("database.records_per_hour = 0")
    async with place.daemon() as (_, client):
        ended = await client.wait(receipt.job)
    assert (ended.state, ended.counts.done) == ("completed", 20_000)
    assert [lead["n"] for lead in await stored(place)] == list(range(20_000))


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("leads.xlsx", b"PK\x03\x04nonsense", "no XLSX workbook, or is cut off"),
        ("leads.xlsx", bytes(range(256)), "no XLSX workbook, but binary data"),
        ("leads.jsonl", b"[1]\n", "no line of the file"),
        ("leads.csv", b"", "empty"),
    ],
)
async def test_what_is_no_table_fails_the_job_and_says_why(name: str, data: bytes, says: str, place: Place) -> None:
    async with place.daemon() as (_, client):
        (place.state / "incoming" / name).write_bytes(data)
        job, ended = await upload(place, client, name)
        view = (await client.call(Job(job=job))).view
        assert (ended.state, view.reason) == ("failed", "bad_file")
        assert view.message is not None
        assert says in view.message
        assert list((place.state / "uploads").iterdir()) == []


async def test_what_is_said_must_fit_together(place: Place) -> None:
    async with place.daemon() as (_, client):
        (place.state / "incoming" / "leads").write_bytes(b"email\n")
        for options in ({"format": "csv", "sheet": "x"}, {"format": "xlsx", "dialect": Dialect(delimiter=";")}):
            with pytest.raises(Refused) as refused:
                await upload(place, client, "leads", **options)
            assert refused.value.code is ErrorCode.BAD_REQUEST
            assert refused.value.at in options
