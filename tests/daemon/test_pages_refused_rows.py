"""The rows that an upload has refused, as a person sees and fetches them."""

import csv
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from leadline.adapters.postgres.leads import PAGE_ROWS_MAX
from leadline_protocol.client import Client
from leadline_protocol.ids import JobId
from leadline_protocol.messages import Noop, Upload
from tests.daemon.pages import Person, signed_in
from tests.daemon.running import Place


@asynccontextmanager
async def house(place: Place) -> AsyncIterator[tuple[Client, Person]]:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        yield client, ann


async def uploaded(place: Place, client: Client, text: str, *, teamspace: str = "acme") -> JobId:
    (place.state / "incoming" / "list.csv").write_text(text)
    job = (await client.submit(Upload(teamspace=teamspace, table="people", path="list.csv"))).job
    await client.wait(job)
    return job


DIRTY = "email,note\nada@a.example,fine\nnobody,=HYPERLINK(1)\nADA@a.example,again\nno one,<b>bold</b>\n"


async def test_refused_rows_are_shown_by_reason_and_then_one_by_one(place: Place) -> None:
    async with house(place) as (client, ann):
        job = await uploaded(place, client, DIRTY)
        main = (await ann.get(f"/jobs/{job}/refused")).main
        reasons, rows = [list(body.every("tr")) for body in main.every("tbody")]
        assert sorted(row.one("td").text for row in reasons) == ["1", "2"]
        assert [row.one("th").text for row in rows] == ["Row 2 line 3", "Row 3 line 4", "Row 4 line 5"]
        assert "nobody" in rows[0].one("td", data_label="Why").text
        assert [row.one("code").text for row in rows] == [
            "nobody,=HYPERLINK(1)",
            "ADA@a.example,again",
            "no one,<b>bold</b>",
        ]


async def test_all_of_them_can_be_fetched_repaired_and_uploaded_again(place: Place) -> None:
    async with house(place) as (client, ann):
        job = await uploaded(place, client, DIRTY)
        page = (await ann.get(f"/jobs/{job}/refused")).main
        (download,) = [a for a in page.every("a") if "download" in a.attributes]
        answer = await ann.get(download.attributes["href"])
        assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
        assert answer.headers["Content-Disposition"] == f"attachment; filename*=UTF-8''people-{job}-refused.csv"
        assert answer.html.startswith("\ufeff")
        heading, *lines = csv.reader(io.StringIO(answer.html.removeprefix("\ufeff")))
        assert heading == ["refused_row", "refused_line", "refused_reason", "refused_detail", "email", "note"]
        assert [line[0:3] for line in lines] == [
            ["2", "3", "invalid_email"],
            ["3", "4", "duplicate"],
            ["4", "5", "invalid_email"],
        ]
        assert lines[0][5] == "'=HYPERLINK(1)", "what a spreadsheet would run is a mere text"
        again = await uploaded(place, client, answer.html.replace("nobody", "bob@b.example"))
        assert (await client.wait(again)).counts.done == 1


async def test_many_refused_rows_come_in_pages_and_in_one_file(place: Place) -> None:
    count = PAGE_ROWS_MAX + 7
    async with house(place) as (client, ann):
        job = await uploaded(place, client, "\n".join(["email,n", *(f"nobody,{n}" for n in range(count))]))
        answer = await ann.get(f"/jobs/{job}/refused.csv")
        lines = list(csv.reader(io.StringIO(answer.html)))[1:]
        assert [int(line[0]) for line in lines] == list(range(1, count + 1))
        address: str | None = f"/jobs/{job}/refused"
        seen: list[str] = []
        while address is not None:
            main = (await ann.get(address)).main
            seen += [row.one("code").text for row in list(main.every("tbody"))[-1].every("tr")]
            following = [a.attributes["href"] for a in main.every("a") if a.text == "Further rows"]
            address = following[0] if following else None
        assert seen == [f"nobody,{n}" for n in range(count)]


async def test_nothing_in_a_refused_row_turns_the_text_beside_it_round(place: Place) -> None:
    async with house(place) as (client, ann):
        job = await uploaded(place, client, "email,note\nnobody,\u202eevil\n")
        told = (await ann.get(f"/jobs/{job}/refused")).main.one("table", class_="refused-rows").text
        assert "\\u202eevil" in told
        assert "\u202e" not in told


async def test_an_upload_that_refused_nothing_says_so(place: Place) -> None:
    async with house(place) as (client, ann):
        job = await uploaded(place, client, "email\nada@a.example\n")
        main = (await ann.get(f"/jobs/{job}/refused")).main
        assert "No row was refused" in main.one("p", class_="empty").text
        noop = (await client.submit(Noop(teamspace="acme"))).job
        for end in ("refused", "refused.csv"):
            assert (await ann.get(f"/jobs/{noop}/{end}")).status == 404
        for after in ("-1", "x", "99999999999999999999"):
            assert (await ann.get(f"/jobs/{job}/refused?after={after}")).status == 400
        behind = (await ann.get(f"/jobs/{job}/refused?after=50")).main
        assert "There are no more refused rows" in behind.text


async def test_nobody_fetches_what_is_another_teamspaces(place: Place) -> None:
    async with house(place) as (client, ann):
        job = await uploaded(place, client, "email,note\nnobody,canary-7f3a\n", teamspace="globex")
        for path in (f"/jobs/{job}/refused", f"/jobs/{job}/refused.csv"):
            for address in (path, f"{path}?teamspace=globex"):
                answer = await ann.get(address)
                assert (answer.status, "canary" in answer.html) == (404, False)
        async with signed_in(place, client, "globex") as zoe:
            assert "canary-7f3a" in (await zoe.get(f"/jobs/{job}/refused")).html, "the negative control"
