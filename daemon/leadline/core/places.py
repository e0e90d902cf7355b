"""Where every job is, and the moves from one place to the next.

    delayed                 `delayed`, by run_at
    queued, no waits        its lane in `backlog`
    queued, with waits      `jobs` alone; a deadline or an event takes the wait away
    running, stopping       `running`; its slot number is in its lane's `held`
    a suspect, in any state `suspects` as well
    a chain, in any state   `chains`; the step whose turn it is is the first of its `left`

A move takes a job out of one place, puts it into the next, and notes what must be stored; nothing here decides that a
move is to be made. `audit.check` asserts every sentence above after any sequence of moves.
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from leadline.core.backlog import Backlog, eligible
from leadline.core.capacity import Capacity
from leadline.core.deadlines import Alarm, Deadlines
from leadline.core.decision import Decision
from leadline.core.delayed import Delayed
from leadline.core.effects import EndedJob, JobChange, PauseRow, SlotRow
from leadline.core.lifecycle import Trigger, move
from leadline.core.model import (
    Attempt,
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
    Wait,
)
from leadline.core.pauses import Pauses, Scope
from leadline.core.permits import Permits
from leadline.core.quarantine import Suspicion, alone
from leadline.core.rate_limit import NextReset
from leadline.core.teamspaces import Teamspaces
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import Instant, JobId, LeadId, TeamspaceId

NO_LEADS: Final = Counts()
_PENDING: Final = frozenset({JobState.DELAYED, JobState.QUEUED})


class StoredDetails(Struct, frozen=True, gc=False, omit_defaults=True):
    """What a live job's row holds beside its columns, as JSON."""

    waits: tuple[Wait, ...] = ()
    stall_kills: int = 0
    settled_at_kill: int = 0
    hung: tuple[LeadId, ...] = ()
    approved: bool = False
    suspicion: Suspicion | None = None
    cancelling: bool = False
    steps: int = 0
    """Of a chain: how many it was submitted with."""
    worst: JobState = JobState.COMPLETED
    """Of a chain: the least good end of its steps so far."""


