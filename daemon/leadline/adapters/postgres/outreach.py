"""Outreach in Postgres (`features.outreach.books.OutreachStore`)."""

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import date, timedelta
from importlib.resources import files
from typing import Any, Final

import msgspec
from msgspec import Struct

from leadline.adapters.postgres.pool import Connection
from leadline.adapters.postgres.queries import parse
from leadline.adapters.postgres.store import PostgresStore
from leadline.adapters.postgres.writer import STATES
from leadline.core.calendar.zones import day_start, zone
from leadline.core.model import Counts, JobState
from leadline.features.outreach.addresses import domain_of
from leadline.features.outreach.books import (
    QUEUE,
    DayOf,
    Ending,
    Entry,
    Event,
    Found,
    Listed,
    MailState,
    NewMail,
    Next,
    Server,
    StoredAssociate,
    StoredMail,
    Suppression,
    Taken,
)
from leadline.features.outreach.life import MOVES
from leadline.features.outreach.model import (
    Associate,
    AssociateId,
    FollowUp,
    FollowUpId,
    Line,
    Place,
    Reason,
    Script,
    Status,
    Step,
)
from leadline_protocol.ids import Instant, JobId

QUERIES: Final = parse((files(__package__) / "outreach.sql").read_text(encoding="utf-8"))

STATEMENTS: Final = {QUEUE: QUERIES[QUEUE].sql}
"""By which an admission says whose task a job is."""

DUE_MAX: Final = 100_000
"""Follow-ups that are looked at in one go."""

CANCELLED: Final = STATES.index(JobState.CANCELLED)
"""The state of a job, as stored."""
AT_WORK: Final = [STATES.index(state) for state in (JobState.RUNNING, JobState.STOPPING)]
"""The states of a job whose attempt may be at work."""

LOST: Final = "its job, or the daemon, ended while it was on its way"
"""Why nobody knows what has become of a mail."""

_FROM: Final[Mapping[Status, list[str]]] = {
    to: sorted({before.value for (before, _), after in MOVES.items() if after is to}) for to in Status
}
"""From which states a follow-up comes into one."""

_SUPPRESSED: Final[Mapping[str, Reason]] = {
    "unsubscribe": Reason.UNSUBSCRIBED,
    "bounce": Reason.BOUNCED,
    "complaint": Reason.COMPLAINED,
    "do_not_contact": Reason.DO_NOT_CONTACT,
}
"""Why a follow-up is stopped, by the reason of the suppression."""

_FIELDS: Final = msgspec.json.Decoder(dict[str, str])
_STEPS: Final = msgspec.json.Decoder(list[Step])


class _Settings(Struct):
    """What an associate is, beside who it is."""

    associate: Associate
    server: Server | None


_SETTINGS: Final = msgspec.json.Decoder(_Settings)


