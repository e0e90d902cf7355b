"""Outreach: who writes to whom, how far that is, and what a person has to decide."""

from collections.abc import Mapping
from typing import Final, Literal, cast, get_args

from aiohttp import web

from leadline.adapters.http.pages.rendering import span
from leadline.adapters.http.pages.visit import Visit, in_path
from leadline.adapters.http.problems import STATUS
from leadline.adapters.http.reach import ON_LINE
from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, Refused

PAGE: Final = 50
"""Follow-ups, mails or suppressions on one page."""

MAILBOXES: Final = 60
"""Mailboxes on one page."""

REASONS: Final[Mapping[str, str]] = {
    "unsubscribe": "unsubscribed",
    "bounce": "does not exist",
    "complaint": "complained",
    "do_not_contact": "on your list",
}
"""Why somebody is not written to, in the words of the page."""


async def overview(visit: Visit) -> web.StreamResponse:
    """The mailboxes, the mails whose outcome somebody has to settle, and the follow-ups."""
    teamspace = visit.certain_teamspace
    status = visit.query.get("status") or None
    address = visit.query.get("address", "").strip() or None
    unknown = await visit.ask(wire.FollowUps(action="mails", teamspace=teamspace, limit=PAGE))
    mailboxes = await visit.ask(
        wire.FollowUps(action="associates", teamspace=teamspace, limit=MAILBOXES, after=visit.number("beyond"))
    )
    listed, refused = wire.OutreachReply(line=ON_LINE), None
    try:
        listed = await visit.ask(
            wire.FollowUps(
                action="follow_ups",
                teamspace=teamspace,
                status=cast("wire.FollowUpStatus | None", status),
                address=address,
                limit=PAGE,
                after=visit.number("after"),
            )
        )
    except Refused as no:
        refused = no
    return visit.page(
        "outreach.html",
        status=200 if refused is None else STATUS[refused.code],
        refused=refused,
        unknown=unknown.mails,
        mailboxes=mailboxes.associates,
        beyond=mailboxes.next,
        follow_ups=listed.follow_ups,
        next=listed.next,
        chosen=status,
        address=address or "",
        statuses=get_args(wire.FollowUpStatus),
        mailbox_path=mailbox_path,
        writing_hours=writing_hours,
    )


async def preview(visit: Visit) -> web.StreamResponse:
    """What queueing would do now."""
    reply = await visit.ask(wire.FollowUps(action="preview", teamspace=visit.certain_teamspace))
    return visit.page("outreach_preview.html", receipts=reply.queued)


async def queue(visit: Visit) -> web.StreamResponse:
    """Queue what is due, as the hourly schedule does."""
    reply = await visit.ask(wire.FollowUps(action="queue", teamspace=visit.certain_teamspace))
    queued = sum(len(receipt.queued) for receipt in reply.queued)
    return visit.see("/outreach", said="queued" if queued else "nothing_due")


async def follow_up(visit: Visit) -> web.StreamResponse:
    """One contact's way through its script, and the mail that comes next."""
    number = visit.id()
    found = await visit.ask(wire.FollowUps(action="describe", teamspace=visit.certain_teamspace, follow_up=number))
    (view,) = found.follow_ups
    coming: wire.WrittenView | None = None
    unwritten: Refused | None = None
    if view.status in {"pending", "queued"}:
        try:
            reply = await visit.ask(wire.FollowUps(action="write", teamspace=visit.certain_teamspace, follow_up=number))
            coming = next(iter(reply.written), None)
        except Refused as no:
            unwritten = no
    return visit.page("follow_up.html", follow_up=view, coming=coming, unwritten=unwritten)


async def stop(visit: Visit) -> web.StreamResponse:
    """Write a contact nothing more by this follow-up."""
    number = visit.id()
    await visit.ask(wire.FollowUps(action="stop", teamspace=visit.certain_teamspace, follow_up=number))
    return visit.see(f"/outreach/follow_ups/{number}", said="stopped")


