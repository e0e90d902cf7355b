"""The operator's pages: what they tell, what they change, and that nobody else has them."""

from typing import Any

import pytest

from leadline.adapters.http.pages import attention, operator
from leadline.adapters.http.pages.directory import PAGES, Page
from leadline.core.effects import WarnStalled
from leadline_protocol.client import Client
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import AccountName
from leadline_protocol.messages import FollowUps, Noop, Pause, Plans, Schedules, Status, TellOf
from leadline_protocol.schedules import Daily
from tests.daemon.pages import Person, fields_of, signed_in
from tests.daemon.running import Place
from tests.postgres import meddle

CANARY = "canary-of-globex"
NOTHING: Any = {"submission": {"kind": "noop"}}

OF_OPERATOR = [page for page in PAGES if page.path.startswith("/operator")]


@pytest.fixture(autouse=True)
def _a_busy_machine_is_none_of_what_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "LATE_LOOP_SECONDS", 3600.0)
    monkeypatch.setattr(attention, "SLOW_COMMIT_SECONDS", 3600.0)


async def in_force(client: Client, key: str, **whose: str) -> tuple[object, str]:
    (view,) = (await client.call(Plans(**whose))).plans  # type: ignore[arg-type]  # teamspace or provider
    return next((limit.value, limit.source) for limit in view.limits if limit.key == key)


async def acts(place: Place, op: str) -> list[tuple[str, str]]:
    """What the audit trail tells of an operation: on behalf of whom, and what of."""
    async with meddle(place.url) as connection:
        rows = await connection.fetch("SELECT person, target FROM audit WHERE op = $1 ORDER BY n", op)
    return [(row["person"], row["target"]) for row in rows]


async def change(ann: Person, address: str, **typed: str) -> None:
    """Set a limit as a person does: type it, and say yes to what is asked."""
    form = (await ann.get(address)).main.one("form", class_="fields")
    asked = await ann.send(form, **typed)
    assert (await ann.send(asked.main.one("form"))).status == 200


async def test_a_calm_daemon_needs_nobody_and_says_so_first(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client, None) as ann:
        home = await ann.get("/")
        assert (home.status, home.address) == (200, "/operator")
        assert home.main.one("h1").text == "Nothing needs you"
        assert home.main.one("section", id="daemon").one("span", class_="state").text == "ready"
        assert "No provider is in use now" in home.main.one("section", id="providers").text
        assert "No teamspace has a job now" in home.main.one("section", id="teamspaces").text


async def test_the_overview_tells_what_is_in_the_queue_and_whose(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client, None) as ann:
        await client.call(Pause(scope="family", name="noop"))
        await client.submit_many([Noop(teamspace="acme") for _ in range(3)])
        await client.submit_many([Noop(teamspace="globex", delay=3600) for _ in range(5)])
        main = (await ann.get("/operator")).main
        (noop,) = (row for row in main.one("section", id="families").every("tr") if row.text.startswith("noop"))
        cells = {cell.attributes.get("data-label"): cell.text for cell in noop.every("td")}
        assert (cells["Delayed"], cells["Queued"], cells["Running"]) == ("5", "3", "0")
        assert main.one("h1").text == "One thing needs you"
        assert "Somebody has paused the family noop" in main.one("section", id="needs").text
        rows = [row.text for row in main.one("section", id="teamspaces").every("tr")][1:]
        assert [row.split()[0] for row in rows] == ["globex", "acme"], "those with the most come first"


async def test_a_parked_provider_is_the_first_thing_and_can_be_resumed(place: Place) -> None:
    place.configure("[providers.snov]", 'preset = "snov"', 'secret = "not-a-real-id:not-a-real-secret"')
    async with place.daemon() as (running, client), signed_in(place, client, None) as ann:
        running.supervisor.dispatcher.scheduler.accounts[AccountName("snov")].park(JobReason.CREDITS, None)
        needs = (await ann.get("/operator")).main.one("section", id="needs")
        first = next(needs.every("li"))
        assert "snov is parked: its account has no credits left" in first.text
        page = await ann.get(first.one("a").attributes["href"])
        assert page.main.one("h1").text == "snov"
        (resume,) = [form for form in page.main.every("form") if form.attributes["action"] == "/operator/resume"]
        assert "snov" in resume.attributes["data-confirm"]
        done = await ann.send(resume)
        assert (done.status, done.address.partition("?")[0]) == (200, "/operator/providers/snov")
        assert done.main.one("div", id="head").one("span", class_="state").text == "trying"
        assert (await ann.get("/operator")).main.one("h1").text == "Nothing needs you"
    assert await acts(place, "resume") == [("ann@acme.example", "provider snov")]


