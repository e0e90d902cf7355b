"""Every invariant of the scheduler, as one function that asserts them all.

The model's docstrings say of each state which collection a job is in; the modules say what their counts count. Here
the same sentences are computed the slow way, from the jobs themselves, and compared. Nothing here is needed for
deciding: it is what the tests run after every step, the simulation after every event, and the daemon now and then.

All of it holds between two decisions, whatever has happened, except while `Effects.more` says that a decision was cut
short; then jobs without work may be left over that could start.
"""

from collections import Counter
from collections.abc import Collection, Mapping

from msgspec import Struct, field

from leadline.core import heartbeats
from leadline.core.backlog import Lane, eligible
from leadline.core.capacity import wants_share
from leadline.core.deadlines import Alarm
from leadline.core.model import Attempt, Call, Family, Job, JobState, Now, StopCause, Wait
from leadline.core.pauses import Scope
from leadline.core.places import suspicion_of
from leadline.core.quarantine import alone
from leadline.core.scheduler import Scheduler
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import AccountName, Instant, JobId, TeamspaceId

_LIVE = frozenset({JobState.DELAYED, JobState.QUEUED, JobState.RUNNING, JobState.STOPPING})
_PENDING = frozenset({JobState.DELAYED, JobState.QUEUED})
_ENDING = frozenset({StopCause.CANCELLED, StopCause.STALLED, StopCause.WORKER_LOST})

_LaneKey = tuple[TeamspaceId, Family]


class _Tally(Struct):
    """What the jobs themselves add up to: one pass over them, however many sentences there are to prove."""

    queued: dict[_LaneKey, int] = field(default_factory=dict)
    held: dict[_LaneKey, list[int]] = field(default_factory=dict)
    delayed: list[tuple[Instant | None, JobId]] = field(default_factory=list)
    delayed_by_family: Counter[Family] = field(default_factory=Counter)
    delayed_by_teamspace: Counter[TeamspaceId] = field(default_factory=Counter)
    pending: dict[TeamspaceId, int] = field(default_factory=dict)
    attempts: dict[JobId, Attempt] = field(default_factory=dict)
    steps: int = 0
    suspects: int = 0


def check(scheduler: Scheduler, now: Now, only: Collection[AccountName] | None = None) -> None:
    """Assert every invariant; O(everything that is live). Raises AssertionError with what is wrong and where.

    `only` is given after a decision that has nothing to store, and so has moved no job, nor changed what may run: what
    runs, its calls, and these accounts are all that can differ from what was found sound before.
    """
    tally = _Tally()
    if only is None:
        _check_jobs(scheduler, tally)
        _check_collections(scheduler, tally)
        _check_lanes(scheduler, tally)
        _check_chains(scheduler, tally)
    else:
        for job in scheduler.running.values():
            _check_running(scheduler, job, (job.teamspace, scheduler.kinds[job.kind].family), tally)
    _check_capacity(scheduler, tally)
    _check_calls(scheduler, tally)
    _check_accounts(scheduler, now, scheduler.accounts if only is None else only)


def _story(job: Job) -> str:
    details = job.details
    if details is None:
        return f"job {job.id} ({job.state})"
    return f"job {job.id} ({job.state}, waits {sorted(details.waits)}, attempt {details.attempt})"


# -- jobs -----------------------------------------------------------------------------------------------------------


