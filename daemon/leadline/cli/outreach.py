"""`outreach`: follow-up mails, as people see them: who writes what to whom, and how far that is.

Beside what is here, `outreach_import` takes files in, `outreach_queue` queues what is due and shows what would be, and
`outreach_changes` is for what a person decides. Each of them says what can be done next.
"""

import shlex
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, get_args

from cyclopts import App, Parameter
from msgspec.structs import replace

from leadline.cli import terminal
from leadline.cli.daemon import Daemon, Misused, Place, Placed, control
from leadline.cli.jobs import Json
from leadline.cli.words import clock, counted, number, shown
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.messages import (
    AssociateView,
    FollowUps,
    FollowUpStatus,
    FollowUpView,
    MailView,
    OutreachReply,
    ScriptView,
    SendingDay,
    SendingHours,
)

outreach = App(
    name="outreach", help="Follow-up mails: import who writes what to whom, queue, preview and look after them."
)

Teamspace = Annotated[str, Parameter(help="The teamspace that it belongs to.")]
AnyTeamspace = Annotated[str | None, Parameter(help="Only this teamspace.")]
FollowUpNumber = Annotated[int, Parameter(name="ID", help="The number of the follow-up, as `list` shows it.")]
Note = Annotated[str, Parameter(help="Why; it is kept, and shown with it.")]
Limit = Annotated[int, Parameter(name=("--limit", "-n"), help="So many at most.")]

PAGE_ROWS: Final = 1000

_ELSEWHERE: Final = (
    ("import", "outreach_import:import_", "Import associates, scripts, follow-ups and suppressions from a file."),
    ("queue", "outreach_queue:queue", "Queue the follow-ups that are due, now."),
    ("preview", "outreach_queue:preview", "Tell what would be queued now, or show the next mail of a follow-up."),
    ("stop", "outreach_changes:stop", "End a follow-up: nothing more is written to its contact."),
    ("suppress", "outreach_changes:suppress", "Never write to an address, or to a whole domain."),
    ("allow", "outreach_changes:allow", "Take an address, or a domain, off the suppression list."),
    ("pause", "outreach_changes:pause", "Have nothing leave an associate's mailbox."),
    ("resume", "outreach_changes:resume", "Let a mailbox that is paused go on."),
    ("resolve", "outreach_changes:resolve", "Say whether a mail of unknown outcome was sent."),
    ("event", "outreach_changes:event", "Tell of a reply, a bounce or the like, as an inbox watcher does."),
)


@outreach.command(name="list")
def listing(
    *,
    place: Placed,
    teamspace: AnyTeamspace = None,
    status: Annotated[FollowUpStatus | None, Parameter(help="Only follow-ups that are so.")] = None,
    associate: Annotated[str | None, Parameter(help="Only those of this associate.")] = None,
    address: Annotated[str | None, Parameter(help="Only those of the contact with this address.")] = None,
    limit: Limit = 50,
    json: Json = False,
) -> None:
    """List follow-ups, in the order in which they came."""
    if associate is not None and teamspace is None:
        raise Misused("Say with --teamspace whose associate that is")
    asked = FollowUps(teamspace=teamspace, status=status, associate=associate, address=address)
    views, has_more = _listed(place, asked, lambda page: page.follow_ups, limit)
    if json:
        _json_lines(views)
        return
    now = terminal.now()
    terminal.columns(
        ("FOLLOW-UP", "TEAMSPACE", "TO", "ASSOCIATE", "SCRIPT", "STEP", "STATUS", "NOTE"),
        [
            (
                str(view.follow_up),
                shown(view.teamspace),
                shown(view.address),
                shown(view.associate or ""),
                shown(view.script or ""),
                str(view.step),
                terminal.state(view.status),
                _note(view, now),
            )
            for view in views
        ],
        right=("FOLLOW-UP", "STEP"),
    )
    _say_more(has_more, limit)


@outreach.command
def show(id_: FollowUpNumber, /, *, place: Placed, teamspace: Teamspace, json: Json = False) -> None:
    """Show a follow-up: what is known of the contact, how it came to where it is, and its mails."""
    show_follow_up(told(place, FollowUps(action="describe", teamspace=teamspace, follow_up=id_)), json=json)


