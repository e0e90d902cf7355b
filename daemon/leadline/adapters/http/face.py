"""One request over HTTP, from its address to its answer: who asks, for what, within which bounds.

    route ─▶ token ─▶ rate ─▶ scope ─▶ read ─▶ confine ─▶ the same operation as on the sockets ─▶ write

Every request goes this way, and nothing is done for it by another: a handler is reached only with a token that may
reach it, and with an operation that is confined to the token's teamspace. What is done then, `actors.operations` does
as it does for the sockets. A token takes the place of the peer: its name and role are what the audit trail tells and
what roles are judged by; its user, where it came in by the Unix socket, is the kernel's word, else the daemon's own.
"""

import asyncio
import os
import socket
import struct
import traceback
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, assert_never
from urllib.parse import parse_qsl, quote, urlencode

import aiohttp
import msgspec
import structlog
from aiohttp import web
from msgspec import Struct

from leadline.actors.api_tokens import ApiTokens
from leadline.actors.dispatcher import unavailable
from leadline.actors.feed import Feed
from leadline.actors.mishaps import Mishaps
from leadline.actors.operations import Operations
from leadline.actors.peers import Peer
from leadline.adapters.http import files, openapi
from leadline.adapters.http.confinement import Confinement, Namespace, nothing, plain
from leadline.adapters.http.limits import FILES_PER_TOKEN_MAX, STREAMS_MAX, STREAMS_PER_TOKEN_MAX, Memory, Rates, Room
from leadline.adapters.http.metrics import CONTENT_TYPE as METRICS_TYPE
from leadline.adapters.http.metrics import Metrics
from leadline.adapters.http.problems import problem
from leadline.adapters.http.reading import fields_of, line_of, read_operation, read_query, refused
from leadline.adapters.http.routes import Method, Route, RouteTable, Special
from leadline.adapters.http.stream import Streams
from leadline.ports.api_tokens import StoredToken
from leadline.ports.store import OutcomeUnknown
from leadline_protocol import messages as wire
from leadline_protocol.codec import LINE_BYTES_MAX, LineDecoder, LineFault, RequestDecoder, encode
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.ids import JobId

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

