"""How fast the queue goes, and whether it goes at all: what the dispatcher measures of itself.

Kept for a minute or for the last thousand commits, in memory: it is for people who look, and a restart may begin anew.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct

from leadline.core.model import SECOND
from leadline_protocol.ids import Instant, JobId

COMMITS_KEPT: Final = 1_000
WINDOW_SECONDS: Final = 60

STALLS_KEPT: Final = 50
"""Jobs that stood still, for people who look: its history tells of every one."""

COMMIT_BOUNDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
START_BOUNDS: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3_600.0, 86_400.0)
"""Classes of seconds: from a disk that is quick to one that stalls, and from at once to a day in the queue."""

STARTS_MINUTES: Final = 5
"""Starts are told of for so long; a queue that has become slow is seen soon, and one start does not decide."""

STUCK_SECONDS: Final = 120.0
"""Longer than any commit and the search for its outcome may take: those end by themselves, in a new reign."""


class Histogram:
    """How many of something took how long, since it was made: what Prometheus reckons quantiles from."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds`: upper ends of the classes, rising; one more class takes what is beyond them."""
        self.bounds: Final = bounds
        self.counts: Final = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        """One more."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds


def quantile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """What so many of those in classes took at most: 0.5 gives the median; None where there are none.

    As Prometheus reckons it: evenly spread within a class, and of the last one its beginning.
    """
    rank = share * sum(counts)
    if not rank:
        return None
    below, lower = 0, 0.0
    for bound, count in zip(bounds, counts, strict=False):
        if count and below + count >= rank:
            return lower + (bound - lower) * (rank - below) / count
        below, lower = below + count, bound
    return lower


class Stall(Struct, frozen=True):
    """A job that stood still for no reason that is known."""

    job: JobId
    teamspace: str
    at: Instant
    """When that was noticed, which is wall time."""
    seconds: int
    """So long it had stood still by then."""
    killed: bool


class Pace:
    """Of one reign."""

    def __init__(self) -> None:
        self.commits: Final = Histogram(COMMIT_BOUNDS)
        self.starts: Final = Histogram(START_BOUNDS)
        """From the time at which a job could have started, as far as it is concerned, to its first start."""
        self.ended = 0
        """Jobs, since the reign began."""
        self.stall_kills = 0
        self.stalls: Final[dict[JobId, Stall]] = {}
        """The last one of each job that stood still, oldest first; the newest STALLS_KEPT of them."""
        self._commits: deque[float] = deque(maxlen=COMMITS_KEPT)
        self._starts_before: deque[tuple[int, tuple[int, ...]]] = deque()
        """Minute, and what `starts` had counted before the first start in it; the last few minutes'."""
        self._ended: deque[tuple[int, int]] = deque()
        """Second, and how many jobs ended in it; the last minute's."""

    def stored(self, began: Instant, now: Instant, ended: int) -> None:
        """A decision is durable, by which so many jobs ended."""
        seconds = (now - began) / SECOND
        self._commits.append(seconds)
        self.commits.add(seconds)
        if ended:
            self.ended += ended
            second = now // SECOND
            if self._ended and self._ended[-1][0] == second:
                ended += self._ended.pop()[1]
            self._ended.append((second, ended))
            self._forget(second)

    def started(self, seconds: float, now: Instant) -> None:
        """A job has started for the first time, so long after it could have."""
        minute = now // SECOND // 60
        if not self._starts_before or self._starts_before[-1][0] != minute:
            self._starts_before.append((minute, tuple(self.starts.counts)))
            self._forget_starts(minute)
        self.starts.add(seconds)

    def start_seconds(self, share: float, now: Instant) -> float | None:
        """What so many of the starts of the last minutes took at most; None where there were none."""
        self._forget_starts(now // SECOND // 60)
        if not self._starts_before:
            return None
        before = self._starts_before[0][1]
        recent = [count - earlier for count, earlier in zip(self.starts.counts, before, strict=True)]
        return quantile(self.starts.bounds, recent, share)

    def stood_still(self, stall: Stall) -> None:
        """Nobody has seen a job get on for a while."""
        self.stall_kills += stall.killed
        self.stalls.pop(stall.job, None)
        self.stalls[stall.job] = stall
        if len(self.stalls) > STALLS_KEPT:
            del self.stalls[next(iter(self.stalls))]

    def jobs_per_second(self, now: Instant) -> float:
        """Jobs that ended, over the last minute."""
        self._forget(now // SECOND)
        return sum(jobs for _, jobs in self._ended) / WINDOW_SECONDS

    def commit_seconds(self, share: float) -> float | None:
        """What so many of the last commits took at most: 0.5 gives the median. None where there was none."""
        if not self._commits:
            return None
        return sorted(self._commits)[int(share * (len(self._commits) - 1))]

    def _forget_starts(self, minute: int) -> None:
        while self._starts_before and self._starts_before[0][0] <= minute - STARTS_MINUTES:
            self._starts_before.popleft()

    def _forget(self, second: int) -> None:
        while self._ended and self._ended[0][0] <= second - WINDOW_SECONDS:
            self._ended.popleft()


class Progress:
    """Whether a loop that has something to do gets on with it."""

    def __init__(self, turns: Callable[[], int | None], seconds: Callable[[], float]) -> None:
        """`turns` counts on while the loop gets on, and is None while it has nothing to do; `seconds` is a clock."""
        self._turns = turns
        self._seconds = seconds
        self._last: int | None = None
        self._since = seconds()

    def __call__(self) -> bool:
        """Ask at least every few seconds. False: it has had something to do for STUCK_SECONDS and has done none."""
        turns, now = self._turns(), self._seconds()
        if turns is None or turns != self._last:
            self._last, self._since = turns, now
        return now - self._since < STUCK_SECONDS
