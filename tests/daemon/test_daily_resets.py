"""A provider's day begins again at a time on the wall of its zone, also in the nights in which clocks are changed."""

from datetime import datetime

import pytest

from leadline.accounts import next_reset
from leadline.core.model import SECOND
from leadline.core.rate_limit import DailyLimit
from leadline_protocol.ids import Instant


def instant(text: str) -> Instant:
    return Instant(round(datetime.fromisoformat(text).timestamp()) * SECOND)


@pytest.mark.parametrize(
    ("after", "reset"),
    [
        ("2026-11-27T02:29+01:00", "2026-11-27T02:30+01:00"),
        ("2026-11-27T02:30+01:00", "2026-11-28T02:30+01:00"),
        ("2027-03-27T12:00+01:00", "2027-03-28T03:00+02:00"),
        ("2027-03-28T03:00+02:00", "2027-03-29T02:30+02:00"),
        ("2026-10-24T12:00+02:00", "2026-10-25T02:30+02:00"),
        ("2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"),
    ],
)
def test_the_next_reset_is_the_next_time_that_the_wall_shows_it(after: str, reset: str) -> None:
    limit = DailyLimit(100, resets_at="02:30", zone="Europe/Berlin")
    assert next_reset(limit, instant(after)) == instant(reset)
