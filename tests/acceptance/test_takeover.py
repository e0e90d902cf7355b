"""A daemon that hangs is replaced by another, wakes up in the middle of what it did, and does no harm.

It is stopped as SIGSTOP stops it, at the moments that matter most, and woken when its successor has gone on for a
while. The oracle is the provider's own log: a lead may be asked about again only where its call was on its way when the
first daemon was stopped, and no window of the limit may hold more than it allows, both daemons taken together.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from leadline_protocol import messages as wire
from leadline_protocol.ids import JobId
from tests.acceptance.stage import Stage, World, openai, people, stage
from tests.acceptance.test_crashes import (
    LIMITED,
    STORED,
    STORED_AT_LAST_US,
    TASKS,
    WINDOW_CALLS,
    WINDOW_SECONDS,
    Question,
    asked_though_stored,
    repeated_without_need,
    slow_ai,
    stored,
)
from tests.postgres import database, meddle
from tests.world.behaviours import score_of
from tests.world.log import read_clocks
from tests.world.servers import Served
from tests.world.windows import worst_window

__all__ = ["database"]

STOPPING: Final = [sys.executable, "-m", "tests.acceptance.stopping_daemon"]
LEADS: Final = 60
REPLACED: Final = 1
"""The exit status of a daemon that finds itself replaced."""


def score() -> wire.Enrich:
    """Ask about each lead once."""
    return wire.Enrich(
        teamspace="acme",
        table="people",
        module="ai_prompt",
        into={"score": "number"},
        params={"prompt": "Score this lead, only the number: {{email}}"},
    )


def begin(daemon: Stage) -> JobId:
    daemon.table("acme", "people", people(LEADS))
    return daemon.submit(score()).job


def is_stopped(process: int) -> bool:
    """Whether every thread of a process stands still."""
    tasks = Path(f"/proc/{process}/task").iterdir()
    return all((task / "stat").read_text().rpartition(")")[2].split()[0] == "T" for task in tasks)


def until_stopped(process: int, *, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_stopped(process):
        assert time.monotonic() < deadline, "it was not stopped"
        time.sleep(0.01)


class Stopped:
    """A daemon on a database of its own choice that has been stopped, and its job."""

    def __init__(self, daemon: Stage, job: JobId, process: "subprocess.Popen[bytes]") -> None:
        self.daemon = daemon
        self.job = job
        self.process = process
        self.stopped_us = read_clocks().instant

    def stored(self, database: str) -> tuple[int, set[Question]]:
        """What the database holds the answers to, and a moment at which all of them were in it."""

        async def ask() -> set[Question]:
            async with meddle(database) as connection:
                return {(email, TASKS[0]) for _, email in await connection.fetch(STORED, [self.job])}

        held = asyncio.run(ask())
        return read_clocks().instant, held

    def wake(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def last_word(self) -> str:
        return self.daemon.log.read_text(encoding="utf-8").splitlines()[-1]


@contextmanager
def stopped(place: str, ai: Served, database: str, monkeypatch: pytest.MonkeyPatch, mark: Path) -> Iterator[Stopped]:
    """A daemon that has stopped itself at that place."""
    monkeypatch.setenv("LEADLINE_STOPS", place)
    monkeypatch.setenv("LEADLINE_STOPPED", str(mark))
    configuration = f'[database]\nurl = "{database}"\n\n' + openai(ai, settings=LIMITED)
    older = Stage(configuration, command=STOPPING)
    try:
        job = begin(older)
        process = older.process
        until_stopped(process.pid)
        yield Stopped(older, job, process)
    finally:
        older.process.send_signal(signal.SIGCONT)  # does nothing to one that has ended
        older.remove()


def in_its_place(ai: Served, database: str) -> "Stage":
    """A second daemon on the same database, elsewhere."""
    configuration = f'[database]\nurl = "{database}"\n\n' + openai(ai, settings=LIMITED)
    return Stage(configuration, options=["--takeover"])


def scores(daemon: Stage) -> dict[str, str]:
    return {row["email"]: row["score"] for row in daemon.rows("acme", "people")}


EXPECTED: Final = {str(person["email"]): str(score_of(str(person["email"]))) for person in people(LEADS)}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("place", ["permit", "sent", "work", "commit"])
def test_a_daemon_that_was_stopped_and_replaced_steps_down_when_it_wakes(
    world: World, database: str, place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ai = slow_ai(world)
    with stopped(place, ai, database, monkeypatch, tmp_path / "stopped") as older:
        held = [older.stored(database)]
        before = len(ai.calls)
        newer = in_its_place(ai, database)
        try:
            world.until(ai, lambda calls: len(calls) >= before + WINDOW_CALLS)
            held.append(older.stored(database))
            older.wake()
            assert older.process.wait(60) == REPLACED
            assert older.last_word().startswith("leadline: this daemon has been replaced by ")
            assert older.last_word().endswith(f" pid {newer.pid}")
            view = newer.ended(older.job)
            assert (view.state, view.counts.done) == ("completed", LEADS)
            assert scores(newer) == EXPECTED
            assert asked_though_stored(ai.calls, held) == []
            assert repeated_without_need(ai.calls, [older.stopped_us], stored_within_us=STORED_AT_LAST_US) == []
            assert worst_window([call.arrived_us for call in ai.calls], WINDOW_SECONDS) <= WINDOW_CALLS
        finally:
            newer.remove()


@pytest.mark.timeout(180)
def test_without_an_end_of_permits_the_woken_daemon_would_ask_once_more(
    world: World, database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The control: what the last look of the test above keeps from happening is seen."""
    monkeypatch.setenv("LEADLINE_UNGUARDED", "1")
    ai = slow_ai(world)
    with stopped("permit", ai, database, monkeypatch, tmp_path / "stopped") as older:
        newer = in_its_place(ai, database)
        try:
            newer.ended(older.job)
            held = [older.stored(database)]
            older.wake()
            assert older.process.wait(60) == REPLACED
            world.until(ai, lambda calls: asked_though_stored(calls, held) != [])
        finally:
            newer.remove()