async def test_jobs_that_stood_still_are_told_with_what_was_done(place: Place) -> None:
    async with place.daemon() as (running, client), signed_in(place, client, None) as ann:
        await client.call(Pause(scope="queue"))
        receipt = await client.submit(Noop(teamspace="acme"))
        reign = running.supervisor.reign
        assert reign is not None
        reign.warn(WarnStalled(receipt.job, reign.dispatcher.scheduler.names["acme"], 300, killed=True))
        (row,) = list((await ann.get("/operator")).main.one("section", id="stalls").one("tbody").every("tr"))
        assert "stopped, to go on" in row.text
        assert row.one("th").one("a").attributes["href"] == f"/jobs/{receipt.job}?teamspace=acme"


async def test_while_the_queue_is_lost_the_overview_says_what_is_wrong(place: Place) -> None:
    async with place.daemon() as (running, client), signed_in(place, client, None) as ann:
        await client.submit(Noop(teamspace="acme"))
        reign, running.supervisor.reign = running.supervisor.reign, None
        try:
            shown = await ann.get("/operator")
        finally:
            running.supervisor.reign = reign
        assert shown.status == 200
        assert shown.main.one("h1").text == "One thing needs you"


async def test_everything_is_paused_and_resumed_by_a_form_that_asks(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client, None) as ann:
        for scope, name in (("queue", ""), ("family", "tables")):
            for word, paused in (("pause", True), ("resume", False)):
                page = await ann.get("/operator")
                (form,) = [
                    form
                    for form in page.main.every("form")
                    if form.attributes["action"] == f"/operator/{word}"
                    and {(each.attributes["name"], each.attributes["value"]) for each in form.every("input")}
                    >= {("scope", scope), ("name", name)}
                ]
                assert form.attributes["data-confirm"].startswith("From ")
                assert (await ann.send(form)).status == 200
                now = (await client.call(Status())).paused
                assert (f"{scope} {name}".strip() in now) is paused
    told = await acts(place, "pause")
    assert told == [("ann@acme.example", "queue"), ("ann@acme.example", "family tables")]


async def test_a_limit_of_a_teamspace_is_changed_only_after_it_was_told_from_what_to_what(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client, None) as ann:
        await client.submit(Noop(teamspace="acme"))
        page = await ann.get("/operator/teamspaces/acme")
        (row,) = (row for row in page.main.every("tr") if "slots.tables" in row.text)
        form = (await ann.get(row.one("a").attributes["href"])).main.one("form", class_="fields")
        asked = await ann.send(form, value="4")
        assert "acme: from 1 jobs to 4 jobs" in asked.main.text
        assert await in_force(client, "slots.tables", teamspace="acme") == (1, "built-in"), "not yet"
        done = await ann.send(asked.main.one("form"))
        assert "The limit is set" in done.main.one("p", class_="said").text
        assert await in_force(client, "slots.tables", teamspace="acme") == (4, "override")
        again = await ann.get("/operator/limit?teamspace=acme&key=slots.tables")
        (back,) = [form for form in again.main.every("form") if "fields" not in form.attributes.get("class", "")]
        asked = await ann.send(back)
        assert "from 4 jobs to 1 jobs" in asked.main.text
        await ann.send(asked.main.one("form"))
        assert await in_force(client, "slots.tables", teamspace="acme") == (1, "built-in")
    assert await acts(place, "plans") == [("ann@acme.example", "teamspace acme")] * 2


async def test_limits_of_every_kind_of_value_can_be_set(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client, None) as ann:
        for key, typed, value in (
            ("weight", "2.5", 2.5),
            ("weight", "07", 7),
            ("zone", "Europe/Berlin", "Europe/Berlin"),
            ("batch.enabled", "yes", True),
            ("batch.reaches", "10.1.0.0/16, 10.2.0.0/16", ["10.1.0.0/16", "10.2.0.0/16"]),
            ("retention_days", "30", 30),
        ):
            await change(ann, f"/operator/limit?teamspace=acme&key={key}", value=typed)
            assert await in_force(client, key, teamspace="acme") == (value, "override")


async def test_a_value_that_is_none_comes_back_with_why(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client, None) as ann:
        form = (await ann.get("/operator/limit?teamspace=acme&key=slots.tables")).main.one("form", class_="fields")
        for nonsense in ("none at all", "٣", "9" * 5000):
            asked = await ann.send(form, value=nonsense)
            refused = await ann.send(asked.main.one("form"))
            assert refused.status == 400, nonsense
            assert "must be a whole number" in refused.main.one("p", role="alert").text
            (typed,) = (each for each in refused.main.every("input") if each.attributes["name"] == "value")
            assert typed.attributes["value"] == nonsense
            assert typed.attributes["aria-invalid"] == "true"


