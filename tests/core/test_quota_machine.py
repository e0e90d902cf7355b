"""Anything that may happen to a teamspace's batch jobs, in any order, against a log of it that is read anew each time.

The oracle knows dates, not bounds: an execution is of the date that clocks showed when it started. It keeps every row
that was ever written and forgets nothing, so what the ledger lets go must not be missed.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import date, datetime
from zoneinfo import ZoneInfo

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from msgspec import Struct, structs

from leadline.core.calendar.zones import wall_at
from leadline.core.model import SECOND
from leadline.core.quota.days import day_of
from leadline.core.quota.ledger import (
    KEPT_MICROSECONDS,
    MILLISECOND,
    AttemptRow,
    BatchJobId,
    ExecutionRow,
    Ledger,
    Refusal,
)
from leadline.core.quota.quotas import MINUTE_MS, Quotas
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import Instant, JobId
from tests.core.test_quota_days import instant_of

ZONES = [
    "Europe/Berlin",
    "America/Santiago",
    "America/New_York",
    "Australia/Lord_Howe",
    "Antarctica/Troll",
    "America/Havana",
]
STARTS = [
    instant_of(datetime.fromisoformat(f"{day} 22:00").replace(tzinfo=ZoneInfo(zone)))
    for zone, day in [
        ("Europe/Berlin", "2026-03-28"),
        ("Europe/Berlin", "2026-10-24"),
        ("America/Santiago", "2026-09-05"),
        ("America/Santiago", "2026-04-04"),
        ("Antarctica/Troll", "2026-10-24"),
        ("America/Havana", "2026-10-31"),
    ]
]
HOUR = 3_600 * SECOND
TIMES_MS = st.sampled_from([1, 1_000, 20 * MINUTE_MS, 45 * MINUTE_MS, 60 * MINUTE_MS]) | st.integers(1, 90 * MINUTE_MS)


class Log(Struct):
    """What happened, as rows: all that the oracle and a restart have."""

    executions: dict[JobId, ExecutionRow] = {}
    attempts: list[AttemptRow] = []

    def of_date(self, day: date, zone: ZoneInfo) -> list[ExecutionRow]:
        return [row for row in self.executions.values() if wall_at(row.started, zone).date() == day]

    def recorded_ms(self, executions: list[ExecutionRow]) -> int:
        ids = {row.id for row in executions}
        return sum(row.real_ms for row in self.attempts if row.execution in ids and row.real_ms is not None)

    def open_attempt(self, job: JobId) -> int | None:
        """Its place among the attempts."""
        return next((n for n, row in enumerate(self.attempts) if row.execution == job and row.real_ms is None), None)

    def in_progress_ms(self, executions: list[ExecutionRow]) -> int:
        places = (self.open_attempt(row.id) for row in executions)
        return sum(self.attempts[place].cap_ms for place in places if place is not None)

    def expected(
        self, batch_job: int, timeout_ms: int, now: Instant, quotas: Quotas, zone: ZoneInfo
    ) -> JobReason | None:
        """What must become of a run that is to start now."""
        today = self.of_date(wall_at(now, zone).date(), zone)
        used_ms = self.recorded_ms(today) + (self.in_progress_ms(today) if quotas.reserve else 0)
        if len(today) >= quotas.executions_per_day_max:
            return JobReason.DAILY_EXECUTIONS
        if len([row for row in today if row.batch_job == batch_job]) >= quotas.invocations_per_day_max:
            return JobReason.INVOCATIONS
        if timeout_ms > quotas.milliseconds_per_day_max - used_ms:
            return JobReason.LEFT_DURATION
        return None

    def kept(self, now: Instant) -> Iterator[ExecutionRow]:
        """The rows that a restart reads."""
        oldest = min((row.started for row in self.executions.values() if not row.ended), default=now)
        since = min(oldest, now) - KEPT_MICROSECONDS
        return (row for row in self.executions.values() if row.started >= since)


class BatchDays(RuleBasedStateMachine):
    """A teamspace, its batch jobs, its plan and its zone, and a daemon that is started anew now and then."""

    @initialize(start=st.sampled_from(STARTS), zone=st.sampled_from(ZONES))
    def begin(self, start: Instant, zone: str) -> None:
        self.now = start
        self.latest = start
        self.zone = ZoneInfo(zone)
        self.quotas = Quotas(
            executions_per_day_max=4, invocations_per_day_max=2, milliseconds_per_day_max=60 * MINUTE_MS
        )
        self.ledger = Ledger()
        self.log = Log({}, [])
        self.real_ms = 0

    def never_pruned(self) -> set[JobId]:
        """What no pruning can have let go, whatever the clock has shown since."""
        since = max(self.now, self.latest) - KEPT_MICROSECONDS
        return {row.id for row in self.log.executions.values() if row.started >= since}

    def with_attempt(self) -> list[JobId]:
        return [job for job in self.log.executions if self.log.open_attempt(job) is not None]

    def between_attempts(self) -> list[JobId]:
        return [job for job, row in self.log.executions.items() if not row.ended and self.log.open_attempt(job) is None]

    def has_attempt(self) -> bool:
        return bool(self.with_attempt())

    def has_pause(self) -> bool:
        return bool(self.between_attempts())

    # -- time and people ----------------------------------------------------------------------------------------------

    @rule(microseconds=st.sampled_from([1, MILLISECOND, SECOND, HOUR // 2, HOUR, 6 * HOUR, 30 * HOUR, 100 * HOUR]))
    def pass_time(self, microseconds: int) -> None:
        self.now = Instant(self.now + microseconds)

    @rule(before=st.sampled_from([0, 1, MILLISECOND, HOUR]))
    def go_to_midnight(self, before: int) -> None:
        self.now = max(self.now, Instant(day_of(self.now, self.zone).ends - before))

    @rule(hours=st.sampled_from([1, 23]))
    def set_the_clock_back(self, hours: int) -> None:
        """By less than a day in all: the ledger promises no more."""
        self.latest = max(self.latest, self.now)
        self.now = max(Instant(self.latest - 23 * HOUR), Instant(self.now - hours * HOUR))

    @rule(
        executions=st.integers(0, 5),
        invocations=st.integers(0, 3),
        minutes=st.sampled_from([0, 30, 60, 90, 240]),
        reserve=st.booleans(),
    )
    def set_plan(self, executions: int, invocations: int, minutes: int, reserve: bool) -> None:
        self.quotas = Quotas(
            executions_per_day_max=executions,
            invocations_per_day_max=invocations,
            milliseconds_per_day_max=minutes * MINUTE_MS,
            reserve=reserve,
        )

    @rule(zone=st.sampled_from(ZONES))
    def move(self, zone: str) -> None:
        self.zone = ZoneInfo(zone)

    # -- runs ---------------------------------------------------------------------------------------------------------

    @rule(batch_job=st.integers(1, 3), timeout_ms=TIMES_MS, exactly=st.sampled_from([None, None, 0, 1]))
    def start(self, batch_job: int, timeout_ms: int, exactly: int | None) -> None:
        if exactly is not None:  # what is left, or a millisecond more
            today = self.log.of_date(wall_at(self.now, self.zone).date(), self.zone)
            left_ms = self.quotas.milliseconds_per_day_max - self.log.recorded_ms(today)
            timeout_ms = max(1, left_ms + exactly)
        job = JobId(len(self.log.executions) + 1)
        expected = self.log.expected(batch_job, timeout_ms, self.now, self.quotas, self.zone)
        before = self.ledger.copy().executions
        refused = self.ledger.admit(job, BatchJobId(batch_job), timeout_ms, self.now, self.quotas, self.zone)
        assert (None if refused is None else refused.reason) is expected
        if isinstance(refused, Refusal):
            assert self.ledger.executions == before, "a refusal costs nothing"
            return
        self.log.executions[job] = ExecutionRow(job, BatchJobId(batch_job), self.now, ended=False)
        self.log.attempts.append(AttemptRow(job, self.now, timeout_ms, timeout_ms, None))
        today = self.log.of_date(wall_at(self.now, self.zone).date(), self.zone)
        assert len(today) <= self.quotas.executions_per_day_max

    @precondition(has_attempt)
    @rule(data=st.data(), to_the_cap=st.booleans())
    def record(self, data: st.DataObject, to_the_cap: bool) -> None:
        job = data.draw(st.sampled_from(self.with_attempt()), label="execution")
        place = self.log.open_attempt(job)
        assert place is not None
        row = self.log.attempts[place]
        real_ms = row.cap_ms if to_the_cap else data.draw(st.integers(0, row.cap_ms), label="milliseconds")
        attempt = self.ledger.record(job, real_ms)
        assert (attempt.began, attempt.timeout_ms, attempt.cap_ms) == (row.began, row.timeout_ms, row.cap_ms)
        self.log.attempts[place] = structs.replace(row, real_ms=real_ms)
        self.real_ms += real_ms

    @precondition(has_pause)
    @rule(data=st.data(), timeout_ms=TIMES_MS)
    def retry(self, data: st.DataObject, timeout_ms: int) -> None:
        job = data.draw(st.sampled_from(self.between_attempts()), label="execution")
        day = self.log.of_date(wall_at(self.log.executions[job].started, self.zone).date(), self.zone)
        left_ms = self.quotas.milliseconds_per_day_max - self.log.recorded_ms(day)
        cap_ms = self.ledger.retry(job, timeout_ms, self.now, self.quotas, self.zone)
        assert cap_ms == (None if left_ms <= 0 else min(timeout_ms, left_ms))
        if cap_ms is not None:
            self.log.attempts.append(AttemptRow(job, self.now, timeout_ms, cap_ms, None))

    @precondition(has_pause)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.between_attempts()), label="execution")
        self.ledger.end(job)
        self.log.executions[job] = structs.replace(self.log.executions[job], ended=True)

    # -- the daemon ---------------------------------------------------------------------------------------------------

    @rule()
    def prune(self) -> None:
        before = set(self.ledger.executions)  # what was pruned stays so, though the clock is set back
        self.ledger.prune(self.now)
        assert set(self.ledger.executions) == before & {row.id for row in self.log.kept(self.now)}

    @rule()
    def restart(self) -> None:
        rows = list(self.log.kept(self.now))
        ids = {row.id for row in rows}
        rebuilt = Ledger(rows, [row for row in self.log.attempts if row.execution in ids])
        self.ledger.prune(self.now)
        certain = self.never_pruned()
        assert {job: each for job, each in rebuilt.executions.items() if job in certain} == {
            job: each for job, each in self.ledger.executions.items() if job in certain
        }, "what was rebuilt is what was kept"
        self.ledger = rebuilt

    @invariant()
    def each_day_that_may_be_asked_for_is_as_the_log_has_it(self) -> None:
        moments = {self.now} | {row.started for row in self.log.executions.values() if not row.ended}
        for moment in moments:
            usage = self.ledger.usage(day_of(moment, self.zone))
            rows = self.log.of_date(wall_at(moment, self.zone).date(), self.zone)
            assert usage.executions == len(rows)
            assert usage.invocations == Counter(row.batch_job for row in rows)
            assert usage.recorded_ms == self.log.recorded_ms(rows)
            assert usage.in_progress_ms == self.log.in_progress_ms(rows)

    @invariant()
    def what_is_recorded_is_what_runs_took(self) -> None:
        assert self.real_ms == sum(row.real_ms for row in self.log.attempts if row.real_ms is not None)
        kept = self.never_pruned()
        ledger = {job: each.recorded_ms for job, each in self.ledger.executions.items() if job in kept}
        assert ledger == {job: self.log.recorded_ms([self.log.executions[job]]) for job in kept}


BatchDays.TestCase.settings = settings(max_examples=80, stateful_step_count=40)
test_whatever_happens_a_day_has_used_what_its_log_says = BatchDays.TestCase
