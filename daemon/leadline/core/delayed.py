"""Jobs whose time has not come: in the order of their times, and how many there are of whom.

There may be a million of them, so nobody counts them when somebody asks.
"""

from heapq import heappop, heappush

from msgspec import Struct, field

from leadline.core.model import Family, Job
from leadline_protocol.ids import Instant, JobId, TeamspaceId


def _none() -> dict[Family, int]:
    return dict.fromkeys(Family, 0)


class Delayed(Struct):
    """The jobs in the state `delayed`."""

    heap: list[tuple[Instant, JobId]] = field(default_factory=list)
    """By run_at, which is wall time; entries of jobs that were cancelled stay until they come to the top."""
    by_family: dict[Family, int] = field(default_factory=_none)
    by_teamspace: dict[TeamspaceId, int] = field(default_factory=dict)
    """Who has none is absent."""

    def put(self, job: Job, family: Family, run_at: Instant) -> None:
        """A job is delayed until then."""
        heappush(self.heap, (run_at, job.id))
        self.by_family[family] += 1
        self.by_teamspace[job.teamspace] = self.by_teamspace.get(job.teamspace, 0) + 1

    def left(self, job: Job, family: Family) -> None:
        """A job that was put here is about to be delayed no more; its entry may stay."""
        self.by_family[family] -= 1
        left = self.by_teamspace[job.teamspace] - 1
        if left:
            self.by_teamspace[job.teamspace] = left
        else:
            del self.by_teamspace[job.teamspace]

    def first(self) -> tuple[Instant, JobId] | None:
        """The first entry, which may be of a job that is delayed no more."""
        return self.heap[0] if self.heap else None

    def drop_first(self) -> None:
        """Take the first entry away."""
        heappop(self.heap)
