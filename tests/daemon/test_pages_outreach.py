"""The pages of outreach: what somebody sees there, and what their buttons do."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from leadline.adapters.http.pages import outreach as pages
from leadline_protocol.client import Client
from leadline_protocol.messages import FollowUps, FollowUpView
from tests.daemon.outreach import outreach
from tests.daemon.pages import Element, Person, signed_in
from tests.daemon.running import WITHIN_SECONDS, Place
from tests.world.mail import Mailbox, MailFault, MailPlan, MailServed, serving_mail

EVER = {"days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "begin": "00:00", "end": "00:00"}
ANNA = {"type": "associate", "name": "anna", "address": "anna@acme.example", "hours": EVER, "gap_seconds": 0}
STEPS = [{"subject": "Hi {{ first_name }}", "text": "Hello"}, {"after_days": 3, "text": "again"}]
SCRIPT = {"type": "script", "name": "s", "keyword": "Follow Up", "steps": STEPS}


def contact(address: str, **fields: str) -> dict[str, Any]:
    row = {"type": "follow_up", "associate": "anna", "address": address, "script": "s"}
    return {**row, "fields": {"first_name": "Bob", **fields}}


@asynccontextmanager
async def acme(place: Place, *faults: MailFault) -> AsyncIterator[tuple[Client, Person, MailServed]]:
    """A daemon with one associate, its mail server, and somebody of acme who looks at its pages."""
    async with serving_mail(Mailbox(faults)) as served:
        place.configure(*outreach(served=served))
        async with place.daemon() as (_, client), signed_in(place, client) as ann:
            yield client, ann, served


async def take_in(client: Client, *rows: dict[str, Any], teamspace: str = "acme") -> None:
    reply = await client.call(FollowUps(action="import", teamspace=teamspace, rows=[ANNA, SCRIPT, *rows]))
    assert reply.imported is not None
    assert not reply.imported.faults


async def follow_up(client: Client, address: str) -> FollowUpView:
    (found,) = (await client.call(FollowUps(teamspace="acme", address=address))).follow_ups
    return found


async def until(client: Client, address: str, status: str) -> FollowUpView:
    async with asyncio.timeout(WITHIN_SECONDS):
        while (found := await follow_up(client, address)).status != status:
            await asyncio.sleep(0.02)
    return found


def form_of(page: Element, label: str) -> Element:
    """The form of the button that says so."""
    (form,) = [form for form in page.every("form") if [b for b in form.every("button") if b.text == label]]
    return form


async def test_a_teamspace_without_outreach_is_told_how_it_begins(place: Place) -> None:
    async with acme(place) as (_, ann, _served):
        page = (await ann.get("/outreach")).main
        empty = [each.text for each in page.every("p", class_="empty")]
        assert "No mailboxes yet" in empty[0]
        assert empty[1] == "Nobody is written to yet."


async def test_what_is_due_is_shown_queued_and_sent(place: Place) -> None:
    async with acme(place) as (client, ann, served):
        await take_in(client, contact("a@x.example"), contact("b@x.example"))
        due = (await ann.get("/outreach/preview")).main
        rows = [row.text for row in due.one("tbody").every("tr")]
        assert rows == ["a@x.example s 1 at once", "b@x.example s 1 after 1 min"]
        after = await ann.send(form_of(due, "Queue it now"))
        assert after.main.one("p", class_="said").text == "What was due is queued."
        sent = await until(client, "a@x.example", "pending")
        assert (sent.step, served.messages[0].recipients) == (2, ("a@x.example",))
        shown = (await ann.get(f"/outreach/follow_ups/{sent.follow_up}")).main
        (mail,) = shown.one("section", id="mails").one("tbody").every("tr")
        assert mail.one("span", class_="state").text == "sent"
        assert "again" in shown.one("pre").text, "the next mail is shown as it would be written"


async def test_a_person_says_what_became_of_a_mail_that_nobody_knows_of(place: Place) -> None:
    async with acme(place, MailFault("dot", MailPlan(stop="cut"))) as (client, ann, served):
        await take_in(client, contact("a@x.example"))
        await client.call(FollowUps(action="queue", teamspace="acme"))
        await until(client, "a@x.example", "unknown")
        page = (await ann.get("/outreach")).main
        (card,) = page.one("section", id="unknown").every("article")
        assert card.one("h3").text == "a@x.example"
        after = await ann.send(form_of(card, "It was sent"))
        assert after.main.one("p", class_="said").text.startswith("Thank you")
        settled = await until(client, "a@x.example", "pending")
        assert settled.step == 2
        assert list(after.main.every("section", id="unknown")) == []
        assert len(served.messages) <= 1


async def test_a_mailbox_is_paused_and_goes_on(place: Place) -> None:
    async with acme(place) as (client, ann, _served):
        await take_in(client)
        page = (await ann.get("/outreach")).main
        page = (await ann.send(form_of(page, "Pause"))).main
        assert page.one("section", id="mailboxes").one("span", class_="state").text == "paused"
        page = (await ann.send(form_of(page, "Go on"))).main
        assert page.one("section", id="mailboxes").one("span", class_="state").text == "active"


async def test_a_follow_up_is_stopped(place: Place) -> None:
    async with acme(place) as (client, ann, _served):
        await take_in(client, contact("a@x.example"))
        number = (await follow_up(client, "a@x.example")).follow_up
        page = (await ann.get(f"/outreach/follow_ups/{number}")).main
        page = (await ann.send(form_of(page, "Stop"))).main
        assert page.one("div", class_="heading").one("span", class_="state").text == "stopped"
        assert (await follow_up(client, "a@x.example")).status == "stopped"


async def test_addresses_and_domains_are_suppressed_and_allowed_again(place: Place) -> None:
    async with acme(place) as (client, ann, _served):
        await take_in(client, contact("a@x.example"))
        form = (await ann.get("/outreach/suppressions")).main.one("form", class_="fields")
        for value in ("b@x.example", "rival.example"):
            page = (await ann.send(form, value=value, detail="they know us")).main
        values = [next(row.every("td")).text for row in page.one("tbody").every("tr")]
        assert sorted(values) == ["b@x.example", "rival.example"]
        for value in ("", "no address", "a@", "\0", "x" * 1000 + ".example"):
            refused = await ann.send(form, value=value)
            assert refused.status == 400, value
            again = refused.main.one("form", class_="fields")
            assert again.one("input", name="value").attributes["value"] == value, "what was typed is kept"
        assert "neither an address nor a domain" in refused.main.one("p", role="alert").text
        refused = await ann.send(form, value="c@x.example", detail="x" * 5000)
        assert refused.status == 400
        assert "neither an address" not in refused.main.text, "it is the remark that is too long"
        page = (await ann.send(form_of_row(page, "rival.example"))).main
        assert [next(row.every("td")).text for row in page.one("tbody").every("tr")] == ["b@x.example"]


def form_of_row(page: Element, value: str) -> Element:
    (row,) = [row for row in page.one("tbody").every("tr") if value in row.text]
    return row.one("form")


async def test_follow_ups_are_found_by_status_and_address_and_come_in_pages(place: Place) -> None:
    async with acme(place) as (client, ann, _served):
        await take_in(client, *(contact(f"c{number}@x.example") for number in range(60)))
        page = (await ann.get("/outreach")).main
        first = [next(row.every("td")).text for row in page.one("tbody").every("tr")]
        (more,) = [link for link in page.every("a") if link.text == "More"]
        second = (await ann.get(more.attributes["href"])).main
        rest = [next(row.every("td")).text for row in second.one("tbody").every("tr")]
        assert (len(first), len(rest), len({*first, *rest})) == (50, 10, 60)
        found = (await ann.get("/outreach?address=c7%40x.example")).main
        assert [next(row.every("td")).text for row in found.one("tbody").every("tr")] == ["c7@x.example"]
        assert "None like that" in (await ann.get("/outreach?status=failed")).main.text
        for query in ("status=lost", "address=%00", "after=x", "after=99999999999999999999"):
            assert (await ann.get(f"/outreach?{query}")).status == 400, query


async def test_mailboxes_come_in_pages(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MAILBOXES", 2)
    async with acme(place) as (client, ann, _served):
        await take_in(client, *({**ANNA, "name": f"m{number}"} for number in range(4)))
        seen: list[str] = []
        path = "/outreach"
        while path:
            page = (await ann.get(path)).main
            seen += [each.text for each in page.one("section", id="mailboxes").every("h3")]
            path = next((link.attributes["href"] for link in page.every("a") if link.text == "More mailboxes"), "")
        assert sorted(seen) == ["anna", "m0", "m1", "m2", "m3"]


async def test_another_teamspace_sees_and_changes_nothing_of_it(place: Place) -> None:
    async with acme(place) as (client, _ann, _served), signed_in(place, client, "globex") as eve:
        await take_in(client, contact("canary-4711@x.example"))
        number = (await follow_up(client, "canary-4711@x.example")).follow_up
        for path in ("/outreach", "/outreach?teamspace=acme", "/outreach/preview", "/outreach/suppressions"):
            assert "canary" not in (await eve.get(path)).html, path
        assert (await eve.get(f"/outreach/follow_ups/{number}")).status == 404
        csrf = fields(await eve.get("/outreach/suppressions"))
        assert (await eve.post(f"/outreach/follow_ups/{number}/stop", csrf)).status == 404
        assert (await eve.post("/outreach/associates/anna/pause", csrf)).status == 404
        assert (await follow_up(client, "canary-4711@x.example")).status == "pending"


def fields(shown: Any) -> dict[str, str]:
    return {"csrf": next(shown.main.every("input", name="csrf")).attributes["value"]}


async def test_a_form_without_the_pages_own_token_does_nothing(place: Place) -> None:
    async with acme(place) as (client, ann, _served):
        await take_in(client)
        for token in ({}, {"csrf": ""}, {"csrf": "0" * 64}, {"csrf": "ü"}):
            refused = await ann.post("/outreach/associates/anna/pause", token)
            assert refused.status == 403
        (anna,) = (await client.call(FollowUps(action="associates", teamspace="acme"))).associates
        assert anna.paused is None
