"""The pages of jobs: what runs, waits, is scheduled and has ended, and what a person does about it."""

import asyncio

from leadline_protocol.client import Client
from leadline_protocol.ids import JobId
from leadline_protocol.messages import (
    Cancel,
    Chain,
    Export,
    ExportStep,
    Formula,
    FormulaStep,
    Jobs,
    Pause,
    Submission,
    Upload,
)
from tests.daemon.pages import Element, Person, Shown, person, signed_in
from tests.daemon.running import WITHIN_SECONDS, Place

CANARY = "canary7f3a"


async def ended(client: Client, submission: Submission) -> JobId:
    job = (await client.submit(submission)).job
    await client.wait(job)
    return job


async def upload(
    place: Place, client: Client, *, teamspace: str = "acme", table: str = "people", name: str = "people.csv"
) -> JobId:
    (place.state / "incoming" / name).write_text("email,n\nada@a.example,1\nbob@b.example,2\nnobody@,3\n")
    return await ended(client, Upload(teamspace=teamspace, table=table, path=name))


def formula(**given: object) -> Formula:
    fields = {"teamspace": "acme", "table": "people", "into": {"half": "number"}, "expression": "n / 2"}
    return Formula(**{**fields, **given})  # type: ignore[arg-type]  # fields of a formula


def card(shown: Shown, job: JobId) -> Element:
    """A job on a page."""
    return shown.main.one("article", data_job=str(job))


def section_of(shown: Shown, job: JobId) -> str:
    """The heading under which a job stands."""
    (found,) = [
        each
        for each in shown.main.every("section")
        if any(article.attributes["data-job"] == str(job) for article in each.every("article"))
    ]
    return next(found.every("h2")).text


def listed(shown: Shown) -> list[int]:
    return [int(article.attributes["data-job"]) for article in shown.main.every("article")]


async def press(person: Person, shown: Shown, job: JobId, action: str, label: str | None = None) -> Shown:
    """A button of a job."""
    (form,) = [
        form
        for form in card(shown, job).every("form")
        if form.attributes["action"].partition("?")[0] == f"/jobs/{job}/{action}"
        and label in {None, form.one("button").text}
    ]
    return await person.send(form)


