"""The page of one job: how it is, what a person can do about it, and its story; and the lines of a run as they come."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from aiohttp import web

from leadline.adapters.http.pages.foreign import HIDDEN, LINE_CHARACTERS_MAX, harmless, submitted
from leadline.adapters.http.pages.forms import Form
from leadline.adapters.http.pages.job import one, pace_of, rules
from leadline.adapters.http.pages.rendering import Assets, Templates
from leadline.adapters.http.pages.timeline import timeline
from leadline.adapters.http.pages.visit import Visit
from leadline.ports.sessions import Session
from leadline_protocol.client import Client
from leadline_protocol.ids import JobId
from leadline_protocol.messages import (
    Batch,
    BatchJobs,
    Chain,
    Counts,
    Eta,
    ExportStep,
    Formula,
    FormulaStep,
    History,
    HistoryEntry,
    HistoryReply,
    Job,
    JobReply,
    Jobs,
    JobView,
    LeadErrors,
    MoreThan,
    Operation,
    Reply,
    Submission,
    TellOf,
    ThroughputPoint,
    Upload,
    Wait,
    When,
    Why,
    WhyReply,
)
from leadline_protocol.messages.submissions import Step
from tests.acceptance.batch_jobs import zipped
from tests.daemon.pages import ORIGIN, Element, Person, Shown, parsed, signed_in
from tests.daemon.running import WITHIN_SECONDS, Place

R = TypeVar("R", bound=Reply)

CANARY = "canary4711"
NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)


async def ended(client: Client, submission: Submission) -> JobId:
    job = (await client.submit(submission)).job
    await client.wait(job)
    return job


async def upload(place: Place, client: Client, teamspace: str = "acme") -> JobId:
    text = "email,n\nada@a.example,0\nbob@b.example,2\nnobody@,3\ncy@c.example,4\n"
    (place.state / "incoming" / "people.csv").write_text(text)
    return await ended(client, Upload(teamspace=teamspace, table="people", path="people.csv"))


def formula(**given: object) -> Formula:
    fields = {"teamspace": "acme", "table": "people", "into": {"part": "number"}, "expression": "1 / n"}
    return Formula(**{**fields, **given})  # type: ignore[arg-type]  # fields of a formula


def form_to(shown: Shown, path: str, label: str | None = None) -> Element:
    """The form that is sent there."""
    (form,) = [
        form
        for form in shown.main.every("form")
        if form.attributes["action"] == path and label in {None, form.one("button").text}
    ]
    return form


def tallies(shown: Shown) -> dict[str, str]:
    """What the page counts."""
    counts = shown.main.one("dl", class_="tallies")
    return {each.one("dt").text: each.one("dd").text for each in counts.every("div") if "hidden" not in each.attributes}


def story(shown: Shown) -> list[str]:
    found = shown.main.one("section", id="story").every("li")
    return [each.one("strong").text for each in found]


# -- jobs on tables ----------------------------------------------------------------------------------------------------


async def test_an_upload_tells_what_became_of_its_rows_and_why(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        job = await upload(place, client)
        page = await ann.get(f"/jobs/{job}")
        heading = page.main.one("h1")
        assert heading.text == "Read 4 rows of people.csv into people"
        assert page.main.one("div", id="job").one("span", data_field="state").text == "partial"
        assert tallies(page) == {"Done": "3", "Failed": "1", "Skipped": "0", "Unknown": "0"}
        (row,) = page.main.one("section", id="errors").one("tbody").every("tr")
        assert "e-mail address is not one" in row.text
        assert "row 3" in row.text
        links = [link.attributes["href"] for link in page.main.one("section", id="errors").every("a")]
        assert links == [f"/jobs/{job}/refused"]
        assert story(page) == ["It came into the queue.", "It began.", "It ended, and some of it was not done."]
        assert '"path": "people.csv"' in page.main.one("details", id="submission").text
        assert page.page.one("body").attributes["data-stream"] == "", "nothing more happens to it"


async def test_a_job_that_has_not_begun_tells_when_and_moves_by_its_own_stream(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        await upload(place, client)
        job = (await client.submit(formula(delay=3600))).job
        page = await ann.get(f"/jobs/{job}")
        assert "Starts" in page.main.one("div", id="job").text
        assert page.page.one("body").attributes["data-stream"] == f"/live?job={job}"
        page = await ann.send(form_to(page, f"/jobs/{job}/cancel"))
        assert page.main.one("div", id="job").one("span", data_field="state").text == "cancelled"
        assert "ann@acme.example cancelled it." in story(page)


async def test_a_job_that_a_guard_holds_says_what_it_waits_for_and_is_let_go_on(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        await upload(place, client)
        job = (await client.submit(formula(more_than=MoreThan(count=2, then="hold")))).job
        async with asyncio.timeout(WITHIN_SECONDS):
            while not (await client.call(Why(job=job))).blockers:
                await asyncio.sleep(0.05)
        page = await ann.get(f"/jobs/{job}")
        assert "more than its guard lets through" in page.main.one("div", id="job").text
        work = page.main.one("section", id="work").text
        assert "3 leads matched at" in work
        assert "If more than 2 match, it is held until somebody lets it go on." in work
        page = await ann.send(form_to(page, f"/jobs/{job}/resume"))
        assert page.main.one("p", class_="said").text == "It goes on."
        assert (await client.wait(job)).state == "partial"
        assert "ann@acme.example let it go on." in story(await ann.get(f"/jobs/{job}"))


async def test_a_job_is_run_again_and_the_new_one_is_shown(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        await upload(place, client)
        job = await ended(client, formula())
        page = await ann.get(f"/jobs/{job}")
        page = await ann.send(form_to(page, f"/jobs/{job}/rerun", "Run the failed ones"))
        again = (await client.call(Jobs(teamspace="acme"))).jobs[0]
        assert (again.rerun_of, page.address) == (job, f"/jobs/{again.job}?said=submitted")
        await client.wait(again.job)
        work = (await ann.get(f"/jobs/{again.job}")).main.one("section", id="work").text
        assert "1 lead matched" in work
        assert f"those that were left of #{job}" in work


async def test_a_chain_shows_its_steps_with_their_rules_and_lists_and_is_run_again_from_one(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        await upload(place, client)
        steps: list[Step] = [
            FormulaStep(table="people", into={"part": "number"}, expression="1 / n", where="n < 4"),
            ExportStep(table="people", when=When(ended=["partial"], done_at_least=1, failed_at_most=0)),
        ]
        chain = await client.submit(Chain(teamspace="acme", steps=steps))
        await client.wait(chain.job)
        page = await ann.get(f"/jobs/{chain.job}")
        first, second = page.main.one("ol", class_="steps").every("li")
        assert [each.attributes["data-job"] for each in (first, second)] == [str(step) for step in chain.steps]
        assert "2 leads matched" in first.text
        assert "n < 4" in first.text
        assert second.one("span", data_field="state").text == "skipped"
        assert "Runs only if nothing failed in the step before it." in second.text
        (error,) = page.main.one("section", id="errors").one("tbody").every("tr")
        assert f"#{chain.steps[0]}" in error.text, "an error of a chain names its step"
        again = await ann.send(form_to(page, f"/jobs/{chain.job}/rerun"), from_step="2", leads="all")
        assert again.status == 200, again.main.text
        assert len(list(again.main.one("ol", class_="steps").every("li"))) == 1
        assert (await ann.send(form_to(page, f"/jobs/{chain.job}/rerun"), from_step="7")).status == 400


async def test_secrets_of_a_submission_are_not_shown(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        await upload(place, client)
        hook = TellOf(webhook=f"https://hooks.example/T1/{CANARY}", on=["failed"])
        job = (await client.submit(formula(delay=3600, notices=hook))).job
        page = await ann.get(f"/jobs/{job}")
        assert "https://hooks.example/" in page.main.one("details", id="submission").text
        assert CANARY not in page.html


async def test_another_teamspaces_job_is_answered_like_one_that_is_not_there(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client, "globex") as eve:
        job = await upload(place, client)
        for path in ("", "/log", "/log/news"):
            foreign, absent = await eve.get(f"/jobs/{job}{path}"), await eve.get(f"/jobs/{job + 1}{path}")
            assert (foreign.status, absent.status) == (404, 404), path
            assert foreign.main.text.replace(f"job {job}", "") == absent.main.text.replace(f"job {job + 1}", "")
        for path in ("/jobs/0", "/jobs/x", "/jobs/9223372036854775808"):
            assert (await eve.get(path)).status == 404


async def test_a_button_without_its_token_or_from_another_site_does_nothing(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        await upload(place, client)
        job = (await client.submit(formula(delay=3600))).job
        form = form_to(await ann.get(f"/jobs/{job}"), f"/jobs/{job}/cancel")
        token = form.one("input", name="csrf").attributes["value"]
        assert (await ann.post(f"/jobs/{job}/cancel", {})).status == 403
        assert (
            await ann.post(f"/jobs/{job}/cancel", {"csrf": token}, headers={"Origin": "https://evil"})
        ).status == 403
        assert (await client.get(job)).state == "delayed"
        assert (await ann.post(f"/jobs/{job}/cancel", {"csrf": token}, headers={"Origin": ORIGIN})).status == 200
        assert (await client.get(job)).state == "cancelled"


# -- runs of batch jobs ------------------------------------------------------------------------------------------------

PRINTS = """
def main(event):
    print("\\x1b[31mred\\x1b[0m <script>alert(1)</script>")
    print("x" * 9000)
    for number in range(3, 301):
        print("line", number)
    return {"leads": 7}
