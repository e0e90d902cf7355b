"""What batch jobs say to schedules: how close starts may be, what the day allows, and what may be skipped for it.

The gap binds when a schedule is added, on the whole cycle of all schedules of the batch job. That all schedules of the
teamspace together can ask for more than a day has is no fault, as runs may take less than their timeouts: it is said.
"""

from collections.abc import Sequence
from itertools import islice
from typing import Final

from leadline.core.calendar.day_load import DayLimits, Overrun, Scheduled, overrun
from leadline.core.calendar.gaps import check_gap
from leadline.core.calendar.occurrences import occurrences
from leadline.core.calendar.schedules import Timetable, read_schedule
from leadline.core.calendar.zones import wall_at
from leadline.core.quota.ledger import KEPT_MICROSECONDS, Ledger
from leadline.core.quota.projection import Planned, project
from leadline.core.quota.quotas import Quotas, duration
from leadline.features.batch.ports import BatchJob, BatchStore, PlanOf
from leadline.ports.schedules import ScheduleStore
from leadline_protocol.errors import ErrorCode, JobReason, Refused
from leadline_protocol.ids import Instant
from leadline_protocol.messages import Batch, JobWarning, Submission

BATCH_JOBS_MAX: Final = 10_000

PLANNED_MAX: Final = 10_000
"""So many runs of each schedule are run forward at most."""


class BatchSchedules:
    """The rules of batch jobs (`ports.schedules.ScheduleRules`); other kinds have none."""

    def __init__(self, store: BatchStore, schedules: ScheduleStore, plan_of: PlanOf) -> None:
        self._store = store
        self._schedules = schedules
        self._plan_of = plan_of

    async def check(
        self, name: str, timetable: Timetable, submission: Submission, after: Instant
    ) -> Sequence[JobWarning]:
        """Whether there may be such a schedule; what people should know of it. Raises Refused."""
        if not isinstance(submission, Batch):
            return []
        teamspace = submission.teamspace
        plan = self._plan_of(teamspace)
        if not plan.enabled:
            raise Refused(ErrorCode.FORBIDDEN, f"batch jobs are not enabled for {teamspace}", at="teamspace")
        running = await self._running(teamspace)
        batch_jobs = await self._store.batch_jobs(teamspace, submission.batch_job, 0, 1)
        if not batch_jobs:
            message = f"{teamspace} has no batch job {submission.batch_job}"
            raise Refused(ErrorCode.NOT_FOUND, message, at="submission.batch_job")
        batch_job = batch_jobs[0]
        own = [(each, found) for each, owner, found in running if owner.id == batch_job.id and each != name]
        today = wall_at(after, timetable.zone).date()
        check_gap([*own, (name, timetable)], plan.quotas.schedule_gap_minutes_min, today, "timetable")
        asked = [
            Scheduled(found, owner.conduct.timeout_ms)
            for each, owner, found in [*running, (name, batch_job, timetable)]
            if each != name or found is timetable
        ]
        limits = DayLimits(plan.quotas.executions_per_day_max, plan.quotas.milliseconds_per_day_max)
        found = overrun(asked, plan.zone, limits, wall_at(after, plan.zone).date())
        return [] if found is None else [_warning(found, plan.quotas)]

    async def marks(
        self, submission: Submission, coming: Sequence[Instant], after: Instant, tried: Timetable | None = None
    ) -> Sequence[JobReason | None]:
        """For each time from then on at which it would be submitted, why it may be skipped."""
        if not isinstance(submission, Batch) or not coming:
            return [None] * len(coming)
        plan = self._plan_of(submission.teamspace)
        planned: list[Planned] = []
        names: list[str] = []
        running = await self._running(submission.teamspace)
        if tried is not None:
            batch_jobs = await self._store.batch_jobs(submission.teamspace, submission.batch_job, 0, 1)
            running += [("", batch_job, tried) for batch_job in batch_jobs]
        for _, batch_job, timetable in running:
            for each in islice(occurrences(timetable, after, coming[-1]), PLANNED_MAX):
                planned.append(Planned(each.instant, batch_job.id, batch_job.conduct.timeout_ms))
                names.append(batch_job.name)
        rows = await self._store.rows(submission.teamspace, Instant(after - KEPT_MICROSECONDS))
        refused = project(Ledger(rows.executions, rows.attempts), planned, plan.quotas, plan.zone)
        marked = {
            (name, each.at): mark.reason
            for name, each, mark in zip(names, planned, refused, strict=True)
            if mark is not None
        }
        return [marked.get((submission.batch_job, at)) for at in coming]

    async def _running(self, teamspace: str) -> list[tuple[str, BatchJob, Timetable]]:
        """The schedules that run batch jobs of a teamspace, each with its batch job."""
        found: list[tuple[str, BatchJob, Timetable]] = []
        for batch_job in await self._store.batch_jobs(teamspace, None, 0, BATCH_JOBS_MAX):
            for name in batch_job.schedules:
                stored = await self._schedules.page(teamspace, name, None, 1)
                found += [(name, batch_job, read_schedule(each.timetable)) for each in stored if not each.paused]
        return found


def _warning(found: Overrun, quotas: Quotas) -> JobWarning:
    first = found.first
    asks = f"{first.executions} executions and up to {duration(first.milliseconds)}"
    has = f"{quotas.executions_per_day_max} and {duration(quotas.milliseconds_per_day_max)}"
    message = (
        f"the schedules of the teamspace can ask for more than a day has, first on {first.day}: "
        f"{asks}, where the plan allows {has}; what is left over is skipped"
    )
    return JobWarning(code="overrun", message=message)
