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
    a chain, in any state   `chains`; the step whose turn it is is the first of its `left`

Every part of the rules has a module of its own, with its own state: who may start next (`backlog`), who has work in
hand (`capacity`), who may call a provider (`permits`), what people have paused (`pauses`), in what order steps follow
(`chains`), who is overdue (`heartbeats`). Here they meet: what an event means for each of them, and in which order
they are asked. First all events are taken in, then deadlines that have come; then permits are granted, whoever can go
on gets a share of the capacity, and last of all new jobs are started: work that has begun goes first.
"""

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Final, assert_never

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from leadline.core import chains, heartbeats
from leadline.core import events as ev
from leadline.core.backlog import Backlog, Lane, eligible
from leadline.core.capacity import Capacity, wants_share
from leadline.core.deadlines import Alarm, Deadlines
from leadline.core.decision import Decision
from leadline.core.effects import (
    AdmittedJob,
    Answer,
    AttemptRow,
    Effects,
    EndedJob,
    HistoryRow,
    JobChange,
    PauseRow,
    Receipt,
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
from leadline.core.pauses import Pauses, Scope
from leadline.core.permits import Permits
from leadline.core.rate_limit import NextReset
from leadline.core.teamspaces import Teamspaces
from leadline_protocol.errors import ErrorCode, JobReason, Refused
from leadline_protocol.ids import AccountName, CallId, Instant, JobId, LeadId, TeamspaceId

INSTANT_JOBS_PER_DECISION: Final = 8192
"""Jobs without work that one decision starts and ends: bounds the time in which nothing else is heard. More than one
block of a submitter holds, so that they need not wait in line and be written twice."""

GRACE_SECONDS: Final = 60
"""How long an attempt that was asked to stop may let its calls in flight finish: the call timeout (Q10)."""

INTERRUPTION_SECONDS: Final = 1
"""How long a job rests whose attempt was interrupted by a fault that is not its own."""

_PENDING: Final = frozenset({JobState.DELAYED, JobState.QUEUED})
_KILLED: Final = frozenset({StopCause.STALLED, StopCause.WORKER_LOST})
_QUEUE_FULL_RETRY_SECONDS: Final = 60.0


class StoredDetails(Struct, frozen=True, gc=False, omit_defaults=True):
    """What a live job's row holds beside its columns, as JSON."""

    waits: tuple[Wait, ...] = ()
    stall_kills: int = 0
    settled_at_kill: int = 0
    hung: tuple[LeadId, ...] = ()
    cancelling: bool = False
    steps: int = 0
    """Of a chain: how many it was submitted with."""
    worst: JobState = JobState.COMPLETED
    """Of a chain: the least good end of its steps so far."""


