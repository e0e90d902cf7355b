"""The one loop through which everything goes: gather what happened, decide, commit, then act.

While one decision commits, events gather; the next round takes them all at once. That makes the commits fewer and
larger exactly when there is much to do, and costs nothing when there is little: a lone submission is decided and
committed at once. Where so much has gathered that deciding takes as long as committing, the next decision is made
while the one before is still on its way to the disk, so that the daemon and the database work at the same time. It
stays at one: its own commit begins when that of the one before has ended, so they land in order or not at all.

A decision takes all events that are not submissions, and of submissions a share of each source that has any, so that
whoever sends without end is served as fast as the disk is and nobody waits behind it for more than a decision or two.

Nothing that follows from a decision happens before its records are durable: answers, starts, stops and permits wait
for the commit. If a commit fails, the scheduler in memory knows things that the database does not; `run` then raises,
the supervisor drops the reign and builds the next one from the database, and everybody who waits for an answer is
told `unavailable`: but those whose commit may have taken place get no answer, as any would be a guess.

Bare asyncio futures and one deque, because this is the hot path: a task per submission would cost more than the rest
of the way (an asyncio task 4 µs, a task of a task group 18 µs, against 9 µs of everything else, measured on two
cores).
"""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar, cast

import anyio
from msgspec import Struct
from msgspec.structs import replace

from leadline.actors.pace import Pace
from leadline.actors.timekeeper import Timekeeper
from leadline.actors.turns import FairLine
from leadline.core.effects import (
    Answer,
    Effects,
    Receipt,
    Records,
    RefuseCall,
    SendCall,
    StartAttempt,
    StopAttempt,
    WarnStalled,
)
from leadline.core.events import DaemonSlept, Event, KnownKey, NewJob, Submitted, Ticked
from leadline.core.model import Now
from leadline.core.scheduler import Scheduler
from leadline.ports.clock import Clock
from leadline.ports.store import OutcomeUnknown, Store
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.ids import CallId

JOBS_PER_DECISION: Final = 8_000
"""New jobs that one decision takes in where they all come from one source: bounds its transaction and the time in which
nothing else is heard."""

JOBS_PER_SHARED_DECISION: Final = 1_000
"""The same where others submit as well: each of them waits for about three decisions, 10 ms each."""

SHARED_DECISIONS: Final = 100
"""So many decisions are small after somebody else has submitted."""

BYTES_PER_JOB: Final = 512
"""So much of a submission's line counts as a job more: long ones take longer to store."""

JOBS_AHEAD_MIN: Final = 1_000
"""So many new jobs must wait for a decision to be made ahead of a commit: with fewer it is better to wait and take
more, as that makes one commit of two."""

INBOX_JOBS_MAX: Final = 50_000
"""New jobs that wait to be decided; beyond, those who have some among them are told `busy`."""

FEW_JOBS: Final = 16
"""So many somebody who has none waiting may hand in all the same: it is not its fault."""

RETRY_SECONDS: Final = 1.0

COMPANY_MIN: Final = 5
"""From so many on, those who were answered at once are waited for: Postgres calls the same number commit_siblings."""

COMPANY_SECONDS: Final = 0.001
"""How long at most."""

T = TypeVar("T")


class Performer(Protocol):
    """Carries out what was decided; nothing in here may wait."""

    def start(self, order: StartAttempt) -> None:
        """Run a job."""
        ...

    def stop(self, order: StopAttempt) -> None:
        """Stop an attempt."""
        ...

    def send(self, order: SendCall) -> None:
        """Hand a permit over."""
        ...

    def refuse(self, order: RefuseCall) -> None:
        """Tell that there is no permit."""
        ...

    def warn(self, order: WarnStalled) -> None:
        """Tell people that a job stands still."""
        ...

    def recorded(self, records: Records) -> None:
        """Tell whoever listens what has become durable."""
        ...


