"""What a run's code asks the daemon, and what it is answered: lines of JSON, by way of the supervisor.

The code says {"ask": 7, "method": "query", "params": {...}} over a socket that it was born with, and is told
{"answer": 7, "result": ...} or {"answer": 7, "error": {"type": "...", "message": "..."}}. The supervisor says the same
to the daemon, over a socket in the run's folder, which is there before the supervisor is and for as long as it lives.
It keeps a question until it has the whole answer; a daemon that comes later is told all that are kept.

Code may say what it likes. Nonsense ends its own channel and nothing else; who asks more than can be answered is read
no further; and how often it is read at all is bounded. Answers may hold secrets: they are in memory for as long as it
takes to hand them on, and nowhere else.
"""

import os
import selectors
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from leadline.ports.runner import (
    ANSWER_BYTES_MAX,
    QUESTION_BYTES_MAX,
    QUESTIONS_MAX,
    Answer,
    Failure,
    Question,
    Result,
)

NUMBER_MAX: Final = 1 << 53
"""Every language's JSON can hold it."""

READ_BYTES: Final = 256 * 1024

PACE: Final = 400.0
"""So many times a second the code is listened to, counting each look at its socket and each question: enough for a
hundred questions one after the other, and little work for whoever answers."""

BURST: Final = 400.0
"""It may save up so many."""

MESSAGE_CHARACTERS_MAX: Final = 8_192

_FORM_BYTES: Final = 16 * MESSAGE_CHARACTERS_MAX
"""What a line of an answer has around its result, or all that an error takes."""

_BACKLOG: Final = 8


class _Asked(Struct, frozen=True):
    ask: Annotated[int, Meta(ge=1, le=NUMBER_MAX)]
    method: Annotated[str, Meta(min_length=1, max_length=100)]
    params: msgspec.Raw = msgspec.Raw(b"{}")


class _Answered(Struct, frozen=True, omit_defaults=True):
    answer: int
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: Failure | msgspec.UnsetType = msgspec.UNSET


_ASKED: Final = msgspec.json.Decoder(_Asked)
_ANSWERED: Final = msgspec.json.Decoder(_Answered)


def question(line: bytes) -> Question:
    """The question that a line asks. Raises ValueError, RecursionError."""
    asked = _ASKED.decode(line)
    return Question(asked.ask, asked.method, asked.params)


def answer_line(number: int, answer: Answer) -> bytes:
    """A line that answers a question."""
    match answer:
        case Result(value):
            assert len(value) <= ANSWER_BYTES_MAX, "it was to be refused"
            said = _Answered(number, result=value)
        case Failure(kind, message):
            text = message[:MESSAGE_CHARACTERS_MAX].encode(errors="replace").decode()
            said = _Answered(number, error=Failure(kind, text))
    line = msgspec.json.encode(said)
    return (line if b"\n" not in line else line.replace(b"\n", b" ")) + b"\n"


def listen(path: Path) -> socket.socket:
    """Make a socket at a path, however long it is. Raises OSError."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _at(path, listener.bind)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def connect(path: Path) -> socket.socket:
    """Reach a supervisor. Raises OSError where there is none any more."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _at(path, connection.connect)
    except OSError:
        connection.close()
        raise
    connection.setblocking(False)
    return connection


