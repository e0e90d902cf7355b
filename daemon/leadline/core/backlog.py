"""The order of the one queue, and who of it may start next.

There is one global order, (order, id), but a job may be older than another and yet not eligible: its teamspace runs
as many jobs of the family as its plan allows, or somebody paused it. Walking the global order past thousands of
blocked jobs at every decision would make a long queue a slow queue.

So each (teamspace, family) has a lane, a heap of its own, and each family one heap of the lanes' heads that could
start this very moment. A lane is offered there when it has a head and a free slot, and taken from there in global
order: blocked lanes are simply absent. Every operation costs O(log n). Entries that have become untrue (a job was
cancelled, a better head came, a slot was taken) are recognised and dropped when they surface.
"""

from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from typing import Final

from msgspec import Struct, field

from leadline.core.model import Family, Job, JobState
from leadline_protocol.ids import JobId, TeamspaceId

_QUEUED: Final = JobState.QUEUED  # looking a member up in its class costs as much as all the rest of `eligible`

_STALE_MAX: Final = 64
"""Untrue entries that a lane's heap may hold beside as many as it has true ones, before it is swept."""

_COUNTED_MAX: Final = 200
"""Jobs that are looked at to say how many stand before another."""


class Lane(Struct, gc=False):
    """What one teamspace has queued and running of one family."""

    teamspace: TeamspaceId
    family: Family
    limit: int | None
    """Slots; None: as many as it likes."""
    heap: list[Job] = field(default_factory=list)
    """Queued jobs, and stale entries of jobs that are no longer."""
    held: set[int] = field(default_factory=set)
    """Numbers of the slots in use."""
    queued: int = 0
    """Jobs in the heap that are really queued."""
    latest: int = 0
    """No job in it has a later order."""
    offered: Job | None = None
    """The head under which it stands among the ready lanes."""

    def head(self) -> Job | None:
        """Its first job that is still waiting to start."""
        heap = self.heap
        while heap:
            job = heap[0]
            if eligible(job):
                return job
            heappop(heap)
        return None

    def in_the_way(self) -> int:
        """Running jobs that must end before its first one can start."""
        return len(self.held) if self.limit is not None and len(self.held) >= self.limit else 0

    def free_slot(self) -> int | None:
        """The smallest free slot number; None when all are held."""
        if self.limit is not None and len(self.held) >= self.limit:
            return None
        slot = 0
        while slot in self.held:
            slot += 1
        return slot


def eligible(job: Job) -> bool:
    """Whether a job may stand in a lane: queued, with nothing of its own that holds it back."""
    return job.state is _QUEUED and (job.details is None or not job.details.waits)


