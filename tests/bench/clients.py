"""Whoever submits: one that pipelines everything, many that wait for each receipt, one that keeps a pace.

They cost as little as they can, since they share the machine with what is measured: lines are made beforehand, replies
are counted and not read.
"""

import selectors
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from tests.bench.place import dialled

TEAMSPACES: Final = 10_000
READ_BYTES: Final = 1 << 20


class Refused(Exception):
    """The daemon refused what it should have taken: there is nothing to measure."""


def noops(count: int, *, key: str = "", notify_last: bool = False) -> bytes:
    """Lines that submit so many noops, spread over all teamspaces; with `key`, each under a key that begins so."""
    lines = []
    for number in range(count):
        keyed = f',"idempotency_key":"{key}-{number}"' if key else ""
        notify = ',"notify":true' if notify_last and number == count - 1 else ""
        lines.append(f'{{"kind":"noop","teamspace":"team-{number % TEAMSPACES}"{keyed}{notify}}}\n')
    return "".join(lines).encode()


def lead_list(rows: int) -> bytes:
    """A CSV of so many leads: of a hundred rows, two repeat one before them and one has no address."""
    lines = ["Email,First Name,Last Name,Company,Country,Employees,Signed up\n"]
    for number in range(rows):
        match number % 100:
            case 33 | 66:
                address = f"LEAD{number - 7}@company{(number - 7) % 5_000}.example"
            case 99:
                address = "unknown"
            case _:
                address = f"lead{number}@company{number % 5_000}.example"
        company, day = number % 5_000, 1 + number % 28
        lines.append(f"{address},Ada,Lovelace,Company {company},DE,{number % 1_000},2026-01-{day:02}\n")
    return "".join(lines).encode()


class Pipelined(Struct, frozen=True):
    """When what happened, in seconds from the first byte."""

    stored: float
    """The last receipt was there."""
    ended: float | None
    """The last job's end was told."""


class Pipeline:
    """One connection that sends without waiting."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._tail = b""

    def submit(self, lines: bytes, *, until_ended: bool) -> Pipelined:
        """Send them all; wait for all receipts and, where the last one asked for it, for its end."""
        count = lines.count(b"\n")
        started = time.perf_counter()
        sender = threading.Thread(target=self._sock.sendall, args=(lines,))
        sender.start()
        received = 0
        ended = False
        while received < count:
            data = self._read()
            received += data.count(b'"ok":true')
            ended = ended or b'"event":"ended"' in data
        stored = time.perf_counter() - started
        sender.join()
        if not until_ended:
            return Pipelined(stored, None)
        if not ended:
            self.wait_for_end()
        return Pipelined(stored, time.perf_counter() - started)

    def wait_for_end(self) -> None:
        """Wait for the notice of a job's end."""
        while b'"event":"ended"' not in self._read():
            pass

    def _read(self) -> bytes:
        """What has come, in whole lines."""
        while True:
            data = self._sock.recv(READ_BYTES)
            if not data:
                raise Refused("the daemon hung up")
            whole, newline, rest = (self._tail + data).rpartition(b"\n")
            self._tail = rest
            if b'"ok":false' in whole:
                raise Refused(whole[whole.index(b'"ok":false') - 20 :][:300].decode(errors="replace"))
            if newline:
                return whole


class CarriedOut(Struct, frozen=True):
    """A job that was waited for."""

    seconds: float
    """From handing it in to the notice of its end."""
    leads: int
    """How many it has done."""


def carried_out(path: Path, submission: dict[str, Any]) -> CarriedOut:
    """Submit one job and wait until it has ended well."""
    with dialled(path) as sock, sock.makefile("rb") as lines:
        started = time.perf_counter()
        sock.sendall(msgspec.json.encode({"teamspace": "acme", "notify": True} | submission) + b"\n")
        receipt = msgspec.json.decode(lines.readline())
        if not receipt["ok"]:
            raise Refused(str(receipt))
        ended = msgspec.json.decode(lines.readline())
        seconds = time.perf_counter() - started
    if ended["state"] not in {"completed", "partial"}:
        raise Refused(str(ended))
    return CarriedOut(seconds, ended["counts"]["done"])


def one_at_a_time(path: Path, connections: int, jobs: int) -> float:
    """Many clients, each of which submits its next job when it has the receipt of the last; jobs per second."""
    lines = iter(noops(jobs).splitlines(keepends=True))
    selector = selectors.DefaultSelector()
    sockets = [socket.socket(socket.AF_UNIX) for _ in range(connections)]
    try:
        for sock in sockets:
            sock.connect(str(path))
            selector.register(sock, selectors.EVENT_READ)
        started = time.perf_counter()
        for sock in sockets:
            sock.send(next(lines, b""))
        received = 0
        while received < jobs:
            for key, _ in selector.select():
                reply = key.fileobj.recv(4096)  # type: ignore[union-attr]  # only sockets are registered
                if not reply.startswith(b'{"ok":true') or not reply.endswith(b"\n"):
                    raise Refused(reply.decode(errors="replace"))
                received += 1
                key.fileobj.send(next(lines, b""))  # type: ignore[union-attr]
        return jobs / (time.perf_counter() - started)
    finally:
        selector.close()
        for sock in sockets:
            sock.close()


def at_a_pace(path: Path, kind: str, per_second: float, seconds: float) -> dict[int, int]:
    """Submit at this rate; when (monotonic nanoseconds) each job's line was written, by the job's id."""
    count = int(per_second * seconds)
    sent: list[int] = []
    receipts: list[bytes] = []
    with dialled(path) as sock, selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        began = time.monotonic_ns()
        tail = b""
        while len(receipts) < count:
            due = began + int(len(sent) / per_second * 1e9)
            now = time.monotonic_ns()
            if len(sent) < count and now >= due:
                sent.append(time.monotonic_ns())
                sock.send(f'{{"kind":"{kind}","teamspace":"team-{len(sent) % TEAMSPACES}"}}\n'.encode())
                continue
            if selector.select((due - now) / 1e9 if len(sent) < count else None):
                *lines, tail = (tail + sock.recv(READ_BYTES)).split(b"\n")
                receipts += lines
    return dict(zip(_jobs(receipts), sent, strict=True))


def _jobs(receipts: Sequence[bytes]) -> Iterator[int]:
    for line in receipts:
        receipt = msgspec.json.decode(line)
        if not receipt["ok"]:
            raise Refused(line.decode())
        yield receipt["job"]
