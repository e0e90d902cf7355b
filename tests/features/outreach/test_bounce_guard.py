"""A mailbox is paused when too many of its last mails come back or are reported, and chance alone does not do it."""

import pytest

from leadline.features.outreach.bounce_guard import Fate, TooMany, judge

SENT, BOUNCED, COMPLAINED = Fate


@pytest.mark.parametrize(
    ("sent", "bounced", "complained", "paused"),
    [
        (0, 0, 0, False),
        (0, 4, 0, False),  # 100 % of four may be chance
        (0, 5, 0, True),
        (4, 4, 0, False),
        (15, 4, 1, True),
        (96, 4, 0, False),
        (95, 5, 0, False),  # exactly 5 %
        (94, 6, 0, True),
        (94, 5, 0, True),  # 5 of 99
        (94, 5, 1, False),
        (99, 0, 1, False),
        (98, 0, 2, True),
        (0, 0, 2, True),
    ],
)
def test_five_bad_ones_that_are_more_than_five_percent_or_two_complaints(
    sent: int, bounced: int, complained: int, paused: bool
) -> None:
    verdict = judge([SENT] * sent + [BOUNCED] * bounced + [COMPLAINED] * complained)
    assert verdict == (TooMany(bounced, complained, sent + bounced + complained) if paused else None)


def test_only_the_last_hundred_mails_are_judged() -> None:
    assert judge([COMPLAINED] * 2 + [SENT] * 99) is None
    assert judge([COMPLAINED] * 2 + [SENT] * 98) == TooMany(0, 2, 100)