@outreach.command
def associates(*, place: Placed, teamspace: AnyTeamspace = None, json: Json = False) -> None:
    """List associates, what each has sent today, and when the next mail may go."""
    views = every(place, FollowUps(action="associates", teamspace=teamspace), lambda page: page.associates)
    if json:
        _json_lines(views)
        return
    now = terminal.now()
    terminal.columns(
        ("TEAMSPACE", "ASSOCIATE", "ADDRESS", "STATE", "TODAY", "WAITING", "NEXT", "WRITES"),
        [
            (
                shown(view.teamspace),
                shown(view.name),
                shown(view.address),
                terminal.state(mailbox_state(view)),
                f"{number(view.sent_today)} of {number(view.cap_today)}",
                number(view.waiting),
                "" if view.next_at is None else clock(view.next_at, now),
                shown(_writes(view)),
            )
            for view in views
        ],
        right=("WAITING",),
    )
    for view in views:
        if view.paused is not None:
            terminal.say()
            terminal.say(f"{shown(view.name)} of {shown(view.teamspace)} is paused: {shown(view.paused)}.")
            terminal.say(f"Next: {command('resume', view.teamspace, view.name)}")


@outreach.command
def scripts(
    name: Annotated[str | None, Parameter(name="NAME", help="Show the texts of this script.")] = None,
    /,
    *,
    place: Placed,
    teamspace: AnyTeamspace = None,
    json: Json = False,
) -> None:
    """List scripts; with NAME, show what one writes."""
    if name is not None and teamspace is None:
        raise Misused("Say with --teamspace whose script that is")
    views = told(place, FollowUps(action="scripts", teamspace=teamspace)).scripts
    if name is not None:
        views = [view for view in views if view.name == name]
        if not views:
            raise Refused(ErrorCode.NOT_FOUND, f"{teamspace} has no script {name}")
    if json:
        _json_lines(views)
        return
    if name is not None:
        for line in _script(views[0]):
            terminal.say(line)
        return
    terminal.columns(
        ("TEAMSPACE", "SCRIPT", "KEYWORD", "STEPS", "DAYS", "THEN"),
        [
            (
                shown(view.teamspace),
                shown(view.name),
                shown(view.keyword),
                number(len(view.steps)),
                number(sum(step.after_days for step in view.steps[1:])),
                shown(view.then or ""),
            )
            for view in views
        ],
        right=("STEPS", "DAYS"),
    )


@outreach.command
def suppressions(
    *,
    place: Placed,
    teamspace: AnyTeamspace = None,
    address: Annotated[str | None, Parameter(help="Only this address, or domain.")] = None,
    limit: Limit = 50,
    json: Json = False,
) -> None:
    """List the addresses and domains that are not written to, and why."""
    value, domain = (None, None) if address is None else address_or_domain(address)
    asked = FollowUps(action="suppressions", teamspace=teamspace, address=value, domain=domain)
    views, has_more = _listed(place, asked, lambda page: page.suppressions, limit)
    if json:
        _json_lines(views)
        return
    now = terminal.now()
    terminal.columns(
        ("TEAMSPACE", "NOT WRITTEN TO", "WHY", "SINCE", "NOTE"),
        [
            (
                shown(view.teamspace),
                shown(view.value),
                shown(view.reason.replace("_", " ")),
                clock(view.at, now),
                shown(view.detail),
            )
            for view in views
        ],
    )
    _say_more(has_more, limit)


@outreach.command
def unknown(*, place: Placed, teamspace: AnyTeamspace = None, json: Json = False) -> None:
    """List mails of which nobody knows whether they were sent, with all that is known."""
    views = every(place, FollowUps(action="mails", teamspace=teamspace), lambda page: page.mails)
    if json:
        _json_lines(views)
        return
    if not views:
        terminal.say("There are none: of every mail it is known whether it was sent.")
        return
    now = terminal.now()
    for view in views:
        for line in _unknown(view, now):
            terminal.say(line)
    terminal.say()
    if len({view.teamspace for view in views}) == 1:
        mail = str(views[0].mail) if len(views) == 1 else "MAIL"
        terminal.say(f"Next: {command('resolve', views[0].teamspace, mail)} --sent, or --not-sent")
    else:
        terminal.say("Next: leadline outreach resolve MAIL --teamspace TEAMSPACE --sent, or --not-sent")


