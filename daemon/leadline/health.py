"""How the daemon is: what the service manager and the watchdog are told, and how late the event loop is."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import anyio

from leadline.actors.pace import Progress
from leadline.actors.supervisor import Supervisor
from leadline.adapters.systemd import ServiceManager

LAG_PROBE_SECONDS: Final = 1.0
STATUS_SECONDS: Final = 10.0
"""Least time between two lines for the service manager."""


class Health:
    """What is told of the queue: to the service manager by itself, and to whoever asks whether it is ready."""

    def __init__(self, supervisor: Supervisor, service: ServiceManager, lag: "LoopLag") -> None:
        self._supervisor = supervisor
        self._service = service
        self._lag = lag
        self._depth = _StatusLine(self._queue_depth, service.status)

    def is_ready(self) -> bool:
        """Whether the queue takes work, and will go on with it."""
        reign = self._supervisor.reign
        return reign is not None and not reign.dispatcher.scheduler.draining

    async def report(self) -> None:
        """Keep the service manager informed, and its watchdog fed while the queue gets on."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._service.feed_watchdog, Progress(self._turns, time.monotonic))
            tasks.start_soon(self._lag.measure)
            await self._supervisor.until_ready()
            self._service.ready()
            self._supervisor.announcer.decided = self._depth.changed
            self._depth.changed()

    def _turns(self) -> int | None:
        """Between reigns the supervisor tries again and again, which is all that can be done."""
        reign = self._supervisor.reign
        return None if reign is None else reign.dispatcher.turns

    def _queue_depth(self) -> str:
        reign = self._supervisor.reign
        if reign is None:
            return "waiting for the database"
        scheduler = reign.dispatcher.scheduler
        queued, running = sum(scheduler.backlog.queued.values()), len(scheduler.running)
        return f"{queued} jobs queued, {running} running" + (", draining" if scheduler.draining else "")


class _StatusLine:
    """The line for `systemctl status`, said again when it has changed, and never often."""

    def __init__(self, text: Callable[[], str], say: Callable[[str], None]) -> None:
        self._text = text
        self._say = say
        self._said = ""
        self._timer: asyncio.TimerHandle | None = None

    def changed(self) -> None:
        """Something was decided: say how it is, at once where that was not done lately."""
        if self._timer is None:
            self._tell()
            self._timer = asyncio.get_running_loop().call_later(STATUS_SECONDS, self._rested)

    def _rested(self) -> None:
        self._timer = None
        if self._text() != self._said:
            self.changed()

    def _tell(self) -> None:
        text = self._text()
        if text != self._said:
            self._said = text
            self._say(text)


class LoopLag:
    """How late the event loop was at its worst, over about the last minute."""

    def __init__(self) -> None:
        self.worst = 0.0

    async def measure(self) -> None:
        """For as long as the daemon runs."""
        while True:
            before = time.monotonic()
            await anyio.sleep(LAG_PROBE_SECONDS)
            late = time.monotonic() - before - LAG_PROBE_SECONDS
            self.worst = max(late, self.worst * 0.95)
