"""What pages say, in words: lengths, numbers, and when a mailbox writes."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from leadline.adapters.http.pages.outreach import writing_hours
from leadline.adapters.http.pages.rendering import Assets, Templates, expected, number, sentence, span
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.messages import AssociateView, Eta


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "under 1 s"),
        (0.4, "under 1 s"),
        (1, "1 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (3601, "1 h"),
        (7260, "2 h 1 min"),
        (86_400 * 3 + 3_600 * 5 + 59, "3 d 5 h"),
    ],
)
def test_a_length_of_time_has_its_two_largest_units(seconds: float, words: str) -> None:
    assert span(seconds) == words


@pytest.mark.parametrize(
    ("value", "words"), [(0, "0"), (1234567, "1,234,567"), (2.0, "2"), (2.5, "2.5"), (0.333, "0.33")]
)
def test_numbers_are_short_and_have_their_thousands_apart(value: float, words: str) -> None:
    assert number(value) == words


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("there is no table ACME", "There is no table ACME."),
        ("is it there?", "Is it there?"),
        (" the disk is full; ", "The disk is full."),
        ("", ""),
    ],
)
def test_a_message_stands_on_a_page_as_a_sentence(message: str, words: str) -> None:
    assert sentence(message) == words


def test_who_is_shown_no_page_reads_names_as_they_are() -> None:
    refused = Refused(ErrorCode.BAD_REQUEST, "ask ACME's Ann for a new one")
    shown = Templates(Assets()).page("outside.html", {"refused": refused}).text
    assert shown is not None
    assert "Ask ACME&#39;s Ann for a new one." in shown


def test_what_is_expected_is_one_time_or_two_that_are_apart() -> None:
    at = datetime(2026, 11, 30, 14, 5, tzinfo=UTC)
    near, far = (expected(Eta(earliest=at, latest=at + timedelta(seconds=seconds))) for seconds in (90, 91))
    assert near.striptags() == "at about 30 Nov, 14:06 UTC"
    assert far.striptags() == "between 30 Nov, 14:05 UTC and 30 Nov, 14:06 UTC"


EVERY_DAY = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


@pytest.mark.parametrize(
    ("hours", "gap", "words"),
    [
        ({}, 60, "Writes on working days from 09:00 to 17:00 in Europe/Berlin, at least 1 min apart."),
        ({"days": EVERY_DAY, "begin": "00:00", "end": "00:00"}, 0, "Writes at any hour in Europe/Berlin."),
        ({"days": EVERY_DAY, "end": "00:00"}, 0, "Writes every day from 09:00 to midnight in Europe/Berlin."),
        ({"days": ["sat"], "begin": "00:00", "end": "00:00"}, 0, "Writes on Saturdays in Europe/Berlin."),
        (
            {"days": ["tue", "mon", "sun"], "whose": "lead"},
            0,
            "Writes on Mondays, Tuesdays and Sundays from 09:00 to 17:00 where the contact is.",
        ),
    ],
)
def test_when_a_mailbox_writes_is_a_sentence(hours: dict[str, Any], gap: int, words: str) -> None:
    fields = {"teamspace": "acme", "name": "a", "address": "a@x.example", "zone": "Europe/Berlin"}
    counts = {"daily_cap": 50, "gap_seconds": gap, "sent_today": 0, "cap_today": 50, "waiting": 0}
    view = msgspec.convert({**fields, **counts, "hours": hours}, AssociateView)
    assert writing_hours(view) == words