async def test_who_confirms_beside_another_is_shown_what_holds_now(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client, None) as ann:
        form = (await ann.get("/operator/limit?teamspace=acme&key=slots.tables")).main.one("form", class_="fields")
        asked = await ann.send(form, value="4")
        await client.call(Plans(teamspace="acme", key="slots.tables", value=9))
        shown = await ann.send(asked.main.one("form"))
        assert "Somebody has changed it meanwhile: it is 9 jobs now" in shown.main.one("p", role="alert").text
        assert await in_force(client, "slots.tables", teamspace="acme") == (9, "override")
        await ann.send(shown.main.one("form"))
        assert await in_force(client, "slots.tables", teamspace="acme") == (4, "override")


async def test_a_limit_of_a_provider_binds_from_the_next_call_on(place: Place) -> None:
    place.configure("[providers.snov]", 'preset = "snov"', 'secret = "not-a-real-id:not-a-real-secret"')
    async with place.daemon() as (_, client), signed_in(place, client, None) as ann:
        page = await ann.get("/operator/providers/snov")
        words = [each.text for each in page.main.one("dl", class_="meanings").every("dt")]
        assert words == ["open", "throttled", "trying", "parked", "paused"], "each state is explained"
        await change(ann, "/operator/limit?provider=snov&key=lead/60s", value="30")
        assert await in_force(client, "lead/60s", provider="snov") == (30, "override")
        meters = (await ann.get("/operator/providers/snov")).main.every("div", role="meter")
        assert "30" in {meter.attributes["aria-valuemax"] for meter in meters}


@pytest.mark.parametrize(
    ("pace", "words"),
    [("0.01", "one every 1 min 40 s"), ("0.4", "one every 2.5 s"), ("1", "one every 1 s"), ("20", "20 a second")],
)
async def test_an_even_pace_is_told_beside_the_limits(place: Place, pace: str, words: str) -> None:
    place.configure("[providers.snov]", 'preset = "snov"', 'secret = "a:b"', f"pace_per_second = {pace}")
    async with place.daemon() as (_, client), signed_in(place, client, None) as ann:
        for address in ("/operator/providers", "/operator/providers/snov"):
            assert f"Its calls are spread evenly: {words}." in (await ann.get(address)).main.text


async def test_our_own_database_is_an_account_whose_limit_the_configuration_sets(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client, None) as ann:
        page = await ann.get("/operator/providers/database")
        assert page.status == 200
        assert "database.records_per_hour" in page.main.text
        assert (await ann.get("/operator/providers/nobody")).status == 404


async def test_teamspaces_are_found_by_the_beginning_of_their_names_and_paged(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client, None) as ann:
        await client.submit_many([Noop(teamspace=f"team-{number:02}") for number in range(60)])
        await client.submit(Noop(teamspace="other"))
        first = await ann.get("/operator/teamspaces?prefix=team-")
        names = [row.one("a").text for row in first.main.one("tbody").every("th")]
        assert names == [f"team-{number:02}" for number in range(50)]
        more = await ann.get(first.main.one("a", class_="button").attributes["href"])
        assert [row.one("a").text for row in more.main.one("tbody").every("th")][-1] == "team-59"
        assert "No teamspace begins with" in (await ann.get("/operator/teamspaces?prefix=zzz")).main.text


async def test_what_schedules_of_all_teamspaces_fire_within_a_day_is_told_soonest_first(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client, None) as ann:
        for teamspace, name, at in (("acme", "early", "00:00"), ("globex", "noon", "12:00"), ("acme", "late", "23:59")):
            asked = Schedules(action="add", teamspace=teamspace, name=name, timetable=Daily(at, "UTC"), **NOTHING)
            await client.call(asked)
        await client.call(Schedules(action="pause", teamspace="acme", name="late"))
        due = (await ann.get("/operator/due")).main.one("tbody")
        shown = [(row.one("time").attributes["datetime"], row.text) for row in due.every("tr")]
        assert sorted(shown) == shown
        assert len(shown) == 2, "one is paused, and each other fires once a day"
        assert any("noon" in text and "globex" in text and "12:00" in text for _, text in shown)
        assert "noon" in (await ann.get("/operator")).main.one("section", id="due").text