def _check_jobs(scheduler: Scheduler, tally: _Tally) -> None:
    kinds, names, deadlines = scheduler.kinds, scheduler.teamspaces.names, scheduler.deadlines
    running, chains, resting = scheduler.running, scheduler.chains, scheduler.resting
    paused = {JobId(int(name)) for scope, name in scheduler.pauses if scope == Scope.JOB}
    assert paused <= scheduler.jobs.keys(), f"of jobs {paused} that are paused some have ended"
    heads = {chain.left[0] for chain in chains.values() if chain.left}
    queued, pending = tally.queued, tally.pending
    for job_id, job in scheduler.jobs.items():
        kind = kinds[job.kind]
        state, details, teamspace = job.state, job.details, job.teamspace
        assert job.id == job_id, f"job {job.id} is kept as {job_id}"
        assert teamspace in names, f"{_story(job)} belongs to nobody"
        assert kind.chain == (job_id in chains), f"{_story(job)} is a chain or not"
        chain = None
        waits: Mapping[JobReason, Wait] = {}
        if details is not None:
            chain, waits = details.chain, details.waits
            tally.steps += chain is not None
            if details.suspicion is not None:
                tally.suspects += 1
                assert scheduler.suspects.get(job_id) is job, f"{_story(job)} is suspected and not watched"
        if state is not JobState.QUEUED:
            assert state in _LIVE, f"{_story(job)} has ended and is still here"
            if state is JobState.DELAYED:
                tally.delayed.append((details.run_at if details is not None else None, job_id))
                tally.delayed_by_family[kind.family] += 1
                tally.delayed_by_teamspace[teamspace] += 1
            elif not kind.chain:
                _check_running(scheduler, job, (teamspace, kind.family), tally)
                continue
        if chain is None and (state is JobState.QUEUED or state is JobState.DELAYED):
            pending[teamspace] = pending.get(teamspace, 0) + 1
        assert job_id not in running, f"{_story(job)} is among the running"
        assert details is None or details.attempt is None, f"{_story(job)} does not run"
        if kind.chain:
            continue
        ends = False
        for wait in waits.values():
            ends = ends or wait.until is not None
        assert ends == (job_id in resting), f"{_story(job)} rests or not"
        assert not ends or (Alarm.WAIT, job_id, 0) in deadlines, f"{_story(job)} is never looked at again"
        held = bool(paused) and (job_id in paused or (chain in paused and job_id in heads))
        assert held == (JobReason.PAUSED in waits), f"{_story(job)} is paused or not"
        if state is JobState.QUEUED and not waits:
            lane = (teamspace, kind.family)
            queued[lane] = queued.get(lane, 0) + 1
    assert pending == scheduler.teamspaces.pending, f"pending are {pending}, counted {scheduler.teamspaces.pending}"


def _check_running(scheduler: Scheduler, job: Job, lane: _LaneKey, tally: _Tally) -> None:
    details = job.details
    assert details is not None
    attempt = details.attempt
    assert attempt is not None, f"{_story(job)} runs without an attempt"
    assert scheduler.running.get(job.id) is job, f"{_story(job)} is not among the running"
    assert not details.waits, f"{_story(job)} runs in spite of its waits"
    assert details.attempts == attempt.number, f"{_story(job)} counts its attempts otherwise"
    tally.attempts[job.id] = attempt
    tally.held.setdefault(lane, []).append(attempt.slot)
    _check_attempt(scheduler, job, attempt, lane)


def _check_attempt(scheduler: Scheduler, job: Job, attempt: Attempt, key: _LaneKey) -> None:
    lane = scheduler.backlog.lanes.get(key)
    assert lane is not None, f"{_story(job)} has no lane"
    assert attempt.slot in lane.held, f"{_story(job)} runs without its slot"
    stopping = attempt.stopping
    ending = stopping is not None and stopping.cause in _ENDING
    assert ending == (job.state is JobState.STOPPING), f"{_story(job)} is stopped for {stopping}"
    if stopping is not None:
        assert attempt.launched, f"{_story(job)} is stopped and has not been started"
        assert not attempt.asking, f"{_story(job)} is stopped and still asks"
        assert not attempt.held, f"{_story(job)} is stopped and still holds calls"
        if not stopping.forced:
            assert (Alarm.FORCE, job.id, attempt.number) in scheduler.deadlines, f"{_story(job)} may stop for ever"
    elif attempt.launched:
        assert (Alarm.CHECK, job.id, attempt.number) in scheduler.deadlines, f"{_story(job)} is never looked at again"
        assert (Alarm.PULSE, 0, 0) in scheduler.deadlines, f"{_story(job)} would be blamed for a pause of the daemon"
    assert attempt.waiting == heartbeats.waiting(attempt) or not attempt.launched, f"{_story(job)}: its clock is wrong"


