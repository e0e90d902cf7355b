"""Peers in a process of their own: a patient one that measures, and those that a daemon has to bear.

`python -m tests.acceptance.crowd ROLE SOCKET ...` does one of these, and speaks JSON on its standard output:

- `measure SECONDS`: submits a noop every 10 ms, each when it has the receipt of the last; tells how long each took.
- `flood SECONDS CONNECTIONS WORD`: sends one of LINES over and over, without waiting, and reads what comes; counts it.
- `hold IDLE DEAF SLOW`: connections that say nothing, that ask without end and read nothing, and that send a long line
  byte by byte; tells when all are connected, and lets go when its standard input ends.
- `storm CONNECTIONS`: connects, sends half a line and is gone, so many times.

They use nothing of Leadline's, and the kernel's limit of open files as far as it may be raised.
"""

import json
import resource
import selectors
import socket
import sys
import time
from pathlib import Path
from typing import Final

NOOP: Final = b'{"kind":"noop","teamspace":"patient"}\n'
QUESTIONS: Final = b'{"op":"get","job":1}\n' * 20_000
HALF_A_LINE: Final = b'{"kind":"noop","teamspace":"' + b"x" * 100_000
LINES: Final = {
    "noop": b'{"kind":"noop","teamspace":"flood"}\n',
    "rubbish": b"{\n",
    "brackets": b'{"kind":"noop","teamspace":"a","x":[' + b"[]," * 80_000 + b"[]]}\n",
}
EVERY_SECONDS: Final = 0.01
DRIP_SECONDS: Final = 0.5
READ_BYTES: Final = 1 << 18


def dial(path: Path) -> socket.socket:
    """A connection."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    return sock


def measure(path: Path, seconds: float) -> dict[str, object]:
    """How long each receipt took, in seconds."""
    took: list[float] = []
    refused = 0
    with dial(path) as sock, sock.makefile("rb") as replies:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            sent = time.perf_counter()
            sock.sendall(NOOP)
            refused += b'"ok":true' not in replies.readline()
            took.append(time.perf_counter() - sent)
            time.sleep(max(0.0, EVERY_SECONDS - took[-1]))
    return {"seconds": took, "refused": refused}


def flood(path: Path, seconds: float, connections: int, line: bytes) -> dict[str, object]:
    """How many replies of which sort came."""
    piece = line * max(1, READ_BYTES // len(line))
    selector = selectors.DefaultSelector()
    rest: dict[socket.socket, memoryview] = {}
    for _ in range(connections):
        sock = dial(path)
        sock.setblocking(False)
        rest[sock] = memoryview(piece)
        selector.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE)
    taken = refused = busy = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end and rest:
        for key, events in selector.select(0.1):
            sock = key.fileobj  # type: ignore[assignment]  # only sockets are registered
            try:
                if events & selectors.EVENT_READ:
                    data = sock.recv(READ_BYTES)
                    if not data:
                        selector.unregister(sock)
                        del rest[sock]
                        continue
                    taken += data.count(b'"ok":true')
                    refused += data.count(b'"ok":false')
                    busy += data.count(b'"code":"busy"')
                if events & selectors.EVENT_WRITE:
                    rest[sock] = rest[sock][sock.send(rest[sock]) :] or memoryview(piece)
            except BlockingIOError:
                continue
    return {"taken": taken, "refused": refused, "busy": busy, "hung_up": connections - len(rest)}


def hold(path: Path, idle: int, deaf: int, slow: int) -> None:
    """Connect them all, say so, and let the slow ones drip until the standard input ends."""
    held = [dial(path) for _ in range(idle)]
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin, selectors.EVENT_READ)
    for words, count in ((QUESTIONS, deaf), (HALF_A_LINE, slow)):
        for _ in range(count):
            sock = dial(path)
            sock.setblocking(False)
            _send(sock, words)
            held.append(sock)
    print(json.dumps({"held": len(held)}), flush=True)
    dripping = held[idle + deaf :]
    while not selector.select(DRIP_SECONDS):
        for sock in dripping:
            _send(sock, b"x")
    for sock in held:
        sock.close()


def storm(path: Path, connections: int) -> dict[str, object]:
    """How many were connected and gone."""
    for number in range(connections):
        with dial(path) as sock:
            _send(sock, b'{"kind":"noop"' if number % 2 else NOOP * 20)
    return {"gone": connections}


def _send(sock: socket.socket, data: bytes) -> None:
    try:
        sock.send(data)
    except (BlockingIOError, BrokenPipeError, ConnectionResetError):
        return


def main() -> None:
    """The command."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    role, path, *rest = sys.argv[1:]
    match role:
        case "measure":
            told = measure(Path(path), float(rest[0]))
        case "flood":
            told = flood(Path(path), float(rest[0]), int(rest[1]), LINES[rest[2]])
        case "storm":
            told = storm(Path(path), int(rest[0]))
        case _:
            return hold(Path(path), *(int(each) for each in rest))
    print(json.dumps(told), flush=True)
    return None


if __name__ == "__main__":
    main()
