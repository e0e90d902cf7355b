"""Leads that a job has not done can be had, with why and what each holds: in pages, to look at, as a file."""

import csv
import io
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from leadline.adapters.postgres.leads import PAGE_BYTES_MAX, PAGE_ROWS_MAX
from leadline_protocol.client import Client
from leadline_protocol.errors import LeadReason
from leadline_protocol.ids import JobId
from leadline_protocol.messages import (
    Chain,
    Export,
    Formula,
    FormulaStep,
    Job,
    LeadNotDone,
    Noop,
    Pause,
    Resume,
    Upload,
)
from tests.daemon.pages import Person, signed_in
from tests.daemon.running import Place
from tests.postgres import meddle


@asynccontextmanager
async def house(place: Place) -> AsyncIterator[tuple[Client, Person]]:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        yield client, ann


async def people(place: Place, client: Client, rows: Sequence[str], *, teamspace: str = "acme") -> JobId:
    (place.state / "incoming" / "list.csv").write_text("\n".join(rows))
    job = (await client.submit(Upload(teamspace=teamspace, table="people", path="list.csv"))).job
    assert (await client.wait(job)).state == "completed"
    return job


async def divided(client: Client, *, teamspace: str = "acme") -> JobId:
    """A formula that fails where `n` is 0."""
    wanted = Formula(teamspace=teamspace, table="people", into={"part": "number"}, expression="1 / n")
    job = (await client.submit(wanted)).job
    await client.wait(job)
    return job


async def pages(client: Client, job: JobId) -> AsyncIterator[Sequence[LeadNotDone]]:
    after = 0
    while page := (await client.call(Job(job=job, leads_after=after))).leads:
        yield page
        after = page[-1].lead


FOUR = ["n,email,note", "0,ada@a.example,=1+1", "2,bob@b.example,fine", "0,cy@c.example,<b>", "4,dan@d.example,x"]


async def test_every_lead_that_was_not_done_comes_once_with_why_and_what_it_holds_now(place: Place) -> None:
    async with place.daemon() as (_, client):
        await people(place, client, FOUR)
        job = await divided(client)
        reply = await client.call(Job(job=job, leads_after=0))
        assert reply.columns == ["email", "n", "note", "part"], "those that tell which lead it is come first"
        assert [(each.state, each.reason) for each in reply.leads] == [("failed", LeadReason.DIVISION_BY_ZERO)] * 2
        assert [each.cells for each in reply.leads] == [
            {"n": 0, "email": "ada@a.example", "note": "=1+1"},
            {"n": 0, "email": "cy@c.example", "note": "<b>"},
        ]
        assert (await client.call(Job(job=job))).leads == []
        assert (await client.call(Job(job=job, leads_after=reply.leads[-1].lead))).leads == []
        async with meddle(place.url) as connection:
            await connection.execute("DELETE FROM lead WHERE id = $1", reply.leads[0].lead)
        gone, there = (await client.call(Job(job=job, leads_after=0))).leads
        assert (gone.cells, there) == (None, reply.leads[1])


async def test_many_come_in_pages_that_fit_a_line_and_in_one_file(place: Place) -> None:
    count = PAGE_ROWS_MAX + 7
    long = PAGE_BYTES_MAX // 64
    async with house(place) as (client, ann):
        rows = [f"p{n}@a.example,0,{'x' * (long if n < 100 else 1)}" for n in range(count)]
        await people(place, client, ["email,n,note", *rows])
        job = await divided(client)
        found = [page async for page in pages(client, job)]
        assert max(map(len, found)) <= PAGE_ROWS_MAX
        assert len(found[0]) == 64, "pages of long ones are shorter"
        emails = [each.cells["email"] for page in found for each in page if each.cells]
        assert emails == [f"p{n}@a.example" for n in range(count)]
        answer = await ann.get(f"/jobs/{job}/leads.csv")
        heading, *lines = csv.reader(io.StringIO(answer.html.removeprefix("\ufeff")))
        assert heading[:5] == ["not_done_lead", "not_done_state", "not_done_reason", "not_done_detail", "email"]
        assert [line[4] for line in lines] == emails
        address: str | None = f"/jobs/{job}/leads"
        seen: list[str] = []
        while address is not None:
            main = (await ann.get(address)).main
            seen += [row.one("td", data_label="email").text for row in main.one("tbody").every("tr")]
            following = [a.attributes["href"] for a in main.every("a") if a.text == "Further leads"]
            address = following[0] if following else None
        assert seen == emails


