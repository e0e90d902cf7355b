"""What somebody who has been let in reaches, by whichever door: a program with a token, a person with a session.

The API and the pages end here. Nothing is done for either of them by another way: an operation is confined to the
caller's teamspace, then carried out as it is for the sockets (`actors.operations`). A caller takes the place of the
peer: its name and role are what the audit trail tells and what roles are judged by; its user, where it came in by the
Unix socket, is the kernel's word, else the daemon's own.
"""

import os
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web
from msgspec import Struct

from leadline.actors.api_tokens import ApiTokens
from leadline.actors.dispatcher import unavailable
from leadline.actors.feed import Feed
from leadline.actors.operations import Operations
from leadline.actors.peers import Peer
from leadline.actors.sessions import Sessions
from leadline.adapters.http import csv_pages, files
from leadline.adapters.http.confinement import Confinement, Namespace, plain
from leadline.adapters.http.limits import (
    FILES_PER_TOKEN_MAX,
    STREAMS_MAX,
    STREAMS_PER_TOKEN_MAX,
    WAITS_PER_TOKEN_MAX,
    Room,
)
from leadline.adapters.http.metrics import Metrics
from leadline.adapters.http.reading import line_of
from leadline.adapters.http.stream import Streams
from leadline.features.tables import not_done, repair
from leadline_protocol import messages as wire
from leadline_protocol.codec import LineFault, RequestDecoder
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.ids import JobId

ON_LINE: Final = 1
"""A request over HTTP is the only one on its connection, as far as the operations see."""

_UCRED: Final = struct.Struct("3i")

R = TypeVar("R", bound=wire.Reply)


class Numbers(Struct, frozen=True):
    """What the configuration says."""

    requests_per_second: float
    upload_bytes_max: int


class Desk(Struct, frozen=True):
    """Who does what is asked for, once the daemon has been put together."""

    operations: Operations
    tokens: ApiTokens
    sessions: Sessions
    feed: Feed
    metrics: Metrics
    is_ready: Callable[[], bool]
    numbers: Callable[[], Numbers]
    """As the configuration says now."""
    key: bytes
    """The daemon's own secret."""
    public_url: Callable[[], str | None]
    """What the addresses of pages begin with, where the configuration says so."""


class Caller(Struct, frozen=True):
    """Who asks, and how far it reaches."""

    key: bytes
    """What it is counted by: the hash of its secret."""
    name: str
    """On whose behalf, as the audit trail tells it."""
    role: wire.Role
    teamspace: str | None
    """The only one that it reaches; None: it reaches everything."""

    @property
    def person(self) -> wire.Person:
        """The caller as operations know it."""
        return wire.Person(person=self.name, role=self.role)