class _Posted(Struct, gc=False):
    event: Event
    answer: asyncio.Future[Answer] | None = None
    jobs: int = 0
    """New jobs, steps included."""
    cost: float = 0.0
    """The same, long ones counted for more."""
    source: Hashable = None


class Dispatcher:
    """Owns the scheduler for one reign: from a recovery to the loss of the database or the end of the daemon."""

    def __init__(
        self, scheduler: Scheduler, store: Store, clock: Clock, performer: Performer, *, last_call: int
    ) -> None:
        self.scheduler = scheduler
        self.pace: Final = Pace()
        self._turns = 0
        self._store = store
        self._clock = clock
        self._performer = performer
        self._inbox: deque[_Posted] = deque()
        self._submitted: FairLine[_Posted] = FairLine()
        self._submitted_jobs = 0
        self._last_source: Hashable = None
        """Of the last submission since there was nothing to do."""
        self._shared = 0
        """How many of the next decisions are small."""
        self._looks: list[tuple[Callable[[Scheduler, Now], Any], asyncio.Future[Any]]] = []
        self._wanted = asyncio.Event()
        self._timekeeper = Timekeeper(clock, lambda: self.post(Ticked()), lambda late: self.post(DaemonSlept(late)))
        self._next_call = last_call + 1
        self._company = 0
        """How many sources the last decision has answered, for as long as they are waited for."""
        self._closed = False
        self._unstored: deque[Sequence[_Posted]] = deque()
        """What was taken out of the inbox and is not durable yet: two batches at most."""
        self._landing: asyncio.Task[None] | None = None
        """The last commit and what is done upon it."""
        self._under_way: Effects | None = None
        """What is being committed."""

    # -- what others call -------------------------------------------------------------------------------------------

    def post(self, event: Event) -> None:
        """Tell the scheduler what happened, without waiting for anything."""
        if not self._closed:
            self._inbox.append(_Posted(event))
            self._wanted.set()

    def submit(self, jobs: Sequence[NewJob], source: Hashable = None) -> "asyncio.Future[Sequence[Receipt | Refused]]":
        """Hand jobs in, behind all that were before: the answers come, in order, when what they say is durable.

        Sources are served in turn. Raises Refused with `busy` where too many wait already, and, as waiting for the
        answers does, with `unavailable` where the database is lost. Waiting raises OutcomeUnknown where nobody can say
        whether they were stored.
        """
        if self._closed:
            raise unavailable()
        count = len(jobs) + sum([len(new.steps) for new in jobs])
        is_modest = count <= FEW_JOBS and not self._submitted.has(source)
        if self._submitted_jobs + count > INBOX_JOBS_MAX and not is_modest:
            raise Refused(ErrorCode.BUSY, "too many submissions are waiting to be stored", retry_after=RETRY_SECONDS)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        cost = 1 + count + sum([len(new.payload) for new in jobs]) / BYTES_PER_JOB
        self._submitted.put(source, cost, _Posted(Submitted(jobs), future, count, cost, source))
        self._submitted_jobs += count
        if source != self._last_source:
            self._shared = 0 if self._last_source is None else SHARED_DECISIONS
            self._last_source = source
        self._wanted.set()
        return cast("asyncio.Future[Sequence[Receipt | Refused]]", future)

    async def tell(self, event: Event) -> None:
        """Post an event and wait until what follows from it is durable. Raises Refused, and OutcomeUnknown."""
        answer = await self._ask(event)
        if isinstance(answer, Refused):
            raise answer

    async def look(self, question: Callable[[Scheduler, Now], T]) -> T:
        """Ask the scheduler something at a moment when all it knows is durable."""
        if self._closed:
            raise unavailable()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._looks.append((question, future))
        self._wanted.set()
        return await future

    def new_call(self) -> CallId:
        """The number of the next call."""
        number = self._next_call
        self._next_call += 1
        return CallId(number)

    @property
    def turns(self) -> int | None:
        """Counts decisions and commits; None while there is nothing to do."""
        busy = self._inbox or self._submitted or self._looks or self._unstored
        return self._turns if busy else None

    # -- the loop ---------------------------------------------------------------------------------------------------

    async def open(self, first: Effects) -> None:
        """Store the first decision after a recovery, and carry it out. Raises what the store raises."""
        if first.records:
            await self._store.commit(first.records)
        self._carry_out(first, ())

    async def run(self) -> None:
        """Decide until cancelled. Raises what the store raised when a commit failed."""
        more = True
        try:
            while True:
                await self._until_it_is_time(more=more)
                self._turns += 1
                self._answer_looks()
                batch = self._gather()
                self._unstored.append(batch)
                events = await self._with_known_keys([posted.event for posted in batch])
                effects = self.scheduler.handle(events, self._clock.now())
                await self._landed()
                self._landing = asyncio.ensure_future(self._land(effects, batch))
                self._landing.add_done_callback(lambda _: self._wanted.set())
                more = effects.more
                if more:
                    await asyncio.sleep(0)
        finally:
            await self._close()

    async def _until_it_is_time(self, *, more: bool) -> None:
        """Wait for work, and with little of it for the commit that is under way; a question waits for that too."""
        while True:
            if self._landing is None or self._landing.done():
                await self._landed()
                if more or self._inbox or self._looks:
                    return
                if self._submitted:
                    await self._wait_for_company()
                    return
                self._last_source = None  # whoever comes next shares with nobody
                self._timekeeper.arm(self.scheduler.next_deadline(self._clock.now()))
            elif (more or self._submitted_jobs >= JOBS_AHEAD_MIN) and not self._looks:
                return
            self._wanted.clear()
            await self._wanted.wait()

    async def _wait_for_company(self) -> None:
        """Wait a moment for those who were just answered, where they are many: they may be about to come again.

        Clients that submit one job after the other would else part into two halves of which one waits while the
        other is stored, and each job would take two commits.
        """
        if self._company < COMPANY_MIN:
            return
        alarm = asyncio.get_running_loop().call_later(COMPANY_SECONDS, self._forget_company)
        while self._submitted.sources < self._company and not (self._inbox or self._looks):
            self._wanted.clear()
            await self._wanted.wait()
        alarm.cancel()

    def _forget_company(self) -> None:
        self._company = 0
        self._wanted.set()

    async def _landed(self) -> None:
        """Wait until all that was decided before is durable and carried out. Raises what the store raised."""
        if self._landing is not None:
            await self._landing
            self._landing = None

    async def _land(self, effects: Effects, batch: Sequence[_Posted]) -> None:
        """Make a decision durable, then carry it out."""
        if effects.records:
            self._under_way = effects
            began = self._clock.now().instant
            await self._store.commit(effects.records)
            self.pace.stored(began, self._clock.now().instant, len(effects.records.ended))
            self._under_way = None
            self._turns += 1
        self._unstored.popleft()
        self._company = len({posted.source for posted in batch if posted.jobs})
        self._carry_out(effects, batch)

    def _gather(self) -> list[_Posted]:
        batch = [*self._inbox]
        self._inbox.clear()
        submitted, cost = self._submitted, 0.0
        cost_max = JOBS_PER_SHARED_DECISION if self._shared else JOBS_PER_DECISION
        self._shared = max(0, self._shared - 1)
        while submitted and (not cost or cost + submitted.first().cost <= cost_max):
            posted = submitted.take()
            cost += posted.cost
            self._submitted_jobs -= posted.jobs
            batch.append(posted)
        return batch

    async def _with_known_keys(self, events: list[Event]) -> list[Event]:
        """Put what the database knows under each idempotency key into the event: the core asks nobody."""
        wanted = [
            (new.teamspace, new.key.key_hash)
            for event in events
            if isinstance(event, Submitted)
            for new in event.jobs
            if new.key is not None
        ]
        if not wanted:
            return events
        under_way = self._under_way  # before the database is asked: it may know these, or not yet
        known = {**await self._store.known_keys(wanted), **_known_by(under_way, wanted)}
        if not known:
            return events
        return [_told(event, known) if isinstance(event, Submitted) else event for event in events]

    def _answer_looks(self) -> None:
        looks, self._looks = self._looks, []
        for question, future in looks:
            if future.cancelled():
                continue
            try:
                future.set_result(question(self.scheduler, self._clock.now()))
            except Exception as error:  # noqa: BLE001  whoever asked gets it
                future.set_exception(error)

    def _carry_out(self, effects: Effects, batch: Sequence[_Posted]) -> None:
        for posted, answer in zip(batch, effects.answers, strict=True):
            if posted.answer is not None and not posted.answer.done():
                posted.answer.set_result(answer)
        performer = self._performer
        performer.recorded(effects.records)
        for stop in effects.stops:
            performer.stop(stop)
        for start in effects.starts:
            performer.start(start)
        for refused in effects.refused_calls:
            performer.refuse(refused)
        for send in effects.sends:
            performer.send(send)
        for warning in effects.warnings:
            performer.warn(warning)

    async def _ask(self, event: Event) -> Answer:
        if self._closed:
            raise unavailable()
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._inbox.append(_Posted(event, future))
        self._wanted.set()
        return await future

    async def _close(self) -> None:
        self._closed = True
        self._timekeeper.disarm()
        if self._landing is not None and await self._is_unknown(self._landing):
            unknown = OutcomeUnknown("nobody can say whether it was stored: the commit was cut off")
            _fail([posted.answer for posted in self._unstored.popleft()], unknown)
        posted = [*(each for batch in self._unstored for each in batch), *self._inbox]
        while self._submitted:
            posted.append(self._submitted.take())
        _fail([*(each.answer for each in posted), *(future for _, future in self._looks)], unavailable())
        self._unstored.clear()
        self._inbox.clear()
        self._looks.clear()

    async def _is_unknown(self, landing: asyncio.Task[None]) -> bool:
        """End the last commit where it is under way; whether it may have taken place all the same."""
        landing.cancel()
        with anyio.CancelScope(shield=True):
            (end,) = await asyncio.gather(landing, return_exceptions=True)
        return self._under_way is not None and isinstance(end, OutcomeUnknown | asyncio.CancelledError)


