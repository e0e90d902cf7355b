"""A daemon for tests of clients: a real socket, jobs in a dictionary, and a script that says what goes wrong.

It keeps the one rule the clients lean on, one job for each idempotency key, and counts what it stored, so that a test
can ask whether something was done twice.
"""

import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Self

from leadline_protocol.codec import LineDecoder, LineFault, RequestDecoder, encode
from leadline_protocol.errors import ErrorCode
from leadline_protocol.ids import JobId
from leadline_protocol.messages import (
    CONTROL_OPERATIONS,
    SUBMISSION_TYPES,
    Counts,
    Done,
    Ended,
    Fault,
    Follow,
    Notice,
    Ping,
    Pong,
    Progress,
    Receipt,
    Refusal,
    Reply,
    Request,
    Submission,
)

Message = Reply | Refusal | Notice
Script = Callable[[int, int, Request, Sequence[Message]], Sequence[Message] | None]
"""(connection, line, request, what an honest daemon answers) → what is answered; None: cut the connection instead."""

HANG_UP: Final = Progress(
    job=JobId(1),
    state="",
    shown="",
    counts=Counts(total=0, done=0, failed=0, skipped=0, unknown=0, pending=0),
)
"""As the last of what a script answers: cut the connection after the rest. It is not sent."""


def honest(connection: int, line: int, request: Request, answer: Sequence[Message]) -> Sequence[Message]:
    return answer


def not_now(line: int, code: ErrorCode = ErrorCode.UNAVAILABLE) -> list[Message]:
    return [Refusal(line=line, error=Fault(code=code, message="not now", retry_after=0.01))]


class ScriptedDaemon:
    """Listens from `__enter__` to `__exit__`; each connection is served by a thread of its own."""

    def __init__(self, path: Path, script: Script = honest) -> None:
        self.path: Final = path
        self.script = script
        self.jobs: dict[JobId, Submission] = {}
        self.keys: dict[tuple[str, str], JobId] = {}
        self.connections = 0
        self.heard: Final = threading.Event()
        """Set when a request has been read."""
        self._lock: Final = threading.Lock()
        self._listener: Final = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._open: Final[list[socket.socket]] = []
        self._threads: Final[list[threading.Thread]] = []

    def __enter__(self) -> Self:
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._spawn(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.path.unlink()
        self._listener.shutdown(socket.SHUT_RDWR)
        self.cut()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def cut(self) -> None:
        """Cut every connection."""
        for peer in tuple(self._open):
            try:
                peer.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def tell(self, notice: Notice) -> None:
        """Send a notice to every connection."""
        for peer in tuple(self._open):
            peer.sendall(encode([notice]))

    def _spawn(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(peer)
            self._spawn(self._serve, peer, self.connections)

    def _serve(self, peer: socket.socket, connection: int) -> None:
        lines = LineDecoder()
        requests = RequestDecoder(SUBMISSION_TYPES, CONTROL_OPERATIONS)
        try:
            while data := peer.recv(65536):
                for number, line in lines.feed(data):
                    request = line if isinstance(line, LineFault) else requests.decode(line)
                    if isinstance(request, LineFault):
                        peer.sendall(encode([request.refusal(number)]))
                        continue
                    self.heard.set()
                    messages = self.script(connection, number, request, self._answer(number, request))
                    if messages is None:
                        return
                    peer.sendall(encode([message for message in messages if message is not HANG_UP]))
                    if HANG_UP in messages:
                        return
        except OSError:
            return
        finally:
            self._open.remove(peer)
            peer.close()

    def _answer(self, line: int, request: Request) -> list[Message]:
        if isinstance(request, Ping):
            return [Pong(line=line, version="scripted", ref=request.ref)]
        if isinstance(request, Follow) and request.job is not None:
            return [Done(line=line), ended(request.job)]
        if isinstance(request, Submission):
            return [self._store(line, request)]
        return [Done(line=line, ref=request.ref)]

    def _store(self, line: int, submission: Submission) -> Receipt:
        with self._lock:
            key = (submission.teamspace, submission.idempotency_key or "")
            job = self.keys.get(key) if submission.idempotency_key else None
            duplicate = job is not None
            if job is None:
                job = JobId(len(self.jobs) + 1)
                self.jobs[job] = submission
                self.keys[key] = job
            return Receipt(line=line, job=job, state="queued", jobs_ahead=0, duplicate=duplicate, ref=submission.ref)


def ended(job: JobId) -> Ended:
    return Ended(job=job, state="completed", counts=Counts(total=0, done=0, failed=0, skipped=0, unknown=0, pending=0))
