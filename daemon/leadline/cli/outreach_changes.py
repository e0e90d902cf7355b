"""What a person decides in outreach: `stop`, `suppress`, `allow`, `pause`, `resume`, `resolve`; and `event` by hand."""

from typing import Annotated, Literal

from cyclopts import Parameter

from leadline.cli import terminal
from leadline.cli.daemon import Misused, Placed, any_socket
from leadline.cli.jobs import Flag, Json
from leadline.cli.outreach import FollowUpNumber, Note, Teamspace, address_or_domain, command, show_follow_up, told
from leadline.cli.words import clock, counted, shown
from leadline_protocol.messages import ContactEvent, EventReply, FollowUps

Whom = Annotated[str, Parameter(name="ADDRESS|DOMAIN", help="An address, or a domain for all addresses at it.")]
AssociateName = Annotated[str, Parameter(name="ASSOCIATE", help="The name of the associate.")]


def stop(id_: FollowUpNumber, /, *, place: Placed, teamspace: Teamspace, note: Note = "", json: Json = False) -> None:
    """End a follow-up: nothing more is written to its contact. A mail that is on its way may still arrive."""
    asked = FollowUps(action="stop", teamspace=teamspace, follow_up=id_, detail=note)
    show_follow_up(told(place, asked), json=json)


def suppress(whom: Whom, /, *, place: Placed, teamspace: Teamspace, note: Note = "", json: Json = False) -> None:
    """Never write to an address, or to a whole domain."""
    address, domain = address_or_domain(whom)
    asked = FollowUps(action="suppress", teamspace=teamspace, detail=note, address=address, domain=domain)
    views = told(place, asked).suppressions
    if json:
        for view in views:
            terminal.json_line(view)
        return
    for view in views:
        terminal.say(
            f"{shown(teamspace)} writes to {shown(view.value)} no more: {shown(view.reason.replace('_', ' '))}."
        )
    terminal.say(f"Next, to undo it: {command('allow', teamspace, whom)}")


def allow(whom: Whom, /, *, place: Placed, teamspace: Teamspace) -> None:
    """Take an address, or a domain, off the suppression list; what was stopped for it stays so."""
    address, domain = address_or_domain(whom)
    told(place, FollowUps(action="allow", teamspace=teamspace, address=address, domain=domain))
    terminal.say(f"{shown(teamspace)} may write to {shown(whom)} again. Follow-ups that were stopped stay so.")


def pause(
    associate: AssociateName, /, *, place: Placed, teamspace: Teamspace, note: Note = "", json: Json = False
) -> None:
    """Have nothing leave an associate's mailbox; what waits keeps its place."""
    asked = FollowUps(action="pause", teamspace=teamspace, associate=associate, detail=note)
    (view,) = told(place, asked).associates
    if json:
        terminal.json_line(view)
        return
    waiting = f" {counted(view.waiting, 'mail')} in its line." if view.waiting else ""
    terminal.say(f"The mailbox of {shown(view.name)} is paused: {shown(view.paused or '')}.{waiting}")
    terminal.say(f"Next, to let it go on: {command('resume', teamspace, associate)}")


def resume(associate: AssociateName, /, *, place: Placed, teamspace: Teamspace, json: Json = False) -> None:
    """Let a mailbox that is paused go on."""
    (view,) = told(place, FollowUps(action="resume", teamspace=teamspace, associate=associate)).associates
    if json:
        terminal.json_line(view)
        return
    now = terminal.now()
    when = (
        "no moment for a mail within a year"
        if view.next_at is None
        else f"the next mail from {clock(view.next_at, now)} on"
    )
    terminal.say(f"The mailbox of {shown(view.name)} goes on: {when}.")


def resolve(
    mail: Annotated[int, Parameter(name="MAIL", help="The number of the mail, as `unknown` shows it.")],
    /,
    *,
    place: Placed,
    teamspace: Teamspace,
    sent: Annotated[
        bool | None,
        Parameter(
            negative="--not-sent",
            show_default=False,
            help="Whether it was: sent goes on with the next step; not sent is written again.",
        ),
    ] = None,
    note: Note = "",
    json: Json = False,
) -> None:
    """Say whether a mail of unknown outcome was sent, after looking where it can be seen."""
    if sent is None:
        raise Misused("say --sent or --not-sent; `leadline outreach unknown` shows what is known")
    asked = FollowUps(action="resolve", teamspace=teamspace, mail=mail, sent=sent, detail=note)
    (view,) = told(place, asked).mails
    if json:
        terminal.json_line(view)
        return
    outcome = "was sent" if sent else "was not sent, and is written again"
    terminal.say(f"Mail {view.mail} to {shown(view.address)} {outcome}.")
    terminal.say(f"Next: {command('show', teamspace, str(view.follow_up))}")


def event(
    kind: Annotated[
        Literal["reply", "auto_reply", "bounce", "unsubscribe", "complaint"],
        Parameter(name="EVENT", help="What came in."),
    ],
    address: Annotated[str, Parameter(name="ADDRESS", help="The contact's.")],
    /,
    *,
    place: Placed,
    teamspace: Teamspace,
    message_id: Annotated[str | None, Parameter(help="The Message-ID of our mail that it is about.")] = None,
    key: Annotated[str | None, Parameter(help="The Message-ID of what came in: a second time nothing is done.")] = None,
    temporary: Annotated[Flag, Parameter(help="Of a bounce: the address may be good all the same.")] = False,
    note: Note = "",
    json: Json = False,
) -> None:
    """Tell of a reply, an automatic reply, a bounce, an unsubscribe or a complaint, as an inbox watcher does."""
    if temporary and kind != "bounce":
        raise Misused("--temporary goes with a bounce")
    asked = ContactEvent(
        teamspace=teamspace,
        event=kind,
        address=address,
        message_id=message_id,
        key=key,
        permanent=not temporary,
        detail=note,
    )
    with any_socket(place) as daemon:
        reply = daemon.client.call(asked)
    if json:
        terminal.json_line(reply)
    else:
        terminal.say(_came_of_it(reply))


def _came_of_it(reply: EventReply) -> str:
    if reply.known:
        return "It had come before: nothing was done now."
    if not reply.stopped:
        return "It is noted; no follow-up was to be stopped."
    ids = ", ".join(map(str, reply.stopped))
    return f"Stopped: {'follow-ups' if len(reply.stopped) > 1 else 'follow-up'} {ids}."
