"""The one place that decides: events and a moment in, effects out.

`handle` takes everything that has happened since it was last asked, in order, and returns what is to be done, in
bulk. It is total: no event, however late or surprising, raises; what refers to something that is no longer there is
answered or ignored. The shell commits the records of the effects in one transaction and only then carries the rest
out, so what the scheduler holds in memory is at most one commit ahead of the database. When a commit fails the
scheduler is thrown away and built anew from the database (recovery.py); there is no undo.

It is built in layers, each of which knows only those below:

    scheduler    what an event means, and in which order everybody is asked
    admission    what comes in;  control: what people cancel, pause and resume
    lives        starts, stops and ends, and the steps of chains
    places       where every job is, and the moves from one place to the next
    and below these the rules, each with its own state: who may start next (`backlog`), who has work in hand
    (`capacity`), who may call a provider (`permits`), what people have paused (`pauses`), in what order steps follow
    (`chains`), who is overdue (`heartbeats`), when to look again (`deadlines`)

The order is always the same. First all events are taken in, then deadlines that have come; then permits are granted,
whoever can go on gets a share of the capacity, and last of all new jobs are started: work that has begun goes first.
"""

from collections.abc import Sequence
from typing import Final, assert_never

from msgspec.structs import replace

from leadline.core import events as ev
from leadline.core import heartbeats
from leadline.core.admission import INSTANT_JOBS_PER_DECISION, Admission
from leadline.core.backlog import eligible
from leadline.core.capacity import wants_share
from leadline.core.control import Control
from leadline.core.deadlines import Alarm
from leadline.core.decision import Decision
from leadline.core.effects import Answer, Effects, HistoryRow, RefuseCall, SlotRow, WarnStalled
from leadline.core.lifecycle import Trigger, move
from leadline.core.model import (
    FAMILIES,
    SECOND,
    Attempt,
    Call,
    Job,
    JobState,
    Now,
    StopCause,
    Stopping,
    Wait,
)
from leadline.core.pauses import Scope
from leadline.core.places import attempt_of, suspicion_of
from leadline.core.quarantine import cleared, convicted
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import AccountName, CallId, Instant, JobId


