"""What people and services see and do about outreach: the operations `outreach` and `event`."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from leadline.features.outreach import bounce_guard
from leadline.features.outreach.books import (
    Ending,
    Event,
    Listed,
    MailState,
    OutreachStore,
    StoredAssociate,
    StoredMail,
)
from leadline.features.outreach.bounce_guard import Fate
from leadline.features.outreach.delivery import sent
from leadline.features.outreach.imports import WEEKDAYS, Imports
from leadline.features.outreach.line import Begin, budget, earliest, today_of
from leadline.features.outreach.model import (
    REASONS,
    SECOND,
    Associate,
    AssociateId,
    FollowUp,
    FollowUpId,
    Line,
    Reason,
    Script,
    Status,
)
from leadline.features.outreach.tasks import Result, Tasks
from leadline.features.outreach.texts import BadText, MissingFields, missing, written
from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.ids import Instant, JobId

PAGE: Final = 100
LOOKS: Final = frozenset(
    {"follow_ups", "associates", "scripts", "suppressions", "mails", "describe", "preview", "write"}
)
"""What changes nothing."""

STOPS: Final[Mapping[str, Reason]] = {
    "reply": Reason.REPLIED,
    "bounce": Reason.BOUNCED,
    "unsubscribe": Reason.UNSUBSCRIBED,
    "complaint": Reason.COMPLAINED,
}
"""What events stop all that is still to be written to a contact, and why."""

FOR_EVER: Final = frozenset({"bounce", "unsubscribe", "complaint"})
"""Events after which the contact is never written to again."""

Record = Callable[[str, str], Awaitable[None]]
"""Writes down what is about to be done: to what, and what exactly."""


class OutreachDesk:
    """Carries out the operations."""

    def __init__(
        self,
        store: OutreachStore,
        tasks: Tasks,
        imports: Imports,
        wall: Callable[[], Instant],
        wake: Callable[[Sequence[JobId]], Awaitable[None]],
        changed: Callable[[str], Awaitable[None]],
    ) -> None:
        """`wake` lets tasks go on that a person was waited for; `changed`: the associates of a teamspace have."""
        self._store = store
        self._tasks = tasks
        self._imports = imports
        self._wall = wall
        self._wake = wake
        self._changed = changed

    async def perform(self, wanted: wire.FollowUps, record: Record, line: int) -> wire.OutreachReply:
        """Do what is asked for. Raises Refused."""
        if wanted.action in LOOKS:
            reply = await self._look(wanted, line)
        else:
            await record(f"outreach {wanted.teamspace}", _in_words(wanted))
            reply = await self._change(wanted, line)
        return msgspec.structs.replace(reply, ref=wanted.ref)

    # -- looking ------------------------------------------------------------------------------------------------------

    async def _look(self, wanted: wire.FollowUps, line: int) -> wire.OutreachReply:
        limit = PAGE if wanted.limit is None else wanted.limit
        match wanted.action:
            case "associates":
                found = await self._store.associates(wanted.teamspace, wanted.associate, wanted.after, limit)
                shown = await self._associates(found)
                return wire.OutreachReply(
                    line=line, associates=shown, next=_next([each.associate.id for each in found], limit)
                )
            case "scripts":
                scripts = await self._store.scripts(wanted.teamspace)
                return wire.OutreachReply(line=line, scripts=[_script(each) for each in scripts])
            case "follow_ups":
                await self._store.settle_lost(wanted.teamspace, self._wall())
                associate = None
                if wanted.associate is not None:
                    associate = (await self._known(wanted)).associate.id
                listed = await self._store.follow_ups(
                    wanted.teamspace,
                    associate=associate,
                    status=None if wanted.status is None else Status(wanted.status),
                    address=wanted.address,
                    after=wanted.after,
                    limit=limit,
                )
                ids = [each.follow_up.id for each in listed]
                return wire.OutreachReply(line=line, follow_ups=[_follow_up(e) for e in listed], next=_next(ids, limit))
            case "suppressions":
                value = wanted.address or wanted.domain
                rows = await self._store.suppressions(wanted.teamspace, value, wanted.after, limit)
                views = [
                    wire.SuppressionView(
                        teamspace=each.teamspace,
                        value=each.value,
                        reason=each.reason,
                        at=_when(each.at),
                        detail=each.detail,
                    )
                    for each in rows
                ]
                return wire.OutreachReply(line=line, suppressions=views, next=_next([each.id for each in rows], limit))
            case "mails":
                await self._store.settle_lost(wanted.teamspace, self._wall())
                states = [MailState(wanted.state or MailState.UNKNOWN)]
                mails = await self._store.mails(
                    wanted.teamspace, follow_up=None, states=states, after=wanted.after, limit=limit
                )
                return wire.OutreachReply(
                    line=line, mails=[_mail(each) for each in mails], next=_next([each.id for each in mails], limit)
                )
            case "describe":
                return await self._describe(wanted, line)
            case "preview":
                assert wanted.teamspace is not None
                results = await self._tasks.queue(wanted.teamspace, wanted.associate, wanted.limit, try_only=True)
                return wire.OutreachReply(line=line, queued=[_receipt(each) for each in results])
            case _:
                return await self._write(wanted, line)

    async def _describe(self, wanted: wire.FollowUps, line: int) -> wire.OutreachReply:
        await self._store.settle_lost(wanted.teamspace, self._wall())
        listed = await self._listed(wanted)
        who = listed.follow_up
        story = await self._store.history(who.id)
        mails = await self._store.mails(wanted.teamspace, follow_up=who.id, states=list(MailState), after=0, limit=1000)
        view = msgspec.structs.replace(
            _follow_up(listed),
            fields=dict(who.fields),
            history=[wire.FollowUpEntry(at=_when(each.at), status=each.status, detail=each.detail) for each in story],
            mails=[_mail(each) for each in mails],
        )
        return wire.OutreachReply(line=line, follow_ups=[view])

    async def _write(self, wanted: wire.FollowUps, line: int) -> wire.OutreachReply:
        """The next mail of a follow-up, as it would be written now."""
        listed = await self._listed(wanted)
        who = listed.follow_up
        if listed.associate is None:
            message = f"follow-up {who.id} has no associate yet: it waits for its first mail"
            raise Refused(ErrorCode.BAD_STATE, message, at="follow_up")
        (stored,) = await self._store.associates(who.teamspace, listed.associate, 0, 1)
        associate = stored.associate
        script = {each.name: each for each in await self._store.scripts(who.teamspace)}.get(who.script or "")
        view = wire.WrittenView(follow_up=int(who.id), sender=associate.address, to=who.address)
        goes_at, kept = await self._goes(who, associate)
        if script is None or who.step > len(script.steps):
            return wire.OutreachReply(
                line=line, written=[msgspec.structs.replace(view, kept=REASONS[Reason.NO_SCRIPT])]
            )
        step = script.steps[who.step - 1]
        before = await self._store.mails(
            who.teamspace, follow_up=who.id, states=[MailState.SENT, MailState.UNKNOWN], after=0, limit=1000
        )
        thread = [each.subject for each in before if each.round == who.round]
        try:
            lacking = missing(step, who.fields)
            if lacking:
                view = msgspec.structs.replace(view, missing=lacking, kept=REASONS[Reason.MISSING_FIELDS])
                return wire.OutreachReply(line=line, written=[view])
            text = written(step, who.fields, associate, first_subject=thread[0] if thread else "")
        except (BadText, MissingFields) as bad:
            return wire.OutreachReply(line=line, written=[msgspec.structs.replace(view, kept=str(bad))])
        view = msgspec.structs.replace(
            view, subject=text.subject, text=text.text, html=text.html, goes_at=goes_at, kept=kept
        )
        return wire.OutreachReply(line=line, written=[view])

    async def _goes(self, who: FollowUp, associate: Associate) -> tuple[datetime | None, str | None]:
        """When the next mail would go at the earliest, or what keeps it from going."""
        if who.status is not Status.PENDING and who.status is not Status.QUEUED:
            return None, f"The follow-up is {who.status}."
        if associate.paused is not None:
            return None, f"Its mailbox is paused: {associate.paused}."
        wall = max(self._wall(), who.due)
        today = today_of(associate, Instant(wall))
        line = (await self._store.lines({associate.id: today}))[associate.id]
        begin = earliest(associate, line, who.zone, Instant(wall), first=False)
        if not isinstance(begin, Begin):
            return None, "Its mailbox has no moment for it within a year."
        return _when(begin.at), None

    # -- changing -----------------------------------------------------------------------------------------------------

    async def _change(self, wanted: wire.FollowUps, line: int) -> wire.OutreachReply:
        teamspace, wall = wanted.teamspace, self._wall()
        assert teamspace is not None
        match wanted.action:
            case "import":
                assert wanted.rows is not None
                imported = await self._imports.take(teamspace, wanted.rows)
                await self._changed(teamspace)
                return wire.OutreachReply(line=line, imported=imported)
            case "queue":
                results = await self._tasks.queue(teamspace, wanted.associate, wanted.limit)
                return wire.OutreachReply(line=line, queued=[_receipt(each) for each in results])
            case "stop":
                listed = await self._listed(wanted)
                stopped = await self._store.stop([listed.follow_up.id], Reason.CANCELLED, wanted.detail, wall)
                if not stopped:
                    message = f"follow-up {listed.follow_up.id} is {listed.follow_up.status}"
                    raise Refused(ErrorCode.BAD_STATE, message, at="follow_up")
                return await self._describe(wanted, line)
            case "suppress":
                value = wanted.address or wanted.domain or ""
                await self._store.suppress(teamspace, value, Reason.DO_NOT_CONTACT.value, wanted.detail, wall)
                return await self._look(_looking(wanted, "suppressions"), line)
            case "allow":
                value = wanted.address or wanted.domain or ""
                if not await self._store.allow(teamspace, value):
                    field = "address" if wanted.address is not None else "domain"
                    raise Refused(ErrorCode.NOT_FOUND, f"{value} is not suppressed", at=field)
                return wire.OutreachReply(line=line)
            case "resolve":
                return await self._resolve(wanted, line)
            case "pause" | "resume":
                stored = await self._known(wanted)
                why = None if wanted.action == "resume" else wanted.detail or "a person paused it"
                jobs = await self._store.pause(stored.associate.id, why, wall)
                if wanted.action == "resume":
                    await self._wake(jobs)
                return await self._look(_looking(wanted, "associates"), line)
            case _:
                raise AssertionError(f"{wanted.action} only looks")

    async def _resolve(self, wanted: wire.FollowUps, line: int) -> wire.OutreachReply:
        assert wanted.teamspace is not None
        assert wanted.mail is not None
        mail = await self._store.mail(wanted.teamspace, wanted.mail)
        if mail is None:
            message = f"{wanted.teamspace} has no mail {wanted.mail}"
            raise Refused(ErrorCode.NOT_FOUND, message, at="mail")
        who = "the operator" if wanted.as_ is None else wanted.as_.person
        said = f"{who}: {'sent' if wanted.sent else 'not sent'}" + (f", {wanted.detail}" if wanted.detail else "")
        if not await self._settle(mail, sent_=bool(wanted.sent), by=said):
            raise Refused(ErrorCode.BAD_STATE, f"mail {mail.id} is {mail.state}: its outcome is known", at="mail")
        settled = await self._store.mail(wanted.teamspace, wanted.mail)
        assert settled is not None
        return wire.OutreachReply(line=line, mails=[_mail(settled)])

    async def _settle(self, mail: StoredMail, *, sent_: bool, by: str) -> bool:
        """Say what has become of a mail of unknown outcome; False: that is known already."""
        wall = self._wall()
        if not sent_:
            ending = Ending(state=MailState.NOT_SENT, evidence=mail.evidence, status=Status.PENDING)
            return await self._store.resolve(mail, ending, by, wall)
        listed = await self._store.follow_up(mail.teamspace, mail.follow_up)
        found = await self._store.associates(mail.teamspace, mail.associate, 0, 1)
        ending = Ending(state=MailState.SENT, evidence=mail.evidence, status=Status.FINISHED)
        if listed is not None and found:
            scripts = {each.name: each for each in await self._store.scripts(mail.teamspace)}
            ending = sent(mail.evidence, listed.follow_up, found[0].associate, scripts, wall)
        return await self._store.resolve(mail, ending, by, wall)

    # -- what comes in ------------------------------------------------------------------------------------------------

    async def take(self, event: wire.ContactEvent, line: int) -> wire.EventReply:
        """Something came in."""
        wall = self._wall()
        lasting = event.event in FOR_EVER and (event.event != "bounce" or event.permanent)
        stops = event.event == "reply" or lasting
        stored = Event(
            teamspace=event.teamspace,
            event=event.event,
            address=event.address,
            message_id=event.message_id,
            key=event.key,
            at=wall if event.at is None else Instant(int(event.at.timestamp() * SECOND)),
            detail=event.detail,
        )
        reason = STOPS[event.event] if stops else None
        taken = await self._store.take(stored, stop=reason, suppress=lasting, wall=wall)
        if taken is None:
            return wire.EventReply(line=line, known=True, ref=event.ref)
        if event.event == "bounce" or event.message_id is not None:  # what came back, or is answered, has been sent
            for mail in taken.unknown:
                await self._settle(mail, sent_=True, by=f"{event.event} of {event.address}")
        if taken.mailbox is not None and event.event in {"bounce", "complaint"}:
            await self._guard(taken.mailbox)
        return wire.EventReply(line=line, stopped=[int(each) for each in taken.stopped], ref=event.ref)

    async def _guard(self, mailbox: AssociateId) -> None:
        """Pause a mailbox too many of whose mails come back."""
        newest = await self._store.last_mails(mailbox, bounce_guard.MAILS)
        fates = [
            Fate.COMPLAINED if complained else Fate.BOUNCED if bounced else Fate.SENT
            for bounced, complained in reversed(newest)
        ]
        found = bounce_guard.judge(fates)
        if found is not None:
            why = f"of its last {found.mails} mails {found.bounced} bounced, {found.complained} were reported as spam"
            await self._store.pause(mailbox, why, self._wall())

    # -- what is shown ------------------------------------------------------------------------------------------------

    async def _known(self, wanted: wire.FollowUps) -> StoredAssociate:
        assert wanted.associate is not None
        if wanted.teamspace is None:
            raise Refused(ErrorCode.BAD_REQUEST, "name the teamspace of the associate", at="teamspace")
        found = await self._store.associates(wanted.teamspace, wanted.associate, 0, 1)
        if not found:
            message = f"{wanted.teamspace} has no associate {wanted.associate}"
            raise Refused(ErrorCode.NOT_FOUND, message, at="associate")
        return found[0]

    async def _listed(self, wanted: wire.FollowUps) -> Listed:
        assert wanted.teamspace is not None
        assert wanted.follow_up is not None
        found = await self._store.follow_up(wanted.teamspace, FollowUpId(wanted.follow_up))
        if found is None:
            message = f"{wanted.teamspace} has no follow-up {wanted.follow_up}"
            raise Refused(ErrorCode.NOT_FOUND, message, at="follow_up")
        return found

    async def _associates(self, found: Sequence[StoredAssociate]) -> list[wire.AssociateView]:
        wall = self._wall()
        today = {each.associate.id: today_of(each.associate, wall) for each in found}
        lines = await self._store.lines(today) if today else {}
        return [_associate(each, lines[each.associate.id], wall) for each in found]


def _in_words(wanted: wire.FollowUps) -> str:
    """What is done, for the audit trail."""
    told: list[str] = [wanted.action]
    for name in ("associate", "follow_up", "mail", "sent", "address", "domain", "limit", "detail"):
        value = getattr(wanted, name)
        if value not in {None, ""}:
            told.append(f"{name} {value}")
    if wanted.rows is not None:
        told.append(f"{len(wanted.rows)} rows")
    return ", ".join(told)


def _looking(wanted: wire.FollowUps, action: str) -> wire.FollowUps:
    """The list that shows what has been changed."""
    return msgspec.structs.replace(wanted, action=action, limit=None, after=0)


def _next(ids: Sequence[int], limit: int) -> int | None:
    return int(ids[-1]) if len(ids) == limit else None


def _associate(stored: StoredAssociate, line: Line, wall: Instant) -> wire.AssociateView:
    associate, server = stored.associate, stored.server
    sent_today, cap_today = budget(associate, line, wall)
    begin = earliest(associate, line, None, wall, first=False)
    hours, ramp = associate.hours, associate.ramp
    return wire.AssociateView(
        teamspace=associate.teamspace,
        name=associate.name,
        address=associate.address,
        full_name=associate.full_name,
        zone=associate.zone,
        active=associate.active,
        paused=associate.paused,
        variability_seconds=associate.variability_seconds,
        daily_cap=associate.daily_cap,
        ramp=None if ramp is None else wire.SendingRamp(first=ramp.first, more=ramp.more),
        gap_seconds=associate.gap_seconds,
        hours=wire.SendingHours(
            days=[WEEKDAYS[day] for day in sorted(hours.days)],
            begin=f"{hours.begin:%H:%M}",
            end=f"{hours.end:%H:%M}",
            whose=hours.whose.value,
        ),
        server=None if server is None else f"{server.host}:{server.port}",
        sent_today=sent_today,
        cap_today=cap_today,
        waiting=len(line.places),
        next_at=_when(begin.at) if isinstance(begin, Begin) and associate.paused is None else None,
    )


def _script(script: Script) -> wire.ScriptView:
    return wire.ScriptView(
        teamspace=script.teamspace,
        name=script.name,
        keyword=script.keyword,
        then=script.then,
        steps=[
            wire.ScriptStep(after_days=each.after_days, subject=each.subject, text=each.text, html=each.html)
            for each in script.steps
        ],
    )


def _follow_up(listed: Listed) -> wire.FollowUpView:
    who = listed.follow_up
    return wire.FollowUpView(
        follow_up=int(who.id),
        teamspace=who.teamspace,
        key=listed.key,
        associate=listed.associate,
        address=who.address,
        zone=who.zone,
        script=who.script,
        step=who.step,
        status=who.status.value,
        reason=None if who.reason is None else who.reason.value,
        follow_up_date=_when(who.due),
        created_at=_when(who.created),
        job=who.job,
        place_at=None if listed.place is None else _when(listed.place),
    )


def _mail(mail: StoredMail) -> wire.MailView:
    return wire.MailView(
        mail=mail.id,
        follow_up=int(mail.follow_up),
        teamspace=mail.teamspace,
        associate=mail.associate,
        address=mail.address,
        step=mail.step,
        message_id=mail.message_id,
        state=mail.state.value,
        job=mail.job,
        began_at=_when(mail.began),
        ended_at=None if mail.ended is None else _when(mail.ended),
        evidence=mail.evidence,
        settled_by=mail.settled_by,
    )


def _receipt(result: Result) -> wire.QueueReceipt:
    queued: list[wire.QueuedView] = []
    skipped = [
        wire.SkippedView(follow_up=int(each.follow_up.id), address=each.follow_up.address, reason=each.reason.value)
        for each in result.queueing.skipped
    ]
    jobs: Sequence[JobId | Refused | None] = result.jobs or [None] * len(result.queueing.queued)
    for each, job in zip(result.queueing.queued, jobs, strict=True):
        who = each.follow_up
        if isinstance(job, Refused):
            skipped.append(wire.SkippedView(follow_up=int(who.id), address=who.address, reason=job.code.value))
            continue
        queued.append(
            wire.QueuedView(
                follow_up=int(who.id),
                address=who.address,
                script=who.script or "",
                step=who.step,
                delay_seconds=each.delay_seconds,
                job=job,
            )
        )
    return wire.QueueReceipt(
        associate=result.associate.associate.name, queued=queued, skipped=skipped, left=result.queueing.left
    )


def _when(instant: Instant) -> datetime:
    return datetime.fromtimestamp(instant / SECOND, UTC)
