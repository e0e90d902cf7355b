"""Rows of a file that are no leads can be had back, all of them, in pages that fit a line."""

from collections.abc import AsyncIterator, Sequence

from leadline.adapters.postgres.leads import REFUSED_ROWS_MAX
from leadline.features.tables.reading import RAW_CHARACTERS_MAX
from leadline_protocol.client import Client
from leadline_protocol.errors import LeadReason
from leadline_protocol.ids import JobId
from leadline_protocol.messages import Job, RefusedRow, Upload
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
    rows = 2 * REFUSED_ROWS_MAX + 5
    lines = ["name,email", *(f"Ada {n},no address" for n in range(rows)), "Bob,bob@a.example"]
    async with place.daemon() as (_, client):
        job = await uploaded(place, client, "\n".join(lines))
        found = [page async for page in pages(client, job)]
        assert [len(page) for page in found] == [REFUSED_ROWS_MAX, REFUSED_ROWS_MAX, 5]
        together = [row for page in found for row in page]
        assert [row.row for row in together] == list(range(1, rows + 1))
        last = together[-1]
        assert (last.line, last.reason, last.raw) == (rows + 1, LeadReason.INVALID_EMAIL, f"Ada {rows - 1},no address")
        assert (await client.call(Job(job=job))).refused == []


async def test_long_rows_come_in_shorter_pages(place: Place) -> None:
    long = "x" * RAW_CHARACTERS_MAX
    async with place.daemon() as (_, client):
        job = await uploaded(place, client, "\n".join(["name,email", *([f"{long}{long},ada@a.example"] * 40)]))
        sizes = [len(page) async for page in pages(client, job)]
    assert sum(sizes) == 40
    assert max(sizes) == 16
