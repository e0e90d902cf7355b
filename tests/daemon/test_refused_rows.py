"""Rows of a file that are no leads can be had back, all of them, in pages that fit a line."""

import json
from collections.abc import AsyncIterator, Sequence

import asyncpg
import msgspec
import xlsxwriter

from leadline.adapters.postgres.leads import PAGE_ROWS_MAX
from leadline.features.tables import repair
from leadline.features.tables.reading import RAW_CHARACTERS_MAX
from leadline_protocol.client import Client
from leadline_protocol.errors import LeadReason
from leadline_protocol.ids import JobId
from leadline_protocol.messages import Job, RefusedRow, Tables, Upload
from tests.daemon.running import Place


async def pages(client: Client, job: JobId) -> AsyncIterator[Sequence[RefusedRow]]:
    after = 0
    while page := (await client.call(Job(job=job, refused_after=after))).refused:
        yield page
        after = page[-1].row


async def uploaded(place: Place, client: Client, text: str) -> JobId:
    (place.state / "incoming" / "list.csv").write_text(text)
    job = (await client.submit(Upload(teamspace="acme", table="prospects", path="list.csv"))).job
    await client.wait(job)
    return job


async def test_every_row_that_was_not_taken_comes_back_once_in_the_order_of_the_file(place: Place) -> None:
    rows = 2 * PAGE_ROWS_MAX + 5
    lines = ["name,email", *(f"Ada {n},no address" for n in range(rows)), "Bob,bob@a.example"]
    async with place.daemon() as (_, client):
        job = await uploaded(place, client, "\n".join(lines))
        found = [page async for page in pages(client, job)]
        assert [len(page) for page in found] == [PAGE_ROWS_MAX, PAGE_ROWS_MAX, 5]
        together = [row for page in found for row in page]
        assert [row.row for row in together] == list(range(1, rows + 1))
        last = together[-1]
        assert (last.line, last.reason, last.raw) == (rows + 1, LeadReason.INVALID_EMAIL, f"Ada {rows - 1},no address")
        assert (await client.call(Job(job=job))).refused == []


async def test_rows_that_were_repaired_are_uploaded_again(place: Place) -> None:
    """Semicolons in Windows-1252 go out; what comes back is what a person made of it in a spreadsheet."""
    text = "E-Mail;Größe;Note\nada@a.example;1;fine\nbob@;2;=1+1\ncid@a.example;3\ndan@a.example;4;x;surplus\n"
    async with place.daemon() as (_, client):
        incoming = place.state / "incoming"
        (incoming / "list.csv").write_bytes(text.encode("cp1252"))
        wanted = Upload(teamspace="acme", table="prospects", path="list.csv", mapping={"E-Mail": "email"})
        job = (await client.submit(wanted)).job
        await client.wait(job)
        reply = await client.call(Job(job=job, refused_after=0))
        assert reply.headers == ["E-Mail", "Größe", "Note"]
        heading = repair.heading(reply.headers)
        bob, cid, dan = (repair.line(row.row, row.line, row.reason, row.detail, row.raw) for row in reply.refused)
        assert [bob, cid[4:], dan[4:]] == [
            ["2", "3", "invalid_email", "'bob@' in email", "bob@", "2", "'=1+1"],
            ["cid@a.example", "3"],
            ["dan@a.example", "4", "x", "surplus"],
        ]
        bob = [*bob[:4], "bob@a.example", *bob[5:]]
        with xlsxwriter.Workbook(str(incoming / "repaired.xlsx")) as book:
            sheet = book.add_worksheet()
            for number, line in enumerate([heading, bob, cid, dan]):
                sheet.write_row(number, 0, line)
        job = (await client.submit(msgspec.structs.replace(wanted, path="repaired.xlsx"))).job
        assert (await client.wait(job)).state == "partial"
        (row,) = (await client.call(Job(job=job, refused_after=0))).refused
        assert (row.reason, row.raw) == (LeadReason.RAGGED_ROW, "dan@a.example,4,x,surplus")
        (table,) = (await client.call(Tables(teamspace="acme"))).tables
    assert [column.name for column in table.columns] == ["email", "größe", "note"]
    connection = await asyncpg.connect(place.url)
    leads = [json.loads(row["data"]) for row in await connection.fetch("SELECT data FROM lead ORDER BY id")]
    await connection.close()
    assert leads == [
        {"email": "ada@a.example", "größe": 1, "note": "fine"},
        {"email": "bob@a.example", "größe": 2, "note": "=1+1"},
        {"email": "cid@a.example", "größe": 3},
    ]


async def test_long_rows_come_in_shorter_pages(place: Place) -> None:
    long = "x" * RAW_CHARACTERS_MAX
    async with place.daemon() as (_, client):
        job = await uploaded(place, client, "\n".join(["name,email", *([f"{long}{long},ada@a.example"] * 40)]))
        sizes = [len(page) async for page in pages(client, job)]
    assert sum(sizes) == 40
    assert max(sizes) == 16
