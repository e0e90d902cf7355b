"""One request of a program, from its address to its answer: who asks, for what, within which bounds.

    route ─▶ token ─▶ rate ─▶ scope ─▶ read ─▶ what the token reaches (`reach`) ─▶ write

Every request goes this way: a handler is reached only with a token that may reach it.
"""

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final, assert_never
from urllib.parse import parse_qsl, quote, urlencode

import aiohttp
import msgspec
import structlog
from aiohttp import web
from msgspec import Struct

from leadline.actors.dispatcher import unavailable
from leadline.actors.mishaps import Mishaps
from leadline.adapters.http import files, openapi
from leadline.adapters.http.confinement import nothing
from leadline.adapters.http.headers import API as HEADERS
from leadline.adapters.http.limits import Memory, Rates
from leadline.adapters.http.metrics import CONTENT_TYPE as METRICS_TYPE
from leadline.adapters.http.pages.site import Site
from leadline.adapters.http.problems import problem
from leadline.adapters.http.reach import ON_LINE, Caller, Desk, Reach, refusal
from leadline.adapters.http.reading import fields_of, line_of, read_operation, read_query, refused
from leadline.adapters.http.routes import ROUTES, AddressTable, Method, Route, Special
from leadline.ports.api_tokens import StoredToken
from leadline.ports.store import OutcomeUnknown
from leadline_protocol import messages as wire
from leadline_protocol.codec import LINE_BYTES_MAX, LineDecoder, LineFault, encode
from leadline_protocol.errors import ErrorCode, Refused

log = structlog.get_logger(__name__)

JSON: Final = "application/json"
JSON_LINES: Final = frozenset({"application/jsonl", "application/x-ndjson"})
"""A body of one submission a line."""

LINES_BYTES_MAX: Final = 8 * 1024 * 1024
"""Of such a body; how many requests are under way is bounded besides."""

BLOCK_LINES_MAX: Final = 512
"""Submissions that are handed in at a time."""

BODY_SECONDS_MAX: Final = 30.0
"""From the end of a request's head to the end of its body, but for a file's."""

QUERY_FIELDS_MAX: Final = 32

_OK: Final = b'{"ok":true,"line":1'
_JOB: Final = msgspec.json.Decoder(wire.Id, strict=False)
_VERSION: Final = {"version": fields_of(wire.BatchJobs)["version"]}
_LOOKED_AT: Final[dict[str, Any]] = {"teamspace": wire.Name, "job": wire.Id}
_Handler = Callable[["_Request"], Awaitable[web.StreamResponse]]


class _Request(Struct, frozen=True):
    """A request that has found its route, and whose token may go there."""

    http: web.BaseRequest
    route: Route
    in_path: tuple[str, ...]
    query: tuple[tuple[str, str], ...]
    token: StoredToken | None
    """None where nobody is asked for one."""

    @property
    def caller(self) -> Caller:
        """Who asks, on a route that asks for a token."""
        assert self.token is not None
        return Caller(self.token.hash, f"token {self.token.name}", self.token.role, self.token.teamspace)


