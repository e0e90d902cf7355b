"""`link`: have somebody sign in to the pages in a browser, or have them signed out."""

import sys
from typing import Annotated, Any

from cyclopts import App, Parameter

from leadline.cli import terminal
from leadline.cli.daemon import Misused, Placed, control
from leadline.cli.jobs import Json
from leadline.cli.words import ago, counted, shown
from leadline_protocol.messages import Links, Role

link = App(name="link", help="Links by which people sign in to the pages: create one, or sign people out.")

Teamspace = Annotated[str | None, Parameter(help="The only teamspace that it is about. Absent: all.")]


@link.command
def create(
    *,
    place: Placed,
    person: Annotated[str, Parameter(help="Whom it is for, as the audit trail will tell, such as an e-mail address.")],
    teamspace: Teamspace = None,
    role: Annotated[Role, Parameter(help="As whom the person's requests are judged.")] = "member",
    json: Json = False,
) -> None:
    """Make a link by which one person signs in, once, and print it."""
    asked = _asked(person=person, teamspace=teamspace, role=role)
    with control(place) as daemon:
        reply = daemon.client.call(asked)
    if json:
        terminal.json_line(reply)
        return
    sys.stdout.write(f"{reply.url or reply.path}\n")
    reach = "all teamspaces" if teamspace is None else f"the teamspace {shown(teamspace)}"
    assert reply.expires_at is not None
    when = ago(reply.expires_at, terminal.now())
    terminal.remark(f"Signs {shown(person)} in to {reach} as {role}, once; it expires {when}.")
    if reply.url is None:
        terminal.remark("Put before it by which address browsers reach the daemon; `http.public_url` tells the daemon.")


@link.command
def end(
    *,
    place: Placed,
    person: Annotated[str | None, Parameter(help="Who is signed out. Absent: everybody of the teamspace.")] = None,
    teamspace: Teamspace = None,
) -> None:
    """Sign a person out at once, or a whole teamspace; links that were not used are good no more."""
    with control(place) as daemon:
        reply = daemon.client.call(_asked(action="end", person=person, teamspace=teamspace))
    terminal.remark(f"Signed out: {counted(reply.ended or 0, 'session')}.")


def _asked(**fields: Any) -> Links:
    try:
        return Links(**fields)
    except ValueError as error:
        raise Misused(str(error)) from None
