"""Every invariant of the scheduler, as one function that asserts them all.

The model's docstrings say of each state which collection a job is in; the modules say what their counts count. Here
the same sentences are computed the slow way, from the jobs themselves, and compared. Nothing here is needed for
deciding: it is what the tests run after every step, the simulation after every event, and the daemon now and then.

All of it holds between two decisions, whatever has happened, except while `Effects.more` says that a decision was cut
short; then jobs without work may be left over that could start.
"""

from collections import Counter, defaultdict

from leadline.core import heartbeats
from leadline.core.backlog import Lane, eligible
from leadline.core.capacity import wants_share
from leadline.core.deadlines import Alarm
from leadline.core.model import ENDED, Attempt, Family, Job, JobState, Now, StopCause
from leadline.core.pauses import Scope
from leadline.core.scheduler import Scheduler
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import TeamspaceId

_RUNS = frozenset({JobState.RUNNING, JobState.STOPPING})


def check(scheduler: Scheduler, now: Now) -> None:
    """Assert every invariant; O(everything that is live). Raises AssertionError with what is wrong and where."""
    for job_id, job in scheduler.jobs.items():
        assert job.id == job_id, f"job {job.id} is kept as {job_id}"
        _check_job(scheduler, job)
    _check_collections(scheduler)
    _check_lanes(scheduler)
    _check_capacity(scheduler)
    _check_pending(scheduler)
    _check_chains(scheduler)
    _check_pauses(scheduler)
    _check_calls(scheduler, now)


def _family(scheduler: Scheduler, job: Job) -> Family:
    return scheduler.kinds[job.kind].family


def _attempt_of(job: Job) -> Attempt | None:
    return job.details.attempt if job.details is not None else None


def _story(job: Job) -> str:
    details = job.details
    if details is None:
        return f"job {job.id} ({job.state})"
    return f"job {job.id} ({job.state}, waits {sorted(details.waits)}, attempt {details.attempt})"


# -- jobs -----------------------------------------------------------------------------------------------------------


def _check_job(scheduler: Scheduler, job: Job) -> None:
    attempt = _attempt_of(job)
    is_chain = scheduler.kinds[job.kind].chain
    assert job.state not in ENDED, f"{_story(job)} has ended and is still here"
    assert is_chain == (job.id in scheduler.chains), f"{_story(job)} is a chain or not"
    assert job.teamspace in scheduler.teamspaces.names, f"{_story(job)} belongs to nobody"
    if is_chain or job.state not in _RUNS:
        assert attempt is None, f"{_story(job)} does not run itself"
        assert job.id not in scheduler.running, f"{_story(job)} is among the running"
    else:
        assert attempt is not None, f"{_story(job)} runs without an attempt"
        assert scheduler.running.get(job.id) is job, f"{_story(job)} is not among the running"
        _check_attempt(scheduler, job, attempt)
    if job.details is not None and attempt is None and not is_chain:
        ends = [wait.until for wait in job.details.waits.values() if wait.until is not None]
        assert bool(ends) == (job.id in scheduler.resting), f"{_story(job)} rests or not"
        if ends:
            assert (Alarm.WAIT, job.id, 0) in scheduler.deadlines, f"{_story(job)} is never looked at again"
    if job.details is not None and attempt is not None:
        assert not job.details.waits, f"{_story(job)} runs in spite of its waits"
        assert job.details.attempts == attempt.number, f"{_story(job)} counts its attempts otherwise"


def _check_attempt(scheduler: Scheduler, job: Job, attempt: Attempt) -> None:
    lane = scheduler.backlog.lanes.get((job.teamspace, _family(scheduler, job)))
    assert lane is not None, f"{_story(job)} has no lane"
    assert attempt.slot in lane.held, f"{_story(job)} runs without its slot"
    cause = attempt.stopping.cause if attempt.stopping is not None else None
    ending = cause in {StopCause.CANCELLED, StopCause.STALLED, StopCause.WORKER_LOST}
    assert ending == (job.state is JobState.STOPPING), f"{_story(job)} is stopped for {cause}"
    if attempt.stopping is not None:
        assert attempt.launched, f"{_story(job)} is stopped and has not been started"
        assert not attempt.asking, f"{_story(job)} is stopped and still asks"
        assert not attempt.held, f"{_story(job)} is stopped and still holds calls"
        if not attempt.stopping.forced:
            assert (Alarm.FORCE, job.id, attempt.number) in scheduler.deadlines, f"{_story(job)} may stop for ever"
    elif attempt.launched:
        assert (Alarm.CHECK, job.id, attempt.number) in scheduler.deadlines, f"{_story(job)} is never looked at again"
    assert attempt.waiting == heartbeats.waiting(attempt) or not attempt.launched, f"{_story(job)}: its clock is wrong"