class HttpFace:
    """Answers requests."""

    def __init__(self, reach: Reach, *, version: str) -> None:
        self._reach = reach
        self._site = Site(reach)
        self._version = version
        self._table = AddressTable(ROUTES)
        self._rates = Rates()
        self._memory = Memory()
        self.mishaps: Final = Mishaps()

    def open(self, desk: Desk) -> None:
        """From now on requests are carried out."""
        self._reach.open(desk)

    def close(self) -> None:
        """End the streams."""
        self._reach.close()
        self.mishaps.tell()

    def connection_lost(self, connection: object) -> None:
        """Somebody has hung up."""
        self._reach.connection_lost(connection)

    async def answer(self, http: web.BaseRequest) -> web.StreamResponse:
        """Answer one request. Raises ConnectionError where there is no true answer, or nobody to take it."""
        is_page = self._is_page(http.raw_path.partition("?")[0])
        try:
            return await (self._site.answer(http) if is_page else self._answer(http))
        except Exception as error:  # noqa: BLE001  a bug in an operation costs this request, not the daemon
            said = self._said_of(error)
        if said is None or http.writer.output_size:  # nothing can be said, or something has been said already
            if http.transport is not None:
                http.transport.abort()
            raise ConnectionResetError("the request has no answer")
        refused, status = said
        response = self._site.refusal(refused, status) if is_page else problem(refused, HEADERS, status=status)
        if status is not None:
            response.force_close()
        return response

    def _is_page(self, path: str) -> bool:
        """Whether an address is for people: all are that are not the API's or a machine's."""
        return not path.startswith("/v1/") and not self._table.find(path)[0]

    def _said_of(self, error: Exception) -> tuple[Refused, int | None] | None:
        """What is said, with a status of its own, when a request could not be carried out.

        None: nothing is said, and the connection is cut.
        """
        match error:
            case Refused():
                return error, None
            case OutcomeUnknown():  # silence is the one true answer; who comes again with its key will learn
                self.mishaps.count("unknown_outcomes")
                return None
            case TimeoutError():
                self.mishaps.count("slow_requests")
                return Refused(ErrorCode.BAD_REQUEST, "the request took too long to come in"), 408
            case ConnectionError() | aiohttp.ClientError() | web.RequestPayloadError():
                self.mishaps.count("broken_requests")
                return None
            case _:
                if self.mishaps.count("failed_requests"):
                    log.error("request_failed", error="".join(traceback.format_exception(error)))
                return Refused(ErrorCode.INTERNAL, "a fault of the daemon: its log says more"), None

    async def _answer(self, http: web.BaseRequest) -> web.StreamResponse:
        path, _, query = http.raw_path.partition("?")
        routes, values = self._table.find(path)
        if not routes:
            raise Refused(ErrorCode.NOT_FOUND, "there is nothing at this address")
        route = routes.get(http.method)
        if route is None:
            return _not_allowed(http.method, routes)
        token = None
        if route.scope is not None:
            token = await self._reach.desk.tokens.find(_bearer(http))
            self._rates.take(token.hash, self._reach.desk.numbers().requests_per_second)
            if route.scope not in token.scopes:
                raise Refused(ErrorCode.FORBIDDEN, f"the token {token.name} has no scope {route.scope}")
        if http.headers.get("Content-Encoding", "identity") != "identity":
            unread = Refused(ErrorCode.BAD_REQUEST, "a body comes as it is, not compressed", at="Content-Encoding")
            return problem(unread, HEADERS, status=415)
        try:
            fields = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=QUERY_FIELDS_MAX)
        except ValueError:
            raise Refused(ErrorCode.BAD_REQUEST, "the query cannot be read") from None
        request = _Request(http, route, tuple(values), tuple(fields), token)
        return await self._handler(route)(request)

    def _handler(self, route: Route) -> _Handler:
        match route.means:
            case Special.SUBMIT:
                return self._submit
            case Special.PUT_FILE:
                return self._put_file
            case Special.GET_FILE:
                return self._get_file
            case Special.JOB_FILE:
                return self._job_file
            case Special.BATCH_ARCHIVE:
                return self._batch_archive
            case Special.STREAM:
                return self._stream
            case Special.OPENAPI:
                return self._openapi
            case Special.METRICS:
                return self._metrics
            case Special.HEALTH:
                return self._health
            case Special.READY:
                return self._ready
            case Special():
                assert_never(route.means)
            case _:
                return self._operate

    # -- operations ---------------------------------------------------------------------------------------------------

    async def _operate(self, request: _Request) -> web.StreamResponse:
        route = request.route
        with self._memory.of(_size(request.http, LINE_BYTES_MAX)):
            body = await _body(request.http, LINE_BYTES_MAX)
            person = request.caller.person
            asked = read_operation(self._reach.decoder, route, request.in_path, request.query, body, person)
            reply = await self._reach.perform(request.caller, request.http, asked)
        if isinstance(reply, wire.Receipt):
            return _receipt(reply)
        following = getattr(reply, "next", None)
        headers = dict(HEADERS)
        if following is not None and route.cursor is not None:
            cursor = following if isinstance(following, str | int) else msgspec.json.encode(following).decode()
            fields = [(name, value) for name, value in request.query if name != route.cursor]
            path = request.http.raw_path.partition("?")[0]
            headers["Link"] = f'<{path}?{urlencode([*fields, (route.cursor, cursor)])}>; rel="next"'
        return web.Response(body=_encoded(reply), content_type=JSON, headers=headers)

    # -- submissions --------------------------------------------------------------------------------------------------

    async def _submit(self, request: _Request) -> web.StreamResponse:
        read_query(request.query, {})
        if request.http.content_type in JSON_LINES:
            return await self._submit_lines(request)
        with self._memory.of(_size(request.http, LINE_BYTES_MAX)):
            body = await _body(request.http, LINE_BYTES_MAX)
            key = request.http.headers.get("Idempotency-Key")
            line = line_of({} if key is None else {"idempotency_key": key}, body)
            taken = self._reach.read_submission(request.caller, line)
            if isinstance(taken, LineFault):
                raise refused(taken)
            (reply,) = await self._reach.hand_in(request.caller, request.http, [(ON_LINE, *taken)])
        if isinstance(reply, wire.Refusal):
            raise refusal(reply)
        if isinstance(reply, wire.Preview):
            return web.Response(body=_encoded(reply), content_type=JSON, headers=HEADERS)
        return _receipt(reply)

    async def _submit_lines(self, request: _Request) -> web.StreamResponse:
        """Submissions as on a socket, and for each line the line that a socket would answer."""
        if "Idempotency-Key" in request.http.headers:
            message = "of many submissions each has a key of its own, `idempotency_key`"
            raise Refused(ErrorCode.BAD_REQUEST, message, at="Idempotency-Key")
        with self._memory.of(_size(request.http, LINES_BYTES_MAX)):
            body = await _body(request.http, LINES_BYTES_MAX)
            decoder = LineDecoder()
            lines = [*decoder.feed(body), *decoder.end()]
            response = web.StreamResponse(headers={**HEADERS, "Content-Type": "application/jsonl"})
            await response.prepare(request.http)
            for start in range(0, len(lines), BLOCK_LINES_MAX):
                refusals: list[wire.Refusal | wire.Receipt | wire.Preview] = []
                run: list[tuple[int, wire.Submission, bytes]] = []
                for number, line in lines[start : start + BLOCK_LINES_MAX]:
                    taken = line if isinstance(line, LineFault) else self._reach.read_submission(request.caller, line)
                    if isinstance(taken, LineFault):
                        refusals.append(taken.refusal(number))
                    else:
                        run.append((number, *taken))
                replies = sorted(
                    [*await self._reach.hand_in(request.caller, request.http, run), *refusals],
                    key=lambda reply: reply.line,
                )
                async with asyncio.timeout(BODY_SECONDS_MAX):
                    await response.write(encode(replies))
            await response.write_eof()
        return response

    # -- files --------------------------------------------------------------------------------------------------------

    async def _put_file(self, request: _Request) -> web.StreamResponse:
        read_query(request.query, {})
        (name,) = request.in_path
        size = await self._reach.take_file(request.caller, name, files.Body(request.http))
        receipt = openapi.FileReceipt(name=name, size_bytes=size)
        return web.Response(status=201, body=msgspec.json.encode(receipt), content_type=JSON, headers=HEADERS)

    async def _get_file(self, request: _Request) -> web.StreamResponse:
        read_query(request.query, {})
        return await self._reach.give_file(request.caller, request.http, request.in_path[0])

    async def _job_file(self, request: _Request) -> web.StreamResponse:
        read_query(request.query, {})
        try:
            job = _JOB.decode(request.in_path[0])
        except msgspec.MsgspecError:
            raise Refused(ErrorCode.BAD_REQUEST, "a job is named by its number", at="job") from None
        return await self._reach.give_job_file(request.caller, request.http, job)

    async def _batch_archive(self, request: _Request) -> web.StreamResponse:
        teamspace, name = request.in_path
        said = read_query(request.query, _VERSION)
        person = request.caller.person
        fields = {"op": "batch", "action": "download", "teamspace": teamspace, "name": name, "as": person}
        asked = self._reach.decoder.decode(msgspec.json.encode({**fields, **said}))
        if isinstance(asked, LineFault):
            raise refused(asked)
        assert isinstance(asked, wire.BatchJobs)
        return await self._reach.give_batch_archive(request.caller, request.http, asked)

    # -- streams and numbers ------------------------------------------------------------------------------------------

    async def _stream(self, request: _Request) -> web.StreamResponse:
        said = read_query(request.query, _LOOKED_AT)
        try:
            wanted = msgspec.convert(said, _Wanted)
        except msgspec.ValidationError as error:
            raise Refused(ErrorCode.BAD_REQUEST, str(error)) from None
        assert request.token is not None
        may_go_on = partial(self._reach.desk.tokens.is_good, request.token)
        return await self._reach.stream(request.caller, request.http, wanted.teamspace, wanted.job, may_go_on)

    async def _openapi(self, request: _Request) -> web.StreamResponse:
        read_query(request.query, {})
        return web.Response(body=openapi.document(self._version), content_type=JSON, headers=HEADERS)

    async def _metrics(self, request: _Request) -> web.StreamResponse:
        read_query(request.query, {})
        assert request.token is not None
        if request.token.teamspace is not None:
            raise nothing()
        text = await self._reach.desk.metrics.text()
        return web.Response(body=text, headers={**HEADERS, "Content-Type": METRICS_TYPE})

    async def _health(self, request: _Request) -> web.StreamResponse:
        read_query(request.query, {})
        return web.Response(text="alive\n", headers=HEADERS)

    async def _ready(self, request: _Request) -> web.StreamResponse:
        read_query(request.query, {})
        if not self._reach.desk.is_ready():
            raise unavailable()
        return web.Response(text="ready\n", headers=HEADERS)


