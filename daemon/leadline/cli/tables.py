"""`tables`: which there are, what is in one, and its life from `create` to `delete`."""

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, Final

from cyclopts import App, Parameter
from msgspec.structs import replace

from leadline.cli import terminal
from leadline.cli.daemon import Misused, Place, Placed, control
from leadline.cli.jobs import Flag, Json
from leadline.cli.words import ago, clock, counted, note, number, percent, progress, shown, size
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.messages import ColumnSpec, ColumnView, JobView, Tables, TablesReply, TableView

CANCEL_SECONDS_MAX: Final = 120.0

tables = App(name="tables", help="List the tables with their columns; describe, create or delete one.")

TableName = Annotated[str, Parameter(name="TABLE", help="The name of the table.")]
Teamspace = Annotated[str, Parameter(help="The teamspace that it belongs to.")]


@tables.default
def listing(
    *,
    place: Placed,
    teamspace: Annotated[str | None, Parameter(help="Only this teamspace.")] = None,
    table: Annotated[str | None, Parameter(help="Only tables of this name.")] = None,
    json: Json = False,
) -> None:
    """List the tables with their columns."""
    views = _listed(place, Tables(teamspace=teamspace, table=table))
    if json:
        for view in views:
            terminal.json_line(view)
        return
    now = terminal.now()
    terminal.columns(
        ("TEAMSPACE", "TABLE", "LEADS", "JOBS", "CREATED", "COLUMNS"),
        [
            (
                shown(view.teamspace),
                shown(view.table),
                number(view.leads),
                number(view.jobs),
                clock(view.created_at, now),
                ", ".join(map(_column, view.columns)),
            )
            for view in views
        ],
        right=("LEADS", "JOBS"),
    )


def _listed(place: Place, asked: Tables) -> Iterator[TableView]:
    with control(place) as daemon:
        while True:
            page = daemon.client.call(asked)
            yield from page.tables
            if page.next is None:
                return
            asked = replace(asked, after=page.next)


@tables.command
def describe(table: TableName, /, *, place: Placed, teamspace: Teamspace, json: Json = False) -> None:
    """Show a table: its columns and how full they are, its size, and the newest jobs on it."""
    reply = _about(place, Tables(action="describe", teamspace=teamspace, table=table))
    if json:
        terminal.json_line(reply)
        return
    (view,) = reply.tables
    now = terminal.now()
    for line in _described(view, now):
        terminal.say(line)
    terminal.say()
    terminal.columns(
        ("COLUMN", "TYPE", "FILLED", ""),
        [(shown(each.name), shown(_type(each)), *_filled(each, view)) for each in view.columns],
        right=("FILLED",),
    )
    if reply.jobs:
        terminal.say()
        _show_jobs(reply.jobs, now)


def _described(view: TableView, now: datetime) -> Iterator[str]:
    about = "about " if view.sampled is not None else ""
    bytes_ = "" if view.size_bytes is None else f", {about}{size(view.size_bytes)}"
    yield f"Table {shown(view.table)} of {shown(view.teamspace)}: {counted(view.leads, 'lead')}{bytes_}."
    yield f"  Made {ago(view.created_at, now)} ({clock(view.created_at, now)})."
    if view.key:
        yield f"  Its leads are told apart by {shown(', '.join(view.key))}."
    if view.retention_days is not None:
        yield f"  They go {counted(view.retention_days, 'day')} after they were added."
    if view.jobs:
        yield f"  {counted(view.jobs, 'job')} on it {'has' if view.jobs == 1 else 'have'} not ended."
    if view.sampled is not None:
        yield f"  How full it is, is an estimate from {number(view.sampled)} of its leads."


def _filled(column: ColumnView, view: TableView) -> tuple[str, str]:
    if column.filled is None:
        return "", ""
    return number(column.filled), percent(column.filled, view.leads) if view.leads else ""


def _show_jobs(jobs: list[JobView], now: datetime) -> None:
    terminal.columns(
        ("JOB", "KIND", "STATE", "LEADS", "SUBMITTED", "NOTE"),
        [
            (
                str(view.job),
                view.kind,
                terminal.state(view.shown),
                progress(view.counts),
                clock(view.submitted_at, now),
                note(view, now),
            )
            for view in jobs
        ],
        right=("JOB",),
    )