class Scheduler:
    """The queue and everything that binds it, in memory."""

    def __init__(self, kinds: Sequence[Kind], rules: Rules, next_reset: NextReset | None = None) -> None:
        """`next_reset` knows the zones of daily limits; it is needed where an account has one."""
        self.kinds = tuple(kinds)
        self.rules = rules
        self.teamspaces = Teamspaces()
        self.pauses = Pauses()
        self.draining = False
        """The daemon is about to end: nothing starts any more."""
        self.jobs: dict[JobId, Job] = {}
        self.delayed: list[tuple[Instant, JobId]] = []
        """A heap by run_at, which is wall time; entries of jobs that were cancelled stay until they come to the top."""
        self.backlog = Backlog(self._slots, self._is_blocked)
        self.running: dict[JobId, Job] = {}
        self.resting: dict[JobId, Job] = {}
        """Queued jobs with waits that end by themselves: those that gave their slot back for a long wait."""
        self.chains: dict[JobId, Chain] = {}
        self.capacity = Capacity(self._capacity_of)
        self.deadlines = Deadlines()
        self.permits = Permits(self.deadlines, next_reset)
        self.accounts = self.permits.accounts
        self.calls = self.permits.calls
        self.next_job = 1
        self._heard = Instant(0)
        """When the last decision was made."""
        self._decision = Decision(Now(Instant(0), Instant(0)))
        self._unsettled: dict[JobId, Attempt] = {}
        """Attempts of which waits or calls have changed in this decision."""
        self._unstored: dict[JobId, None] = {}
        """Jobs that recovery has put into another state than their rows have."""

    # -- the contract -----------------------------------------------------------------------------------------------

    def handle(self, events: Sequence[ev.Event], now: Now) -> Effects:
        """Take in what happened, in order, and say what is to be done at this moment."""
        decision = self._decision = Decision(now, changed=self._unstored)
        self._unstored = {}
        answers = decision.effects.answers
        for event in events:
            answers.append(self._apply(event))
        self._meet_deadlines()
        self._go_on()
        self._launch()
        self._describe_changes()
        self._heard = now.instant
        return decision.effects

    def next_deadline(self, now: Now) -> Instant | None:
        """When to call `handle` again though nothing has happened; None: not before something does."""
        soonest = self.deadlines.first()
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

    def adopt(self, job: Job, chain: Chain | None = None, *, changed: bool = False) -> None:
        """Take over a live job of an earlier reign, without an attempt; `chain` where it stands for one."""
        self.jobs[job.id] = job
        if changed:
            self._unstored[job.id] = None
        details = job.details
        if job.state in _PENDING and (details is None or details.chain is None):
            self.teamspaces.count(job.teamspace, +1)
        if job.state is JobState.DELAYED:
            assert details is not None
            assert details.run_at is not None
            heappush(self.delayed, (details.run_at, job.id))
        if chain is not None:
            self.chains[job.id] = chain
            return
        self._hold(job)
        if eligible(job):
            self.backlog.put(job, self.kinds[job.kind].family)
        elif details is not None:
            self._rest(job)

    def begin(self, now: Now, slots: Sequence[SlotRow], cancelling: Sequence[JobId]) -> Effects:
        """Make the first decision: give back all slots that are stored as held, finish what was being cancelled."""
        again = [
            HistoryRow(job, Instant(now.wall), "queued", "again, after a restart of the daemon")
            for job in self._unstored
        ]
        effects = self.handle([ev.CancelAsked(job) for job in cancelling], now)
        effects.answers.clear()
        effects.records.slots_freed[:0] = slots
        effects.records.history[:0] = again
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
                if (attempt := self._attempt(event.job, event.number)) is not None:
                    self._note_progress(attempt)
            case ev.Beat():
                if (attempt := self._attempt(event.job, event.number)) is not None:
                    heartbeats.beat(attempt, self._decision.now.instant)
                    attempt.activity = event.activity
            case ev.WaitOpened():
                if (attempt := self._attempt(event.job, event.number)) is not None:
                    attempt.waits[event.wait.reason] = event.wait
                    self._unsettled[event.job] = attempt
            case ev.WaitClosed():
                if (attempt := self._attempt(event.job, event.number)) is not None:
                    attempt.waits.pop(event.reason, None)
                    self._unsettled[event.job] = attempt
            case ev.CallAsked():
                self._call_asked(event)
            case ev.CallSent():
                self.permits.sent(event)
            case ev.ResponseBegan():
                self.permits.response_began(event)
            case ev.CallEnded():
                self._call_ended(event)
            case ev.CancelAsked():
                return self._cancel(event)
            case ev.PauseSet():
                return self._pause(event)
            case ev.LimitsSet():
                self.teamspaces.limits[event.teamspace] = event.limits
                self.backlog.reconsider()
            case ev.RulesSet():
                self.rules = event.rules
                self.backlog.reconsider()
            case ev.AccountLearned():
                self._account_learned(event)
            case ev.DaemonSlept():
                for job in self.running.values():
                    self._give_fresh_time(job.id, _attempt_of(job))
            case ev.DrainBegan():
                self.draining = True
                self._stop_blocked()
            case ev.Ticked():
                pass
            case _:
                assert_never(event)
        return None

    # -- admission --------------------------------------------------------------------------------------------------

    def _admit(self, new: ev.NewJob) -> Receipt | Refused:
        key = new.key
        if key is not None and (first := self._first_under(new.teamspace, key)) is not None:
            return first
        decision = self._decision
        now = decision.now
        teamspaces = self.teamspaces
        teamspace = teamspaces.numbers.get(new.teamspace)
        limit = teamspaces.limits_for(new.teamspace, self.rules).max_queued
        if (0 if teamspace is None else teamspaces.pending.get(teamspace, 0)) >= limit:
            message = f"{new.teamspace} has {limit} jobs queued, as many as its plan allows"
            return Refused(ErrorCode.QUEUE_FULL, message, at="teamspace", retry_after=_QUEUE_FULL_RETRY_SECONDS)
        if teamspace is None:
            teamspace = teamspaces.create(new.teamspace)
            decision.effects.records.teamspaces.append((teamspace, new.teamspace))
        order: int = now.instant  # one object for all jobs of a decision: 32 bytes fewer for each
        if new.priority_microseconds:
            order -= new.priority_microseconds
        state = JobState.QUEUED
        if new.run_at is not None or new.delay_microseconds:
            if new.run_at is None:
                new = replace(new, run_at=Instant(now.wall + new.delay_microseconds), delay_microseconds=0)
            assert new.run_at is not None
            if new.run_at > now.wall:
                order += new.run_at - now.wall
                state = JobState.DELAYED
        row = self._new_row(new, teamspace, order, state)
        if key is not None:
            decision.keys[new.teamspace, key.key_hash] = (row.id, key.body_hash)
        kind = self.kinds[new.kind]
        if kind.instant and state is JobState.QUEUED and self._is_clear(teamspace, kind.family):
            self._complete_at_once(row)
            return Receipt(row.id, state, 0)
        job = self._add_job(row)
        teamspaces.count(teamspace, +1)
        if state is JobState.DELAYED:
            assert new.run_at is not None
            job.details = Details(run_at=new.run_at)
            heappush(self.delayed, (new.run_at, job.id))
        if kind.chain:
            steps = self._add_steps(job, new)
            return Receipt(job.id, state, self._jobs_ahead(job), steps=steps)
        if state is JobState.DELAYED:
            return Receipt(job.id, state, 0)
        lane = self.backlog.put(job, kind.family)
        return Receipt(job.id, state, self.backlog.ahead_at_most(lane, job))

    def _first_under(self, teamspace: str, key: ev.Key) -> Receipt | Refused | None:
        known = self._decision.keys.get((teamspace, key.key_hash))
        state = None
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
            state = state or next(row.state for row in self._decision.effects.records.ended if row.id == job_id)
            return Receipt(job_id, state, 0, duplicate=True)
        chain = self.chains.get(job_id)
        steps = chain.steps if chain is not None else ()
        return Receipt(job_id, job.state, self._jobs_ahead(job), duplicate=True, steps=steps)

    def _jobs_ahead(self, job: Job) -> int:
        if job.state is not JobState.QUEUED:
            return 0
        if (chain := self.chains.get(job.id)) is not None:
            job = self.jobs[chain.left[0]]
        lane = self.backlog.lanes.get((job.teamspace, self.kinds[job.kind].family))
        return 0 if lane is None else self.backlog.ahead_at_most(lane, job)

    def _new_row(
        self,
        new: ev.NewJob,
        teamspace: TeamspaceId,
        order: int,
        state: JobState,
        chain: JobId | None = None,
        step: int | None = None,
    ) -> AdmittedJob:
        """Give a new job its id."""
        decision = self._decision
        job_id = JobId(self.next_job)
        self.next_job += 1
        row = AdmittedJob(job_id, order, teamspace, state, Instant(decision.now.wall), new, chain, step)
        decision.effects.records.admitted.append(row)
        return row

    def _add_job(self, row: AdmittedJob) -> Job:
        job = self.jobs[row.id] = Job(row.order, row.id, row.teamspace, row.new.kind, row.state)
        self._decision.admitted[row.id] = row
        return job

    def _add_steps(self, chain: Job, new: ev.NewJob) -> tuple[JobId, ...]:
        steps: list[JobId] = []
        for place, step in enumerate(new.steps):
            row = self._new_row(step, chain.teamspace, chain.order, JobState.QUEUED, chain.id, place)
            job = self._add_job(row)
            details = job.details = Details(chain=chain.id, step=place)
            steps.append(job.id)
            if place == 0 and chain.state is JobState.QUEUED:
                self.backlog.put(job, self.kinds[job.kind].family)
            else:
                details.waits[JobReason.PREVIOUS_STEP] = Wait(JobReason.PREVIOUS_STEP)
                self._change(job)
        self.chains[chain.id] = Chain(chain.id, tuple(steps), tuple(steps), new.stop_on_failure)
        chain.details = chain.details or Details()
        self._change(chain)
        return tuple(steps)

    def _is_clear(self, teamspace: TeamspaceId, family: Family) -> bool:
        """Whether a job without work needs no place in line: nobody of its family waits, and nothing holds it back."""
        return (
            not self.backlog.queued[family]
            and (teamspace, family) not in self.backlog.lanes
            and self._decision.instant_jobs < INSTANT_JOBS_PER_DECISION
            and self.capacity.room_for_new(family)
            and self._slots(teamspace, family) != 0
            and not self._is_blocked(teamspace, family)
        )

    def _complete_at_once(self, row: AdmittedJob) -> None:
        self._decision.instant_jobs += 1
        moment = row.submitted
        ended = EndedJob(row.id, JobState.COMPLETED, moment, moment, _NO_LEADS, None, "", row)
        self._decision.effects.records.ended.append(ended)

    # -- going on, and starting -------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Let everything go on that can, and start what may start, until nothing more follows from it."""
        while True:
            for call in self.permits.granted(self._decision.now.instant):
                attempt = self._attempt(call.job, call.attempt)
                assert attempt is not None, "an attempt's asks are withdrawn when it ends"
                attempt.asking.discard(call.id)
                if attempt.busy:
                    self.permits.send(call, attempt, self._decision)
                else:
                    attempt.held.append(call.id)
                self._unsettled[call.job] = attempt
            self._settle()
            self._wake()
            if self._is_settled():
                self._start_jobs()
                if self._is_settled():
                    break

    def _is_settled(self) -> bool:
        return not (self.permits.touched or self._unsettled)

    def _settle(self) -> None:
        """Where waits have opened or closed: take or leave the share of the capacity, stop or start the stall clock."""
        while self._unsettled:
            job_id = next(iter(self._unsettled))
            attempt = self._unsettled.pop(job_id)
            job = self.running.get(job_id)
            if job is None or _attempt_of(job) is not attempt:
                continue
            family = self.kinds[job.kind].family
            if attempt.busy:
                if heartbeats.waiting(attempt) and not attempt.flying:
                    self.capacity.give_back(family, attempt)
            elif attempt.stopping is None and wants_share(attempt):
                self.capacity.queue(family, job_id, attempt)
            waiting = heartbeats.waiting(attempt)
            if attempt.waiting and not waiting:
                attempt.moved = self._decision.now.instant
                attempt.warned = attempt.flagged = False
                self._arm_check(job, attempt)
            attempt.waiting = waiting
            self._yield_if_long(job, attempt)

    def _wake(self) -> None:
        """Give free capacity to the attempts that wait for it, oldest wish first."""
        for family in Family:
            while (job_id := self.capacity.wake(family)) is not None:
                attempt = _attempt_of(self.running[job_id])
                if not attempt.launched:
                    self._decision.launches[job_id] = attempt
                for call in attempt.held:
                    self.permits.send(self.calls[call], attempt, self._decision)
                attempt.held.clear()
                self._unsettled[job_id] = attempt

    def _start_jobs(self) -> None:
        decision = self._decision
        for family in Family:
            while self.capacity.room_for_new(family):
                if decision.instant_jobs >= INSTANT_JOBS_PER_DECISION:
                    decision.effects.more = True
                    return
                taken = self.backlog.take(family)
                if taken is None:
                    break
                lane, job = taken
                if self.kinds[job.kind].instant:
                    decision.instant_jobs += 1
                    self._start_and_complete(job)
                    self.backlog.done_with(lane)
                else:
                    self._start(job, lane)

    def _start_and_complete(self, job: Job) -> None:
        start_and_complete(job)
        decision = self._decision
        del self.jobs[job.id]
        decision.changed.pop(job.id, None)
        moment = Instant(decision.now.wall)
        row = decision.admitted.pop(job.id, None)
        decision.effects.records.ended.append(
            EndedJob(job.id, JobState.COMPLETED, moment, moment, _NO_LEADS, None, "", row)
        )
        if job.details is None or job.details.chain is None:
            self.teamspaces.count(job.teamspace, -1)
        else:
            self._step_started(job, job.details.chain)
            self._step_ended(job, JobState.COMPLETED)

    def _start(self, job: Job, lane: Lane) -> None:
        """Start a job that is in no lane any more: it gets a slot, and a share of the capacity or a place in line."""
        slot = lane.free_slot()
        assert slot is not None, "only a lane with a free slot is asked"
        lane.held.add(slot)
        self.backlog.offer(lane)
        decision = self._decision
        move(job, Trigger.START)
        details = job.details = job.details or Details()
        details.attempts += 1
        if details.started is None:
            details.started = Instant(decision.now.wall)
        attempt = Attempt(details.attempts, slot, decision.now.instant, decision.now.instant)
        details.attempt = attempt
        self.running[job.id] = job
        self._change(job)
        if details.chain is not None:
            self._step_started(job, details.chain)
        else:
            self.teamspaces.count(job.teamspace, -1)
        decision.effects.records.attempts.append(AttemptRow(job.id, attempt.number))
        decision.effects.records.slots_taken.append(SlotRow(job.teamspace, lane.family, slot, job.id))
        decision.started.add(job.id)
        decision.tell(job, "started", f"attempt {attempt.number}")
        if self.capacity.room_for_new(lane.family):
            self.capacity.take(lane.family, attempt)
            decision.launches[job.id] = attempt
        else:
            self.capacity.queue(lane.family, job.id, attempt)

    def _launch(self) -> None:
        """Hand over what is to run, now that nothing in this decision can stop it any more."""
        for job_id, attempt in self._decision.launches.items():
            job = self.jobs[job_id]
            attempt.launched = True
            attempt.beaten = attempt.moved = self._decision.now.instant
            family = self.kinds[job.kind].family
            self._decision.effects.starts.append(StartAttempt(job_id, attempt.number, job.kind, job.teamspace, family))
            self._arm_check(job, attempt)

    # -- ending -----------------------------------------------------------------------------------------------------

    def _attempt_finished(self, event: ev.AttemptFinished) -> None:
        attempt = self._attempt(event.job, event.number)
        if attempt is None:
            return
        attempt.counts = event.counts
        self.permits.abandon(attempt, "job_ended", self._decision)
        self._end(self.jobs[event.job], attempt, _FINISHES[event.state], event.reason, event.message)

    def _attempt_stopped(self, event: ev.AttemptStopped) -> None:
        attempt = self._attempt(event.job, event.number)
        if attempt is None:
            return
        attempt.counts = event.counts
        self._stopped(self.jobs[event.job], attempt, event.evidence)

    def _stopped(self, job: Job, attempt: Attempt, evidence: str) -> None:
        """An attempt is gone without having come to its end: what becomes of its job depends on why it was stopped."""
        cause = attempt.stopping.cause if attempt.stopping is not None else StopCause.INTERRUPTED
        hung = frozenset(self.calls[call].lead for call in attempt.flying if cause is StopCause.STALLED)
        self.permits.abandon(attempt, cause, self._decision)
        self._decision.tell(job, "stopped", f"{cause}: {evidence}" if evidence else cause)
        if cause is StopCause.CANCELLED:
            self._end(job, attempt, Trigger.CANCEL, JobReason.CANCELLED, "")
        elif cause in _KILLED:
            self._after_kill(job, attempt, cause, hung)
        else:
            if cause is StopCause.INTERRUPTED:
                until = Instant(self._decision.now.instant + INTERRUPTION_SECONDS * SECOND)
                attempt.yielding_to = (Wait(JobReason.BACKOFF, until),)
            self._requeue(job, attempt, Trigger.YIELD)

    def _after_kill(self, job: Job, attempt: Attempt, cause: StopCause, hung: frozenset[LeadId]) -> None:
        """Resume a killed job, or fail it after too many kills in a row with no lead in a final state between them.

        A lead that hung at an earlier stall kill too is about to be failed by the work itself, which is such an end.
        """
        details = job.details
        assert details is not None
        if details.stall_kills == 0 or attempt.counts.settled > details.settled_at_kill:
            details.stall_kills = 0
            details.settled_at_kill = attempt.counts.settled
        details.stall_kills += 1
        hung_twice = hung & details.hung
        details.hung = (details.hung | hung) - hung_twice
        if details.stall_kills >= self.rules.max_stall_kills and not hung_twice:
            reason = JobReason.STALLED if cause is StopCause.STALLED else JobReason.WORKER_LOST
            message = f"killed {details.stall_kills} times in a row without a lead reaching its end in between"
            self._end(job, attempt, Trigger.FAIL, reason, message)
        else:
            self._requeue(job, attempt, Trigger.REQUEUE)

    def _requeue(self, job: Job, attempt: Attempt, trigger: Trigger) -> None:
        details = job.details
        assert details is not None
        move(job, trigger)
        self._release(job, attempt)
        details.waits.update((wait.reason, wait) for wait in attempt.yielding_to)
        self._hold(job)
        if details.chain is None:
            self.teamspaces.count(job.teamspace, +1)
        if eligible(job):
            self.backlog.put(job, self.kinds[job.kind].family)
        else:
            self._rest(job)
        self._change(job)
        self._decision.tell(job, "queued", "again, in its old place")

    def _end(self, job: Job, attempt: Attempt, trigger: Trigger, reason: JobReason | None, message: str) -> None:
        """End a job that has an attempt, and let its chain go on."""
        state = move(job, trigger)
        self._release(job, attempt)
        self._leave(job, reason, message)
        self._step_ended(job, state)

    def _strike(self, job: Job, trigger: Trigger, reason: JobReason) -> None:
        """End a job that has no attempt; what it means for its chain is the caller's business."""
        assert job.id not in self.running, f"job {job.id} runs and must be stopped first"
        if eligible(job) and not self.kinds[job.kind].chain:
            self.backlog.withdraw(job, self.kinds[job.kind].family)
        if job.details is None or job.details.chain is None:
            self.teamspaces.count(job.teamspace, -1)
        move(job, trigger)
        self._leave(job, reason, "")

    def _leave(self, job: Job, reason: JobReason | None, message: str) -> None:
        """Take an ended job out of memory, and say how it ended."""
        decision = self._decision
        del self.jobs[job.id]
        decision.changed.pop(job.id, None)
        if self.resting.pop(job.id, None) is not None:
            self.deadlines.forget(Alarm.WAIT, job.id)
        pause = (Scope.JOB, str(job.id))
        if pause in self.pauses:
            self.pauses.set(pause, paused=False)
            decision.effects.records.pauses.append(PauseRow(*pause, paused=False))
        row = decision.admitted.pop(job.id, None)
        started = job.details.started if job.details is not None and row is not None else None
        decision.effects.records.ended.append(
            EndedJob(job.id, job.state, Instant(decision.now.wall), started, None, reason, message, row)
        )
        decision.tell(job, job.state, f"{reason}: {message}" if reason and message else reason or "")

    def _release(self, job: Job, attempt: Attempt) -> None:
        """Return what an attempt held: its slot, its share of the capacity, its calls that are not out."""
        details = job.details
        assert details is not None
        details.attempt = None
        del self.running[job.id]
        decision = self._decision
        decision.launches.pop(job.id, None)
        family = self.kinds[job.kind].family
        decision.free_slot(SlotRow(job.teamspace, family, attempt.slot, job.id))
        self.capacity.leave(family, job.id, attempt)
        self.capacity.give_back(family, attempt)
        self.permits.withdraw(attempt, decision)
        self.deadlines.forget(Alarm.CHECK, job.id, attempt.number)
        self.deadlines.forget(Alarm.FORCE, job.id, attempt.number)
        self.backlog.release(self.backlog.lane(job.teamspace, family), attempt.slot)

    # -- chains -----------------------------------------------------------------------------------------------------

    def _step_started(self, step: Job, chain_id: JobId) -> None:
        chain = self.jobs[chain_id]
        if chain.state is not JobState.QUEUED:
            return
        self.teamspaces.count(chain.teamspace, -1)
        move(chain, Trigger.START)
        assert chain.details is not None
        chain.details.started = Instant(self._decision.now.wall)
        self._change(chain)
        self._decision.tell(chain, "started", f"with its step {step.id}")

    def _step_ended(self, step: Job, state: JobState) -> None:
        """If it is a step: give the next one its turn in this very decision, or end the chain."""
        if step.details is None or step.details.chain is None:
            return
        chain = self.chains[step.details.chain]
        job = self.jobs[chain.id]
        had_turn = chain.left[0] == step.id
        skipped = chains.take_out(chain, step.id, state)
        self._change(job)
        if job.state is JobState.STOPPING:
            if had_turn:
                skipped, chain.left = chain.left + skipped, ()
            self._cancel_steps(skipped)
        else:
            for later in skipped:
                self._strike(self.jobs[later], Trigger.SKIP, JobReason.PREVIOUS_STEP_FAILED)
        if not chain.left:
            self._end_chain(chain, job)
        elif had_turn:
            following = self.jobs[chain.left[0]]
            if job.state is JobState.DELAYED:
                self._hold(following)
                self._change(following)
            else:
                self._give_turn(following)

    def _give_turn(self, step: Job) -> None:
        """The slot of the step before it passes on to it, unless it may not start now."""
        assert step.details is not None
        del step.details.waits[JobReason.PREVIOUS_STEP]
        self._change(step)
        self._hold(step)
        if not eligible(step):
            return
        kind = self.kinds[step.kind]
        lane = self.backlog.lane(step.teamspace, kind.family)
        if kind.instant or lane.free_slot() is None or self._is_blocked(step.teamspace, kind.family):
            self.backlog.put(step, kind.family)
        else:
            self._start(step, lane)

    def _cancel_steps(self, steps: Sequence[JobId]) -> None:
        for step in steps:
            self._strike(self.jobs[step], Trigger.CANCEL, JobReason.CANCELLED)

    def _end_chain(self, chain: Chain, job: Job) -> None:
        trigger, reason = chains.ending(chain, job.state)
        if job.state in {JobState.DELAYED, JobState.QUEUED}:
            self.teamspaces.count(job.teamspace, -1)
        move(job, trigger)
        del self.chains[chain.id]
        self._leave(job, reason, "")

    # -- progress and waits -----------------------------------------------------------------------------------------

    def _progressed(self, event: ev.Progressed) -> None:
        attempt = self._attempt(event.job, event.number)
        if attempt is None:
            return
        if event.counts.settled > attempt.counts.settled or event.counts.total != attempt.counts.total:
            self._note_progress(attempt)
        attempt.beaten = self._decision.now.instant
        attempt.counts = event.counts
        attempt.activity = event.activity or attempt.activity

    def _note_progress(self, attempt: Attempt) -> None:
        attempt.beaten = attempt.moved = self._decision.now.instant
        attempt.warned = attempt.flagged = False

    def waits_of(self, job: Job, instant: Instant) -> list[Wait]:
        """Everything of its own that keeps a queued or running job from going on, in no order."""
        details = job.details
        if details is None:
            return []
        waits = list(details.waits.values())
        attempt = details.attempt
        if attempt is not None:
            waits += [*attempt.waits.values(), *self.permits.waits(job, attempt, instant)]
        return waits

    def _yield_if_long(self, job: Job, attempt: Attempt) -> None:
        """Give the slot to the teamspace's next job where every wait is known to last long, or is for a person (Q7)."""
        if attempt.busy or attempt.stopping is not None or not heartbeats.waiting(attempt):
            return
        horizon = self._decision.now.instant + self.rules.yield_slot_after_seconds * SECOND
        waits = self.waits_of(job, self._decision.now.instant)
        if all(_is_long(wait, horizon) for wait in waits):
            attempt.yielding_to = tuple(waits)
            self._stop(job, Stopping(StopCause.YIELDED, forced=False))

    def _rest(self, job: Job) -> None:
        """A queued job's waits have changed: come back to it when the first ends of those that end by themselves."""
        assert job.details is not None
        ends = [wait.until for wait in job.details.waits.values() if wait.until is not None]
        if ends:
            self.resting[job.id] = job
            self.deadlines.arm(min(ends), Alarm.WAIT, job.id)
        elif self.resting.pop(job.id, None) is not None:
            self.deadlines.forget(Alarm.WAIT, job.id)

    def _lift_waits(self, job: Job, over: Callable[[Wait], bool]) -> None:
        """Take waits away from a job that has no attempt; without any it goes back into its lane."""
        details = job.details
        assert details is not None
        reasons = [reason for reason, wait in details.waits.items() if over(wait)]
        if not reasons:
            return
        for reason in reasons:
            del details.waits[reason]
        self._change(job)
        self._rest(job)
        if eligible(job):
            self.backlog.put(job, self.kinds[job.kind].family)

    # -- calls ------------------------------------------------------------------------------------------------------

    def _call_asked(self, event: ev.CallAsked) -> None:
        attempt = self._attempt(event.job, event.number)
        job = self.jobs[event.job] if attempt is not None else None
        weight = self.limits_of(job.teamspace).weight if job is not None else 1.0
        self.permits.ask(event, job, attempt, weight, self._decision)
        if attempt is not None:
            self._unsettled[event.job] = attempt

    def _call_ended(self, event: ev.CallEnded) -> None:
        call = self.permits.ended(event, self._decision)
        if call is None:
            return
        attempt = self._attempt(call.job, call.attempt)
        if attempt is not None:
            attempt.flying.discard(call.id)
            self._unsettled[call.job] = attempt
        if event.end.parked is JobReason.INVALID_KEY:
            for other in self.permits.of_account(call.account):
                self._refuse(other, JobReason.INVALID_KEY)

    def _refuse(self, call: Call, reason: JobReason) -> None:
        attempt = self._attempt(call.job, call.attempt)
        assert attempt is not None, "an attempt's asks are withdrawn when it ends"
        self.permits.refuse(call, reason, self._decision)
        attempt.asking.discard(call.id)
        if call.id in attempt.held:
            attempt.held.remove(call.id)
        self._unsettled[call.job] = attempt

    def _account_learned(self, event: ev.AccountLearned) -> None:
        paused = (Scope.PROVIDER, event.account) in self.pauses
        for call in self.permits.learn(event, self._decision, paused=paused):
            attempt = self._attempt(call.job, call.attempt)
            assert attempt is not None, "an attempt's asks are withdrawn when it ends"
            attempt.asking.discard(call.id)
            self._unsettled[call.job] = attempt
        self._recall(event.account)

    def _recall(self, account: AccountName) -> None:
        """What kept calls of this account may be gone: jobs that gave their slot back for it look again."""
        for job in list(self.resting.values()):
            self._lift_waits(job, lambda wait: wait.numbers.get("provider") == account)

    # -- stopping and pausing ---------------------------------------------------------------------------------------

    def _stop(self, job: Job, order: Stopping) -> None:
        attempt = _attempt_of(job)
        present = attempt.stopping
        if present is not None:
            cause = order.cause if order.cause is StopCause.CANCELLED else present.cause
            order = Stopping(cause, forced=present.forced or order.forced)
            if order == present:
                return
        attempt.stopping = order
        if order.cause in {StopCause.CANCELLED, *_KILLED} and job.state is JobState.RUNNING:
            move(job, Trigger.STOP)
            self._change(job)
        if not attempt.launched:
            self._stopped(job, attempt, "")
            return
        self.capacity.leave(self.kinds[job.kind].family, job.id, attempt)
        self.permits.withdraw(attempt, self._decision)
        self._unsettled[job.id] = attempt
        self._decision.effects.stops.append(StopAttempt(job.id, attempt.number, job.teamspace, order))
        if not order.forced:
            self._arm_force(job.id, attempt)

    def _cancel(self, event: ev.CancelAsked) -> Refused | None:
        job = self.jobs.get(event.job)
        if job is None:
            return Refused(ErrorCode.NOT_FOUND, f"job {event.job} is not in the queue", at="job")
        if (chain := self.chains.get(job.id)) is not None:
            return self._cancel_chain(job, chain, event)
        if job.id in self.running:
            still = heartbeats.still_seconds(_attempt_of(job), self._decision.now.instant)
            stalled = still >= self.rules.stall_after_seconds
            self._stop(job, Stopping(StopCause.CANCELLED, forced=event.force or stalled))
        else:
            self._strike(job, Trigger.CANCEL, JobReason.CANCELLED)
            self._step_ended(job, JobState.CANCELLED)
        return None

    def _cancel_chain(self, job: Job, chain: Chain, event: ev.CancelAsked) -> Refused | None:
        if job.state in {JobState.DELAYED, JobState.QUEUED}:
            left, chain.left = chain.left, ()
            self._cancel_steps(left)
            self._end_chain(chain, job)
            return None
        if job.state is JobState.RUNNING:
            move(job, Trigger.STOP)
            self._change(job)
        return self._cancel(ev.CancelAsked(chain.left[0], event.force))

    def _pause(self, event: ev.PauseSet) -> Refused | None:
        if (refused := self._pause_refused(event)) is not None:
            return refused
        changed = self.pauses.set((event.scope, event.name), paused=event.paused)
        if changed:
            self._decision.effects.records.pauses.append(PauseRow(event.scope, event.name, event.paused))
        match event.scope:
            case Scope.PROVIDER:
                self.permits.pause(AccountName(event.name), self._decision, paused=event.paused)
                if not event.paused:
                    self._recall(AccountName(event.name))
            case Scope.JOB:
                self._pause_job(self.jobs[JobId(int(event.name))], paused=event.paused, changed=changed)
            case _ if changed and event.paused:
                self._stop_blocked()
            case _ if changed:
                self.backlog.reconsider()
            case _:
                pass
        return None

    def _pause_refused(self, event: ev.PauseSet) -> Refused | None:
        name = event.name
        match event.scope:
            case Scope.QUEUE if not name:
                return None
            case Scope.FAMILY if name in {family.word for family in Family}:
                return None
            case Scope.TEAMSPACE:
                if name in self.teamspaces.numbers:
                    return None
                return Refused(ErrorCode.UNKNOWN_TEAMSPACE, f"there is no teamspace {name}", at="teamspace")
            case Scope.PROVIDER:
                if name in self.accounts:
                    return None
                return Refused(ErrorCode.UNKNOWN_PROVIDER, f"there is no provider {name}", at="provider")
            case Scope.JOB:
                if name.isdecimal() and JobId(int(name)) in self.jobs and str(int(name)) == name:
                    return None
                return Refused(ErrorCode.NOT_FOUND, f"job {name} is not in the queue", at="job")
            case _:
                return Refused(ErrorCode.BAD_REQUEST, f"there is no {event.scope} {name}".rstrip(), at="scope")

    def _pause_job(self, job: Job, *, paused: bool, changed: bool) -> None:
        if changed:
            self._decision.tell(job, "paused" if paused else "resumed")
        chain = self.chains.get(job.id)
        if chain is not None:
            job = self.jobs[chain.left[0]]
        if job.id in self.running:
            if paused:
                self._stop(job, Stopping(StopCause.PAUSED, forced=False))
        elif paused:
            if eligible(job):
                self.backlog.withdraw(job, self.kinds[job.kind].family)
            self._hold(job)
            self._change(job)
        elif job.details is not None and not self._is_held(job):
            self._lift_waits(job, lambda wait: wait.reason in {JobReason.PAUSED, JobReason.APPROVAL})

    def _hold(self, job: Job) -> None:
        """If a pause of its own, or in its turn one of its chain, is in force: have a job that has no attempt wait."""
        if self._is_held(job):
            details = job.details = job.details or Details()
            details.waits[JobReason.PAUSED] = Wait(JobReason.PAUSED)

    def _is_held(self, job: Job) -> bool:
        if not self.pauses.hold(job):
            return False
        chain = job.details.chain if job.details is not None else None
        return chain is None or (Scope.JOB, str(job.id)) in self.pauses or self.chains[chain].left[0] == job.id

    def _stop_blocked(self) -> None:
        for job in list(self.running.values()):
            if self._is_blocked(job.teamspace, self.kinds[job.kind].family):
                self._stop(job, Stopping(StopCause.PAUSED, forced=False))

    # -- time -------------------------------------------------------------------------------------------------------

    def _meet_deadlines(self) -> None:
        now = self._decision.now
        while (due := self.deadlines.pop(now.instant)) is not None:
            armed, alarm, key, number = due
            late = now.instant - armed > heartbeats.LATE_SECONDS * SECOND
            match alarm:
                case Alarm.CHECK:
                    self._check_attempt(JobId(int(key)), number, late=late)
                case Alarm.FORCE:
                    self._force(JobId(int(key)), number, late=late)
                case Alarm.WAIT:
                    job = self.jobs[JobId(int(key))]
                    self._lift_waits(job, lambda wait: wait.until is not None and wait.until <= now.instant)
                    self._rest(job)
                case Alarm.ACCOUNT:
                    self.permits.touch(AccountName(str(key)))
                case _:
                    assert_never(alarm)
        while self.delayed and self.delayed[0][0] <= now.wall:
            _, job_id = heappop(self.delayed)
            delayed = self.jobs.get(job_id)
            if delayed is not None and delayed.state is JobState.DELAYED:
                self._is_due(delayed)

    def _is_due(self, job: Job) -> None:
        move(job, Trigger.DUE)
        self._change(job)
        chain = self.chains.get(job.id)
        if chain is not None:
            self._lift_waits(self.jobs[chain.left[0]], lambda wait: wait.reason is JobReason.PREVIOUS_STEP)
        elif eligible(job):
            self.backlog.put(job, self.kinds[job.kind].family)

    def _check_attempt(self, job_id: JobId, number: int, *, late: bool) -> None:
        attempt = self._attempt(job_id, number)
        if attempt is None or attempt.stopping is not None:
            return
        if late:
            self._give_fresh_time(job_id, attempt)
        job = self.jobs[job_id]
        instant = self._decision.now.instant
        still = heartbeats.still_seconds(attempt, instant)
        verdict = heartbeats.judge(attempt, self.rules, instant)
        match verdict:
            case heartbeats.Verdict.WORKER_LOST:
                self._decision.tell(job, "worker_lost", f"no beat for {self.rules.beat_seconds_max} s")
                self._stop(job, Stopping(StopCause.WORKER_LOST, forced=True))
            case heartbeats.Verdict.STALLED:
                attempt.flagged = True
                killed = self.rules.auto_kill_stalled
                self._decision.effects.warnings.append(WarnStalled(job_id, still, killed))
                self._decision.tell(job, "stalled", f"no progress for {still} s; {attempt.activity}")
                if killed:
                    self._stop(job, Stopping(StopCause.STALLED, forced=True))
            case heartbeats.Verdict.WARN:
                attempt.warned = True
                self._decision.effects.warnings.append(WarnStalled(job_id, still, killed=False))
                self._decision.tell(job, "standing_still", f"no progress for {still} s; {attempt.activity}")
            case heartbeats.Verdict.FINE:
                self._yield_if_long(job, attempt)
            case _:
                assert_never(verdict)
        if attempt.stopping is None:
            self._arm_check(job, attempt)

    def _arm_check(self, job: Job, attempt: Attempt) -> None:
        """Make sure that the attempt is looked at when it could be overdue."""
        self.deadlines.arm(heartbeats.next_check(attempt, self.rules), Alarm.CHECK, job.id, attempt.number)

    def _force(self, job_id: JobId, number: int, *, late: bool) -> None:
        attempt = self._attempt(job_id, number)
        if attempt is None or attempt.stopping is None:
            return
        if late:
            self._give_fresh_time(job_id, attempt)
        else:
            self._stop(self.jobs[job_id], Stopping(attempt.stopping.cause, forced=True))

    def _arm_force(self, job_id: JobId, attempt: Attempt) -> None:
        deadline = Instant(self._decision.now.instant + GRACE_SECONDS * SECOND)
        self.deadlines.arm(deadline, Alarm.FORCE, job_id, attempt.number)

    def _give_fresh_time(self, job_id: JobId, attempt: Attempt) -> None:
        """Nobody was listening since the last decision, so the attempt's silence in that time proves nothing."""
        if attempt.stopping is not None and not attempt.stopping.forced:
            self.deadlines.forget(Alarm.FORCE, job_id, attempt.number)
            self._arm_force(job_id, attempt)
        instant = self._decision.now.instant
        silence = instant - max(self._heard, attempt.beaten)  # none where a beat of this decision has told of it
        attempt.beaten = instant
        attempt.moved = Instant(min(instant, attempt.moved + silence))

    # -- looking things up ------------------------------------------------------------------------------------------

    @property
    def names(self) -> dict[str, TeamspaceId]:
        """The teamspaces' numbers by name."""
        return self.teamspaces.numbers

    @property
    def busy(self) -> dict[Family, int]:
        """Attempts with work in hand, by family."""
        return self.capacity.busy

    def may_send(self, call: CallId, instant: Instant) -> bool:
        """The last look before the first byte, without any await: whether a call with a permit may still go."""
        return self.permits.may_send(call, instant)

    def limits_of(self, teamspace: TeamspaceId) -> Limits:
        """The teamspace's limits in force."""
        return self.teamspaces.limits_of(teamspace, self.rules)

    def _capacity_of(self, family: Family) -> int | None:
        return self.rules.capacity.get(family)

    def _slots(self, teamspace: TeamspaceId, family: Family) -> int | None:
        return self.limits_of(teamspace).slots.get(family)

    def _is_blocked(self, teamspace: TeamspaceId, family: Family) -> bool:
        return self.draining or self.pauses.block(self.teamspaces.names[teamspace], family)

    def _attempt(self, job_id: JobId, number: int) -> Attempt | None:
        """The job's present attempt if it is this one: whatever comes from an earlier one is too late."""
        job = self.running.get(job_id)
        if job is None:
            return None
        attempt = _attempt_of(job)
        return attempt if attempt.number == number and attempt.launched else None

    # -- records ----------------------------------------------------------------------------------------------------

    def _change(self, job: Job) -> None:
        self._decision.changed[job.id] = None

    def _describe_changes(self) -> None:
        changed = self._decision.effects.records.changed
        for job_id in self._decision.changed:
            job = self.jobs[job_id]
            details = job.details
            changed[job_id] = JobChange(
                job_id,
                job.state,
                self._stored_details(job),
                details.attempts if details is not None else 0,
                details.started if details is not None else None,
            )

    def _stored_details(self, job: Job) -> bytes:
        details = job.details
        if details is None:
            return b""
        chain = self.chains.get(job.id)
        plain = not (details.waits or details.stall_kills or details.hung)
        if plain and chain is None and job.state is not JobState.STOPPING:
            return b""
        stored = StoredDetails(
            waits=tuple(details.waits.values()),
            stall_kills=details.stall_kills,
            settled_at_kill=details.settled_at_kill,
            hung=tuple(sorted(details.hung)),
            cancelling=job.state is JobState.STOPPING and (chain is not None or _is_being_cancelled(job)),
            steps=len(chain.steps) if chain is not None else 0,
            worst=chain.worst if chain is not None else JobState.COMPLETED,
        )
        return _encode(stored) if stored != _NO_DETAILS else b""


def _attempt_of(job: Job) -> Attempt:
    """The attempt of a job that is in `running`."""
    assert job.details is not None
    assert job.details.attempt is not None
    return job.details.attempt


def _is_being_cancelled(job: Job) -> bool:
    stopping = _attempt_of(job).stopping
    return stopping is not None and stopping.cause is StopCause.CANCELLED


def _is_long(wait: Wait, horizon: int) -> bool:
    return wait.reason is JobReason.APPROVAL or (wait.until is not None and wait.until > horizon)


_encode: Final[Callable[[StoredDetails], bytes]] = msgspec.json.encode
_NO_DETAILS: Final = StoredDetails()
_NO_LEADS: Final = Counts()
_FINISHES: Final = {
    JobState.COMPLETED: Trigger.COMPLETE,
    JobState.PARTIAL: Trigger.FINISH_PARTLY,
    JobState.FAILED: Trigger.FAIL,
    JobState.SKIPPED: Trigger.SKIP,
}