class Reach:
    """What callers reach."""

    def __init__(self, decoder: RequestDecoder, *, incoming: Path, exports: Path) -> None:
        """`incoming` and `exports` are folders that all share."""
        self.decoder: Final = decoder
        self._incoming = incoming
        self._exports = exports
        self._opened: Desk | None = None
        self._streams: Streams | None = None
        self._stream_room = Room("streams", STREAMS_MAX, STREAMS_PER_TOKEN_MAX)
        self._wait_room = Room("questions that wait", STREAMS_MAX, WAITS_PER_TOKEN_MAX)
        self._file_room = Room("files on their way", STREAMS_MAX, FILES_PER_TOKEN_MAX)

    def open(self, desk: Desk) -> None:
        """From now on requests are carried out."""
        self._opened = desk
        self._streams = Streams(desk.feed)

    def close(self) -> None:
        """End the streams."""
        if self._streams is not None:
            self._streams.close()

    def connection_lost(self, connection: object) -> None:
        """Somebody has hung up."""
        if self._streams is not None:
            self._streams.connection_lost(connection)

    @property
    def desk(self) -> Desk:
        """Raises Refused with unavailable while the daemon starts."""
        if self._opened is None:
            raise unavailable()
        return self._opened

    # -- operations ---------------------------------------------------------------------------------------------------

    async def perform(self, caller: Caller, http: web.BaseRequest, asked: wire.Operation[R]) -> R:
        """Carry an operation out within the bounds of the caller. Raises Refused."""
        confinement = self._confinement(caller)
        confined: wire.Operation[Any] = asked
        if confinement is not None:
            confined = await confinement.operation(asked, self._submission_of)
        waits = isinstance(asked, wire.BatchJobs) and asked.wait_seconds > 0
        with self._wait_room.one(caller.key) if waits else nullcontext():
            reply: Any = await self.desk.operations.perform(confined, peer(http), ON_LINE)
        if isinstance(reply, wire.Refusal):
            raise refusal(reply)
        return reply  # type: ignore[no-any-return]  # each operation names its reply

    def _confinement(self, caller: Caller) -> Confinement | None:
        """The bounds of a caller; None: it reaches everything."""
        if caller.teamspace is None:
            return None
        jobs = self.desk.operations.jobs

        async def teamspace_of(job: JobId) -> str | None:
            stored = await jobs.stored(job)
            return None if stored is None else stored.teamspace

        return Confinement(caller.teamspace, self._namespace(caller.teamspace), teamspace_of)

    def _namespace(self, teamspace: str) -> Namespace:
        return Namespace(self.desk.key, teamspace)

    # -- submissions --------------------------------------------------------------------------------------------------

    def read_submission(self, caller: Caller, line: bytes) -> tuple[wire.Submission, bytes] | LineFault:
        """A submission within the bounds of the caller, with the line that stands for it."""
        found = self.decoder.decode(line)
        teamspace = caller.teamspace
        if isinstance(found, LineFault) and found.at == "teamspace" and teamspace is not None:
            named = line_of({"teamspace": teamspace}, line)
            again = self.decoder.decode(named)
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
            confinement = self._confinement(caller)
            if confinement is None:
                return found, line
            confined = confinement.submission(found)
        except Refused as no:
            return LineFault(no.code, no.message, no.at, found.ref, no.retry_after)
        return confined, line if confined is found else msgspec.json.encode(confined)

    async def hand_in(
        self, caller: Caller, http: web.BaseRequest, run: list[tuple[int, wire.Submission, bytes]]
    ) -> list[wire.Receipt | wire.Preview | wire.Refusal]:
        """Submit what `read_submission` has read, each with its line. Raises Refused where nothing is taken at all."""
        if not run:
            return []
        answered = await self.desk.operations.submit(run, peer(http), caller.name)
        return await answered()

    def _submission_of(self, fields: Mapping[str, Any]) -> wire.Submission:
        """What a schedule submits. Raises Refused."""
        found = self.decoder.decode(msgspec.json.encode(fields))
        if isinstance(found, LineFault):
            at = "submission" if found.at is None else f"submission.{found.at}"
            raise Refused(found.code, found.message, at=at)
        if not isinstance(found, wire.Submission):
            raise Refused(ErrorCode.BAD_REQUEST, "a schedule submits", at="submission.op")
        return found

    # -- files --------------------------------------------------------------------------------------------------------

    async def take_file(self, caller: Caller, name: str, source: files.Source) -> int:
        """Store a file under a name of the caller's; its size. Raises Refused, TimeoutError and ConnectionError."""
        file = self._named(caller, name)
        with self._file_room.one(caller.key):
            return await files.receive(source, self._incoming, file, self.desk.numbers().upload_bytes_max)

    async def drop_file(self, caller: Caller, name: str) -> None:
        """Remove a file of the caller's that nobody is going to read."""
        await files.remove(self._incoming, self._named(caller, name))

    async def give_file(self, caller: Caller, http: web.BaseRequest, name: str) -> web.StreamResponse:
        """Answer with a file of the caller's. Raises Refused."""
        return await self._send(caller, http, self._named(caller, name), name)

    async def give_job_file(self, caller: Caller, http: web.BaseRequest, job: JobId) -> web.StreamResponse:
        """Answer with the file that an export has written. Raises Refused."""
        reply = await self.perform(caller, http, wire.Job(job=job, as_=caller.person))
        view, submission = reply.view, reply.submission or {}
        if view.kind != "export" or view.state not in wire.ENDED_STATES or not view.message:
            raise Refused(ErrorCode.BAD_STATE, f"job {job} has written no file: it is {view.state}", at="job")
        file, named = view.message, submission.get("path")
        if caller.teamspace is not None and named is not None and not self._namespace(caller.teamspace).has(named):
            # A name that others gave may by now be that of another's file.
            raise files.there_is_none(file)
        return await self._send(caller, http, file, f"{view.table}-{job}{Path(file).suffix}")

    async def give_refused_rows(self, caller: Caller, http: web.BaseRequest, job: JobId) -> web.StreamResponse:
        """Answer with the rows that an upload has refused, as CSV. Raises Refused."""

        async def behind(row: int) -> wire.JobReply:
            return await self.perform(caller, http, wire.Job(job=job, refused_after=row, as_=caller.person))

        async def pages(rows: Sequence[wire.RefusedRow]) -> AsyncIterator[Iterable[Sequence[str]]]:
            while rows:
                yield [repair.line(row.row, row.line, row.reason, row.detail, row.raw) for row in rows]
                rows = (await behind(rows[-1].row)).refused

        first = await behind(0)
        if first.view.kind != "upload":
            raise Refused(ErrorCode.NOT_FOUND, "only an upload refuses rows", at="job")
        shown = f"{first.view.table}-{job}-refused.csv"
        with self._file_room.one(caller.key):
            return await csv_pages.send(http, shown, repair.heading(first.headers), pages(first.refused))

    async def give_leads_not_done(self, caller: Caller, http: web.BaseRequest, job: JobId) -> web.StreamResponse:
        """Answer with the leads that a job has not done, as CSV. Raises Refused."""

        async def behind(lead: int) -> wire.JobReply:
            return await self.perform(caller, http, wire.Job(job=job, leads_after=lead, as_=caller.person))

        async def pages(leads: Sequence[wire.LeadNotDone]) -> AsyncIterator[Iterable[Sequence[str]]]:
            while leads:
                yield [
                    not_done.line(each.lead, each.state, each.reason, each.detail, each.cells, first.columns)
                    for each in leads
                ]
                leads = (await behind(leads[-1].lead)).leads

        first = await behind(0)
        not_done.require_leads(first.view.kind)
        shown = f"{first.view.table}-{job}-not-done.csv"
        with self._file_room.one(caller.key):
            return await csv_pages.send(http, shown, not_done.heading(first.columns), pages(first.leads))

    async def give_batch_archive(
        self, caller: Caller, http: web.BaseRequest, asked: wire.BatchJobs
    ) -> web.StreamResponse:
        """Answer with the code of a batch job, for a `download`. Raises Refused."""
        reply = await self.perform(caller, http, asked)
        assert reply.path is not None
        file = Path(reply.path).name
        return await self._send(caller, http, file, file)

    async def _send(self, caller: Caller, http: web.BaseRequest, file: str, shown: str) -> web.StreamResponse:
        with self._file_room.one(caller.key):
            return await files.send(http, self._exports, file, shown)

    def _named(self, caller: Caller, name: str) -> str:
        """The name that a file has among all. Raises Refused."""
        return plain(name, "file") if caller.teamspace is None else self._namespace(caller.teamspace).inside(name)

    # -- streams ------------------------------------------------------------------------------------------------------

    async def stream(
        self,
        caller: Caller,
        http: web.BaseRequest,
        teamspace: str | None,
        job: JobId | None,
        may_go_on: Callable[[], bool],
        seen: str | None = None,
    ) -> web.StreamResponse:
        """Tell what happens to jobs until one of both sides ends, behind the event `seen` where one is given.

        Raises Refused before anything was written.
        """
        if self._streams is None:
            raise unavailable()
        confinement = self._confinement(caller)
        if confinement is not None:
            teamspace = confinement.teamspace if teamspace is None else teamspace
            confinement.check_teamspace(teamspace)
            if job is not None:
                await confinement.check_job(job)
        with self._stream_room.one(caller.key):
            return await self._streams.serve(http, teamspace, job, may_go_on, seen)


def peer(http: web.BaseRequest) -> Peer:
    """The user of the operating system that a request comes from."""
    sock = http.get_extra_info("socket")
    if sock is not None and sock.family == socket.AF_UNIX:
        pid, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        return Peer(uid, pid, operator=True)
    return Peer(os.getuid(), os.getpid(), operator=True)


def refusal(reply: wire.Refusal) -> Refused:
    """A refusal as it is raised."""
    error = reply.error
    return Refused(error.code, error.message, at=error.at, retry_after=error.retry_after)
