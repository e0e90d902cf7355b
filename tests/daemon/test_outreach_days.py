"""What a mailbox sends on which day, and when: the whole daemon on a clock that the test sets."""

from collections import Counter
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.daemon.days import Days
from tests.daemon.running import Place

BERLIN = ZoneInfo("Europe/Berlin")
NEW_YORK = ZoneInfo("America/New_York")

SCRIPT = {"type": "script", "name": "s", "keyword": "Follow Up", "steps": [{"subject": "Hi", "text": "Hello"}]}


def associate(**more: Any) -> dict[str, Any]:
    row = {"type": "associate", "name": "anna", "address": "anna@acme.example", "zone": "Europe/Berlin"}
    return {**row, "daily_cap": 20, "hours": {"whose": "lead"}, **more}


def contacts(count: int) -> list[dict[str, Any]]:
    return [
        {"type": "follow_up", "associate": "anna", "address": address(n), "script": "s", "zone": "America/New_York"}
        for n in range(count)
    ]


def address(number: int) -> str:
    return f"c{number:02}@contacts.example"


@pytest.mark.parametrize("restarts", [False, True], ids=["in one life", "with a restart each day at noon"])
async def test_a_new_mailbox_sends_ten_mails_on_its_first_day_and_two_more_on_each_further_day(
    place: Place, restarts: bool
) -> None:
    monday = datetime(2026, 6, 1, 8, tzinfo=NEW_YORK)
    days = Days(place, monday)
    async with days.daemon():
        await days.take_in(associate(ramp={"first": 10, "more": 2}), SCRIPT, *contacts(34))
        assert await days.queue(25) == 25
        await days.until(monday + timedelta(hours=1, minutes=5))
        assert await days.queue(25) == 9
        if not restarts:
            await days.until(monday + timedelta(days=7))
    for day in range(7 * restarts):
        async with days.daemon():
            await days.until(monday.replace(hour=12) + timedelta(days=day))
    sent = Counter(at.date().isoformat() for at, _ in days.mails)
    assert sent == {"2026-06-01": 10, "2026-06-02": 12, "2026-06-03": 12}
    assert [to for _, to in days.mails] == [address(n) for n in range(34)]
    assert all(9 <= at.hour < 17 for at, _ in days.mails)


@pytest.mark.parametrize("restarts", [False, True], ids=["in one life", "with a restart at the weekend"])
async def test_what_the_end_of_friday_leaves_goes_on_monday_from_nine_one_a_minute_and_in_order(
    place: Place, restarts: bool
) -> None:
    friday = datetime(2026, 6, 5, 16, 58, tzinfo=NEW_YORK)
    days = Days(place, friday)
    async with days.daemon():
        await days.take_in(associate(), SCRIPT, *contacts(10))
        assert await days.queue() == 10
        await days.until(friday + timedelta(days=1 if restarts else 4))
    if restarts:
        async with days.daemon():
            await days.until(friday + timedelta(days=4))
    monday = datetime(2026, 6, 8, 9, tzinfo=NEW_YORK)
    times = [friday, friday.replace(minute=59), *(monday + timedelta(minutes=n) for n in range(8))]
    assert days.mails == [(at, address(n)) for n, at in enumerate(times)]