class Switchboard:
    """Between the code and the daemon; nothing here waits.

    Its work is done in `go`, whenever `fileno` is readable, and now and then besides.
    """

    def __init__(self, code: socket.socket, listener: socket.socket) -> None:
        """`code` is our end of the code's socket; at `listener` a daemon may come."""
        code.setblocking(False)
        listener.setblocking(False)
        self._code: socket.socket | None = code
        self._listener = listener
        self._daemon: socket.socket | None = None
        self._heard = bytearray()
        """What the code has said and nobody has taken up yet."""
        self._kept: dict[int, bytes] = {}
        """The questions without an answer, by number, as lines."""
        self._to_daemon = bytearray()
        self._told = bytearray()
        """The beginning of an answer."""
        self._to_code = memoryview(b"")
        self._allowed = BURST
        self._allowed_at = time.monotonic()
        self._selector = selectors.EpollSelector()
        self._watch()

    def fileno(self) -> int:
        """A descriptor that is readable when there is something to do."""
        return self._selector.fileno()

    def go(self) -> None:
        """Do what can be done now."""
        self._allow()
        self._take()
        self._watch()
        for key, events in self._selector.select(0):
            match key.fileobj:
                case self._listener:
                    self._welcome()
                case self._code:
                    self._code_moves(events)
                case self._daemon:
                    self._daemon_moves(events)
        self._watch()

    def close(self) -> None:
        """Be done with it."""
        self._selector.close()
        for sock in (self._code, self._daemon, self._listener):
            if sock is not None:
                sock.close()

    # -- what is waited for -------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Wait for what can be dealt with, and for nothing else."""
        self._wait_for(self._listener, selectors.EVENT_READ)
        if self._code is not None:
            asks = self._allowed >= 1 and len(self._kept) < QUESTIONS_MAX
            self._wait_for(self._code, (selectors.EVENT_READ if asks else 0) | _writes(self._to_code))
        if self._daemon is not None:  # the next answer is read when the one before has been taken
            reads = selectors.EVENT_READ if not self._to_code else 0
            self._wait_for(self._daemon, reads | _writes(self._to_daemon))

    def _wait_for(self, sock: socket.socket, events: int) -> None:
        before = self._selector.get_map().get(sock)
        if before is None and events:
            self._selector.register(sock, events)
        elif before is not None and not events:
            self._selector.unregister(sock)
        elif before is not None and before.events != events:
            self._selector.modify(sock, events)

    def _leave(self, sock: socket.socket) -> None:
        self._wait_for(sock, 0)
        sock.close()

    def _allow(self) -> None:
        now = time.monotonic()
        self._allowed = min(BURST, self._allowed + PACE * (now - self._allowed_at))
        self._allowed_at = now

    # -- the code -----------------------------------------------------------------------------------------------------

    def _code_moves(self, events: int) -> None:
        assert self._code is not None
        try:
            if events & selectors.EVENT_WRITE:
                self._to_code = self._to_code[self._code.send(self._to_code) :]
            if events & selectors.EVENT_READ:
                self._allowed -= 1
                piece = self._code.recv(READ_BYTES)
                if not piece:
                    raise ConnectionResetError
                self._heard += piece
        except BlockingIOError:
            return
        except OSError:
            self._hang_up()
        self._take()

    def _take(self) -> None:
        """Take up what the code has asked, as far as it may ask now."""
        begin = 0
        while self._allowed >= 1 and len(self._kept) < QUESTIONS_MAX:
            end = self._heard.find(b"\n", begin, begin + QUESTION_BYTES_MAX + 1)
            if end < 0:
                if len(self._heard) - begin > QUESTION_BYTES_MAX:
                    self._hang_up()
                    return
                break
            line = bytes(self._heard[begin : end + 1])
            begin = end + 1
            self._allowed -= 1
            try:
                number = _ASKED.decode(line).ask
            except (ValueError, RecursionError):
                self._hang_up()
                return
            if number in self._kept:
                self._hang_up()
                return
            self._kept[number] = line
            if self._daemon is not None:
                self._to_daemon += line
        del self._heard[:begin]

    def _hang_up(self) -> None:
        """Listen to the code no more: it has ended, or talks nonsense. Whoever of it waits is told."""
        if self._code is not None:
            self._leave(self._code)
            self._code = None
        self._heard.clear()
        self._kept.clear()
        self._to_code = memoryview(b"")

    # -- the daemon ---------------------------------------------------------------------------------------------------

    def _welcome(self) -> None:
        """A daemon has come: it is told all that is kept, and the one before is not listened to any longer."""
        with suppress(OSError):
            connection, _ = self._listener.accept()
            self._part()
            connection.setblocking(False)
            self._daemon = connection
            self._to_daemon += b"".join(self._kept.values())

    def _part(self) -> None:
        """The daemon is gone; of an answer that it had only begun nothing is left."""
        if self._daemon is not None:
            self._leave(self._daemon)
            self._daemon = None
        self._to_daemon.clear()
        self._told.clear()

    def _daemon_moves(self, events: int) -> None:
        assert self._daemon is not None
        if events & selectors.EVENT_WRITE:
            try:
                del self._to_daemon[: self._daemon.send(self._to_daemon)]
            except BlockingIOError:
                pass
            except OSError:
                self._to_daemon.clear()  # it is gone, but may have answered before
        if events & selectors.EVENT_READ:
            try:
                self._hear()
            except BlockingIOError:
                pass
            except OSError:
                self._part()

    def _hear(self) -> None:
        """Read of an answer what is there, and no further than to its end. Raises OSError."""
        assert self._daemon is not None
        seen = self._daemon.recv(READ_BYTES, socket.MSG_PEEK)
        piece = self._daemon.recv(seen.find(b"\n") + 1 or len(seen))
        self._told += piece
        if not piece or len(self._told) > ANSWER_BYTES_MAX + _FORM_BYTES:
            raise ConnectionResetError
        if not piece.endswith(b"\n"):
            return
        line, self._told = self._told, bytearray()
        with suppress(ValueError, RecursionError):
            if self._kept.pop(_ANSWERED.decode(line).answer, None) is not None and self._code is not None:
                self._to_code = memoryview(line)


def _writes(waiting: bytearray | memoryview) -> int:
    return selectors.EVENT_WRITE if len(waiting) else 0


def _at(path: Path, do: Callable[[str], None]) -> None:
    """Bind or connect by way of a descriptor of its folder: a socket's own path may hold 107 bytes only."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        do(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)
