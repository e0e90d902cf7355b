"""One decision in the making: the moment at which it is made, and what has been decided so far.

Made anew by each `Scheduler.handle` and handed to whoever decides a part. Its effects are nobody's business outside
before it is complete: a job that is started and stopped within one decision has never left this module.
"""

from msgspec import Struct, field

from leadline.core.effects import AdmittedJob, Effects, HistoryRow, SlotRow
from leadline.core.model import Attempt, Job, Now
from leadline_protocol.ids import Instant, JobId


class Decision(Struct):
    """What follows from the events of one moment."""

    now: Now
    effects: Effects = field(default_factory=Effects)
    changed: dict[JobId, None] = field(default_factory=dict)
    """Live jobs whose rows are no longer as stored, in the order in which they changed."""
    started: set[JobId] = field(default_factory=set)
    """Jobs that took a slot in this decision."""
    launches: dict[JobId, Attempt] = field(default_factory=dict)
    """Attempts that are handed to their actors when the decision is complete."""
    admitted: dict[JobId, AdmittedJob] = field(default_factory=dict)
    """Jobs that came in with this decision and have not ended in it."""
    instant_jobs: int = 0
    """Jobs without work that it has started and ended."""

    def tell(self, job: Job, event: str, detail: str = "") -> None:
        """Add a line to the job's story."""
        self.effects.records.history.append(HistoryRow(job.id, Instant(self.now.wall), event, detail))

    def free_slot(self, row: SlotRow) -> None:
        """A slot is given back; one that was taken in this very decision was never stored."""
        if row.job in self.started:
            self.effects.records.slots_taken.remove(row)
            self.started.discard(row.job)
        else:
            self.effects.records.slots_freed.append(row)
