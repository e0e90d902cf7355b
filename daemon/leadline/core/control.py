"""What people have done to jobs: cancels, and pauses of whatever scope with the resumes that end them.

The complication is that they come while something is under way. Who is being stopped is stopped for one cause, and a
cancel takes the place of any other. A resume may come while the attempt it is meant for is still giving its slot back
to wait for that very person: it counts, or the job would wait for ever for somebody who has been there.
"""

from typing import Final

from leadline.core import events as ev
from leadline.core import heartbeats
from leadline.core.backlog import eligible
from leadline.core.effects import PauseRow
from leadline.core.lifecycle import Trigger, move
from leadline.core.lives import Lives
from leadline.core.model import Chain, Details, Family, Job, JobState, StopCause, Stopping
from leadline.core.pauses import Scope
from leadline.core.places import attempt_of
from leadline_protocol.errors import ErrorCode, JobReason, Refused
from leadline_protocol.ids import AccountName, JobId

_FOR_PEOPLE: Final = frozenset({JobReason.PAUSED, JobReason.APPROVAL, JobReason.QUARANTINED})


class Control(Lives):
    """Cancels, pauses and resumes."""

    # -- cancels ------------------------------------------------------------------------------------------------------

    def _cancel(self, event: ev.CancelAsked) -> Refused | None:
        job = self.jobs.get(event.job)
        if job is None:
            return Refused(ErrorCode.NOT_FOUND, f"job {event.job} is not in the queue", at="job")
        if (chain := self.chains.get(job.id)) is not None:
            return self._cancel_chain(job, chain, event)
        if job.id in self.running:
            still = heartbeats.still_seconds(attempt_of(job), self._decision.now.instant)
            stalled = still >= self.rules.stall_after_seconds
            self._stop(job, Stopping(StopCause.CANCELLED, forced=event.force or stalled))
        else:
            self._strike(job, Trigger.CANCEL, JobReason.CANCELLED)
            self._step_ended(job, JobState.CANCELLED)
        return None

    def _expire(self, event: ev.Expired) -> None:
        job = self.jobs.get(event.job)
        if job is None or job.id in self.running or job.state is not JobState.QUEUED:
            return
        if job.details is None or not job.details.attempts:
            self._strike(job, Trigger.SKIP, event.reason, event.message)
            self._step_ended(job, JobState.SKIPPED)

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

    # -- pauses -------------------------------------------------------------------------------------------------------

    def _pause(self, event: ev.PauseSet) -> Refused | None:
        if (refused := self._pause_refused(event)) is not None:
            return refused
        changed = self.pauses.set((event.scope, event.name), paused=event.paused)
        if changed:
            self._decision.effects.records.pauses.append(PauseRow(event.scope, event.name, event.paused))
        match event.scope:
            case Scope.PROVIDER:
                self.permits.pause(AccountName(event.name), self._decision, paused=event.paused)
                self._account_paused(AccountName(event.name), paused=event.paused)
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
        if paused and job.id in self.running:
            self._pause_running(job)
        elif paused:
            if eligible(job):
                self.backlog.withdraw(job, self.kinds[job.kind].family)
            self._hold(job)
            self._change(job)
        elif job.details is not None and not self._is_held(job):
            if JobReason.QUARANTINED in job.details.waits:
                self._decision.tell(job, "resumed", "from quarantine")
                self._clear(job)
            self._let_go_on(job, job.details)

    def _let_go_on(self, job: Job, details: Details) -> None:
        """A person has resumed a job, which may only just be on its way to where it waits for that person."""
        waits = {*details.waits}
        if (attempt := details.attempt) is not None:
            waits = {wait.reason for wait in attempt.yielding_to}
            attempt.resumed = True
        if JobReason.APPROVAL in waits and not details.approved:
            details.approved = True
            self._change(job)
        self._lift_waits(job, lambda wait: wait.reason in _FOR_PEOPLE)

    def _account_paused(self, account: AccountName, *, paused: bool) -> None:
        if not paused:
            self._recall(account)
            return
        for call in self.permits.of_account(account):
            if not attempt_of(self.jobs[call.job]).resumes:
                self._refuse(call, JobReason.PAUSED)

    def _recall(self, account: AccountName) -> None:
        """What kept calls of this account may be gone: jobs that gave their slot back for it, or do, look again."""
        for job in [*self.resting.values(), *self.running.values()]:
            self._lift_waits(job, lambda wait: wait.numbers.get("provider") == account)
