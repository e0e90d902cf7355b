"""One peer that listens: what it asked to hear of, turned into notices, in order.

What happens is told to the subscriber as bare facts, the moment they are durable; what a notice shows (counts, waits)
is looked up when its turn comes, by one task, so that a peer that reads slowly holds up nobody and gets the newest
counts rather than old ones. The facts that wait are bounded: beyond that the peer is told how many it has missed, and
can ask.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Final

from msgspec import Struct

from leadline.actors import announcer as announcers
from leadline.actors.announcer import Announcer, Listener
from leadline.actors.job_operations import JobOperations
from leadline.actors.peers import Peer
from leadline.core.effects import EndedJob, StartAttempt
from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.ids import JobId

FACTS_MAX: Final = 10_000
"""Facts that wait to be told to one peer, as long as those of all peers together are not too many."""

LISTENED_MAX: Final = 10_000
"""Jobs of which one peer wants to hear."""

Fact = Callable[[], Awaitable[wire.Notice | None]]


class _Topic(Struct, frozen=True):
    """What is listened to: listening twice to the same is listening once."""

    job: JobId | None
    """None: all of them."""
    progress: bool
    own: bool
    """Only the peer's own jobs."""


class Subscriber:
    """What one peer hears of."""

    def __init__(
        self, jobs: JobOperations, announcer: Announcer, peer: Peer, send: Callable[[wire.Notice], Awaitable[None]]
    ) -> None:
        """`send` hands a notice over, and takes as long as the peer takes."""
        self._jobs = jobs
        self._announcer = announcer
        self._peer = peer
        self._send = send
        self._listeners: dict[_Topic, Listener] = {}
        self._closed = False
        self._facts: deque[Fact] = deque()
        self._ending: dict[JobId, asyncio.Future[int | None] | None] = {}
        """Ends that wait to be told; where it is not known whose job it was, with who will know."""
        self._heard: set[JobId] | None = None
        """While earlier ends are looked up: those that have been taken up since."""
        self._missed = 0
        self._teller: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How much is listened to."""
        return len(self._listeners)

    async def notify(self, job: JobId) -> None:
        """Hear of the end of one job, at once if it has ended already."""
        try:
            await self._hear_of(job, progress=False)
        except Refused:  # the job is admitted all the same: the peer learns that it will miss something
            self._miss()

    async def watch(self, job: JobId | None) -> None:
        """Hear of everything that happens to one job until it has ended, or to all.

        Raises Refused with not_found, or with busy.
        """
        if job is None:
            self._listen(_Topic(None, progress=True, own=False))
        else:
            await self._hear_of(job, progress=True)

    async def follow(self, job: JobId | None, since: JobId | None) -> None:
        """Hear of the ends of the peer's own jobs. Raises Refused with not_found, or with busy."""
        if job is not None:
            stored = await self._jobs.stored(job)
            if stored is None or (stored.uid != self._peer.uid and not self._peer.operator):
                raise Refused(ErrorCode.NOT_FOUND, f"there is no job {job}", at="job")
            await self._hear_of(job, progress=False)
            return
        self._listen(_Topic(None, progress=False, own=True))
        if since is None or self._heard is not None:
            return
        # What ends meanwhile is found by both, the listener and the search. The search ends with an empty page, which
        # is asked for after everything that it found has been announced.
        self._heard = set()
        try:
            async for ended in self._jobs.ended_since(since, self._peer.uid):
                self._put_end(ended)
        finally:
            self._heard = None

    def close(self) -> None:
        """Hear nothing more."""
        self._closed = True
        for topic, listener in self._listeners.items():
            self._announcer.forget(listener, topic.job)
        self._listeners.clear()
        self._announcer.facts -= len(self._facts)
        self._facts.clear()
        self._ending.clear()
        if self._teller is not None:
            self._teller.cancel()

    async def _hear_of(self, job: JobId, *, progress: bool) -> None:
        # First listen, then look: whatever the order in which the end and the look come, it is told exactly once.
        topic = _Topic(job, progress=progress, own=False)
        listener = self._listen(topic)
        try:
            view = await self._jobs.view(job)
        except Refused:
            if listener is not None:
                self._forget(topic)
            raise
        if topic not in self._listeners:
            return
        if view.state in wire.ENDED_STATES:
            self._forget(topic)
            self._put_end(job)
        elif progress:
            self._put(lambda: self._progress_of(job))

    def _listen(self, topic: _Topic) -> Listener | None:
        """Begin to listen; None where that was done already. Raises Refused with busy."""
        if topic in self._listeners or self._closed:
            return None
        if len(self._listeners) >= LISTENED_MAX:
            message = f"this connection waits to hear of {LISTENED_MAX} jobs already"
            raise Refused(ErrorCode.BUSY, message, retry_after=announcers.RETRY_SECONDS)

        def ended(fact: EndedJob) -> None:
            if topic.job is not None:
                self._listeners.pop(topic, None)
            if topic.own and fact.admitted is None:
                self._put_end(fact.id, partial(self._jobs.submitters.of, fact.id))
            elif not topic.own or (fact.admitted is not None and fact.admitted.new.uid == self._peer.uid):
                self._put_end(fact.id)

        def progressed(moved: JobId) -> None:
            self._put(lambda: self._progress_of(moved))

        def started(order: StartAttempt) -> None:
            now = datetime.now(UTC)
            self._put(lambda: self._start_of(order, now))

        def queued(entered: JobId) -> None:
            now = datetime.now(UTC)
            self._put(lambda: self._queue_of(entered, now))

        listener = Listener(ended=ended)
        if topic.progress:
            listener = Listener(ended=ended, progressed=progressed, started=started, queued=queued)
        self._announcer.listen(listener, topic.job)
        self._listeners[topic] = listener
        return listener

    def _forget(self, topic: _Topic) -> None:
        listener = self._listeners.pop(topic, None)
        if listener is not None:
            self._announcer.forget(listener, topic.job)

    def _is_full(self) -> bool:
        return len(self._facts) >= FACTS_MAX or self._announcer.facts >= announcers.FACTS_MAX

    def _put_end(self, job: JobId, submitter: "Callable[[], asyncio.Future[int | None]] | None" = None) -> None:
        """Have an end told once, for however many reasons; with a submitter only if that turns out to be the peer."""
        if job in self._ending:
            if submitter is None:
                self._ending[job] = None
        elif self._heard is None or job not in self._heard:
            if self._is_full():
                self._miss()
                return
            if self._heard is not None:
                self._heard.add(job)
            self._ending[job] = submitter() if submitter is not None else None
            self._put(partial(self._end_once, job))

    def _put(self, fact: Fact) -> None:
        if self._is_full():
            self._miss()
            return
        self._announcer.facts += 1
        self._facts.append(fact)
        self._wake_teller()

    def _miss(self) -> None:
        self._missed += 1
        self._wake_teller()

    def _wake_teller(self) -> None:
        if not self._closed and (self._teller is None or self._teller.done()):
            self._teller = asyncio.ensure_future(self._tell())

    async def _tell(self) -> None:
        while self._facts or self._missed:
            if not self._facts:
                missed, self._missed = self._missed, 0
                await self._send(wire.Missed(count=missed))
                continue
            fact = self._facts.popleft()
            self._announcer.facts -= 1
            try:
                notice = await fact()
            except Refused:
                # The database is lost for a while: the peer learns that it missed something, and can ask.
                self._missed += 1
                continue
            if notice is not None:
                await self._send(notice)

    async def _end_once(self, job: JobId) -> wire.Notice | None:
        submitter = self._ending.pop(job)
        # Shielded: others wait for the same answer, whatever becomes of this peer.
        if submitter is not None and await asyncio.shield(submitter) != self._peer.uid:
            return None
        return await self._end_of(job)

    async def _end_of(self, job: JobId) -> wire.Notice | None:
        view = await self._jobs.view(job)
        return wire.Ended(
            at=view.ended_at,
            job=view.job,
            teamspace=view.teamspace,
            state=view.state,
            counts=view.counts,
            reason=view.reason,
            message=view.message,
            warnings=view.warnings,
        )

    async def _progress_of(self, job: JobId) -> wire.Notice | None:
        view = await self._jobs.view(job)
        if view.state in wire.ENDED_STATES:
            return None
        return wire.Progress(
            job=view.job,
            teamspace=view.teamspace,
            state=view.state,
            shown=view.shown,
            counts=view.counts,
            activity=view.activity,
            waits=view.waits,
            stalled=view.stalled,
            leads_per_second=view.leads_per_second,
            ends=view.ends,
        )

    async def _queue_of(self, job: JobId, at: datetime) -> wire.Notice | None:
        view = await self._jobs.view(job)
        reason = view.waits[0].reason if view.waits else None
        return wire.Queued(at=at, job=job, kind=view.kind, teamspace=view.teamspace, reason=reason)

    async def _start_of(self, order: StartAttempt, at: datetime) -> wire.Notice | None:
        view = await self._jobs.view(order.job)
        return wire.Started(at=at, job=order.job, teamspace=view.teamspace, attempt=order.number)
