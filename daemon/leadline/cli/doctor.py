"""`doctor`: everything that the daemon needs, checked from outside, in plain sentences.

Each check looks at one thing and says how it is: fine, worth knowing, or a fault that keeps the daemon from doing its
work. A check that finds a fault says what to do about it, and the others go on.
"""

import ctypes
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from msgspec import Struct

from leadline import config as configuration
from leadline.cli import terminal
from leadline.cli.configuration import check_providers
from leadline.cli.daemon import Daemon, NoDaemon, Place, Placed, any_socket
from leadline.cli.doctor_batch import batch
from leadline.cli.doctor_outreach import outreach
from leadline.cli.files import EXPORTS, INCOMING
from leadline.cli.jobs import Json
from leadline.cli.words import shown, size, span
from leadline.config import Config, ConfigError, OwnKey, Provider, PythonModule, Smtp, TeamspaceNotices
from leadline_protocol.errors import LeadlineError, Refused
from leadline_protocol.messages import Ping, Status, StatusReply

Finding = Literal["fine", "note", "fault"]

PYTHON_MIN: Final = (3, 11)
POSTGRES_MIN: Final = 140_000
FREE_BYTES_MIN: Final = 200_000_000
FREE_BYTES_LOW: Final = 2_000_000_000
COMMIT_SECONDS_SLOW: Final = 0.02
CLOCK_SECONDS_OFF: Final = 1.0
DATABASE_SECONDS: Final = 10.0


class Found(Struct, frozen=True, gc=False):
    """What a check found."""

    check: str
    finding: Finding
    message: str


def doctor(*, place: Placed, json: Json = False) -> int:
    """Check all that the daemon needs, and say what is wrong; the exit status is 1 if there is a fault."""
    faults = 0
    for found in _checked(place):
        faults += found.finding == "fault"
        if json:
            terminal.json_line(found)
        else:
            _show(found)
    if not json:
        terminal.say()
        if faults:
            terminal.say(f"{faults} thing{'s' if faults > 1 else ''} must be put right.")
        else:
            terminal.say("Nothing is wrong.")
    return int(faults > 0)


def _show(found: Found) -> None:
    word = {
        "fine": terminal.paint("fine ", "green"),
        "note": terminal.paint("note ", "yellow"),
        "fault": terminal.paint("FAULT", "red"),
    }
    terminal.say(f"{word[found.finding]}  {found.check:<13} {shown(found.message)}")
    sys.stdout.flush()


def _checked(place: Place) -> Iterator[Found]:
    yield from _guarded("python", _python)
    config, faults = _configuration(place)
    yield from faults
    if config is not None:
        yield from _guarded("secrets", lambda: _secrets(config))
    state = configuration.state_dir(place.state_dir)
    yield from _guarded("state", lambda: _state(state))
    yield from _guarded("disk", lambda: _disk(_existing(state)))
    yield from _guarded("clock", _clock)
    yield from _guarded("daemon", lambda: _daemon(place))
    if config is not None:
        yield from _guarded("database", lambda: _database(config))
        yield from _guarded("batch jobs", lambda: batch(config, _status(place)))
        yield from _guarded("outreach", lambda: outreach(config, place))


def _guarded(check: str, look: Callable[[], Iterator[tuple[Finding, str]]]) -> Iterator[Found]:
    """What a check finds; that it cannot be made is a finding too."""
    try:
        for finding, message in look():
            yield Found(check, finding, message)
    except (OSError, LeadlineError, NoDaemon) as error:
        yield Found(check, "fault", str(error))


def _python() -> Iterator[tuple[Finding, str]]:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < PYTHON_MIN:
        yield "fault", f"Python is {version}; Leadline needs {'.'.join(map(str, PYTHON_MIN))} or later."
    elif sys.platform != "linux":
        yield "fault", f"This is {sys.platform}; Leadline runs on Linux."
    else:
        yield "fine", f"Python is {version}."


def _configuration(place: Place) -> tuple[Config | None, list[Found]]:
    check = "configuration"
    try:
        config = configuration.load(place.config)
        check_providers(config)
    except ConfigError as error:
        return None, [Found(check, "fault", str(fault)) for fault in error.faults]
    if config.path is None:
        return config, [Found(check, "fine", "There is no file; everything is as it is built in.")]
    return config, [Found(check, "fine", f"{config.path} is sound.")]