class _Wanted(Struct, frozen=True):
    """Which jobs a stream is about."""

    teamspace: wire.Name | None = None
    job: wire.Id | None = None


def _bearer(http: web.BaseRequest) -> str:
    """The secret that a request carries. Raises Refused."""
    values = http.headers.getall("Authorization", [])
    kind, _, secret = values[0].partition(" ") if len(values) == 1 else ("", "", "")
    if kind.lower() != "bearer" or not secret:
        raise Refused(ErrorCode.UNAUTHORIZED, "send a token: Authorization: Bearer ldl_…")
    return secret.strip()


def _size(http: web.BaseRequest, limit: int) -> int:
    """What a body takes of the memory, as far as is known before it is read."""
    if http.content_length is not None:
        return min(http.content_length, limit)
    return limit if http.can_read_body else 0


async def _body(http: web.BaseRequest, limit: int) -> bytes:
    """A request's body. Raises Refused with too_large, and TimeoutError."""
    if not http.can_read_body:
        return b""
    too_large = Refused(ErrorCode.TOO_LARGE, f"the body may have at most {limit} bytes")
    if (http.content_length or 0) > limit:
        raise too_large
    body = bytearray()
    async with asyncio.timeout(BODY_SECONDS_MAX):
        await files.expect(http)
        while piece := await http.content.readany():
            body += piece
            if len(body) > limit:
                raise too_large
    return bytes(body)


def _encoded(reply: wire.Reply) -> bytes:
    """A reply without what pairs it with a line."""
    text = msgspec.json.encode(reply)
    assert text.startswith(_OK), text[:40]
    return b"{" + text[len(_OK) :].removeprefix(b",")


def _receipt(receipt: wire.Receipt) -> web.Response:
    status = 200 if receipt.duplicate else 201
    headers = {**HEADERS, "Location": f"/v1/jobs/{receipt.job}"}
    return web.Response(status=status, body=_encoded(receipt), content_type=JSON, headers=headers)


def _not_allowed(method: str, routes: Mapping[Method, Route]) -> web.Response:
    no = Refused(ErrorCode.UNKNOWN_OP, f"{quote(method)} is not how to use this address")
    return problem(no, {**HEADERS, "Allow": ", ".join(sorted(routes))}, status=405)