"""


@pytest.fixture
def batch_place(place: Place) -> Place:
    place.configure("[plans.default.batch]", "enabled = true")
    return place


async def publish(place: Place, client: Client, program: str, **conduct: int) -> None:
    (place.state / "incoming" / "code.zip").write_bytes(zipped({"main.py": program}))
    await client.call(BatchJobs(action="create", teamspace="acme", name="nightly", api=True, **conduct))  # type: ignore[arg-type]  # numbers alone
    await client.call(BatchJobs(action="upload", teamspace="acme", name="nightly", path="code.zip"))
    await client.call(BatchJobs(action="publish", teamspace="acme", name="nightly"))


def printed(element: Element) -> list[str]:
    return [each.text for each in element.every("span", class_="printed")]


@pytest.mark.needs("bwrap")
async def test_a_run_shows_its_attempts_its_result_and_its_last_lines_with_a_way_to_the_older_ones(
    batch_place: Place,
) -> None:
    async with batch_place.daemon() as (_, client), signed_in(batch_place, client) as ann:
        await publish(batch_place, client, PRINTS)
        job = await ended(client, Batch(teamspace="acme", batch_job="nightly", body={"api_key": CANARY}))
        page = await ann.get(f"/jobs/{job}")
        assert CANARY not in page.html
        (attempt,) = page.main.one("section", id="attempts").one("tbody").every("tr")
        assert "Attempt 1" in attempt.text
        assert "it returned" in attempt.text
        assert page.main.one("section", id="attempts").one("pre").text == '{ "leads": 7 }'
        lines = page.main.one("div", class_="log")
        assert printed(lines) == [f"line {number}" for number in range(101, 301)]
        assert "data-ended" in lines.one("ol").attributes
        (older,) = [link for link in page.main.every("a") if link.text == "Older lines"]
        before = await ann.get(older.attributes["href"])
        first, second, *rest = printed(before.main)
        assert first == "red <script>alert(1)</script>", "it is shown, and does nothing"
        assert (second[:3], second.endswith("and 5,000 more characters")) == ("xxx", True)
        assert rest == [f"line {number}" for number in range(3, 101)]
        (newer,) = [link for link in before.main.every("a") if link.text == "Newer"]
        behind = await ann.get(newer.attributes["href"])
        assert printed(behind.main) == [f"line {number}" for number in range(101, 301)]
        for wrong in ("before=x", "after=-1", "attempt=101"):
            assert (await ann.get(f"/jobs/{job}/log?{wrong}")).status == 400, wrong
        async with signed_in(batch_place, client, "globex") as eve:
            for path in (f"/jobs/{job}", f"/jobs/{job}/log", f"/jobs/{job}/log/news"):
                assert (await eve.get(path)).status == 404


async def follow(person: Person, page: Shown) -> list[str]:
    """What the script does: ask for what is printed next, until there is no more."""
    lines = page.main.one("ol", class_="lines")
    found = printed(lines)
    while "data-ended" not in lines.attributes:
        asked = f"{lines.attributes['data-news']}?attempt={lines.attributes['data-attempt']}"
        answer = await person.get(f"{asked}&after={lines.attributes['data-after']}")
        assert answer.status == 200
        lines = parsed(answer.html).one("ol", class_="lines")
        found += printed(lines)
    return found


FAILS_ONCE = """
def main(event):
    print("attempt", event["retry_attempt"])
    if event["retry_attempt"] == 0:
        raise ConnectionError("no")
