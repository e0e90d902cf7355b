"""Refusals as RFC 9457 problems: the codes of the sockets, each with the status that it has over HTTP."""

import math
from collections.abc import Mapping
from typing import Final

from aiohttp import web
from msgspec import Struct
from msgspec.json import encode

from leadline_protocol.errors import ERROR_CODES, RETRYABLE, ErrorCode, Refused

CONTENT_TYPE: Final = "application/problem+json"

STATUS: Final[dict[ErrorCode, int]] = {
    ErrorCode.BAD_JSON: 400,
    ErrorCode.BAD_REQUEST: 400,
    ErrorCode.BAD_EXPRESSION: 422,
    ErrorCode.UNKNOWN_OP: 404,
    ErrorCode.UNKNOWN_KIND: 422,
    ErrorCode.UNKNOWN_MODULE: 422,
    ErrorCode.UNKNOWN_TABLE: 404,
    ErrorCode.UNKNOWN_COLUMN: 422,
    ErrorCode.UNKNOWN_TEAMSPACE: 404,
    ErrorCode.UNKNOWN_PROVIDER: 404,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.BAD_STATE: 409,
    ErrorCode.BAD_ARCHIVE: 422,
    ErrorCode.BAD_SCHEDULE: 422,
    ErrorCode.TOO_LARGE: 413,
    ErrorCode.CONFLICT: 409,
    ErrorCode.QUEUE_FULL: 429,
    ErrorCode.QUOTA: 429,
    ErrorCode.UNAUTHORIZED: 401,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.BUSY: 429,
    ErrorCode.UNAVAILABLE: 503,
    ErrorCode.INTERNAL: 500,
}


class Problem(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """What is wrong with a request."""

    type: str
    """`urn:leadline:error:` and the code."""
    title: str
    """What the code means in general."""
    status: int
    detail: str
    """What it means here."""
    code: ErrorCode
    at: str | None = None
    """A field, such as `steps[1].where`, and for an expression `field:character`, counted from 1."""
    retry_after: float | None = None
    """Seconds after which the same request may succeed; the header Retry-After says it in whole ones."""


def problem(refused: Refused, headers: Mapping[str, str], *, status: int | None = None) -> web.Response:
    """The response that says no; another `status` than the code's where HTTP has one that says it better."""
    code = refused.code
    found = STATUS[code] if status is None else status
    headers = dict(headers)
    if refused.retry_after is not None and code in RETRYABLE:
        headers["Retry-After"] = str(max(1, math.ceil(refused.retry_after)))
    if code is ErrorCode.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    body = Problem(
        type=f"urn:leadline:error:{code}",
        title=ERROR_CODES[code],
        status=found,
        detail=refused.message,
        code=code,
        at=refused.at,
        retry_after=refused.retry_after,
    )
    return web.Response(status=found, body=encode(body), content_type=CONTENT_TYPE, headers=headers)