def _fail(waiting: Iterable["asyncio.Future[Any] | None"], why: Exception) -> None:
    for future in waiting:
        if future is not None and not future.done():
            future.set_exception(why)


def unavailable() -> Refused:
    """What everybody is told while there is no database to be sure of."""
    message = "the daemon cannot reach its database, or is starting"
    return Refused(ErrorCode.UNAVAILABLE, message, retry_after=RETRY_SECONDS)


def _known_by(effects: Effects | None, wanted: Sequence[tuple[str, bytes]]) -> Mapping[tuple[str, bytes], KnownKey]:
    """Which of these keys are among what is being stored."""
    if effects is None or effects.keys.keys().isdisjoint(wanted):
        return {}
    states = {row.id: row.state for row in effects.records.admitted}
    states.update((end.id, end.state) for end in effects.records.ended)
    return {
        key: KnownKey(job, body_hash, states[job])
        for key in wanted
        if key in effects.keys
        for job, body_hash in [effects.keys[key]]
    }


def _told(event: Submitted, known: Mapping[tuple[str, bytes], KnownKey]) -> Submitted:
    return Submitted([_with_known(new, known) if new.key is not None else new for new in event.jobs])


def _with_known(new: NewJob, known: Mapping[tuple[str, bytes], KnownKey]) -> NewJob:
    assert new.key is not None
    found = known.get((new.teamspace, new.key.key_hash))
    return new if found is None else replace(new, key=replace(new.key, known=found))
