"""Finding the daemon and talking to it.

A command line has no configuration of its own: which daemon it means follows from where the sockets are. That is the
rule of `config.runtime_dir`, with one addition: where nothing was said and the user runs no daemon of her own, the
system's is meant. Of the two sockets the control socket can do all; who may not open it can still submit and see the
jobs that she submitted, over the submit socket.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from leadline import config as configuration
from leadline.config import CONTROL_SOCKET, SUBMIT_SOCKET, SYSTEM_RUNTIME, SYSTEM_STATE
from leadline_protocol.blocking import BlockingClient
from leadline_protocol.errors import Unreachable

TIMEOUT_SECONDS: Final = 30.0
"""What the daemon is given to answer."""


@dataclass(frozen=True)
class Place:
    """Which daemon is meant, as far as the command line says."""

    config: Path | None = None
    state_dir: Path | None = None
    runtime_dir: Path | None = None


Placed = Annotated[Place, Parameter(parse=False)]
"""The parameter by which a command is handed the Place."""


def _no_option(_: object, value: Path | None) -> None:
    if value is not None and value.name != "-" and str(value).startswith("-"):
        raise ValueError("There is no such option")


FileOrDash = Annotated[Path, Parameter(allow_leading_hyphen=True, validator=_no_option)]
"""A path, where - stands for standard input or output."""


class NoDaemon(Exception):
    """No daemon can be reached; the message says what was tried and what to do next."""


class Failed(Exception):
    """What was asked could not be done; the message says why and what to do next."""


class Misused(Exception):
    """The command line does not say what it must; the message says what."""


class Daemon:
    """A connection to the daemon that is meant."""

    def __init__(self, client: BlockingClient, socket: Path, state_dir: Path) -> None:
        self.client: Final = client
        self.socket: Final = socket
        self.state_dir: Final = state_dir
        """Where its files travel through."""

    @property
    def controls(self) -> bool:
        """Whether this is the control socket."""
        return self.socket.name == CONTROL_SOCKET


@dataclass(frozen=True)
class _Home:
    """Where a daemon may be."""

    runtime_dir: Path
    state_dir: Path


def _homes(place: Place) -> list[_Home]:
    state = configuration.state_dir(place.state_dir)
    homes = [_Home(configuration.runtime_dir(place.runtime_dir, state), state)]
    said = place.runtime_dir or os.environ.get("RUNTIME_DIRECTORY")
    if not said and homes[0].runtime_dir != SYSTEM_RUNTIME:
        said_state = place.state_dir or os.environ.get("STATE_DIRECTORY")
        homes.append(_Home(SYSTEM_RUNTIME, state if said_state else SYSTEM_STATE))
    return homes


@contextmanager
def control(place: Place, *, timeout_seconds: float = TIMEOUT_SECONDS) -> Iterator[Daemon]:
    """A connection to the control socket, where an answer may take so long; raises NoDaemon."""
    with _connected(place, (CONTROL_SOCKET,), timeout_seconds) as daemon:
        yield daemon


@contextmanager
def any_socket(place: Place) -> Iterator[Daemon]:
    """A connection to the control socket, or where it cannot be opened to the submit socket; raises NoDaemon."""
    with _connected(place, (CONTROL_SOCKET, SUBMIT_SOCKET)) as daemon:
        yield daemon


def find_socket(place: Place) -> tuple[Path, Path]:
    """The socket that `any_socket` would take, for those who speak for themselves, and the state directory."""
    with any_socket(place) as daemon:
        return daemon.socket, daemon.state_dir


@contextmanager
def _connected(place: Place, names: tuple[str, ...], timeout_seconds: float = TIMEOUT_SECONDS) -> Iterator[Daemon]:
    failures: list[tuple[Path, Unreachable]] = []
    for home in _homes(place):
        for name in names:
            path = home.runtime_dir / name
            connecting = BlockingClient.connect(path, timeout_seconds=timeout_seconds)
            try:
                client = connecting.__enter__()
            except Unreachable as unreachable:
                failures.append((path, unreachable))
                continue
            try:
                yield Daemon(client, path, home.state_dir)
            finally:
                client.close()
            return
    raise NoDaemon(_what_was_tried(failures))


def _what_was_tried(failures: list[tuple[Path, Unreachable]]) -> str:
    for path, failure in failures:
        if isinstance(failure.__cause__, OSError) and failure.__cause__.errno in (errno.EACCES, errno.EPERM):
            group = "leadline-admin" if path.name == CONTROL_SOCKET else "leadline-submit"
            return (
                f"You may not open {path}: that takes a member of its group, which is {group} in a usual installation"
            )
    tried = " nor at ".join(str(path) for path, _ in failures)
    return f"No daemon answers at {tried}: start one with `leadline serve`, or say with --runtime-dir where it is"
