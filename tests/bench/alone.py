"""The core by itself: no database, no sockets, and time that is made up.

What is measured here cannot hide behind a disk: what a queued job weighs, whether a long queue makes a slow queue, and
how much of a provider's limit is really used.
"""

import gc
import time
import tracemalloc
from heapq import heappop, heappush
from itertools import count

from msgspec.structs import replace

from leadline.core.effects import StartAttempt
from leadline.core.events import (
    AccountLearned,
    AttemptFinished,
    CallAsked,
    CallEnd,
    CallEnded,
    CallSent,
    Event,
    NewJob,
    PauseSet,
    ResponseBegan,
    Submitted,
)
from leadline.core.model import SECOND, Counts, Family, JobState, Kind, Limits, Now, Rules
from leadline.core.rate_limit import Cost, WindowLimit
from leadline.core.scheduler import Scheduler
from leadline_protocol.ids import AccountName, CallId, Instant, LeadId
from tests.bench.clients import TEAMSPACES
from tests.bench.figures import Round

NOOP = Kind(0, "noop", Family.NOOP, instant=True)
ENRICH = Kind(1, "enrich", Family.TABLES)
RULES = Rules(
    capacity=dict.fromkeys(Family),
    default_limits=Limits(slots=dict.fromkeys(Family, 1), max_queued=1_000_000),
    beat_seconds_max=10**9,
    warn_after_seconds=10**9,
    stall_after_seconds=10**9,
    yield_slot_after_seconds=10**9,
)
BATCH = 5_000


def _at(microseconds: int) -> Now:
    return Now(Instant(microseconds), Instant(microseconds))


def _jobs(first: int, number_of_jobs: int, kind: int, teamspaces: int = TEAMSPACES) -> Submitted:
    return Submitted(
        [NewJob(f"team-{number % teamspaces}", kind, b"") for number in range(first, first + number_of_jobs)]
    )


def _filled(length: int) -> Scheduler:
    """A scheduler with so many queued noops; paused, since they would not stay queued otherwise."""
    scheduler = Scheduler([NOOP, ENRICH], RULES)
    scheduler.handle([PauseSet("queue", "", paused=True)], _at(SECOND))
    for first in range(0, length, BATCH):
        scheduler.handle([_jobs(first, min(BATCH, length - first), NOOP.number)], _at(SECOND + first))
    return scheduler


def bytes_per_queued_job(length: int) -> float:
    """What the scheduler's memory grows by for each job in a queue of that length."""
    scheduler = _filled(TEAMSPACES)  # so that every teamspace is known
    gc.collect()
    tracemalloc.start()
    try:
        for first in range(0, length, BATCH):
            scheduler.handle([_jobs(first, BATCH, NOOP.number)], _at(2 * SECOND + first))
        gc.collect()
        return tracemalloc.get_traced_memory()[0] / length
    finally:
        tracemalloc.stop()


def dispatch_cost(rounds: int, short: int, long: int) -> list[Round]:
    """Microseconds to admit, start and end a job behind a long queue, beside the same behind a short one."""
    queues = [_Steady(short), _Steady(long)]
    measured = []
    for _ in range(rounds):
        before = queues[0].microseconds()
        ours = queues[1].microseconds()
        after = queues[0].microseconds()
        measured.append(Round(ours, (before + after) / 2))
    return measured