for _name, _target, _help in _ELSEWHERE:
    outreach.command(f"leadline.cli.{_target}", name=_name, help=_help)


# -- what the others use too -------------------------------------------------------------------------------------------


def told(place: Place, asked: FollowUps) -> OutreachReply:
    """What the daemon says to that."""
    with control(place) as daemon:
        return daemon.client.call(asked)


def every(place: Place, asked: FollowUps, rows: Callable[[OutreachReply], Sequence[Any]]) -> list[Any]:
    """All rows of a list, page by page."""
    with control(place) as daemon:
        return every_of(daemon, asked, rows)


def every_of(daemon: Daemon, asked: FollowUps, rows: Callable[[OutreachReply], Sequence[Any]]) -> list[Any]:
    """The same over a connection that there is."""
    return _pages(daemon, asked, rows, None)[0]


def command(word: str, teamspace: str, *arguments: str) -> str:
    """A command to be typed next."""
    words = ["leadline", "outreach", word, *map(shlex.quote, arguments), "--teamspace", shlex.quote(teamspace)]
    return shown(" ".join(words))


def address_or_domain(text: str) -> tuple[str | None, str | None]:
    """The one or the other: an address has something before its @. Raises Misused."""
    local, _, domain = text.rpartition("@")
    if "." not in domain.strip("."):
        raise Misused(f"{text} is neither an address nor a domain")
    return (text, None) if local else (None, domain)


def mailbox_state(view: AssociateView) -> str:
    """Whether mails leave a mailbox."""
    return "paused" if view.paused is not None else "open" if view.active else "off"


def show_follow_up(reply: OutreachReply, *, json: bool) -> None:
    """Show one follow-up with all that is known of it."""
    (view,) = reply.follow_ups
    if json:
        terminal.json_line(view)
        return
    now = terminal.now()
    for line in _described(view, now):
        terminal.say(line)
    if view.history:
        terminal.say()
        terminal.columns(
            ("WHEN", "WHAT", "DETAILS"),
            [(clock(each.at, now), terminal.state(each.status), shown(each.detail)) for each in view.history],
        )
    if view.mails:
        terminal.say()
        terminal.columns(
            ("MAIL", "STEP", "STATE", "BEGAN", "WHAT IS KNOWN"),
            [
                (str(each.mail), str(each.step), terminal.state(each.state), clock(each.began_at, now), _known(each))
                for each in view.mails
            ],
            right=("MAIL", "STEP"),
        )
    if step := _next_step(view):
        terminal.say()
        terminal.say(f"Next: {step}")


# -- words -------------------------------------------------------------------------------------------------------------


def _listed(
    place: Place, asked: FollowUps, rows: Callable[[OutreachReply], Sequence[Any]], limit: int
) -> tuple[list[Any], bool]:
    """So many rows of a list, and whether there are more."""
    if limit < 1:
        raise Misused("--limit must be at least 1")
    with control(place) as daemon:
        return _pages(daemon, asked, rows, limit)


def _pages(
    daemon: Daemon, asked: FollowUps, rows: Callable[[OutreachReply], Sequence[Any]], limit: int | None
) -> tuple[list[Any], bool]:
    found: list[Any] = []
    while True:
        room = PAGE_ROWS if limit is None else min(PAGE_ROWS, limit - len(found))
        page = daemon.client.call(replace(asked, limit=room))
        found += rows(page)
        if page.next is None or len(found) == limit:
            return found, page.next is not None
        asked = replace(asked, after=page.next)


def _say_more(has_more: bool, limit: int) -> None:
    if has_more:
        terminal.remark(f"There may be more: --limit {10 * limit}")


