"""The checks that every page has to pass are each shown a page with the fault they are for, and one without."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import Browser, Page

from tests.browser.accessibility import axe_violations
from tests.browser.layout import clipped_text, scrolled_sideways
from tests.browser.visits import PHONE, visiting
from tests.world.behaviours import SECOND, Drip, Now, Plan, Request
from tests.world.servers import serving

pytestmark = [pytest.mark.needs("chromium-headless-shell"), pytest.mark.asyncio(loop_scope="module")]

STRICT = "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; img-src *; connect-src *"


HTML = {"content-type": "text/html; charset=utf-8"}


class Site:
    """Pages at their paths."""

    def __init__(self, pages: Mapping[str, Plan]) -> None:
        self.pages = {"/favicon.ico": Plan(status=204), **pages}

    def respond(self, request: Request, now: Now) -> Plan:
        return self.pages.get(request.path, Plan(status=404, headers=HTML, body=b"<!doctype html><p>Nothing is here."))


def document(body: str, head: str = "", **headers: str) -> Plan:
    """A page that fits a phone."""
    text = f"""<!doctype html><html lang="en"><head><title>A page</title>
        <meta name="viewport" content="width=device-width, initial-scale=1">{head}</head>
        <body><main><h1>A page</h1>{body}</main></body></html>"""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Plan(headers={**HTML, **named}, body=text.encode())


def script(text: str) -> Plan:
    return Plan(headers={"content-type": "text/javascript"}, body=text.encode())


@asynccontextmanager
async def shown(browser: Browser, first: Plan, rest: Mapping[str, Plan] = {}, **context: Any) -> AsyncIterator[Page]:
    """A browser at `/`. Raises what a visit raises."""
    async with serving(Site({"/": first, **rest})) as site, visiting(browser, site.url, **context) as (page, _):
        await page.goto("/")
        yield page


async def complaints(browser: Browser, first: Plan, rest: Mapping[str, Plan] = {}) -> list[str]:
    """What a browser complains of while it shows `/`, once the network is idle."""
    async with serving(Site({"/": first, **rest})) as site, visiting(browser, site.url) as (page, watch):
        await page.goto("/")
        await page.wait_for_load_state("networkidle")
        found, watch.faults = watch.faults, []
        return [fault.replace(site.url, "") for fault in found]


async def test_a_page_without_fault_passes(browser: Browser) -> None:
    loaded = {"/page.js": script("fetch('/numbers')"), "/numbers": Plan(body=b"{}")}
    first = document("<p>Words.</p>", '<script src="/page.js" defer></script>', content_security_policy=STRICT)
    async with shown(browser, first, loaded) as page:
        await page.wait_for_load_state("networkidle")
        assert [*await scrolled_sideways(page), *await clipped_text(page), *await axe_violations(page)] == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("console.error('broken')", "console: broken"),
        ("console.warn('dubious')", "console: dubious"),
        ("document.nothing.more", "script: .*undefined"),
        ("Promise.reject(new Error('forgotten'))", "script: .*forgotten"),
        ("fetch('/nowhere')", "console: .*404"),
        ("fetch('/cut').catch(() => {})", "failed: /cut net::ERR_"),
        ("new Image().src = 'http://elsewhere.example/pixel'", "elsewhere: http://elsewhere.example/pixel"),
        ("eval('1')", "Content Security Policy"),
        ("document.body.insertAdjacentHTML('beforeend', '<b onclick=\"1\">x</b>')", "Content Security Policy"),
    ],
)
async def test_what_a_script_does_wrong_is_told(browser: Browser, text: str, fault: str) -> None:
    first = document("", '<script src="/page.js" defer></script>', content_security_policy=STRICT)
    pages = {"/page.js": script(text), "/cut": Plan(stop="cut_before_headers")}
    told = await complaints(browser, first, pages)
    assert any(re.search(fault, each) for each in told), told


async def test_an_inline_script_is_told(browser: Browser) -> None:
    told = await complaints(browser, document("<script>1</script>", content_security_policy=STRICT))
    assert any("Content Security Policy" in each for each in told), told


async def test_a_visit_with_a_complaint_fails(browser: Browser) -> None:
    with pytest.raises(AssertionError, match="404"):
        async with shown(browser, document('<img src="/nowhere" alt="">')) as page:
            await page.wait_for_load_state("networkidle")


async def test_a_visit_that_fails_by_itself_tells_its_complaints_too(browser: Browser) -> None:
    async def fail(page: Page) -> None:
        await page.wait_for_load_state("networkidle")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as failure:
        async with shown(browser, document('<img src="/nowhere" alt="">')) as page:
            await fail(page)
    assert any("404" in note for note in failure.value.__notes__)


async def test_a_complaint_may_be_expected_but_must_come(browser: Browser) -> None:
    async with serving(Site({})) as site, visiting(browser, site.url) as (page, watch):
        await page.goto("/")
        watch.take("404")
        with pytest.raises(AssertionError, match="nothing like"):
            watch.take("404")


async def test_going_on_while_something_is_loading_is_no_complaint(browser: Browser) -> None:
    endless = Drip(size=2, gap_us=SECOND)
    stream = Plan(headers={"content-type": "text/event-stream"}, body=b":\n", repeat=1_000, drip=endless)
    pages = {"/page.js": script("new EventSource('/stream')"), "/stream": stream}
    first = document("", '<script src="/page.js"></script>')
    async with serving(Site({"/": first, **pages})) as site, visiting(browser, site.url) as (page, _):
        await page.goto("/")
        await site.until(lambda calls: any(call.path == "/stream" for call in calls))
        await page.goto("/?again")


WIDE = '<table id="wide"><tr><td style="min-width: 500px">Much</td></tr></table>'
LONG = "donaudampfschifffahrts" * 4


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (WIDE, "td"),
        (f'<p id="long">{LONG}</p>', "p#long"),
        (f'<div style="overflow-x: hidden; width: 600px" id="box">{WIDE}</div>', "div#box"),
    ],
)
async def test_what_makes_a_phone_scroll_sideways_is_named(browser: Browser, body: str, named: str) -> None:
    async with shown(browser, document(body), **PHONE) as page:
        first, *elements = await scrolled_sideways(page)
        assert "in a window of 375" in first
        assert [element for element in elements if element.startswith(named)], elements


async def test_a_page_that_does_not_say_it_fits_a_phone_is_named(browser: Browser) -> None:
    plan = Plan(headers=HTML, body=b"<!doctype html><title>A page</title><p>Words.")
    async with shown(browser, plan, **PHONE) as page:
        assert re.fullmatch(r"the page is 98\d px wide in a window of 375", (await scrolled_sideways(page))[0])


async def test_what_scrolls_within_a_page_does_not_count(browser: Browser) -> None:
    body = f'<div style="overflow-x: auto" tabindex="0">{WIDE}<p>{LONG}</p></div>'
    async with shown(browser, document(body), **PHONE) as page:
        assert [*await scrolled_sideways(page), *await clipped_text(page)] == []


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (f'<p id="own" style="overflow: hidden">{LONG}</p>', "p#own"),
        (f'<p id="inner" style="overflow: hidden"><b>{LONG}</b></p>', "p#inner"),
        (f'<p id="dots" style="overflow: hidden; text-overflow: ellipsis">{LONG}</p>', "p#dots"),
        (f'<p id="clip" style="overflow-x: clip">{LONG}</p>', "p#clip"),
        ('<p id="low" style="overflow: hidden; height: 1.2em">Words<br>and words</p>', "p#low"),
        ('<p id="thin" style="overflow: hidden; height: 0.6em">Words</p>', "p#thin"),
    ],
)
async def test_text_that_is_cut_off_is_named(browser: Browser, body: str, named: str) -> None:
    async with shown(browser, document(body), **PHONE) as page:
        (element,) = await clipped_text(page)
        assert element.startswith(named)


@pytest.mark.parametrize(
    "body",
    [
        f'<p style="overflow: hidden; overflow-wrap: anywhere">{LONG}</p>',
        '<p style="overflow: hidden; line-height: 1">Words and words</p>',
        f'<p hidden style="overflow: hidden">{LONG}</p>',
        f'<details><summary>More</summary><p style="overflow: hidden">{LONG}</p></details>',
        f'<span style="position: absolute; width: 1px; height: 1px; overflow: hidden">{LONG}</span>',
    ],
)
async def test_text_that_can_be_read_or_is_not_shown_is_not_named(browser: Browser, body: str) -> None:
    async with shown(browser, document(body), **PHONE) as page:
        assert await clipped_text(page) == []


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ('<form><input id="name"></form>', "label: .*: #name"),
        ('<p style="color: #999; background: #fff" id="pale">Words</p>', "color-contrast: .*: #pale"),
        ('<img id="image" src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">', "image-alt: .*: #image"),
        ('<h3 id="deep">Words</h3>', "heading-order: .*: #deep"),
    ],
)
async def test_what_keeps_people_out_is_named(browser: Browser, body: str, rule: str) -> None:
    async with shown(browser, document(body)) as page:
        (violation,) = await axe_violations(page)
        assert re.fullmatch(rule, violation)


async def test_a_theme_is_looked_at_by_itself(browser: Browser) -> None:
    style = """<style>:root { color-scheme: light dark; }
        @media (prefers-color-scheme: dark) { p { color: #333; background: #222; } }</style>"""
    async with shown(browser, document("<p>Words</p>", style)) as page:
        assert await axe_violations(page) == []
        await page.emulate_media(color_scheme="dark")
        (violation,) = await axe_violations(page)
        assert violation.startswith("color-contrast")
