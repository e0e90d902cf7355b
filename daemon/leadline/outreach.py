"""Puts outreach together: rows, mail servers, operations, and the schedules that a teamspace begins with."""

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Literal

import msgspec
import structlog

from leadline.actors.supervisor import Supervisor
from leadline.adapters.postgres.outreach import PostgresOutreach
from leadline.adapters.postgres.schedules import PostgresSchedules
from leadline.adapters.postgres.store import PostgresStore
from leadline.adapters.seal import AesSeal, Unsealable
from leadline.adapters.smtp_transport import SmtpTransport
from leadline.config import Config
from leadline.core.events import NewJob, PauseSet
from leadline.core.model import SECOND
from leadline.features.outreach import unsubscribe
from leadline.features.outreach.books import Server
from leadline.features.outreach.delivery import Outreach
from leadline.features.outreach.desk import OutreachDesk
from leadline.features.outreach.imports import Imports
from leadline.features.outreach.message import headers_are_sound
from leadline.features.outreach.model import Associate, FollowUp, FollowUpId
from leadline.features.outreach.ports import MailServer, Tls
from leadline.features.outreach.settings import Settings
from leadline.features.outreach.tasks import Task, Tasks
from leadline.features.outreach.unsubscribe import Wish
from leadline.ports.schedules import NewSchedule
from leadline_protocol import messages as wire
from leadline_protocol.errors import LeadlineError, Refused
from leadline_protocol.ids import Instant, JobId
from leadline_protocol.schedules import Cron

log = structlog.get_logger("leadline")

SCHEDULES: Final[Mapping[str, tuple[str, Literal["queue", "first_mails"]]]] = {
    "outreach": ("queue_cron", "queue"),
    "first-mails-weekdays": ("weekday_cron", "first_mails"),
    "first-mails-weekends": ("weekend_cron", "first_mails"),
}
"""By their names: when they fire, and what they submit."""


class OutreachOffice:
    """All of outreach that the daemon has."""

    def __init__(
        self,
        store: PostgresStore,
        schedules: PostgresSchedules,
        seal: AesSeal,
        key: bytes,
        transport: SmtpTransport,
        config: Callable[[], Config],
        wall: Callable[[], Instant],
        zone_of: Callable[[str], str],
        supervisor: Callable[[], Supervisor],
        mailboxes_changed: Callable[[], Awaitable[None]],
        schedule_changed: Callable[[str, str], None],
    ) -> None:
        if not headers_are_sound():
            raise LeadlineError("this Python does not read mails back as they were written: use another one")
        self.store: Final = PostgresOutreach(store)
        self._schedules = schedules
        self._seal = seal
        self._key = unsubscribe.unsubscribe_key(key)
        self._config = config
        self._wall = wall
        self._zone_of = zone_of
        self._supervisor = supervisor
        self._mailboxes_changed = mailboxes_changed
        self._schedule_changed = schedule_changed
        tasks = Tasks(self.store, self.settings, self._submit, wall, zone_of)
        self.kind: Final = Outreach(self.store, tasks, transport, self.settings, self._server, self._link, wall)
        imports = Imports(self.store, self._sealed, wall)
        self.desk: Final = OutreachDesk(self.store, tasks, imports, wall, self._wake, self._changed)

    def settings(self) -> Settings:
        """What the configuration says of outreach."""
        outreach = self._config().outreach
        smtp = outreach.smtp
        password = None if smtp.secret is None else smtp.secret.reveal()
        server = None if smtp.host is None else MailServer(smtp.host, smtp.port, Tls(smtp.tls), smtp.user, password)
        return Settings(
            queue_limit=outreach.queue_limit,
            spacing_seconds=outreach.spacing_seconds,
            keywords=frozenset(outreach.keywords),
            first_mail_keywords=frozenset(outreach.first_mail_keywords),
            first_mails=outreach.first_mails,
            weekend_share=outreach.weekend_share,
            first_mail_within_days=outreach.first_mail_within_days,
            domain_per_day=outreach.domain_per_day or None,
            unsubscribe_url=outreach.unsubscribe_url,
            server=server,
        )

    async def unsubscribed(self, wish: Wish) -> None:
        """A contact has left by one click. Raises Unavailable."""
        found = await self.store.follow_up(wish.teamspace, wish.follow_up)
        if found is None:
            return
        address = found.follow_up.address
        if await self.store.suppressions(wish.teamspace, address, 0, 1):
            return  # they may click as often as they like
        event = wire.ContactEvent(
            teamspace=wish.teamspace, event="unsubscribe", address=address, detail=f"one click, {wish.follow_up}"
        )
        await self.desk.take(event, 0)

    def wish_of(self, token: str) -> Wish | None:
        """What a link says; None: it is none of ours."""
        return unsubscribe.read(self._key, token)

    def _link(self, base: str, who: FollowUp) -> str:
        return unsubscribe.link(base, unsubscribe.token(self._key, Wish(who.teamspace, FollowUpId(who.id))))

    def _sealed(self, teamspace: str, associate: str, password: str) -> bytes:
        return self._seal.seal(password, of=_mailbox(teamspace, associate))

    def _server(self, server: Server, associate: Associate) -> MailServer | None:
        password = None
        if server.sealed is not None and server.user is not None:
            try:
                password = self._seal.open(server.sealed, of=_mailbox(associate.teamspace, associate.name))
            except Unsealable as error:
                log.error("mailbox_unusable", teamspace=associate.teamspace, associate=associate.name, said=str(error))
                return None
        return MailServer(server.host, server.port, Tls(server.tls), server.user, password)

    async def _submit(self, tasks: Sequence[Task]) -> Sequence[JobId | Refused]:
        supervisor = self._supervisor()
        kind = next(number for number, each in supervisor.works.items() if each is self.kind)
        jobs = [
            NewJob(
                each.teamspace,
                kind,
                each.payload,
                delay_microseconds=each.delay_seconds * SECOND,
                total=1,
                statements=(each.statement,),
            )
            for each in tasks
        ]
        answers = await supervisor.dispatcher.submit(jobs)
        return [each if isinstance(each, Refused) else each.job for each in answers]

    async def _wake(self, jobs: Sequence[JobId]) -> None:
        """Let these go on; those that wait for nobody do so anyway."""
        for job in jobs:
            try:
                await self._supervisor().dispatcher.tell(PauseSet("job", str(job), paused=False))
            except Refused as refused:
                log.debug("task_not_held", job=job, said=refused.message)

    async def _changed(self, teamspace: str) -> None:
        """The associates of a teamspace have changed: so have its slots, and the first comes with schedules."""
        await self._mailboxes_changed()
        if await self.store.is_scheduled(teamspace) or not await self.store.associates(teamspace, None, 0, 1):
            return
        for name, (key, do) in SCHEDULES.items():
            new = NewSchedule(
                teamspace,
                name,
                Cron(getattr(self._config().outreach, key), self._zone_of(teamspace)),
                msgspec.json.encode(wire.Outreach(teamspace=teamspace, do=do)),
                missed="skip",
                overlap=False,
                uid=os.getuid(),
            )
            await self._schedules.add(new, self._wall())
            self._schedule_changed(teamspace, name)
        await self.store.set_scheduled(teamspace)


def _mailbox(teamspace: str, associate: str) -> str:
    """What its password is sealed for."""
    return f"outreach\0{teamspace}\0{associate}"