@tables.command
def create(
    table: TableName,
    /,
    *,
    place: Placed,
    teamspace: Teamspace,
    column: Annotated[
        list[str],
        Parameter(help="A column, as NAME:TYPE; the type may be the only texts it may hold, such as size:small,large."),
    ] = [],  # noqa: B006  read only
    key: Annotated[str | None, Parameter(help="The columns, with commas, by which two rows are the same lead.")] = None,
    json: Json = False,
) -> None:
    """Make a table without leads; an upload makes its table by itself."""
    columns = dict(map(_declared, column))
    reply = _about(
        place,
        Tables(
            action="create",
            teamspace=teamspace,
            table=table,
            columns=columns,
            key=[] if key is None else key.split(","),
        ),
    )
    _conclude(reply, f"{shown(teamspace)} has a table {shown(table)} now.", json=json)


def _declared(text: str) -> tuple[str, ColumnSpec]:
    name, colon, kind = text.partition(":")
    if not name or not colon or not kind:
        raise Misused(f"--column takes NAME:TYPE, not {text!r}")
    declared: Any = kind.split(",") if "," in kind else kind
    return name, declared


@tables.command
def modules(*, place: Placed, json: Json = False) -> None:
    """List the modules that fill columns: what each needs, what it can find, and its price."""
    with control(place) as daemon:
        views = daemon.client.call(Tables(action="modules")).modules
    if json:
        for view in views:
            terminal.json_line(view)
        return
    terminal.columns(
        ("MODULE", "NEEDS", "FINDS", "CREDITS"),
        [
            (
                shown(view.module),
                shown(", ".join([*view.inputs, *(f"[{name}]" for name in view.optional_inputs)])),
                shown(", ".join(view.outputs) or "what the prompt asks for"),
                f"{view.credits_per_lead:g} a {'result' if view.charge_on == 'result' else 'lead'}"
                if view.credits_per_lead
                else "",
            )
            for view in views
        ],
    )


@tables.command
def retain(
    table: TableName,
    /,
    *,
    place: Placed,
    teamspace: Teamspace,
    days: Annotated[int | None, Parameter(help="So many days after they were added its leads go.")] = None,
    for_ever: Annotated[Flag, Parameter(help="Its leads stay, as far as the teamspace's plan says nothing.")] = False,
    json: Json = False,
) -> None:
    """Say how long the leads of a table stay."""
    if (days is None) != for_ever:
        raise Misused("Give --days or --for-ever")
    reply = _about(place, Tables(action="retain", teamspace=teamspace, table=table, days=days))
    in_force = reply.tables[0].retention_days
    how = "stay" if in_force is None else f"go {counted(in_force, 'day')} after they were added"
    _conclude(reply, f"The leads of {shown(table)} {how}.", json=json)


@tables.command
def delete(
    table: TableName,
    /,
    *,
    place: Placed,
    teamspace: Teamspace,
    cancel: Annotated[Flag, Parameter(help="Cancel the jobs on it, and wait for their end.")] = False,
    dry_run: Annotated[Flag, Parameter(help="Only say what would go.")] = False,
    json: Json = False,
) -> None:
    """Delete a table with all its leads: it is gone at once, and cannot be had back."""
    asked = Tables(action="delete", teamspace=teamspace, table=table, cancel=cancel, dry_run=dry_run)
    reply = _cancelling(place, asked) if cancel and not dry_run else _about(place, asked)
    (view,) = reply.tables
    what = f"the table {shown(table)} of {shown(teamspace)} with {counted(view.leads, 'lead')}"
    if not dry_run:
        _conclude(reply, f"Deleted: {what}.", json=json)
        return
    if json:
        terminal.json_line(reply)
        return
    terminal.say(f"This would delete {what}.")
    if view.jobs:
        how = "would be cancelled" if cancel else "would keep it: with --cancel they are cancelled"
        terminal.say(f"{counted(view.jobs, 'job')} on it {'has' if view.jobs == 1 else 'have'} not ended, and {how}:")
        _show_jobs(reply.jobs, terminal.now())


def _cancelling(place: Place, asked: Tables) -> TablesReply:
    """Ask again as long as the daemon says that jobs have not ended yet: calls in flight may take a minute."""
    deadline = time.monotonic() + CANCEL_SECONDS_MAX
    while True:
        try:
            return _about(place, asked)
        except Refused as refused:
            if refused.code is not ErrorCode.BAD_STATE or time.monotonic() > deadline:
                raise
            terminal.remark(shown(refused.message))


def _about(place: Place, asked: Tables) -> TablesReply:
    with control(place) as daemon:
        return daemon.client.call(asked)


def _conclude(reply: TablesReply, sentence: str, *, json: bool) -> None:
    if json:
        terminal.json_line(reply)
    else:
        terminal.say(sentence)


def _column(column: ColumnView) -> str:
    return shown(f"{column.name} ({_type(column)})")


def _type(column: ColumnView) -> str:
    return column.type if isinstance(column.type, str) else "/".join(column.type)
