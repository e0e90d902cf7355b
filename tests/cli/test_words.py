"""Times, spans and amounts, as a person would say them."""

from datetime import UTC, datetime, timedelta

import pytest

from leadline.cli.terminal import cut, width
from leadline.cli.words import clock, expected, number, outcome, pace, percent, progress, shown, size, span, time_left
from leadline_protocol.messages import Eta
from tests.cli.fake_daemon import counts


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (0.0042, "4 ms"),
        (0.9996, "1 s"),
        (1.54, "1.5 s"),
        (9.96, "10 s"),
        (12.4, "12 s"),
        (59.7, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (277_200, "3 d 5 h"),
        (-5, "0 s"),
    ],
)
def test_a_span_is_said_in_its_two_largest_units(seconds: float, said: str) -> None:
    assert span(seconds) == said


@pytest.mark.parametrize(
    ("per_second", "said"),
    [
        (20, "20 calls a second, evenly"),
        (1, "a call every 1 s"),
        (0.3, "a call every 3.33 s"),
        (1 / 3600, "a call every hour"),
    ],
)
def test_a_pace_is_said_by_its_step_unless_that_is_short(per_second: float, said: str) -> None:
    assert pace(per_second) == said


def test_a_time_is_said_as_far_as_it_differs_from_now() -> None:
    now = datetime(2026, 11, 21, 14, 2, 11, tzinfo=UTC)
    assert clock(now - timedelta(hours=1), now) == "13:02:11"
    assert clock(now - timedelta(days=1), now) == "20 Nov 14:02"
    assert clock(now - timedelta(days=365), now) == "2025-11-21 14:02"


def test_what_is_expected_is_a_range_unless_both_its_ends_are_the_same() -> None:
    now = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)

    def between(soonest: float, latest: float) -> Eta:
        return Eta(earliest=now + timedelta(seconds=soonest), latest=now + timedelta(seconds=latest))

    assert time_left(between(240, 310), now) == "4 min to 5 min 10 s left"
    assert time_left(between(-3, 12), now) == "0 s to 12 s left"
    assert time_left(between(12, 12), now) == "12 s left"
    assert time_left(between(-12, -3), now) == "", "it has taken longer"
    assert time_left(None, now) == ""
    assert expected(between(240, 310), now) == "between 12:04:00 and 12:05:10: in 4 min to 5 min 10 s"
    assert expected(between(12, 12), now) == "at 12:00:12, in 12 s"
    assert expected(between(-3, -3), now) == "now"


def test_100_percent_means_all() -> None:
    assert percent(4999, 5000) == "99 %"
    assert percent(5000, 5000) == "100 %"


def test_amounts_are_readable() -> None:
    assert [number(amount) for amount in (5, 1940, 12.54, 0.0123)] == ["5", "1,940", "12.5", "0.012"]
    assert [size(amount) for amount in (0, 999, 42_000_000, 3e15)] == ["0 bytes", "999 bytes", "42 MB", "3e+03 TB"]


def test_counts_are_said_without_what_is_nought() -> None:
    assert outcome(counts(10, 10)) == "all 10 done"
    assert (
        outcome(counts(10, 4, failed=1, skipped=2, unknown=1))
        == "4 of 10 done, 1 failed, 2 skipped, 1 unknown, 2 pending"
    )
    assert outcome(counts()) == "0 leads"
    assert progress(counts(5000, 1940)) == "1,940 of 5,000 38 %"


def test_what_would_act_on_a_terminal_is_shown_instead() -> None:
    assert shown("a\x1b[2J\nb\x85\u202ec\ud800") == "a\\x1b[2J\\nb\\x85\\u202ec\\ud800"
    assert shown("Ünïcode 見込み客 שלום") == "Ünïcode 見込み客 שלום"


def test_columns_are_reckoned_as_a_terminal_does() -> None:
    assert width("見込み客") == 8
    assert width("e\u0301") == 1
    assert width("\x1b[31mfailed\x1b[0m") == 6
    assert cut("見込み客", 5) == "見込…"
    assert cut("abc", 3) == "abc"