class Backlog:
    """Every job that waits for its turn, and the lanes that could start one now."""

    def __init__(
        self,
        limit: Callable[[TeamspaceId, Family], int | None],
        blocked: Callable[[TeamspaceId, Family], bool],
    ) -> None:
        """`limit` gives a teamspace's slots; `blocked` says whether a pause keeps its jobs from starting."""
        self._limit = limit
        self._blocked = blocked
        self.lanes: dict[tuple[TeamspaceId, Family], Lane] = {}
        self._ready: dict[Family, list[tuple[int, JobId, TeamspaceId]]] = {family: [] for family in Family}
        """(order, id, teamspace) of the heads of lanes that could start them."""
        self.queued: dict[Family, int] = dict.fromkeys(Family, 0)

    def lane(self, teamspace: TeamspaceId, family: Family) -> Lane:
        """The lane, made at its first use."""
        key = (teamspace, family)
        lane = self.lanes.get(key)
        if lane is None:
            lane = self.lanes[key] = Lane(teamspace, family, self._limit(teamspace, family))
        return lane

    def put(self, job: Job, family: Family) -> Lane:
        """Queue a job that may start as far as it itself is concerned."""
        lane = self.lanes.get((job.teamspace, family)) or self.lane(job.teamspace, family)
        heappush(lane.heap, job)
        if job.order > lane.latest:  # noqa: PLR1730  a call of max costs a tenth of the whole
            lane.latest = job.order
        lane.queued += 1
        self.queued[family] += 1
        if lane.heap[0] is job or lane.queued == 1:  # another than its head changes nothing for the lane
            self.offer(lane)
        return lane

    def withdraw(self, job: Job, family: Family) -> None:
        """Say that a job in a lane is about to leave it other than by `take`; its heap entry goes stale."""
        lane = self.lanes[job.teamspace, family]
        lane.queued -= 1
        self.queued[family] -= 1
        if len(lane.heap) > 2 * lane.queued + _STALE_MAX:
            lane.heap = list({other.id: other for other in lane.heap if other is not job and eligible(other)}.values())
            heapify(lane.heap)
        self._forget_if_idle(lane)

    def offer(self, lane: Lane) -> None:
        """Put a lane among the ready ones if it could start a job now and does not stand there already."""
        job = lane.head()
        if (
            job is not None
            and job is not lane.offered
            and (lane.limit is None or len(lane.held) < lane.limit)
            and not self._blocked(lane.teamspace, lane.family)
        ):
            lane.offered = job
            heappush(self._ready[lane.family], (job.order, job.id, lane.teamspace))

    def take(self, family: Family) -> tuple[Lane, Job] | None:
        """The first job of the family that may start now, out of its lane; None when there is none.

        The caller either holds a slot of the lane or starts and ends the job at once; then it calls `offer`.
        """
        ready = self._ready[family]
        while ready:
            _, number, teamspace = heappop(ready)
            lane = self.lanes.get((teamspace, family))
            if lane is None:
                continue
            offered = lane.offered
            if offered is None or offered.id != number:
                continue
            lane.offered = None
            if (lane.limit is not None and len(lane.held) >= lane.limit) or self._blocked(teamspace, family):
                continue
            if lane.head() is not offered:
                self.offer(lane)
                continue
            heappop(lane.heap)
            lane.queued -= 1
            self.queued[family] -= 1
            return lane, offered
        return None

    def release(self, lane: Lane, slot: int) -> None:
        """Give a slot back."""
        lane.held.discard(slot)
        self.offer(lane)
        self._forget_if_idle(lane)

    def _forget_if_idle(self, lane: Lane) -> None:
        if not lane.held and not lane.queued:
            lane.heap.clear()
            lane.offered = None
            self.lanes.pop((lane.teamspace, lane.family), None)

    def done_with(self, lane: Lane) -> None:
        """After a take that left no slot held: offer the lane's next job, or forget a lane that has nothing left."""
        if lane.queued:
            self.offer(lane)
        else:
            self._forget_if_idle(lane)

    def reconsider(self) -> None:
        """Offer every lane again: limits or pauses have changed."""
        for lane in self.lanes.values():
            lane.limit = self._limit(lane.teamspace, lane.family)
            self.offer(lane)

    def oldest(self) -> dict[Family, int]:
        """The order of the job that has queued longest, of each family that has any; costs the number of lanes."""
        oldest: dict[Family, int] = {}
        for lane in self.lanes.values():
            head = lane.head()
            if head is not None and head.order < oldest.get(lane.family, head.order + 1):
                oldest[lane.family] = head.order
        return oldest

    def ahead_of(self, job: Job, family: Family) -> int:
        """How many jobs of its own lane run or start before it.

        Costs the number of jobs ahead, not the length of the lane: a heap's subtree is left where it is no longer
        ahead.
        """
        lane = self.lanes.get((job.teamspace, family))
        if lane is None:
            return 0
        return lane.in_the_way() + len({other.id for other in _before(lane.heap, job)})

    def ahead_at_most(self, lane: Lane, job: Job) -> int:
        """The same for receipts, which are written by the thousand: exact in short lanes, else no less than it is."""
        if job.order >= lane.latest or len(lane.heap) > _COUNTED_MAX:
            before = lane.queued - 1 if lane.queued else 0
            return before + lane.in_the_way() if lane.held else before
        return self.ahead_of(job, lane.family)

    def lanes_before(self, job: Job, family: Family) -> int:
        """How many other lanes of the family are ready with a job that goes before this one."""
        return sum(
            lane.offered is not None and lane.offered < job and lane.teamspace != job.teamspace
            for lane in self.lanes.values()
            if lane.family is family
        )

    def check(self) -> None:
        """Assert that whatever is offered stands among the ready; O(lanes)."""
        for family, ready in self._ready.items():
            entries = {(number, teamspace) for _, number, teamspace in ready}
            for lane in self.lanes.values():
                if lane.family is family and lane.offered is not None:
                    assert (lane.offered.id, lane.teamspace) in entries, f"{lane.offered.id} is offered to nobody"


def _before(heap: list[Job], job: Job) -> Iterator[Job]:
    pending = [0]
    while pending:
        index = pending.pop()
        if index < len(heap) and heap[index] < job:
            if eligible(heap[index]):
                yield heap[index]
            pending.append(2 * index + 1)
            pending.append(2 * index + 2)