def _check_collections(scheduler: Scheduler, tally: _Tally) -> None:
    jobs = scheduler.jobs
    for job_id, job in scheduler.running.items():
        assert jobs.get(job_id) is job, f"{_story(job)} runs and is not live"
    assert len(scheduler.suspects) == tally.suspects, f"{tally.suspects} are suspected, watched {scheduler.suspects}"
    running = [suspicion_of(job) for job in scheduler.suspects.values() if job.id in scheduler.running]
    assert len(running) < 2 or not any(map(alone, running)), f"suspects run together: {running}"
    for job_id, job in scheduler.resting.items():
        assert jobs.get(job_id) is job, f"{_story(job)} rests and is not live"
    heap = scheduler.delayed.heap
    by_family, by_teamspace = tally.delayed_by_family, tally.delayed_by_teamspace
    assert by_family == Counter(scheduler.delayed.by_family), f"delayed are {by_family}, counted otherwise"
    assert by_teamspace == scheduler.delayed.by_teamspace, f"delayed are {by_teamspace}, counted otherwise"
    if not heap and not tally.delayed:
        return
    delayed = Counter(
        entry
        for entry in heap
        if (sleeper := jobs.get(entry[1])) is not None
        and sleeper.state is JobState.DELAYED
        and sleeper.details is not None
        and sleeper.details.run_at == entry[0]
    )
    assert delayed == Counter(tally.delayed), f"delayed are {tally.delayed}, the heap has {delayed}"
    assert all(heap[(place - 1) // 2] <= heap[place] for place in range(1, len(heap))), "delayed is no heap"


# -- lanes and capacity ---------------------------------------------------------------------------------------------


def _check_lanes(scheduler: Scheduler, tally: _Tally) -> None:
    queued, held = tally.queued, tally.held
    backlog, jobs = scheduler.backlog, scheduler.jobs
    backlog.check()
    lanes = backlog.lanes
    assert lanes.keys() == queued.keys() | held.keys(), f"lanes are {[*lanes]}, used are {[*queued]} and {[*held]}"
    totals = dict.fromkeys(backlog.queued, 0)
    for key, lane in lanes.items():
        assert (lane.teamspace, lane.family) == key, f"{_name(scheduler, lane)} is kept as {key}"
        limit = scheduler.limits_of(lane.teamspace).slots.get(lane.family)
        assert lane.limit == limit, f"{_name(scheduler, lane)}: an old limit"
        slots = sorted(held.get(key, ()))
        assert slots == sorted(lane.held), f"{_name(scheduler, lane)} holds {lane.held}, attempts hold {slots}"
        live = {job.id: job for job in lane.heap if eligible(job)}
        for job in live.values():
            assert jobs.get(job.id) is job, f"{_name(scheduler, lane)} has {job.id}, which is not live"
            stranger = (job.teamspace, scheduler.kinds[job.kind].family) != key
            assert not stranger, f"{_name(scheduler, lane)} has {_story(job)}"
        there = queued.get(key, 0)
        assert lane.queued == len(live) == there, f"{_name(scheduler, lane)}: {lane.queued}, {[*live]}, {there}"
        if live:
            totals[lane.family] += there
            _check_idleness(scheduler, lane)
    assert totals == backlog.queued, f"queued are {totals}, counted {backlog.queued}"


def _name(scheduler: Scheduler, lane: Lane) -> str:
    return f"lane {scheduler.teamspaces.names[lane.teamspace]}/{lane.family.word}"


def _check_idleness(scheduler: Scheduler, lane: Lane) -> None:
    """A lane that could start a job is known as ready, and is ready only because there is no capacity."""
    head = lane.head()
    full = lane.limit is not None and len(lane.held) >= lane.limit
    blocked = scheduler.draining or scheduler.pauses.block(scheduler.teamspaces.names[lane.teamspace], lane.family)
    if head is None or full or blocked:
        return
    offered = lane.offered
    name = _name(scheduler, lane)
    assert offered is not None, f"{name} could start {head.id} and is not ready"
    assert offered is head or offered < head, f"{name} could start {head.id} and is ready only with {offered.id}"
    assert scheduler.kinds[head.kind].instant or not scheduler.capacity.room_for_new(lane.family), (
        f"{name} could start {head.id} and does not"
    )


def _check_capacity(scheduler: Scheduler, tally: _Tally) -> None:
    capacity = scheduler.capacity
    busy = dict.fromkeys(capacity.busy, 0)
    waiting: dict[Family, set[JobId]] = {family: set() for family in capacity.busy}
    for job_id, attempt in tally.attempts.items():
        job = scheduler.jobs[job_id]
        family = scheduler.kinds[job.kind].family
        busy[family] += attempt.busy
        if JobReason.CAPACITY in attempt.waits:
            waiting[family].add(job_id)
            assert not attempt.busy, f"{_story(job)} waits for what it has"
        elif not attempt.busy and attempt.stopping is None:
            assert not wants_share(attempt), f"{_story(job)} could go on and is not in line"
        assert attempt.busy or not attempt.flying, f"{_story(job)} has calls out without a share of the capacity"
        assert not (attempt.busy and attempt.held), f"{_story(job)} holds calls back for nothing"
        idle = attempt.resumes and heartbeats.waiting(attempt)
        assert not (attempt.busy and idle), f"{_story(job)} only waits and keeps its share"
        runs = not attempt.resumes and attempt.launched
        assert attempt.busy or not runs, f"{_story(job)} runs without a share of the capacity"
    assert busy == capacity.busy, f"busy are {busy}, counted {capacity.busy}"
    for family, line in capacity.waking.items():
        assert line.keys() == waiting[family], f"{family.word}: in line are {set(line)}, {waiting[family]} wait"
        if any(wants_share(attempt) for attempt in line.values()):
            assert not capacity.room(family), f"{family.word}: they stand in line before an open door"


# -- chains and pauses ----------------------------------------------------------------------------------------------


def _check_chains(scheduler: Scheduler, tally: _Tally) -> None:
    steps = 0
    for chain in scheduler.chains.values():
        job = scheduler.jobs[chain.id]
        assert chain.left, f"chain {chain.id} has nothing left and has not ended"
        assert set(chain.left) <= set(chain.steps), f"chain {chain.id} has strangers among its steps"
        steps += len(chain.left)
        first, *rest = (scheduler.jobs[step] for step in chain.left)
        for step in rest:
            assert step.state is JobState.QUEUED, f"{_story(step)} is not in its turn"
            assert step.details is not None
            assert JobReason.PREVIOUS_STEP in step.details.waits, f"{_story(step)} does not wait for its turn"
            assert step.details.chain == chain.id, f"{_story(step)} is not of chain {chain.id}"
        assert first.details is not None
        assert first.details.chain == chain.id, f"{_story(first)} is not of chain {chain.id}"
        waits = JobReason.PREVIOUS_STEP in first.details.waits
        assert waits == (job.state is JobState.DELAYED), f"{_story(first)} of {_story(job)} has its turn or not"
        if job.state in _PENDING:
            assert first.state is JobState.QUEUED, f"{_story(first)} of {_story(job)} has started alone"
    assert steps == tally.steps, f"{tally.steps} jobs are steps, chains have {steps} left"


# -- calls ----------------------------------------------------------------------------------------------------------


def _check_calls(scheduler: Scheduler, tally: _Tally) -> None:
    asking: dict[str, int] = dict.fromkeys(scheduler.accounts, 0)
    charged: dict[str, int] = dict.fromkeys(scheduler.accounts, 0)
    attempts = tally.attempts
    for call in scheduler.calls.values():
        attempt = attempts.get(call.job)
        assert attempt is not None, f"call {call.id} belongs to no attempt"
        assert attempt.number == call.attempt, f"call {call.id} belongs to an earlier attempt"
        if call.out:
            place = call.granted and call.id in attempt.flying
        elif call.granted:
            place = call.id in attempt.held
        else:
            place = call.id in attempt.asking
        assert place, f"call {call} is not where it should be in {attempt}"
        if not (call.out or attempt.resumes):
            assert not _is_paused(scheduler, call), f"call {call} waits in spite of a pause"
        (charged if call.granted else asking)[call.account] += 1
    known = sum([len(each.asking) + len(each.held) + len(each.flying) for each in attempts.values()])
    assert known == len(scheduler.calls), f"attempts know {known} calls, there are {len(scheduler.calls)}"
    for name, account in scheduler.accounts.items():
        assert account.asking == asking[name], f"{name}: {account.asking} wait, {asking[name]} ask"
        in_flight = account.in_flight
        assert in_flight == charged[name], f"{name}: {in_flight} are charged, {charged[name]} are known"


def _is_paused(scheduler: Scheduler, call: Call) -> bool:
    job, pauses = scheduler.jobs[call.job], scheduler.pauses
    blocked = pauses.block(scheduler.teamspaces.names[job.teamspace], scheduler.kinds[job.kind].family)
    return blocked or pauses.hold(job) or (Scope.PROVIDER, call.account) in pauses


def _check_accounts(scheduler: Scheduler, now: Now, changed: Collection[AccountName]) -> None:
    for name, account in scheduler.accounts.items():
        if name in changed:
            account.check()
        assert account.is_paused == ((Scope.PROVIDER, name) in scheduler.pauses), f"{name} is paused or not"
        if account.asking and (due := account.next_deadline(now.instant)) is not None:
            assert due > now.instant, f"{name} could grant a call and does not"
            assert (Alarm.ACCOUNT, name, 0) in scheduler.deadlines, f"{name} is never looked at again"