class PostgresOutreach:
    """The rows of outreach."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    # -- who writes, and what -----------------------------------------------------------------------------------------

    async def associates(
        self, teamspace: str | None, name: str | None, after: int, limit: int
    ) -> Sequence[StoredAssociate]:
        """Associates by their numbers, from behind `after` on."""
        return [_associate(row) for row in await self._fetch("associates", teamspace, name, after, limit)]

    async def lines(self, today: Mapping[AssociateId, date]) -> Mapping[AssociateId, Line]:
        """What mailboxes have sent and are going to send; `today`: in the zone of each."""
        async with self._store.read() as connection:
            return await _lines(connection, today, FollowUpId(0))

    async def put_associate(self, associate: Associate, server: Server | None) -> bool:
        """Add an associate, or replace the one of that name; True: it is new. A password of None stays as it is."""
        kept = None if server is None else msgspec.structs.replace(server, sealed=None)
        settings = msgspec.json.encode(_Settings(associate, kept)).decode()
        sealed = None if server is None else server.sealed
        arguments = (associate.teamspace, associate.name, associate.address, settings, sealed, associate.active)
        async with self._store.write() as connection:
            await connection.execute(QUERIES["add_outreach"].sql, associate.teamspace)
            added: bool = await connection.fetchval(QUERIES["put_associate"].sql, *arguments)
        return added

    async def pause(self, associate: AssociateId, why: str | None, wall: Instant) -> Sequence[JobId]:
        """Stop a mailbox, or let it go on; returns its tasks."""
        async with self._store.write() as connection:
            await connection.execute(QUERIES["pause_associate"].sql, associate, why, wall)
            rows = await connection.fetch(QUERIES["tasks_of_associate"].sql, associate)
        return [JobId(row["job"]) for row in rows]

    async def scripts(self, teamspace: str | None) -> Sequence[Script]:
        """Scripts by teamspace and name."""
        return [_script(row) for row in await self._fetch("scripts", teamspace)]

    async def put_script(self, script: Script) -> bool:
        """Add a script, or replace the one of that name; True: it is new."""
        steps = msgspec.json.encode(script.steps).decode()
        async with self._store.write() as connection:
            added: bool = await connection.fetchval(
                QUERIES["put_script"].sql, script.teamspace, script.name, script.keyword, script.then, steps
            )
        return added

    async def is_scheduled(self, teamspace: str) -> bool:
        """Whether a teamspace was given its schedules; also where it has no associate that would need any."""
        rows = await self._fetch("is_scheduled", teamspace)
        return not rows or rows[0]["scheduled"]

    async def set_scheduled(self, teamspace: str) -> None:
        """It was."""
        async with self._store.write() as connection:
            await connection.execute(QUERIES["set_scheduled"].sql, teamspace)

    # -- follow-ups ---------------------------------------------------------------------------------------------------

    async def add_follow_ups(self, follow_ups: Sequence[tuple[str, FollowUp]]) -> Sequence[bool]:
        """Add these, each with its key; False for those whose key is known."""
        async with self._store.write() as connection:
            return [
                await connection.fetchval(
                    QUERIES["add_follow_up"].sql,
                    each.teamspace,
                    key,
                    each.associate,
                    each.address,
                    domain_of(each.address),
                    msgspec.json.encode(each.fields).decode(),
                    each.zone,
                    each.script,
                    each.step,
                    each.due,
                    each.created,
                    each.seed,
                    each.associate is None,
                )
                is not None
                for key, each in follow_ups
            ]

    async def follow_ups(
        self,
        teamspace: str | None,
        *,
        associate: AssociateId | None,
        status: Status | None,
        address: str | None,
        after: int,
        limit: int,
    ) -> Sequence[Listed]:
        """Follow-ups by their numbers."""
        rows = await self._fetch("follow_ups", teamspace, associate, status, address, after, limit)
        return [_listed(row) for row in rows]

    async def follow_up(self, teamspace: str, follow_up: FollowUpId) -> Listed | None:
        """One of them."""
        rows = await self._fetch("follow_up_by_id", teamspace, follow_up)
        return _listed(rows[0]) if rows else None

    async def history(self, follow_up: FollowUpId) -> Sequence[Entry]:
        """Its story, oldest first."""
        rows = await self._fetch("follow_up_history", follow_up)
        return [Entry(Instant(row["at"]), row["status"], row["detail"]) for row in rows]

    async def due(self, associate: AssociateId, wall: Instant) -> Sequence[FollowUp]:
        """What is pending and due, oldest first."""
        return [_follow_up(row) for row in await self._fetch("due_follow_ups", associate, wall, DUE_MAX)]

    async def new_contacts(self, teamspace: str, wall: Instant) -> Sequence[FollowUp]:
        """What waits for its first mail, oldest first."""
        return [_follow_up(row) for row in await self._fetch("new_contacts", teamspace, wall, DUE_MAX)]

    async def turn(self, teamspace: str) -> AssociateId:
        """The associate that was the last to be given a first mail; 0: none."""
        rows = await self._fetch("turn", teamspace)
        return AssociateId(rows[0]["turn"] if rows else 0)

    async def set_turn(self, teamspace: str, associate: AssociateId) -> None:
        """Remember it."""
        async with self._store.write() as connection:
            await connection.execute(QUERIES["set_turn"].sql, teamspace, associate)

    async def settle_lost(self, teamspace: str | None, wall: Instant) -> None:
        """See to follow-ups whose tasks have ended without them, cancelled, or failed by an error; and to mails on
        their way whose attempts are over. Until these are settled, no other mail of their mailbox leaves.
        """
        lost = QUERIES["lost_tasks"].sql
        async with self._store.read() as connection:
            if not await connection.fetchval(f"SELECT EXISTS ({lost})", teamspace, AT_WORK):
                return
        async with self._store.write() as connection:
            rows = await connection.fetch(f"{lost} FOR UPDATE OF follow_up", teamspace, AT_WORK)
            open_ = [row["id"] for row in rows if row["status"] == Status.SENDING]
            for mail in await connection.fetch(QUERIES["lose_open_mails"].sql, open_, wall, LOST):
                await connection.execute(QUERIES["note_end"].sql, mail["associate"], wall)
            for row in rows:
                if row["status"] == Status.SENDING:
                    to, reason, detail = Status.UNKNOWN, None, f"unknown: {LOST}"
                elif row["state"] == CANCELLED:
                    to, reason, detail = Status.STOPPED, Reason.CANCELLED, "its job was cancelled"
                else:
                    to, reason, detail = Status.PENDING, None, f"its job ended without it: {row['message']}"
                await _move(connection, FollowUpId(row["id"]), to, reason, detail, wall)

    async def stop(
        self, follow_ups: Sequence[FollowUpId], reason: Reason, detail: str, wall: Instant
    ) -> Sequence[FollowUpId]:
        """Stop these, as far as they can be; returns which were."""
        async with self._store.write() as connection:
            return await _stop(connection, follow_ups, reason, detail, wall)

    # -- mails --------------------------------------------------------------------------------------------------------

    async def mails(
        self,
        teamspace: str | None,
        *,
        follow_up: FollowUpId | None,
        states: Sequence[MailState],
        after: int,
        limit: int,
    ) -> Sequence[StoredMail]:
        """Mails by their numbers."""
        return [_mail(row) for row in await self._fetch("mails", teamspace, follow_up, list(states), after, limit)]

    async def mail(self, teamspace: str, mail: int) -> StoredMail | None:
        """One mail."""
        rows = await self._fetch("mail_by_id", teamspace, mail)
        return _mail(rows[0]) if rows else None

    @asynccontextmanager
    async def books(self, job: JobId, number: int, day_of: DayOf) -> AsyncIterator["PostgresBooks | None"]:
        """Decide about the mail of a task, for an attempt at it; None: it is nobody's task. Raises AttemptRetired."""
        async with self._store.work(job, number) as connection:
            teamspace = await connection.fetchval("SELECT teamspace FROM follow_up WHERE job = $1", job)
            if teamspace is None:
                yield None
                return
            await connection.execute(QUERIES["hold_outreach"].sql, teamspace)
            row = await connection.fetchrow(QUERIES["follow_up_of_task"].sql, job)
            if row is None:
                yield None
                return
            yield PostgresBooks(connection, await _found(connection, row, day_of), job, number)

    async def end(
        self, job: JobId, number: int, mail: int, ending: Ending, counts: Counts | None, wall: Instant
    ) -> None:
        """Store how a mail has ended, what that makes of its follow-up, and where it ends the job its counts.

        Raises AttemptRetired.
        """
        async with self._store.work(job, number) as connection:
            await _end(connection, mail, MailState.SENDING, ending, None, wall)
            if counts is not None:
                await _count(connection, job, counts)

    async def count(self, job: JobId, number: int, counts: Counts) -> None:
        """The job ends with these counts. Raises AttemptRetired."""
        async with self._store.work(job, number) as connection:
            await _count(connection, job, counts)

    async def resolve(self, mail: StoredMail, ending: Ending, by: str, wall: Instant) -> bool:
        """Say what has become of a mail of unknown outcome; False: that is known already."""
        async with self._store.write() as connection:
            return await _end(connection, mail.id, MailState.UNKNOWN, ending, by, wall)

    async def last_mails(self, associate: AssociateId, count: int) -> Sequence[tuple[bool, bool]]:
        """Of the newest mails of a mailbox, newest first: whether each came back, and whether it was complained of."""
        rows = await self._fetch("last_mails", associate, count)
        return [(row["bounced"], row["complained"]) for row in rows]

    async def mailboxes(self) -> Mapping[str, int]:
        """How many active associates each teamspace has."""
        return {row["teamspace"]: row["mailboxes"] for row in await self._fetch("mailboxes")}

    # -- what comes in ------------------------------------------------------------------------------------------------

    async def take(self, event: Event, *, stop: Reason | None, suppress: bool, wall: Instant) -> Taken | None:
        """Store what came in, and stop what it stops, for ever where it is to be suppressed; None: it is known."""
        key = None if event.key is None else event.key.replace("\0", "")
        async with self._store.write() as connection:
            await connection.execute(QUERIES["add_outreach"].sql, event.teamspace)
            await connection.execute(QUERIES["lock_outreach"].sql, event.teamspace)
            arguments = (key, event.event, event.address, event.message_id, event.at, event.detail)
            if await connection.fetchval(QUERIES["add_event"].sql, event.teamspace, *arguments) is None:
                return None
            about = (event.teamspace, event.message_id, event.address)
            unknown = [_mail(row) for row in await connection.fetch(QUERIES["mails_about"].sql, *about)]
            bounced, complained = event.event == "bounce" and suppress, event.event == "complaint"
            mailbox = await connection.fetchval(QUERIES["mark_mail"].sql, *about, bounced, complained)
            if suppress:
                said = (event.teamspace, event.address, event.event, event.at, event.detail)
                await connection.execute(QUERIES["suppress"].sql, *said)
            stopped: Sequence[FollowUpId] = []
            if stop is not None:
                rows = await connection.fetch(QUERIES["follow_ups_to"].sql, event.teamspace, event.address)
                stopped = await _stop(connection, [row["id"] for row in rows], stop, event.event, wall)
        return Taken(stopped, unknown, None if mailbox is None else AssociateId(mailbox))

    async def suppress(
        self, teamspace: str, value: str, reason: str, detail: str, wall: Instant
    ) -> Sequence[FollowUpId]:
        """Write no more to an address or a domain; returns the follow-ups that this has stopped."""
        async with self._store.write() as connection:
            await connection.execute(QUERIES["add_outreach"].sql, teamspace)
            await connection.execute(QUERIES["lock_outreach"].sql, teamspace)
            await connection.execute(QUERIES["suppress"].sql, teamspace, value, reason, wall, detail)
            rows = await connection.fetch(QUERIES["follow_ups_to"].sql, teamspace, value)
            ids = [FollowUpId(row["id"]) for row in rows]
            return await _stop(connection, ids, Reason.DO_NOT_CONTACT, detail or "suppressed", wall)

    async def allow(self, teamspace: str, value: str) -> bool:
        """Write to it again; False: it was not suppressed."""
        async with self._store.write() as connection:
            return await connection.fetchval(QUERIES["allow"].sql, teamspace, value) is not None

    async def suppressions(
        self, teamspace: str | None, value: str | None, after: int, limit: int
    ) -> Sequence[Suppression]:
        """What is not written to."""
        return [Suppression(**row) for row in await self._fetch("suppressions", teamspace, value, after, limit)]

    async def forget(self, before: Instant) -> None:
        """Drop what came in before that: whom it stopped is stopped."""
        async with self._store.write() as connection:
            await connection.execute(QUERIES["drop_old_events"].sql, before)

    async def _fetch(self, query: str, *arguments: object) -> Sequence[Any]:
        async with self._store.read() as connection:
            rows: Sequence[Any] = await connection.fetch(QUERIES[query].sql, *arguments)
        return rows