HEADERS: Final = {
    "Server": "leadline",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""On every response."""

_UCRED: Final = struct.Struct("3i")
_OK: Final = b'{"ok":true,"line":1'
_ON_LINE: Final = 1
_JOB: Final = msgspec.json.Decoder(wire.Id, strict=False)
_VERSION: Final = {"version": fields_of(wire.BatchJobs)["version"]}
_LOOKED_AT: Final[dict[str, Any]] = {"teamspace": wire.Name, "job": wire.Id}
_Handler = Callable[["_Request"], Awaitable[web.StreamResponse]]


class Numbers(Struct, frozen=True):
    """What the configuration says."""

    requests_per_second: float
    upload_bytes_max: int


class Desk(Struct, frozen=True):
    """Who does what is asked for, once the daemon has been put together."""

    operations: Operations
    tokens: ApiTokens
    feed: Feed
    metrics: Metrics
    is_ready: Callable[[], bool]
    numbers: Callable[[], Numbers]
    """As the configuration says now."""
    key: bytes
    """The daemon's own secret."""


class _Request(Struct, frozen=True):
    """A request that has found its route, and whose token may go there."""

    http: web.BaseRequest
    route: Route
    in_path: tuple[str, ...]
    query: tuple[tuple[str, str], ...]
    token: StoredToken | None
    """None where nobody is asked for one."""


class HttpFace:
    """Answers requests."""

    def __init__(self, decoder: RequestDecoder, *, version: str, incoming: Path, exports: Path) -> None:
        """`incoming` and `exports` are folders that all share."""
        self._decoder = decoder
        self._version = version
        self._incoming = incoming
        self._exports = exports
        self._opened: Desk | None = None
        self._streams: Streams | None = None
        self._table = RouteTable()
        self._rates = Rates()
        self._memory = Memory()
        self._stream_room = Room("streams", STREAMS_MAX, STREAMS_PER_TOKEN_MAX)
        self._file_room = Room("files on their way", STREAMS_MAX, FILES_PER_TOKEN_MAX)
        self.mishaps: Final = Mishaps()

    def open(self, desk: Desk) -> None:
        """From now on requests are carried out."""
        self._opened = desk
        self._streams = Streams(desk.feed)

    def close(self) -> None:
        """End the streams."""
        if self._streams is not None:
            self._streams.close()
        self.mishaps.tell()

    def connection_lost(self, connection: object) -> None:
        """Somebody has hung up."""
        if self._streams is not None:
            self._streams.connection_lost(connection)

    async def answer(self, http: web.BaseRequest) -> web.StreamResponse:
        """Answer one request. Raises ConnectionError where there is no true answer, or nobody to take it."""
        try:
            return await self._answer(http)
        except Exception as error:  # noqa: BLE001  a bug in an operation costs this request, not the daemon
            response = self._answer_to(error)
        if response is None or http.writer.output_size:  # nothing can be said, or something has been said already
            if http.transport is not None:
                http.transport.abort()
            raise ConnectionResetError("the request has no answer")
        return response

    def _answer_to(self, error: Exception) -> web.Response | None:
        """What is said when a request could not be carried out; None: nothing, and the connection is cut."""
        match error:
            case Refused():
                return problem(error, HEADERS)
            case OutcomeUnknown():  # silence is the one true answer; who comes again with its key will learn
                self.mishaps.count("unknown_outcomes")
                return None
            case TimeoutError():
                self.mishaps.count("slow_requests")
                late = Refused(ErrorCode.BAD_REQUEST, "the request took too long to come in")
                response = problem(late, HEADERS, status=408)
                response.force_close()
                return response
            case ConnectionError() | aiohttp.ClientError() | web.RequestPayloadError():
                self.mishaps.count("broken_requests")
                return None
            case _:
                if self.mishaps.count("failed_requests"):
                    log.error("request_failed", error="".join(traceback.format_exception(error)))
                return problem(Refused(ErrorCode.INTERNAL, "a fault of the daemon: its log says more"), HEADERS)

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
            token = await self._desk.tokens.find(_bearer(http))
            self._rates.take(token.hash, self._desk.numbers().requests_per_second)
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

    # -- what every request of a token passes -------------------------------------------------------------------------

    @property
    def _desk(self) -> Desk:
        """Raises Refused with unavailable while the daemon starts."""
        if self._opened is None:
            raise unavailable()
        return self._opened

    def _namespace(self, teamspace: str) -> Namespace:
        return Namespace(self._desk.key, teamspace)

    def _confinement(self, token: StoredToken) -> Confinement | None:
        """The bounds of a token; None: it reaches everything."""
        if token.teamspace is None:
            return None
        jobs = self._desk.operations.jobs

        async def teamspace_of(job: JobId) -> str | None:
            stored = await jobs.stored(job)
            return None if stored is None else stored.teamspace

        return Confinement(token.teamspace, self._namespace(token.teamspace), teamspace_of)

    async def _perform(self, request: _Request, asked: wire.Operation[wire.Reply]) -> wire.Reply:
        """Carry an operation out within the bounds of the token. Raises Refused."""
        assert request.token is not None
        confinement = self._confinement(request.token)
        if confinement is not None:
            asked = await confinement.operation(asked, self._submission_of)
        reply = await self._desk.operations.perform(asked, _peer(request.http), _ON_LINE)
        if isinstance(reply, wire.Refusal):
            raise _refused(reply)
        return reply

    # -- operations ---------------------------------------------------------------------------------------------------

    async def _operate(self, request: _Request) -> web.StreamResponse:
        route = request.route
        with self._memory.of(_size(request.http, LINE_BYTES_MAX)):
            body = await _body(request.http, LINE_BYTES_MAX)
            asked = read_operation(self._decoder, route, request.in_path, request.query, body, _person(request))
            reply = await self._perform(request, asked)
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
            taken = self._read_submission(line, request)
            if isinstance(taken, LineFault):
                raise refused(taken)
            (reply,) = await self._hand_in([(_ON_LINE, *taken)], request)
        if isinstance(reply, wire.Refusal):
            raise _refused(reply)
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
                    taken = line if isinstance(line, LineFault) else self._read_submission(line, request)
                    if isinstance(taken, LineFault):
                        refusals.append(taken.refusal(number))
                    else:
                        run.append((number, *taken))
                replies = sorted([*await self._hand_in(run, request), *refusals], key=lambda reply: reply.line)
                async with asyncio.timeout(BODY_SECONDS_MAX):
                    await response.write(encode(replies))
            await response.write_eof()
        return response

    def _read_submission(self, line: bytes, request: _Request) -> tuple[wire.Submission, bytes] | LineFault:
        """A submission within the bounds of the token, with the line that stands for it."""
        assert request.token is not None
        found = self._decoder.decode(line)
        teamspace = request.token.teamspace
        if isinstance(found, LineFault) and found.at == "teamspace" and teamspace is not None:
            named = line_of({"teamspace": teamspace}, line)
            again = self._decoder.decode(named)
            if not isinstance(again, LineFault) or again.code is not ErrorCode.BAD_JSON:  # it was not named at all
                found, line = again, named
        if isinstance(found, LineFault):
            return found
        if not isinstance(found, wire.Submission):
            return LineFault(ErrorCode.UNKNOWN_OP, "submissions alone are sent here", "op")
        if found.notify:
            message = "over HTTP nobody waits on a connection: see /v1/stream, or name whom to tell in `notices`"
            return LineFault(ErrorCode.BAD_REQUEST, message, "notify", found.ref)
        try:
            confinement = self._confinement(request.token)
            if confinement is None:
                return found, line
            confined = confinement.submission(found)
        except Refused as no:
            return LineFault(no.code, no.message, no.at, found.ref, no.retry_after)
        return confined, line if confined is found else msgspec.json.encode(confined)

    async def _hand_in(
        self, run: list[tuple[int, wire.Submission, bytes]], request: _Request
    ) -> list[wire.Receipt | wire.Preview | wire.Refusal]:
        """Raises Refused where nothing is taken at all."""
        if not run:
            return []
        assert request.token is not None
        answered = await self._desk.operations.submit(run, _peer(request.http), request.token.name)
        return await answered()

    def _submission_of(self, fields: Mapping[str, Any]) -> wire.Submission:
        """What a schedule submits. Raises Refused."""
        found = self._decoder.decode(msgspec.json.encode(fields))
        if isinstance(found, LineFault):
            at = "submission" if found.at is None else f"submission.{found.at}"
            raise Refused(found.code, found.message, at=at)
        if not isinstance(found, wire.Submission):
            raise Refused(ErrorCode.BAD_REQUEST, "a schedule submits", at="submission.op")
        return found

    # -- files --------------------------------------------------------------------------------------------------------

    async def _put_file(self, request: _Request) -> web.StreamResponse:
        read_query(request.query, {})
        name, file = self._named_file(request)
        assert request.token is not None
        with self._file_room.one(request.token.hash):
            size = await files.receive(request.http, self._incoming, file, self._desk.numbers().upload_bytes_max)
        receipt = openapi.FileReceipt(name=name, size_bytes=size)
        return web.Response(status=201, body=msgspec.json.encode(receipt), content_type=JSON, headers=HEADERS)

    async def _get_file(self, request: _Request) -> web.StreamResponse:
        read_query(request.query, {})
        name, file = self._named_file(request)
        return await self._send(request, file, name)

    async def _job_file(self, request: _Request) -> web.StreamResponse:
        read_query(request.query, {})
        try:
            job = _JOB.decode(request.in_path[0])
        except msgspec.MsgspecError:
            raise Refused(ErrorCode.BAD_REQUEST, "a job is named by its number", at="job") from None
        reply = await self._perform(request, wire.Job(job=job, as_=_person(request)))
        assert isinstance(reply, wire.JobReply)
        view, submission = reply.view, reply.submission or {}
        if view.kind != "export" or view.state not in wire.ENDED_STATES or not view.message:
            raise Refused(ErrorCode.BAD_STATE, f"job {job} has written no file: it is {view.state}", at="job")
        file, named = view.message, submission.get("path")
        assert request.token is not None
        teamspace = request.token.teamspace
        if teamspace is not None and named is not None and not self._namespace(teamspace).has(named):
            # A name that others gave may by now be that of another's file.
            raise files.there_is_none(file)
        return await self._send(request, file, f"{view.table}-{job}{Path(file).suffix}")

    async def _batch_archive(self, request: _Request) -> web.StreamResponse:
        teamspace, name = request.in_path
        said = read_query(request.query, _VERSION)
        fields = {"op": "batch", "action": "download", "teamspace": teamspace, "name": name, "as": _person(request)}
        asked = self._decoder.decode(msgspec.json.encode({**fields, **said}))
        if isinstance(asked, LineFault):
            raise refused(asked)
        assert isinstance(asked, wire.BatchJobs)
        reply = await self._perform(request, asked)
        assert isinstance(reply, wire.BatchReply)
        assert reply.path is not None
        file = Path(reply.path).name
        return await self._send(request, file, file)

    async def _send(self, request: _Request, file: str, shown: str) -> web.StreamResponse:
        assert request.token is not None
        with self._file_room.one(request.token.hash):
            return await files.send(request.http, self._exports, file, shown, HEADERS)

    def _named_file(self, request: _Request) -> tuple[str, str]:
        """The name of a file as it is said, and as it is. Raises Refused."""
        assert request.token is not None
        name = plain(request.in_path[0], "file")
        if request.token.teamspace is None:
            return name, name
        return name, self._namespace(request.token.teamspace).inside(name)

    # -- streams and numbers ------------------------------------------------------------------------------------------

    async def _stream(self, request: _Request) -> web.StreamResponse:
        said = read_query(request.query, _LOOKED_AT)
        try:
            wanted = msgspec.convert(said, _Wanted)
        except msgspec.ValidationError as error:
            raise Refused(ErrorCode.BAD_REQUEST, str(error)) from None
        token = request.token
        assert token is not None
        if self._streams is None:
            raise unavailable()
        teamspace = wanted.teamspace
        confinement = self._confinement(token)
        if confinement is not None:
            teamspace = confinement.teamspace if teamspace is None else teamspace
            confinement.check_teamspace(teamspace)
            if wanted.job is not None:
                await confinement.check_job(wanted.job)
        with self._stream_room.one(token.hash):
            may_go_on = partial(self._desk.tokens.is_good, token)
            return await self._streams.serve(request.http, teamspace, wanted.job, HEADERS, may_go_on)

    async def _openapi(self, request: _Request) -> web.StreamResponse:
        read_query(request.query, {})
        return web.Response(body=openapi.document(self._version), content_type=JSON, headers=HEADERS)

    async def _metrics(self, request: _Request) -> web.StreamResponse:
        read_query(request.query, {})
        assert request.token is not None
        if request.token.teamspace is not None:
            raise nothing()
        text = await self._desk.metrics.text()
        return web.Response(body=text, headers={**HEADERS, "Content-Type": METRICS_TYPE})

    async def _health(self, request: _Request) -> web.StreamResponse:
        read_query(request.query, {})
        return web.Response(text="alive\n", headers=HEADERS)

    async def _ready(self, request: _Request) -> web.StreamResponse:
        read_query(request.query, {})
        if not self._desk.is_ready():
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


def _person(request: _Request) -> wire.Person:
    """On whose behalf a token acts, as roles are judged and the audit trail tells."""
    assert request.token is not None
    return wire.Person(person=f"token {request.token.name}", role=request.token.role)


def _peer(http: web.BaseRequest) -> Peer:
    sock = http.get_extra_info("socket")
    if sock is not None and sock.family == socket.AF_UNIX:
        pid, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        return Peer(uid, pid, operator=True)
    return Peer(os.getuid(), os.getpid(), operator=True)


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


def _refused(reply: wire.Refusal) -> Refused:
    error = reply.error
    return Refused(error.code, error.message, at=error.at, retry_after=error.retry_after)


def _not_allowed(method: str, routes: Mapping[Method, Route]) -> web.Response:
    no = Refused(ErrorCode.UNKNOWN_OP, f"{quote(method)} is not how to use this address")
    return problem(no, {**HEADERS, "Allow": ", ".join(sorted(routes))}, status=405)
