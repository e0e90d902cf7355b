"""What a form says: its fields, and one file at its end.

A file is not held in memory: the fields before it are read, and whoever handles the form takes the file by pieces. So
whatever is to be known of a form stands before its file, the token that shows that the form is ours above all.
"""

import asyncio
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

from aiohttp import BodyPartReader, web
from msgspec import Struct

from leadline.adapters.http.files import PIECE_BYTES
from leadline_protocol.errors import ErrorCode, Refused

FORM_BYTES_MAX: Final = 1024 * 1024
"""Of all fields together, with their names: a prompt or a list of addresses fits, a file does not."""

FIELDS_MAX: Final = 1_000
FORM_SECONDS_MAX: Final = 30.0
"""From the end of a request's head to the end of its fields."""


class FormFile:
    """A file of a form, as a source of pieces."""

    announced_bytes: Final = 0
    """A form does not say how long its files are."""

    def __init__(self, part: BodyPartReader) -> None:
        self._part = part
        self.name: Final = part.filename or ""
        """As its owner calls it, without a folder."""

    async def next(self) -> bytes:
        """The next piece; empty: there is no more."""
        return bytes(await self._part.read_chunk(PIECE_BYTES))


class Form(Struct, frozen=True):
    """What was filled in."""

    fields: Mapping[str, str]
    """Where one stands there several times, the last of them."""
    file: FormFile | None = None
    """Still to be read."""


async def read(http: web.BaseRequest) -> Form:
    """The form that a request carries. Raises Refused, TimeoutError, and what aiohttp raises of a broken body."""
    async with asyncio.timeout(FORM_SECONDS_MAX):
        match http.content_type:
            case "application/x-www-form-urlencoded":
                return Form(await _encoded(http))
            case "multipart/form-data":
                return await _in_parts(http)
            case _:
                raise Refused(ErrorCode.BAD_REQUEST, "a form is sent here")


async def _encoded(http: web.BaseRequest) -> Mapping[str, str]:
    body = bytearray()
    while piece := await http.content.readany():
        body += piece
        if len(body) > FORM_BYTES_MAX:
            raise _too_large()
    try:
        pairs = parse_qsl(
            body.decode(), keep_blank_values=True, encoding="utf-8", errors="strict", max_num_fields=FIELDS_MAX
        )
    except ValueError:
        raise _unreadable() from None
    return dict(pairs)


async def _in_parts(http: web.BaseRequest) -> Form:
    fields: dict[str, str] = {}
    size = 0
    try:
        reader = await http.multipart()
        while (part := await reader.next()) is not None:
            if not isinstance(part, BodyPartReader) or part.name is None or len(fields) >= FIELDS_MAX:
                raise _unreadable()
            if part.filename is not None:
                return Form(fields, FormFile(part))
            value = bytearray()
            size += len(part.name)
            while size <= FORM_BYTES_MAX and (piece := await part.read_chunk()):
                value += piece
                size += len(piece)
            if size > FORM_BYTES_MAX:
                raise _too_large()
            fields[part.name] = value.decode()
    except ValueError:
        raise _unreadable() from None
    return Form(fields)


def _too_large() -> Refused:
    return Refused(ErrorCode.TOO_LARGE, f"a form may have at most {FORM_BYTES_MAX} bytes")


def _unreadable() -> Refused:
    return Refused(ErrorCode.BAD_REQUEST, "the form cannot be read")
