"""Why a job does not go on, and when it may: the scheduler's own rules, read instead of carried out.

People ask two things of a job that stands in the queue: what holds it, and for how long. The first has an exact
answer, and it is a list: a job may be paused, wait for its teamspace's slot and for the servers, all at once, and
naming only one of them would send somebody to remove a wait behind which the next one stands. The second has an
answer only as far as the blockers name their ends. A range is given where all of them do: an answer may free a limit
sooner, and everybody who waits for it may go first. Nobody knows how long the job that holds the slot will take, so a
job behind it has no range, rather than one made up from averages.
"""

from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from leadline.core.model import SECOND, Attempt, Family, Job, JobState, Now, Wait
from leadline.core.scheduler import Scheduler
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import AccountName, Instant, JobId

_HOLDERS_NAMED_MAX: Final = 5
"""Jobs that are named as holding a teamspace's slots; there may be any number."""


class Why(Struct, frozen=True):
    """What holds a job back at one moment."""

    blockers: tuple[Wait, ...]
    """All of it; empty: nothing does."""
    jobs_ahead: int
    """Jobs that run or start before it: those of its teamspace and, where the family's capacity is used up, also the
    first job of every other teamspace that is older and may start."""
    earliest: Instant | None
    """It goes on no sooner than this; None: nobody can say."""
    latest: Instant | None
    """It goes on no later than this, unless something new comes in its way; None: nobody can say."""


def why(scheduler: Scheduler, job: JobId, now: Now, *, counted: bool = True) -> Why:
    """All that keeps a live job from starting or going on; nothing for a job that is not live.

    Without `counted` the jobs ahead may be too many in a long lane, where counting them takes long.
    """
    live = scheduler.jobs.get(job)
    if live is None:
        return Why((), 0, None, None)
    blockers = [*pauses_of(scheduler, live)]
    chain = scheduler.chains.get(live.id)
    if live.state is JobState.DELAYED:
        until = live.details.run_at if live.details is not None else None
        blockers.append(Wait(JobReason.DELAYED, until))
    if chain is not None and live.state is not JobState.DELAYED:
        live = scheduler.jobs[chain.left[0]]
    attempt = live.details.attempt if live.details is not None else None
    ahead = 0
    if attempt is not None:
        blockers += _of_attempt(scheduler, live, attempt, now)
    elif live.state is JobState.QUEUED:
        blockers += _of_queued(scheduler, live)
        ahead = _ahead(scheduler, live, counted=counted)
    return Why(tuple(blockers), ahead, *_range(scheduler, blockers, now))


def pauses_of(scheduler: Scheduler, job: Job) -> list[Wait]:
    """What a person has paused that holds this job."""
    scopes = [
        ("queue", ""),
        ("family", scheduler.kinds[job.kind].family.word),
        ("teamspace", scheduler.teamspaces.names[job.teamspace]),
        ("job", str(job.id)),
    ]
    if job.details is not None and job.details.chain is not None:
        scopes.append(("job", str(job.details.chain)))
    return [
        Wait(JobReason.PAUSED, None, {"scope": scope, "name": name} if name else {"scope": scope})
        for scope, name in scopes
        if (scope, name) in scheduler.pauses
    ]


def _of_attempt(scheduler: Scheduler, job: Job, attempt: Attempt, now: Now) -> list[Wait]:
    waits = [
        _capacity(scheduler, job) if wait.reason is JobReason.CAPACITY else wait for wait in attempt.waits.values()
    ]
    for name in sorted({scheduler.calls[call].account for call in attempt.asking}):
        account = scheduler.accounts[name]
        place = account.place(job.teamspace)
        for wait in account.waits(job.teamspace, now.instant):
            numbers: dict[str, int | float | str] = {"provider": name, **wait.numbers}
            if wait.reason is JobReason.LIMIT and place is not None:
                numbers["position"] = place
            waits.append(replace(wait, numbers=numbers))
    return waits


def _of_queued(scheduler: Scheduler, job: Job) -> list[Wait]:
    own = job.details.waits.values() if job.details is not None else ()
    waits = [wait for wait in own if wait.reason is not JobReason.PAUSED]
    family = scheduler.kinds[job.kind].family
    lane = scheduler.backlog.lanes.get((job.teamspace, family))
    if lane is not None and lane.limit is not None and len(lane.held) >= lane.limit:
        holders = _holders(scheduler, job, family)
        numbers: dict[str, int | float | str] = {"slots": lane.limit, "held": len(lane.held)}
        if holders:
            numbers["job"] = holders[0]
        if len(holders) > 1:
            numbers["jobs"] = ", ".join(map(str, holders[:_HOLDERS_NAMED_MAX]))
        waits.append(Wait(JobReason.SLOT, None, numbers))
    capacity = scheduler.rules.capacity.get(family)
    if capacity is not None and (scheduler.busy[family] >= capacity or scheduler.capacity.waking[family]):
        waits.append(_capacity(scheduler, job))
    return waits


def _holders(scheduler: Scheduler, job: Job, family: Family) -> list[JobId]:
    return sorted(
        other.id
        for other in scheduler.running.values()
        if other.teamspace == job.teamspace and scheduler.kinds[other.kind].family is family
    )


def _capacity(scheduler: Scheduler, job: Job) -> Wait:
    family = scheduler.kinds[job.kind].family
    capacity = scheduler.rules.capacity.get(family)
    numbers: dict[str, int | float | str] = {
        "in_hand": scheduler.busy[family],
        "waking": len(scheduler.capacity.waking[family]),
    }
    if capacity is not None:
        numbers["capacity"] = capacity
    return Wait(JobReason.CAPACITY, None, numbers)


def _ahead(scheduler: Scheduler, job: Job, *, counted: bool) -> int:
    family = scheduler.kinds[job.kind].family
    lane = scheduler.backlog.lanes.get((job.teamspace, family))
    if counted or lane is None:
        ahead = scheduler.backlog.ahead_of(job, family)
    else:
        ahead = scheduler.backlog.ahead_at_most(lane, job)
    capacity = scheduler.rules.capacity.get(family)
    if capacity is not None and scheduler.busy[family] >= capacity:
        ahead += len(scheduler.capacity.waking[family]) + scheduler.backlog.lanes_before(job, family)
    return ahead


def _range(scheduler: Scheduler, blockers: list[Wait], now: Now) -> tuple[Instant | None, Instant | None]:
    earliest = latest = now.instant
    for wait in blockers:
        if wait.until is None:
            return None, None
        latest = max(latest, Instant(wait.until + _line_microseconds(scheduler, wait, now)))
        if wait.reason is not JobReason.LIMIT:
            earliest = max(earliest, wait.until)
    return earliest, latest


def _line_microseconds(scheduler: Scheduler, wait: Wait, now: Now) -> int:
    """How long it takes until everybody who waits has been served: one after the other where calls are spread evenly,
    of a window as many at a time as fit if all cost as much as this one.
    """
    account = scheduler.accounts.get(AccountName(str(wait.numbers.get("provider"))))
    if wait.reason is not JobReason.LIMIT or account is None:
        return 0
    if "pace_per_second" in wait.numbers:
        return round(account.state(now.instant).waiting / float(wait.numbers["pace_per_second"]) * SECOND)
    if "per_seconds" not in wait.numbers:
        return 0
    calls_per_window = max(1, int(wait.numbers["amount"]) // max(1, int(wait.numbers["cost"])))
    windows = -(-account.state(now.instant).waiting // calls_per_window)
    return round(windows * float(wait.numbers["per_seconds"]) * SECOND)