class _Steady:
    """A queue that keeps its length: for each job that ends the next one starts, and another one comes in."""

    RUNNING = 200
    DECISIONS = 40

    def __init__(self, length: int) -> None:
        rules = replace(RULES, capacity={**RULES.capacity, ENRICH.family: self.RUNNING})
        self._scheduler = Scheduler([NOOP, ENRICH], rules)
        self._instant = SECOND
        self._running = []
        for first in range(0, length + self.RUNNING, BATCH):
            jobs = _jobs(first, min(BATCH, length + self.RUNNING - first), ENRICH.number)
            self._running += self._scheduler.handle([jobs], self._next_moment()).starts
        assert len(self._running) == self.RUNNING

    def microseconds(self) -> float:
        """What a job takes on its way through, all three decisions about it together."""
        seconds = 0.0
        for _ in range(self.DECISIONS):
            events: list[Event] = [
                AttemptFinished(start.job, start.number, JobState.COMPLETED, Counts()) for start in self._running
            ]
            events.append(_jobs(self._instant % TEAMSPACES, self.RUNNING, ENRICH.number))
            now = self._next_moment()
            began = time.perf_counter()
            effects = self._scheduler.handle(events, now)
            seconds += time.perf_counter() - began
            self._running = effects.starts
            assert len(self._running) == self.RUNNING
        return 1e6 * seconds / (self.DECISIONS * self.RUNNING)

    def _next_moment(self) -> Now:
        self._instant += 1_000
        return _at(self._instant)


def provider_at_its_limit(teamspaces: int, windows: int) -> Round:
    """Units per second that a provider is asked for by jobs that have always another call to make.

    Each of so many teamspaces runs one job that asks for its next call as soon as the last one has been answered; few
    jobs have several calls on the way at a time, since one after the other would not reach the limit.
    """
    amount, per_seconds, latency = 600, 10, SECOND // 5
    costs = [Cost(request=units) for units in (1, 1, 1, 3, 1, 5)]
    world = _Provider(WindowLimit(amount=amount, per_seconds=per_seconds), costs, latency, teamspaces)
    seconds = windows * (per_seconds + latency / SECOND)
    units = world.play(int(seconds * SECOND))
    return Round(units / seconds, (amount - 5) / (per_seconds + latency / SECOND))


class _Provider:
    """One account, jobs that never have enough of it, and a provider that answers after a while."""

    ACCOUNT = AccountName("provider")
    CALLS_ON_THE_WAY = 600

    def __init__(self, limit: WindowLimit, costs: list[Cost], latency: int, teamspaces: int) -> None:
        self._costs = costs
        self._latency = latency
        self._scheduler = Scheduler([NOOP, ENRICH], RULES)
        self._due: list[tuple[int, int, Event]] = []
        self._order = count()
        self._calls: dict[CallId, StartAttempt] = {}
        self._units = 0
        now = _at(SECOND)
        self._scheduler.handle([AccountLearned(self.ACCOUNT, (limit,))], now)
        started = self._scheduler.handle([_jobs(0, teamspaces, ENRICH.number, teamspaces)], now).starts
        for start in started:
            for _ in range(max(1, self.CALLS_ON_THE_WAY // teamspaces)):
                self._ask(SECOND, start)

    def play(self, microseconds: int) -> int:
        """Let so much time pass; the units that were sent in it."""
        now = _at(SECOND)
        end = now.instant + microseconds
        while True:
            deadline = self._scheduler.next_deadline(now)
            at = min(self._due[0][0] if self._due else end, end if deadline is None else max(deadline, now.instant))
            if at >= end:
                return self._units
            now = _at(at)
            for send in self._scheduler.handle(self._happened(at), now).sends:
                answered = Instant(at + self._latency)
                self._units += self._cost(send.call).request
                self._later(at, CallSent(send.call, Instant(at)))
                self._later(answered, ResponseBegan(send.call, answered))
                self._later(answered, CallEnded(send.call, answered, CallEnd()))

    def _happened(self, at: int) -> list[Event]:
        events = []
        while self._due and self._due[0][0] <= at:
            event = heappop(self._due)[2]
            events.append(event)
            if isinstance(event, CallEnded):
                self._ask(at, self._calls.pop(event.call))
        return events

    def _ask(self, at: int, attempt: StartAttempt) -> None:
        call = CallId(next(self._order))
        self._calls[call] = attempt
        self._later(at, CallAsked(call, attempt.job, attempt.number, self.ACCOUNT, LeadId(int(call)), self._cost(call)))

    def _later(self, at: int, event: Event) -> None:
        heappush(self._due, (at, next(self._order), event))

    def _cost(self, call: CallId) -> Cost:
        return self._costs[call % len(self._costs)]
