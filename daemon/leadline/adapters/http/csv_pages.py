"""Rows that are read page by page, as one CSV file that is sent as they come: there may be a million."""

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final
from urllib.parse import quote

from aiohttp import web

from leadline.adapters.http.files import SILENCE_SECONDS_MAX
from leadline.adapters.http.headers import API as HEADERS

BYTE_ORDER_MARK: Final = "\ufeff"
"""By it spreadsheets know that a CSV file is UTF-8."""


async def send(
    http: web.BaseRequest, shown: str, heading: Sequence[str], pages: AsyncIterator[Iterable[Sequence[str]]]
) -> web.StreamResponse:
    """Answer with the heading and the lines of all pages, under the name `shown`."""
    response = web.StreamResponse(headers=HEADERS)
    response.content_type = "text/csv"
    response.charset = "utf-8"
    response.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(shown, safe='')}"
    await response.prepare(http)
    await _write(response, BYTE_ORDER_MARK + _text([heading]))
    async for lines in pages:
        await _write(response, _text(lines))
    await response.write_eof()
    return response


async def _write(response: web.StreamResponse, text: str) -> None:
    async with asyncio.timeout(SILENCE_SECONDS_MAX):
        await response.write(text.encode())


def _text(lines: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
