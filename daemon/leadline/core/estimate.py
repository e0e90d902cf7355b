"""When a running job will be at its end, as a range: what is left of it, at the pace it goes, within its limits.

The pace of so many leads is known to about one part in the square root of their number, as of anything that is counted;
that is how wide the range is, and it narrows as the job goes on. But a job may begin faster than it can go on: a full
window of a provider is there at once, and the next one is shared with whoever waits. So no end is sooner than the
limits let anybody be who has them alone, and none is as late as the pace says where the teamspace's share of a limit
makes it later.

Nobody knows the end of what a person has to let go on, nor that of a job that has brought nothing to an end yet.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Final

from msgspec import Struct

from leadline.core.forecast import pauses_of
from leadline.core.model import SECOND, Attempt, Job, JobState, Now
from leadline.core.rate_limit import BucketLimit, ConcurrentLimit, Cost, DailyLimit, Limit, Unit, WindowLimit
from leadline.core.scheduler import Scheduler
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import AccountName, Instant

SECONDS_PER_DAY: Final = 86_400

_FLOWING: Final = frozenset(
    {JobReason.LIMIT, JobReason.CAPACITY, JobReason.POLL, JobReason.BULK_RESULT, JobReason.BACKOFF}
)
"""Waits that are part of the pace."""

_CALLS_SEEN: Final = 32
"""Calls of a job that are looked at for what a lead of it takes; they are much the same."""


class Tempo(Struct, frozen=True):
    """How a job has gone: the leads that its present attempt has brought to an end, and in what time."""

    leads: int
    seconds: float


class Share(Struct, frozen=True):
    """A limit that a job is under."""

    limit: Limit
    per_lead: float
    """Units that a lead takes."""
    part: float
    """What the job's teamspace has of it, while those wait who do now: 1 is all."""


def seconds_at_least(limit: Limit, units: Mapping[Unit, float]) -> float:
    """How long so many units take at least, if nobody else takes of the limit."""
    if isinstance(limit, ConcurrentLimit):
        return 0.0
    needed = units.get(limit.unit, 0)
    match limit:
        case WindowLimit():
            return limit.per_seconds * (math.ceil(needed / limit.amount) - 1) if needed else 0.0
        case DailyLimit():
            # The first of the days may be over in a moment.
            return SECONDS_PER_DAY * max(0, math.ceil(needed / limit.amount) - 2)
        case BucketLimit():
            return max(0.0, (needed - limit.burst) * limit.per_seconds / limit.amount)


def seconds_left(left: int, tempo: Tempo, shares: Sequence[Share]) -> tuple[float, float]:
    """How long so many leads will take, from and to; some must have been brought to an end."""
    spread = 1 + 1 / math.sqrt(tempo.leads)
    expected = left * tempo.seconds / tempo.leads
    soonest, latest = expected / spread, expected * spread
    for share in shares:
        soonest = max(soonest, _alone(share, left))
        latest = max(latest, _together(share, left))
    return soonest, max(soonest, latest)


def _alone(share: Share, left: int) -> float:
    limit = share.limit
    return 0.0 if isinstance(limit, ConcurrentLimit) else seconds_at_least(limit, {limit.unit: left * share.per_lead})


def _together(share: Share, left: int) -> float:
    limit = share.limit
    needed = left * share.per_lead / share.part
    match limit:
        case ConcurrentLimit():
            return 0.0
        case DailyLimit():
            return SECONDS_PER_DAY * math.floor(needed / limit.amount)
        case WindowLimit():
            return limit.per_seconds * math.ceil(needed / limit.amount)  # the present one may just have been used up
        case BucketLimit():
            return needed * limit.per_seconds / limit.amount


def ends(scheduler: Scheduler, job: Job, tempo: Tempo, now: Now) -> tuple[Instant, Instant] | None:
    """When a live job will be at its end, no sooner and no later; None: nobody knows."""
    attempt = job.details.attempt if job.details is not None else None
    if job.state is not JobState.RUNNING or attempt is None or not attempt.counts.total or tempo.leads <= 0:
        return None
    if pauses_of(scheduler, job):
        return None
    begin = now.instant
    for wait in scheduler.waits_of(job, now.instant):
        if wait.reason in _FLOWING:
            continue
        if wait.until is None:
            return None
        begin = max(begin, wait.until)
    soonest, latest = seconds_left(attempt.counts.pending, tempo, list(_shares(scheduler, job, attempt)))
    return Instant(begin + round(soonest * SECOND)), Instant(begin + round(latest * SECOND))


def _shares(scheduler: Scheduler, job: Job, attempt: Attempt) -> Iterator[Share]:
    costs: dict[AccountName, list[Cost]] = {}
    for number in islice(chain(attempt.asking, attempt.flying), _CALLS_SEEN):
        asked = scheduler.calls[number].account
        costs.setdefault(asked, []).append(scheduler.accounts[asked].cost_of(number))
    for name, known in costs.items():
        account = scheduler.accounts[name]
        if account.pace_per_second is not None:
            calls = max(1 / cost.lead if cost.lead else 1 for cost in known)
            steps = BucketLimit(1, 1 / account.pace_per_second, 1 + len(attempt.flying), Unit.REQUEST)
            yield Share(steps, calls, account.part(job.teamspace))
        for limit in account.limits:
            if not isinstance(limit, ConcurrentLimit):
                per_lead = max(_per_lead(cost, limit.unit) for cost in known)
                yield Share(limit, per_lead, account.part(job.teamspace))


def _per_lead(cost: Cost, unit: Unit) -> float:
    """What a lead takes at least: a call may be an order for many, one of several about it, or for our database."""
    units: int = getattr(cost, unit.value)
    if cost.lead:
        return units / cost.lead
    return min(1, units) if unit is Unit.RECORD else units