async def test_a_teamspace_without_jobs_is_told_how_they_come_about(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        page = await ann.get("/jobs")
        assert "Nothing is running or waiting" in page.main.text
        assert "No job has ended yet" in page.main.text


async def test_jobs_stand_by_what_they_are_at_and_a_chain_with_its_steps_under_it(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        uploaded = await upload(place, client)
        step = FormulaStep(table="people", into={"half": "number"}, expression="n / 2")
        chain = await client.submit(Chain(teamspace="acme", steps=[step, ExportStep(table="people")]))
        await client.wait(chain.job)
        scheduled = (await client.submit(formula(delay=7200))).job
        held = (await client.submit(formula(where="n > 99", empty="hold"))).job
        page = await _until(ann, "/jobs", "No lead matched")
        assert listed(page) == [held, scheduled, chain.job, uploaded]
        sections = {job: section_of(page, job) for job in (held, scheduled, chain.job, uploaded)}
        assert sections == {held: "Waiting", scheduled: "Scheduled", chain.job: "Ended", uploaded: "Ended"}
        steps = list(card(page, chain.job).one("ol", class_="steps").every("li"))
        assert [int(each.attributes["data-job"]) for each in steps] == list(chain.steps)
        assert steps[1].text.startswith("2. Write 2 leads of people to a file completed")
        assert card(page, uploaded).one("h3").text == "Read 3 rows of people.csv into people"
        assert "2 done 1 failed" in card(page, uploaded).text
        assert "You can let it go on here, or cancel it." in card(page, held).text
        assert len(list(card(page, scheduled).every("time"))) == 2, "when it was submitted, and when it starts"
        assert page.page.one("body").attributes["data-stream"] == "/live"
        of_table = await ann.get("/t/people/jobs")
        assert listed(of_table) == listed(page)


async def _until(person: Person, path: str, words: str) -> Shown:
    async with asyncio.timeout(WITHIN_SECONDS):
        while words not in (page := await person.get(path)).main.text:
            await asyncio.sleep(0.02)
    return page


async def test_what_ended_is_found_by_its_state_and_page_by_page(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        await upload(place, client)
        done = [await ended(client, formula(into={f"c{n}": "number"})) for n in range(23)]
        cancelled = (await client.submit(formula(delay=3600))).job
        await client.call(Cancel(job=cancelled))
        page = await ann.get("/jobs?state=cancelled")
        assert listed(page) == [cancelled]
        assert "A person or a service cancelled it." in card(page, cancelled).text
        page = await ann.get("/jobs?state=skipped")
        assert "No job is skipped" in page.main.text
        page = await ann.get("/t/people/jobs?state=completed")
        assert listed(page) == done[:2:-1]
        older = await ann.get(page.main.one("a", rel="next").attributes["href"])
        assert listed(older) == done[2::-1]
        assert older.page.one("body").attributes["data-stream"] == "", "what is past does not move"
        assert (await ann.get("/jobs?state=nonsense")).status == 404
        assert (await ann.get("/jobs?show=nonsense")).status == 404
        unreadable = await ann.get("/jobs?show=ended&before=x")
        assert (unreadable.status, "The address cannot be read." in unreadable.main.text) == (400, True)
        assert (await ann.get("/t/nonsense/jobs")).status == 404


async def test_a_job_is_paused_let_go_on_cancelled_and_run_again_where_it_stands(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        await upload(place, client)
        job = (await client.submit(formula(delay=3600))).job
        page = await press(ann, await ann.get("/t/people/jobs"), job, "pause")
        assert page.address.startswith("/t/people/jobs")
        assert page.main.one("p", class_="said").text.startswith("Paused.")
        page = await press(ann, await ann.get("/jobs"), job, "cancel")
        assert page.address.startswith("/jobs?")
        assert (await client.get(job)).state == "cancelled"
        page = await press(ann, page, job, "rerun", "Run again")
        (again,) = [view for view in (await client.call(Jobs(teamspace="acme"))).jobs if view.rerun_of == job]
        assert "The job is in the queue." in page.main.text
        await client.wait(again.job)
        waiting = (await client.submit(formula(where="n > 99", empty="hold"))).job
        page = await _until(ann, "/jobs", "No lead matched")
        await press(ann, page, waiting, "resume")
        assert (await client.wait(waiting)).state == "completed"


async def test_a_file_that_was_written_is_fetched_and_a_file_that_was_not_is_not(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        uploaded = await upload(place, client)
        written = await ended(client, Export(teamspace="acme", table="people"))
        page = await ann.get("/jobs")
        (link,) = [each for each in card(page, written).every("a") if "download" in each.attributes]
        file = await ann.get(link.attributes["href"])
        assert (file.status, file.html.splitlines()[1]) == (200, "ada@a.example,1")
        assert (await ann.get(f"/jobs/{uploaded}/file")).status == 409
        assert f'href="/jobs/{uploaded}#refused"' in page.html


async def test_nothing_of_another_teamspace_is_shown_or_done(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client, "globex") as eve:
        job = await upload(place, client, table=CANARY, name=f"{CANARY}.csv")
        later = (await client.submit(formula(table=CANARY, delay=3600))).job
        for path in ("/jobs", "/jobs?state=partial", "/jobs?show=scheduled", f"/jobs?show=ended&before={later + 1}"):
            page = await eve.get(path)
            assert (page.status, CANARY in page.html) == (200, False), path
        assert (await eve.get("/jobs?teamspace=acme")).status == 200
        assert CANARY not in (await eve.get("/jobs?teamspace=acme")).html
        assert (await eve.get(f"/t/{CANARY}/jobs")).status == 404
        assert (await eve.get(f"/jobs/{job}/file")).status == 404
        await upload(place, client, teamspace="globex")
        csrf = next((await eve.get("/jobs")).main.every("input", name="csrf")).attributes["value"]
        for action in ("cancel", "pause", "resume", "rerun"):
            assert (await eve.post(f"/jobs/{later}/{action}", {"csrf": csrf})).status == 404, action
        assert (await client.get(later)).state == "delayed"


async def test_a_button_of_another_site_or_without_its_token_does_nothing(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann, person(place) as stranger:
        await upload(place, client)
        job = (await client.submit(formula(delay=3600))).job
        page = await ann.get("/jobs")
        (form,) = [each for each in card(page, job).every("form") if each.attributes["action"].endswith("/cancel")]
        assert (await ann.post(f"/jobs/{job}/cancel", {})).status == 403
        fields = {"csrf": form.one("input", name="csrf").attributes["value"]}
        elsewhere = await ann.post(f"/jobs/{job}/cancel", fields, headers={"Origin": "https://evil.example"})
        assert elsewhere.status == 403
        assert (await stranger.post(f"/jobs/{job}/cancel", fields)).status == 401
        assert (await client.get(job)).state == "delayed"
        back = await ann.post(f"/jobs/{job}/cancel", {**fields, "back": "//evil.example/jobs"}, follow=False)
        assert back.headers["Location"] == f"/jobs/{job}?said=cancelled"


async def test_an_operator_sees_all_teamspaces_each_job_with_its_own(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client, None) as operator:
        jobs = [await upload(place, client, teamspace=name, name=f"{name}.csv") for name in ("acme", "globex")]
        page = await operator.get("/jobs")
        assert listed(page) == jobs[::-1]
        for job, teamspace in zip(jobs, ("acme", "globex"), strict=True):
            assert card(page, job).one("a", href=f"/jobs?teamspace={teamspace}").text == teamspace
        assert listed(await operator.get("/jobs?teamspace=acme")) == jobs[:1]
        assert (await operator.get("/t/people/jobs")).status == 400, "of which teamspace?"


async def test_who_can_end_a_pause_of_the_teamspace_is_told(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        await upload(place, client)
        await client.call(Pause(scope="teamspace", name="acme"))
        jobs = [(await client.submit(formula())).job for _ in range(2)]
        page = await ann.get("/jobs")
        assert listed(page)[:2] == jobs, "the one that starts first stands first"
        assert "Whoever may manage your teamspace can resume it." in card(page, jobs[1]).text
        assert "At most 1 job is before it." in card(page, jobs[1]).text