def test_a_second_daemon_is_told_who_has_the_database_and_how_to_take_it(
    world: World, database: str, tmp_path: Path
) -> None:
    with stage(f'[database]\nurl = "{database}"\n') as daemon:
        elsewhere = ["--state-dir", str(tmp_path / "state"), "--runtime-dir", str(tmp_path / "run")]
        ran = subprocess.run(
            [*daemon.command("serve")[:2], "--config", daemon.configuration, *elsewhere],
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 1
        last = ran.stderr.splitlines()[-1]
        assert f"pid {daemon.pid}: end that daemon first, or start this one with --takeover" in last
        assert daemon.submit(wire.Noop(teamspace="acme")).job, "and the first one goes on"


@pytest.mark.timeout(180)
def test_a_daemon_that_hangs_on_its_state_directory_is_killed_and_its_work_goes_on(world: World) -> None:
    ai = slow_ai(world)
    with stage(openai(ai, settings=LIMITED)) as daemon:
        job = begin(daemon)
        stops_us = []
        held = []
        for moment in (10, 25, 40):
            world.until(ai, lambda calls, moment=moment: len(calls) >= moment)  # type: ignore[misc]
            os.kill(daemon.pid, signal.SIGSTOP)
            until_stopped(daemon.pid)
            stops_us.append(read_clocks().instant)
            held.append(stored(daemon, [job]))
            refused = daemon.leadline("serve")
            assert refused.returncode == 1
            assert f"is in use by pid {daemon.pid} on " in refused.stderr
            assert "start with --takeover" in refused.stderr
            before = daemon.take_over()
            assert before.wait(10) == -signal.SIGKILL, "its files, sockets and Postgres are the other one's now"
        view = daemon.ended(job)
        assert (view.state, view.counts.done) == ("completed", LEADS)
        assert scores(daemon) == EXPECTED
        assert asked_though_stored(ai.calls, held) == []
        assert repeated_without_need(ai.calls, stops_us, stored_within_us=STORED_AT_LAST_US) == []
        assert worst_window([call.arrived_us for call in ai.calls], WINDOW_SECONDS) <= WINDOW_CALLS
