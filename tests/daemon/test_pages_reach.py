"""Every page, asked for with what is another teamspace's: nothing of it is there, whatever the page."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

import pytest

from leadline.adapters.http.pages.directory import PAGES, Page
from leadline_protocol.client import Client
from leadline_protocol.messages import BatchJobs, FollowUps, Formula, Schedules, Tables, Upload
from leadline_protocol.schedules import Daily
from tests.acceptance.batch_jobs import zipped
from tests.daemon.outreach import outreach
from tests.daemon.pages import Person, signed_in
from tests.daemon.running import Place

MARK = "canary_of_acme"
"""Stands in all that acme may name."""

OF_OTHERS = frozenset({"/jobs/{job}/leads", "/jobs/{job}/leads.csv", "/jobs/{job}/log", "/jobs/{job}/log/news"})
"""Pages that the job here, an upload, does not have."""

NAMES: Mapping[str, str] = {
    "job": "1",
    "table": f"{MARK}-table",
    "version": "1",
    "follow_up": "1",
    "mail": "1",
    "associate": f"{MARK}-anna",
    "teamspace": "acme",
    "provider": "snov",
}
"""What stands for the names in addresses."""


def address(page: Page) -> str:
    """The page about what acme has."""
    names = {**NAMES, "name": f"{MARK}-{'batch' if page.path.startswith('/batch') else 'nightly'}"}
    return "/".join(quote(names[part[1:-1]]) if part.startswith("{") else part for part in page.path.split("/"))


async def furnish(place: Place, client: Client) -> None:
    """Something of everything for acme."""
    rows = [f"{MARK}{number}@x.example,{MARK}" for number in range(3)]
    (place.state / "incoming" / "a.csv").write_text("\n".join(["email,note", *rows, f"nobody,{MARK}"]))
    upload = await client.submit(Upload(teamspace="acme", table=NAMES["table"], path="a.csv"))
    assert upload.job == 1
    await client.wait(upload.job)
    formula = Formula(teamspace="acme", table=NAMES["table"], into={MARK: "number"}, expression="1")
    await client.wait((await client.submit(formula)).job)
    batch_job, nightly = f"{MARK}-batch", f"{MARK}-nightly"
    (place.state / "incoming" / "code.zip").write_bytes(zipped({"main.py": f"def main():\n    return '{MARK}'\n"}))
    await client.call(BatchJobs(action="create", teamspace="acme", name=batch_job, settings={MARK: MARK}))
    await client.call(BatchJobs(action="upload", teamspace="acme", name=batch_job, path="code.zip"))
    submission = {"kind": "batch", "batch_job": batch_job}
    timetable = Daily("02:30", "UTC")
    await client.call(
        Schedules(action="add", teamspace="acme", name=nightly, timetable=timetable, submission=submission)
    )
    people: list[dict[str, Any]] = [
        {"type": "associate", "name": NAMES["associate"], "address": f"anna-{MARK}@acme.example"},
        {"type": "script", "name": "s", "keyword": "Follow Up", "steps": [{"subject": MARK, "text": MARK}]},
        {"type": "follow_up", "associate": NAMES["associate"], "address": f"{MARK}@x.example", "script": "s"},
        {"type": "suppression", "address": f"{MARK}@y.example"},
    ]
    await client.call(FollowUps(action="import", teamspace="acme", rows=people))


@pytest.fixture
def place(place: Place) -> Place:
    place.configure("[plans.default.batch]", "enabled = true", *outreach())
    return place


async def token(person: Person) -> str:
    page = (await person.get("/new-schedule")).page
    return next(page.every("input", name="csrf")).attributes["value"]


async def test_nothing_of_another_teamspace_is_seen_or_changed_on_any_page(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client, "globex") as eve:
        await furnish(place, client)
        csrf = await token(eve)
        asked = 0
        for page in PAGES:
            named = "{" in page.path or page.path.startswith("/operator")
            for query in ("", "?teamspace=acme"):
                path = address(page) + query
                if page.method == "GET":
                    shown = await eve.get(path)
                elif named:
                    shown = await eve.post(path, {"csrf": csrf, "name": NAMES["table"], "sent": "yes", "value": "x"})
                else:
                    continue
                told = shown.html
                for said in {part for part in unquote(path).partition("?")[0].split("/") if MARK in part}:
                    told = told.replace(said, "")  # what one has said oneself may come back
                assert MARK not in told, (page.method, path)
                if named:
                    assert shown.status == 404, (page.method, path, shown.main.text)
                asked += 1
        assert asked > 60
        await unchanged(client)


async def unchanged(client: Client) -> None:
    """Acme has what it had."""
    (table,) = (await client.call(Tables(teamspace="acme"))).tables
    assert (table.table, table.leads) == (NAMES["table"], 3)
    (batch_job,) = (await client.call(BatchJobs(action="list", teamspace="acme"))).batch_jobs
    assert (batch_job.state, batch_job.version, batch_job.settings) == ("draft", 1, {MARK: MARK})
    (schedule,) = (await client.call(Schedules(teamspace="acme", name=f"{MARK}-nightly"))).schedules
    assert not schedule.paused
    (associate,) = (await client.call(FollowUps(action="associates", teamspace="acme"))).associates
    assert associate.paused is None
    (follow_up,) = (await client.call(FollowUps(teamspace="acme"))).follow_ups
    assert follow_up.status == "pending"


async def test_all_of_it_is_there_for_its_own_people(place: Place) -> None:
    """The control of the test above: these addresses do lead to something."""
    async with place.daemon() as (_, client), signed_in(place, client, "acme") as ann:
        await furnish(place, client)
        found = {page.path: await ann.get(address(page)) for page in PAGES if page.method == "GET"}
        absent = {path for path, shown in found.items() if shown.status == 404 and not path.startswith("/operator")}
        assert absent == OF_OTHERS
        assert sum(MARK in shown.html for shown in found.values()) > 12
