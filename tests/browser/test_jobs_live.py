"""A person sees to jobs that move before their eyes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace
from playwright.async_api import Browser, Locator, Page, Route, expect

from leadline_protocol.ids import JobId
from leadline_protocol.messages import ColumnSpec, Enrich, Export, Tables, Upload
from tests.acceptance.stage import csv_text, people, provider
from tests.browser.house import House, house
from tests.browser.visits import PATIENCE_MS, visiting
from tests.daemon.running import Place
from tests.world.behaviours import SECOND, Behaviour, Enrichment, Fault, Faulty, Now, Plan, Request, hang
from tests.world.servers import serving

pytestmark = [
    pytest.mark.needs("chromium-headless-shell"),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(300),
]

LEADS = 400
ANSWER_SECONDS = 0.6
"""Two at a time they take two minutes: who wants a job to go on while they look is done before."""

GOES_ON = "([job, before]) => document.querySelector(`[data-job='${job}'] .bar`)?.ariaValueNow > before"


class Paced:
    """Takes its time for each answer, until the test has it hurry."""

    def __init__(self, inner: Behaviour) -> None:
        self.delay_us = round(ANSWER_SECONDS * SECOND)
        self._inner = inner

    def respond(self, request: Request, now: Now) -> Plan:
        return replace(self._inner.respond(request, now), delay_us=self.delay_us)


WATCH_BAR = """job => {
    window.seenOfBar = [];
    const note = () => {
        const now = document.querySelector(`article[data-job="${job}"] .bar`).ariaValueNow;
        if (seenOfBar.at(-1) !== now) seenOfBar.push(now);
    };
    note();
    new MutationObserver(note).observe(document.body, { subtree: true, childList: true, attributes: true });
    document.addEventListener("leadline:replaced", () => { window.replacedSince = true; });
}"""
"""Has the page write down every value that the bar of a job has."""

QUESTIONS = """([job, unknown]) => {
    const card = document.querySelector(`article[data-job="${job}"]`);
    if (unknown) card.querySelector(unknown).replaceChildren();
    const refresh = window.refreshSoon;
    let questions = 0;
    window.refreshSoon = () => { questions += 1; };
    const counts = { total: 400, done: 1, failed: 0, skipped: 0, unknown: 0 };
    showProgress({ job, counts, shown: card.querySelector(".state").textContent, leads_per_second: 1 });
    window.refreshSoon = refresh;
    return questions;
}"""
"""How often the page is asked for on news of a job of which something was not known so far."""


@asynccontextmanager
async def working(
    place: Place, port: int, behaviour: Behaviour, *lines: str, leads: int = LEADS, at_a_time: int = 2
) -> AsyncIterator[House]:
    """A daemon with a table of acme's, and a provider that takes few leads at once."""
    limits = f'limits = [{{ shape = "concurrent", amount = {at_a_time} }}]'
    async with serving(behaviour) as served:
        async with house(place, port, *lines, provider("company", served, settings=[limits])) as home:
            await table(home, leads)
            yield home


async def table(home: House, leads: int) -> None:
    (home.place.state / "incoming" / "people.csv").write_text(csv_text(people(leads)))
    job = (await home.client.submit(Upload(teamspace="acme", table="people", path="people.csv"))).job
    assert (await home.client.wait(job)).state == "completed"


async def look_on(home: House, page: Page, teamspace: str, *, person: str = "ann") -> None:
    """Sign in, and wait until the page hears what happens."""
    async with page.expect_response(lambda response: "/live" in response.url):
        await home.sign_in(page, teamspace, person=person)


async def enrich(home: House) -> JobId:
    wanted = Enrich(teamspace="acme", table="people", module="company", into={"company": "text"})
    return (await home.client.submit(wanted)).job


@asynccontextmanager
async def looking_on(browser: Browser, place: Place, port: int) -> AsyncIterator[tuple[Page, JobId]]:
    """Somebody of acme's sees to a job that takes its time."""
    async with working(place, port, Paced(Enrichment())) as home, visiting(browser, home.origin) as (page, _):
        await look_on(home, page, "acme")
        yield page, await enrich(home)


def card(page: Page, job: JobId) -> Locator:
    return page.get_by_role("article").and_(page.locator(f"[data-job='{job}']"))


async def state_is(page: Page, job: JobId, word: str) -> None:
    await expect(card(page, job).locator(".state").first).to_have_text(word)


async def goes_on(page: Page, job: JobId, before: int) -> int:
    """How many leads are settled, once the page shows more of them than before."""
    await page.wait_for_function(GOES_ON, arg=[job, before])
    return int(await card(page, job).get_by_role("progressbar").get_attribute("aria-valuenow") or 0)


async def press(page: Page, where: Locator, name: str, *, sure: bool = False) -> None:
    """Press a button, and say that one means it where one is asked."""
    await where.get_by_role("button", name=name, exact=True).click()
    if sure:
        await page.get_by_role("dialog").get_by_role("button", name=name, exact=True).click()


async def test_a_job_comes_moves_and_is_cancelled_and_run_again_before_ones_eyes(
    browser: Browser, place: Place, unused_tcp_port: int
) -> None:
    paced = Paced(Enrichment())
    async with working(place, unused_tcp_port, paced) as home, visiting(browser, home.origin) as (page, _):
        await look_on(home, page, "acme")
        await page.evaluate("window.loadedOnce = true")
        job = await enrich(home)
        await state_is(page, job, "running")
        settled = await goes_on(page, job, 0)
        assert await goes_on(page, job, settled) < LEADS
        await expect(card(page, job)).to_contain_text("leads a minute")
        await expect(card(page, job)).to_contain_text("done at about")
        assert await page.evaluate("window.loadedOnce"), "the page was not loaded again for that"

        await press(page, card(page, job), "Cancel", sure=True)
        await expect(page.get_by_role("status").first).to_contain_text("The job is being cancelled")
        await state_is(page, job, "cancelled")
        paced.delay_us = 0
        await press(page, card(page, job), "Run the rest")
        again = JobId(job + 1)
        await expect(card(page, again)).to_be_visible()
        await home.client.wait(again)
        await state_is(page, again, "completed")
        assert (await home.client.get(again)).counts.done == LEADS - (await home.client.get(job)).counts.done


