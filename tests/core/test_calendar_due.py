"""Each occurrence is decided once: it runs, or is skipped for a reason that the policy of its job gives."""

from collections.abc import Sequence
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadline.core.calendar.due import Conduct, Decided, Missed, Pending, Verdict, decide
from leadline.core.calendar.occurrences import occurrences
from leadline.core.calendar.schedules import Timetable, read_schedule
from leadline_protocol.ids import Instant
from leadline_protocol.schedules import Cron
from tests.core.minute_walk import HOUR, MINUTE, SECOND, instant

HOURLY = read_schedule(Cron("0 * * * *", "Europe/Berlin"))
HALF_PAST = read_schedule(Cron("30 * * * *", "Europe/Berlin"))
EACH_MINUTE = read_schedule(Cron("* * * * *", "Europe/Berlin"))
TEN = instant("2026-11-27T10:00+01:00")
RUN, MISSED, STILL_RUNNING = Verdict.RUN, Verdict.MISSED, Verdict.STILL_RUNNING
SKIP, ONCE, ALL = (Conduct(missed) for missed in Missed)
ALL_OVERLAPPING = Conduct(Missed.ALL, overlap=True)


def verdicts(conduct: Conduct, wall: int, timetable: Timetable = HOURLY, *, running: bool = False) -> list[Verdict]:
    """Of what has come since ten o'clock."""
    found = decide([Pending(timetable, TEN)], conduct, Instant(wall), running=running)
    return [each.verdict for each in found]


def test_nothing_is_decided_before_it_has_come() -> None:
    assert verdicts(SKIP, TEN + HOUR - 1) == []
    assert verdicts(SKIP, TEN + HOUR) == [RUN]


def test_what_was_decided_last_is_not_decided_again() -> None:
    assert verdicts(ALL, TEN) == []


@pytest.mark.parametrize(("late", "verdict"), [(0, RUN), (300 * SECOND, RUN), (300 * SECOND + 1, MISSED)])
def test_five_minutes_late_is_on_time_and_a_microsecond_more_is_not(late: int, verdict: Verdict) -> None:
    assert verdicts(SKIP, TEN + HOUR + late) == [verdict]


def test_how_late_is_on_time_can_be_set() -> None:
    strict = Conduct(late_seconds_max=0)
    assert verdicts(strict, TEN + HOUR) == [RUN]
    assert verdicts(strict, TEN + HOUR + 1) == [MISSED]


@pytest.mark.parametrize(
    ("conduct", "found"),
    [
        (SKIP, [MISSED, MISSED, MISSED]),
        (ONCE, [MISSED, MISSED, RUN]),
        (ALL, [RUN, STILL_RUNNING, STILL_RUNNING]),
        (ALL_OVERLAPPING, [RUN, RUN, RUN]),
    ],
)
def test_what_was_missed_is_skipped_or_made_up_for_once_or_run_as_often(conduct: Conduct, found: list[Verdict]) -> None:
    assert verdicts(conduct, TEN + 3 * HOUR + 30 * MINUTE) == found


@pytest.mark.parametrize(
    ("conduct", "found"),
    [
        (SKIP, [MISSED, MISSED, RUN]),
        (ONCE, [MISSED, MISSED, RUN]),
        (ALL_OVERLAPPING, [RUN, RUN, RUN]),
    ],
)
def test_one_that_is_on_time_makes_up_for_those_before_it(conduct: Conduct, found: list[Verdict]) -> None:
    assert verdicts(conduct, TEN + 3 * HOUR + 2 * MINUTE) == found


@pytest.mark.parametrize("conduct", [SKIP, ONCE, ALL])
def test_one_that_comes_while_the_last_still_runs_is_skipped(conduct: Conduct) -> None:
    assert verdicts(conduct, TEN + HOUR, running=True) == [STILL_RUNNING]


def test_it_runs_beside_the_last_where_they_may_overlap() -> None:
    assert verdicts(Conduct(overlap=True), TEN + HOUR, running=True) == [RUN]


def test_what_is_given_up_was_missed_whatever_runs() -> None:
    assert verdicts(SKIP, TEN + HOUR + 10 * MINUTE, running=True) == [MISSED]
    assert verdicts(ONCE, TEN + 2 * HOUR + 10 * MINUTE, running=True) == [MISSED, STILL_RUNNING]


def test_of_several_that_are_on_time_the_first_runs_and_the_others_find_it_running() -> None:
    assert verdicts(SKIP, TEN + 3 * MINUTE, EACH_MINUTE) == [RUN, STILL_RUNNING, STILL_RUNNING]
    assert verdicts(Conduct(overlap=True), TEN + 3 * MINUTE, EACH_MINUTE) == [RUN, RUN, RUN]


