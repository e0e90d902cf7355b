"""B4 to B8, B10, B13: what a plan allows in a day, to the millisecond, with a restart at any moment.

All numbers hold at every resolution: a day of minutes is played in minutes, and once more with each minute a second.
"""

from collections import Counter
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from leadline.core.quota.days import Day, day_of
from leadline.core.quota.ledger import (
    MILLISECOND,
    Ahead,
    Attempt,
    AttemptRow,
    BatchJobId,
    ExecutionRow,
    Ledger,
    Refusal,
    Usage,
    failure,
    refusal,
)
from leadline.core.quota.projection import Planned, project
from leadline.core.quota.quotas import (
    MINUTE_MS,
    Access,
    Quotas,
    check_archive,
    check_new_job,
    check_retries,
    check_timeout,
    duration,
)
from leadline_protocol.errors import ErrorCode, JobReason, Refused
from leadline_protocol.ids import Instant, JobId
from tests.core.test_quota_days import instant_of

BERLIN = ZoneInfo("Europe/Berlin")
MORNING = instant_of(datetime(2026, 6, 1, tzinfo=BERLIN))
SECOND_MS = 1_000
HOUR = 60
"""Durations and times of the day are in units."""


class Teamspace:
    """A ledger, the rows that a daemon would write, and a clock that counts units from a midnight."""

    def __init__(self, unit_ms: int, *, units: int = 240, restarting: bool = False, **plan: int) -> None:
        self.unit_ms = unit_ms
        self.restarting = restarting
        self.quotas = structs.replace(Quotas(), milliseconds_per_day_max=units * unit_ms, **plan)
        self.zone = BERLIN
        self.now = MORNING
        self.ledger = Ledger()
        self.executions: dict[JobId, ExecutionRow] = {}
        self.attempts: list[AttemptRow] = []
        self.last = JobId(0)

    def at(self, unit: float, *, midnight: Instant = MORNING) -> None:
        self.now = Instant(midnight + round(unit * self.unit_ms * MILLISECOND))
        if self.restarting:
            self.restart()

    def restart(self) -> None:
        rebuilt = Ledger(self.executions.values(), self.attempts)
        assert rebuilt.executions == self.ledger.executions
        self.ledger = rebuilt

    @property
    def usage(self) -> Usage:
        return self.ledger.usage(day_of(self.now, self.zone))

    @property
    def recorded(self) -> float:
        """U, in units."""
        return self.usage.recorded_ms / self.unit_ms

    def start(self, batch_job: int, timeout: float) -> JobId | Refusal:
        self.last = job = JobId(self.last + 1)
        timeout_ms = round(timeout * self.unit_ms)
        before = self.ledger.copy().executions
        refused = self.ledger.admit(job, BatchJobId(batch_job), timeout_ms, self.now, self.quotas, self.zone)
        if refused is not None:
            assert self.ledger.executions == before, "a refusal costs nothing"
            return refused
        self.executions[job] = ExecutionRow(job, BatchJobId(batch_job), self.now, ended=False)
        self.attempts.append(AttemptRow(job, self.now, timeout_ms, timeout_ms, None))
        return job

    def admitted(self, batch_job: int, timeout: float) -> JobId:
        job = self.start(batch_job, timeout)
        assert not isinstance(job, Refusal), job.message(self.zone)
        return job

    def refused(self, batch_job: int, timeout: float) -> JobReason:
        refused = self.start(batch_job, timeout)
        assert isinstance(refused, Refusal), f"admitted as {refused}"
        return refused.reason

    def retry(self, job: JobId, timeout: float) -> float | None:
        """Its cap in units."""
        timeout_ms = round(timeout * self.unit_ms)
        cap_ms = self.ledger.retry(job, timeout_ms, self.now, self.quotas, self.zone)
        if cap_ms is None:
            return None
        self.attempts.append(AttemptRow(job, self.now, timeout_ms, cap_ms, None))
        return cap_ms / self.unit_ms

    def record(self, job: JobId, took: float) -> Attempt:
        real_ms = round(took * self.unit_ms)
        place = next(n for n, row in enumerate(self.attempts) if row.execution == job and row.real_ms is None)
        self.attempts[place] = structs.replace(self.attempts[place], real_ms=real_ms)
        return self.ledger.record(job, real_ms)

    def end(self, job: JobId, took: float | None = None) -> None:
        if took is not None:
            self.record(job, took)
        self.executions[job] = structs.replace(self.executions[job], ended=True)
        self.ledger.end(job)


