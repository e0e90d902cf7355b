"""`token`: what programs send to use the API over HTTP; made, listed, changed and taken back here alone."""

import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated, get_args

from cyclopts import App, Parameter

from leadline.cli import terminal
from leadline.cli.daemon import Misused, Place, Placed, control
from leadline.cli.jobs import Json
from leadline.cli.words import clock, shown
from leadline_protocol.messages import Role, Tokens, TokenScope, TokenView

token = App(name="token", help="Tokens for the API over HTTP: create, list, rotate or revoke one.")

Name = Annotated[str, Parameter(name="NAME", help="What the token is called in lists and in the audit trail.")]
Days = Annotated[float | None, Parameter(help="It is not taken after so many days. Absent: until it is revoked.")]


@token.command(name="list")
def listing(*, place: Placed, json: Json = False) -> None:
    """List the tokens; what they are is told to nobody again."""
    with control(place) as daemon:
        views = daemon.client.call(Tokens()).tokens
    if json:
        for view in views:
            terminal.json_line(view)
        return
    now = terminal.now()
    terminal.columns(
        ("TOKEN", "TEAMSPACE", "SCOPES", "ROLE", "MADE", "EXPIRES", "ONE BEFORE UNTIL"),
        [
            (
                shown(view.name),
                "all" if view.teamspace is None else shown(view.teamspace),
                ", ".join(view.scopes),
                view.role,
                clock(view.created_at, now),
                _when(view.expires_at, now),
                "" if view.older_until is None else clock(view.older_until, now),
            )
            for view in views
        ],
    )


@token.command
def create(
    name: Name,
    /,
    *,
    place: Placed,
    scopes: Annotated[str, Parameter(help="What it may do: submit, read, control, or several with commas.")],
    teamspace: Annotated[str | None, Parameter(help="The only teamspace that it reaches. Absent: all.")] = None,
    role: Annotated[Role, Parameter(help="As whom its requests are judged.")] = "member",
    days: Days = None,
) -> None:
    """Make a token, and print it: it is told this once."""
    wanted = [word for text in scopes.split(",") if (word := text.strip())]
    known = get_args(TokenScope)
    if not wanted or any(word not in known for word in wanted):
        raise Misused(f"--scopes takes {', '.join(known)}")
    asked = Tokens(
        action="create",
        name=name,
        scopes=[word for word in known if word in wanted],
        teamspace=teamspace,
        role=role,
        expires_at=_expiry(days),
    )
    _tell(place, asked)


@token.command
def rotate(
    name: Name,
    /,
    *,
    place: Placed,
    overlap_hours: Annotated[float, Parameter(help="For so long the one before is taken, too.")] = 24.0,
    days: Days = None,
) -> None:
    """Make a new secret for a token, and print it; the one before is taken for a while longer."""
    if not 0 <= overlap_hours <= 31 * 24:
        raise Misused("--overlap-hours takes 0 to 744")
    overlap = int(overlap_hours * 3600)
    _tell(place, Tokens(action="rotate", name=name, overlap_seconds=overlap, expires_at=_expiry(days)))


@token.command
def revoke(name: Name, /, *, place: Placed) -> None:
    """Take a token back, with all its secrets, at once."""
    with control(place) as daemon:
        daemon.client.call(Tokens(action="revoke", name=name))
    sys.stderr.write(f"The token {shown(name)} is revoked.\n")


def _tell(place: Place, asked: Tokens) -> None:
    """The secret alone on standard output, so that it can be put where it is needed; what else there is beside it."""
    with control(place) as daemon:
        reply = daemon.client.call(asked)
    sys.stdout.write(f"{reply.secret}\n")
    sys.stdout.flush()
    for view in reply.tokens:
        sys.stderr.write(f"{_described(view)}\nKeep it well: it is not shown again.\n")


def _described(view: TokenView) -> str:
    now = terminal.now()
    reach = "all teamspaces" if view.teamspace is None else f"the teamspace {shown(view.teamspace)}"
    before = f" The one before is taken until {clock(view.older_until, now)}." if view.older_until is not None else ""
    return (
        f"{shown(view.name)}: {', '.join(view.scopes)} for {reach}, as {view.role}; "
        f"expires: {_when(view.expires_at, now)}.{before}"
    )


def _when(at: datetime | None, now: datetime) -> str:
    return "never" if at is None else clock(at, now)


def _expiry(days: float | None) -> datetime | None:
    if days is None:
        return None
    if not 0 < days <= 36_500:
        raise Misused("--days takes more than 0, and 36500 at most")
    return datetime.now(UTC) + timedelta(days=days)
