"""What is kept of a run: a folder with a file for each thing, which daemon and supervisor share.

    order         what is to be run and how; written by the daemon, once
    processes     whom to end; written by the supervisor, first without the sandbox and again when there is one
    log           a line for each line that was printed, behind the moment at which it was
    end           how it ended; written once nothing of it runs any more, by the supervisor or whoever finds it dead
    trouble       what the supervisor complains of, should it die
    questions     a socket at which the daemon is told what the code asks, and answers; the supervisor listens
    news          a FIFO: a byte in it says that there is more to read, its end that the supervisor is gone

Only the daemon's user may enter. Files that are written as a whole appear as a whole, and each file has one writer at
a time, so there are no locks.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from leadline.adapters.sandbox_runner.cgroups import Ground
from leadline.adapters.sandbox_runner.processes import Named
from leadline.ports.runner import End, LogLine, Order, RunExists

T = TypeVar("T")

READ_BYTES: Final = 256 * 1024
TROUBLE_CHARACTERS: Final = 2_000


class Task(Struct, frozen=True):
    """An order, and how the daemon wants it carried out."""

    order: Order
    bubblewrap: str | None
    """Where the program is; without one the code runs unprotected."""
    trees: tuple[str, ...]
    """What the interpreter needs of the file system besides /usr, at the same paths."""
    ground: Ground | None
    """Where its cgroup is to be made."""


class Processes(Struct, frozen=True):
    """Whose lives a run is."""

    supervisor: Named
    cgroup: str | None = None
    """To be removed when nobody is in it any more."""
    first: Named | None = None
    """The run's first process: the others go with it. As long as none is named, no code has been loaded."""
    started: int | None = None
    """When that one was, in microseconds of Unix time."""


class RunFolder:
    """The folder of one run."""

    def __init__(self, path: Path) -> None:
        self.path: Final = path

    @property
    def name(self) -> str:
        """The run's name."""
        return self.path.name

    @property
    def log(self) -> Path:
        """Where the log is, which there need not be yet."""
        return self.path / "log"

    @property
    def news(self) -> Path:
        """Where the FIFO is."""
        return self.path / "news"

    @property
    def questions(self) -> Path:
        """Where the socket is, as soon as there was a supervisor."""
        return self.path / "questions"

    @property
    def trouble(self) -> Path:
        """What the supervisor itself complains of: nothing, as long as it works."""
        return self.path / "trouble"

    def last_trouble(self) -> str:
        """The end of that."""
        try:
            return self.trouble.read_text(errors="replace")[-TROUBLE_CHARACTERS:].strip()
        except FileNotFoundError:
            return ""

    def make(self, task: Task) -> None:
        """Make it. Raises RunExists."""
        try:
            self.path.mkdir(mode=0o700)
        except FileExistsError as error:
            raise RunExists(f"there is a run {self.name} already") from error
        os.mkfifo(self.news, mode=0o600)
        self._write("order", task)

    def task(self) -> Task | None:
        """What is to be run; None where the daemon died before it had said so."""
        return self._read("order", Task)

    def write_processes(self, processes: Processes) -> None:
        """Say whose lives it is."""
        self._write("processes", processes)

    def processes(self) -> Processes | None:
        """Whose lives it is; None where the supervisor has not come so far."""
        return self._read("processes", Processes)

    def write_end(self, end: End) -> None:
        """Say how it ended, so that it lasts."""
        self._write("end", end, lasting=True)

    def end(self) -> End | None:
        """How it ended."""
        return self._read("end", End)

    def remove(self) -> None:
        """Keep nothing."""
        shutil.rmtree(self.path)

    def _write(self, name: str, what: Struct, *, lasting: bool = False) -> None:
        fresh = self.path / f"{name}.new"
        with fresh.open("wb") as file:
            file.write(msgspec.json.encode(what, enc_hook=_path_to_text))
            if lasting:
                file.flush()
                os.fsync(file.fileno())
        fresh.replace(self.path / name)

    def _read(self, name: str, kind: type[T]) -> T | None:
        try:
            return msgspec.json.decode((self.path / name).read_bytes(), type=kind, dec_hook=_text_to_path)
        except FileNotFoundError:
            return None


class LogReader:
    """Reads a log from its beginning, as far as it has been written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._number = 0

    def read(self) -> Sequence[LogLine]:
        """The next lines, as many as are read at once; none where there are no more yet."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                lines = file.read(READ_BYTES).splitlines(keepends=True)
        except FileNotFoundError:
            return []
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()
        found = []
        for line in lines:
            at, _, text = line.partition(b" ")
            self._offset += len(line)
            self._number += 1
            found.append(LogLine(self._number, int(at), text[:-1].decode()))
        return found


def log_line(at: int, text: str) -> bytes:
    """A line of the log as it is kept. The text holds no end of a line."""
    return f"{at} {text}\n".encode()


def _path_to_text(path: object) -> str:
    return str(path)


def _text_to_path(kind: type, text: str) -> object:
    return kind(text)
