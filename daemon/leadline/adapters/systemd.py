"""What a service and systemd say to each other: sd_notify(3) and sd_listen_fds(3), too small to need a library.

Both ride on environment variables that are meant for the daemon alone. They are taken out of the environment when they
are read, so that no child mistakes itself for the service. Outside systemd the variables are missing, nothing is said
and nothing is listened on: the daemon need not ask where it runs.
"""

import os
import socket
import time
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import Final

import anyio

LISTEN_FDS_START: Final = 3
"""The first inherited descriptor (sd-daemon.h: SD_LISTEN_FDS_START)."""
SEND_SECONDS_MAX: Final = 1.0
"""How long a notice may wait for a service manager that does not read; then it is dropped."""


class BadActivation(Exception):
    """The sockets handed over are not what their variables announce."""


def has_started_us(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this is the process that systemd has started for a service (systemd.exec(5))."""
    return environment.get("SYSTEMD_EXEC_PID") == str(os.getpid())


class ServiceManager:
    """The systemd that started us, if one did. Notices never raise: no daemon should fall because nobody listens."""

    def __init__(self, environment: MutableMapping[str, str] = os.environ):
        address = environment.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        usec = environment.pop("WATCHDOG_USEC", "")
        meant = environment.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.beat_seconds: Final = int(usec) / 2_000_000 if usec.isdigit() and int(usec) > 0 and meant else None
        """How often the watchdog wants to hear from us: twice in its period. None: there is no watchdog."""

    def ready(self) -> None:
        """Start-up, or a reload, is complete."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send("STATUS=" + " ".join(text.split()))

    def reloading(self) -> None:
        """A reload has begun; `ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """The daemon drains."""
        self._send("STOPPING=1")

    async def feed_watchdog(self, healthy: Callable[[], bool]) -> None:
        """Beats for as long as the event loop turns and `healthy` says so; returns at once where nobody watches."""
        if self.beat_seconds is None:
            return
        while True:
            if healthy():
                self._send("WATCHDOG=1")
            await anyio.sleep(self.beat_seconds)

    def _send(self, notice: str) -> None:
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.settimeout(SEND_SECONDS_MAX)
            out.sendto(notice.encode(), self._address)


def activated_sockets(environment: MutableMapping[str, str] = os.environ) -> dict[str, socket.socket]:
    """The listening sockets that systemd opened for us, by FileDescriptorName=; empty where it opened none.

    Raises BadActivation when two have the same name, or a descriptor is no socket.
    """
    meant = environment.pop("LISTEN_PID", "") == str(os.getpid())
    count = environment.pop("LISTEN_FDS", "0")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    if not meant or count == "0":
        return {}
    if not count.isdigit() or len(names) != int(count) or len(set(names)) != len(names):
        raise BadActivation(f"LISTEN_FDS={count} with LISTEN_FDNAMES={':'.join(names)}: give each socket its own name")
    found = {}
    for descriptor, name in enumerate(names, LISTEN_FDS_START):
        try:
            os.set_inheritable(descriptor, False)
            found[name] = socket.socket(fileno=descriptor)
        except OSError as error:
            raise BadActivation(f"descriptor {descriptor} ({name}) is not a socket: {error.strerror}") from error
    return found
