"""What goes wrong: one class a fault, each with what it does and what must be seen of it at once.

A fault strikes while the load runs and returns when it is over: when the daemon takes work again, unless it was
expected not to. What it finds wrong by itself it returns as sentences; whether anything was lost is the oracles' to say
in the end. Whatever is random comes from the run's seed.
"""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Final, Literal

import asyncpg

from tests.chaos import disk as disks
from tests.chaos.ground import Ground
from tests.chaos.wire import Answered, Refused, ask
from tests.postgres_proxy import Cut, Drip

GroundName = Literal["home", "beyond"]

ENDS_WITHIN_SECONDS: Final = 20.0
"""A daemon that may not go on has ended by then."""

NOOP: Final = {"kind": "noop", "teamspace": "probe"}


class Fault:
    """One kind of misfortune."""

    name: ClassVar[str]
    grounds: ClassVar[Sequence[GroundName]]
    weight: ClassVar[int] = 1
    """How often it comes, beside the others."""

    @classmethod
    def missing(cls) -> str | None:
        """What this machine lacks for it; None: nothing."""
        return None

    def strike(self, ground: Ground, chance: random.Random) -> Iterator[str]:
        """Let it happen; yields what is wrong."""
        raise NotImplementedError


# -- the daemon --------------------------------------------------------------------------------------------------------


class Kill(Fault):
    """SIGKILL at a random moment of its life; the embedded Postgres goes with it."""

    name = "kill"
    grounds = ("home", "beyond")
    weight = 6

    def strike(self, ground: Ground, chance: random.Random) -> Iterator[str]:
        ground.daemon.kill()
        ground.start()
        yield from ()


class KillWhileStarting(Fault):
    """SIGKILL, and again before the next one has got anywhere."""

    name = "kill-starting"
    grounds = ("home", "beyond")
    weight = 2

    def strike(self, ground: Ground, chance: random.Random) -> Iterator[str]:
        ground.daemon.kill()
        process = ground.spawn()
        time.sleep(chance.uniform(0.2, 1.2))
        process.kill()
        ground.start()
        yield from ()


class Stop(Fault):
    """SIGTERM, and a new one: what a restart of the service does."""

    name = "restart"
    grounds = ("home", "beyond")

    def strike(self, ground: Ground, chance: random.Random) -> Iterator[str]:
        ground.daemon.signal(signal.SIGTERM)
        status = ground.daemon.ended_with(60.0)
        if status != 0:
            yield f"told to end, the daemon ended with {status}"
            ground.daemon.kill()
        ground.start()


class Freeze(Fault):
    """SIGSTOP for a moment, then SIGCONT: nobody has taken its place, so it goes on."""

    name = "freeze"
    grounds = ("home", "beyond")

    def strike(self, ground: Ground, chance: random.Random) -> Iterator[str]:
        ground.daemon.signal(signal.SIGSTOP)
        time.sleep(chance.uniform(0.5, 3.0))
        ground.daemon.signal(signal.SIGCONT)
        ground.until_ready()
        yield from ()


class TakeOver(Fault):
    """SIGSTOP, a new daemon elsewhere takes over, SIGCONT: the old one must notice and end.

    Half of the time it is stopped with a COMMIT on its way that the network delivers only when the new one reigns.
    """

    name = "takeover"
    grounds = ("beyond",)

    def strike(self, ground: Ground, chance: random.Random) -> Iterator[str]:
        assert ground.server is not None
        proxy = ground.server.proxy
        late = chance.random() < 0.5
        if late:
            ground.in_network(proxy.hold_next_commit)
            _wait(lambda: proxy.held, 2.0)
        old = ground.daemon
        old.signal(signal.SIGSTOP)
        ground.move()
        try:
            ground.daemon = ground.spawn("--takeover")
            ground.until_ready()
            time.sleep(chance.uniform(0.0, 0.3))
        finally:
            ground.in_network(proxy.let_go)
            old.signal(signal.SIGCONT)
        status = old.ended_with(ENDS_WITHIN_SECONDS)
        if status != 1:
            yield f"replaced and woken, the old daemon should end with 1 within {ENDS_WITHIN_SECONDS:g} s, not {status}"
            old.kill()


class TakeOverHere(Fault):
    """SIGSTOP, and a new daemon takes over on the same state directory: the old one is dead before the new one acts."""

    name = "takeover-here"
    grounds = ("home", "beyond")

    def strike(self, ground: Ground, chance: random.Random) -> Iterator[str]:
        old = ground.daemon
        old.signal(signal.SIGSTOP)
        ground.daemon = ground.spawn("--takeover")
        ground.until_ready()
        status = old.ended_with(0.0)
        if status is None:
            yield "two daemons on one state directory"
            old.kill()