class PostgresBooks:
    """One mail, decided in a transaction (`features.outreach.books.Books`)."""

    def __init__(self, connection: Connection, found: Found, job: JobId, number: int) -> None:
        self._connection = connection
        self.found: Final = found
        self._job = job
        self._number = number

    async def begin(self, mail: NewMail) -> int:
        """It is on its way from now on, as far as anybody can tell; returns its number."""
        who, of = mail.follow_up, self._connection
        moved = await of.fetchval(QUERIES["send_follow_up"].sql, who.id)
        assert moved is not None, "what is sent was queued"
        await of.execute(QUERIES["count_day"].sql, mail.associate.id, mail.day)
        to = (who.teamspace, mail.associate.id, who.address, domain_of(who.address), mail.message_id, mail.subject)
        number: int = await of.fetchval(
            QUERIES["begin_mail"].sql, who.id, who.round, who.step, *to, self._job, self._number, mail.day, mail.began
        )
        return number

    async def place(self, place: Place | None) -> None:
        """Keep this place in the mailbox's line for it, or none."""
        at, turn = (None, None) if place is None else (place.at, place.turn)
        await self._connection.execute(QUERIES["place_follow_up"].sql, self.found.follow_up.id, at, turn)

    async def lose(self, mail: StoredMail, evidence: str, at: Instant) -> None:
        """Nobody knows what has become of a mail that was on its way."""
        ending = Ending(state=MailState.UNKNOWN, evidence=evidence, status=Status.UNKNOWN)
        await _end(self._connection, mail.id, MailState.SENDING, ending, None, at)

    async def move(self, status: Status, reason: Reason | None, detail: str, at: Instant) -> None:
        """The follow-up is in another state."""
        await _move(self._connection, self.found.follow_up.id, status, reason, detail, at)

    async def count(self, counts: Counts) -> None:
        """The job ends with these."""
        await _count(self._connection, self._job, counts)


