"""What is due is queued oldest first, a minute apart and up to a limit; what cannot be sent takes nobody's place."""

import json
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadline.features.outreach.chance import Draw, drawn
from leadline.features.outreach.model import FollowUp, Status
from leadline.features.outreach.queueing import KEYWORDS, Queueing, Skip, queue, variance_seconds
from leadline_protocol.ids import Instant
from tests.features.outreach.people import NOW, follow_up

SCRIPTS = {"drip": "Long Term", "nudge": "Follow Up", "sale": "Sale", "loud": "LONG TERM", "wide": "Long Term "}
UNUSABLE = (3, 8, 13, 18, 23, 28)
FORTY = [
    follow_up(number, created=Instant(NOW - 1_000 + number), script=None if number in UNUSABLE else "drip")
    for number in range(1, 41)
]


def call(
    follow_ups: list[FollowUp], *, limit: int = 25, variability: int | None = None, now: Instant = NOW
) -> Queueing:
    return queue(
        follow_ups,
        now,
        keywords_by_script=SCRIPTS,
        keywords=KEYWORDS,
        limit=limit,
        spacing_seconds=60,
        variability_seconds=variability,
    )


def numbers(queueing: Queueing) -> list[int]:
    return [one.follow_up.id for one in queueing.queued]


def test_of_forty_with_six_unusable_the_first_call_queues_25_and_the_second_9() -> None:
    first = call(FORTY)
    assert numbers(first) == [number for number in range(1, 32) if number not in UNUSABLE]
    assert [one.follow_up.id for one in first.skipped] == list(UNUSABLE)
    assert first.left == 9, "32 to 40"
    second = call([one for one in FORTY if one.id not in numbers(first)])
    assert numbers(second) == list(range(32, 41))
    assert [one.follow_up.id for one in second.skipped] == list(UNUSABLE), "they stay pending"
    assert second.left == 0


def test_without_variance_twenty_five_are_a_minute_apart_from_none_on_and_each_call_begins_anew() -> None:
    for _ in range(2):
        assert [one.delay_seconds for one in call(FORTY).queued] == list(range(0, 1_441, 60))


def test_who_is_passed_over_moves_nobody() -> None:
    queueing = call([follow_up(1), follow_up(2, script=None), follow_up(3)])
    assert [(one.follow_up.id, one.delay_seconds) for one in queueing.queued] == [(1, 0), (3, 60)]


def test_the_oldest_comes_first_and_of_one_age_the_lower_id() -> None:
    ages = [(4, 0), (2, 0), (9, -1), (1, 5), (3, 0)]
    assert numbers(call([follow_up(k, created=Instant(NOW + age)) for k, age in ages])) == [9, 2, 3, 4, 1]


def test_what_is_due_just_now_is_taken_and_a_microsecond_later_is_not() -> None:
    assert numbers(call([follow_up(1, due=NOW), follow_up(2, due=Instant(NOW + 1))])) == [1]


@pytest.mark.parametrize("status", [one for one in Status if one is not Status.PENDING])
def test_only_what_is_pending_is_taken(status: Status) -> None:
    assert call([follow_up(1, status=status)]) == Queueing((), (), 0)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (None, Skip.SCRIPT_UNSET),
        ("gone", Skip.SCRIPT_UNSET),
        ("sale", Skip.KEYWORD),
        ("loud", Skip.KEYWORD),
        ("wide", Skip.KEYWORD),
        ("drip", None),
        ("nudge", None),
    ],
)
def test_a_script_is_used_only_if_its_keyword_is_exactly_one_of_those(script: str | None, reason: Skip | None) -> None:
    queueing = call([follow_up(1, script=script)])
    assert [one.reason for one in queueing.skipped] == ([] if reason is None else [reason])
    assert len(queueing.queued) == (reason is None)


@pytest.mark.parametrize(
    ("limit", "queued", "skipped", "left"), [(-1, 0, 0, 3), (0, 0, 0, 3), (1, 1, 0, 2), (2, 2, 1, 0)]
)
def test_a_limit_ends_the_look_as_soon_as_it_is_reached(limit: int, queued: int, skipped: int, left: int) -> None:
    queueing = call([follow_up(1), follow_up(2, script=None), follow_up(3)], limit=limit)
    assert (len(queueing.queued), len(queueing.skipped), queueing.left) == (queued, skipped, left)


@given(
    st.lists(st.sampled_from([None, "drip", "sale", "nudge"]), max_size=40),
    st.integers(-2, 45),
    st.none() | st.integers(-5, 400),
)
def test_each_due_follow_up_is_queued_passed_over_or_left(
    scripts: list[str | None], limit: int, variability: int | None
) -> None:
    mine = [follow_up(number, script=script, seed=number * 31) for number, script in enumerate(scripts)]
    queueing = call(mine, limit=limit, variability=variability)
    assert len(queueing.queued) <= max(0, limit)
    assert len(queueing.queued) + len(queueing.skipped) + queueing.left == len(mine)
    for turn, one in enumerate(queueing.queued):
        assert 0 <= one.delay_seconds - 60 * turn <= max(0, variability or 0), "not on top of those before"


# -- variance ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variability", [None, -1, 0])
def test_no_variability_means_no_variance(variability: int | None) -> None:
    assert {variance_seconds(follow_up(seed=seed), variability) for seed in range(50)} == {0}


def test_variance_takes_each_second_up_to_the_variability_about_equally_often() -> None:
    counts = Counter(variance_seconds(follow_up(seed=seed), 4) for seed in range(10_000))
    assert sorted(counts) == [0, 1, 2, 3, 4]
    assert all(1_850 < count < 2_150 for count in counts.values())


def test_planning_again_gives_the_same_times_and_another_step_gives_others() -> None:
    assert call(FORTY, variability=300) == call(FORTY, variability=300)
    steps = [variance_seconds(follow_up(step=step), 10**6) for step in range(1, 20)]
    assert len(set(steps)) == len(steps)


def test_what_is_drawn_is_the_same_on_each_machine_and_in_each_process() -> None:
    drawings = [drawn(seed, what, 2, 3_600) for seed in (-1, 7, 2**62) for what in Draw]
    assert drawings == PINNED
    program = (
        "import json; from leadline.features.outreach.chance import Draw, drawn;"
        "print(json.dumps([drawn(seed, what, 2, 3_600) for seed in (-1, 7, 2**62) for what in Draw]))"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout
    assert json.loads(told) == PINNED


PINNED = [1297, 2729, 1659, 1010, 2864, 2654]
