"""Lines over a Unix socket, and what became of each: answered, refused, or nobody knows.

The clients that come with Leadline send again what got lost, which is right for services and wrong here: this log must
say what was sent, how often, and what was heard of it.
"""

import json
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

TIMEOUT_SECONDS: Final = 8.0

Document = dict[str, Any]


class Answered(msgspec.Struct, frozen=True):
    """It was carried out."""

    reply: Document


class Refused(msgspec.Struct, frozen=True):
    """It was not."""

    code: str
    message: str


class Lost(msgspec.Struct, frozen=True):
    """It was sent, and the connection ended before an answer: it may have been carried out."""


class Unsent(msgspec.Struct, frozen=True):
    """Nobody was there to take it."""


Outcome = Answered | Refused | Lost | Unsent


@contextmanager
def _connected(path: Path, timeout_seconds: float) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_seconds)
        connection.connect(str(path))
        yield connection


def exchange(path: Path, requests: Sequence[Document], *, timeout_seconds: float = TIMEOUT_SECONDS) -> list[Outcome]:
    """Send these at once on a new connection; what became of each, in order."""
    outcomes: list[Outcome] = []
    sent = False
    try:
        with _connected(path, timeout_seconds) as connection:
            sent = True
            connection.sendall(_lines(requests))
            reader = connection.makefile("rb")
            while len(outcomes) < len(requests) and (line := reader.readline()).endswith(b"\n"):
                document = json.loads(line)
                if "event" not in document:
                    outcomes.append(_outcome(document))
    except OSError:
        pass
    left: Outcome = Lost() if sent else Unsent()
    return outcomes + [left] * (len(requests) - len(outcomes))


def ask(path: Path, request: Document, *, timeout_seconds: float = TIMEOUT_SECONDS) -> Outcome:
    """Send one."""
    (outcome,) = exchange(path, [request], timeout_seconds=timeout_seconds)
    return outcome


def hang_up(path: Path, request: Document) -> Outcome:
    """Send one and leave without waiting for the answer, as a client does that is killed itself."""
    sent = False
    try:
        with _connected(path, TIMEOUT_SECONDS) as connection:
            sent = True
            connection.sendall(_lines([request]))
    except OSError:
        pass
    return Lost() if sent else Unsent()


def _lines(requests: Sequence[Document]) -> bytes:
    return b"".join(json.dumps(request).encode() + b"\n" for request in requests)


def _outcome(document: Document) -> Outcome:
    if document["ok"]:
        return Answered(document)
    return Refused(document["error"]["code"], document["error"]["message"])
