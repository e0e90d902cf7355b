"""The leads that a job is through with and has not done: to look at, and as a file."""

from typing import Final

from aiohttp import web

from leadline.adapters.http.pages.refused_rows import reason_words
from leadline.adapters.http.pages.visit import Visit, in_path
from leadline.features.tables.columns import cell_text
from leadline.features.tables.not_done import require_leads
from leadline_protocol import messages as wire

LEADS_SHOWN: Final = 50

COLUMNS_SHOWN: Final = 3
"""So many of its cells say which lead it is, those of the table's key first."""


async def not_done_file(visit: Visit) -> web.StreamResponse:
    """All leads that a job has not done, as CSV."""
    return await visit.reach.give_leads_not_done(visit.caller, visit.http, visit.job())


async def not_done(visit: Visit) -> web.StreamResponse:
    """The same to look at, one by one."""
    after = visit.number("after")
    reply = await visit.ask(wire.Job(job=visit.job(), leads_after=after))
    require_leads(reply.view.kind)
    leads = reply.leads[:LEADS_SHOWN]
    columns = reply.columns[:COLUMNS_SHOWN]
    return visit.page(
        "leads_not_done.html",
        job=reply.view,
        columns=columns,
        leads=[
            (each, "" if each.reason is None else reason_words(each.reason), _cells(each, columns)) for each in leads
        ],
        is_first=after == 0,
        next=leads[-1].lead if len(reply.leads) > len(leads) or len(leads) == LEADS_SHOWN else None,
        table_path=f"/t/{in_path(reply.view.table or '')}",
    )


def _cells(each: wire.LeadNotDone, columns: list[str]) -> list[tuple[str, str]] | None:
    return None if each.cells is None else [(name, cell_text(each.cells.get(name))) for name in columns]