async def _count(connection: Connection, job: JobId, counts: Counts) -> None:
    settled = (counts.done, counts.failed, counts.skipped, counts.unknown)
    await connection.execute(QUERIES["count_job"].sql, job, counts.total, *settled)


async def _found(connection: Connection, row: Any, day_of: DayOf) -> Found:
    who = _follow_up(row)
    found = [] if who.associate is None else await connection.fetch(QUERIES["associate_by_id"].sql, who.associate)
    stored = _associate(found[0]) if found else None
    scripts = await connection.fetch(QUERIES["script"].sql, who.teamspace, who.script)
    before = [_mail(each) for each in await connection.fetch(QUERIES["mails_to"].sql, who.id)]
    domain, line, domain_mails = domain_of(who.address), Line({}, 0, None, False, ()), 0
    if stored is not None:
        associate = stored.associate
        today = day_of(associate)
        line = (await _lines(connection, {associate.id: today}, who.id))[associate.id]
        since = day_start(today, zone(associate.zone))
        domain_mails = await connection.fetchval(QUERIES["domain_mails"].sql, who.teamspace, domain, since)
    suppressed = await connection.fetchval(QUERIES["suppressed"].sql, who.teamspace, who.address, domain)
    replied = await connection.fetchval(QUERIES["replied"].sql, who.teamspace, who.address)
    first = row["first_mail"]
    held = None if row["place"] is None else Place(Instant(row["place"]), first, Instant(row["turn"]))
    return Found(
        follow_up=who,
        associate=stored,
        script=_script(scripts[0]) if scripts else None,
        line=line,
        first=first,
        held=held,
        suppressed=None if suppressed is None else _SUPPRESSED[suppressed],
        replied=_instant(replied),
        domain_mails=domain_mails,
        before=before,
    )