class Second(Fault):
    """A second daemon on the same database or state directory must refuse to start, and name the owner."""

    name = "second"
    grounds = ("home", "beyond")

    def strike(self, ground: Ground, chance: random.Random) -> Iterator[str]:
        owner = f"pid {ground.daemon.pid}"
        before = ground.log.stat().st_size
        second = ground.spawn_beside() if ground.server is not None and chance.random() < 0.5 else ground.spawn()
        status = second.ended_with(ENDS_WITHIN_SECONDS)
        said = ground.log.read_bytes()[before:].decode(errors="replace")
        if status != 1 or owner not in said:
            yield f"a second daemon should have ended with 1 and named {owner}: it ended with {status}"
            second.kill()


# -- Postgres ----------------------------------------------------------------------------------------------------------


class Terminate(Fault):
    """pg_terminate_backend of all the daemon's sessions."""

    name = "terminate"
    grounds = ("home", "beyond")

    def strike(self, ground: Ground, chance: random.Random) -> Iterator[str]:
        with suppress(OSError, asyncpg.PostgresError):
            ground.query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'leadline %'"
            )
        ground.until_ready()
        yield from ()


class KillPostmaster(Fault):
    """SIGKILL of the postmaster; who is in charge of it starts it again."""

    name = "postmaster"
    grounds = ("home", "beyond")
    weight = 2

    def strike(self, ground: Ground, chance: random.Random) -> Iterator[str]:
        before = ground.postmaster()
        os.kill(before, signal.SIGKILL)
        yield from _after_restart(ground, before)


class RestartPostmaster(Fault):
    """SIGQUIT, an immediate shutdown: every session is cut off, and the next start recovers."""

    name = "immediate"
    grounds = ("home", "beyond")

    def strike(self, ground: Ground, chance: random.Random) -> Iterator[str]:
        before = ground.postmaster()
        os.kill(before, signal.SIGQUIT)
        yield from _after_restart(ground, before)


class ReadOnly(Fault):
    """The database takes no writes: nothing may be acknowledged, and the refusal says later."""

    name = "read-only"
    grounds = ("home", "beyond")

    def strike(self, ground: Ground, chance: random.Random) -> Iterator[str]:
        ground.query("ALTER SYSTEM SET default_transaction_read_only = on")
        ground.query("SELECT pg_reload_conf()")
        try:
            _until_refused(ground)
            deadline = time.monotonic() + chance.uniform(0.3, 2.0)
            while time.monotonic() < deadline:
                yield from _only_later(ground)
                time.sleep(0.05)
        finally:
            ground.query("ALTER SYSTEM RESET default_transaction_read_only")
            ground.query("SELECT pg_reload_conf()")
        ground.until_ready()


# -- the network between them ------------------------------------------------------------------------------------------


class CutCommit(Fault):
    """A connection is cut at its COMMIT: the server has carried it out, and nobody hears of it."""

    name = "commit-reply"
    grounds = ("beyond",)
    cut: ClassVar[Cut] = Cut.REPLY
    weight = 2

    def strike(self, ground: Ground, chance: random.Random) -> Iterator[str]:
        assert ground.server is not None
        proxy = ground.server.proxy

        def arm() -> None:
            proxy.has_cut.clear()
            proxy.cut = self.cut

        ground.in_network(arm)
        if not _wait(proxy.has_cut.is_set, 5.0):
            yield "no COMMIT came by"
        time.sleep(0.1)
        ground.until_ready()


class CutCommitRequest(CutCommit):
    """A connection is cut at its COMMIT: the server never sees it."""

    name = "commit-request"
    cut = Cut.REQUEST


class Partition(Fault):
    """Every connection is cut, and none can be made."""

    name = "partition"
    grounds = ("beyond",)

    def strike(self, ground: Ground, chance: random.Random) -> Iterator[str]:
        assert ground.server is not None
        proxy = ground.server.proxy

        def begin() -> None:
            proxy.refuses = True
            proxy.cut_all()

        def end() -> None:
            proxy.refuses = False

        ground.in_network(begin)
        deadline = time.monotonic() + chance.uniform(0.3, 3.0)
        while time.monotonic() < deadline:
            yield from _only_later(ground)
            time.sleep(0.05)
        ground.in_network(end)
        ground.until_ready()


class HalfOpen(Fault):
    """In one direction or both nothing arrives any more, and nobody is told; it ends by itself, or by a cut."""

    name = "half-open"
    grounds = ("beyond",)

    def strike(self, ground: Ground, chance: random.Random) -> Iterator[str]:
        assert ground.server is not None
        proxy = ground.server.proxy
        ways = chance.choice([[proxy.to_server], [proxy.to_client], [proxy.to_server, proxy.to_client]])
        cut = chance.random() < 0.5

        def begin() -> None:
            for way in ways:
                way.clear()

        def end() -> None:
            if cut:
                proxy.cut_all()
            for way in ways:
                way.set()

        ground.in_network(begin)
        time.sleep(chance.uniform(0.5, 4.0))
        ground.in_network(end)
        ground.until_ready()
        yield from ()


