"""The pages of batch jobs and schedules: from a zip to a run that a person has started, and what fires next."""

import asyncio
from datetime import UTC, date, datetime
from io import BytesIO
from zipfile import ZipFile
from zoneinfo import available_timezones

import aiohttp
import pytest

from leadline.adapters.http import reach
from leadline.adapters.http.pages import batch, job, schedules
from leadline.adapters.http.pages.schedules import calendar_of, timetable_in_words
from leadline_protocol.client import Client
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import JobId
from leadline_protocol.messages import Batch, BatchJobs, BatchView, DueOccurrence, Pause, Resume, Schedules
from leadline_protocol.schedules import Cron, Daily, Monthly, Schedule, Weekday, Weekly
from tests.acceptance.batch_jobs import zipped
from tests.daemon.pages import ORIGIN, Element, Person, Shown, signed_in
from tests.daemon.running import Place

MAIN = "def main(event):\n    print('hello', event['body'])\n    return 7\n"


@pytest.fixture
def place(place: Place) -> Place:
    place.configure("[plans.default.batch]", "enabled = true")
    return place


def form_to(shown: Shown, path: str) -> Element:
    """The form that is sent there."""
    (form,) = [form for form in shown.main.every("form") if form.attributes["action"] == path]
    return form


async def send_file(person: Person, form: Element, name: str, body: bytes, **fields: str) -> Shown:
    """A form with a file at its end."""
    data = aiohttp.FormData()
    for element in form.every("input"):
        if element.attributes.get("type") != "file":
            data.add_field(element.attributes["name"], element.attributes.get("value", ""))
    for field, value in fields.items():
        data.add_field(field, value)
    data.add_field("file", body, filename=name, content_type="application/octet-stream")
    return await person.ask("POST", form.attributes["action"], data=data, headers={"Origin": ORIGIN})


async def described(client: Client, name: str = "nightly") -> BatchView:
    reply = await client.call(BatchJobs(action="describe", teamspace="acme", name=name))
    return reply.batch_jobs[0]


async def made(person: Person, name: str = "nightly") -> Shown:
    """A batch job with code."""
    page = await person.send(form_to(await person.get("/batch"), "/batch"), name=name)
    return await send_file(person, form_to(page, f"/batch/{name}/upload"), "code.zip", zipped({"main.py": MAIN}))


@pytest.mark.needs("bwrap")
async def test_from_a_zip_to_a_run(place: Place) -> None:
    today = datetime.now(UTC).date()
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        assert "No batch jobs yet" in (await ann.get("/batch")).main.text
        page = await made(ann)
        assert page.main.one("p", class_="said").text == "The code is taken: it runs from the next run on."
        assert "Nothing runs it yet" in page.main.text, "the page tells what is missing"
        page = await ann.send(_conduct(page), api="on", timeout_seconds="20", retries="1")
        view = await described(client)
        assert (view.api, view.timeout_seconds, view.retries) == (True, 20, 1)
        page = await ann.send(form_to(page, "/batch/nightly/publish"))
        assert page.main.one("div", class_="heading").one("span", class_="state").text == "published"
        job = await ann.send(form_to(page, "/batch/nightly/run"), body='{"since": 1}')
        assert job.address.startswith("/jobs/1")
        assert (await client.wait(JobId(1))).state == "completed"
        page = await ann.get("/batch/nightly")
        (run,) = page.main.one("section", id="runs").one("tbody").every("tr")
        assert run.one("span", class_="state").text == "completed"
        day = (await ann.get("/batch")).main.one("section", id="day")
        counted = day.one("div", aria_label="Runs").attributes["aria-valuenow"]
        assert counted == "1" or datetime.now(UTC).date() > today, "it counts on the day on which it began"


def _conduct(page: Shown) -> Element:
    (form,) = [form for form in page.main.every("form") if list(form.every("input", name="timeout_seconds"))]
    return form


