"""`submit`: lines in, receipts out, as they come.

The lines go to the daemon as they are and its answers to standard output as they are, so that `leadline submit -` is
the socket itself with a name that is easier to remember: nothing is judged here, and a line that is no JSON gets the
daemon's own answer with the right line number. Both directions flow at the same time; whoever writes a million lines
into the pipe needs no memory here.

`--wait` follows the jobs on a second connection: on the first one every answer belongs to a line.
"""

import os
import select
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from cyclopts import Parameter

from leadline.cli import terminal
from leadline.cli.daemon import Failed, FileOrDash, Misused, Place, Placed, any_socket, find_socket
from leadline.cli.following import Report, follow, is_failure, reporting
from leadline.cli.jobs import Flag, Json
from leadline.cli.preview import show
from leadline.cli.words import shown
from leadline_protocol.errors import Refused, Unreachable
from leadline_protocol.ids import JobId
from leadline_protocol.messages import Ended

PIECE_BYTES: Final = 256 * 1024

UNANSWERED_LINES_MAX: Final = 100_000
"""So many lines may be on their way; then reading waits for answers."""


def submit(
    file: Annotated[FileOrDash | None, Parameter(help="The file; - or nothing: standard input.")] = None,
    /,
    *,
    place: Placed,
    wait: Annotated[Flag, Parameter(help="Also wait until the jobs have ended, and print how.")] = False,
    dry_run: Annotated[Flag, Parameter(help="Submit nothing: say what each line would take now.")] = False,
    json: Annotated[Json, Parameter(help="With --dry-run: the daemon's answers as they are.")] = False,
) -> int:
    """Submit jobs, one JSON object a line, and print what the daemon answers to each.

    The exit status is 1 if a line was refused or, with --wait, a job failed or was cancelled.
    """
    if dry_run:
        if wait:
            raise Misused("There is nothing to wait for in a dry run")
        return _try(file, place, json=json)
    if json:
        raise Misused("--json goes with --dry-run: what the daemon answers to a submission is JSON anyway")
    source = _opened(file)
    try:
        path, _ = find_socket(place)
        relay = _Relay(path)
        try:
            for line in relay.answers(source):
                sys.stdout.buffer.write(line + b"\n")
                sys.stdout.buffer.flush()
        finally:
            relay.close()
    finally:
        if source:
            os.close(source)
    failed = relay.refused > 0
    if wait and relay.jobs:
        failed |= _await(place, relay)
    return int(failed)


def _try(file: Path | None, place: Place, *, json: bool) -> int:
    """Show what each line would take; the exit status is 1 if one would be refused."""
    source = _opened(file)
    failed = False
    with os.fdopen(source, "rb", closefd=source > 0) as lines, any_socket(place) as daemon:
        for number, line in enumerate(lines, start=1):
            if line.isspace():
                continue
            try:
                submission = msgspec.json.decode(line, type=dict[str, Any])
            except msgspec.MsgspecError as error:
                raise Failed(f"line {number} is no JSON object: {error}") from error
            try:
                show(daemon.client.preview(submission), json=json)
            except Refused as refused:
                terminal.remark(f"leadline: line {number}: {shown(str(refused))}")
                failed = True
    return int(failed)


def _opened(file: Path | None) -> int:
    """The file descriptor to read from; 0: standard input."""
    if file is not None and str(file) != "-":
        return os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    if file is None and sys.stdin.isatty():
        raise Misused("Name a file, or - for standard input")
    return 0


def _await(place: Place, relay: "_Relay") -> bool:
    """Print how each job ended, those that were told already aside; whether one failed."""
    with any_socket(place) as daemon, reporting() as report:
        ends = follow(daemon, relay.jobs, _Printed(report, relay.ended))
    return any(is_failure(ended) for ended in ends.values())


class _Printed:
    """Hands on what a report is told, and prints ends as the notices that they are."""

    def __init__(self, report: Report, printed: set[JobId]) -> None:
        self._report: Final = report
        self._printed: Final = printed
        self.knows: Final = report.knows
        self.moved: Final = report.moved

    def ended(self, ended: Ended) -> None:
        self._report.ended(ended)
        if ended.job not in self._printed:
            terminal.json_line(ended)


class _Relay:
    """One connection over which lines go out and come back untouched."""

    def __init__(self, path: Path) -> None:
        self.refused = 0
        self.jobs: Final[list[JobId]] = []
        self.ended: Final[set[JobId]] = set()
        """Jobs whose end was told over this connection, because their line said `notify`."""
        self._unanswered = 0
        self._line_open = False
        self._socket: Final = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise Unreachable(f"No daemon answers at {path}: {error.strerror}") from error
        self._socket.setblocking(False)

    def close(self) -> None:
        self._socket.close()

    def answers(self, source: int) -> Iterator[bytes]:
        """The daemon's lines, until every line of the source has been answered."""
        unsent = memoryview(b"")
        held = b""
        is_open = True
        connection = self._socket.fileno()
        while is_open or unsent or self._unanswered:
            wants_more = is_open and not unsent and self._unanswered < UNANSWERED_LINES_MAX
            readable, writable, _ = select.select(
                [connection, source] if wants_more else [connection], [connection] if unsent else [], []
            )
            if source in readable:
                data = os.read(source, PIECE_BYTES)
                is_open = bool(data)
                unsent = memoryview(self._counted(data))
            if writable:
                unsent = self._write(unsent)
            if connection in readable:
                *lines, held = (held + self._read()).split(b"\n")
                for line in lines:
                    self._note(line)
                    yield line

    def _counted(self, data: bytes) -> bytes:
        """The data, its lines counted; at the end of the source the last line is closed."""
        if not data:
            return b"\n" if self._line_open else b""
        pieces = data.split(b"\n")
        for piece in pieces[:-1]:
            self._open_line(piece)
            self._line_open = False
        self._open_line(pieces[-1])
        return data

    def _open_line(self, piece: bytes) -> None:
        """Blank lines get no answer."""
        if not self._line_open and piece and not piece.isspace():
            self._line_open = True
            self._unanswered += 1

    def _write(self, unsent: memoryview) -> memoryview:
        try:
            return unsent[self._socket.send(unsent) :]
        except BlockingIOError:
            return unsent
        except OSError:
            # Why the daemon closed may still be there to be read.
            return memoryview(b"")

    def _read(self) -> bytes:
        try:
            data = self._socket.recv(PIECE_BYTES)
        except ConnectionError:
            data = b""
        if not data:
            raise Failed(
                f"The daemon closed the connection with {self._unanswered} lines unanswered; it may have taken some of "
                "them: lines with an idempotency_key can safely be submitted again"
            )
        return data

    def _note(self, line: bytes) -> None:
        try:
            answer: Any = msgspec.json.decode(line)
        except msgspec.DecodeError:
            answer = None
        if not isinstance(answer, dict):
            raise Failed(f"This is no daemon: it said {line[:80]!r}")
        if "event" in answer:
            if answer["event"] == "ended":
                self.ended.add(answer["job"])
            return
        self._unanswered -= 1
        if answer.get("ok") is not True:
            self.refused += 1
            if answer.get("line") == 0:
                raise Failed(f"The daemon refuses the connection: {answer.get('error', {}).get('message')}")
        elif "job" in answer:
            self.jobs.append(answer["job"])