def _json_lines(views: Sequence[Any]) -> None:
    for view in views:
        terminal.json_line(view)


def _note(view: FollowUpView, now: datetime) -> str:
    """What a person wants to know next of a follow-up."""
    if view.status == "pending":
        if view.associate is None:
            return "waits for its first mail"
        return f"from {clock(view.follow_up_date, now)} on" if view.follow_up_date > now else "due"
    if view.status == "queued":
        job = f"job {view.job}" if view.job is not None else ""
        when = "" if view.place_at is None else f"leaves about {clock(view.place_at, now)}"
        return " · ".join(filter(None, (when, job)))
    return shown((view.reason or "").replace("_", " "))


def _described(view: FollowUpView, now: datetime) -> Iterator[str]:
    writer = shown(view.associate) if view.associate else "nobody yet"
    yield f"Follow-up {view.follow_up} of {shown(view.teamspace)}: {writer} writes to {shown(view.address)}."
    script = "no script" if view.script is None else f"step {view.step} of {shown(view.script)}"
    note = _note(view, now)
    yield f"  It is {terminal.state(view.status)}{f' ({note})' if note else ''}: {script}."
    zone = f", whose zone is {shown(view.zone)}" if view.zone else ""
    yield f"  Known as {shown(view.key)}{zone}; added {clock(view.created_at, now)}."
    for name, value in view.fields.items():
        yield f"  {shown(name)}: {shown(value)}"


def _next_step(view: FollowUpView) -> str:
    number_ = str(view.follow_up)
    match view.status:
        case "unknown":
            mail = next((each for each in view.mails if each.state == "unknown"), None)
            if mail is not None:
                return f"{command('resolve', view.teamspace, str(mail.mail))} --sent, or --not-sent"
        case "pending" if view.associate is not None:
            return f"{command('preview', view.teamspace)} --follow-up {number_}"
        case "queued" if view.job is not None:
            return f"leadline why {view.job}"
    return ""


def _known(mail: MailView) -> str:
    return shown("; ".join(filter(None, (mail.evidence, mail.settled_by))))


def _unknown(view: MailView, now: datetime) -> Iterator[str]:
    yield (
        f"Mail {view.mail} of {shown(view.teamspace)}: {shown(view.associate)} to {shown(view.address)}, "
        f"step {view.step} of follow-up {view.follow_up}, begun {clock(view.began_at, now)}."
    )
    yield f"  What is known: {shown(view.evidence) or 'nothing'}."
    yield f"  Look in the mail server's log, or the folder of sent mails, for {shown(view.message_id)}"


def _writes(view: AssociateView) -> str:
    """When an associate writes: `mon-fri 09:00-17:00 Europe/Berlin`."""
    if len(view.hours.days) == len(get_args(SendingDay)) and view.hours.begin == view.hours.end == "00:00":
        return "at any time"
    whose = " (the contact's own where it is known)" if view.hours.whose == "lead" else ""
    return f"{_days(view.hours)} {view.hours.begin}-{view.hours.end} {view.zone}{whose}"


def _days(hours: SendingHours) -> str:
    week = get_args(SendingDay)
    places = [week.index(day) for day in hours.days]
    if len(places) > 2 and places == list(range(places[0], places[-1] + 1)):
        return f"{hours.days[0]}-{hours.days[-1]}"
    return ", ".join(hours.days)


def _script(view: ScriptView) -> Iterator[str]:
    then = "" if view.then is None else f"; after it comes {shown(view.then)}"
    yield f"Script {shown(view.name)} of {shown(view.teamspace)}, keyword {shown(view.keyword)}{then}."
    for place, step in enumerate(view.steps, start=1):
        when = "" if place == 1 else f", {counted(step.after_days, 'day')} after the one before"
        yield ""
        html = ", in HTML too" if step.html else ""
        subject = f"Subject: {shown(step.subject)}" if step.subject else "It answers the mail before it."
        yield f"Step {place}{when}{html}. {subject}"
        for line in step.text.splitlines():
            yield f"  {shown(line)}"
