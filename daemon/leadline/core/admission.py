"""What comes in: keys that are known, queues that are full, orders, delays, and the rows of new jobs.

A job's place in the one order is the moment of its submission or its run_at, less its head start, reckoned on the clock
that never runs backwards: a clock on the wall that is set lets nobody pass. A job without work before which nobody
stands needs no place at all and is completed as it comes in.
"""

from typing import Final

from msgspec.structs import replace

from leadline.core import events as ev
from leadline.core.effects import AdmittedJob, EndedJob, Receipt
from leadline.core.model import Chain, Details, Family, Job, JobState, Wait
from leadline.core.places import NO_LEADS, Places
from leadline_protocol.errors import ErrorCode, JobReason, Refused
from leadline_protocol.ids import Instant, JobId, TeamspaceId

INSTANT_JOBS_PER_DECISION: Final = 8192
"""Jobs without work that one decision starts and ends: bounds the time in which nothing else is heard. More than one
block of a submitter holds, so that they need not wait in line and be written twice."""

TEAMSPACES_MAX: Final = 1_000_000
"""Each is remembered for ever, in 300 bytes or so: whoever may name them may not make up any number."""

_QUEUE_FULL_RETRY_SECONDS: Final = 60.0

_QUEUED: Final = JobState.QUEUED
_DELAYED: Final = JobState.DELAYED
"""Each look-up of a member in its class costs 2 % of an admission."""


class Admission(Places):
    """Takes submissions in."""

    def _admit(self, new: ev.NewJob) -> Receipt | Refused:
        key = new.key
        if key is not None and (first := self._first_under(new.teamspace, key)) is not None:
            return first
        if new.refused is not None:
            return new.refused
        decision = self._decision
        now = decision.now
        teamspaces = self.teamspaces
        teamspace = teamspaces.numbers.get(new.teamspace)
        limit = teamspaces.limits_for(new.teamspace, self.rules).max_queued
        if (0 if teamspace is None else teamspaces.pending.get(teamspace, 0)) >= limit:
            message = f"{new.teamspace} has {limit} jobs queued, as many as its plan allows"
            return Refused(ErrorCode.QUEUE_FULL, message, at="teamspace", retry_after=_QUEUE_FULL_RETRY_SECONDS)
        if teamspace is None:
            if len(teamspaces.names) >= TEAMSPACES_MAX:
                message = f"there is no teamspace {new.teamspace}, and {TEAMSPACES_MAX} are as many as there may be"
                return Refused(ErrorCode.UNKNOWN_TEAMSPACE, message, at="teamspace")
            teamspace = teamspaces.create(new.teamspace)
            decision.effects.records.teamspaces.append((teamspace, new.teamspace))
        order: int = now.instant  # one object for all jobs of a decision: 32 bytes fewer for each
        if new.priority_microseconds:
            order -= new.priority_microseconds
        state = _QUEUED
        if new.run_at is not None or new.delay_microseconds:
            if new.run_at is None:
                new = replace(new, run_at=Instant(now.wall + new.delay_microseconds), delay_microseconds=0)
            assert new.run_at is not None
            if new.run_at > now.wall:
                order += new.run_at - now.wall
                state = _DELAYED
        row = self._new_row(new, teamspace, order, state)
        if key is not None:
            decision.effects.keys[new.teamspace, key.key_hash] = (row.id, key.body_hash)
        kind = self.kinds[new.kind]
        if kind.instant and state is _QUEUED and self._is_clear(teamspace, kind.family):
            self._complete_at_once(row)
            return Receipt(row.id, state, 0)
        job = self._add_job(row)
        teamspaces.count(teamspace, +1)
        if state is _DELAYED:
            assert new.run_at is not None
            job.details = Details(run_at=new.run_at)
            self.delayed.put(job, kind.family, new.run_at)
        if kind.chain:
            steps = self._add_steps(job, new)
            return Receipt(job.id, state, self._jobs_ahead(job), steps=steps)
        if state is _DELAYED:
            return Receipt(job.id, state, 0)
        lane = self.backlog.put(job, kind.family)
        return Receipt(job.id, state, self.backlog.ahead_at_most(lane, job))

    def _first_under(self, teamspace: str, key: ev.Key) -> Receipt | Refused | None:
        known = self._decision.effects.keys.get((teamspace, key.key_hash))
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
        if job.state is not _QUEUED:
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
            row = self._new_row(step, chain.teamspace, chain.order, _QUEUED, chain.id, place)
            job = self._add_job(row)
            details = job.details = Details(chain=chain.id, step=place)
            steps.append(job.id)
            if place == 0 and chain.state is _QUEUED:
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
        ended = EndedJob(row.id, JobState.COMPLETED, moment, moment, NO_LEADS, None, "", row)
        self._decision.effects.records.ended.append(ended)
