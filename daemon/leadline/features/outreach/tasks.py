"""Follow-ups become jobs: those that are due, and the first mails of the day.

What is queued and that it is queued is stored in one transaction, that of the job's admission: a follow-up whose state
has changed meanwhile is not touched by it, and the job then finds that it has nothing to do. Of one associate there is
one queueing at a time, so no two choose the same follow-ups.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeAlias

import anyio
import msgspec
from msgspec import Struct

from leadline.core.calendar.zones import wall_at, zone
from leadline.core.events import Statement
from leadline.features.outreach import initial
from leadline.features.outreach.books import QUEUE, OutreachStore, StoredAssociate
from leadline.features.outreach.model import SECOND, AssociateId, FollowUp, Reason
from leadline.features.outreach.queueing import Queueing, queue
from leadline.features.outreach.settings import SettingsNow
from leadline.ports.store import THIS_JOB
from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.ids import Instant, JobId

ASSOCIATES_MAX: Final = 100_000
SATURDAY: Final = 5


class Task(Struct, frozen=True):
    """A job that sends a follow-up's next mail."""

    teamspace: str
    follow_up: FollowUp
    delay_seconds: int
    statement: Statement

    @property
    def payload(self) -> bytes:
        """What would be submitted for it."""
        return msgspec.json.encode(wire.Outreach(teamspace=self.teamspace, do="send", follow_up=int(self.follow_up.id)))


Submit: TypeAlias = Callable[[Sequence[Task]], Awaitable[Sequence[JobId | Refused]]]
"""Hands tasks to the queue; what each has become."""


class Result(Struct, frozen=True):
    """What queueing an associate's follow-ups has come to."""

    associate: StoredAssociate
    queueing: Queueing
    jobs: Sequence[JobId | Refused]
    """Of what was to be queued, in order; none where it was only looked at."""


class Tasks:
    """Makes jobs of follow-ups."""

    def __init__(
        self,
        store: OutreachStore,
        settings: SettingsNow,
        submit: Submit,
        wall: Callable[[], Instant],
        zone_of: Callable[[str], str],
    ) -> None:
        """`zone_of`: that of a teamspace, by which it knows weekends."""
        self._store = store
        self._settings = settings
        self._submit = submit
        self._wall = wall
        self._zone_of = zone_of
        self._in_turn: dict[object, anyio.Lock] = defaultdict(anyio.Lock)

    async def of(self, teamspace: str, associate: str | None) -> Sequence[StoredAssociate]:
        """The associate of that name, or all active ones. Raises Refused with not_found."""
        found = await self._store.associates(teamspace, associate, 0, ASSOCIATES_MAX)
        if associate is not None and not found:
            raise Refused(ErrorCode.NOT_FOUND, f"{teamspace} has no associate {associate}", at="associate")
        return [each for each in found if each.associate.active]

    async def queue(
        self, teamspace: str, associate: str | None, limit: int | None, *, try_only: bool = False
    ) -> Sequence[Result]:
        """Queue what is due, or only say what would be. Raises Refused."""
        chosen = await self.of(teamspace, associate)
        keywords = {each.name: each.keyword for each in await self._store.scripts(teamspace)}
        if not try_only:
            await self._store.settle_lost(teamspace, self._wall())
        return [await self._queue(each, keywords, limit, try_only=try_only) for each in chosen]

    async def _queue(
        self, stored: StoredAssociate, keywords: Mapping[str, str], limit: int | None, *, try_only: bool
    ) -> Result:
        settings, associate = self._settings(), stored.associate
        async with self._in_turn[associate.id]:
            wall = self._wall()
            queueing = queue(
                await self._store.due(associate.id, wall),
                wall,
                keywords_by_script=keywords,
                keywords=settings.keywords,
                limit=settings.queue_limit if limit is None else limit,
                spacing_seconds=settings.spacing_seconds,
                variability_seconds=associate.variability_seconds,
            )
            if try_only or not queueing.queued:
                return Result(stored, queueing, ())
            tasks = [task(each.follow_up, each.delay_seconds, wall, None) for each in queueing.queued]
            return Result(stored, queueing, await self._submit(tasks))

    async def first_mails(self, teamspace: str, limit: int | None) -> tuple[int, int, int]:
        """Begin with first mails; how many were queued, have expired, and could not be queued.

        Without a limit: as many as the configuration says, at weekends of the teamspace's zone fewer.
        """
        settings = self._settings()
        async with self._in_turn[teamspace]:
            wall = self._wall()
            await self._store.settle_lost(teamspace, wall)
            associates = {each.associate.id: each for each in await self.of(teamspace, None)}
            mailboxes = sorted(id_ for id_, each in associates.items() if each.associate.paused is None)
            usable = {
                each.name
                for each in await self._store.scripts(teamspace)
                if each.keyword in settings.first_mail_keywords
            }
            waiting = await self._store.new_contacts(teamspace, wall)
            taking = initial.take(
                [
                    each
                    for each in waiting
                    if each.script in usable or initial.is_expired(each, wall, settings.first_mail_within_days)
                ],
                mailboxes,
                await self._store.turn(teamspace) or None,
                self._volume(teamspace, wall) if limit is None else limit,
                wall,
                spacing_seconds=settings.spacing_seconds,
                expiry_days=settings.first_mail_within_days,
            )
            days = f"no first mail within {settings.first_mail_within_days} days"
            await self._store.stop([each.id for each in taking.expired], Reason.EXPIRED, days, wall)
            tasks = [task(each.follow_up, each.delay_seconds, wall, each.associate) for each in taking.taken]
            jobs = await self._submit(tasks) if tasks else ()
            if taking.cursor is not None and tasks:
                await self._store.set_turn(teamspace, taking.cursor)
        refused = sum(isinstance(each, Refused) for each in jobs)
        return len(jobs) - refused, len(taking.expired), refused

    def _volume(self, teamspace: str, wall: Instant) -> int:
        settings = self._settings()
        weekend = wall_at(wall, zone(self._zone_of(teamspace))).weekday() >= SATURDAY
        if not weekend:
            return settings.first_mails
        return initial.weekend_volume(settings.first_mails, settings.weekend_share)


def task(follow_up: FollowUp, delay_seconds: int, wall: Instant, associate: AssociateId | None) -> Task:
    """The task of a follow-up; `associate` takes it, where it had none."""
    place = wall + delay_seconds * SECOND
    arguments = (THIS_JOB, follow_up.id, follow_up.step, place, wall, associate)
    return Task(follow_up.teamspace, follow_up, delay_seconds, Statement(QUEUE, arguments))
