"""The one place that decides: events and a moment in, effects out.

`handle` takes everything that has happened since it was last asked, in order, and returns what is to be done, in
bulk. It is total: no event, however late or surprising, raises; what refers to something that is no longer there is
answered or ignored. The shell commits the records of the effects in one transaction and only then carries the rest
out, so what the scheduler holds in memory is at most one commit ahead of the database. When a commit fails the
scheduler is thrown away and built anew from the database (recovery.py); there is no undo.

Who holds a job:
    delayed                 `delayed`, by run_at
    queued, no waits        its lane in `backlog`
    queued, with waits      `jobs` alone; a deadline or an event takes the wait away
    running, stopping       `running`; its slot number is in its lane's `held`
Who has work in hand counts against its family's capacity (`busy`); an attempt that only waits gives its share back,
and when it wakes and there is none, it stands in `waking`, ahead of every job that has not started.
"""

from collections import deque
from collections.abc import Callable, Sequence
from enum import IntEnum
from heapq import heappop, heappush
from typing import Final, assert_never

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from leadline.core import events as ev
from leadline.core import heartbeats
from leadline.core.backlog import Backlog, Lane, eligible
from leadline.core.effects import (
    AccountRow,
    AdmittedJob,
    Answer,
    AttemptRow,
    CallClosed,
    CallRow,
    Effects,
    EndedJob,
    HistoryRow,
    JobChange,
    PauseRow,
    Receipt,
    RefuseCall,
    SendCall,
    SlotRow,
    StartAttempt,
    StopAttempt,
    WarnStalled,
)
from leadline.core.lifecycle import Trigger, move, start_and_complete
from leadline.core.model import (
    SECOND,
    Attempt,
    Call,
    Chain,
    Counts,
    Details,
    Family,
    Job,
    JobState,
    Kind,
    Limits,
    Now,
    Rules,
    StopCause,
    Stopping,
    Wait,
)
from leadline.core.provider_account import NeverFits, ProviderAccount
from leadline.core.rate_limit import NextReset
from leadline_protocol.errors import ErrorCode, JobReason, Refused
from leadline_protocol.ids import AccountName, CallId, Instant, JobId, TeamspaceId

INSTANT_JOBS_PER_DECISION: Final = 4096
"""Jobs without work that one decision starts and ends: bounds the time in which nothing else is heard."""

GRACE_SECONDS: Final = 60
"""How long an attempt that was asked to stop may let its calls in flight finish: the call timeout (Q10)."""

INTERRUPTION_SECONDS: Final = 1
"""How long a job rests whose attempt was interrupted by a fault that is not its own."""

_DROPPED: Final = frozenset({StopCause.STALLED, StopCause.WORKER_LOST})

_LEAST_GOOD: Final = [JobState.COMPLETED, JobState.SKIPPED, JobState.PARTIAL, JobState.CANCELLED, JobState.FAILED]


class StoredDetails(Struct, frozen=True, gc=False, omit_defaults=True):
    """What a live job's row holds beside its columns, as JSON."""

    waits: tuple[Wait, ...] = ()
    stall_kills: int = 0
    settled_at_kill: int = 0
    hung: tuple[int, ...] = ()
    """Leads that were in flight at the last stall kill."""
    cancelling: bool = False


class DeadlineKind(IntEnum):
    """What a deadline is for; deadlines of one instant go in this order."""

    FORCE = 0
    CHECK = 1
    WAIT = 2
    ACCOUNT = 3


class Waking(Struct, frozen=True, gc=False):
    """An attempt that could go on but for capacity."""

    job: JobId
    number: int
    call: CallId | None = None
    start: bool = False


