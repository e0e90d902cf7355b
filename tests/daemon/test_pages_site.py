"""Who gets in to the pages, and whose forms are taken."""

import asyncio
from collections.abc import AsyncIterator, Mapping

import pytest
from yarl import URL

from leadline.adapters.http import limits
from leadline.adapters.http.pages.directory import PAGES
from leadline.adapters.http.pages.site import COOKIE, FORMS_PER_SESSION_MAX
from leadline_protocol.messages import Links, Noop
from tests.daemon.pages import ORIGIN, person, signed_in
from tests.daemon.running import WITHIN_SECONDS, Place


async def test_a_person_comes_in_by_a_link_and_goes_out_again(place: Place) -> None:
    async with place.daemon() as (_, client), person(place) as ann:
        jobs = await ann.sign_in(client, "acme")
        assert (jobs.status, jobs.address) == (200, "/jobs")
        assert "ann@acme.example" in jobs.page.one("header", class_="top").text
        (out,) = [form for form in jobs.page.every("form") if form.attributes["action"] == "/out"]
        left = await ann.send(out)
        assert left.main.one("h1").text == "You are signed out"
        assert ann.cookies == {}
        assert (await ann.get("/jobs")).status == 401


async def test_the_cookie_is_for_this_host_alone_and_no_script_reads_it(place: Place) -> None:
    async with place.daemon() as (_, client), person(place) as ann:
        reply = await client.call(Links(teamspace="acme", person="ann", role="member"))
        assert reply.path is not None
        taken = await ann.post(reply.path, {}, follow=False)
        said = {part.strip() for part in taken.headers["Set-Cookie"].split(";")}
        assert {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"} <= said
        assert not any(part.startswith("Domain") for part in said)
        assert ann.cookies[COOKIE] not in (await ann.get("/jobs")).html


async def test_a_session_outlives_a_restart_but_not_its_end(place: Place) -> None:
    async with person(place) as ann:
        async with place.daemon() as (_, client):
            await ann.sign_in(client, "acme")
            cookies = dict(ann.cookies)
    async with place.daemon(), person(place) as ann:
        ann.cookies = dict(cookies)
        jobs = await ann.get("/jobs")
        assert jobs.status == 200
        await ann.post("/out", {})
        ann.cookies = cookies
        assert (await ann.get("/jobs")).status == 401


async def test_who_only_looks_at_a_link_does_not_use_it_up(place: Place) -> None:
    async with place.daemon() as (_, client), person(place) as ann:
        reply = await client.call(Links(teamspace="acme", person="ann", role="member"))
        assert reply.path is not None
        for _number in range(3):
            assert (await ann.get(reply.path)).main.one("h1").text == "Sign in"
        assert (await ann.post(reply.path, {})).status == 200
        again = await ann.post(reply.path, {})
        assert (again.status, again.main.one("h1").text) == (401, "Please sign in again")


async def test_a_strangers_link_does_not_sign_in_who_is_signed_in_already_by_itself(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        before = dict(ann.cookies)
        for person_, teamspace, asked in (("ann@acme.example", "acme", False), ("eve", "acme", True)):
            reply = await client.call(Links(teamspace=teamspace, person=person_, role="member"))
            assert reply.path is not None
            door = (await ann.get(reply.path)).page
            assert ("You are signed in here as ann@acme.example of acme" in door.text) is asked
            assert bool(list(door.every("script"))) is not asked
        assert (await ann.send(door.one("form"))).status == 200
        ann.cookies = before
        assert (await ann.get("/jobs")).status == 401, "whoever comes in anew is out as whom they were before"


@pytest.mark.parametrize("cookie", ["", "lds_x", "x" * 5000, "lds_" + "a" * 65])
async def test_nobody_else_sees_a_page(place: Place, cookie: str) -> None:
    async with place.daemon(), person(place) as stranger:
        if cookie:
            stranger.cookies[COOKIE] = cookie
        for page in PAGES:
            shown = await stranger.ask(page.method, page.path, headers={"Origin": ORIGIN})
            assert shown.status == 401, page
        assert (await stranger.get("/live")).status == 401
        assert (await stranger.get("/nothing")).status == 401


async def test_a_form_of_another_site_is_refused(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        for origin in ("http://evil.example", "null", "http://leadline.evil.example", "https://leadline:444", ""):
            out = await ann.post("/out", {}, headers={"Origin": origin})
            assert out.status == 403, origin
        crossed = await ann.post("/out", {}, headers={"Sec-Fetch-Site": "cross-site"})
        assert crossed.status == 403
        assert (await ann.get("/jobs")).status == 200
        assert (await ann.post("/out", {})).status == 200, "the page's own form is taken"


async def test_behind_a_proxy_forms_come_from_the_public_address(place: Place) -> None:
    place.configure("[http]", 'public_url = "https://jobs.example.com"')
    async with place.daemon() as (_, client), person(place) as ann:
        reply = await client.call(Links(teamspace="acme", person="ann", role="member"))
        assert reply.url is not None
        assert reply.path is not None
        assert reply.url == f"https://jobs.example.com{reply.path}"
        assert (await ann.post(reply.path, {})).status == 403
        taken = await ann.post(reply.path, {}, headers={"Origin": "https://jobs.example.com"})
        assert taken.status == 200


async def test_every_page_forbids_foreign_scripts_and_frames(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        for path in ("/jobs", "/nothing", "/in/x"):
            shown = await ann.get(path)
            policy = dict(part.strip().split(" ", 1) for part in shown.headers["Content-Security-Policy"].split(";"))
            assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
            assert policy["script-src"] == policy["style-src"] == policy["form-action"] == "'self'"
            assert shown.headers["Cache-Control"] == "no-store"
            assert not [script for script in shown.page.every("script") if script.text]
            assert not [element for element in shown.page.every() if "style" in element.attributes]


async def test_what_pages_load_is_there_and_kept_by_browsers(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        page = (await ann.get("/jobs")).page
        loaded = [*page.every("script"), *page.every("link"), *page.every("img")]
        for element in loaded:
            address = element.attributes.get("src") or element.attributes["href"]
            shown = await ann.get(address)
            assert shown.status == 200, address
            assert "immutable" in shown.headers["Cache-Control"]
        assert (await ann.get("/assets/..%2Fsite.py")).status == 404


async def test_a_page_that_is_not_there_says_so_to_who_is_signed_in(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        shown = await ann.get("/nothing")
        assert (shown.status, shown.main.one("h1").text) == (404, "Nothing here")


async def test_streams_are_begun_no_faster_than_pages_are_asked_for(place: Place) -> None:
    place.configure("[http]", "requests_per_second = 1.0")
    async with place.daemon() as (running, client), signed_in(place, client) as ann:
        running.http.face._site._rates = limits.Rates(lambda: 0.0)
        assert [(await ann.get("/live?job=4711")).status for _ in range(3)] == [404, 404, 429]


async def test_so_many_forms_of_one_person_are_read_at_a_time(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        go_on = asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield b"csrf="
            await go_on.wait()
            yield b"x"

        headers = {"Content-Type": "application/x-www-form-urlencoded", "Origin": ORIGIN}
        async with asyncio.timeout(WITHIN_SECONDS), asyncio.TaskGroup() as tasks:
            slow = [
                tasks.create_task(ann.ask("POST", "/tables", data=slowly(), headers=headers))
                for _ in range(FORMS_PER_SESSION_MAX)
            ]
            while (await ann.post("/tables", {"csrf": "x"})).status != 429:
                await asyncio.sleep(0)
            async with signed_in(place, client) as bob:
                assert (await bob.post("/tables", {"csrf": "x"})).status == 403, "others have room"
            go_on.set()
        assert {task.result().status for task in slow} == {403}
        assert (await ann.post("/tables", {"csrf": "x"})).status == 403


@pytest.mark.parametrize("named", ["%0D%0A1", "%201", "%221%22", "1.0", "01", "0", "-1", "9" * 30])
async def test_a_job_is_named_by_its_number_alone(place: Place, named: str) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        await client.submit(Noop(teamspace="acme", delay=3600))
        page = (await ann.get("/jobs/1")).main
        csrf = next(page.every("input", name="csrf")).attributes["value"]
        path = URL(f"/jobs/{named}/cancel", encoded=True)
        assert (await ann.post(path, {"csrf": csrf})).status == 404  # type: ignore[arg-type]  # as it stands there


async def test_the_stream_of_a_page_tells_of_its_teamspace_alone(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        assert (await ann.get("/live?job=4711")).status == 404
        assert (await ann.get("/live?job=x")).status == 404
        address = "/live?teamspace=globex"  # of a customer the address says nothing
        headers = {"Cookie": f"{COOKIE}={ann.cookies[COOKIE]}"}
        async with ann.session.get(address, headers=headers) as stream:
            assert stream.status == 200
            assert await stream.content.readline() == b"retry: 2000\n"
            await client.submit(Noop(teamspace="globex"))
            await client.submit(Noop(teamspace="acme"))
            async with asyncio.timeout(WITHIN_SECONDS):
                while not (line := await stream.content.readline()).startswith(b"data:"):
                    pass
            assert b"acme" in line


async def test_what_happens_while_a_page_is_on_its_way_is_told_by_its_stream(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client) as ann:
        first = (await ann.get("/jobs")).page.one("body").attributes
        headers = {"Cookie": f"{COOKIE}={ann.cookies[COOKIE]}"}

        async def told(body: Mapping[str, str]) -> str:
            """The first event of the stream of a page."""
            address = URL(body["data-stream"]).update_query(seen=body["data-seen"])
            async with ann.session.get(address, headers=headers) as stream, asyncio.timeout(WITHIN_SECONDS):
                while not (line := await stream.content.readline()).startswith(b"event:"):
                    pass
                return line.decode().removeprefix("event: ").strip()

        assert await told(first) == "missed", "nobody has listened, so nobody knows"
        second = (await ann.get("/jobs")).page.one("body").attributes
        await client.wait((await client.submit(Noop(teamspace="acme"))).job)
        assert await told(second) == "queued"