class Dripping(Fault):
    """What the server says comes a few bytes at a time."""

    name = "drip"
    grounds = ("beyond",)

    def strike(self, ground: Ground, chance: random.Random) -> Iterator[str]:
        assert ground.server is not None
        proxy = ground.server.proxy

        def drip(how: Drip | None) -> Callable[[], None]:
            def change() -> None:
                proxy.drip = how

            return change

        ground.in_network(drip(Drip(chance.choice([1, 7, 64]), chance.choice([0.002, 0.01]))))
        time.sleep(chance.uniform(0.5, 3.0))
        ground.in_network(drip(None))
        ground.until_ready()
        yield from ()


# -- the disk ----------------------------------------------------------------------------------------------------------


class DiskFault(Fault):
    """One that needs a disk of our own."""

    grounds = ("home",)

    @classmethod
    def missing(cls) -> str | None:
        return disks.missing()


class PowerCut(DiskFault):
    """The machine loses its power: of what was not flushed any sector may be lost. It boots, and all goes on."""

    name = "power-cut"
    weight = 3
    lingers: ClassVar[tuple[float, float]] = (0.0, 0.0)
    """Seconds from the moment in which the disk takes nothing more to the end of the processes."""

    def strike(self, ground: Ground, chance: random.Random) -> Iterator[str]:
        disk = ground.disk
        assert disk is not None
        kept, lost = disk.cut(chance.getrandbits(32), chance.choice([0.0, 0.5, 1.0]), chance.randrange(20))
        ground.sectors_kept += kept
        ground.sectors_lost += lost
        time.sleep(chance.uniform(*self.lingers))
        ground.daemon.kill()
        disk.unmount()
        disk.power()
        disk.mount()
        ground.start()
        yield from ()


class DyingDisk(PowerCut):
    """Every write and flush fails from one moment on, while everybody goes on asking; then the machine is rebooted."""

    name = "dying-disk"
    weight = 1
    lingers = (0.3, 2.0)


class SlowFlush(DiskFault):
    """Each flush takes long."""

    name = "slow-flush"

    def strike(self, ground: Ground, chance: random.Random) -> Iterator[str]:
        assert ground.disk is not None
        ground.disk.slow(chance.uniform(0.05, 0.8))
        time.sleep(chance.uniform(1.0, 3.0))
        ground.disk.slow(0.0)
        ground.until_ready()
        yield from ()


class FullDisk(DiskFault):
    """Something else fills the disk to the last byte, and later goes away."""

    name = "full-disk"

    def strike(self, ground: Ground, chance: random.Random) -> Iterator[str]:
        assert ground.disk is not None
        ballast = ground.disk.mountpoint / "ballast"
        deadline = time.monotonic() + chance.uniform(1.0, 4.0)
        try:
            while time.monotonic() < deadline:
                fill(ballast)
                time.sleep(0.05)
        finally:
            ballast.unlink()
            ground.disk.sync()  # else a power cut brings it back
        ground.until_ready()
        yield from ()


def fill(ballast: Path) -> None:
    """Make a file as large as the disk allows."""
    file = os.open(ballast, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        size = os.fstat(file).st_size
        step = 256 << 20
        while step >= 4096:
            try:
                os.posix_fallocate(file, size, step)
                size += step
            except OSError:
                step //= 4
    finally:
        os.close(file)


# -- what they share ---------------------------------------------------------------------------------------------------


def _only_later(ground: Ground) -> Iterator[str]:
    """A submission that cannot be stored is refused with `unavailable` and a time to come again."""
    outcome = ask(ground.control, NOOP)
    if isinstance(outcome, Answered):
        yield f"a receipt for job {outcome.reply['job']} although nothing can be stored"
    elif isinstance(outcome, Refused) and outcome.code != "unavailable":
        yield f"refused with {outcome.code} ({outcome.message}) where it should say unavailable"


def _until_refused(ground: Ground, *, seconds: float = 30.0) -> None:
    """Wait until the first submission is refused: backends read a new configuration one after the other."""
    deadline = time.monotonic() + seconds
    while not isinstance(ask(ground.control, NOOP), Refused):
        assert time.monotonic() < deadline, "everything is acknowledged although nothing can be stored"
        time.sleep(0.05)


def _after_restart(ground: Ground, before: int) -> Iterator[str]:
    daemon = ground.daemon.pid

    def restarted() -> bool:
        with suppress(OSError, ValueError, IndexError):
            return ground.postmaster() != before
        return False

    if not _wait(restarted, 20.0):
        yield "nobody has started Postgres again"
    ground.until_ready()
    if ground.daemon.pid != daemon or not ground.daemon.running:
        yield "the daemon has ended with its Postgres"


def _wait(true: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


FAULTS: Final[Mapping[str, type[Fault]]] = {
    fault.name: fault
    for fault in (
        Kill,
        KillWhileStarting,
        Stop,
        Freeze,
        TakeOver,
        TakeOverHere,
        Second,
        Terminate,
        KillPostmaster,
        RestartPostmaster,
        ReadOnly,
        CutCommit,
        CutCommitRequest,
        Partition,
        HalfOpen,
        Dripping,
        PowerCut,
        DyingDisk,
        SlowFlush,
        FullDisk,
    )
}