def together(conduct: Conduct, schedules: Sequence[Timetable], wall: int) -> list[tuple[int, int, Verdict]]:
    """Of each occurrence its schedule, its minutes after ten and what becomes of it."""
    found = decide([Pending(each, TEN) for each in schedules], conduct, Instant(wall), running=False)
    return [(each.schedule, (each.occurrence.instant - TEN) // MINUTE, each.verdict) for each in found]


def test_the_schedules_of_a_job_are_decided_together_in_order_of_time() -> None:
    assert together(ONCE, [HOURLY, HALF_PAST], TEN + 100 * MINUTE) == [
        (1, 30, MISSED),
        (0, 60, MISSED),
        (1, 90, RUN),
    ]


def test_two_schedules_that_are_due_at_once_are_two_occurrences_and_one_run() -> None:
    assert together(SKIP, [HOURLY, HOURLY], TEN + HOUR) == [(0, 60, RUN), (1, 60, STILL_RUNNING)]


def test_a_year_of_downtime_is_decided_piece_by_piece_as_if_at_once() -> None:
    year = Instant(TEN + 365 * 24 * HOUR)
    first_piece = list(islice(decide([Pending(EACH_MINUTE, TEN)], ONCE, year, running=False), 100))
    assert {each.verdict for each in first_piece} == {MISSED}
    last = Instant(year - 90 * MINUTE)
    rest = list(decide([Pending(EACH_MINUTE, last)], ONCE, year, running=False))
    assert len(rest) == 90
    assert [each.verdict for each in rest[-7:]] == [MISSED, RUN, *[STILL_RUNNING] * 5]


# --- clocks that are set


CONDUCTS = st.builds(Conduct, st.sampled_from(Missed), st.sampled_from([0, 60, 300]), st.booleans())


class Daemon:
    """Decides whenever it is told the time, and remembers of each schedule what it decided last."""

    def __init__(self, timetables: Sequence[Timetable], conduct: Conduct) -> None:
        self.schedules = [Pending(each, TEN) for each in timetables]
        self.conduct = conduct
        self.log: list[Decided] = []

    def look(self, wall: int, *, running: bool = False) -> list[Decided]:
        found = list(decide(self.schedules, self.conduct, Instant(wall), running=running))
        for each in found:
            timetable = self.schedules[each.schedule].timetable
            self.schedules[each.schedule] = Pending(timetable, each.occurrence.instant)
        self.log += found
        return found


def test_a_clock_that_is_set_back_fires_nothing_again() -> None:
    daemon = Daemon([HOURLY], SKIP)
    assert [each.verdict for each in daemon.look(TEN + HOUR)] == [RUN]
    for wall in (TEN - 2 * HOUR, TEN, TEN + HOUR - 1, TEN + HOUR, TEN + 2 * HOUR - 1):
        assert daemon.look(wall) == []
    assert [each.verdict for each in daemon.look(TEN + 2 * HOUR)] == [RUN]


def test_what_a_clock_set_forward_has_jumped_over_is_not_fired_when_it_is_set_back() -> None:
    daemon = Daemon([HOURLY], SKIP)
    assert [each.verdict for each in daemon.look(TEN + 3 * HOUR)] == [MISSED, MISSED, RUN]
    assert [each for minute in range(180) for each in daemon.look(TEN + minute * MINUTE)] == []


WALKS = st.lists(st.tuples(st.integers(-3 * HOUR, 5 * HOUR), st.booleans()), min_size=1, max_size=15)


@given(st.lists(st.sampled_from([HOURLY, HALF_PAST]), min_size=1, max_size=3), CONDUCTS, WALKS)
def test_whatever_the_clock_does_each_occurrence_is_decided_once(
    timetables: list[Timetable], conduct: Conduct, walk: list[tuple[int, bool]]
) -> None:
    daemon = Daemon(timetables, conduct)
    wall = latest = int(TEN)
    for step, running in walk:
        wall += step
        latest = max(latest, wall)
        daemon.look(wall, running=running)
    for number, timetable in enumerate(timetables):
        decided = [each.occurrence for each in daemon.log if each.schedule == number]
        assert decided == list(occurrences(timetable, TEN, Instant(latest)))


@given(st.lists(st.sampled_from([HOURLY, HALF_PAST]), min_size=1, max_size=3), CONDUCTS, WALKS)
def test_what_each_look_decides_keeps_to_the_rules(
    timetables: list[Timetable], conduct: Conduct, walk: list[tuple[int, bool]]
) -> None:
    daemon = Daemon(timetables, conduct)
    wall = int(TEN)
    for step, running in walk:
        wall += step
        found = daemon.look(wall, running=running)
        late = [wall - each.occurrence.instant > conduct.late_seconds_max * SECOND for each in found]
        runs = [each.verdict is RUN for each in found]
        if not conduct.overlap:
            assert sum(runs) <= (0 if running else 1)
        for each, is_late in zip(found, late, strict=True):
            if not is_late or conduct.missed is Missed.ALL:
                assert each.verdict is not MISSED
            if is_late and conduct.missed is Missed.SKIP:
                assert each.verdict is MISSED
        if found and all(late) and conduct.missed is Missed.ONCE:
            assert [each.verdict is MISSED for each in found] == [True] * (len(found) - 1) + [False]
        if found and not running and (conduct.missed is not Missed.SKIP or not all(late)):
            assert any(runs)