async def test_a_bar_never_steps_back_though_the_page_that_was_asked_for_comes_late(
    browser: Browser, place: Place, unused_tcp_port: int
) -> None:
    async with looking_on(browser, place, unused_tcp_port) as (page, job):
        await goes_on(page, job, 0)
        late = asyncio.Event()

        async def held(route: Route) -> None:
            answer = await route.fetch()
            await goes_on(page, job, await goes_on(page, job, 0) + 3)
            await page.evaluate(WATCH_BAR, str(job))
            await route.fulfill(response=answer)
            late.set()

        await page.route("**/jobs*", held, times=1)
        await page.evaluate("refreshSoon()")
        await asyncio.wait_for(late.wait(), PATIENCE_MS / 1000)
        seen = int(await page.evaluate("seenOfBar.at(-1)"))
        await goes_on(page, job, seen)
        values = [int(value) for value in await page.evaluate("seenOfBar")]
        assert values == sorted(values)
        assert await page.evaluate("replacedSince"), "the page that came late was shown"


async def test_what_is_known_of_a_job_only_later_is_asked_for_as_soon_as_it_is(
    browser: Browser, place: Place, unused_tcp_port: int
) -> None:
    async with looking_on(browser, place, unused_tcp_port) as (page, job):
        await expect(card(page, job)).to_contain_text("leads a minute")
        assert await page.evaluate(QUESTIONS, [str(job), ""]) == 0
        assert await page.evaluate(QUESTIONS, [str(job), "[data-field=rate]"]) == 1, "now an end can be estimated"
        assert await page.evaluate(QUESTIONS, [str(job), ".numbers"]) == 1, "now it is known how many leads there are"


async def test_a_stalled_job_is_killed_and_goes_on_before_ones_eyes(
    browser: Browser, place: Place, unused_tcp_port: int
) -> None:
    hangs = Faulty(Enrichment(), [Fault(hang(), str(people(1)[0]["email"]))])
    watched = ("[queue]", "warn_after_seconds = 4", "stall_after_seconds = 6")
    async with (
        working(place, unused_tcp_port, Paced(hangs), *watched, leads=20, at_a_time=1) as home,
        visiting(browser, home.origin) as (page, _),
    ):
        await look_on(home, page, "acme")
        await page.evaluate("window.loadedOnce = true")
        job = await enrich(home)
        await expect(card(page, job)).to_contain_text("It was stopped and started again")
        await state_is(page, job, "completed")
        await expect(card(page, job)).to_contain_text("run 2")
        assert await page.evaluate("window.loadedOnce")


async def test_two_teamspaces_never_see_each_other(browser: Browser, place: Place, unused_tcp_port: int) -> None:
    async with (
        working(place, unused_tcp_port, Enrichment(), leads=6) as home,
        visiting(browser, home.origin) as (ann, _),
        visiting(browser, home.origin) as (gus, watch),
    ):
        await look_on(home, ann, "acme")
        await look_on(home, gus, "globex", person="gus")
        columns: dict[str, ColumnSpec] = {"email": "text"}
        await home.client.call(Tables(action="create", teamspace="globex", table="own", columns=columns))
        own = (await home.client.submit(Export(teamspace="globex", table="own", delay=3600))).job
        job = await enrich(home)
        await state_is(gus, own, "delayed")
        await state_is(ann, job, "completed")
        for page, shown, hidden in ((ann, job, own), (gus, own, job)):
            await page.reload()
            assert await card(page, shown).count() == 1
            assert await card(page, hidden).count() == 0
        assert "people" not in await gus.content()
        for address in (f"/jobs/{job}/file", "/jobs?teamspace=acme", "/t/people/jobs"):
            response = await gus.goto(address)
            assert response is not None
            assert f"#{job}" not in await gus.inner_text("body")
        watch.take("status of 404")


async def test_what_was_exported_is_downloaded(browser: Browser, place: Place, unused_tcp_port: int) -> None:
    async with working(place, unused_tcp_port, Enrichment()) as home, visiting(browser, home.origin) as (page, _):
        job = (await home.client.submit(Export(teamspace="acme", table="people"))).job
        await home.client.wait(job)
        await home.sign_in(page, "acme")
        async with page.expect_download() as waiting:
            await card(page, job).get_by_role("link", name="Download the file").click()
        path = await (await waiting.value).path()
        assert path.read_text(encoding="utf-8-sig").count("@example.com") == LEADS


async def test_a_link_signs_in_once_and_whoever_signs_out_is_out(
    browser: Browser, place: Place, unused_tcp_port: int
) -> None:
    async with house(place, unused_tcp_port) as home:
        link = await home.link("ann", "acme", "member")
        async with visiting(browser, home.origin) as (page, watch):
            await page.goto(link)
            await page.wait_for_url("**/jobs")
            await page.get_by_role("button", name="Sign out").click()
            await expect(page.get_by_role("heading")).to_have_text("You are signed out")
            await page.goto("/jobs")
            await expect(page.get_by_role("heading")).to_have_text("Please sign in again")
            watch.take("status of 401")
        async with visiting(browser, home.origin) as (page, watch):
            await page.goto(link)
            await expect(page.get_by_role("heading")).to_have_text("Please sign in again")
            watch.take("status of 401")