async def resolve(visit: Visit) -> web.StreamResponse:
    """Settle a mail of which nobody knows whether it has left."""
    sent = visit.form.fields.get("sent")
    if sent not in {"yes", "no"}:
        raise Refused(ErrorCode.BAD_REQUEST, "say whether the mail was sent", at="sent")
    await visit.ask(
        wire.FollowUps(action="resolve", teamspace=visit.certain_teamspace, mail=visit.id(), sent=sent == "yes")
    )
    return visit.see("/outreach", said="resolved")


async def pause(visit: Visit) -> web.StreamResponse:
    """Let nothing leave a mailbox."""
    (associate,) = visit.values
    await visit.ask(wire.FollowUps(action="pause", teamspace=visit.certain_teamspace, associate=associate))
    return visit.see("/outreach", said="mailbox_paused")


async def resume(visit: Visit) -> web.StreamResponse:
    """Let the mails of a mailbox go on."""
    (associate,) = visit.values
    await visit.ask(wire.FollowUps(action="resume", teamspace=visit.certain_teamspace, associate=associate))
    return visit.see("/outreach", said="resumed")


async def suppressions(visit: Visit) -> web.StreamResponse:
    """Who is not written to."""
    return await _suppressions(visit)


async def _suppressions(visit: Visit, refused: Refused | None = None) -> web.StreamResponse:
    reply = await visit.ask(
        wire.FollowUps(
            action="suppressions", teamspace=visit.certain_teamspace, limit=PAGE, after=visit.number("after")
        )
    )
    return visit.page(
        "suppressions.html",
        status=200 if refused is None else STATUS[refused.code],
        refused=refused,
        suppressions=reply.suppressions,
        reasons=REASONS,
        next=reply.next,
        typed=visit.form.fields,
    )


async def suppress(visit: Visit) -> web.StreamResponse:
    """Write to an address or a domain no more."""
    return await _change_suppression(visit, "suppress")


async def allow(visit: Visit) -> web.StreamResponse:
    """Take a suppression back."""
    return await _change_suppression(visit, "allow")


async def _change_suppression(visit: Visit, action: Literal["suppress", "allow"]) -> web.StreamResponse:
    """Whoever types an @ means an address, else a domain."""
    value = visit.form.fields.get("value", "").strip()
    detail = visit.form.fields.get("detail", "").strip()
    try:
        await visit.ask(
            wire.FollowUps(
                action=action,
                teamspace=visit.certain_teamspace,
                address=value if "@" in value else None,
                domain=None if "@" in value else value,
                detail=detail,
            )
        )
    except Refused as no:
        shown = Refused(no.code, f"{value or 'nothing'} is neither an address nor a domain", at="value")
        return await _suppressions(visit, shown if no.at in {"address", "domain"} else no)
    return visit.see("/outreach/suppressions", said="suppressed" if action == "suppress" else "allowed")


_DAYS: Final = {"mon": "Mondays", "tue": "Tuesdays", "wed": "Wednesdays", "thu": "Thursdays", "fri": "Fridays"} | {
    "sat": "Saturdays",
    "sun": "Sundays",
}
_WORKING: Final = ("mon", "tue", "wed", "thu", "fri")


def writing_hours(mailbox: wire.AssociateView) -> str:
    """When a mailbox writes, as a sentence: `Writes on working days from 09:00 to 17:00 in Europe/Berlin.`"""
    hours = mailbox.hours
    days = [day for day in _DAYS if day in hours.days]
    names = [_DAYS[day] for day in days]
    if len(days) == len(_DAYS):
        when = "every day"
    elif tuple(days) == _WORKING:
        when = "on working days"
    else:
        when = "on " + " and ".join(", ".join(part) for part in (names[:-1], names[-1:]) if part)
    if hours.begin != hours.end:
        when += f" from {hours.begin} to {'midnight' if hours.end == '00:00' else hours.end}"
    elif when == "every day":
        when = "at any hour"
    where = "where the contact is" if hours.whose == "lead" else f"in {mailbox.zone}"
    gap = f", at least {span(mailbox.gap_seconds)} apart" if mailbox.gap_seconds else ""
    return f"Writes {when} {where}{gap}."


def mailbox_path(name: str, word: str) -> str:
    """Where the form for a mailbox is sent."""
    return f"/outreach/associates/{in_path(name)}/{word}"