class Places:
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
        self.delayed = Delayed()
        self.backlog = Backlog(self._slots, self._is_blocked)
        self.running: dict[JobId, Job] = {}
        self.resting: dict[JobId, Job] = {}
        """Queued jobs with waits that end by themselves: those that gave their slot back for a long wait."""
        self.suspects: dict[JobId, Job] = {}
        """Live jobs that ran when the daemon died and are watched; those that are quarantined too."""
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

    # -- looking things up --------------------------------------------------------------------------------------------

    @property
    def names(self) -> dict[str, TeamspaceId]:
        """The teamspaces' numbers by name."""
        return self.teamspaces.numbers

    @property
    def busy(self) -> dict[Family, int]:
        """Attempts with work in hand, by family."""
        return self.capacity.busy

    def limits_of(self, teamspace: TeamspaceId) -> Limits:
        """The teamspace's limits in force."""
        return self.teamspaces.limits_of(teamspace, self.rules)

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
        attempt = attempt_of(job)
        return attempt if attempt.number == number and attempt.launched else None

    # -- waits --------------------------------------------------------------------------------------------------------

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
        """Take waits away from a job; without any it goes back into its lane.

        One that is still giving its slot back for them comes to the queue without them.
        """
        details = job.details
        assert details is not None
        if details.attempt is not None:
            details.attempt.yielding_to = tuple(wait for wait in details.attempt.yielding_to if not over(wait))
            return
        reasons = [reason for reason, wait in details.waits.items() if over(wait)]
        if not reasons:
            return
        for reason in reasons:
            del details.waits[reason]
        self._change(job)
        self._rest(job)
        if eligible(job):
            self.backlog.put(job, self.kinds[job.kind].family)

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

    # -- suspects -----------------------------------------------------------------------------------------------------

    def _must_keep_away(self, job: Job) -> bool:
        """Whether it is a suspect that may not start beside one that runs: either of them has to be alone."""
        if job.id not in self.suspects:
            return False
        others = [other for other in self.suspects if other in self.running]
        return bool(others) and (alone(suspicion_of(job)) or any(alone(suspicion_of(self.jobs[o])) for o in others))

    def _keep_away(self, job: Job) -> None:
        """Have a suspect that is in no lane wait until `_let_suspects_on`."""
        details = job.details
        assert details is not None
        details.waits[JobReason.BACKOFF] = Wait(JobReason.BACKOFF, None, {"crashes": suspicion_of(job).crashes})
        self._change(job)

    def _let_suspects_on(self) -> None:
        """A suspect runs no more, or is none any more: those that keep away may ask again."""
        for job in self.suspects.values():
            if job.id not in self.running:
                self._lift_waits(job, kept_away)

    def _clear(self, job: Job) -> None:
        """It is suspected no more. That need not be stored at once: its leads show it as well."""
        details = job.details
        assert details is not None
        details.suspicion = None
        del self.suspects[job.id]
        if details.attempt is not None:
            self.deadlines.forget(Alarm.LIVED, job.id, details.attempt.number)
        self._let_suspects_on()

    # -- leaving a place ----------------------------------------------------------------------------------------------

    def _strike(self, job: Job, trigger: Trigger, reason: JobReason, message: str = "") -> None:
        """End a job that has no attempt; what it means for its chain is the caller's business."""
        assert job.id not in self.running, f"job {job.id} runs and must be stopped first"
        if eligible(job) and not self.kinds[job.kind].chain:
            self.backlog.withdraw(job, self.kinds[job.kind].family)
        if job.details is None or job.details.chain is None:
            self.teamspaces.count(job.teamspace, -1)
        if job.state is JobState.DELAYED:
            self.delayed.left(job, self.kinds[job.kind].family)
        move(job, trigger)
        self._leave(job, reason, message)

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
        if job.id in self.suspects:
            self.deadlines.forget(Alarm.LIVED, job.id, attempt.number)
            self._let_suspects_on()
        self.backlog.release(self.backlog.lane(job.teamspace, family), attempt.slot)

    def _leave(self, job: Job, reason: JobReason | None, message: str) -> None:
        """Take an ended job out of memory, and say how it ended."""
        decision = self._decision
        del self.jobs[job.id]
        decision.changed.pop(job.id, None)
        if self.resting.pop(job.id, None) is not None:
            self.deadlines.forget(Alarm.WAIT, job.id)
        self.suspects.pop(job.id, None)
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

    # -- taking over what is stored, and storing ----------------------------------------------------------------------

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
            self.delayed.put(job, self.kinds[job.kind].family, details.run_at)
        if chain is not None:
            self.chains[job.id] = chain
            return
        self._hold(job)
        if details is not None and details.suspicion is not None:
            self.suspects[job.id] = job
        if eligible(job):
            self.backlog.put(job, self.kinds[job.kind].family)
        elif details is not None:
            self._rest(job)

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
        plain = not (
            details.waits or details.stall_kills or details.hung or details.approved or details.suspicion is not None
        )
        if plain and chain is None and job.state is not JobState.STOPPING:
            return b""
        stored = StoredDetails(
            waits=tuple(details.waits.values()),
            stall_kills=details.stall_kills,
            settled_at_kill=details.settled_at_kill,
            hung=tuple(sorted(details.hung)),
            approved=details.approved,
            suspicion=details.suspicion,
            cancelling=job.state is JobState.STOPPING and (chain is not None or _is_being_cancelled(job)),
            steps=len(chain.steps) if chain is not None else 0,
            worst=chain.worst if chain is not None else JobState.COMPLETED,
        )
        return _encode(stored) if stored != _NO_DETAILS else b""


def attempt_of(job: Job) -> Attempt:
    """The attempt of a job that is in `running`."""
    assert job.details is not None
    assert job.details.attempt is not None
    return job.details.attempt


def kept_away(wait: Wait) -> bool:
    """Whether it is the wait of a suspect for others to run no more."""
    return wait.reason is JobReason.BACKOFF and "crashes" in wait.numbers


def suspicion_of(job: Job) -> Suspicion:
    """The suspicion of a job that is in `suspects`."""
    assert job.details is not None
    assert job.details.suspicion is not None
    return job.details.suspicion


def _is_being_cancelled(job: Job) -> bool:
    stopping = attempt_of(job).stopping
    return stopping is not None and stopping.cause is StopCause.CANCELLED


_encode: Final[Callable[[StoredDetails], bytes]] = msgspec.json.encode
_NO_DETAILS: Final = StoredDetails()
