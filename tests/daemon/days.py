"""Days of mails in no time: the whole daemon on a clock that the test sets, and a real mail server that takes notes.

Time stands still while anything goes on, and then leaps to what is due next, as the scheduler itself says. A daemon
that comes after another goes on where that one's clock stood.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import pytest

from leadline import main
from leadline.core.events import Ticked
from leadline.core.model import Now
from leadline.core.scheduler import Scheduler
from leadline.daemon import Daemon
from leadline.ports.store import Recovered
from leadline_protocol.client import Client
from leadline_protocol.ids import Instant
from leadline_protocol.messages import FollowUps, FollowUpView, Imported, OutreachReply
from tests.daemon.outreach import outreach
from tests.daemon.running import WITHIN_SECONDS, Place
from tests.world import behaviours
from tests.world.mail import Mailbox, MailFault, MailPlan, MailServed, Moment, serving_mail

SECOND = 1_000_000


class Noting(Mailbox):
    """Writes down when each mail came in, by the clock of the days."""

    def __init__(self, days: "Days", faults: Sequence[MailFault] = ()) -> None:
        super().__init__(faults)
        self._days = days
        self.mails: list[tuple[datetime, str]] = []

    def respond(self, moment: Moment, recipients: Sequence[str], now: behaviours.Now) -> MailPlan:
        plan = super().respond(moment, recipients, now)
        if moment == "dot" and plan.reply.startswith("250"):
            now_there = datetime.fromtimestamp(self._days.wall / SECOND, self._days.start.tzinfo)
            self.mails += [(now_there, recipient) for recipient in recipients]
        return plan


class SetClock:
    """The daemon's clock (`ports.clock.Clock`): its instants go on by as much as the wall does, also from one daemon
    to the next, as those of the database's clock do.
    """

    def __init__(self, days: "Days", recovered: Recovered) -> None:
        self._days = days
        days.ahead = max(days.ahead, recovered.instant - days.wall)

    def now(self) -> Now:
        return Now(instant=Instant(self._days.wall + self._days.ahead), wall=self._days.wall)


class Days:
    """A clock, a mail server, and one daemon after the other."""

    def __init__(self, place: Place, start: datetime, faults: Sequence[MailFault] = (), *settings: str) -> None:
        self.place = place
        self.start = start
        self.wall = Instant(int(start.timestamp()) * SECOND)
        self.ahead = 0
        """By so much instants are ahead of the wall."""
        self.server = Noting(self, faults)
        self.served: MailServed
        self.running: Daemon
        self.client: Client
        self._settings = settings

    @property
    def mails(self) -> list[tuple[datetime, str]]:
        """When each mail came in, by the clock of the days, and for whom."""
        return self.server.mails

    @asynccontextmanager
    async def daemon(self) -> AsyncIterator["Days"]:
        """A daemon of these days; another one after it goes on with them."""
        async with serving_mail(self.server) as self.served:
            self.place.configure(*outreach(*self._settings, served=self.served))
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(main, "_clock", lambda recovered: SetClock(self, recovered))
                patch.setattr(Daemon, "wall", lambda _: self.wall)
                async with self.place.daemon() as (self.running, self.client):
                    yield self

    async def ask(self, action: Any, **wanted: Any) -> OutreachReply:
        """Something of outreach, of the one teamspace that there is."""
        return await self.client.call(FollowUps(action=action, teamspace="acme", **wanted))

    async def take_in(self, *rows: dict[str, Any]) -> Imported:
        """Import rows, none of which may be bad."""
        imported = (await self.ask("import", rows=list(rows))).imported
        assert imported is not None
        assert not imported.faults, imported
        return imported

    async def queue(self, limit: int = 1000) -> int:
        """Queue what is due, and wait until nothing more happens by itself; how many were queued."""
        reply = await self.ask("queue", limit=limit)
        await self.quiet()
        return sum(len(each.queued) for each in reply.queued)

    async def until(self, moment: datetime) -> None:
        """Let time pass until then."""
        target = Instant(int(moment.timestamp() * SECOND))
        while True:
            await self.quiet()
            due = await self.running.supervisor.dispatcher.look(_wall_of_next)
            if due is None or due > target:
                break
            self.wall = max(self.wall, due)
            await self.running.supervisor.dispatcher.tell(Ticked())
        self.wall = target

    async def quiet(self) -> None:
        """Wait until nothing changes any more but by the clock."""
        deadline = time.monotonic() + WITHIN_SECONDS
        while not await self.running.supervisor.dispatcher.look(_stands_still):
            assert time.monotonic() < deadline, "something goes on and on"
            await asyncio.sleep(0.005)

    async def follow_up(self, address: str) -> FollowUpView:
        """The follow-up of a contact, with all that is known of it."""
        (found,) = (await self.ask("follow_ups", address=address)).follow_ups
        return (await self.ask("describe", follow_up=found.follow_up)).follow_ups[0]


def _wall_of_next(scheduler: Scheduler, now: Now) -> Instant | None:
    due = scheduler.next_deadline(now)
    return None if due is None else Instant(due - now.instant + now.wall)


def _stands_still(scheduler: Scheduler, now: Now) -> bool:
    due = scheduler.next_deadline(now)
    return not scheduler.running and (due is None or due > now.instant)
