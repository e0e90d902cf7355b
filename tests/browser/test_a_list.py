"""What a person does with a list of leads, from a file to a file, and when it is done again."""

import csv
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from playwright.async_api import Browser, FilePayload, Page, expect

from leadline_protocol.messages import Schedules
from leadline_protocol.schedules import Cron, Daily
from tests.acceptance.stage import csv_text, people, provider
from tests.browser.house import house
from tests.browser.visits import visiting
from tests.daemon.running import Place
from tests.world.behaviours import SECOND, Delayed, Enrichment
from tests.world.servers import serving

DATES = "days => days.map((day) => day.dataset.date)"

pytestmark = [pytest.mark.needs("chromium-headless-shell"), pytest.mark.asyncio(loop_scope="module")]

LEADS = 24


async def upload(page: Page) -> None:
    """Go to the tables, and send a file there."""
    await page.get_by_role("link", name="Tables", exact=True).click()
    file = FilePayload(name="people.csv", mimeType="text/csv", buffer=csv_text(people(LEADS)).encode())
    await page.get_by_label("File CSV").set_input_files(file)
    await page.get_by_role("button", name="Upload").click()
    await page.wait_for_url("**/jobs/*")
    await has_completed(page)


async def has_completed(page: Page) -> None:
    await expect(page.locator("#job .state").first).to_have_text("completed")


async def test_a_list_goes_from_a_file_through_a_chain_to_a_file(
    browser: Browser, place: Place, unused_tcp_port: int
) -> None:
    slow = Delayed(Enrichment(), median_us=SECOND // 2, sigma=0)
    few = 'limits = [{ shape = "concurrent", amount = 2 }]'
    async with (
        serving(slow) as served,
        house(place, unused_tcp_port, provider("company", served, settings=[few])) as home,
        visiting(browser, home.origin) as (page, _),
    ):
        await home.sign_in(page, "acme")
        await upload(page)
        await page.get_by_role("link", name="See people").click()
        await page.get_by_role("link", name="Run something on it").click()
        for what, button in (("module company", "Go on"), ("formula", "Add this step"), ("export", "Add this step")):
            await page.get_by_label("What to do").select_option(what)
            await page.get_by_role("button", name=button).click()
        second = page.get_by_role("group", name="Step 2")
        await second.get_by_label("The formula").fill("2 * n")
        await second.get_by_label("Column for the result").fill("twice")
        await second.get_by_role("combobox", name="It holds", exact=True).select_option("number")
        await page.get_by_role("button", name="See what it would take").last.click()
        await expect(page.get_by_role("heading", name="What it would take")).to_be_visible()
        assert served.calls == [], "nothing has run"
        await page.get_by_role("button", name="Run it").click()
        await page.wait_for_url("**/jobs/*")

        await page.evaluate("window.loadedOnce = true")
        await expect(page.locator("#job [role=progressbar]").first).not_to_have_attribute("aria-valuenow", "0")
        await has_completed(page)
        assert await page.evaluate("window.loadedOnce"), "the page was not loaded again for that"
        await page.get_by_role("link", name="Write").click()
        async with page.expect_download() as waiting:
            await page.get_by_role("link", name="Download the file").click()
        path = await (await waiting.value).path()
        rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
        assert [float(row["twice"]) for row in rows] == [2 * n for n in range(LEADS)]
        assert {row["company"] for row in rows} == {"Example"}


async def test_a_schedule_is_made_once_it_was_seen_when_it_fires(
    browser: Browser, place: Place, unused_tcp_port: int
) -> None:
    async with house(place, unused_tcp_port) as home, visiting(browser, home.origin) as (page, _):
        await home.sign_in(page, "acme")
        await page.goto("/new-schedule")
        await page.get_by_label("It fires").select_option("daily")
        await page.get_by_label("At HH:MM").fill("02:30")
        await page.get_by_label("By the clocks of").fill("Europe/Berlin")
        await page.get_by_label("Or a job, as it is submitted").fill('{"kind": "noop"}')
        await page.get_by_label("Name", exact=True).fill("nightly")
        await page.get_by_role("button", name="See when it would fire").click()
        await expect(page.get_by_role("heading", name="It would fire at these times")).to_be_visible()
        assert (await home.client.call(Schedules(teamspace="acme"))).schedules == []
        await page.get_by_role("button", name="Schedule it").click()
        await page.wait_for_url("**/schedules/nightly*")
        (made,) = (await home.client.call(Schedules(teamspace="acme"))).schedules
        assert made.schedule == "nightly"


@pytest.mark.parametrize(("zone", "days_on"), [("UTC", 0), ("Pacific/Kiritimati", 1), ("America/Los_Angeles", -1)])
async def test_a_calendar_has_what_fires_on_the_days_of_whoever_looks(
    browser: Browser, place: Place, unused_tcp_port: int, zone: str, days_on: int
) -> None:
    at = {0: "12:00", 1: "23:30", -1: "00:30"}[days_on]  # by UTC; there it is the day before or after
    async with (
        house(place, unused_tcp_port) as home,
        visiting(browser, home.origin, timezone_id=zone) as (page, _),
    ):
        added = Schedules(
            action="add", teamspace="acme", name="daily", timetable=Daily(at, "UTC"), submission={"kind": "noop"}
        )
        await home.client.call(added)
        await home.sign_in(page, "acme")
        shown = page.locator(".calendar > section:visible")

        async def expected() -> tuple[date, list[datetime]]:
            """The day it is there, and when it fires within a week."""
            coming = (await home.client.call(Schedules(action="due", teamspace="acme", days=7))).due
            there = ZoneInfo(zone)
            return datetime.now(there).date(), [each.at.astimezone(there) for each in coming]

        while True:  # once, but where a day ends or it fires meanwhile
            today, there = await expected()
            await page.goto("/schedules")
            await expect(shown).to_have_count(7)
            current = await page.locator(".calendar > [aria-current]").get_attribute("data-date")
            fires = await shown.filter(has=page.locator("li")).evaluate_all(DATES)
            first = " ".join((await shown.locator("time").first.inner_text()).split())
            if await expected() == (today, there):
                break
        assert current == str(today)
        assert {(each.date() - each.astimezone(UTC).date()).days for each in there} == {0 if zone == "UTC" else days_on}
        wanted = [str(each.date()) for each in there if each.date() <= today + timedelta(days=6)]
        assert fires == wanted
        assert first == f"{there[0]:%I:%M %p}".lstrip("0")


# Where clocks are set forward or back a day has 23 hours or 25: in these zones they are not.
@pytest.mark.parametrize("zone", ["Asia/Kathmandu", "Pacific/Honolulu"])
async def test_an_hourly_schedule_fires_as_often_on_each_day_of_the_zone_as_it_does_there(
    browser: Browser, place: Place, unused_tcp_port: int, zone: str
) -> None:
    async with (
        house(place, unused_tcp_port) as home,
        visiting(browser, home.origin, timezone_id=zone) as (page, _),
    ):
        hourly = Cron("0 * * * *", "UTC")
        await home.client.call(
            Schedules(action="add", teamspace="acme", name="hourly", timetable=hourly, submission={"kind": "noop"})
        )
        await home.sign_in(page, "acme")
        await page.goto("/schedules")
        days = page.locator(".calendar > section:visible")
        await expect(days).to_have_count(7)
        counts = await days.nth(1).locator(".how-often").all_inner_texts()
        assert counts == ["24 times"]
        minute = "45" if zone == "Asia/Kathmandu" else "00"
        await expect(days.nth(1).locator("li")).to_contain_text(f"12:{minute} AM to 11:{minute} PM")
