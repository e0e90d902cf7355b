"""A daemon that says what a test wants it to say, on real Unix sockets, in the words of the protocol.

Requests are read and replies written by the codec, so a test cannot have the command line talk to something that no
daemon would be. What it answers is a function from the request to a reply; notices may follow.
"""

import socketserver
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from leadline_protocol.codec import LineDecoder, LineFault, RequestDecoder, encode
from leadline_protocol.errors import ErrorCode
from leadline_protocol.ids import JobId
from leadline_protocol.messages import (
    CONTROL_OPERATIONS,
    SUBMISSION_TYPES,
    SUBMIT_OPERATIONS,
    BatchView,
    Counts,
    Fault,
    JobView,
    Notice,
    Receipt,
    Refusal,
    Reply,
    Request,
)

NOON = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)

Answer = Reply | Refusal | Sequence[Reply | Refusal | Notice]
"""A reply (its line is filled in here), and the notices that follow it."""

Behaviour = Callable[[Any], Answer]


def counts(total: int = 0, done: int = 0, *, failed: int = 0, skipped: int = 0, unknown: int = 0) -> Counts:
    pending = total - done - failed - skipped - unknown
    return Counts(total=total, done=done, failed=failed, skipped=skipped, unknown=unknown, pending=pending)


def view(number: int = 41, **changes: Any) -> JobView:
    values: dict[str, Any] = {
        "job": JobId(number),
        "kind": "enrich",
        "family": "tables",
        "teamspace": "acme",
        "table": "prospects",
        "state": "running",
        "submitted_at": NOON,
        "counts": counts(),
    }
    values.update(changes)
    return JobView(**{"shown": values["state"], **values})


def batch_view(**changes: Any) -> BatchView:
    values: dict[str, Any] = {
        "teamspace": "acme",
        "name": "nightly",
        "state": "draft",
        "version": 0,
        "api": False,
        "timeout_seconds": 600.0,
        "retries": 0,
        "retry_timeouts": False,
        "created_at": NOON,
    }
    return BatchView(**{**values, **changes})


def refusal(code: ErrorCode, message: str, *, at: str | None = None, retry_after: float | None = None) -> Refusal:
    return Refusal(line=0, error=Fault(code=code, message=message, at=at, retry_after=retry_after))


class FakeDaemon:
    """What it is asked stands in `requests`; what it answers is set with `on`."""

    def __init__(self, runtime_dir: Path, state_dir: Path) -> None:
        self.runtime_dir = runtime_dir
        self.state_dir = state_dir
        self.requests: list[Request] = []
        self.lines: list[bytes] = []
        self._behaviours: dict[type, Behaviour] = {}
        self._jobs = 0

    def on(self, request_type: type, behaviour: Behaviour) -> None:
        self._behaviours[request_type] = behaviour

    def take(self, submission: Any) -> Receipt:
        """The usual receipt."""
        self._jobs += 1
        return Receipt(line=0, job=JobId(self._jobs), state="queued", jobs_ahead=0, ref=submission.ref)

    def answer(self, decoder: RequestDecoder, number: int, line: bytes | LineFault) -> bytes:
        request = decoder.decode(line) if isinstance(line, bytes) else line
        if isinstance(request, LineFault):
            return encode([request.refusal(number)])
        self.requests.append(request)
        behaviour = self._behaviours.get(type(request))
        if behaviour is None and type(request) in SUBMISSION_TYPES:
            behaviour = self.take
        assert behaviour is not None, f"the test says nothing about {request}"
        answer = behaviour(request)
        first, *notices = [answer] if isinstance(answer, Reply | Refusal) else answer
        return encode([msgspec.structs.replace(first, line=number), *notices])


@contextmanager
def fake_daemon(folder: Path, *, submit_only: bool = False) -> Iterator[FakeDaemon]:
    """A daemon below `folder`, with its sockets in `run` and its state in `state`."""
    daemon = FakeDaemon(folder / "run", folder / "state")
    daemon.runtime_dir.mkdir(exist_ok=True)
    for name in ("incoming", "exports"):
        (daemon.state_dir / name).mkdir(parents=True, exist_ok=True)
    sockets = {"submit.sock": SUBMIT_OPERATIONS} if submit_only else {"control.sock": CONTROL_OPERATIONS}
    servers = []
    for name, operations in sockets.items():
        decoder = RequestDecoder(SUBMISSION_TYPES, operations)

        class Handler(socketserver.BaseRequestHandler):
            def handle(self, decoder: RequestDecoder = decoder) -> None:
                lines = LineDecoder()
                while data := self.request.recv(65536):
                    daemon.lines.append(data)
                    for number, line in lines.feed(data):
                        self.request.sendall(daemon.answer(decoder, number, line))

        server = socketserver.ThreadingUnixStreamServer(str(daemon.runtime_dir / name), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
    try:
        yield daemon
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
