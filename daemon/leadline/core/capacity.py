"""Who of a family has work in hand: the cap that protects the servers, whatever the teamspaces' slots add up to.

A job that waits for a provider keeps its slot but not its share of the capacity, so that eight jobs that wait for
hours stop nobody. When such a job could go on it needs a share again. Where there is none it waits in line, ahead of
every job that has not started: work that has begun comes to its end first. Tenants' code is a process that goes on
whatever it has asked for: it keeps its share to its end.
"""

from collections.abc import Callable

from leadline.core.model import Attempt, Family, Wait
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import JobId

_CAPACITY = Wait(JobReason.CAPACITY)


class Capacity:
    """Shares taken, and those who wait for one, by family."""

    def __init__(self, limit: Callable[[Family], int | None]) -> None:
        """`limit`: how many of a family may have work in hand now; None: any number."""
        self._limit = limit
        self.busy: dict[Family, int] = dict.fromkeys(Family, 0)
        self.waking: dict[Family, dict[JobId, Attempt]] = {family: {} for family in Family}
        """Attempts that could go on but for capacity, in the order of their wishes."""

    def room(self, family: Family) -> bool:
        """Whether there is a share for somebody."""
        limit = self._limit(family)
        return limit is None or self.busy[family] < limit

    def room_for_new(self, family: Family) -> bool:
        """Whether there is a share for a job that has not started."""
        if self.waking[family]:
            return False
        limit = self._limit(family)
        return limit is None or self.busy[family] < limit

    def take(self, family: Family, attempt: Attempt) -> None:
        """Give it a share."""
        assert not attempt.busy, "one share each"
        attempt.busy = True
        self.busy[family] += 1

    def give_back(self, family: Family, attempt: Attempt) -> None:
        """Take its share away, if it has one."""
        if attempt.busy:
            attempt.busy = False
            self.busy[family] -= 1

    def queue(self, family: Family, job: JobId, attempt: Attempt) -> None:
        """It waits for a share, if it does not yet."""
        assert not attempt.busy, "who has a share does not wait for one"
        if self.waking[family].setdefault(job, attempt) is attempt:
            attempt.waits[JobReason.CAPACITY] = _CAPACITY

    def leave(self, family: Family, job: JobId, attempt: Attempt) -> None:
        """It waits for no share any more."""
        self.waking[family].pop(job, None)
        attempt.waits.pop(JobReason.CAPACITY, None)

    def wake(self, family: Family) -> JobId | None:
        """The first in line gets a share; None: there is nobody, or no share."""
        waking = self.waking[family]
        if not waking or not self.room(family):
            return None
        job, attempt = next(iter(waking.items()))
        self.leave(family, job, attempt)
        self.take(family, attempt)
        return job


def wants_share(attempt: Attempt) -> bool:
    """Whether it would go on with a share: it is to be started, has a permit, or waits for nothing else."""
    others = len(attempt.waits) - (JobReason.CAPACITY in attempt.waits)
    return not attempt.launched or bool(attempt.held) or not (attempt.asking or others)