@pytest.fixture(params=[MINUTE_MS, SECOND_MS], ids=["minutes", "seconds"])
def unit_ms(request: pytest.FixtureRequest) -> int:
    value: int = request.param
    return value


@pytest.fixture(params=[False, True], ids=["kept", "restarted"])
def restarting(request: pytest.FixtureRequest) -> bool:
    value: bool = request.param
    return value


def judge(
    attempt: Attempt, *, timed_out: bool = False, retry_attempt: int = 0, asked: bool = False
) -> JobReason | None:
    return failure(attempt, Quotas(), timed_out=timed_out, retry_attempt=retry_attempt, retries=1, retry_timeouts=asked)


# -- the default plan -------------------------------------------------------------------------------------------------


def test_the_default_plan() -> None:
    assert Quotas() == Quotas(
        jobs_max=5,
        executions_per_day_max=24,
        invocations_per_day_max=10,
        milliseconds_per_day_max=14_400_000,
        reserve=False,
        retries_max=1,
        schedule_gap_minutes_min=60,
        archive_bytes_max=4_194_304,
        own_database=Access.NONE,
        etl_database=Access.NONE,
    )


def test_the_sixth_batch_job_is_refused_and_deleting_one_makes_room() -> None:
    check_new_job(Quotas(), 4)
    with pytest.raises(Refused, match="there are 5 batch jobs, drafts included, and the plan allows 5") as refused:
        check_new_job(Quotas(), 5)
    assert refused.value.code is ErrorCode.QUOTA
    assert refused.value.retry_after is not None


def test_a_zip_may_have_4194304_bytes_and_not_one_more() -> None:
    check_archive(Quotas(), 4_194_304)
    with pytest.raises(Refused, match="4,194,305 bytes, and the plan allows 4,194,304") as refused:
        check_archive(Quotas(), 4_194_305)
    assert refused.value.code is ErrorCode.TOO_LARGE


def test_a_timeout_may_be_all_that_a_day_has_and_not_more() -> None:
    check_timeout(Quotas(), 240 * MINUTE_MS)
    with pytest.raises(Refused, match=r"240 min 0\.001 s is more than the 240 min") as refused:
        check_timeout(Quotas(), 240 * MINUTE_MS + 1)
    assert (refused.value.code, refused.value.at) == (ErrorCode.BAD_REQUEST, "timeout")


def test_a_batch_job_has_at_most_the_retries_of_the_plan() -> None:
    check_retries(Quotas(), 1)
    with pytest.raises(Refused, match="2 retries are more than the 1") as refused:
        check_retries(Quotas(), 2)
    assert (refused.value.code, refused.value.at) == (ErrorCode.BAD_REQUEST, "retries")


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0, "0 min"), (1, "0.001 s"), (60_000, "1 min"), (61_500, "1 min 1.5 s"), (2_399_999, "39 min 59.999 s")],
)
def test_a_duration_is_told_without_rounding(milliseconds: int, text: str) -> None:
    assert duration(milliseconds) == text


# -- the time of a day ------------------------------------------------------------------------------------------------


def test_a_run_whose_timeout_is_longer_than_the_rest_is_blocked(unit_ms: int, restarting: bool) -> None:
    day = Teamspace(unit_ms, units=60, restarting=restarting)
    day.at(1 * HOUR)
    first = day.admitted(1, timeout=60)
    day.at(1 * HOUR + 40)
    day.end(first, took=40)
    day.at(2 * HOUR)
    assert day.refused(2, timeout=60) is JobReason.LEFT_DURATION
    assert day.recorded == 40