async def test_a_person_comes_from_the_job_to_its_leads_and_to_the_file(place: Place) -> None:
    async with house(place) as (client, ann):
        await people(place, client, FOUR)
        job = await divided(client)
        shown = (await ann.get(f"/jobs/{job}")).main.one("section", id="errors")
        (link,) = [a for a in shown.every("a") if a.text == "All 2 leads that were not done"]
        page = (await ann.get(link.attributes["href"])).main
        rows = list(page.one("tbody").every("tr"))
        assert [row.one("td", data_label="email").text for row in rows] == ["ada@a.example", "cy@c.example"]
        assert rows[0].one("td", data_label="State").text == "failed"
        (download,) = [a for a in page.every("a") if "download" in a.attributes]
        answer = await ann.get(download.attributes["href"])
        assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
        assert answer.headers["Content-Disposition"] == f"attachment; filename*=UTF-8''people-{job}-not-done.csv"
        lines = list(csv.reader(io.StringIO(answer.html)))
        assert lines[1][5:7] == ["0", "'=1+1"], "what a spreadsheet would run is a mere text"


async def test_jobs_that_have_nothing_to_tell_say_so(place: Place) -> None:
    async with house(place) as (client, ann):
        upload = await people(place, client, ["email,n", "ada@a.example,1"])
        job = await divided(client)
        links = [a.attributes["href"] for a in (await ann.get(f"/jobs/{job}")).main.every("a")]
        assert f"/jobs/{job}/leads" not in links
        empty = (await ann.get(f"/jobs/{job}/leads")).main.one("p", class_="empty")
        assert empty.text == "Every lead that it is through with it has done."
        assert "no more leads" in (await ann.get(f"/jobs/{job}/leads?after=50")).main.text
        noop = (await client.submit(Noop(teamspace="acme"))).job
        step = FormulaStep(table="people", into={"half": "number"}, expression="n / 2")
        chain = (await client.submit(Chain(teamspace="acme", steps=[step]))).job
        export = (await client.submit(Export(teamspace="acme", table="people"))).job
        for other in (upload, noop, chain, export):
            for end in ("leads", "leads.csv"):
                assert (await ann.get(f"/jobs/{other}/{end}")).status == 404
            assert (await client.call(Job(job=other, leads_after=0))).leads == []
        for after in ("-1", "x", "99999999999999999999"):
            assert (await ann.get(f"/jobs/{job}/leads?after={after}")).status == 400


async def test_a_table_that_is_gone_takes_nothing_down_with_it(place: Place) -> None:
    async with house(place) as (client, ann):
        await people(place, client, FOUR)
        job = await divided(client)
        assert (await ann.get(f"/jobs/{job}/leads")).status == 200
        page = await ann.get("/t/people/delete")
        assert (await ann.send(page.main.one("form"))).status == 200
        for end in ("leads", "leads.csv"):
            assert (await ann.get(f"/jobs/{job}/{end}")).status in {200, 404}


async def test_an_export_that_skipped_deleted_leads_promises_no_list_of_them(place: Place) -> None:
    async with house(place) as (client, ann):
        await people(place, client, FOUR)
        await client.call(Pause(scope="family", name="tables"))
        export = (await client.submit(Export(teamspace="acme", table="people", select_leads="on_submit"))).job
        async with meddle(place.url) as connection:
            await connection.execute("DELETE FROM lead WHERE id = 1")
        await client.call(Resume(scope="family", name="tables"))
        assert (await client.wait(export)).counts.skipped == 1
        links = [a.attributes["href"] for a in (await ann.get(f"/jobs/{export}")).main.every("a")]
        assert f"/jobs/{export}/leads" not in links


async def test_a_table_that_is_gone_shows_no_cell_before_its_leads_are_swept_and_is_missed_by_nobody(
    place: Place,
) -> None:
    async with house(place) as (client, ann):
        await people(place, client, FOUR)
        job = await divided(client)
        async with meddle(place.url) as connection:
            await connection.execute("DELETE FROM lead_table")  # and it has been forgotten that there was one
        reply = await client.call(Job(job=job, leads_after=0))
        assert (len(reply.leads), [each.cells for each in reply.leads], reply.columns) == (2, [None, None], [])
        assert (await ann.get(f"/jobs/{job}/leads")).status == 200
        assert (await ann.get(f"/jobs/{job}/leads.csv")).status == 200


async def test_nobody_sees_the_leads_of_another_teamspace(place: Place) -> None:
    async with house(place) as (client, ann):
        await people(place, client, ["email,n", "canary-7f3a@a.example,0"], teamspace="globex")
        job = await divided(client, teamspace="globex")
        for path in (f"/jobs/{job}/leads", f"/jobs/{job}/leads.csv"):
            for address in (path, f"{path}?teamspace=globex"):
                answer = await ann.get(address)
                assert (answer.status, "canary" in answer.html) == (404, False)
        async with signed_in(place, client, "globex") as zoe:
            assert "canary-7f3a" in (await zoe.get(f"/jobs/{job}/leads")).html, "the negative control"
