"""A teamspace's tables as a person has them: seen, filled by a file, written to one, kept for so long, deleted."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import FormData
from hypothesis import given
from hypothesis import strategies as st

from leadline.adapters.http.confinement import Namespace, plain
from leadline.adapters.http.pages.tables import filled
from leadline.adapters.http.pages.typed import Typed
from leadline.adapters.http.pages.uploads import plain_name, stored_name
from leadline_protocol.client import Client
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.ids import JobId
from leadline_protocol.messages import ColumnView, Get, Job, Jobs, Noop, Pause, Resume, Tables, TableView, Upload
from tests.daemon.pages import ORIGIN, Element, Person, Shown, fields_of, signed_in
from tests.daemon.running import Place

LEADS = b"Email,Employees\nada@a.example,12\ngrace@b.example,0\nzoe@c.example,\n"


async def send_file(somebody: Person, form: Element, name: str, content: bytes, **filled_in: str) -> Shown:
    """A form with a file, the file last as a browser sends it."""
    body = FormData(quote_fields=False)  # as browsers send the names of files
    for field, value in {**fields_of(form), **filled_in}.items():
        if field != "file":
            body.add_field(field, value, content_type="text/plain")
    body.add_field("file", content, filename=name, content_type="application/octet-stream")
    path = form.attributes["action"]
    return await somebody.ask("POST", path, data=body, headers={"Origin": ORIGIN}, follow=False)


@asynccontextmanager
async def house(place: Place) -> AsyncIterator[tuple[Client, Person]]:
    """A daemon with a table of three people, and somebody of acme."""
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        await fill(place, client)
        yield client, ann


async def fill(place: Place, client: Client, *, teamspace: str = "acme", table: str = "people") -> None:
    (place.state / "incoming" / "list.csv").write_bytes(LEADS)
    await client.wait((await client.submit(Upload(teamspace=teamspace, table=table, path="list.csv"))).job)


async def leads(client: Client, table: str) -> int:
    (view,) = (await client.call(Tables(teamspace="acme", table=table))).tables
    return view.leads


def job_of(seen: Shown) -> JobId:
    """The job that a form has led to."""
    assert seen.status == 303, seen.html
    return JobId(int(seen.headers["Location"].removeprefix("/jobs/").partition("?")[0]))


async def test_who_has_no_table_is_told_how_one_comes_about(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        main = (await ann.get("/tables")).main
        assert "There are no tables yet" in main.one("p", class_="empty").text
        assert main.one("form", id="upload").one("input", type="file").attributes["name"] == "file"


async def test_a_file_becomes_a_table_that_is_called_as_the_file_is(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        form = (await ann.get("/tables")).main.one("form", id="upload")
        seen = await send_file(ann, form, "Fair in Köln.csv", LEADS)
        assert seen.headers["Location"].endswith("?said=uploading")
        assert (await client.wait(job_of(seen))).state == "completed"
        row = (await ann.get("/tables")).main.one("tbody").one("tr")
        assert (row.one("th").text, row.one("td", data_label="Leads").text) == ("Fair in Köln", "3")
        table = await ann.get(row.one("a").attributes["href"])
        assert table.main.one("h1").text == "Fair in Köln"
        assert list((place.state / "incoming").iterdir()) == []


async def test_a_table_tells_its_columns_with_types_and_how_full_they_are(place: Place) -> None:
    async with house(place) as (_, ann):
        main = (await ann.get("/t/people")).main
        rows = [
            [cell.text for cell in row.every() if cell.tag in {"th", "td"}] for row in main.one("tbody").every("tr")
        ]
        assert rows == [["email", "text", "100 % (3)"], ["employees", "number", "67 % (2)"]]
        facts = main.one("dl", class_="facts").text
        assert "Leads 3" in facts
        assert "Told apart by email" in facts
        newest = main.one("section", id="jobs")
        assert newest.one("li").one("a").attributes["href"] == "/jobs/1"
        assert newest.one("div", class_="heading").one("a").attributes["href"] == "/t/people/jobs"


async def test_two_files_of_one_name_do_not_mix(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        await client.call(Pause(scope="queue"))
        form = (await ann.get("/tables")).main.one("form", id="upload")
        jobs = [
            job_of(await send_file(ann, form, "list.csv", b"email\n%s@a.example\n" % each, table=table))
            for each, table in ((b"ada", "ones"), (b"zoe", "others"))
        ]
        await client.call(Resume(scope="queue"))
        for job in jobs:
            assert (await client.wait(job)).counts.done == 1
        paths = {(await client.call(Job(job=job))).submission["path"] for job in jobs}  # type: ignore[index]
        assert len(paths) == 2


async def test_what_becomes_of_a_lead_that_is_there_already_is_said_with_the_file(place: Place) -> None:
    async with house(place) as (client, ann):
        page = (await ann.get("/t/people")).main
        form = page.one("form", id="upload")
        assert "two rows are the same lead when their email is the same" in form.one("details").text
        again = await send_file(ann, form, "more.csv", b"email,employees\nada@a.example,99\n", on_duplicate="update")
        assert (await client.wait(job_of(again))).state == "completed"
        assert await leads(client, "people") == 3
        skipped = await send_file(ann, form, "more.csv", b"email,employees\nada@a.example,99\n")
        assert (await client.wait(job_of(skipped))).state == "partial"


async def test_a_new_table_is_told_apart_by_the_columns_that_are_named(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        form = (await ann.get("/tables")).main.one("form", id="upload")
        seen = await send_file(ann, form, "c.csv", b"name,city\nA,Ulm\nA,Bonn\n", key="name, city", table="c")
        assert (await client.wait(job_of(seen))).counts.done == 2
        (view,) = (await client.call(Tables(teamspace="acme", table="c"))).tables
        assert view.key == ["name", "city"]


async def test_what_is_wrong_with_a_file_stands_at_its_field_and_nothing_of_it_stays(place: Place) -> None:
    place.configure("[http]", "upload_bytes_max = 1000")
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        form = (await ann.get("/tables")).main.one("form", id="upload")
        for name, content, status, told in (
            ("", b"", 400, "Choose a file first."),
            ("letter.pdf", b"%PDF", 400, "This is no file that can be read here"),
            ("big.csv", b"email\n" + 200 * b"a@a.example\n", 413, "at most 1 kB"),
        ):
            seen = await send_file(ann, form, name, content, table="t", on_duplicate="fill")
            assert seen.status == status
            again = seen.main.one("form", id="upload")
            assert told in again.one("span", class_="fault").text
            field = again.one("input", type="file")
            assert field.attributes["aria-describedby"] == again.one("span", class_="fault").attributes["id"]
            kept = fields_of(again)
            assert (kept["table"], kept["on_duplicate"]) == ("t", "fill"), "what was typed stays"
        refused = await send_file(ann, form, "odd.csv", b"email\n", table="?!")
        assert refused.status == 400
        assert "at least one letter" in refused.main.one("form", id="upload").one("span", class_="fault").text
        assert list((place.state / "incoming").iterdir()) == []
        assert (await client.call(Jobs())).jobs == []


async def test_a_file_is_taken_only_from_a_form_of_ours(place: Place) -> None:
    async with house(place) as (client, ann):
        form = (await ann.get("/t/people")).main.one("form", id="upload")
        unsigned = await send_file(ann, form, "list.csv", LEADS, csrf="guessed")
        assert unsigned.status == 403
        body = FormData({**fields_of(form), "file": ""})
        foreign = await ann.ask("POST", "/t/people", data=body, headers={"Origin": "https://evil.example"})
        assert foreign.status == 403
        assert len((await client.call(Jobs())).jobs) == 1, "the negative control: the house's own upload alone"
        assert (await send_file(ann, form, "list.csv", LEADS)).status == 303


async def test_a_file_is_written_by_a_job_with_filter_columns_and_format(place: Place) -> None:
    async with house(place) as (client, ann):
        form = (await ann.get("/t/people")).main.one("form", id="export")
        seen = await ann.send(form, format="jsonl", where="employees > 0", columns="email")
        assert seen.status in {200, 404}, "the job's page"
        (view,) = (await client.call(Jobs(limit=1))).jobs
        await client.wait(view.job)
        asked = (await client.call(Job(job=view.job))).submission
        assert asked is not None
        assert {name: asked[name] for name in ("where", "columns", "format")} == {
            "where": "employees > 0",
            "columns": ["email"],
            "format": "jsonl",
        }


async def test_a_bad_filter_is_shown_at_its_character(place: Place) -> None:
    async with house(place) as (_, ann):
        form = (await ann.get("/t/people")).main.one("form", id="export")
        seen = await ann.send(form, where="employes > 0", columns="email")
        assert seen.status == 422
        again = seen.main.one("form", id="export")
        assert again.one("mark").text == "e"
        assert again.one("code", class_="excerpt").parts[-1] == "mployes > 0"
        assert fields_of(again)["columns"] == "email"
        assert "no column 'employes'" in again.one("span", class_="fault").text
        unknown = await ann.send(form, columns="nothing")
        assert "nothing" in unknown.main.one("form", id="export").one("span", class_="fault").text


async def test_it_is_said_how_long_leads_stay(place: Place) -> None:
    async with house(place) as (_, ann):
        form = (await ann.get("/t/people")).main.one("form", id="retain")
        kept = await ann.send(form, days="30")
        assert "30 days after they were added" in kept.main.one("dl", class_="facts").text
        for wrong in ("-1", "0", "soon", "99999999", "9" * 5000):
            seen = await ann.send(form, days=wrong)
            assert seen.status == 400
            assert seen.main.one("form", id="retain").one("span", class_="fault").text
        for_ever = await ann.send(form, days="")
        assert "until you delete them" in for_ever.main.one("dl", class_="facts").text


async def test_before_a_table_is_deleted_it_is_said_what_would_go(place: Place) -> None:
    async with house(place) as (client, ann):
        page = (await ann.get("/t/people/delete")).main
        assert "with its 3 leads" in page.text
        assert await leads(client, "people") == 3
        await client.call(Pause(scope="teamspace", name="acme"))
        held = (await client.submit(Upload(teamspace="acme", table="people", path=put(place)))).job
        page = (await ann.get("/t/people/delete")).main
        assert f"#{held}" in page.one("ul", class_="rows").text
        form = page.one("form")
        refused = await ann.send(form)
        assert refused.status == 409
        assert "has not ended" in refused.main.one("p", role="alert").text
        gone = await ann.send(form, cancel="yes")
        assert (gone.address, gone.status) == ("/tables?said=table_deleted", 200)
        assert "There are no tables yet" in gone.main.text
        assert (await client.call(Get(job=held))).view.state == "cancelled"
        assert (await ann.get("/t/people")).status == 404


def put(place: Place) -> str:
    (place.state / "incoming" / "again.csv").write_bytes(LEADS)
    return "again.csv"


async def test_tables_come_in_pages(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        for number in range(53):
            await client.call(Tables(action="create", teamspace="acme", table=f"t/{number:02}"))
        first = (await ann.get("/tables")).main
        rows = list(first.one("tbody").every("tr"))
        assert len(rows) == 50
        assert rows[7].one("a").attributes["href"] == "/t/t%2F07"
        assert (await ann.get("/t/t%2F07")).main.one("h1").text == "t/07"
        (more,) = [a for a in first.every("a") if a.text == "More tables"]
        second = (await ann.get(more.attributes["href"])).main
        assert len(list(second.one("tbody").every("tr"))) == 3


async def test_nothing_of_another_teamspace_is_shown_or_touched(place: Place) -> None:
    async with house(place) as (client, ann):
        await fill(place, client, teamspace="globex", table="canary-7f3a")
        await client.submit(Noop(teamspace="globex"))
        assert "canary" not in (await ann.get("/tables")).html
        own = fields_of((await ann.get("/t/people")).main.one("form", id="retain"))
        for path in ("/t/canary-7f3a", "/t/canary-7f3a/delete"):
            for address in (path, f"{path}?teamspace=globex"):
                assert (await ann.get(address)).status == 404
        for path in ("delete", "retain", "export"):
            answer = await ann.post(f"/t/canary-7f3a/{path}?teamspace=globex", own)
            assert answer.status == 404, path
        assert len((await client.call(Tables(teamspace="globex"))).tables) == 1, "it is still there"


async def test_an_operator_sees_the_tables_of_the_teamspace_that_the_address_names(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client, None, "super_admin") as op:
        await fill(place, client)
        page = (await op.get("/tables?teamspace=acme")).main
        assert page.one("tbody").one("a").attributes["href"] == "/t/people?teamspace=acme"
        form = (await op.get("/t/people?teamspace=acme")).main.one("form", id="upload")
        seen = await send_file(op, form, "more.csv", b"email\nx@x.example\n")
        assert seen.headers["Location"].endswith("?said=uploading&teamspace=acme")
        assert (await op.get("/tables")).status == 400


@given(st.text(max_size=300), st.sampled_from([".csv", ".jsonl", ".XLSX", ""]))
def test_whatever_a_file_is_called_it_is_kept_under_a_name_that_leads_nowhere(name: str, suffix: str) -> None:
    shown = plain_name(f"{name}{suffix}")
    stored = stored_name(shown, "0123456789ab")
    assert plain(stored, "path") == stored
    assert Namespace(b"k", "acme").inside(stored).endswith(stored)
    assert stored.endswith(suffix)


@pytest.mark.parametrize(
    ("leads_", "full", "told"),
    [(3, 3, "100 %"), (3, 0, "0 %"), (3, 2, "67 %"), (100_000, 99_999, "over 99 %"), (100_000, 1, "under 1 %")],
)
def test_only_what_is_full_is_a_hundred_per_cent(leads_: int, full: int, told: str) -> None:
    from datetime import UTC, datetime

    table = TableView(teamspace="a", table="t", leads=leads_, columns=[], created_at=datetime.now(UTC))
    fill = filled(ColumnView(name="c", type="text", filled=full), table)
    assert fill is not None
    assert fill.percent == told


def test_a_fault_is_marked_at_its_character_and_at_the_end_of_the_text() -> None:
    form = Typed({"where": "a >"}, Refused(ErrorCode.BAD_EXPRESSION, "something is missing", at="where:4"))
    found = form.excerpt("where")
    assert found is not None
    assert (found.before, found.character, found.after) == ("a >", "", "")
    assert form.fault("where") == "Something is missing."
    assert form.fault("columns") is None
    long = Typed({"where": "x" * 500}, Refused(ErrorCode.BAD_EXPRESSION, "no", at="where:200")).excerpt("where")
    assert long is not None
    assert (long.before, long.character, long.after) == ("…" + 40 * "x", "x", 40 * "x" + "…")
