"""A teamspace's tables; and one of them: what is in it, how long its leads stay, a file of it, and its end."""

from typing import Final

import msgspec
from aiohttp import web

from leadline.adapters.http.pages.typed import UNTOUCHED, Typed, whole
from leadline.adapters.http.pages.visit import Visit, in_path
from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, Refused

TABLES_SHOWN: Final = 50
JOBS_SHOWN: Final = 5

FORMATS: Final = {"csv": "CSV", "xlsx": "Excel (XLSX)", "jsonl": "JSON Lines"}
TYPES: Final = {
    "text": "text",
    "number": "number",
    "boolean": "yes or no",
    "date": "date",
    "timestamp": "date and time",
    "json": "JSON",
}
"""The types of columns, in words."""


async def of_teamspace(visit: Visit) -> web.StreamResponse:
    """All tables of a teamspace."""
    return await listing(visit, UNTOUCHED)


async def listing(visit: Visit, upload: Typed) -> web.Response:
    """The same; `upload`: the form for a new one."""
    teamspace = visit.certain_teamspace
    after = visit.query.get("after")
    asked = wire.Tables(teamspace=teamspace, limit=TABLES_SHOWN, after=None if after is None else (teamspace, after))
    reply = await visit.ask(asked)
    return visit.page(
        "tables.html",
        status=upload.status,
        tables=reply.tables,
        upload=upload,
        file_bytes_max=visit.reach.desk.numbers().upload_bytes_max,
        is_first=after is None,
        next=None if reply.next is None else reply.next[1],
    )


async def one(visit: Visit) -> web.StreamResponse:
    """One table."""
    return await described(visit)


async def described(
    visit: Visit, *, upload: Typed = UNTOUCHED, export: Typed = UNTOUCHED, retain: Typed = UNTOUCHED
) -> web.Response:
    """The same, with its forms."""
    reply = await _ask(visit, "describe")
    (table,) = reply.tables
    return visit.page(
        "table.html",
        status=max(form.status for form in (upload, export, retain)),
        table=table,
        columns=[(column, type_words(column.type), filled(column, table)) for column in table.columns],
        jobs=reply.jobs[:JOBS_SHOWN],
        upload=upload,
        export=export,
        retain=retain,
        file_bytes_max=visit.reach.desk.numbers().upload_bytes_max,
        formats=FORMATS,
        here_is=f"/t/{in_path(table.table)}",
    )


async def export(visit: Visit) -> web.StreamResponse:
    """Write leads to a file."""
    fields = visit.form.fields
    submission = {
        "kind": "export",
        "teamspace": visit.certain_teamspace,
        "table": visit.values[0],
        "format": fields.get("format", ""),
        "where": fields.get("where", "").strip() or None,
        "columns": names(fields.get("columns", "")) or None,
    }
    try:
        receipt = await visit.submit({name: value for name, value in submission.items() if value is not None})
    except Refused as no:
        if no.code is ErrorCode.UNKNOWN_TABLE:
            raise
        return await described(visit, export=Typed(fields, no))
    assert isinstance(receipt, wire.Receipt)
    return visit.see(f"/jobs/{receipt.job}", said="submitted")


async def retain(visit: Visit) -> web.StreamResponse:
    """Say how long leads stay."""
    said = visit.form.fields.get("days", "").strip()
    try:
        days = whole(said, "days", "a number of days, or nothing") if said else None
        await _ask(visit, "retain", days=days)
    except Refused as no:
        if no.at != "days":
            raise
        return await described(visit, retain=Typed(visit.form.fields, no))
    return visit.see(f"/t/{in_path(visit.values[0])}", said="retained")


async def ask_delete(visit: Visit) -> web.StreamResponse:
    """What would go, before anything does."""
    return await _before_end(visit, None)


async def delete(visit: Visit) -> web.StreamResponse:
    """Delete a table, with the jobs on it where that was said too."""
    try:
        await _ask(visit, "delete", cancel=visit.form.fields.get("cancel") == "yes")
    except Refused as no:
        if no.code is not ErrorCode.BAD_STATE:
            raise
        return await _before_end(visit, no)
    return visit.see("/tables", said="table_deleted")


async def _before_end(visit: Visit, refused: Refused | None) -> web.Response:
    reply = await _ask(visit, "delete", dry_run=True)
    (table,) = reply.tables
    form = Typed(visit.form.fields, refused)
    return visit.page("table_delete.html", status=form.status, table=table, jobs=reply.jobs, form=form)


async def _ask(visit: Visit, action: str, **given: object) -> wire.TablesReply:
    asked = wire.Tables(teamspace=visit.certain_teamspace, table=visit.values[0], action=action, **given)  # type: ignore[arg-type]  # the codec judges it
    return await visit.ask(asked)


def names(text: str) -> list[str]:
    """Names that somebody has typed with commas between them."""
    return [name for part in text.replace("\n", ",").split(",") if (name := part.strip())]


def type_words(spec: wire.ColumnSpec) -> str:
    """A column's type, in words."""
    return TYPES[spec] if isinstance(spec, str) else f"one of {', '.join(spec)}"


class Fill(msgspec.Struct, frozen=True):
    """How full a column is."""

    leads: int
    percent: str
    """Rounded towards the middle: only what is full is 100 %, only what is empty 0 %."""
    share: float


def filled(column: wire.ColumnView, table: wire.TableView) -> Fill | None:
    """How full a column is; None where nobody has looked, or there is nothing to fill."""
    if column.filled is None or not table.leads:
        return None
    share = min(1.0, column.filled / table.leads)
    rounded = round(100 * share)
    if column.filled and not rounded:
        return Fill(column.filled, "under 1 %", share)
    if column.filled < table.leads and rounded == 100:
        return Fill(column.filled, "over 99 %", share)
    return Fill(column.filled, f"{rounded} %", share)
