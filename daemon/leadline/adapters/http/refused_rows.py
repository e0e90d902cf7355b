"""The rows that an upload has refused, as a file to repair and upload again, in pieces: there may be a million."""

import asyncio
import csv
import io
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final
from urllib.parse import quote

from aiohttp import web

from leadline.adapters.http.files import SILENCE_SECONDS_MAX
from leadline.adapters.http.headers import API as HEADERS
from leadline.features.tables import repair
from leadline_protocol.messages import JobReply, RefusedRow

BYTE_ORDER_MARK: Final = "\ufeff"
"""By it spreadsheets know that a CSV file is UTF-8."""


async def send(
    http: web.BaseRequest, first: JobReply, following: Callable[[int], Awaitable[Sequence[RefusedRow]]], shown: str
) -> web.StreamResponse:
    """Answer with all rows under the name `shown`; `first` has the first of them, `following` those behind a row."""
    response = web.StreamResponse(headers=HEADERS)
    response.content_type = "text/csv"
    response.charset = "utf-8"
    response.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(shown, safe='')}"
    await response.prepare(http)
    await _write(response, BYTE_ORDER_MARK + _lines([repair.heading(first.headers)]))
    rows: Sequence[RefusedRow] = first.refused
    while rows:
        await _write(response, _lines(repair.line(row.row, row.line, row.reason, row.detail, row.raw) for row in rows))
        rows = await following(rows[-1].row)
    await response.write_eof()
    return response


async def _write(response: web.StreamResponse, text: str) -> None:
    async with asyncio.timeout(SILENCE_SECONDS_MAX):
        await response.write(text.encode())


def _lines(lines: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