async def _lines(
    connection: Connection, today: Mapping[AssociateId, date], but: FollowUpId
) -> Mapping[AssociateId, Line]:
    ids = list(today)
    since = min(today.values(), default=date.min) if today else date.min
    sent: dict[int, dict[date, int]] = defaultdict(dict)
    for row in await connection.fetch(QUERIES["mailbox_sent"].sql, ids, since - timedelta(days=1) if ids else since):
        sent[row["associate"]][row["day"]] = row["mails"]
    days = {row["associate"]: row["days"] for row in await connection.fetch(QUERIES["mailbox_days"].sql, ids)}
    places: dict[int, list[Place]] = defaultdict(list)
    for row in await connection.fetch(QUERIES["mailbox_places"].sql, ids, but):
        places[row["associate"]].append(Place(Instant(row["place"]), row["first_mail"], Instant(row["turn"])))
    flying = {row["associate"] for row in await connection.fetch(QUERIES["mailbox_open"].sql, ids)}
    ends = {row["id"]: row["last_end"] for row in await connection.fetch(QUERIES["last_ends"].sql, ids)}
    return {
        each: Line(sent[each], days.get(each, 0), _instant(ends.get(each)), each in flying, tuple(places[each]))
        for each in ids
    }


async def _end(
    connection: Connection, mail: int, before: MailState, ending: Ending, by: str | None, wall: Instant
) -> bool:
    arguments = (ending.state, [before], _text(ending.evidence), wall, by)
    row = await connection.fetchrow(QUERIES["end_mail"].sql, mail, *arguments)
    if row is None:
        return False
    if ending.state is MailState.SENT:
        await connection.execute(QUERIES["count_mail"].sql, mail)
    if before is MailState.SENDING:
        await connection.execute(QUERIES["note_end"].sql, row["associate"], wall)
    who = FollowUpId(row["follow_up"])
    if ending.go_on is None:
        await _move(connection, who, ending.status, ending.reason, f"{ending.state}: {ending.evidence}", wall)
    else:
        await _go_on(connection, who, ending.go_on, f"{ending.state}: {ending.evidence}", wall)
    return True


