"""The rows that an upload has refused: to look at, and as a file to repair."""

from typing import Final

from aiohttp import web

from leadline.adapters.http.pages.visit import Visit, in_path
from leadline_protocol import messages as wire
from leadline_protocol.errors import LEAD_REASONS, ErrorCode, Refused

ROWS_SHOWN: Final = 50


async def refused_file(visit: Visit) -> web.StreamResponse:
    """All rows that an upload has refused, as CSV."""
    return await visit.reach.give_refused_rows(visit.caller, visit.http, visit.job())


async def refused(visit: Visit) -> web.StreamResponse:
    """The same to look at: how many for which reason, then row by row."""
    after = visit.number("after")
    reply = await visit.ask(wire.Job(job=visit.job(), refused_after=after))
    if reply.view.kind != "upload":
        raise Refused(ErrorCode.NOT_FOUND, "only an upload refuses rows", at="job")
    rows = reply.refused[:ROWS_SHOWN]
    return visit.page(
        "refused_rows.html",
        job=reply.view,
        reasons=[(reason_words(each.reason), each.leads) for each in reply.errors],
        rows=[(row, reason_words(row.reason)) for row in rows],
        is_first=after == 0,
        next=rows[-1].row if len(reply.refused) > len(rows) or len(rows) == ROWS_SHOWN else None,
        table_path=f"/t/{in_path(reply.view.table or '')}",
    )


def reason_words(reason: str) -> str:
    """Why a row or a lead was not done, in words; what another version of the daemon has said, as it stands there."""
    return next((words for each, words in LEAD_REASONS.items() if each == reason), reason.replace("_", " "))