def _secrets(config: Config) -> Iterator[tuple[Finding, str]]:
    """Files with secrets are for their owner alone, or for a group."""
    keys: list[Provider | OwnKey | PythonModule | Smtp | TeamspaceNotices] = [*config.providers.values()]
    keys += [*config.modules.values(), config.notices.smtp, config.outreach.smtp, *config.notices.teamspaces.values()]
    keys += (key for provider in config.providers.values() for key in provider.own.values())
    files = {key.secret_file for key in keys if key.secret_file is not None}
    holds_secrets = config.database.url is not None or any(
        key.secret is not None and key.secret_file is None for key in keys
    )
    if config.path is not None and holds_secrets:
        files.add(configuration.File(config.path))
    open_files = [file for file in sorted(files) if file.stat().st_mode & stat.S_IROTH]
    for file in open_files:
        yield "note", f"Everybody on this machine can read {file}, which holds a secret: chmod o-r {file}"
    if files and not open_files:
        yield "fine", "1 file holds secrets." if len(files) == 1 else f"{len(files)} files hold secrets."


def _state(state: Path) -> Iterator[tuple[Finding, str]]:
    if not state.exists():
        parent = _existing(state)
        if os.access(parent, os.W_OK | os.X_OK):
            yield "fine", f"{state} does not exist yet; the daemon makes it when it starts."
        else:
            yield (
                "fault",
                f"{state} does not exist and this user may not make it: say --state-dir, or run as the daemon's user.",
            )
        return
    if not os.access(state, os.W_OK | os.X_OK):
        yield "note", f"This user may not write to {state}; the daemon's user must be able to."
    else:
        yield "fine", f"{state} can be written to."
    incoming = state / INCOMING
    if incoming.exists():
        mode = incoming.stat().st_mode
        if not mode & stat.S_ISVTX or not mode & stat.S_IWGRP:
            yield "fault", f"{incoming} must be writable for its group and sticky: chmod 3770 {incoming}"
        if not os.access(incoming, os.W_OK | os.X_OK):
            yield "note", f"This user may not put files into {incoming}; `leadline upload` takes a member of its group."
    exports = state / EXPORTS
    if exports.exists() and not os.access(exports, os.R_OK | os.X_OK):
        yield "note", f"This user may not read {exports}, where exported files are."


def _disk(folder: Path) -> Iterator[tuple[Finding, str]]:
    free = shutil.disk_usage(folder).free
    if free < FREE_BYTES_MIN:
        yield "fault", f"Only {size(free)} are free where {folder} is; the database needs room to work."
    elif free < FREE_BYTES_LOW:
        yield "note", f"{size(free)} are free where {folder} is; that will not last long."
    else:
        yield "fine", f"{size(free)} are free where {folder} is."
    if os.access(folder, os.W_OK):
        seconds = _commit_seconds(folder)
        slow = seconds > COMMIT_SECONDS_SLOW
        yield (
            "note" if slow else "fine",
            f"Writing to the disk for good takes {1000 * seconds:.1f} ms there"
            + ("; each commit waits that long." if slow else "."),
        )


