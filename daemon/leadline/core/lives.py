"""A job's life from its start to its end: attempts that begin, stop, are killed or resume, and steps that follow.

The complication is that one end is another's beginning. When a step of a chain ends, the next one takes over its slot
in the same decision; when that one may not run, it waits in its place; when the chain is being cancelled, none does.
And a stop takes time: an attempt that was told to stop still holds its slot until it is proven gone, and only then is
it decided what becomes of its job, by the cause for which it was stopped. An attempt that no actor has heard of yet is
gone at once.
"""

from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from leadline.core import chains, heartbeats
from leadline.core.backlog import Lane, eligible
from leadline.core.deadlines import Alarm
from leadline.core.effects import AttemptRow, EndedJob, SlotRow, StartAttempt, StopAttempt
from leadline.core.lifecycle import Trigger, move, start_and_complete
from leadline.core.model import SECOND, Attempt, Call, Chain, Details, Job, JobState, StopCause, Stopping, Wait
from leadline.core.places import NO_LEADS, Places, attempt_of
from leadline.core.quarantine import LIVED_SECONDS
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import Instant, JobId, LeadId

GRACE_SECONDS: Final = 60
"""How long an attempt that was asked to stop may let its calls in flight finish: the call timeout (Q10)."""

INTERRUPTION_SECONDS: Final = 1
"""How long a job rests whose attempt was interrupted by a fault that is not its own."""

_KILLED: Final = frozenset({StopCause.STALLED, StopCause.WORKER_LOST})


class Lives(Places):
    """Starts, stops and ends jobs."""

    # -- starting -----------------------------------------------------------------------------------------------------

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
        if details.suspicion is not None:
            details.suspicion = replace(details.suspicion, outside=False)
        instant = decision.now.instant
        attempt = Attempt(details.attempts, slot, instant, instant, self.kinds[job.kind].family.resumes)
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

    def _start_and_complete(self, job: Job) -> None:
        start_and_complete(job)
        decision = self._decision
        del self.jobs[job.id]
        decision.changed.pop(job.id, None)
        moment = Instant(decision.now.wall)
        row = decision.admitted.pop(job.id, None)
        decision.effects.records.ended.append(
            EndedJob(job.id, JobState.COMPLETED, moment, moment, NO_LEADS, None, "", row)
        )
        if job.details is None or job.details.chain is None:
            self.teamspaces.count(job.teamspace, -1)
        else:
            self._step_started(job, job.details.chain)
            self._step_ended(job, JobState.COMPLETED)

    def _launch(self) -> None:
        """Hand over what is to run, now that nothing in this decision can stop it any more."""
        for job_id, attempt in self._decision.launches.items():
            job = self.jobs[job_id]
            attempt.launched = True
            attempt.beaten = attempt.moved = self._decision.now.instant
            family = self.kinds[job.kind].family
            approved = job.details is not None and job.details.approved
            row = self._decision.admitted.get(job_id)
            order = StartAttempt(job_id, attempt.number, job.kind, job.teamspace, family, approved, row)
            self._decision.effects.starts.append(order)
            self._arm_check(job, attempt)
            if job_id in self.suspects:
                lived = Instant(attempt.beaten + LIVED_SECONDS * SECOND)
                self.deadlines.arm(lived, Alarm.LIVED, job_id, attempt.number)
        if self.running:
            self._arm_pulse()

    def _arm_pulse(self) -> None:
        """Make sure that a pause of the daemon itself is noticed, whatever its end happens to be close to.

        Beats come as often, so it is no longer than this that a pause could pass for the silence of a worker.
        """
        pulse = self._decision.now.instant + heartbeats.BEAT_SECONDS * SECOND
        self.deadlines.arm(Instant(pulse), Alarm.PULSE, 0)

    def _arm_check(self, job: Job, attempt: Attempt) -> None:
        """Make sure that the attempt is looked at when it could be overdue."""
        self.deadlines.arm(heartbeats.next_check(attempt, self.rules), Alarm.CHECK, job.id, attempt.number)

    # -- stopping -----------------------------------------------------------------------------------------------------

    def _stop(self, job: Job, order: Stopping) -> None:
        attempt = attempt_of(job)
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

    def _stop_blocked(self) -> None:
        for job in list(self.running.values()):
            if self._is_blocked(job.teamspace, self.kinds[job.kind].family):
                self._pause_running(job)

    def _pause_running(self, job: Job) -> None:
        """A pause has come over a job that runs: its attempt stops, or goes on and makes no new call meanwhile."""
        attempt = attempt_of(job)
        if attempt.resumes or self.draining or not attempt.launched:
            self._stop(job, Stopping(StopCause.PAUSED, forced=False))
            return
        for call_id in (*sorted(attempt.asking), *attempt.held):
            self._refuse(self.calls[call_id], JobReason.PAUSED)

    def _refuse(self, call: Call, reason: JobReason) -> None:
        """A call that is not out will never go; its attempt goes on."""
        attempt = self._attempt(call.job, call.attempt)
        assert attempt is not None, "an attempt's asks are withdrawn when it ends"
        self.permits.refuse(call, reason, self._decision)
        attempt.asking.discard(call.id)
        if call.id in attempt.held:
            attempt.held.remove(call.id)
        self._unsettled[call.job] = attempt

    def _arm_force(self, job_id: JobId, attempt: Attempt) -> None:
        deadline = Instant(self._decision.now.instant + GRACE_SECONDS * SECOND)
        self.deadlines.arm(deadline, Alarm.FORCE, job_id, attempt.number)

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

    # -- ending -------------------------------------------------------------------------------------------------------

    def _end(self, job: Job, attempt: Attempt, trigger: Trigger, reason: JobReason | None, message: str) -> None:
        """End a job that has an attempt, and let its chain go on."""
        state = move(job, trigger)
        self._release(job, attempt)
        self._leave(job, reason, message)
        self._step_ended(job, state)

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
        elif self._must_keep_away(step):
            self._keep_away(step)
        else:
            self._start(step, lane)

    def _cancel_steps(self, steps: Sequence[JobId]) -> None:
        for step in steps:
            self._strike(self.jobs[step], Trigger.CANCEL, JobReason.CANCELLED)

    def _end_chain(self, chain: Chain, job: Job) -> None:
        trigger, reason = chains.ending(chain, job.state)
        if job.state in {JobState.DELAYED, JobState.QUEUED}:
            self.teamspaces.count(job.teamspace, -1)
        if job.state is JobState.DELAYED:
            self.delayed.left(job, self.kinds[job.kind].family)
        move(job, trigger)
        del self.chains[chain.id]
        self._leave(job, reason, "")