def test_runs_side_by_side_may_go_beyond_the_day_and_block_all_later_ones(unit_ms: int, restarting: bool) -> None:
    day = Teamspace(unit_ms, units=60, restarting=restarting)
    day.at(1 * HOUR)
    first, second = day.admitted(1, timeout=60), day.admitted(2, timeout=60)
    day.at(1 * HOUR + 45)
    day.end(first, took=45)
    attempt = day.ledger.executions[second].attempt
    assert attempt is not None
    assert attempt.cap_ms == 60 * unit_ms, "what another has recorded lowers the cap of nobody who runs"
    day.end(second, took=45)
    assert day.recorded == 90
    for later in (46, 120, 1_439):
        day.at(later)
        assert day.refused(3, timeout=1) is JobReason.LEFT_DURATION
    tomorrow = day_of(day.now, day.zone).ends
    day.at(-0.001, midnight=tomorrow)
    assert day.refused(3, timeout=1) is JobReason.LEFT_DURATION
    day.at(0, midnight=tomorrow)
    day.admitted(3, timeout=60)


def test_with_reserve_what_runs_counts_with_its_timeout(unit_ms: int, restarting: bool) -> None:
    day = Teamspace(unit_ms, units=60, restarting=restarting, reserve=True)
    day.at(1 * HOUR)
    first = day.admitted(1, timeout=40)
    assert day.refused(2, timeout=20 + 1 / unit_ms) is JobReason.LEFT_DURATION, "a millisecond too much"
    second = day.admitted(2, timeout=20)
    assert day.refused(3, timeout=1 / unit_ms) is JobReason.LEFT_DURATION
    day.at(1 * HOUR + 5)
    day.end(first, took=5)
    assert day.refused(3, timeout=36) is JobReason.LEFT_DURATION
    day.admitted(3, timeout=35)
    day.end(second, took=20)
    assert day.recorded == 25


def test_with_reserve_an_execution_that_waits_for_its_retry_keeps_nothing(unit_ms: int, restarting: bool) -> None:
    day = Teamspace(unit_ms, units=60, restarting=restarting, reserve=True)
    waiting = day.admitted(1, timeout=45)
    day.record(waiting, took=40)
    day.admitted(2, timeout=20)
    assert day.retry(waiting, timeout=45) == 20, "its cap is not lowered by what is kept for others"
    assert day.usage.in_progress_ms == 40 * unit_ms


def test_what_runs_since_yesterday_keeps_nothing_of_today(unit_ms: int, restarting: bool) -> None:
    day = Teamspace(unit_ms, units=60, restarting=restarting, reserve=True)
    day.at(-1)
    day.admitted(1, timeout=60)
    day.at(0)
    day.admitted(2, timeout=60)


def test_the_timeout_may_be_exactly_the_rest(unit_ms: int, restarting: bool) -> None:
    for used in (0, 1, 59, 20 + 1 / unit_ms):
        day = Teamspace(unit_ms, units=60, restarting=restarting)
        day.end(day.admitted(1, timeout=60), took=used)
        assert day.refused(2, timeout=60 - used + 1 / unit_ms) is JobReason.LEFT_DURATION
        assert day.refused(2, timeout=61 - used) is JobReason.LEFT_DURATION
        day.admitted(2, timeout=60 - used)


# -- retries ----------------------------------------------------------------------------------------------------------


def test_a_retry_costs_its_time_and_no_execution_or_invocation(unit_ms: int, restarting: bool) -> None:
    day = Teamspace(unit_ms, units=240, restarting=restarting)
    job = day.admitted(1, timeout=60)
    day.at(25)
    attempt = day.record(job, took=25)
    assert judge(attempt) is None, "it is tried again"
    day.at(26)
    assert day.retry(job, timeout=60) == 60
    day.at(56)
    day.end(job, took=30)
    assert (day.recorded, day.usage.executions, day.usage.invocations) == (55, 1, {1: 1})


def test_a_retry_is_ended_when_the_day_has_no_more_left(unit_ms: int, restarting: bool) -> None:
    day = Teamspace(unit_ms, units=60, restarting=restarting)
    job = day.admitted(1, timeout=45)
    day.at(40)
    assert judge(day.record(job, took=40)) is None
    assert day.retry(job, timeout=45) == 20
    day.at(60)
    attempt = day.record(job, took=20)
    day.end(job)
    assert judge(attempt, timed_out=True, retry_attempt=1) is JobReason.LEFT_DURATION
    assert day.recorded == 60