"""


@pytest.mark.needs("bwrap")
async def test_whoever_looks_on_has_all_lines_as_they_come_those_of_a_second_attempt_too(batch_place: Place) -> None:
    async with batch_place.daemon() as (_, client), signed_in(batch_place, client) as ann:
        await publish(batch_place, client, FAILS_ONCE, retries=1)
        job = (await client.submit(Batch(teamspace="acme", batch_job="nightly"))).job
        async with asyncio.timeout(WITHIN_SECONDS):
            found = await follow(ann, await ann.get(f"/jobs/{job}"))
        assert (found[0], found[-1]) == ("attempt 0", "attempt 1")
        assert (await client.wait(job)).state == "completed"
        page = await ann.get(f"/jobs/{job}")
        assert len(list(page.main.one("section", id="attempts").one("tbody").every("tr"))) == 2
        assert printed(page.main) == ["attempt 1"], "the newest is shown"


# -- a job that goes on, as it is told ---------------------------------------------------------------------------------


def view(**given: object) -> JobView:
    counts = Counts(total=0, done=0, failed=0, skipped=0, unknown=0, pending=0)
    fields = {"job": 7, "kind": "enrich", "family": "tables", "teamspace": "acme", "state": "running"}
    return JobView(**{**fields, "shown": "running", "submitted_at": NOW, "counts": counts, **given})  # type: ignore[arg-type]  # fields of a job


class Told(Visit):
    """A visit of somebody who is told what is given here."""

    replies: Mapping[type[Operation[Reply]], Reply]

    async def ask(self, asked: Operation[R]) -> R:
        return self.replies[type(asked)]  # type: ignore[return-value]  # as the test says


async def page_of(
    job: JobView,
    waits: Sequence[Wait] = (),
    story: Sequence[HistoryEntry] = (),
    errors: Sequence[LeadErrors] = (),
) -> Element:
    """The page of a job, by what the operations tell of it."""
    session = Session(hash=b"", person="ann@acme.example", role="member", teamspace="acme", expires=NOW)
    http: Any = SimpleNamespace(path="/jobs/7")
    reach: Any = SimpleNamespace(desk=SimpleNamespace(feed=SimpleNamespace(position=None)))
    visit = Told(http, reach, Templates(Assets()), session, "", ("7",), {}, Form({}))
    points = [ThroughputPoint(at=NOW + timedelta(seconds=10 * n), done=20 * n) for n in range(6)]
    visit.replies = {
        Job: JobReply(line=1, view=job, submission={"kind": job.kind}, throughput=points, errors=[*errors]),
        Why: WhyReply(line=1, job=job.job, blockers=[*waits], jobs_ahead=0),
        History: HistoryReply(line=1, job=job.job, history=[*story]),
    }
    answer = await one(visit)
    assert isinstance(answer, web.Response)
    assert answer.text is not None
    return parsed(answer.text).one("main")


async def test_a_job_that_goes_on_tells_how_fast_it_is_and_when_it_will_be_done() -> None:
    counts = Counts(total=400, done=95, failed=3, skipped=1, unknown=1, pending=300)
    ends = Eta(earliest=NOW + timedelta(minutes=2), latest=NOW + timedelta(minutes=9))
    job = view(counts=counts, started_at=NOW, leads_per_second=2.0, activity="calls snov\u202e", ends=ends)
    main = await page_of(job)
    told = main.one("div", id="job")
    assert "120 leads a minute" in told.text
    assert "calls snov\\u202e" in told.text
    assert "It will be done between 28 Nov, 12:02 UTC and 28 Nov, 12:09 UTC" in told.text
    assert told.one("div", role="progressbar").attributes["aria-valuenow"] == "100"
    assert told.one("dd", data_field="pending").text == "300"
    assert "nobody knows whether the provider did the work" in told.text
    plot = main.one("div", class_="plot")
    rows = list(main.one("table", id=plot.attributes["data-table"]).one("tbody").every("tr"))
    assert [row.attributes["data-rate"] for row in rows] == ["120.0"] * 5
    assert rows[-1].attributes["data-done"] == "100"


async def test_a_reason_that_only_another_version_knows_is_told_as_it_stands() -> None:
    told: Any = "eaten_by_dog"
    main = await page_of(view(), errors=[LeadErrors(job=JobId(7), state="failed", reason=told, leads=1, samples=[])])
    assert "eaten by dog" in main.one("section", id="errors").one("tbody").text


async def test_a_job_that_stands_still_tells_what_was_done_about_it() -> None:
    seen = HistoryEntry(at=NOW, event="stalled", detail={"message": "no progress for 600 s; calls snov"})
    main = await page_of(view(stalled=True, state="stopping", started_at=NOW), story=[seen])
    told = main.one("div", id="job")
    assert told.one("span", data_field="state").text == "stalled"
    assert "It is being stopped, and starts again where it was" in told.text
    forced = [form for form in told.every("form") if list(form.every("input", name="force"))]
    assert [form.attributes["action"] for form in forced] == ["/jobs/7/cancel"]


async def test_of_a_long_story_the_newest_is_open() -> None:
    story = [HistoryEntry(at=NOW, event="started", detail={"message": f"attempt {n}"}) for n in range(1, 31)]
    section = (await page_of(view(started_at=NOW, attempt=30), story=story)).one("section", id="story")
    earlier = section.one("details", id="earlier")
    assert earlier.one("summary").text == "10 earlier events"
    assert len(list(section.every("li"))) == 30
    assert len(list(earlier.every("li"))) == 10


# -- words -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "detail", "what", "means"),
    [
        ("started", "attempt 3", "It went on: run 3.", "did nothing twice"),
        ("stopped", "stalled: its worker answered nothing", "It was stopped, for it stood still.", "answered nothing"),
        ("queued", "again, after a restart of the daemon", "It is in the queue again, after a restart", "kept"),
        ("quarantined", "the daemon went down 3 times", "It was set aside.", "A person decides"),
        ("stalled", "no progress for 600 s; calls snov", "It stood still.", "No progress for 600 s; calls snov."),
        ("stalled", "no progress for 600 s; \x1b[31mred\u202e", "It stood still.", "600 s; red\\u202e."),
        ("failed", "stalled: killed 3 times in a row", "It failed.", "Killed 3 times in a row."),
        ("skipped", "guard_empty", "It was skipped.", "No lead matched"),
        ("cancelled", "", "It was cancelled.", ""),
        ("something new", "of a later version", "Something new.", "Of a later version."),
    ],
)
def test_what_happened_is_told_with_what_it_means(event: str, detail: str, what: str, means: str) -> None:
    (told,) = timeline(view(), [HistoryEntry(at=NOW, event=event, detail={"message": detail} if detail else {})])
    assert told.what.startswith(what)
    assert means in told.means


def test_who_asked_for_something_is_named_and_the_operator_is_not() -> None:
    ann = {"uid": 1, "pid": 2, "person": "ann@acme.example", "role": "admin"}
    entries = [
        HistoryEntry(at=NOW, event="pause asked", detail=ann),
        HistoryEntry(at=NOW, event="cancel asked", detail={"uid": 1, "pid": 2, "detail": "force"}),
    ]
    told = [each.what for each in timeline(view(), entries)]
    assert told == ["ann@acme.example paused it.", "Whoever runs this service had it ended at once."]


def test_nothing_that_a_program_prints_acts_on_the_page() -> None:
    assert harmless("\x1b[1;31mred\x1b[0m \x1b]8;;https://evil.example\x07link\x1b]8;;\x07") == "red link"
    assert harmless("a\x00b\u202ec\x1b") == "a\\x00b\\u202ec\\x1b"
    assert harmless("tab\tand Ünïcödé 👋") == "tab\tand Ünïcödé 👋"
    unseen = harmless("\x01" * (LINE_CHARACTERS_MAX + 1))
    assert unseen == "\\x01" * LINE_CHARACTERS_MAX + " … and 1 more characters", "no more is looked at than is shown"
    long = harmless("y" * (LINE_CHARACTERS_MAX + 1))
    assert long == "y" * LINE_CHARACTERS_MAX + " … and 1 more characters"


def test_what_may_be_a_secret_is_left_out_of_what_was_submitted() -> None:
    told = submitted(
        {
            "kind": "batch",
            "body": {"crm": {"API-Key": CANARY, "passwords": [CANARY], "region": "eu"}, "token": None},
            "notices": {"webhook": f"https://user.example/{CANARY}?x={CANARY}"},
            "path": "h0123456789abcdef01234567-people.csv",
        }
    )
    assert CANARY not in told
    assert told.count(HIDDEN) == 3
    assert '"region": "eu"' in told
    assert '"path": "people.csv"' in told


def test_how_fast_a_job_was_is_what_it_did_between_two_points() -> None:
    def points(*counts: int) -> list[ThroughputPoint]:
        return [ThroughputPoint(at=NOW + timedelta(seconds=30 * n), done=done) for n, done in enumerate(counts)]

    assert [each.per_minute for each in pace_of(points(0, 60, 60, 90))] == [120.0, 0.0, 60.0]
    assert not pace_of(points(0, 60)), "too few for a plot"
    assert not pace_of(points(0, 0, 0, 0, 0))
    twice = [*points(0, 60, 90), *points(0, 60, 90)[-1:]]
    assert [each.done for each in pace_of(twice)] == [60, 90], "two points of one moment tell no pace"


@pytest.mark.parametrize(
    ("work", "said"),
    [
        ({"kind": "formula"}, []),
        ({"when": {"failed_at_most": 5}}, ["Runs only if no more than 5 failed in the step before it."]),
        ({"empty": "skip"}, ["If no lead matches, it is skipped."]),
        ({"first": 10, "spend_cap": 2.5}, ["A test run: the first 10 leads only.", "It may spend 2.5 credits"]),
        ({"kind": "chain", "on_failure": "continue"}, ["If a step fails, the later ones run nevertheless."]),
    ],
)
def test_when_a_job_runs_at_all_is_said_in_words(work: dict[str, object], said: list[str]) -> None:
    told = rules(work)
    assert len(told) == len(said)
    assert all(each.startswith(begin) for each, begin in zip(told, said, strict=True))