def _check_collections(scheduler: Scheduler) -> None:
    for job_id, job in scheduler.running.items():
        assert scheduler.jobs.get(job_id) is job, f"{_story(job)} runs and is not live"
    for job_id, job in scheduler.resting.items():
        assert scheduler.jobs.get(job_id) is job, f"{_story(job)} rests and is not live"
    delayed = Counter(
        job_id
        for run_at, job_id in scheduler.delayed
        if (sleeper := scheduler.jobs.get(job_id)) is not None
        and sleeper.state is JobState.DELAYED
        and sleeper.details is not None
        and sleeper.details.run_at == run_at
    )
    expected = Counter(job.id for job in scheduler.jobs.values() if job.state is JobState.DELAYED)
    assert delayed == expected, f"delayed are {expected}, the heap has {delayed}"
    heap = scheduler.delayed
    assert all(heap[(place - 1) // 2] <= heap[place] for place in range(1, len(heap))), "delayed is no heap"


# -- lanes and capacity ---------------------------------------------------------------------------------------------


def _check_lanes(scheduler: Scheduler) -> None:
    queued: dict[tuple[TeamspaceId, Family], set[int]] = defaultdict(set)
    held: dict[tuple[TeamspaceId, Family], list[int]] = defaultdict(list)
    for job in scheduler.jobs.values():
        key = (job.teamspace, _family(scheduler, job))
        if eligible(job) and not scheduler.kinds[job.kind].chain:
            queued[key].add(job.id)
        if (attempt := _attempt_of(job)) is not None:
            held[key].append(attempt.slot)
    backlog = scheduler.backlog
    backlog.check()
    assert set(backlog.lanes) == {*queued, *held}, "a lane is there exactly while something of it is queued or runs"
    totals = dict.fromkeys(Family, 0)
    for key, lane in backlog.lanes.items():
        name = f"lane {scheduler.teamspaces.names[lane.teamspace]}/{lane.family.word}"
        assert (lane.teamspace, lane.family) == key, f"{name} is kept as {key}"
        assert lane.limit == scheduler.limits_of(lane.teamspace).slots.get(lane.family), f"{name}: an old limit"
        live = {job.id for job in lane.heap if eligible(job)}
        assert live == queued[key], f"{name} has {sorted(live)}, queued are {sorted(queued[key])}"
        assert lane.queued == len(live), f"{name} counts {lane.queued}, has {len(live)}"
        assert sorted(held[key]) == sorted(lane.held), f"{name} holds {lane.held}, attempts hold {held[key]}"
        totals[lane.family] += lane.queued
        _check_idleness(scheduler, lane, name)
    assert totals == backlog.queued, f"queued are {totals}, counted {backlog.queued}"


def _check_idleness(scheduler: Scheduler, lane: Lane, name: str) -> None:
    """A lane that could start a job is known as ready, and is ready only because there is no capacity."""
    head = lane.head()
    full = lane.limit is not None and len(lane.held) >= lane.limit
    blocked = scheduler.draining or scheduler.pauses.block(scheduler.teamspaces.names[lane.teamspace], lane.family)
    if head is None or full or blocked:
        return
    offered = lane.offered
    assert offered is not None, f"{name} could start {head.id} and is not ready"
    assert offered is head or offered < head, f"{name} could start {head.id} and is ready only with {offered.id}"
    assert scheduler.kinds[head.kind].instant or not scheduler.capacity.room_for_new(lane.family), (
        f"{name} could start {head.id} and does not"
    )


def _check_capacity(scheduler: Scheduler) -> None:
    busy = dict.fromkeys(Family, 0)
    waking: dict[Family, set[int]] = {family: set() for family in Family}
    for job in scheduler.running.values():
        attempt = _attempt_of(job)
        assert attempt is not None
        busy[_family(scheduler, job)] += attempt.busy
        if JobReason.CAPACITY in attempt.waits:
            waking[_family(scheduler, job)].add(job.id)
            assert not attempt.busy, f"{_story(job)} waits for what it has"
        elif not attempt.busy and attempt.stopping is None:
            assert not wants_share(attempt), f"{_story(job)} could go on and is not in line"
        assert attempt.busy or not attempt.flying, f"{_story(job)} has calls out without a share of the capacity"
        assert not (attempt.busy and attempt.held), f"{_story(job)} holds calls back for nothing"
        only_waits = heartbeats.waiting(attempt) and not attempt.flying
        assert not (attempt.busy and only_waits), f"{_story(job)} only waits and keeps its share"
    assert busy == scheduler.capacity.busy, f"busy are {busy}, counted {scheduler.capacity.busy}"
    for family in Family:
        line = scheduler.capacity.waking[family]
        assert set(line) == waking[family], f"{family.word}: in line are {set(line)}, {waking[family]} wait"
        if any(wants_share(attempt) for attempt in line.values()):
            assert not scheduler.capacity.room(family), f"{family.word}: they stand in line before an open door"


def _check_pending(scheduler: Scheduler) -> None:
    pending = Counter(
        job.teamspace
        for job in scheduler.jobs.values()
        if job.state in {JobState.DELAYED, JobState.QUEUED} and (job.details is None or job.details.chain is None)
    )
    assert pending == scheduler.teamspaces.pending, f"pending are {pending}, counted {scheduler.teamspaces.pending}"


# -- chains and pauses ----------------------------------------------------------------------------------------------


def _check_chains(scheduler: Scheduler) -> None:
    for job in scheduler.jobs.values():
        if job.details is not None and job.details.chain is not None:
            chain = scheduler.chains.get(job.details.chain)
            assert chain is not None, f"{_story(job)} is a step of nothing"
            assert job.id in chain.left, f"{_story(job)} is not what is left of its chain"
    for chain in scheduler.chains.values():
        job = scheduler.jobs[chain.id]
        assert chain.left, f"chain {chain.id} has nothing left and has not ended"
        assert set(chain.left) <= set(chain.steps), f"chain {chain.id} has strangers among its steps"
        first, *rest = (scheduler.jobs[step] for step in chain.left)
        for step in rest:
            assert step.state is JobState.QUEUED, f"{_story(step)} is not in its turn"
            assert step.details is not None
            assert JobReason.PREVIOUS_STEP in step.details.waits, f"{_story(step)} does not wait for its turn"
        assert first.details is not None
        waits = JobReason.PREVIOUS_STEP in first.details.waits
        assert waits == (job.state is JobState.DELAYED), f"{_story(first)} of {_story(job)} has its turn or not"
        if job.state in {JobState.DELAYED, JobState.QUEUED}:
            assert first.state is JobState.QUEUED, f"{_story(first)} of {_story(job)} has started alone"


def _check_pauses(scheduler: Scheduler) -> None:
    for scope, name in scheduler.pauses:
        if scope == Scope.JOB:
            assert int(name) in scheduler.jobs, f"job {name} is paused and has ended"
    heads = {chain.left[0] for chain in scheduler.chains.values()}
    for job in scheduler.jobs.values():
        if scheduler.kinds[job.kind].chain or _attempt_of(job) is not None:
            continue
        waits = job.details is not None and JobReason.PAUSED in job.details.waits
        is_step = job.details is not None and job.details.chain is not None
        paused = (Scope.JOB, str(job.id)) in scheduler.pauses
        if is_step and job.id in heads:
            paused = scheduler.pauses.hold(job)
        assert waits == paused, f"{_story(job)} is paused or not"


# -- calls ----------------------------------------------------------------------------------------------------------


def _check_calls(scheduler: Scheduler, now: Now) -> None:
    asking: Counter[str] = Counter()
    charged: Counter[str] = Counter()
    for call in scheduler.calls.values():
        (charged if call.granted else asking)[call.account] += 1
        job = scheduler.running.get(call.job)
        attempt = _attempt_of(job) if job is not None else None
        assert attempt is not None, f"call {call.id} belongs to no attempt"
        assert attempt.number == call.attempt, f"call {call.id} belongs to an earlier attempt"
        places = [call.id in attempt.asking, call.id in attempt.held, call.id in attempt.flying]
        assert places == [not call.granted, call.granted and not call.out, call.out], f"call {call} is at {places}"
    known = sum(
        len(attempt.asking) + len(attempt.held) + len(attempt.flying)
        for job in scheduler.running.values()
        if (attempt := _attempt_of(job)) is not None
    )
    assert known == len(scheduler.calls), f"attempts know {known} calls, there are {len(scheduler.calls)}"
    for name, account in scheduler.accounts.items():
        account.check()
        state = account.state(now.instant)
        assert state.waiting == asking[name], f"{name}: {state.waiting} wait, {asking[name]} ask"
        assert state.in_flight == charged[name], f"{name}: {state.in_flight} are charged, {charged[name]} are known"
        assert state.paused == ((Scope.PROVIDER, name) in scheduler.pauses), f"{name} is paused or not"