def test_a_retry_for_which_nothing_is_left_does_not_begin(unit_ms: int, restarting: bool) -> None:
    day = Teamspace(unit_ms, units=60, restarting=restarting)
    first, second = day.admitted(1, timeout=60), day.admitted(2, timeout=60)
    day.record(first, took=20)
    day.end(second, took=40 - 1 / unit_ms)
    assert day.retry(first, timeout=60) == 1 / unit_ms
    day.record(first, took=1 / unit_ms)
    day.restart()
    assert day.retry(first, timeout=60) is None
    day.end(first)
    assert day.recorded == 60


def test_a_retry_after_midnight_is_of_the_day_in_which_its_execution_started(unit_ms: int, restarting: bool) -> None:
    day = Teamspace(unit_ms, units=60, restarting=restarting)
    day.at(-10)
    job = day.admitted(1, timeout=45)
    day.at(30)
    day.record(job, took=40)
    assert day.retry(job, timeout=45) == 20
    day.admitted(2, timeout=60)
    day.at(50)
    day.end(job, took=20)
    assert day.usage.recorded_ms == 0
    day.at(-1)
    assert (day.recorded, day.usage.executions) == (60, 1)


AT_TIMEOUT = Attempt(MORNING, 45 * MINUTE_MS, 45 * MINUTE_MS)
AT_REST = Attempt(MORNING, 45 * MINUTE_MS, 45 * MINUTE_MS - 1)


@pytest.mark.parametrize(
    ("attempt", "timed_out", "retry_attempt", "asked", "reason"),
    [
        (AT_TIMEOUT, False, 0, False, None),
        (AT_TIMEOUT, False, 1, False, JobReason.ERROR),
        (AT_TIMEOUT, True, 0, False, JobReason.TIMED_OUT),
        (AT_TIMEOUT, True, 0, True, None),
        (AT_TIMEOUT, True, 1, True, JobReason.TIMED_OUT),
        (AT_REST, False, 0, False, None),
        (AT_REST, False, 1, False, JobReason.ERROR),
        (AT_REST, True, 0, False, JobReason.LEFT_DURATION),
        (AT_REST, True, 0, True, JobReason.LEFT_DURATION),
        (AT_REST, True, 1, True, JobReason.LEFT_DURATION),
    ],
)
def test_a_failure_is_tried_again_and_a_timeout_only_if_that_is_asked_for(
    attempt: Attempt, timed_out: bool, retry_attempt: int, asked: bool, reason: JobReason | None
) -> None:
    assert judge(attempt, timed_out=timed_out, retry_attempt=retry_attempt, asked=asked) is reason


def test_a_plan_with_fewer_retries_binds_the_next_one() -> None:
    quotas = Quotas(retries_max=0)
    judged = failure(AT_TIMEOUT, quotas, timed_out=False, retry_attempt=0, retries=1, retry_timeouts=False)
    assert judged is JobReason.ERROR


# -- executions and invocations ---------------------------------------------------------------------------------------


def hours_of_a_day(day: Teamspace, jobs: int) -> Counter[JobReason | None]:
    """Each of so many batch jobs with a timeout of 10 at each hour; all of them need it."""
    outcomes: Counter[JobReason | None] = Counter()
    for hour in range(24):
        day.at(hour * HOUR)
        started = [day.start(batch_job, timeout=10) for batch_job in range(jobs)]
        day.at(hour * HOUR + 10)
        for run in started:
            if not isinstance(run, Refusal):
                day.end(run, took=10)
            outcomes[run.reason if isinstance(run, Refusal) else None] += 1
    return outcomes


def test_of_three_hourly_jobs_24_executions_run_and_48_are_skipped(unit_ms: int, restarting: bool) -> None:
    day = Teamspace(unit_ms, restarting=restarting)
    assert hours_of_a_day(day, jobs=3) == {None: 24, JobReason.DAILY_EXECUTIONS: 48}
    assert day.usage.invocations == {0: 8, 1: 8, 2: 8}


def test_of_one_hourly_job_10_executions_run_and_14_are_skipped(unit_ms: int, restarting: bool) -> None:
    day = Teamspace(unit_ms, restarting=restarting)
    assert hours_of_a_day(day, jobs=1) == {None: 10, JobReason.INVOCATIONS: 14}
    assert day.recorded == 100