class Scheduler(Admission, Control):
    """The queue: takes in what has happened, and says what is to be done."""

    # -- the contract -------------------------------------------------------------------------------------------------

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
        while (first := self.delayed.first()) is not None:
            run_at, number = first
            job = self.jobs.get(number)
            if job is None or job.state is not JobState.DELAYED:
                self.delayed.drop_first()
                continue
            due = Instant(now.instant + max(0, run_at - now.wall))
            return due if soonest is None else min(due, soonest)
        return soonest

    def begin(self, now: Now, slots: Sequence[SlotRow], cancelling: Sequence[JobId]) -> Effects:
        """Make the first decision: give back all slots that are stored as held, finish what was being cancelled."""
        again = [HistoryRow(job, Instant(now.wall), *self._begun_again(job)) for job in self._unstored]
        effects = self.handle([ev.CancelAsked(job) for job in cancelling], now)
        effects.answers.clear()
        effects.records.slots_freed[:0] = slots
        effects.records.history[:0] = again
        return effects

    def _begun_again(self, job_id: JobId) -> tuple[str, str]:
        """What the story of a job says that ran in an earlier reign."""
        suspect = self.suspects.get(job_id)
        if suspect is not None:
            crashes = suspicion_of(suspect).crashes
            if convicted(suspicion_of(suspect)):
                return "quarantined", f"the daemon went down {crashes} times in a row while it ran"
            if crashes:
                return "queued", f"again, after the daemon went down while it ran, {crashes} times in a row"
        return "queued", "again, after a restart of the daemon"

    def may_send(self, call: CallId, instant: Instant) -> bool:
        """The last look before the first byte, without any await: whether a call with a permit may still go."""
        if not self.permits.may_send(call, instant):
            return False
        known = self.calls[call]
        return not self._is_silenced(self.jobs[known.job], known.account)

    # -- events -------------------------------------------------------------------------------------------------------

    def _apply(self, event: ev.Event) -> Answer:
        match event:
            case ev.Submitted():
                return [self._admit(new) for new in event.jobs]
            case ev.CallAsked():
                self._call_asked(event)
            case ev.CallSent():
                self.permits.sent(event)
            case ev.ResponseBegan():
                self.permits.response_began(event)
            case ev.CallEnded():
                self._call_ended(event)
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
                    self._restart_clock(attempt)
                    self._unsettled[event.job] = attempt
            case ev.WaitClosed():
                if (attempt := self._attempt(event.job, event.number)) is not None:
                    attempt.waits.pop(event.reason, None)
                    self._restart_clock(attempt)
                    self._unsettled[event.job] = attempt
            case ev.CancelAsked():
                return self._cancel(event)
            case ev.Expired():
                self._expire(event)
            case ev.PauseSet():
                return self._pause(event)
            case ev.LimitsSet():
                self.teamspaces.limits[event.teamspace] = event.limits
                self.backlog.reconsider()
                number = self.teamspaces.numbers.get(event.teamspace)
                if number is not None:
                    self.permits.weigh(number, event.limits.weight)
            case ev.RulesSet():
                self.rules = event.rules
                self.backlog.reconsider()
            case ev.AccountLearned():
                self._account_learned(event)
            case ev.DaemonSlept():
                self._wake_up()
            case ev.DrainBegan():
                self.draining = True
                self._stop_blocked()
            case ev.Ticked():
                pass
            case _:
                assert_never(event)
        return None

    # -- going on, and starting ---------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Let everything go on that can, and start what may start, until nothing more follows from it."""
        while True:
            for call in self.permits.granted(self._decision.now.instant):
                attempt = self._attempt(call.job, call.attempt)
                assert attempt is not None, "an attempt's asks are withdrawn when it ends"
                attempt.asking.discard(call.id)
                if attempt.busy:
                    self._send(call, attempt)
                else:
                    self.permits.hold(call, attempt)
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
        """Where waits have opened or closed: take or leave the share of the capacity, stop or start the stall clock.

        Who is never interrupted has a process that goes on whatever one call waits for: that is work in hand.
        """
        while self._unsettled:
            job_id = next(iter(self._unsettled))
            attempt = self._unsettled.pop(job_id)
            job = self.running.get(job_id)
            if job is None or attempt_of(job) is not attempt:
                continue
            family = self.kinds[job.kind].family
            if attempt.busy:
                if heartbeats.waiting(attempt) and attempt.resumes:
                    self.capacity.give_back(family, attempt)
                    self._note(job_id, outside=True)
            elif attempt.stopping is None and wants_share(attempt):
                self.capacity.queue(family, job_id, attempt)
            waiting = heartbeats.waiting(attempt)
            if attempt.waiting and not waiting:
                self._restart_clock(attempt)
                self._arm_check(job, attempt)
                self._note(job_id, outside=False)
            attempt.waiting = waiting
            self._yield_if_long(job, attempt)

    def _wake(self) -> None:
        """Give free capacity to the attempts that wait for it, oldest wish first."""
        for family in FAMILIES:
            while (job_id := self.capacity.wake(family)) is not None:
                attempt = attempt_of(self.running[job_id])
                if not attempt.launched:
                    self._decision.launches[job_id] = attempt
                for call in attempt.held:
                    self._send(self.calls[call], attempt)
                attempt.held.clear()
                self._unsettled[job_id] = attempt

    def _start_jobs(self) -> None:
        decision = self._decision
        for family in FAMILIES:
            while self.capacity.room_for_new(family):
                if decision.instant_jobs >= INSTANT_JOBS_PER_DECISION:
                    decision.effects.more = True
                    return
                taken = self.backlog.take(family)
                if taken is None:
                    break
                lane, job = taken
                if self._must_keep_away(job):
                    self._keep_away(job)
                    self.backlog.done_with(lane)
                elif self.kinds[job.kind].instant:
                    decision.instant_jobs += 1
                    self._start_and_complete(job)
                    self.backlog.done_with(lane)
                else:
                    self._start(job, lane)

    def _send(self, call: Call, attempt: Attempt) -> None:
        """Let a call go out: its attempt goes on."""
        self.permits.send(call, attempt, self._decision)
        self._restart_clock(attempt)
        self._note(call.job, outside=False)

    def _note(self, job_id: JobId, *, outside: bool) -> None:
        """Write down of a suspect whether it only waits."""
        job = self.suspects.get(job_id)
        if job is not None and suspicion_of(job).outside is not outside:
            assert job.details is not None
            job.details.suspicion = replace(suspicion_of(job), outside=outside)
            self._change(job)

    def _yield_if_long(self, job: Job, attempt: Attempt) -> None:
        """Give the slot to the teamspace's next job where every wait is known to last long, or is for a person (Q7)."""
        if attempt.busy or attempt.stopping is not None or not heartbeats.waiting(attempt) or not attempt.resumes:
            return
        patience = self.kinds[job.kind].family.patience_seconds
        seconds = self.rules.yield_slot_after_seconds if patience is None else patience
        horizon = self._decision.now.instant + round(seconds * SECOND)
        waits = self.waits_of(job, self._decision.now.instant)
        if all(_is_long(wait, horizon) for wait in waits):
            known = {JobReason.APPROVAL} if attempt.resumed else set()
            attempt.yielding_to = tuple(wait for wait in waits if wait.reason not in known)
            self._stop(job, Stopping(StopCause.YIELDED, forced=False))

    # -- what attempts report -----------------------------------------------------------------------------------------

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

    def _progressed(self, event: ev.Progressed) -> None:
        attempt = self._attempt(event.job, event.number)
        if attempt is None:
            return
        if event.counts.settled > attempt.counts.settled or event.counts.total != attempt.counts.total:
            self._note_progress(attempt)
        attempt.beaten = self._decision.now.instant
        suspect = self.suspects.get(event.job)
        if suspect is not None and cleared(suspicion_of(suspect), event.counts.settled):
            self._clear(suspect)
        attempt.counts = event.counts
        attempt.activity = event.activity or attempt.activity

    def _note_progress(self, attempt: Attempt) -> None:
        attempt.beaten = self._decision.now.instant
        self._restart_clock(attempt)

    def _restart_clock(self, attempt: Attempt) -> None:
        attempt.moved = self._decision.now.instant
        attempt.warned = attempt.flagged = False

    # -- calls --------------------------------------------------------------------------------------------------------

    def _call_asked(self, event: ev.CallAsked) -> None:
        attempt = self._attempt(event.job, event.number)
        job = self.jobs[event.job] if attempt is not None else None
        if job is not None and attempt_of(job).stopping is None and self._is_silenced(job, event.account):
            self._decision.effects.refused_calls.append(RefuseCall(event.call, event.account, JobReason.PAUSED))
            return
        weight = self.limits_of(job.teamspace).weight if job is not None else 1.0
        self.permits.ask(event, job, attempt, weight, self._decision)
        if attempt is not None:
            self._unsettled[event.job] = attempt

    def _is_silenced(self, job: Job, account: AccountName) -> bool:
        """Whether its attempt goes on in spite of a pause, and must make no call of this account meanwhile."""
        if attempt_of(job).resumes:
            return False
        blocked = self._is_blocked(job.teamspace, self.kinds[job.kind].family)
        return blocked or self._is_held(job) or (Scope.PROVIDER, account) in self.pauses

    def _call_ended(self, event: ev.CallEnded) -> None:
        call = self.permits.ended(event, self._decision)
        if call is None:
            return
        attempt = self._attempt(call.job, call.attempt)
        if attempt is not None:
            attempt.flying.discard(call.id)
            self._unsettled[call.job] = attempt
        if (parked := event.end.parked) is not None:
            for other in self.permits.of_account(call.account):
                if parked is JobReason.INVALID_KEY or not other.patient:
                    self._refuse(other, parked)

    def _account_learned(self, event: ev.AccountLearned) -> None:
        paused = (Scope.PROVIDER, event.account) in self.pauses
        for call in self.permits.learn(event, self._decision, paused=paused):
            attempt = self._attempt(call.job, call.attempt)
            assert attempt is not None, "an attempt's asks are withdrawn when it ends"
            attempt.asking.discard(call.id)
            self._unsettled[call.job] = attempt
        self._recall(event.account)

    # -- time ---------------------------------------------------------------------------------------------------------

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
                case Alarm.LIVED:
                    suspect = self.suspects[JobId(int(key))]
                    self._clear(suspect)
                    self._change(suspect)
                case Alarm.PULSE:
                    if late:
                        self._wake_up()
                    if self.running:
                        self._arm_pulse()
                case _:
                    assert_never(alarm)
        while (first := self.delayed.first()) is not None and first[0] <= now.wall:
            self.delayed.drop_first()
            delayed = self.jobs.get(first[1])
            if delayed is not None and delayed.state is JobState.DELAYED:
                self._is_due(delayed)

    def _is_due(self, job: Job) -> None:
        self.delayed.left(job, self.kinds[job.kind].family)
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
                self._decision.effects.warnings.append(WarnStalled(job_id, job.teamspace, still, killed))
                self._decision.tell(job, "stalled", f"no progress for {still} s; {attempt.activity}")
                if killed:
                    self._stop(job, Stopping(StopCause.STALLED, forced=True))
            case heartbeats.Verdict.WARN:
                attempt.warned = True
                self._decision.effects.warnings.append(WarnStalled(job_id, job.teamspace, still, killed=False))
                self._decision.tell(job, "standing_still", f"no progress for {still} s; {attempt.activity}")
            case heartbeats.Verdict.FINE:
                self._yield_if_long(job, attempt)
            case _:
                assert_never(verdict)
        if attempt.stopping is None:
            self._arm_check(job, attempt)

    def _force(self, job_id: JobId, number: int, *, late: bool) -> None:
        attempt = self._attempt(job_id, number)
        if attempt is None or attempt.stopping is None:
            return
        if late:
            self._give_fresh_time(job_id, attempt)
        else:
            self._stop(self.jobs[job_id], Stopping(attempt.stopping.cause, forced=True))

    def _wake_up(self) -> None:
        """The daemon itself has stood still."""
        for job in self.running.values():
            self._give_fresh_time(job.id, attempt_of(job))

    def _give_fresh_time(self, job_id: JobId, attempt: Attempt) -> None:
        """Nobody was listening since the last decision, so the attempt's silence in that time proves nothing."""
        if attempt.stopping is not None and not attempt.stopping.forced:
            self.deadlines.forget(Alarm.FORCE, job_id, attempt.number)
            self._arm_force(job_id, attempt)
        instant = self._decision.now.instant
        silence = instant - max(self._heard, attempt.beaten)  # none where a beat of this decision has told of it
        attempt.beaten = instant
        attempt.moved = Instant(min(instant, attempt.moved + silence))


def _is_long(wait: Wait, horizon: int) -> bool:
    return wait.reason is JobReason.APPROVAL or (wait.until is not None and wait.until > horizon)


_FINISHES: Final = {
    JobState.COMPLETED: Trigger.COMPLETE,
    JobState.PARTIAL: Trigger.FINISH_PARTLY,
    JobState.FAILED: Trigger.FAIL,
    JobState.SKIPPED: Trigger.SKIP,
}
