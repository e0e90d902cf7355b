"""A machine and the internet, each a network namespace, with a wire between them. Needs root, ip(8) and nsenter(1).

What stands for the internet are addresses that are set aside for documentation (RFC 5737), so that what is held to the
public internet may be let there, and nobody real is ever asked.
"""

import ctypes
import itertools
import os
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from leadline.adapters.sandbox_runner.processes import SEARCH_PATH

ADDRESSES = ("198.51.100.1", "203.0.113.5")
"""Those of the internet's servers."""

MACHINE = "198.51.100.2"
"""That of the machine."""

ENVIRONMENT = {**os.environ, "PATH": SEARCH_PATH}

_numbers = itertools.count(1)


class Internet:
    """Two namespaces, until the stack is unwound."""

    def __init__(self, stack: ExitStack, *, also: Sequence[str] = ()) -> None:
        """`also` are further addresses of the servers at the other end of the wire."""
        number = f"{os.getpid()}-{next(_numbers)}"
        self.machine, self.servers = (f"leadline-{name}-{number}" for name in ("machine", "internet"))
        for name in (self.machine, self.servers):
            ip("netns", "add", name)
            stack.callback(ip, "netns", "delete", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", self.machine, "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", self.servers)
        ip("-n", self.machine, "addr", "add", f"{MACHINE}/24", "dev", "wire")
        for address in (*ADDRESSES, *also):
            ip("-n", self.servers, "addr", "add", f"{address}/24", "dev", "wire")
        for name in (self.machine, self.servers):
            ip("-n", name, "link", "set", "wire", "up")
        ip("-n", self.machine, "route", "add", "default", "via", ADDRESSES[0])

    def enter_servers(self) -> None:
        """Have the sockets of this thread be among the servers from now on."""
        libc = ctypes.CDLL(None, use_errno=True)
        with Path("/run/netns", self.servers).open() as namespace:
            if libc.setns(namespace.fileno(), 0) != 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def on_machine(self, command: Sequence[str]) -> list[str]:
        """The command that runs another one on the machine, and is replaced by it."""
        return ["nsenter", f"--net=/run/netns/{self.machine}", *command]


def ip(*words: str) -> None:
    """Run ip(8)."""
    subprocess.run(["ip", *words], check=True, env=ENVIRONMENT)