async def test_mailboxes_of_all_teamspaces_are_shown_and_paused_ones_need_somebody(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client, None) as ann:
        for teamspace in ("acme", "globex"):
            box = {"type": "associate", "name": "anna", "address": f"anna@{teamspace}.example", "daily_cap": 20}
            await client.call(FollowUps(action="import", teamspace=teamspace, rows=[box]))
        await client.call(FollowUps(action="pause", teamspace="globex", associate="anna"))
        main = (await ann.get("/operator")).main
        cards = [card.text for card in main.one("section", id="mailboxes").every("article")]
        assert "globex" in cards[0], "paused ones come first"
        assert all("0 of 20 mails" in card for card in cards)
        assert "The mailbox of anna in globex is paused" in main.one("section", id="needs").text
        assert len(list((await ann.get("/operator/mailboxes")).main.every("article"))) == 2


async def test_of_a_webhook_that_was_not_reached_only_its_host_is_told(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client, None, "member") as eve:
        hook = TellOf(webhook=f"https://127.0.0.1:9/T1/{CANARY}", on=["completed"])
        await client.wait((await client.submit(Noop(teamspace="acme", notices=hook))).job)
        page = await eve.get("/operator/notices")
        (row,) = page.main.one("tbody").every("tr")
        assert "https://127.0.0.1/" in row.text
        assert CANARY not in page.html


async def test_a_page_of_notices_says_where_there_are_more(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator, "PAGE", 2)
    async with place.daemon() as (_, client), signed_in(place, client, None, "member") as eve:
        for number in range(3):
            hook = TellOf(webhook=f"https://127.0.0.1:9/{number}", on=["completed"])
            await client.wait((await client.submit(Noop(teamspace="acme", notices=hook))).job)
            page = (await eve.get("/operator/notices")).main
            assert ("There are more" in page.text) == (number == 2)
        assert len(list(page.one("tbody").every("tr"))) == 2


async def test_a_customer_finds_nothing_there(place: Place) -> None:
    place.configure("[providers.snov]", 'preset = "snov"', 'secret = "not-a-real-id:not-a-real-secret"')
    async with place.daemon() as (_, client), signed_in(place, client, "acme", "super_admin") as bob:
        await client.submit_many([Noop(teamspace=CANARY), Noop(teamspace="acme")])
        fields = {"csrf": await _csrf(bob), "scope": "queue", "value": "9", "was": "1", "confirmed": "yes"}
        for page in OF_OPERATOR:
            for teamspace in ("acme", CANARY):
                path = page.path.format(teamspace=teamspace, provider="snov") + f"?teamspace={teamspace}&key=weight"
                shown = await (bob.get(path) if page.method == "GET" else bob.post(path, fields))
                assert shown.status == 404, (page, shown.status)
                assert "snov" not in shown.main.text
                assert CANARY not in shown.main.text
        assert (await client.call(Status())).paused == []
        assert await in_force(client, "weight", teamspace="acme") == (1.0, "built-in")


async def _csrf(somebody: Person) -> str:
    """The token of a form of a customer's own page."""
    form = (await somebody.get("/outreach/suppressions")).main.one("form", class_="fields")
    return fields_of(form)["csrf"]


async def test_who_only_looks_on_changes_nothing_and_is_not_tempted(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client, None, "member") as eve:
        main = (await eve.get("/operator")).main
        assert list(main.every("form")) == []
        assert list((await eve.get("/operator/teamspaces/acme")).main.every("form")) == []
        assert (await eve.get("/operator/limit?teamspace=acme&key=weight")).status == 403


async def test_who_only_looks_on_changes_nothing_in_a_teamspace_either(place: Place) -> None:
    names = dict.fromkeys(("job", "table", "name", "follow_up", "mail", "associate"), "1")
    async with place.daemon() as (_, client), signed_in(place, client, None, "member") as eve:
        csrf = fields_of(next((await eve.get("/outreach/suppressions?teamspace=acme")).main.every("form")))["csrf"]
        for page in PAGES:
            if page.method == "POST":
                shown = await eve.post(f"{page.path.format(**names)}?teamspace=acme", {"csrf": csrf})
                assert (shown.status, "You may look" in shown.main.text) == (403, True), page


@pytest.mark.parametrize("page", [page for page in OF_OPERATOR if page.method == "POST"], ids=lambda page: page.path)
async def test_a_form_without_its_token_or_of_another_site_is_refused(place: Place, page: Page) -> None:
    async with place.daemon() as (_, client), signed_in(place, client, None) as ann:
        fields = {"scope": "queue", "name": "", "value": "9", "was": "1", "confirmed": "yes"}
        address = f"{page.path}?teamspace=acme&key=weight"
        assert (await ann.post(address, fields)).status == 403
        token = fields_of(next((await ann.get("/operator")).main.every("form")))["csrf"]
        foreign = {"Origin": "http://evil.example"}
        assert (await ann.post(address, {**fields, "csrf": token}, headers=foreign)).status == 403
        assert (await client.call(Status())).paused == []
        assert await in_force(client, "weight", teamspace="acme") == (1.0, "built-in")
