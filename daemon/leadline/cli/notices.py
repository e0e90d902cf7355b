"""`notices`: mails and webhooks about jobs, and what became of them."""

from typing import Annotated
from uuid import UUID

from cyclopts import Parameter

from leadline.cli import terminal
from leadline.cli.daemon import Placed, control
from leadline.cli.jobs import Flag, Json
from leadline.cli.words import clock, number, shown
from leadline_protocol.ids import JobId
from leadline_protocol.messages import Notices


def notices(
    *,
    place: Placed,
    job: Annotated[int | None, Parameter(help="Only those about this job.")] = None,
    teamspace: Annotated[str | None, Parameter(help="Only those of this teamspace.")] = None,
    all: Annotated[Flag, Parameter(help="Also those that were sent.")] = False,  # noqa: A002  the option's name
    again: Annotated[
        UUID | None, Parameter(help="First send this one once more, which was given up or is held.")
    ] = None,
    limit: Annotated[int, Parameter(help="So many at most.")] = 100,
    json: Json = False,
) -> None:
    """List mails and webhooks about jobs, newest first: those that are not delivered, or all."""
    asked = Notices(job=None if job is None else JobId(job), teamspace=teamspace, all=all, again=again, limit=limit)
    with control(place) as daemon:
        views = daemon.client.call(asked).notices
    if json:
        for view in views:
            terminal.json_line(view)
        return
    now = terminal.now()
    terminal.columns(
        ("NOTICE", "JOB", "OF", "TO", "STATE", "TRIES", "MADE", "WHY"),
        [
            (
                str(view.notice),
                number(view.job),
                view.event,
                shown(view.target),
                view.state,
                number(view.tries),
                clock(view.made_at, now),
                shown(view.detail or ""),
            )
            for view in views
        ],
        right=("JOB", "TRIES"),
    )