class Scheduler:
    """The queue and everything that binds it, in memory."""

    def __init__(self, kinds: Sequence[Kind], rules: Rules, next_reset: NextReset | None = None) -> None:
        """`next_reset` knows the zones of daily limits; it is needed where an account has one."""
        self.kinds = tuple(kinds)
        self.rules = rules
        self._next_reset = next_reset
        self.names: dict[str, TeamspaceId] = {}
        self.teamspace_names: dict[TeamspaceId, str] = {}
        self.limits: dict[TeamspaceId, Limits] = {}
        """Limits in force of the teamspaces that have other than the default ones."""
        self.jobs: dict[JobId, Job] = {}
        self.backlog = Backlog(self._slots, self._is_blocked)
        self.delayed: list[tuple[Instant, JobId]] = []
        self.running: dict[JobId, Job] = {}
        self.chains: dict[JobId, Chain] = {}
        self.accounts: dict[AccountName, ProviderAccount] = {}
        self.calls: dict[CallId, Call] = {}
        self.busy: dict[Family, int] = dict.fromkeys(Family, 0)
        self.waking: dict[Family, deque[Waking]] = {family: deque() for family in Family}
        self.pauses: set[tuple[str, str]] = set()
        self.pending: dict[TeamspaceId, int] = {}
        """Jobs of a teamspace that are delayed or queued, a chain counted once: what max_queued bounds."""
        self.hung: dict[JobId, frozenset[int]] = {}
        self.next_job = 1
        self.next_teamspace = 1
        self._now = Now(Instant(0), Instant(0))
        """The moment of the decision that is being made."""
        self._effects = Effects()
        """Its outcome so far."""
        self._deadlines: list[tuple[Instant, DeadlineKind, int | str, int]] = []
        self._account_deadline: dict[AccountName, Instant] = {}
        self._touched: set[AccountName] = set()
        self._unsettled: set[tuple[JobId, int]] = set()
        self._changed: set[JobId] = set()
        self._admitted: dict[JobId, AdmittedJob] = {}
        self._keys: dict[tuple[str, bytes], tuple[JobId, bytes]] = {}

    # -- the contract -----------------------------------------------------------------------------------------------

    def handle(self, events: Sequence[ev.Event], now: Now) -> Effects:
        """Take in what happened, in order, and say what is to be done at this moment."""
        self._now = now
        effects = self._effects = Effects()
        for event in events:
            effects.answers.append(self._apply(event))
        self._meet_deadlines()
        while self._touched or self._unsettled:
            self._grant_permits()
            self._settle_waits()
            self._wake()
        self._start_jobs()
        self._describe_changes()
        self._admitted.clear()
        self._keys.clear()
        return effects

    def next_deadline(self, now: Now) -> Instant | None:
        """When to call `handle` again though nothing has happened; None: not before something does."""
        soonest = self._deadlines[0][0] if self._deadlines else None
        while self.delayed:
            run_at, number = self.delayed[0]
            job = self.jobs.get(number)
            if job is None or job.state is not JobState.DELAYED:
                heappop(self.delayed)
                continue
            due = Instant(now.instant + max(0, run_at - now.wall))
            return due if soonest is None else min(due, soonest)
        return soonest

    # -- recovery ---------------------------------------------------------------------------------------------------

    def know_teamspace(self, number: TeamspaceId, name: str) -> None:
        """Learn a teamspace that the database knows."""
        self.names[name] = number
        self.teamspace_names[number] = name
        self.next_teamspace = max(self.next_teamspace, number + 1)

    def adopt(
        self,
        job: Job,
        *,
        run_at: Instant | None,
        chain: JobId | None,
        step: int | None,
        attempts: int,
        started: Instant | None,
        waits: dict[JobReason, Wait],
        stored: StoredDetails | None,
        changed: bool,
    ) -> None:
        """Take over a live job of an earlier reign, in a state in which it has no attempt."""
        self.jobs[job.id] = job
        if run_at is not None or chain is not None or attempts or waits or stored is not None:
            job.details = Details(
                run_at=run_at, chain=chain, step=step, waits=waits, started=started, attempts=attempts,
                stall_kills=stored.stall_kills if stored else 0,
                settled_at_kill=stored.settled_at_kill if stored else 0,
            )  # fmt: skip
            if stored is not None and stored.hung:
                self.hung[job.id] = frozenset(stored.hung)
            for wait in waits.values():
                if wait.until is not None:
                    self._arm(wait.until, DeadlineKind.WAIT, job.id, attempts)
        if changed:
            self._changed.add(job.id)
        if chain is None and job.state in {JobState.DELAYED, JobState.QUEUED}:
            self.pending[job.teamspace] = self.pending.get(job.teamspace, 0) + 1
        if job.state is JobState.DELAYED:
            assert run_at is not None, "a delayed job has a run_at"
            heappush(self.delayed, (run_at, job.id))
        elif not self.kinds[job.kind].chain and eligible(job):
            self.backlog.put(job, self.kinds[job.kind].family)

    def adopt_chain(self, chain: JobId, live_steps: tuple[JobId, ...], *, stop_on_failure: bool) -> None:
        """Take over a chain: the steps that have ended are gone, so the first live one has its turn."""
        self.chains[chain] = Chain(chain, live_steps, stop_on_failure)

    def begin(self, now: Now, slots: Sequence[SlotRow], cancelling: Sequence[JobId]) -> Effects:
        """Make the first decision after a recovery."""
        events: list[ev.Event] = []
        for job_id in cancelling:
            if job_id in self.chains:
                events.append(ev.CancelAsked(self.chains[job_id].steps[0]))
            elif job_id in self.jobs:
                events.append(ev.CancelAsked(job_id))
        effects = self.handle(events, now)
        effects.records.slots_freed = [*slots, *effects.records.slots_freed]
        effects.answers.clear()
        return effects

    # -- events -----------------------------------------------------------------------------------------------------

    def _apply(self, event: ev.Event) -> Answer:
        match event:
            case ev.Submitted():
                return [self._admit(new) for new in event.jobs]
            case ev.AttemptFinished():
                self._attempt_finished(event)
            case ev.AttemptStopped():
                self._attempt_stopped(event)
            case ev.Progressed():
                self._progressed(event)
            case ev.Moved():
                if attempt := self._attempt(event.job, event.number):
                    attempt.moved = self._now.instant
            case ev.Beat():
                if attempt := self._attempt(event.job, event.number):
                    attempt.beaten = self._now.instant
                    attempt.activity = event.activity
            case ev.WaitOpened():
                self._wait_opened(event)
            case ev.WaitClosed():
                self._wait_closed(event)
            case ev.CallAsked():
                self._call_asked(event)
            case ev.CallSent():
                if call := self.calls.get(event.call):
                    self.accounts[call.account].sent(call.id, event.at)
                    self._touched.add(call.account)
            case ev.ResponseBegan():
                if call := self.calls.get(event.call):
                    self.accounts[call.account].response_began(call.id, event.at)
                    self._touched.add(call.account)
            case ev.CallEnded():
                self._call_ended(event)
            case ev.CancelAsked():
                return self._cancel(event)
            case ev.PauseSet():
                return self._pause(event)
            case ev.LimitsSet():
                self._limits_set(event)
            case ev.AccountLearned():
                self._account_learned(event)
            case ev.DaemonSlept():
                self._give_fresh_time(event.microseconds)
            case ev.Ticked():
                pass
            case _:
                assert_never(event)
        return None

    # -- admission --------------------------------------------------------------------------------------------------

    def _admit(self, new: ev.NewJob) -> Receipt | Refused:
        key = new.key
        if key is not None:
            first = self._first_under(new.teamspace, key)
            if first is not None:
                return first
        teamspace = self.names.get(new.teamspace)
        if teamspace is not None:
            limit = self.limits_of(teamspace).max_queued
            if self.pending.get(teamspace, 0) >= limit:
                message = f"{new.teamspace} has {limit} jobs queued, as many as its plan allows"
                return Refused(ErrorCode.QUEUE_FULL, message, at="teamspace", retry_after=60.0)
        else:
            teamspace = TeamspaceId(self.next_teamspace)
            self.next_teamspace += 1
            self.names[new.teamspace] = teamspace
            self.teamspace_names[teamspace] = new.teamspace
            self._effects.records.teamspaces.append((teamspace, new.teamspace))
        run_at = new.run_at
        if run_at is None and new.delay_microseconds:
            run_at = Instant(self._now.wall + new.delay_microseconds)
        delayed = run_at is not None and run_at > self._now.wall
        order = (run_at if delayed and run_at is not None else self._now.wall) - new.priority_microseconds
        state = JobState.DELAYED if delayed else JobState.QUEUED
        job = self._add_job(new, teamspace, order, state)
        steps: tuple[JobId, ...] = ()
        if new.steps:
            steps = self._add_steps(job, new)
        if key is not None:
            self._keys[new.teamspace, key.key_hash] = (job.id, key.body_hash)
        self.pending[teamspace] = self.pending.get(teamspace, 0) + 1
        kind = self.kinds[new.kind]
        if delayed and run_at is not None:
            job.details = job.details or Details()
            job.details.run_at = run_at
            heappush(self.delayed, (run_at, job.id))
            ahead = 0
        elif kind.chain:
            first_step = self.jobs[steps[0]]
            ahead = self.backlog.ahead_of(first_step, self.kinds[first_step.kind].family)
        else:
            lane = self.backlog.put(job, kind.family)
            ahead = lane.queued - 1 if new.priority_microseconds == 0 else self.backlog.ahead_of(job, kind.family)
            if lane.limit is not None and len(lane.held) >= lane.limit and new.priority_microseconds == 0:
                ahead += len(lane.held)
        return Receipt(job.id, state, ahead, duplicate=False, steps=steps)

    def _first_under(self, teamspace: str, key: ev.Key) -> Receipt | Refused | None:
        known = self._keys.get((teamspace, key.key_hash))
        state = JobState.QUEUED
        if known is None:
            if key.known is None:
                return None
            known = (key.known.job, key.known.body_hash)
            state = key.known.state
        job_id, body_hash = known
        if body_hash != key.body_hash:
            message = f"this idempotency_key was used for job {job_id} with another body"
            return Refused(ErrorCode.CONFLICT, message, at="idempotency_key")
        job = self.jobs.get(job_id)
        if job is None:
            return Receipt(job_id, state, 0, duplicate=True)
        family = self.kinds[job.kind].family
        ahead = self.backlog.ahead_of(job, family) if job.state is JobState.QUEUED else 0
        chain = self.chains.get(job_id)
        return Receipt(job_id, job.state, ahead, duplicate=True, steps=chain.steps if chain else ())

    def _add_job(
        self,
        new: ev.NewJob,
        teamspace: TeamspaceId,
        order: int,
        state: JobState,
        chain: JobId | None = None,
        step: int | None = None,
    ) -> Job:
        job_id = JobId(self.next_job)
        self.next_job += 1
        details = Details(chain=chain, step=step) if chain is not None else None
        job = Job(order, job_id, teamspace, new.kind, state, details)
        self.jobs[job_id] = job
        row = AdmittedJob(job_id, order, teamspace, state, Instant(self._now.wall), new, chain, step)
        self._admitted[job_id] = row
        self._effects.records.admitted.append(row)
        return job

    def _add_steps(self, chain: Job, new: ev.NewJob) -> tuple[JobId, ...]:
        steps: list[JobId] = []
        for index, step in enumerate(new.steps):
            job = self._add_job(step, chain.teamspace, chain.order, JobState.QUEUED, chain.id, index)
            assert job.details is not None
            first_may_start = index == 0 and chain.state is JobState.QUEUED
            if not first_may_start:
                job.details.waits[JobReason.PREVIOUS_STEP] = Wait(JobReason.PREVIOUS_STEP)
                self._changed.add(job.id)
            else:
                self.backlog.put(job, self.kinds[job.kind].family)
            steps.append(job.id)
        self.chains[chain.id] = Chain(chain.id, tuple(steps), new.stop_on_failure)
        return tuple(steps)

    # -- starting ---------------------------------------------------------------------------------------------------

    def _start_jobs(self) -> None:
        instant_jobs = 0
        for family in Family:
            capacity = self.rules.capacity.get(family)
            while capacity is None or (self.busy[family] < capacity and not self.waking[family]):
                taken = self.backlog.take(family)
                if taken is None:
                    break
                lane, job = taken
                if self.kinds[job.kind].instant:
                    self._start_and_complete(job)
                    self.backlog.done_with(lane)
                    instant_jobs += 1
                    if instant_jobs >= INSTANT_JOBS_PER_DECISION:
                        self._effects.more = True
                        break
                else:
                    self._start(job, lane)

    def _start_and_complete(self, job: Job) -> None:
        start_and_complete(job)
        del self.jobs[job.id]
        self._no_longer_pending(job)
        ended = EndedJob(
            job.id,
            JobState.COMPLETED,
            Instant(self._now.wall),
            Instant(self._now.wall),
            _NO_LEADS,
            None,
            "",
            self._admitted.pop(job.id, None),
        )
        self._effects.records.ended.append(ended)
        self._chain_started(job)
        self._chain_goes_on(job, JobState.COMPLETED)

    def _start(self, job: Job, lane: Lane, *, has_capacity: bool = True) -> None:
        slot = lane.free_slot()
        assert slot is not None, "the backlog offers a lane only while it has a free slot"
        lane.held.add(slot)
        self.backlog.offer(lane)
        family = lane.family
        self._no_longer_pending(job)
        move(job, Trigger.START)
        details = job.details = job.details or Details()
        details.attempts += 1
        if details.started is None:
            details.started = Instant(self._now.wall)
        attempt = Attempt(
            details.attempts, slot, self._now.instant, self._now.instant, self._now.instant, busy=has_capacity
        )
        details.attempt = attempt
        self.running[job.id] = job
        self._changed.add(job.id)
        self._chain_started(job)
        self._effects.records.attempts.append(AttemptRow(job.id, attempt.number))
        self._effects.records.slots_taken.append(SlotRow(job.teamspace, family, slot, job.id))
        self._tell(job, "started", f"attempt {attempt.number}")
        if has_capacity:
            self.busy[family] += 1
            self._send_off(job, attempt)
        else:
            self._wait_for_capacity(attempt, family, Waking(job.id, attempt.number, start=True))

    def _send_off(self, job: Job, attempt: Attempt) -> None:
        attempt.beaten = attempt.moved = self._now.instant
        family = self.kinds[job.kind].family
        self._effects.starts.append(StartAttempt(job.id, attempt.number, job.kind, job.teamspace, family))
        self._arm_check(job, attempt)

    # -- capacity ---------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        """Give free capacity to the attempts that wait for it, oldest wish first."""
        for family in Family:
            queue = self.waking[family]
            capacity = self.rules.capacity.get(family)
            while queue:
                waking = queue[0]
                attempt = self._attempt(waking.job, waking.number)
                if attempt is None or (attempt.stopping is not None and not waking.start):
                    queue.popleft()
                    if waking.call is not None:
                        self._drop_unsent(waking.call)
                    continue
                if not attempt.busy:
                    if capacity is not None and self.busy[family] >= capacity:
                        break
                    attempt.busy = True
                    self.busy[family] += 1
                queue.popleft()
                attempt.waits.pop(JobReason.CAPACITY, None)
                self._unsettled.add((waking.job, waking.number))
                self._resume(self.jobs[waking.job], attempt, waking)

    def _resume(self, job: Job, attempt: Attempt, waking: Waking) -> None:
        if waking.start:
            self._send_off(job, attempt)
        elif waking.call is not None:
            self._send(self.calls[waking.call])

    def _wants_to_go_on(self, job: Job, attempt: Attempt, waking: Waking) -> None:
        if attempt.busy:
            self._resume(job, attempt, waking)
        else:
            self._wait_for_capacity(attempt, self.kinds[job.kind].family, waking)

    def _wait_for_capacity(self, attempt: Attempt, family: Family, waking: Waking) -> None:
        attempt.waits[JobReason.CAPACITY] = Wait(JobReason.CAPACITY)
        self.waking[family].append(waking)
        self._unsettled.add((waking.job, waking.number))

    def _settle_waits(self) -> None:
        """Where waits have opened or closed: take or leave the share of the capacity, stop or start the stall clock."""
        while self._unsettled:
            job_id, number = self._unsettled.pop()
            attempt = self._attempt(job_id, number)
            if attempt is None:
                continue
            job = self.jobs[job_id]
            waiting = heartbeats.waiting(attempt)
            if attempt.busy and waiting and not attempt.flying:
                attempt.busy = False
                self.busy[self.kinds[job.kind].family] -= 1
            if attempt.waiting and not waiting:
                attempt.moved = self._now.instant
                attempt.warned = False
                self._arm_check(job, attempt)
            attempt.waiting = waiting
            self._yield_if_long(job, attempt)

    # -- ending -----------------------------------------------------------------------------------------------------

    def _attempt_finished(self, event: ev.AttemptFinished) -> None:
        attempt = self._attempt(event.job, event.number)
        if attempt is None:
            return
        job = self.jobs[event.job]
        attempt.counts = event.counts
        self._close_calls(attempt, "unknown", "job_ended")
        trigger = {
            JobState.COMPLETED: Trigger.COMPLETE,
            JobState.PARTIAL: Trigger.FINISH_PARTLY,
            JobState.FAILED: Trigger.FAIL,
        }[event.state]
        self._end(job, trigger, event.reason, event.message)

    def _attempt_stopped(self, event: ev.AttemptStopped) -> None:
        attempt = self._attempt(event.job, event.number)
        if attempt is None:
            return
        job = self.jobs[event.job]
        attempt.counts = event.counts
        cause = attempt.stopping.cause if attempt.stopping is not None else StopCause.INTERRUPTED
        leads_in_flight = frozenset(self.calls[call].lead for call in attempt.flying if call in self.calls)
        self._close_calls(attempt, "unknown", cause)
        self._tell(job, "stopped", f"{cause}: {event.evidence}" if event.evidence else cause)
        if cause is StopCause.CANCELLED:
            self._end(job, Trigger.CANCEL, JobReason.CANCELLED, "")
        elif cause in _DROPPED:
            self._after_kill(job, attempt, cause, leads_in_flight)
        else:
            if cause is StopCause.INTERRUPTED:
                until = Instant(self._now.instant + INTERRUPTION_SECONDS * SECOND)
                attempt.yielding_to = (Wait(JobReason.BACKOFF, until),)
            self._requeue(job, Trigger.YIELD)

    def _after_kill(self, job: Job, attempt: Attempt, cause: StopCause, leads: frozenset[int]) -> None:
        """Resume a killed job, or fail it after too many kills in a row with no lead in a final state between them."""
        details = job.details
        assert details is not None
        if job.state is JobState.RUNNING:
            move(job, Trigger.STOP)
        twice = leads & self.hung.get(job.id, frozenset())
        if attempt.counts.settled > details.settled_at_kill or details.stall_kills == 0:
            details.stall_kills = 0
            details.settled_at_kill = attempt.counts.settled
        details.stall_kills += 1
        self.hung[job.id] = leads
        if details.stall_kills >= self.rules.max_stall_kills and not twice:
            reason = JobReason.STALLED if cause is StopCause.STALLED else JobReason.WORKER_LOST
            message = f"killed {details.stall_kills} times in a row without a lead reaching its end in between"
            self._end(job, Trigger.FAIL, reason, message)
        else:
            self._requeue(job, Trigger.REQUEUE)

    def _requeue(self, job: Job, trigger: Trigger) -> None:
        details = job.details
        assert details is not None
        attempt = details.attempt
        assert attempt is not None
        move(job, trigger)
        details.attempt = None
        for wait in attempt.yielding_to:
            details.waits[wait.reason] = wait
            if wait.until is not None:
                self._arm(wait.until, DeadlineKind.WAIT, job.id, details.attempts)
        del self.running[job.id]
        self._give_back(job, attempt)
        self._pending_again(job)
        if ("job", str(job.id)) in self.pauses:
            details.waits[JobReason.PAUSED] = Wait(JobReason.PAUSED)
        if eligible(job):
            self.backlog.put(job, self.kinds[job.kind].family)
        self._changed.add(job.id)
        self._tell(job, "queued", "again, in its old place")

    def _end(self, job: Job, trigger: Trigger, reason: JobReason | None, message: str) -> None:
        """End a job that has an attempt, and let its chain go on."""
        details = job.details
        assert details is not None
        attempt = details.attempt
        assert attempt is not None
        state = move(job, trigger)
        details.attempt = None
        del self.running[job.id]
        self._give_back(job, attempt)
        self._leave(job, state, reason, message, started=True)
        self._chain_goes_on(job, state)

    def _leave(self, job: Job, state: JobState, reason: JobReason | None, message: str, *, started: bool) -> None:
        """Strike a job off: its record, its history, and nothing else."""
        del self.jobs[job.id]
        self._changed.discard(job.id)
        self.hung.pop(job.id, None)
        row = self._admitted.pop(job.id, None)
        self._effects.records.ended.append(
            EndedJob(job.id, state, Instant(self._now.wall), None, None, reason, message, None if started else row)
        )
        detail = f"{reason}: {message}" if reason and message else reason or ""
        self._tell(job, state, detail)

    def _give_back(self, job: Job, attempt: Attempt) -> None:
        """Return what an attempt held: its slot, its share of the capacity, its calls that were not sent."""
        family = self.kinds[job.kind].family
        lane = self.backlog.lane(job.teamspace, family)
        self._effects.records.slots_freed.append(SlotRow(job.teamspace, family, attempt.slot, job.id))
        if attempt.busy:
            self.busy[family] -= 1
        self._withdraw_asks(attempt)
        self.backlog.release(lane, attempt.slot)

    # -- chains -----------------------------------------------------------------------------------------------------

    def _chain_started(self, step: Job) -> None:
        if step.details is None or step.details.chain is None:
            return
        chain = self.jobs[step.details.chain]
        if chain.state is JobState.QUEUED:
            self._no_longer_pending(chain)
            move(chain, Trigger.START)
            self._changed.add(chain.id)
            self._tell(chain, "started", f"step 1 is job {step.id}")

    def _chain_goes_on(self, step: Job, state: JobState) -> None:
        """A step has ended: give the next one its turn in this very decision, or end the chain."""
        if step.details is None or step.details.chain is None:
            return
        chain = self.chains[step.details.chain]
        if _LEAST_GOOD.index(state) > _LEAST_GOOD.index(chain.worst):
            chain.worst = state
        chain.turn += 1
        chain_job = self.jobs[chain.id]
        stopped = chain_job.state is JobState.STOPPING
        failed = state in {JobState.FAILED, JobState.CANCELLED}
        if stopped or (failed and chain.stop_on_failure):
            self._skip_rest(chain, cancelled=stopped)
        if chain.turn < len(chain.steps):
            self._next_step(self.jobs[chain.steps[chain.turn]])
        else:
            self._end_chain(chain, chain_job)

    def _next_step(self, job: Job) -> None:
        assert job.details is not None
        job.details.waits.pop(JobReason.PREVIOUS_STEP, None)
        self._changed.add(job.id)
        if not eligible(job):
            return
        kind = self.kinds[job.kind]
        lane = self.backlog.lane(job.teamspace, kind.family)
        blocked = self._is_blocked(job.teamspace, kind.family)
        if kind.instant or blocked or lane.free_slot() is None:
            self.backlog.put(job, kind.family)
            return
        capacity = self.rules.capacity.get(kind.family)
        self._start(job, lane, has_capacity=capacity is None or self.busy[kind.family] < capacity)

    def _skip_rest(self, chain: Chain, *, cancelled: bool) -> None:
        rest = chain.steps[chain.turn :]
        chain.turn = len(chain.steps)
        for step_id in rest:
            step = self.jobs[step_id]
            state = move(step, Trigger.CANCEL if cancelled else Trigger.SKIP)
            reason = JobReason.CANCELLED if cancelled else JobReason.PREVIOUS_STEP_FAILED
            self._leave(step, state, reason, "", started=False)

    def _end_chain(self, chain: Chain, job: Job) -> None:
        if job.state is JobState.STOPPING:
            state = move(job, Trigger.CANCEL)
            reason: JobReason | None = JobReason.CANCELLED
        else:
            trigger = {
                JobState.COMPLETED: Trigger.COMPLETE,
                JobState.SKIPPED: Trigger.COMPLETE,
                JobState.PARTIAL: Trigger.FINISH_PARTLY,
                JobState.FAILED: Trigger.FAIL,
                JobState.CANCELLED: Trigger.FAIL,
            }[chain.worst]
            reason = JobReason.PREVIOUS_STEP_FAILED if trigger is Trigger.FAIL else None
            state = move(job, trigger)
        del self.chains[chain.id]
        self._leave(job, state, reason, "", started=True)

    # -- progress and waits -----------------------------------------------------------------------------------------

    def _progressed(self, event: ev.Progressed) -> None:
        attempt = self._attempt(event.job, event.number)
        if attempt is None:
            return
        if event.counts.settled > attempt.counts.settled or event.counts.total != attempt.counts.total:
            attempt.moved = self._now.instant
            attempt.warned = False
        attempt.beaten = self._now.instant
        attempt.counts = event.counts
        if event.activity:
            attempt.activity = event.activity

    def _wait_opened(self, event: ev.WaitOpened) -> None:
        attempt = self._attempt(event.job, event.number)
        if attempt is None:
            return
        attempt.waits[event.wait.reason] = event.wait
        self._unsettled.add((event.job, event.number))

    def _wait_closed(self, event: ev.WaitClosed) -> None:
        attempt = self._attempt(event.job, event.number)
        if attempt is None:
            return
        attempt.waits.pop(event.reason, None)
        self._unsettled.add((event.job, event.number))

    def _waits_of(self, job: Job, attempt: Attempt, instant: Instant) -> list[Wait]:
        waits = list(attempt.waits.values())
        for name in {self.calls[call].account for call in attempt.asking}:
            binding = self.accounts[name].binding(job.teamspace, instant)
            if binding is not None:
                waits.append(replace(binding, numbers={"provider": name, **binding.numbers}))
        return waits

    def waits_of(self, job: Job, instant: Instant) -> list[Wait]:
        """Everything that keeps a queued or running job from going on, in no order."""
        details = job.details
        if details is None:
            return []
        waits = list(details.waits.values())
        if details.attempt is not None:
            waits += self._waits_of(job, details.attempt, instant)
        return waits

    def _yield_if_long(self, job: Job, attempt: Attempt) -> None:
        """Give the slot to the teamspace's next job where every wait is known to last long (Q7)."""
        if attempt.busy or attempt.stopping is not None or not heartbeats.waiting(attempt):
            return
        horizon = self._now.instant + self.rules.yield_slot_after_seconds * SECOND
        waits = self._waits_of(job, attempt, self._now.instant)
        if all(wait.until is not None and wait.until > horizon for wait in waits):
            attempt.yielding_to = tuple(waits)
            self._stop(job, Stopping(StopCause.YIELDED, forced=False))

    # -- calls ------------------------------------------------------------------------------------------------------

    def _call_asked(self, event: ev.CallAsked) -> None:
        attempt = self._attempt(event.job, event.number)
        if attempt is None or attempt.stopping is not None:
            self._effects.refused_calls.append(RefuseCall(event.call, event.account, None))
            return
        job = self.jobs[event.job]
        account = self.accounts.get(event.account)
        if account is None:
            self._effects.refused_calls.append(RefuseCall(event.call, event.account, JobReason.INVALID_KEY))
            return
        refusal = account.ask(
            event.call,
            teamspace=job.teamspace,
            order=job.order,
            cost=event.cost,
            weight=self.limits_of(job.teamspace).weight,
            interactive=event.interactive,
        )
        if isinstance(refusal, NeverFits):
            self._effects.refused_calls.append(RefuseCall(event.call, event.account, JobReason.LIMIT))
            return
        self.calls[event.call] = Call(event.call, event.account, event.job, event.number, event.lead)
        attempt.asking.add(event.call)
        self._touched.add(event.account)
        self._unsettled.add((event.job, event.number))

    def _grant_permits(self) -> None:
        while self._touched:
            name = self._touched.pop()
            account = self.accounts[name]
            for call_id in account.grants(self._now.instant):
                call = self.calls[call_id]
                attempt = self._attempt(call.job, call.attempt)
                assert attempt is not None, "an attempt's asks are withdrawn when it ends"
                call.granted = True
                attempt.asking.discard(call_id)
                attempt.flying.add(call_id)
                self._unsettled.add((call.job, call.attempt))
                job = self.jobs[call.job]
                self._wants_to_go_on(job, attempt, Waking(call.job, call.attempt, call_id))
            self._arm_account(name)

    def _send(self, call: Call) -> None:
        account = self.accounts[call.account]
        cost = msgspec.json.encode(account.cost_of(call.id))
        self._effects.records.calls_sent.append(
            CallRow(call.id, call.job, call.attempt, call.lead, call.account, cost, self._now.instant)
        )
        self._effects.sends.append(SendCall(call.id, call.account, call.job))

    def _call_ended(self, event: ev.CallEnded) -> None:
        call = self.calls.pop(event.call, None)
        if call is None:
            return
        account = self.accounts[call.account]
        end = event.end
        standing = account.standing
        state = ""
        if end.unsent:
            account.withdraw(call.id)
            state = "unsent"
        elif end.throttled:
            account.throttled(call.id, end.retry_after, event.at)
            state = "throttled"
        else:
            account.ended(call.id, event.at, actual=end.cost, failed=end.failed)
            state = "failed" if end.failed else ""
        if end.parked is not None:
            account.park(end.parked, end.retry_after)
        if account.standing is not standing:
            self._describe_account(account)
        if state:
            self._effects.records.calls_closed.append(CallClosed(call.id, state, "", event.at))
        self._touched.add(call.account)
        attempt = self._attempt(call.job, call.attempt)
        if attempt is not None:
            attempt.flying.discard(call.id)
            self._unsettled.add((call.job, call.attempt))

    def _drop_unsent(self, call_id: CallId) -> None:
        call = self.calls.pop(call_id, None)
        if call is not None:
            self.accounts[call.account].withdraw(call_id)
            self._touched.add(call.account)

    def _withdraw_asks(self, attempt: Attempt) -> None:
        for call_id in attempt.asking:
            call = self.calls.pop(call_id)
            self.accounts[call.account].withdraw(call_id)
            self._touched.add(call.account)
            self._effects.refused_calls.append(RefuseCall(call_id, call.account, None))
        attempt.asking.clear()

    def _close_calls(self, attempt: Attempt, state: str, cause: str) -> None:
        """An attempt is gone: whatever it had in flight will bring no result any more."""
        for call_id in attempt.flying:
            call = self.calls.pop(call_id, None)
            if call is None:
                continue
            self.accounts[call.account].ended(call_id, self._now.instant, failed=True)
            self._touched.add(call.account)
            self._effects.records.calls_closed.append(CallClosed(call_id, state, cause))
        attempt.flying.clear()

    def _account_learned(self, event: ev.AccountLearned) -> None:
        account = self.accounts.get(event.account)
        if account is None:
            self.accounts[event.account] = ProviderAccount(
                event.account,
                event.limits,
                next_reset=self._next_reset,
                flight_seconds=event.flight_seconds,
                failed_count=event.failed_count,
                interactive_share=event.interactive_share,
            )
            self.accounts[event.account].pause(paused=("provider", event.account) in self.pauses)
        else:
            for call_id in account.replace_limits(event.limits, self._now.instant):
                call = self.calls.pop(call_id)
                if (attempt := self._attempt(call.job, call.attempt)) is not None:
                    attempt.asking.discard(call_id)
                    self._unsettled.add((call.job, call.attempt))
                self._effects.refused_calls.append(RefuseCall(call_id, event.account, JobReason.LIMIT))
        self._touched.add(event.account)

    def _describe_account(self, account: ProviderAccount) -> None:
        state = msgspec.json.encode(account.snapshot(self._now.instant))
        self._effects.records.accounts[account.name] = AccountRow(account.name, state)

    # -- stopping and pausing ---------------------------------------------------------------------------------------

    def _stop(self, job: Job, order: Stopping) -> None:
        details = job.details
        assert details is not None
        attempt = details.attempt
        assert attempt is not None
        present = attempt.stopping
        if present is not None:
            cause = order.cause if order.cause is StopCause.CANCELLED else present.cause
            order = Stopping(cause, forced=present.forced or order.forced)
            if order == present:
                return
        attempt.stopping = order
        if order.cause in {StopCause.CANCELLED, *_DROPPED} and job.state is JobState.RUNNING:
            move(job, Trigger.STOP)
            self._changed.add(job.id)
        self._withdraw_asks(attempt)
        self._effects.stops.append(StopAttempt(job.id, attempt.number, job.teamspace, order))
        if not order.forced:
            self._arm(Instant(self._now.instant + GRACE_SECONDS * SECOND), DeadlineKind.FORCE, job.id, attempt.number)

    def _cancel(self, event: ev.CancelAsked) -> Refused | None:
        job = self.jobs.get(event.job)
        if job is None:
            return Refused(ErrorCode.NOT_FOUND, f"job {event.job} is not in the queue", at="job")
        if (chain := self.chains.get(job.id)) is not None:
            return self._cancel_chain(job, chain, event)
        if job.state in {JobState.RUNNING, JobState.STOPPING}:
            details = job.details
            assert details is not None
            attempt = details.attempt
            assert attempt is not None
            stalled = heartbeats.still_seconds(attempt, self._now.instant) >= self.rules.stall_after_seconds
            self._stop(job, Stopping(StopCause.CANCELLED, forced=event.force or stalled))
            return None
        self._cancel_unstarted(job)
        return None

    def _cancel_unstarted(self, job: Job) -> None:
        if eligible(job):
            self.backlog.withdraw(job, self.kinds[job.kind].family)
        self._no_longer_pending(job)
        state = move(job, Trigger.CANCEL)
        started = bool(job.details and job.details.attempts)
        self._leave(job, state, JobReason.CANCELLED, "", started=started)
        self._chain_goes_on(job, state)

    def _cancel_chain(self, job: Job, chain: Chain, event: ev.CancelAsked) -> Refused | None:
        step = self.jobs[chain.steps[chain.turn]]
        if job.state in {JobState.DELAYED, JobState.QUEUED}:
            if eligible(step):
                self.backlog.withdraw(step, self.kinds[step.kind].family)
            self._no_longer_pending(job)
            self._skip_rest(chain, cancelled=True)
            state = move(job, Trigger.CANCEL)
            del self.chains[chain.id]
            self._leave(job, state, JobReason.CANCELLED, "", started=False)
            return None
        if job.state is JobState.RUNNING:
            move(job, Trigger.STOP)
            self._changed.add(job.id)
        return self._cancel(ev.CancelAsked(step.id, event.force))

    def _pause(self, event: ev.PauseSet) -> Refused | None:
        scope = (event.scope, event.name)
        if event.scope == "job":
            job = self.jobs.get(JobId(int(event.name)))
            if job is None:
                return Refused(ErrorCode.NOT_FOUND, f"job {event.name} is not in the queue", at="job")
        if event.scope == "provider" and event.name not in self.accounts:
            return Refused(ErrorCode.UNKNOWN_PROVIDER, f"there is no provider {event.name}", at="provider")
        if event.scope == "teamspace" and event.name not in self.names:
            return Refused(ErrorCode.UNKNOWN_TEAMSPACE, f"there is no teamspace {event.name}", at="teamspace")
        if event.paused == (scope in self.pauses):
            return None
        self._effects.records.pauses.append(PauseRow(event.scope, event.name, event.paused))
        (self.pauses.add if event.paused else self.pauses.discard)(scope)
        match event.scope:
            case "provider":
                account = self.accounts[AccountName(event.name)]
                account.pause(paused=event.paused)
                self._describe_account(account)
                self._touched.add(AccountName(event.name))
            case "job":
                self._pause_job(self.jobs[JobId(int(event.name))], event.paused)
            case _:
                if event.paused:
                    for running in list(self.running.values()):
                        if self._is_blocked(running.teamspace, self.kinds[running.kind].family):
                            self._stop(running, Stopping(StopCause.PAUSED, forced=False))
                else:
                    self.backlog.reconsider()
        return None

    def _pause_job(self, job: Job, paused: bool) -> None:
        self._tell(job, "paused" if paused else "resumed", "")
        chain = self.chains.get(job.id)
        if chain is not None and chain.turn < len(chain.steps):
            job = self.jobs[chain.steps[chain.turn]]
        if job.state in {JobState.RUNNING, JobState.STOPPING}:
            if paused:
                self._stop(job, Stopping(StopCause.PAUSED, forced=False))
            return
        details = job.details = job.details or Details()
        if paused:
            if eligible(job):
                self.backlog.withdraw(job, self.kinds[job.kind].family)
            details.waits[JobReason.PAUSED] = Wait(JobReason.PAUSED)
        else:
            self._lift_wait(job, JobReason.PAUSED)
            self._lift_wait(job, JobReason.APPROVAL)
        self._changed.add(job.id)

    def _lift_wait(self, job: Job, reason: JobReason) -> None:
        details = job.details
        if details is None or details.waits.pop(reason, None) is None:
            return
        self._changed.add(job.id)
        if eligible(job):
            self.backlog.put(job, self.kinds[job.kind].family)

    def _limits_set(self, event: ev.LimitsSet) -> None:
        teamspace = self.names.get(event.teamspace)
        if teamspace is not None:
            self.limits[teamspace] = event.limits
            self.backlog.reconsider()

    # -- time -------------------------------------------------------------------------------------------------------

    def _meet_deadlines(self) -> None:
        while self._deadlines and self._deadlines[0][0] <= self._now.instant:
            _, kind, key, number = heappop(self._deadlines)
            match kind:
                case DeadlineKind.CHECK:
                    self._check_attempt(JobId(int(key)), number)
                case DeadlineKind.FORCE:
                    self._force(JobId(int(key)), number)
                case DeadlineKind.WAIT:
                    self._wait_is_over(JobId(int(key)))
                case DeadlineKind.ACCOUNT:
                    name = AccountName(str(key))
                    self._account_deadline.pop(name, None)
                    self._touched.add(name)
                case _:
                    assert_never(kind)
        while self.delayed and self.delayed[0][0] <= self._now.wall:
            _, job_id = heappop(self.delayed)
            job = self.jobs.get(job_id)
            if job is not None and job.state is JobState.DELAYED:
                self._is_due(job)

    def _is_due(self, job: Job) -> None:
        move(job, Trigger.DUE)
        self._changed.add(job.id)
        chain = self.chains.get(job.id)
        if chain is not None:
            self._lift_wait(self.jobs[chain.steps[0]], JobReason.PREVIOUS_STEP)
        elif eligible(job):
            self.backlog.put(job, self.kinds[job.kind].family)

    def _wait_is_over(self, job_id: JobId) -> None:
        job = self.jobs.get(job_id)
        if job is None or job.details is None or job.details.attempt is not None:
            return
        over = [w.reason for w in job.details.waits.values() if w.until is not None and w.until <= self._now.instant]
        for reason in over:
            self._lift_wait(job, reason)

    def _check_attempt(self, job_id: JobId, number: int) -> None:
        attempt = self._attempt(job_id, number)
        if attempt is None or attempt.stopping is not None:
            return
        job = self.jobs[job_id]
        verdict = heartbeats.judge(attempt, self.rules, self._now.instant)
        still = heartbeats.still_seconds(attempt, self._now.instant)
        match verdict:
            case heartbeats.Verdict.WORKER_LOST:
                self._tell(job, "worker_lost", f"no beat for {self.rules.beat_seconds_max} s")
                self._stop(job, Stopping(StopCause.WORKER_LOST, forced=True))
            case heartbeats.Verdict.STALLED:
                killing = self.rules.auto_kill_stalled
                if killing or not attempt.warned:
                    self._effects.warnings.append(WarnStalled(job_id, still, killing))
                    self._tell(job, "stalled", f"no progress for {still} s; {attempt.activity}")
                attempt.warned = True
                if killing:
                    self._stop(job, Stopping(StopCause.STALLED, forced=True))
            case heartbeats.Verdict.WARN:
                attempt.warned = True
                self._effects.warnings.append(WarnStalled(job_id, still, killed=False))
                self._tell(job, "standing_still", f"no progress for {still} s; {attempt.activity}")
            case heartbeats.Verdict.FINE:
                self._yield_if_long(job, attempt)
            case _:
                assert_never(verdict)
        if attempt.stopping is None:
            attempt.check = None
            self._arm_check(job, attempt)

    def _arm_check(self, job: Job, attempt: Attempt) -> None:
        """Make sure that the attempt is looked at when it could be overdue; one deadline of it is armed at a time."""
        check = heartbeats.next_check(attempt, self.rules)
        if attempt.check is None or check < attempt.check:
            attempt.check = check
            self._arm(check, DeadlineKind.CHECK, job.id, attempt.number)

    def _force(self, job_id: JobId, number: int) -> None:
        attempt = self._attempt(job_id, number)
        if attempt is not None and attempt.stopping is not None:
            self._stop(self.jobs[job_id], Stopping(attempt.stopping.cause, forced=True))

    def _give_fresh_time(self, microseconds: int) -> None:
        for job in self.running.values():
            attempt = job.details.attempt if job.details else None
            if attempt is not None:
                attempt.beaten = Instant(attempt.beaten + microseconds)
                attempt.moved = Instant(attempt.moved + microseconds)

    def _arm(self, instant: Instant, kind: DeadlineKind, key: int | str, number: int) -> None:
        heappush(self._deadlines, (instant, kind, key, number))

    def _arm_account(self, name: AccountName) -> None:
        deadline = self.accounts[name].next_deadline(self._now.instant)
        if deadline is None:
            return
        present = self._account_deadline.get(name)
        if present is None or deadline < present:
            self._account_deadline[name] = deadline
            self._arm(deadline, DeadlineKind.ACCOUNT, name, 0)

    # -- looking things up ------------------------------------------------------------------------------------------

    def limits_of(self, teamspace: TeamspaceId) -> Limits:
        """The teamspace's limits in force."""
        return self.limits.get(teamspace, self.rules.default_limits)

    def _slots(self, teamspace: TeamspaceId, family: Family) -> int | None:
        return self.limits_of(teamspace).slots.get(family)

    def _is_blocked(self, teamspace: TeamspaceId, family: Family) -> bool:
        pauses = self.pauses
        return bool(pauses) and (
            ("queue", "") in pauses
            or ("family", family.word) in pauses
            or ("teamspace", self.teamspace_names[teamspace]) in pauses
        )

    def _attempt(self, job_id: JobId, number: int) -> Attempt | None:
        job = self.running.get(job_id)
        if job is None or job.details is None:
            return None
        attempt = job.details.attempt
        return attempt if attempt is not None and attempt.number == number else None

    def _no_longer_pending(self, job: Job) -> None:
        if job.details is not None and job.details.chain is not None:
            return
        left = self.pending[job.teamspace] - 1
        if left:
            self.pending[job.teamspace] = left
        else:
            del self.pending[job.teamspace]

    def _pending_again(self, job: Job) -> None:
        if job.details is None or job.details.chain is None:
            self.pending[job.teamspace] = self.pending.get(job.teamspace, 0) + 1

    # -- records ----------------------------------------------------------------------------------------------------

    def _tell(self, job: Job, event: str, detail: str) -> None:
        self._effects.records.history.append(HistoryRow(job.id, Instant(self._now.wall), event, detail))

    def _describe_changes(self) -> None:
        for job_id in self._changed:
            job = self.jobs.get(job_id)
            if job is None:
                continue
            self._effects.records.changed[job_id] = JobChange(
                job_id,
                job.state,
                self._stored_details(job),
                job.details.attempts if job.details else 0,
                job.details.started if job.details else None,
            )
        self._changed.clear()

    def _stored_details(self, job: Job) -> bytes:
        details = job.details
        if details is None:
            return b""
        stored = StoredDetails(
            waits=tuple(details.waits.values()),
            stall_kills=details.stall_kills,
            settled_at_kill=details.settled_at_kill,
            hung=tuple(sorted(self.hung.get(job.id, ()))),
            cancelling=job.state is JobState.STOPPING and self._is_being_cancelled(job),
        )
        return _encode(stored) if stored != _NO_DETAILS else b""

    def _is_being_cancelled(self, job: Job) -> bool:
        if job.id in self.chains:
            return True
        attempt = job.details.attempt if job.details else None
        return attempt is not None and attempt.stopping is not None and attempt.stopping.cause is StopCause.CANCELLED


_encode: Final[Callable[[StoredDetails], bytes]] = msgspec.json.encode
_NO_DETAILS: Final = StoredDetails()
_NO_LEADS: Final = Counts()
