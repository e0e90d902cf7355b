"""The page of one job, where a script adds to it: lines that a run prints meanwhile, and how fast a job was."""

from typing import Any

import pytest
from playwright.async_api import Browser, expect
from playwright.async_api import TimeoutError as NothingCame

from leadline.adapters.http.stream import RETRY_MILLISECONDS
from leadline_protocol.messages import Batch, BatchJobs, Cancel, Enrich, Noop, Upload
from tests.acceptance.batch_jobs import ENABLED, zipped
from tests.acceptance.stage import csv_text, people, provider
from tests.browser.accessibility import axe_violations
from tests.browser.house import House, house
from tests.browser.layout import clipped_text, scrolled_sideways
from tests.browser.visits import PHONE, visiting
from tests.daemon.running import Place
from tests.world.behaviours import SECOND, Delayed, Enrichment
from tests.world.servers import serving

pytestmark = [pytest.mark.needs("chromium-headless-shell"), pytest.mark.asyncio(loop_scope="module")]

LEADS = 14

COMES_BACK_MS = 2 * RETRY_MILLISECONDS
"""By then a browser has come back that was cut off."""

REDRAWN = "drawn => document.querySelector('.plot canvas')?.toDataURL() !== drawn"

PRINTS = """
import time

def main(event):
    for number in range(30):
        print("line", number, "\\x1b[31m<b>", "x" * 200, flush=True)
        time.sleep(0.2)
    if event["retry_attempt"] == 0:
        raise ConnectionError("no")
"""


async def publish(home: House) -> None:
    named: dict[str, Any] = {"teamspace": "acme", "name": "nightly"}
    (home.place.state / "incoming" / "code.zip").write_bytes(zipped({"main.py": PRINTS}))
    await home.client.call(BatchJobs(action="create", **named, api=True, retries=1))
    await home.client.call(BatchJobs(action="upload", **named, path="code.zip"))
    await home.client.call(BatchJobs(action="publish", **named))


@pytest.mark.needs("bwrap")
async def test_lines_come_while_one_looks_on_those_of_the_second_attempt_too(
    browser: Browser, place: Place, unused_tcp_port: int
) -> None:
    async with (
        house(place, unused_tcp_port, ENABLED) as home,
        visiting(browser, home.origin, **PHONE) as (page, _),
    ):
        await publish(home)
        await home.sign_in(page, "acme")
        job = (await home.client.submit(Batch(teamspace="acme", batch_job="nightly"))).job
        await page.goto(f"/jobs/{job}")
        await page.evaluate("window.loadedOnce = true")
        printed = page.locator(".printed")
        await expect(printed).to_have_count(60)
        await expect(printed.first).to_contain_text("line 0 <b> xxx")
        await expect(page.get_by_text("Attempt 2", exact=True).first).to_be_visible()
        await expect(page.locator("#job .state")).to_have_text("completed")
        log = page.get_by_role("log")
        end = "box => box.scrollHeight - box.scrollTop - box.clientHeight"
        assert await log.evaluate(end) < 2, "what is new is seen"
        assert await page.evaluate("window.loadedOnce"), "the page was not loaded again for that"
        assert [*await scrolled_sideways(page), *await clipped_text(page), *await axe_violations(page)] == []


async def test_when_a_job_has_ended_its_page_asks_for_no_more_news_and_misses_none(
    browser: Browser, place: Place, unused_tcp_port: int
) -> None:
    async with house(place, unused_tcp_port) as home, visiting(browser, home.origin) as (page, _):
        job = (await home.client.submit(Noop(teamspace="acme", delay=3600))).job
        await home.sign_in(page, "acme")
        async with page.expect_response(lambda response: "/live" in response.url):
            await page.goto(f"/jobs/{job}")
        await home.client.call(Cancel(job=job))
        await expect(page.locator("#job .state")).to_have_text("cancelled")
        with pytest.raises(NothingCame):
            await page.wait_for_event("request", lambda request: "/live" in request.url, timeout=COMES_BACK_MS)
        await expect(page.locator(".connection")).to_be_hidden()


async def test_how_fast_a_job_was_is_drawn_to_the_width_of_the_window_and_read_off(
    browser: Browser, place: Place, unused_tcp_port: int
) -> None:
    slow = Delayed(Enrichment(), median_us=SECOND // 2, sigma=0)
    one = 'limits = [{ shape = "concurrent", amount = 1 }]'
    async with (
        serving(slow) as served,
        house(place, unused_tcp_port, provider("company", served, settings=[one])) as home,
        visiting(browser, home.origin) as (page, _),
    ):
        (home.place.state / "incoming" / "list.csv").write_text(csv_text(people(LEADS)))
        await home.client.wait(
            (await home.client.submit(Upload(teamspace="acme", table="people", path="list.csv"))).job
        )
        wanted = Enrich(teamspace="acme", table="people", module="company", into={"company": "text"})
        job = (await home.client.submit(wanted)).job
        await home.client.wait(job)
        await home.sign_in(page, "acme")
        await page.goto(f"/jobs/{job}")
        canvas = page.locator(".plot canvas")
        await expect(canvas).to_have_count(1)
        drawn = await canvas.evaluate("canvas => canvas.toDataURL()")
        await page.emulate_media(color_scheme="dark")
        # A page hears of a new scheme only as it renders, which may be later than the answer to having set it.
        await page.wait_for_function(REDRAWN, arg=drawn)
        await page.set_viewport_size({"width": 500, "height": 800})
        await expect(canvas).to_have_css(
            "width", f"{await page.locator('.plot').evaluate('plot => plot.clientWidth')}px"
        )
        assert await scrolled_sideways(page) == []
        await page.locator(".plot .u-over").hover()
        await expect(page.locator(".plot-reading")).to_contain_text("leads a minute")
        await page.get_by_text("As numbers").click()
        await expect(page.locator("#pace-table tbody tr").last).to_contain_text(str(LEADS))
