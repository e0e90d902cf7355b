"""What the quotas may say to runs that are still to come: the ledger's own rules, run forward.

A preview of schedules marks the occurrences that would be skipped. Executions and invocations are certain. Time is not,
because nobody knows how long a run will take, and neither guess is safe: one that takes its whole timeout leaves less
for the later ones, but one that ends early is recorded early, and refuses what it would still have let pass. So at each
occurrence every run before it has taken as long as it can have taken by then. A mark says that the occurrence may be
skipped; where there is no mark none is, whatever the runs do, as long as nothing is retried or started by API. Each run
is taken to start at its instant: whether a slot is free then is not asked.
"""

from collections.abc import Sequence
from datetime import tzinfo

from msgspec import Struct

from leadline.core.quota.days import day_of
from leadline.core.quota.ledger import BatchJobId, Ledger, Refusal, refusal
from leadline.core.quota.quotas import Quotas
from leadline_protocol.ids import Instant, JobId


class Planned(Struct, frozen=True, gc=False):
    """A run that is still to come."""

    at: Instant
    """Wall time."""
    batch_job: BatchJobId
    timeout_ms: int


def project(ledger: Ledger, planned: Sequence[Planned], quotas: Quotas, zone: tzinfo) -> list[Refusal | None]:
    """For each planned run, in the order given, why it would be skipped; None: it would run.

    Those of one instant are taken in the order given.
    """
    ahead = ledger.copy()
    marks: list[Refusal | None] = [None] * len(planned)
    for place in sorted(range(len(planned)), key=lambda place: planned[place].at):
        run = planned[place]
        usage = ahead.usage_at_most(day_of(run.at, zone), run.at)
        mark = marks[place] = refusal(usage, quotas, run.batch_job, run.timeout_ms)
        if mark is None:
            ahead.begin(JobId(-1 - place), run.batch_job, run.timeout_ms, run.at)
    return marks
