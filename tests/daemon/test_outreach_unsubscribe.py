"""One click in a mail program, from the mail as it arrived to the follow-up that is stopped."""

import email.policy
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.parser import BytesParser
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.daemon.days import Days
from tests.daemon.running import Place
from tests.ports import held_port

MONDAY = datetime(2026, 6, 1, 10, tzinfo=UTC)
ONE_CLICK = "List-Unsubscribe=One-Click"
"""The body that mail programs post (RFC 8058)."""
STEPS = [{"subject": "Hi", "text": "Hello"}, {"after_days": 1, "text": "Hello again"}]
LONG = "https://mail.acme.example/" + "leave-and-never-come-back/" * 12


@asynccontextmanager
async def one_mail_later(place: Place, base: str) -> AsyncIterator[tuple[Days, str]]:
    """A contact that has its first mail of two, and the link to leave by, on this machine."""
    with held_port() as port:
        listen = f"127.0.0.1:{port}"
        days = Days(place, MONDAY, (), f'unsubscribe_url = "{base}"', f'unsubscribe_listen = "{listen}"')
        async with days.daemon():
            await days.take_in(
                {"type": "associate", "name": "anna", "address": "anna@acme.example"},
                {"type": "script", "name": "s", "keyword": "Follow Up", "steps": STEPS},
                {"type": "follow_up", "associate": "anna", "address": "c@x.example", "script": "s"},
            )
            await days.queue()
            yield days, f"http://{listen}{link_of(days).removeprefix(base.rstrip('/'))}"


def link_of(days: Days) -> str:
    """What a mail program finds in the mail that arrived."""
    mail = BytesParser(EmailMessage, policy=email.policy.default).parsebytes(days.served.messages[-1].content)
    assert mail["List-Unsubscribe-Post"] == ONE_CLICK
    found = re.fullmatch("<(https://[^>]+)>", mail["List-Unsubscribe"])
    assert found is not None, mail["List-Unsubscribe"]
    return found[1]


async def asked(method: str, link: str) -> int:
    """The status with which a request is answered."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, link, data=ONE_CLICK, headers=form) as response,
    ):
        return response.status


@pytest.mark.parametrize("base", ["https://mail.acme.example/leave", LONG], ids=["short", "longer than a line"])
async def test_the_link_that_arrived_stops_the_follow_up_when_it_is_posted_to(place: Place, base: str) -> None:
    async with one_mail_later(place, base) as (days, link):
        assert await asked("POST", link) == 200
        seen = await days.follow_up("c@x.example")
        assert (seen.status, seen.reason) == ("stopped", "unsubscribed")
        assert await asked("POST", link) == 200, "whoever clicks again is told the same"
        await days.until(MONDAY + timedelta(days=2))
        assert await days.queue() == 0
        await days.until(MONDAY + timedelta(days=4))
        assert len(days.mails) == 1


async def test_looking_at_the_link_changes_nothing_and_what_is_no_link_of_ours_is_not_found(place: Place) -> None:
    async with one_mail_later(place, "https://mail.acme.example/leave") as (days, link):
        token = urlsplit(link).path.rpartition("/")[2]
        other = link.removesuffix(token) + ("A" if token[0] != "A" else "B") + token[1:]
        assert await asked("GET", link) == 200
        assert await asked("POST", other) == 404
        assert await asked("POST", link.removesuffix(token) + "made-up") == 404
        assert (await days.follow_up("c@x.example")).status == "pending"
        await days.until(MONDAY + timedelta(days=2))
        assert await days.queue() == 1
        assert len(days.mails) == 2