async def test_what_is_wrong_is_said_where_it_was_typed(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        short = await ann.send(form_to(await ann.get("/batch"), "/batch"), name="ab")
        assert (short.status, short.main.one("input", name="name").attributes["value"]) == (400, "ab")
        assert short.main.one("span", class_="note").text
        page = await made(ann)
        upload = form_to(page, "/batch/nightly/upload")
        no_main = await send_file(ann, upload, "code.zip", zipped({"other.py": MAIN}))
        assert no_main.status == 422
        assert "main.py" in upload_fault(no_main)
        assert "no zip" in upload_fault(await send_file(ann, upload, "code.tar", b"x"))
        assert (await described(client)).version == 1
        conduct = _conduct(page)
        no_server = await ann.send(conduct, mail_failure="ops@acme.example")
        assert "No mail server is configured." in _conduct(no_server).text
        for name, value in (
            *(("timeout_seconds", "soon"), ("retries", "-1"), ("stall_after_seconds", "1e3")),
            *(("retries", "9" * 5000), ("timeout_seconds", "1_000")),
        ):
            refused = await ann.send(conduct, **{name: value})
            assert refused.status == 400
            assert list(_conduct(refused).every("span", class_="note")), name


async def test_what_is_about_the_batch_job_itself_is_said_once_above_its_forms(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        publish = form_to(await made(ann), "/batch/nightly/publish")
        refused = await ann.send(publish)
        assert (refused.status, refused.html.count("obody could run nightly")) == (409, 1)
        assert "Nobody could run nightly" in refused.main.one("p", role="alert").text
        assert "open" not in refused.main.one("details", id="delete").attributes


async def test_of_code_that_is_refused_no_file_stays(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        upload = form_to(await made(ann), "/batch/nightly/upload")
        async with signed_in(place, client, role="member") as bob:
            own = form_to(await bob.get("/batch/nightly"), "/batch/nightly/upload")
            assert (await send_file(bob, own, "code.zip", zipped({"main.py": MAIN}))).status == 403
        assert (await send_file(ann, upload, "code.zip", zipped({"other.py": MAIN}))).status == 422
        assert list((place.state / "incoming").iterdir()) == []


def upload_fault(shown: Shown) -> str:
    return form_to(shown, "/batch/nightly/upload").one("span", class_="note").text


async def test_json_of_any_depth_is_read_or_refused(place: Place) -> None:
    deep = '{"a":' * 20_000
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        page = await made(ann)
        csrf = next(page.page.every("input", name="csrf")).attributes["value"]
        assert (await ann.post("/batch/nightly/run", {"csrf": csrf, "body": deep})).status == 400
        form = (await ann.get("/new-schedule")).main.one("form", class_="fields")
        assert (await ann.send(form, **{**FORM, "batch_job": "", "submission": deep})).status == 400


async def test_settings_are_set_and_secrets_never_shown(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        page = await made(ann)
        (form,) = [
            f
            for f in page.main.every("form")
            if [i for i in f.every("input", name="setting") if "required" in i.attributes]
        ]
        await ann.send(form, setting="region", value="eu")
        page = await ann.send(form, setting="crm_token", value="canary-secret", secret="on")
        view = await described(client)
        assert (view.settings, view.secrets) == ({"region": "eu"}, ["crm_token"])
        assert "canary-secret" not in page.html
        assert page.main.one("dl", class_="facts").text.startswith("region eu")
        removal = [f for f in page.main.every("form") if list(f.every("input", name="unset"))]
        assert [f.one("input", name="setting").attributes["value"] for f in removal] == ["region", "crm_token"]
        await ann.send(removal[0])
        assert (await described(client)).settings == {}


@pytest.mark.needs("bwrap")
async def test_so_many_questions_of_one_person_wait_for_what_a_run_prints(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "WAITS_PER_TOKEN_MAX", 2)
    monkeypatch.setattr(job, "NEWS_SECONDS", 30.0)
    async with place.daemon() as (running, client), signed_in(place, client) as ann:
        await made(ann)
        await client.call(BatchJobs(action="set", teamspace="acme", name="nightly", api=True))
        await client.call(BatchJobs(action="publish", teamspace="acme", name="nightly"))
        await client.call(Pause(scope="queue"))
        run = (await client.submit(Batch(teamspace="acme", batch_job="nightly"))).job
        news = f"/jobs/{run}/log/news?attempt=0&after=0"
        waiting = [asyncio.create_task(ann.get(news)) for _ in range(2)]
        while len(running.http.face._reach._wait_room) < 2:
            await asyncio.sleep(0.01)
        assert (await ann.get(news)).status == 429
        await client.call(Resume(scope="queue"))
        assert [(await each).status for each in waiting] == [200, 200]
        assert (await ann.get(news)).status == 200


async def test_links_lead_to_batch_jobs_and_schedules_with_any_name(place: Place) -> None:
    odd = 'a/b?c=%2F#"ü"'
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        await client.call(BatchJobs(action="create", teamspace="acme", name=odd))
        fields = {**FORM, "batch_job": odd, "name": odd}
        await ann.send((await ann.get("/new-schedule")).main.one("form"), **fields, sure="yes")
        page = await ann.get((await ann.get("/batch")).main.one("section", id="batch-jobs").one("a").attributes["href"])
        assert (page.status, page.main.one("h1").text) == (200, odd)
        (link,) = (link for link in page.main.every("a") if link.text == odd)
        schedule = await ann.get(link.attributes["href"])
        assert (schedule.status, schedule.main.one("h1").text) == (200, odd)


async def test_old_code_is_had_back(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        page = await made(ann)
        (version,) = [link for link in page.main.every("a") if link.text == "Version 1"]
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in ann.cookies.items())}
        async with ann.session.get(version.attributes["href"], headers=headers) as response:
            with ZipFile(BytesIO(await response.read())) as archive:
                assert archive.read("main.py").decode() == MAIN


@pytest.mark.parametrize("path", ["nightly/versions/-1", f"nightly/versions/{'9' * 30}", "a%00b/versions/1"])
async def test_code_that_cannot_be_there_is_asked_for_in_vain(place: Place, path: str) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        assert (await ann.get(f"/batch/{path}")).status == 400


async def test_a_batch_job_is_deleted_by_its_name_alone(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        form = form_to(await made(ann), "/batch/nightly/delete")
        assert (await ann.send(form, name="nightl")).status == 400
        gone = await ann.send(form, name="nightly")
        assert (gone.address, gone.main.one("p", class_="said").text) == ("/batch?said=deleted", "Deleted.")
        assert (await ann.get("/batch/nightly")).status == 404


async def test_members_look_and_admins_manage(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        await made(ann)
        async with signed_in(place, client, role="member") as bob:
            page = await bob.get("/batch/nightly")
            assert page.status == 200
            refused = await bob.send(form_to(page, "/batch/nightly/publish"))
            assert refused.status == 403
            assert "Only admins manage batch jobs" in refused.main.text


async def test_a_zip_that_is_not_taken_is_not_kept_either(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        page = await made(ann)
        upload = form_to(page, "/batch/nightly/upload")
        async with signed_in(place, client, role="member") as bob:
            own = form_to(await bob.get("/batch/nightly"), "/batch/nightly/upload")
            assert (await send_file(bob, own, "code.zip", zipped({"main.py": MAIN}))).status == 403
        assert (await send_file(ann, upload, "code.zip", b"no zip")).status == 422
        assert list((place.state / "incoming").iterdir()) == []


async def test_where_batch_jobs_are_off_the_page_says_so(place: Place) -> None:
    place.configure()
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        refused = await ann.send(form_to(await ann.get("/batch"), "/batch"), name="nightly")
        assert (refused.status, "not enabled for acme" in refused.main.text) == (403, True)


# -- schedules --------------------------------------------------------------------------------------------------------

FORM = {"repeat": "daily", "at": "02:30", "zone": "Asia/Tokyo", "batch_job": "nightly", "name": "every-night"}


async def test_a_schedule_is_tried_then_made_paused_and_deleted(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        await made(ann)
        assert "No schedules yet" in (await ann.get("/schedules")).main.text
        form = (await ann.get("/new-schedule?batch_job=nightly")).main.one("form", class_="fields")
        tried = await ann.send(form, **FORM)
        times = tried.main.one("ol", class_="timeline")
        assert len(list(times.every("li"))) == 10
        assert not (await client.call(Schedules(teamspace="acme"))).schedules, "it was only tried"
        form = tried.main.one("form", class_="fields")
        page = await ann.send(form, sure="yes")
        assert page.main.one("p", class_="said").text == "It is scheduled."
        listed = (await ann.get("/schedules")).main
        (row,) = listed.one("tbody").every("tr")
        assert row.text.startswith("every-night Every day at 02:30, Asia/Tokyo batch job nightly")
        assert len(list(listed.one("section", id="calendar").every("li"))) == 7
        page = await ann.send(form_to(page, "/schedules/every-night/pause"))
        assert "It is paused" in page.main.one("section", id="coming").text
        page = await ann.send(form_to(page, "/schedules/every-night/resume"))
        gone = await ann.send(form_to(page, "/schedules/every-night/delete"))
        assert "No schedules yet" in gone.main.text


async def test_secrets_of_what_a_schedule_submits_are_not_shown(place: Place) -> None:
    submission = {"kind": "noop", "notices": {"webhook": "https://hooks.example/T1/canary", "on": ["failed"]}}
    async with place.daemon() as (_, client), signed_in(place, client, role="member") as bob:
        await client.call(
            Schedules(
                action="add", teamspace="acme", name="nightly", timetable=Daily("02:30", "UTC"), submission=submission
            )
        )
        page = await bob.get("/schedules/nightly")
        assert "https://hooks.example/" in page.main.one("pre").text
        assert "canary" not in page.html


@pytest.mark.parametrize(
    ("at", "typed"),
    [
        ("at", {"at": "2:30"}),
        ("zone", {"zone": "Mars/Base"}),
        ("days", {"repeat": "weekly"}),
        ("day", {"repeat": "monthly", "day": "soon"}),
        ("day", {"repeat": "monthly", "day": "32"}),
        ("line", {"repeat": "cron", "line": "* *"}),
        ("line", {"repeat": "cron", "line": "0 25 * * *"}),
        ("repeat", {"repeat": "hourly"}),
        ("submission", {"batch_job": "", "submission": ""}),
        ("submission", {"batch_job": "", "submission": "[]"}),
        ("submission", {"batch_job": "", "submission": '{"kind": "dance"}'}),
        ("submission", {"batch_job": "", "submission": '{"kind": "noop", "delay": "soon"}'}),
        ("batch_job", {"batch_job": "absent"}),
    ],
)
async def test_a_schedule_that_cannot_be_is_told_why_where_it_was_typed_and_what_was_typed_stays(
    place: Place, at: str, typed: dict[str, str]
) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        await made(ann)
        form = (await ann.get("/new-schedule")).main.one("form", class_="fields")
        for sure in ({}, {"sure": "yes"}):
            refused = await ann.send(form, **{**FORM, **typed}, **sure)
            assert refused.status in {400, 404, 409, 422}, refused.main.text
            fault = refused.main.one("span", class_="fault")
            assert (fault.attributes["id"], fault.text != "") == (f"schedule-{at}-fault", True)
            assert refused.main.one("input", name="name").attributes["value"] == "every-night"
        assert not (await client.call(Schedules(teamspace="acme"))).schedules


async def test_a_schedule_without_a_name_is_told_so_at_the_name(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        await made(ann)
        form = (await ann.get("/new-schedule")).main.one("form", class_="fields")
        refused = await ann.send(form, **{**FORM, "name": " "}, sure="yes")
        assert refused.main.one("span", class_="fault").attributes["id"] == "schedule-name-fault"


async def test_what_a_schedule_submits_is_shown_without_secrets_and_with_its_owners_names(place: Place) -> None:
    file = "h" + "0a" * 12 + "-fair.csv"
    notices = {"webhook": "https://hooks.example/T0/canary-7f3a"}
    submission = {"kind": "upload", "table": "people", "path": file, "notices": notices}
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        daily = Daily(at="02:30", zone="UTC")
        await client.call(
            Schedules(action="add", teamspace="acme", name="fair", timetable=daily, submission=submission)
        )
        told = (await ann.get("/schedules/fair")).main.one("pre").text
        assert '"path": "fair.csv"' in told
        assert '"webhook": "https://hooks.example/' in told
        assert "canary" not in told


@pytest.mark.parametrize(
    ("timetable", "words"),
    [
        (Daily("02:30", "UTC"), "Every day at 02:30, UTC"),
        (Weekly((Weekday.MONDAY, Weekday.FRIDAY), "09:00", "UTC"), "Mon, Fri at 09:00, UTC"),
        (Monthly("last", "09:00", "UTC"), "On the last day of each month at 09:00, UTC"),
        (Monthly(3, "09:00", "UTC"), "On day 3 of each month at 09:00, UTC"),
        (Cron("*/5 * * * *", "UTC"), "Cron */5 * * * *, UTC"),
    ],
)
def test_when_a_schedule_fires_is_said_in_words(timetable: Schedule, words: str) -> None:
    assert timetable_in_words(timetable) == words


async def test_zones_are_looked_for_once_and_not_for_each_form(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[None] = []

    def look() -> set[str]:
        looked.append(None)
        return available_timezones()

    monkeypatch.setattr(schedules, "available_timezones", look)
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        for _number in range(2):
            zones = (await ann.get("/new-schedule")).main.one("datalist")
            assert "Europe/Berlin" in {option.attributes["value"] for option in zones.every("option")}
    assert len(looked) <= 1


TODAY = date(2026, 11, 30)


def due_at(schedule: str, *times: str, quota: JobReason | None = None) -> list[DueOccurrence]:
    moments = [datetime.fromisoformat(f"{time}Z") for time in times]
    return [DueOccurrence(teamspace="acme", schedule=schedule, at=at, local="", quota=quota) for at in moments]


def test_a_calendar_has_a_day_more_at_either_end_for_other_zones() -> None:
    days = calendar_of(due_at("nightly", "2026-11-30T23:30", "2026-12-07T01:00"), TODAY)
    assert [day.date.day for day in days if day.shown] == [30, 1, 2, 3, 4, 5, 6]
    assert [(day.date.day, day.today) for day in days if day.firing] == [(30, True), (7, False)]
    assert (days[0].date.day, days[-1].date.day) == (29, 8)


def test_a_day_of_a_calendar_tells_few_times_apart_and_many_together() -> None:
    often = [f"2026-12-01T{hour:02}:00" for hour in range(4)]
    few = due_at("few", *often[:3], quota=JobReason.QUOTA)
    many = [*due_at("many", *often[:2]), *due_at("many", *often[2:], quota=JobReason.LIMIT)]
    (day,) = [day for day in calendar_of(sorted([*few, *many], key=lambda each: each.at), TODAY) if day.firing]
    assert [(fire.schedule, [each.at.hour for each in fire.times], fire.quota) for fire in day.firing] == [
        ("few", [0], JobReason.QUOTA),
        ("many", [0, 1, 2, 3], JobReason.LIMIT),
        ("few", [1], JobReason.QUOTA),
        ("few", [2], JobReason.QUOTA),
    ]


async def test_a_calendar_that_is_cut_says_where(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedules, "CALENDAR_SHOWN", 50)
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        assert list((await ann.get("/schedules")).main.every("section", id="calendar")) == []
        for name, timetable in (("minutely", Cron("* * * * *", "UTC")), ("daily", Daily("02:30", "UTC"))):
            await client.call(
                Schedules(action="add", teamspace="acme", name=name, timetable=timetable, submission={"kind": "noop"})
            )
        calendar = (await ann.get("/schedules")).main.one("section", id="calendar")
        assert "There is more than fits" in calendar.text
        await client.call(Schedules(action="pause", teamspace="acme", name="minutely"))
        calendar = (await ann.get("/schedules")).main.one("section", id="calendar")
        assert "There is more than fits" not in calendar.text
        assert [item.one("a").text for item in calendar.every("li")] == ["daily"] * 7


async def test_batch_jobs_and_schedules_come_in_pages(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "BATCH_JOBS", 2)
    monkeypatch.setattr(schedules, "SHOWN", 2)
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        names = [f"job-{number}" for number in range(5)]
        for name in names:
            await client.call(BatchJobs(action="create", teamspace="acme", name=name))
            submission = {"kind": "noop"}
            daily = Daily("02:30", "UTC")
            added = Schedules(action="add", teamspace="acme", name=name, timetable=daily, submission=submission)
            await client.call(added)
        for path, section in (("/batch", "batch-jobs"), ("/schedules", "schedules")):
            seen: list[str] = []
            following = path
            while following:
                page = (await ann.get(following)).main
                rows = page.one("section", id=section)
                seen += [next(row.every("a")).text for row in rows.one("tbody").every("tr")]
                following = next((link.attributes["href"] for link in rows.every("a") if link.text == "More"), "")
            assert seen == names, path


async def test_an_emptied_silence_lets_it_be_silent(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        page = await ann.send(_conduct(await made(ann)), stall_after_seconds="60")
        assert (await described(client)).stall_after_seconds == 60
        await ann.send(_conduct(page), stall_after_seconds="")
        assert (await described(client)).stall_after_seconds is None


async def test_another_teamspaces_programs_and_schedules_are_not_there(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        await made(ann, "canary-4711")
        async with signed_in(place, client, "globex") as eve:
            for path in ("/batch", "/batch?teamspace=acme", "/schedules", "/new-schedule"):
                assert "canary" not in (await eve.get(path)).html, path
            token = {"csrf": next((await eve.get("/batch")).main.every("input", name="csrf")).attributes["value"]}
            assert (await eve.get("/batch/canary-4711")).status == 404
            assert (await eve.get("/batch/canary-4711/versions/1")).status == 404
            for word in ("set", "publish", "unpublish", "run", "delete"):
                answered = await eve.post(f"/batch/canary-4711/{word}", {**token, "name": "canary-4711"})
                assert answered.status == 404, word
        assert (await described(client, "canary-4711")).version == 1
