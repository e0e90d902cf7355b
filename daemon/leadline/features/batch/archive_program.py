"""The program that judges a zip or unpacks it, in a process of its own (`archive_worker`).

It reads the zip from its standard input, and says on its standard output what came of it. It has little memory and
little time: a zip that needs more of either was made to. It ends with the daemon.
"""

import ctypes
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from leadline.features.batch.archive import Bounds, Code, judge, unpack
from leadline_protocol.errors import Refused

PR_SET_PDEATHSIG: Final = 1


class Start(Struct, frozen=True):
    """What it is told on its command line, as JSON."""

    parent: int
    cpu_seconds: int
    memory_bytes: int
    """Address space."""
    folder: str | None = None
    """Where to unpack it to; without one it is to be judged."""
    bounds: Bounds | None = None


class Answer(Struct, frozen=True):
    """What it says, as JSON."""

    code: Code | None = None
    """What is in a zip that was judged and taken."""
    refused: str | None = None
    """Why it is not."""
    at: str | None = None
    trouble: str | None = None
    """What the machine lacks for it to be unpacked."""


def main() -> None:
    """Do what the first argument says."""
    start = msgspec.json.decode(sys.argv[1], type=Start)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != start.parent:
        os._exit(1)  # it was gone before this was asked for
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (start.memory_bytes, start.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (start.cpu_seconds, start.cpu_seconds))
    sys.stdout.buffer.write(msgspec.json.encode(_answer(start)))


def _answer(start: Start) -> Answer:
    try:
        if start.folder is None:
            return Answer(judge(sys.stdin.buffer))
        unpack(sys.stdin.buffer, Path(start.folder), start.bounds)
    except Refused as refused:
        return Answer(refused=refused.message, at=refused.at)
    except MemoryError:
        return Answer(refused="it takes too much memory to be read")
    except OSError as error:
        return Answer(trouble=error.strerror or str(error))
    return Answer()


if __name__ == "__main__":
    main()
