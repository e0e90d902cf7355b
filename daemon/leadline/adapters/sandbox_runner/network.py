"""The internet for a sandbox, and nothing of what is nearer.

A sandbox has a network of its own with nobody in it. Where its code may reach the internet, slirp4netns stands outside
and makes the connections that are asked for inside, as any program of its user might. What can be asked for is decided
by the table of routes inside, which is made from here and which nobody inside may change: there is no way to what is
denied. That is whatever is not on the public internet, and all addresses that this machine has when the run begins; the
three ranges that are set aside for documentation stand for the internet, in tests. Names are resolved by slirp4netns
alone, at an address that answers nothing else. It is IPv4 only.

slirp4netns reads what tenants send, so it gets little: as root it runs as the user of the run, and it never has a right
to anything or may start a program.
"""

import fcntl
import os
import re
import select
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final

from leadline.adapters.sandbox_runner.entrance import enter_network
from leadline.adapters.sandbox_runner.processes import SEARCH_PATH
from leadline.ports.runner import NetworkMissing

DENIED: Final = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4",
)  # fmt: skip
"""What is not on the public internet, by IANA's registry of special-purpose addresses, less those for documentation."""

ADDRESS, GATEWAY, NAMESERVER = "10.0.2.100", "10.0.2.2", "10.0.2.3"
"""As slirp4netns has them."""

DEVICE: Final = "tap0"
TUN: Final = Path("/dev/net/tun")
TOOLS: Final = {"slirp4netns": "slirp4netns", "ip": "iproute2"}
"""The programs that it takes, with their packages."""

READY_SECONDS_MAX: Final = 10.0
NS_GET_USERNS: Final = 0xB701
"""See ioctl_ns(2)."""


class NoNetwork(Exception):
    """There is no network; the message says why."""


def check(reaches: Sequence[str]) -> None:
    """Whether a sandbox can be given these networks here. Raises NetworkMissing."""
    for text in reaches:
        network = IPv4Network(text)
        if any(network.subnet_of(IPv4Network(denied)) for denied in DENIED):
            raise NetworkMissing(f"{text} is not on the public internet, and never reached")
    missing = [package for tool, package in TOOLS.items() if _found(tool) is None]
    if missing:
        raise NetworkMissing(f"the internet is reached from a sandbox by way of: apt-get install {' '.join(missing)}")
    others = os.geteuid() == 0  # as whom slirp4netns runs
    if not TUN.exists() or (TUN.stat().st_mode & 0o006 != 0o006 if others else not os.access(TUN, os.R_OK | os.W_OK)):
        raise NetworkMissing(f"the internet is reached from a sandbox by way of a device: chmod 0666 {TUN}")


def connect(first: int, reaches: Sequence[str], enter: Callable[[], None]) -> "subprocess.Popen[bytes]":
    """Give networks to the sandbox whose first process that is. Raises NoNetwork, OSError.

    Returns slirp4netns; `enter` is what it does before it becomes that.
    """
    with ExitStack() as opened:
        net = os.open(f"/proc/{first}/ns/net", os.O_RDONLY)
        opened.callback(os.close, net)
        user = fcntl.ioctl(net, NS_GET_USERNS)  # whose owner may configure it
        opened.callback(os.close, user)
        ready, tell = os.pipe()
        opened.callback(os.close, ready)
        command = [
            *(_found("slirp4netns") or "slirp4netns", "--disable-host-loopback", "--enable-seccomp", "--mtu=65520"),
            *("--netns-type=path", f"--userns-path=/proc/self/fd/{user}", f"--ready-fd={tell}"),
            *(f"/proc/self/fd/{net}", DEVICE),
        ]
        try:
            slirp = subprocess.Popen(  # noqa: S603  our own words
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={},
                pass_fds=[net, user, tell],
                preexec_fn=enter,  # noqa: PLW1509  there is one thread
            )
        finally:
            os.close(tell)
        try:
            answered, _, _ = select.select([ready], [], [], READY_SECONDS_MAX)
            if not answered or not os.read(ready, 1):
                raise NoNetwork("slirp4netns does not come up")
            _configure(net, user, routes(reaches, host_addresses()))
        except BaseException:
            slirp.kill()
            slirp.wait()
            raise
    return slirp


def routes(reaches: Iterable[str], hosts: Iterable[str]) -> str:
    """The commands to ip(8) that make the table: the more exact route wins, and those to what is denied are."""
    lines = [
        f"link set {DEVICE} up",
        f"addr add {ADDRESS}/32 dev {DEVICE}",
        f"route add {GATEWAY}/32 dev {DEVICE}",
        f"route add {NAMESERVER}/32 dev {DEVICE}",
    ]
    lines += [f"route add {IPv4Network(network)} via {GATEWAY} dev {DEVICE}" for network in reaches]
    lines += [f"route replace prohibit {network}" for network in (*DENIED, *(f"{host}/32" for host in hosts))]
    return "\n".join([*lines, ""])


def host_addresses() -> Sequence[str]:
    """The IPv4 addresses of this machine that a route to what is denied does not cover."""
    table = Path("/proc/net/fib_trie").read_text()
    found = dict.fromkeys(re.findall(r"\|-- (\S+)\n\s+/32 host LOCAL", table))
    denied = [IPv4Network(network) for network in DENIED]
    return [host for host in found if not any(IPv4Network(host).subnet_of(network) for network in denied)]


def _configure(net: int, user: int, commands: str) -> None:
    done = subprocess.run(  # noqa: S603  our own words
        [_found("ip") or "ip", "-4", "-batch", "-"],
        input=commands.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={},
        preexec_fn=lambda: enter_network(user, net),
        check=False,
    )
    if done.returncode != 0:
        raise NoNetwork(f"routes could not be made: {done.stdout.decode(errors='replace').strip()}")


def _found(tool: str) -> str | None:
    return shutil.which(tool, path=SEARCH_PATH)