def _commit_seconds(folder: Path) -> float:
    """The median of a few writes of a page with fdatasync."""
    taken = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(7):
            before = time.monotonic()
            file.write(bytes(8192))
            file.flush()
            os.fdatasync(file.fileno())
            taken.append(time.monotonic() - before)
    return sorted(taken)[len(taken) // 2]


def _clock() -> Iterator[tuple[Finding, str]]:
    now = datetime.now(UTC)
    if now.year < 2026:
        yield "fault", f"The clock says {now:%Y-%m-%d %H:%M} UTC, which is long ago: set it."
        return
    if _is_synchronised():
        yield "fine", "The clock is kept right by the network."
    else:
        yield "note", "Nothing keeps the clock right; schedules and run_at follow it: enable NTP."


_TIME_ERROR: Final = 5
"""What adjtimex(2) returns where the kernel's clock is not synchronised."""


def _is_synchronised() -> bool:
    buffer = ctypes.create_string_buffer(512)  # a struct timex of nothing but zeros only asks
    return ctypes.CDLL(None, use_errno=True).adjtimex(buffer) not in (-1, _TIME_ERROR)


def _daemon(place: Place) -> Iterator[tuple[Finding, str]]:
    try:
        with any_socket(place) as daemon:
            yield from _answers(daemon)
    except NoDaemon as error:
        yield "note", f"{error}."
    except Refused as refusal:
        yield "fault", f"The daemon is there, but not ready: {refusal}."


def _answers(daemon: Daemon) -> Iterator[tuple[Finding, str]]:
    from importlib.metadata import version

    before = time.monotonic()
    pong = daemon.client.call(Ping())
    yield "fine", f"It answers at {daemon.socket}, in {span(time.monotonic() - before)}."
    if pong.version != version("leadline"):
        yield "note", f"It is Leadline {pong.version} and this command {version('leadline')}: restart it to upgrade."
    if not daemon.controls:
        yield "note", "This user may submit, but not open the control socket: that takes a member of its group."
        return
    status = daemon.client.call(Status())
    for warning in status.warnings:
        yield "note", warning.message
    if not status.database.reachable:
        yield "fault", "It cannot reach its database; it takes no work until it can."


def _status(place: Place) -> StatusReply | None:
    """What the daemon says of itself; None where it says nothing to this user."""
    try:
        with any_socket(place) as daemon:
            return daemon.client.call(Status()) if daemon.controls else None
    except (NoDaemon, Refused):
        return None


def _database(config: Config) -> Iterator[tuple[Finding, str]]:
    if config.database.url is None:
        yield "fine", "None is configured; the daemon brings its own and sees to its settings."
        return
    import asyncio

    import asyncpg

    try:
        facts = asyncio.run(_facts(config.database.url))
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        reason = str(error) or type(error).__name__
        yield "fault", f"The Postgres of database.url cannot be reached: {reason}."
        return
    yield from judged(facts)


class DatabaseFacts(Struct, frozen=True, gc=False):
    """What a Postgres says of itself."""

    version: str
    version_number: int
    fsync: str
    synchronous_commit: str
    full_page_writes: str
    read_only: str
    encoding: str
    seconds_ahead: float
    """By how much its clock is ahead of ours."""


async def _facts(url: configuration.Secret) -> DatabaseFacts:
    import asyncpg

    connection = await asyncpg.connect(url.reveal(), timeout=DATABASE_SECONDS, command_timeout=DATABASE_SECONDS)
    try:
        before = time.time()
        row = await connection.fetchrow(
            "SELECT current_setting('server_version') AS version,"
            " current_setting('server_version_num')::int AS version_number, current_setting('fsync') AS fsync,"
            " current_setting('synchronous_commit') AS synchronous_commit,"
            " current_setting('full_page_writes') AS full_page_writes,"
            " current_setting('transaction_read_only') AS read_only,"
            " current_setting('server_encoding') AS encoding,"
            " extract(epoch FROM clock_timestamp())::float8 AS wall"
        )
        assert row is not None
        ahead = row["wall"] - (before + time.time()) / 2
        return DatabaseFacts(**{name: row[name] for name in DatabaseFacts.__struct_fields__[:-1]}, seconds_ahead=ahead)
    finally:
        await connection.close(timeout=1)


def judged(facts: DatabaseFacts) -> Iterator[tuple[Finding, str]]:
    """What is to be said of a database with these settings."""
    yield "fine", f"Postgres {facts.version} answers."
    if facts.version_number < POSTGRES_MIN:
        yield "fault", f"Postgres {facts.version} is too old; Leadline needs {POSTGRES_MIN // 10_000} or later."
    if facts.encoding != "UTF8":
        yield "fault", f"The database is in {facts.encoding}; Leadline needs one in UTF8."
    if facts.read_only == "on":
        yield "fault", "The database takes no writes: it is a standby, or set to read only."
    for name, value in (("fsync", facts.fsync), ("full_page_writes", facts.full_page_writes)):
        if value != "on":
            yield (
                "fault",
                f"{name} is {value}: a crash of the machine would lose jobs that were acknowledged; switch it on.",
            )
    if facts.synchronous_commit == "off":
        yield "note", "synchronous_commit is off by default; the daemon switches it on for itself."
    if abs(facts.seconds_ahead) > CLOCK_SECONDS_OFF:
        way = "ahead of" if facts.seconds_ahead > 0 else "behind"
        yield "note", f"The database's clock is {span(abs(facts.seconds_ahead))} {way} this machine's."


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that exists."""
    while not folder.exists():
        folder = folder.parent
    return folder