def test_the_25th_execution_and_the_11th_invocation_are_refused(unit_ms: int, restarting: bool) -> None:
    day = Teamspace(unit_ms, restarting=restarting)
    for number in range(24):
        if number == 10:
            assert day.refused(0, timeout=1) is JobReason.INVOCATIONS
        day.end(day.admitted(number // 10, timeout=1), took=0)
    assert day.refused(9, timeout=1) is JobReason.DAILY_EXECUTIONS
    day.at(0, midnight=day_of(day.now, day.zone).ends)
    day.admitted(9, timeout=1)


def test_executions_are_asked_about_before_invocations_and_these_before_time() -> None:
    def reason(executions: int, invocations: int, left_ms: int) -> JobReason | None:
        day = Day(MORNING, Instant(MORNING + 1))
        quotas = Quotas()
        usage = Usage(day, executions, {BatchJobId(1): invocations}, quotas.milliseconds_per_day_max - left_ms, 0)
        refused = refusal(usage, quotas, BatchJobId(1), 10)
        return None if refused is None else refused.reason

    assert reason(24, 10, 0) is JobReason.DAILY_EXECUTIONS
    assert reason(23, 10, 0) is JobReason.INVOCATIONS
    assert reason(23, 9, 9) is JobReason.LEFT_DURATION
    assert reason(23, 9, 10) is None


def test_a_call_is_refused_that_would_be_skipped_behind_those_accepted_before_it(unit_ms: int) -> None:
    day = Teamspace(unit_ms)
    day.admitted(1, timeout=10)

    def reason(ahead: Ahead) -> JobReason | None:
        refused = refusal(day.usage, day.quotas, BatchJobId(1), 10 * unit_ms, ahead)
        return None if refused is None else refused.reason

    assert reason(Ahead(22, 8)) is None
    assert reason(Ahead(22, 9)) is JobReason.INVOCATIONS
    assert reason(Ahead(23, 8)) is JobReason.DAILY_EXECUTIONS


# -- plans, zones, restarts -------------------------------------------------------------------------------------------


def test_a_changed_plan_binds_the_next_decision_and_ends_nothing(unit_ms: int, restarting: bool) -> None:
    day = Teamspace(unit_ms, units=60, restarting=restarting)
    running = day.admitted(1, timeout=60)
    day.quotas = structs.replace(day.quotas, milliseconds_per_day_max=30 * unit_ms, executions_per_day_max=1)
    attempt = day.ledger.executions[running].attempt
    assert attempt is not None
    assert attempt.cap_ms == 60 * unit_ms
    assert day.refused(2, timeout=1) is JobReason.DAILY_EXECUTIONS
    day.quotas = structs.replace(day.quotas, executions_per_day_max=2)
    day.record(running, took=50)
    assert day.refused(2, timeout=1) is JobReason.LEFT_DURATION
    assert day.retry(running, timeout=60) is None
    day.quotas = structs.replace(day.quotas, milliseconds_per_day_max=70 * unit_ms)
    assert day.retry(running, timeout=60) == 20
    day.admitted(2, timeout=20)


def test_in_another_zone_executions_count_where_they_belong_by_then() -> None:
    day = Teamspace(MINUTE_MS)
    day.at(1 * HOUR)
    day.end(day.admitted(1, timeout=10), took=10)
    day.at(8 * HOUR)
    day.zone = ZoneInfo("America/New_York")
    assert day.usage.executions == 0, "01:00 in Berlin is 19:00 of the day before in New York"
    day.zone = ZoneInfo("Asia/Tokyo")
    assert day.usage.executions == 1


def test_old_executions_are_let_go_and_those_beside_an_open_one_are_not(unit_ms: int) -> None:
    day = Teamspace(unit_ms, units=60)
    kept = day.admitted(1, timeout=60)
    beside = day.admitted(2, timeout=30)
    day.end(beside, took=30)
    old = day.now
    for days in (1, 2, 5, 60):
        day.at(24 * HOUR * days * MINUTE_MS / unit_ms)
        day.ledger.prune(day.now)
        assert set(day.ledger.executions) == {kept, beside}
    day.record(kept, took=10)
    assert day.retry(kept, timeout=60) == 20
    day.end(kept, took=20)
    day.ledger.prune(day.now)
    assert not day.ledger.executions
    day.now = old
    assert day.usage == Usage(day_of(old, BERLIN), 0, {}, 0, 0)


def test_nothing_of_a_long_day_is_let_go_even_if_clocks_are_set_back_by_a_day() -> None:
    day = Teamspace(MINUTE_MS)
    day.zone = ZoneInfo("Antarctica/Troll")
    long_day = day_of(instant_of(datetime(2026, 10, 25, 12, tzinfo=day.zone)), day.zone)
    for late in (-24 * HOUR, 0):
        day.at(late, midnight=long_day.begins)
        day.end(day.admitted(1, timeout=1), took=1)
    day.at(-0.001, midnight=long_day.ends)
    day.ledger.prune(day.now)
    assert day.usage.executions == 1
    day.at(2 * HOUR - 24 * HOUR - 1, midnight=long_day.begins)
    assert day.usage.executions == 1


@pytest.mark.parametrize(
    ("zone", "date"),
    [
        ("Europe/Berlin", "2026-03-29"),
        ("Europe/Berlin", "2026-10-25"),
        ("America/New_York", "2026-03-08"),
        ("America/New_York", "2026-11-01"),
        ("Australia/Lord_Howe", "2026-10-04"),
        ("Australia/Lord_Howe", "2026-04-05"),
        ("Pacific/Chatham", "2026-09-27"),
        ("Pacific/Chatham", "2026-04-05"),
        ("Antarctica/Troll", "2026-03-29"),
        ("Antarctica/Troll", "2026-10-25"),
        ("America/Santiago", "2026-09-06"),
        ("America/Santiago", "2026-04-04"),
        ("America/Havana", "2026-11-01"),
    ],
)
def test_where_clocks_change_a_day_ends_at_midnight_and_not_after_24_hours(
    zone: str, date: str, unit_ms: int, restarting: bool
) -> None:
    day = Teamspace(unit_ms, units=60, restarting=restarting)
    day.zone = ZoneInfo(zone)
    noon = instant_of(datetime.fromisoformat(f"{date} 12:00").replace(tzinfo=day.zone))
    bounds = day_of(noon, day.zone)
    for first in (bounds.begins, bounds.ends):
        day.at(-1 / MINUTE_MS, midnight=first)
        late = day.admitted(1, timeout=60)
        day.at(0, midnight=first)
        early = day.admitted(2, timeout=60)
        day.end(late, took=60)
        day.end(early, took=15)
        assert day.recorded == 15, "a run over midnight belongs to the day in which it started"
        day.at(-1 / MINUTE_MS, midnight=first)
        assert day.refused(3, timeout=1) is JobReason.LEFT_DURATION
        day.ledger, day.executions, day.attempts = Ledger(), {}, []


# -- what is told -----------------------------------------------------------------------------------------------------


def test_a_refused_call_is_told_the_numbers_and_when_the_day_ends() -> None:
    day = Teamspace(MINUTE_MS, units=60)
    day.at(1 * HOUR)
    day.end(day.admitted(1, timeout=60), took=40 + 1 / MINUTE_MS)
    day.at(2 * HOUR)
    late = day.start(2, timeout=60)
    assert isinstance(late, Refusal)
    told = late.refused(day.now, day.zone)
    assert (told.code, told.retry_after) == (ErrorCode.QUOTA, 22 * 3_600)
    assert told.message == (
        "a timeout of 60 min is more than is left of the day: 40 min 0.001 s of 60 min are used; "
        "the day ends at 2026-06-02 00:00 (Europe/Berlin)"
    )
    day.quotas = structs.replace(day.quotas, invocations_per_day_max=1)
    second = day.start(1, timeout=1)
    assert isinstance(second, Refusal)
    assert second.message(day.zone) == (
        "1 of 1 invocations of this batch job are used for the day; the day ends at 2026-06-02 00:00 (Europe/Berlin)"
    )
    day.quotas = structs.replace(day.quotas, executions_per_day_max=1)
    third = day.start(2, timeout=1)
    assert isinstance(third, Refusal)
    assert third.message(day.zone) == (
        "1 of 1 executions of the day are used; the day ends at 2026-06-02 00:00 (Europe/Berlin)"
    )


def test_what_is_kept_for_others_is_told_apart_from_what_is_used() -> None:
    day = Teamspace(MINUTE_MS, units=60, reserve=True)
    day.end(day.admitted(1, timeout=60), took=5)
    day.admitted(2, timeout=30)
    refused = day.start(3, timeout=26)
    assert isinstance(refused, Refusal)
    assert refused.message(day.zone).startswith(
        "a timeout of 26 min is more than is left of the day: 5 min of 60 min are used and 30 min are kept for what "
        "runs; the day ends"
    )


def test_where_there_is_no_midnight_the_day_ends_when_clocks_jump_over_it() -> None:
    day = Teamspace(MINUTE_MS, executions_per_day_max=0)
    day.zone = ZoneInfo("America/Santiago")
    day.now = instant_of(datetime(2026, 9, 5, 12, tzinfo=day.zone))
    refused = day.start(1, timeout=1)
    assert isinstance(refused, Refusal)
    assert refused.message(day.zone).endswith("the day ends at 2026-09-06 01:00 (America/Santiago)")
    assert refused.refused(day.now, day.zone).retry_after == 12 * 3_600


# -- projection -------------------------------------------------------------------------------------------------------


def at(unit_ms: int, unit: float) -> Instant:
    return Instant(MORNING + round(unit * unit_ms * MILLISECOND))


def plan(unit_ms: int, *runs: tuple[float, int, float]) -> list[Planned]:
    """Planned runs from (time, batch job, timeout)."""
    return [Planned(at(unit_ms, when), BatchJobId(job), round(timeout * unit_ms)) for when, job, timeout in runs]


def marks_of(day: Teamspace, planned: list[Planned]) -> list[JobReason | None]:
    before = day.ledger.copy().executions
    marks = project(day.ledger, planned, day.quotas, day.zone)
    assert day.ledger.executions == before, "to look ahead changes nothing"
    return [None if mark is None else mark.reason for mark in marks]


@pytest.mark.parametrize(
    ("jobs", "marks"),
    [
        (3, {None: 24, JobReason.DAILY_EXECUTIONS: 48}),
        (1, {None: 10, JobReason.INVOCATIONS: 14}),
    ],
)
def test_a_day_of_hourly_jobs_is_foreseen(unit_ms: int, jobs: int, marks: dict[JobReason | None, int]) -> None:
    day = Teamspace(unit_ms)
    planned = plan(unit_ms, *((hour * HOUR, job, 10) for hour in range(24) for job in range(jobs)))
    foreseen = marks_of(day, planned)
    assert Counter(foreseen) == marks
    assert all(mark is None for mark in foreseen[: marks[None]])


def test_runs_are_foreseen_in_the_order_of_time_and_marked_in_the_order_of_the_list(unit_ms: int) -> None:
    day = Teamspace(unit_ms, units=60)
    planned = plan(unit_ms, (120, 1, 60), (0, 2, 60), (0, 3, 61))
    assert marks_of(day, planned) == [JobReason.LEFT_DURATION, None, JobReason.LEFT_DURATION]
    assert marks_of(day, planned[1::-1]) == [None, JobReason.LEFT_DURATION]


def test_what_the_day_has_used_already_is_counted(unit_ms: int) -> None:
    day = Teamspace(unit_ms, units=60)
    day.end(day.admitted(1, timeout=60), took=21)
    day.at(25)
    day.admitted(2, timeout=10)
    assert marks_of(day, plan(unit_ms, (30, 1, 34), (30, 1, 35), (31, 3, 33))) == [
        None,
        JobReason.LEFT_DURATION,
        JobReason.LEFT_DURATION,
    ], "5 of the one that runs may be recorded by 30"
    assert marks_of(day, plan(unit_ms, (50, 1, 29), (50, 1, 30))) == [None, JobReason.LEFT_DURATION], "all of its 10"


def test_an_occurrence_is_marked_that_an_early_end_would_block(unit_ms: int) -> None:
    day = Teamspace(unit_ms, units=60)
    planned = plan(unit_ms, (60, 1, 60), (60, 2, 60), (90, 3, 60))
    assert marks_of(day, planned) == [None, None, JobReason.LEFT_DURATION]
    day.at(60)
    first, second = day.admitted(1, timeout=60), day.admitted(2, timeout=60)
    day.at(80)
    day.end(first, took=20)
    day.end(second, took=20)
    day.at(90)
    assert day.refused(3, timeout=60) is JobReason.LEFT_DURATION


def test_with_reserve_runs_side_by_side_are_foreseen_to_share_the_rest(unit_ms: int) -> None:
    day = Teamspace(unit_ms, units=60, reserve=True)
    assert marks_of(day, plan(unit_ms, (60, 1, 40), (60, 2, 20), (70, 3, 1))) == [None, None, JobReason.LEFT_DURATION]


def test_with_reserve_what_an_attempt_has_taken_already_is_not_counted_twice(unit_ms: int) -> None:
    day = Teamspace(unit_ms, units=60, reserve=True)
    day.at(60)
    day.admitted(1, timeout=40)
    assert marks_of(day, plan(unit_ms, (70, 2, 20), (71, 3, 1))) == [None, JobReason.LEFT_DURATION]


def test_before_an_attempt_began_it_had_taken_nothing(unit_ms: int) -> None:
    day = Teamspace(unit_ms, units=60)
    day.at(60)
    day.admitted(1, timeout=40)
    assert day.ledger.usage_at_most(day.usage.day, at(unit_ms, 50)) == day.usage


def test_a_copy_goes_on_by_itself(unit_ms: int) -> None:
    day = Teamspace(unit_ms)
    job = day.admitted(1, timeout=10)
    day.ledger.copy().record(job, 5)
    day.end(job, took=10)
    assert day.recorded == 10


def test_each_day_that_is_foreseen_has_its_own_quota() -> None:
    day = Teamspace(MINUTE_MS, units=60)
    planned = plan(MINUTE_MS, (1_439, 1, 60), (1_439.5, 2, 60), (1_440, 2, 60), (1_500, 1, 60), (2_880, 1, 60))
    assert marks_of(day, planned) == [None, JobReason.LEFT_DURATION, None, JobReason.LEFT_DURATION, None]


RUNS = st.lists(st.tuples(st.integers(0, 90), st.integers(1, 2), st.integers(1, 30)), min_size=1, max_size=8).map(
    sorted
)
"""Times, batch jobs and timeouts, in minutes and in order."""


def play(runs: list[tuple[int, int, int]], takes: list[int], *, reserve: bool) -> list[JobReason | None]:
    """What becomes of each of them if they take so long."""
    day = bounded(reserve=reserve)
    outcomes: list[JobReason | None] = []
    ends: list[tuple[int, JobId, int]] = []
    for (when, job, timeout), took in zip(runs, takes, strict=True):
        for end, ending, ran in [each for each in ends if each[0] <= when]:
            day.end(ending, took=ran)
            ends.remove((end, ending, ran))
        day.at(when)
        run = day.start(job, timeout)
        outcomes.append(run.reason if isinstance(run, Refusal) else None)
        if not isinstance(run, Refusal):
            ends.append((when + took, run, took))
    return outcomes


def bounded(*, reserve: bool) -> Teamspace:
    return Teamspace(MINUTE_MS, units=60, executions_per_day_max=6, invocations_per_day_max=4, reserve=reserve)


@settings(max_examples=300)
@given(RUNS, st.lists(st.integers(0, 30), min_size=8, max_size=8), st.booleans())
def test_where_nothing_is_marked_nothing_is_skipped_whatever_runs_take(
    runs: list[tuple[int, int, int]], most: list[int], reserve: bool
) -> None:
    takes = [min(timeout, at_most) for (_, _, timeout), at_most in zip(runs, most, strict=False)]
    if any(play(runs, takes, reserve=reserve)):
        assert any(marks_of(bounded(reserve=reserve), plan(MINUTE_MS, *runs)))


@settings(max_examples=300)
@given(RUNS, st.booleans())
def test_the_first_mark_comes_true_if_all_that_run_end_then_or_with_reserve_go_on(
    runs: list[tuple[int, int, int]], reserve: bool
) -> None:
    marks = marks_of(bounded(reserve=reserve), plan(MINUTE_MS, *runs))
    first = next((place for place, mark in enumerate(marks) if mark is not None), len(marks) - 1)
    moment = runs[first][0]
    takes = [timeout if reserve else max(0, min(timeout, moment - when)) for when, _, timeout in runs]
    assert play(runs, takes, reserve=reserve)[: first + 1] == marks[: first + 1]
