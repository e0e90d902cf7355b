"""The simulated database: the records of decisions, and beside them what the work stores of its own.

Work is stored in transactions of its own, each of which proves that its daemon is still the owner and its attempt still
the present one. A lead's result and the end of its call are one transaction.
"""

from collections.abc import Callable, Sequence

import msgspec
from msgspec import Struct, field

from leadline.core.model import Counts, JobState
from leadline.core.quarantine import Crashed
from leadline_protocol.ids import CallId, Instant, JobId, LeadId
from tests.core.durable import Durable


class Plan(Struct, frozen=True):
    """A job's payload: what there is to do."""

    provider: str = "ai"
    leads: int = 1
    at_once: int = 4
    """Leads in work at the same time."""
    rests_seconds: int = 0
    """Before anything else it waits that long for a bulk result."""
    fails: bool = False
    """It ends by an error after its leads."""


class Store(Durable):
    """Everything that survives."""

    epoch: int = 0
    results: dict[tuple[JobId, LeadId], str] = field(default_factory=dict)
    """done, failed, skipped or unknown."""
    tasks: dict[tuple[JobId, LeadId], str] = field(default_factory=dict)
    rests: dict[JobId, Instant] = field(default_factory=dict)
    begun: dict[JobId, int] = field(default_factory=dict)
    """Which attempt at a job was the last that really began, by an identity that the daemon does not know."""
    attempts: int = 0
    ended_by: dict[tuple[JobId, LeadId], int] = field(default_factory=dict)
    """Which attempt gave a lead its end."""
    cut_off: dict[tuple[JobId, LeadId], list[CallId]] = field(default_factory=dict)
    """A lead's calls."""

    def plan(self, job: JobId) -> Plan:
        return msgspec.json.decode(self.submitted[job].payload, type=Plan)

    def new_attempt(self) -> int:
        """The identity of an attempt that begins, whatever number it has been given."""
        self.attempts += 1
        return self.attempts

    def ran_at_crash(self) -> dict[JobId, Crashed]:
        """What held a slot when the daemon died, with how far it had come."""
        out = {call.row.job for call in self.calls.values() if call.state == "sent"}
        return {job: Crashed(self.counts(job, self.plan(job).leads).settled, job in out) for job in self.slots.values()}

    def begin(self, epoch: int, job: JobId, number: int, identity: int) -> None:
        """An attempt takes its place, unless another has been given it meanwhile."""
        if self.is_present(epoch, job, number):
            self.begun[job] = identity

    def is_present(self, epoch: int, job: JobId, number: int) -> bool:
        """Whether a work transaction of this attempt would be accepted."""
        row = self.live.get(job)
        return (
            epoch == self.epoch
            and row is not None
            and row.attempt == number
            and row.state in {JobState.RUNNING, JobState.STOPPING}
        )

    def work(self, epoch: int, job: JobId, number: int, identity: int, write: Callable[[], None]) -> bool:
        """One work transaction; False: it was refused. Nobody is let through who has a successor."""
        if not self.is_present(epoch, job, number):
            return False
        assert epoch == self.epoch, f"job {job}: epoch {epoch} writes in epoch {self.epoch}"
        assert identity == self.begun[job], f"attempt {number} of job {job} writes after another one has begun"
        write()
        return True

    def keep_result(self, job: JobId, lead: LeadId, state: str) -> None:
        """A lead's end; it has one."""
        assert (job, lead) not in self.results, f"job {job}, lead {lead} has two ends"
        self.results[job, lead] = state
        self.ended_by[job, lead] = self.begun[job]

    def keep_answer(self, call: CallId, began: Instant | None, state: str, cause: str = "") -> None:
        """The end of a call, in the transaction that stores what it brought."""
        stored = self.calls[call]
        if stored.state == "sent":
            stored.state, stored.cause, stored.began = state, cause, began

    def causes(self, job: JobId, lead: LeadId) -> Sequence[str]:
        """By what a lead's earlier calls were cut off."""
        calls = self.cut_off.get((job, lead), ())
        return [self.calls[call].cause for call in calls if self.calls[call].state == "unknown"]

    def counts(self, job: JobId, total: int) -> Counts:
        states = [self.results.get((job, LeadId(lead))) for lead in range(1, total + 1)]
        return Counts(total, *(states.count(state) for state in ("done", "failed", "skipped", "unknown")))
