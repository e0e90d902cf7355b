"""What the dispatcher measures of itself, and when it is taken for stuck."""

import pytest

from leadline.actors.pace import (
    STALLS_KEPT,
    START_BOUNDS,
    STARTS_MINUTES,
    STUCK_SECONDS,
    Pace,
    Progress,
    Stall,
    quantile,
)
from leadline.core.model import SECOND
from leadline_protocol.ids import Instant, JobId


def at(seconds: float) -> Instant:
    return Instant(int(seconds * SECOND))


def test_jobs_per_second_are_those_that_ended_in_the_last_minute() -> None:
    pace = Pace()
    assert pace.jobs_per_second(at(1000)) == 0
    pace.stored(at(1000), at(1000.1), 60)
    pace.stored(at(1000.2), at(1000.3), 60)
    pace.stored(at(1030), at(1030.1), 60)
    assert pace.jobs_per_second(at(1030.5)) == 3
    assert pace.jobs_per_second(at(1061)) == 1
    assert pace.jobs_per_second(at(1091)) == 0


def test_commits_are_told_by_what_half_and_nearly_all_of_them_took() -> None:
    pace = Pace()
    assert pace.commit_seconds(0.5) is None
    for milliseconds in range(1, 101):
        pace.stored(at(1), at(1 + milliseconds / 1000), 0)
    assert pace.commit_seconds(0.5) == 0.05
    assert pace.commit_seconds(0.99) == 0.099


def test_starts_are_told_by_what_half_and_nearly_all_of_the_last_minutes_took() -> None:
    pace = Pace()
    assert pace.start_seconds(0.5, at(0)) is None
    pace.started(500, at(0))  # so slow that it would show
    for number in range(99):
        pace.started(0.03, at(60 * STARTS_MINUTES + number / 10))
    pace.started(3_000, at(60 * STARTS_MINUTES + 59))
    now = at(60 * STARTS_MINUTES + 59)
    assert pace.start_seconds(0.5, now) == pytest.approx(0.02 + 0.03 * 50 / 99)
    assert pace.start_seconds(0.99, now) == 0.05
    assert pace.start_seconds(1, now) == 3_600
    assert pace.starts.counts[START_BOUNDS.index(600)] == 1, "what Prometheus is told goes on from the beginning"
    assert pace.start_seconds(0.5, at(60 * 2 * STARTS_MINUTES)) is None


def test_of_what_is_beyond_all_classes_the_end_of_the_last_is_told() -> None:
    assert quantile([1.0, 2.0], [0, 0, 5], 0.5) == 2.0
    assert quantile([1.0, 2.0], [0, 0, 0], 0.5) is None


class Loop:
    """What is watched, and the clock."""

    def __init__(self) -> None:
        self.turns: int | None = 1
        self.seconds = 0.0
        self.progress = Progress(lambda: self.turns, lambda: self.seconds)

    def after(self, seconds: float) -> bool:
        self.seconds += seconds
        return self.progress()


def test_a_loop_that_has_work_and_does_none_for_long_is_stuck() -> None:
    loop = Loop()
    assert loop.after(1)
    assert loop.after(STUCK_SECONDS - 1)
    assert not loop.after(1)
    loop.turns = 2
    assert loop.after(1)


def test_a_loop_that_turns_or_has_nothing_to_do_is_not() -> None:
    loop = Loop()
    for turn in range(10):
        loop.turns = turn
        assert loop.after(STUCK_SECONDS - 1)
    loop.turns = None
    assert loop.after(10 * STUCK_SECONDS)
    loop.turns = 9
    assert loop.after(STUCK_SECONDS - 1)


def test_of_jobs_that_stood_still_the_last_time_of_the_newest_is_kept() -> None:
    pace = Pace()
    for number in (1, *range(1, STALLS_KEPT + 2), 5):
        pace.stood_still(Stall(JobId(number), "acme", Instant(0), 300, killed=True))
    assert len(pace.stalls) == STALLS_KEPT
    assert pace.stall_kills == STALLS_KEPT + 3
    assert JobId(1) not in pace.stalls
    assert list(pace.stalls)[-1] == 5