async def _move(
    connection: Connection, who: FollowUpId, to: Status, reason: Reason | None, detail: str, wall: Instant
) -> bool:
    arguments = (_FROM[to], to, reason, _text(detail), wall)
    return await connection.fetchval(QUERIES["move_follow_up"].sql, who, *arguments) is not None


async def _go_on(connection: Connection, who: FollowUpId, to: Next, detail: str, wall: Instant) -> None:
    arguments = ([Status.SENDING, Status.UNKNOWN], to.script, to.step, to.due, _text(detail), wall, to.round)
    await connection.execute(QUERIES["go_on_follow_up"].sql, who, *arguments)


async def _stop(
    connection: Connection, follow_ups: Sequence[FollowUpId], reason: Reason, detail: str, wall: Instant
) -> Sequence[FollowUpId]:
    return [each for each in follow_ups if await _move(connection, each, Status.STOPPED, reason, detail, wall)]


def _associate(row: Any) -> StoredAssociate:
    kept = _SETTINGS.decode(row["settings"])
    associate = msgspec.structs.replace(kept.associate, id=AssociateId(row["id"]), paused=row["paused"])
    server = kept.server
    return StoredAssociate(
        associate, None if server is None else msgspec.structs.replace(server, sealed=row["password"])
    )


def _script(row: Any) -> Script:
    return Script(row["teamspace"], row["name"], row["keyword"], _STEPS.decode(row["steps"]), row["then_script"])


def _follow_up(row: Any) -> FollowUp:
    return FollowUp(
        id=FollowUpId(row["id"]),
        teamspace=row["teamspace"],
        associate=None if row["associate"] is None else AssociateId(row["associate"]),
        address=row["address"],
        fields=_FIELDS.decode(row["fields"]),
        zone=row["zone"],
        script=row["script"],
        round=row["round"],
        step=row["step"],
        due=Instant(row["due"]),
        created=Instant(row["created"]),
        status=Status(row["status"]),
        reason=None if row["reason"] is None else Reason(row["reason"]),
        seed=row["seed"],
        job=None if row["job"] is None else JobId(row["job"]),
    )


def _listed(row: Any) -> Listed:
    return Listed(_follow_up(row), row["key"], row["associate_name"], _instant(row["place"]))


def _mail(row: Any) -> StoredMail:
    return StoredMail(
        id=row["id"],
        follow_up=FollowUpId(row["follow_up"]),
        teamspace=row["teamspace"],
        associate=row["associate_name"] or "",
        address=row["address"],
        round=row["round"],
        step=row["step"],
        message_id=row["message_id"],
        subject=row["subject"],
        state=MailState(row["state"]),
        job=JobId(row["job"]),
        attempt=row["attempt"],
        began=Instant(row["began"]),
        ended=_instant(row["ended"]),
        evidence=row["evidence"],
        settled_by=row["settled_by"],
    )


def _instant(value: int | None) -> Instant | None:
    return None if value is None else Instant(value)


def _text(value: str) -> str:
    """What Postgres takes as a text."""
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
