"""Sends what is in the outbox: the one who does.

It sleeps until a decision has put something in, or until something is due again. Each notice goes its way as a task of
its own, so that a receiver who keeps everybody waiting keeps only his own. That it is being sent is stored first; so
after a crash it is known of which notices nobody knows, and one whose place in the queue was taken by another daemon
sends nothing, as it cannot store that it does.

What was not taken is tried again, later and later, for a day; then it is given up, and listed with what was never
taken at all. A webhook may be posted twice, under the same id. A mail is not: of which nobody knows whether it left is
held until a person decides.
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import anyio
import structlog

from leadline.ports.notices import Courier, Medium, Notice, NoticeState, Outbox, Outcome
from leadline.ports.store import Fenced, OutcomeUnknown, Unavailable

log = structlog.get_logger(__name__)

AT_ONCE: Final = 16
"""Notices on their way at a time."""

FIRST_PAUSE_SECONDS: Final = 10.0
"""Before the second try; each later pause is twice as long, ..."""

PAUSE_SECONDS_MAX: Final = 3_600.0
"""... up to this."""

GIVE_UP_SECONDS: Final = 86_400
"""So long after it was made a notice is given up."""

LOST_SECONDS: Final = 1.0
"""After the database was lost, until it is asked again."""

Body = Callable[[Notice], Awaitable[bytes | None]]
"""What is told of a job, as JSON; None where nobody knows of it any more."""


def after(outcome: Outcome, notice: Notice, now: datetime) -> tuple[NoticeState, float]:
    """What a notice becomes by a try, and in how many seconds it is tried again."""
    if outcome.state != "again":
        return outcome.state, 0.0
    pause = min(FIRST_PAUSE_SECONDS * 2 ** min(notice.tries, 20), PAUSE_SECONDS_MAX)
    if (now - notice.made).total_seconds() + pause > GIVE_UP_SECONDS:
        return "failed", 0.0
    return "due", pause


class Notifier:
    """The sender of the outbox."""

    def __init__(
        self,
        outbox: Outbox,
        couriers: Mapping[Medium, Courier],
        body: Body,
        ready: Callable[[], Awaitable[None]],
    ) -> None:
        """`ready` waits until the database is there and ours."""
        self._outbox = outbox
        self._couriers = couriers
        self._body = body
        self._ready = ready
        self._in_hand: set[UUID] = set()
        self._wanted = anyio.Event()
        self._room = anyio.Semaphore(AT_ONCE)

    def wake(self) -> None:
        """There is something in the outbox."""
        self._wanted.set()

    async def run(self) -> None:
        """Send until cancelled."""
        async with anyio.create_task_group() as tasks:
            while True:
                await self._ready()
                try:
                    await self._outbox.recover(self._in_hand)
                    while True:
                        self._wanted = anyio.Event()
                        for notice in await self._outbox.due(AT_ONCE, self._in_hand):
                            await self._room.acquire()
                            self._in_hand.add(notice.id)
                            tasks.start_soon(self._send, notice)
                        with anyio.move_on_after(await self._pause()):
                            await self._wanted.wait()
                except (Unavailable, OutcomeUnknown, Fenced) as lost:
                    log.warning("outbox_lost", error=str(lost))
                    await anyio.sleep(LOST_SECONDS)

    async def _pause(self) -> float | None:
        seconds = await self._outbox.next_due(self._in_hand)
        return None if seconds is None else max(0.0, seconds)

    async def _send(self, notice: Notice) -> None:
        try:
            body = await self._body(notice)
            if await self._outbox.begin(notice.id):
                gone = Outcome("failed", "the job is not known any more")
                outcome = gone if body is None else await self._couriers[notice.medium].bring(notice, body)
                await self._keep(notice, outcome)
        except (Unavailable, OutcomeUnknown, Fenced) as lost:  # it is due still, or recovered later
            log.warning("outbox_lost", notice=str(notice.id), error=str(lost))
            await anyio.sleep(LOST_SECONDS)
        finally:
            self._in_hand.discard(notice.id)
            self._room.release()
            self.wake()

    async def _keep(self, notice: Notice, outcome: Outcome) -> None:
        """Store what became of a notice, however long the database is away."""
        state, seconds = after(outcome, notice, datetime.now(UTC))
        if state in {"failed", "unknown"}:
            log.warning("notice_undelivered", notice=str(notice.id), job=notice.job, state=state, why=outcome.detail)
        while True:
            try:
                await self._outbox.end(notice.id, state, seconds, outcome.detail)
            except (Unavailable, OutcomeUnknown):
                await anyio.sleep(LOST_SECONDS)
                await self._ready()
            else:
                return
