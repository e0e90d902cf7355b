"""The embedded Postgres, with real servers that are killed in every way that the header of the adapter names."""

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from textwrap import dedent

import asyncpg
import pytest
import structlog

from leadline.adapters.embedded_postgres import (
    PAUSE_SECONDS_MAX,
    SETTINGS,
    STEADY_SECONDS,
    BinariesMissing,
    BinariesUnusable,
    DataDirectoryForeign,
    DataDirectoryInUse,
    EmbeddedPostgres,
    FolderUnusable,
    InitialisationFailed,
    StartFailed,
    StateDirectoryUnreachable,
    WrongMajorVersion,
    _candidates,
    embedded_postgres,
    pause_after,
)

ROOT = os.geteuid() == 0
STARTS = 5
"""A start during which the machine itself stood still is measured again."""

OWNER = """
    import asyncio, sys
    from pathlib import Path
    import asyncpg
    from leadline.adapters.embedded_postgres import embedded_postgres

    async def main():
        async with embedded_postgres(Path(sys.argv[1])) as postgres:
            connection = await asyncpg.connect(postgres.url)
            await connection.execute("CREATE TABLE kept (n int)")
            await connection.execute("INSERT INTO kept SELECT generate_series(1, 1000)")
            print(postgres.pid, flush=True)
            await asyncio.Event().wait()

    asyncio.run(main())
"""

# As root first: the interpreter may lie where an ordinary user cannot load anything, so everything is loaded before.
BECOMES_ORDINARY = """
    import asyncio, os, sys
    from pathlib import Path
    import asyncpg
    from leadline.adapters.embedded_postgres import embedded_postgres

    async def once(state_dir):
        async with embedded_postgres(Path(state_dir)) as postgres:
            os.environ.setdefault("LEADLINE_PG_BIN", os.path.dirname(os.readlink(f"/proc/{postgres.pid}/exe")))
            connection = await asyncpg.connect(postgres.url)
            rows = await connection.fetchval("SELECT count(*) FROM generate_series(1, 1000)")
            await connection.close()
            return os.stat(f"/proc/{postgres.pid}").st_uid, rows

    as_root, ordinary, uid, gid = sys.argv[1:]
    asyncio.run(once(as_root))
    os.setgroups([])
    os.setgid(int(gid))
    os.setuid(int(uid))
    print(*asyncio.run(once(ordinary)))
"""


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """An empty folder that any user can enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="leadline-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="session")
def template() -> Iterator[Path]:
    """A state directory for all tests, for `programs` to fill."""
    with tempfile.TemporaryDirectory(prefix="leadline-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
async def programs(template: Path) -> Path:
    """The programs that a server of this machine runs: installed ones, or a copy that it can reach."""
    noted = template / "programs"
    if not noted.exists():
        async with embedded_postgres(template) as postgres:
            noted.write_text(str(Path(f"/proc/{postgres.pid}/exe").readlink().parent))
    return Path(noted.read_text())


@pytest.fixture
def used_state_dir(programs: Path, template: Path, state_dir: Path) -> Path:
    """A state directory that a server has run in, without the seconds that making one takes."""
    subprocess.run(["cp", "-a", template / "pg", state_dir], check=True)
    return state_dir


async def value(postgres: EmbeddedPostgres, query: str) -> object:
    connection = await asyncpg.connect(postgres.url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def server_uid(postgres: EmbeddedPostgres) -> int:
    return Path(f"/proc/{postgres.pid}").stat().st_uid


async def until(condition: Callable[[], bool]) -> None:
    """Waits for something that gives no signal of its own: the end of a process that is not our child."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


@contextmanager
def owner_process(state_dir: Path) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """A process that owns a server and has committed 1,000 rows; with it the postmaster's pid."""
    process = subprocess.Popen([sys.executable, "-c", dedent(OWNER), state_dir], stdout=subprocess.PIPE)
    with process:
        try:
            assert process.stdout is not None
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def gone(pid: int) -> bool:
    """Whether a process has ended; where nobody reaps it, it stays as a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def test_an_empty_state_directory_becomes_a_server_that_nobody_else_can_reach(state_dir: Path) -> None:
    async with embedded_postgres(state_dir) as postgres:
        assert await value(postgres, "SELECT current_database()") == "leadline"
        assert postgres.major >= 14
        assert await value(postgres, "SELECT current_setting('server_version_num')::int / 10000") == postgres.major
        assert await value(postgres, "SHOW server_encoding") == "UTF8"
        assert await value(postgres, "SELECT datcollate FROM pg_database WHERE datname = 'leadline'") == "C.UTF-8"
        assert await value(postgres, "SHOW data_checksums") == "on"
        for name, wanted in SETTINGS.items():
            assert await value(postgres, f"SHOW {name}") == wanted
        assert (state_dir / "pg/data").stat().st_mode & 0o777 == 0o700
        assert (state_dir / "pg/run").stat().st_mode & 0o777 == 0o700
        assert server_uid(postgres) != 0
        assert os.getsid(postgres.pid) != os.getsid(0), "Ctrl-C in the terminal would stop the server under the daemon"
    assert gone(postgres.pid)


async def test_an_initialised_server_is_ready_within_two_seconds_and_keeps_what_was_committed(
    used_state_dir: Path,
) -> None:
    async with embedded_postgres(used_state_dir) as postgres:
        await value(postgres, "CREATE TABLE kept AS SELECT 7 AS n")
    took: list[float] = []
    while len(took) < STARTS and min(took, default=2) >= 2:
        began = time.monotonic()
        async with embedded_postgres(used_state_dir) as postgres:
            took.append(time.monotonic() - began)
            assert await value(postgres, "SELECT n FROM kept") == 7
    assert min(took) < 2


@pytest.mark.root
def test_an_ordinary_user_runs_the_server_as_itself(template: Path, state_dir: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    os.chown(state_dir, nobody.pw_uid, nobody.pw_gid)
    ran = subprocess.run(
        [sys.executable, "-c", dedent(BECOMES_ORDINARY), template, state_dir, str(nobody.pw_uid), str(nobody.pw_gid)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stderr == ""
    assert ran.stdout.split() == [str(nobody.pw_uid), "1000"]


async def test_a_killed_postmaster_is_replaced_and_committed_rows_are_there(used_state_dir: Path) -> None:
    async with embedded_postgres(used_state_dir) as postgres:
        await value(postgres, "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
        # A statement that computes does not look up: its backend would outlive the postmaster and bar the next one.
        busy = await asyncpg.connect(postgres.url)
        statement = asyncio.ensure_future(busy.execute("SELECT count(*) FROM generate_series(1, 10000000000)"))
        others = "FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()"
        while not await value(postgres, f"SELECT count(*) {others}"):
            await asyncio.sleep(0.01)
        killed = postgres.pid
        os.kill(killed, signal.SIGKILL)
        async with asyncio.timeout(60):
            while True:
                await postgres.wait_until_ready()
                with suppress(OSError, asyncpg.PostgresError):
                    assert await value(postgres, "SELECT count(*) FROM kept") == 1000
                    if postgres.pid != killed:
                        break
        with pytest.raises((OSError, asyncpg.PostgresError, asyncpg.InterfaceError)):
            await statement


async def test_a_restart_that_the_machine_refuses_is_tried_again(used_state_dir: Path) -> None:
    server_log = used_state_dir / "server.log"
    with structlog.testing.capture_logs() as said:
        async with embedded_postgres(used_state_dir, log_path=server_log) as postgres:
            killed = postgres.pid
            server_log.unlink()
            server_log.mkdir()
            os.kill(killed, signal.SIGKILL)
            await until(lambda: [entry["event"] for entry in said].count("postgres_not_restarted") >= 2)
            server_log.rmdir()
            await postgres.wait_until_ready()
            assert postgres.pid != killed
            assert await value(postgres, "SELECT 1") == 1


async def test_a_killed_daemon_takes_its_server_along_and_the_next_one_finds_every_row(used_state_dir: Path) -> None:
    with owner_process(used_state_dir) as (owner, pid):
        owner.kill()
        owner.wait()
        await until(lambda: gone(pid))
        async with embedded_postgres(used_state_dir) as postgres:
            assert await value(postgres, "SELECT count(*) FROM kept") == 1000


async def test_a_start_right_after_the_kill_waits_for_the_old_server_to_stop(used_state_dir: Path) -> None:
    with owner_process(used_state_dir) as (owner, pid):
        os.kill(pid, signal.SIGSTOP)  # the old server takes its time
        owner.kill()
        owner.wait()
        starting = asyncio.ensure_future(started(used_state_dir))
        await asyncio.sleep(0.2)
        assert not starting.done()
        os.kill(pid, signal.SIGCONT)
        assert await starting == 1000
        assert gone(pid)


async def started(state_dir: Path) -> object:
    async with embedded_postgres(state_dir) as postgres:
        return await value(postgres, "SELECT count(*) FROM kept")


async def test_a_second_daemon_is_refused_and_told_who_is_there(used_state_dir: Path) -> None:
    async with embedded_postgres(used_state_dir) as postgres:
        with pytest.raises(DataDirectoryInUse, match=f"pid {os.getpid()}$"):
            await started(used_state_dir)
        assert await value(postgres, "SELECT 1") == 1


async def test_another_major_versions_data_is_refused_and_left_as_it_is(used_state_dir: Path) -> None:
    version_file = used_state_dir / "pg/data/PG_VERSION"
    version_file.write_text("9\n")
    before = sorted((path.name, path.stat().st_mtime_ns) for path in (used_state_dir / "pg/data").iterdir())
    with pytest.raises(WrongMajorVersion, match="made by Postgres 9"):
        await started(used_state_dir)
    assert sorted((path.name, path.stat().st_mtime_ns) for path in (used_state_dir / "pg/data").iterdir()) == before


async def test_a_folder_that_is_no_data_directory_is_refused(used_state_dir: Path) -> None:
    (used_state_dir / "pg/data/PG_VERSION").unlink()
    with pytest.raises(DataDirectoryForeign, match="not a Postgres data directory"):
        await started(used_state_dir)


@pytest.mark.parametrize("name", ["d" * 100, "two, hosts"])
async def test_a_path_that_makes_no_socket_address_is_given_a_short_one(used_state_dir: Path, name: str) -> None:
    deep = used_state_dir / name
    deep.mkdir(mode=0o755)
    (used_state_dir / "pg").rename(deep / "pg")
    async with embedded_postgres(deep) as postgres:
        folder = Path(str(await value(postgres, "SHOW unix_socket_directories")))
        assert folder.stat().st_mode & 0o777 == 0o700
        assert folder.stat().st_uid == server_uid(postgres)
    folder.rmdir()


async def test_a_link_in_the_place_of_the_short_socket_folder_is_not_followed(used_state_dir: Path) -> None:
    deep = used_state_dir / ("d" * 100)
    deep.mkdir(mode=0o755)
    (used_state_dir / "pg").rename(deep / "pg")
    async with embedded_postgres(deep) as postgres:
        folder = Path(str(await value(postgres, "SHOW unix_socket_directories")))
    folder.rmdir()
    folder.symlink_to(used_state_dir)
    try:
        with pytest.raises(FolderUnusable, match=str(folder)):
            await started(deep)
    finally:
        folder.unlink()


@pytest.mark.root
async def test_a_short_socket_folder_of_another_user_is_not_used(used_state_dir: Path) -> None:
    deep = used_state_dir / ("d" * 100)
    deep.mkdir(mode=0o755)
    (used_state_dir / "pg").rename(deep / "pg")
    async with embedded_postgres(deep) as postgres:
        folder = Path(str(await value(postgres, "SHOW unix_socket_directories")))
    os.chown(folder, 54321, 54321)
    try:
        with pytest.raises(FolderUnusable, match="belongs to uid 54321"):
            await started(deep)
    finally:
        folder.rmdir()


@pytest.mark.root
async def test_a_folder_that_the_server_cannot_enter_is_named(state_dir: Path) -> None:
    shut = state_dir / "shut"
    (shut / "state").mkdir(parents=True)
    shut.chmod(0o700)
    with pytest.raises(StateDirectoryUnreachable, match=f"cannot enter {shut}:"):
        await started(shut / "state")


@pytest.mark.root
async def test_binaries_that_the_server_cannot_reach_are_copied_once(
    used_state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = next(_candidates()).parent
    private = used_state_dir / "private"
    private.mkdir(mode=0o700)
    package = installed.parent
    shutil.copytree(installed, private / package.name / installed.name, ignore=shutil.ignore_patterns("include"))
    if package.with_name(package.name + ".libs").exists():
        shutil.copytree(package.with_name(package.name + ".libs"), private / f"{package.name}.libs")
    monkeypatch.setenv("LEADLINE_PG_BIN", str(private / package.name / installed.name / "bin"))
    pg = used_state_dir / "pg"
    for copy in pg.glob("[0-9]*"):
        shutil.rmtree(copy)
    (pg / "9.9").mkdir()
    (pg / "18.0.partial").mkdir()
    async with embedded_postgres(used_state_dir) as postgres:
        running = Path(f"/proc/{postgres.pid}/exe").readlink()
        assert running.is_relative_to(pg)
        assert running.stat().st_uid == 0, "the server could rewrite its own program"
        inode = running.stat().st_ino
    assert [path.name for path in pg.glob("[0-9]*")] == [running.relative_to(pg).parts[0]]
    async with embedded_postgres(used_state_dir) as postgres:
        assert Path(f"/proc/{postgres.pid}/exe").stat().st_ino == inode


async def test_a_folder_without_the_programs_is_not_taken_for_postgres(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEADLINE_PG_BIN", str(state_dir))
    with pytest.raises(BinariesMissing, match="LEADLINE_PG_BIN"):
        await started(state_dir)


async def test_a_pid_file_whose_pid_belongs_to_a_stranger_or_a_zombie_does_not_bar_the_start(
    used_state_dir: Path,
) -> None:
    uid = (used_state_dir / "pg/data").stat().st_uid
    stranger = subprocess.Popen(["sleep", "60"], user=uid if ROOT else None)
    zombie = subprocess.Popen(["true"], user=uid if ROOT else None)
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    try:
        for process in (stranger, zombie):
            pid_file = used_state_dir / "pg/data/postmaster.pid"
            pid_file.write_text(f"{process.pid}\n{used_state_dir / 'pg/data'}\n0\n5432\n\n\n\nready   \n")
            lock_file = used_state_dir / "pg/run/.s.PGSQL.5432.lock"
            lock_file.write_text(f"{process.pid}\n")
            for path in (pid_file, lock_file):
                os.chown(path, uid, -1)
            async with embedded_postgres(used_state_dir) as postgres:
                assert postgres.pid != process.pid
                assert await value(postgres, "SELECT 1") == 1
    finally:
        stranger.kill()
        stranger.wait()
        zombie.wait()


async def test_a_half_made_data_directory_is_begun_anew(state_dir: Path) -> None:
    partial = state_dir / "pg/data.partial"
    (partial / "base").mkdir(parents=True)
    (partial / "PG_VERSION").write_text("18\n")
    async with embedded_postgres(state_dir) as postgres:
        assert await value(postgres, "SELECT 1") == 1
    assert not partial.exists()


async def test_a_system_without_c_utf_8_gets_the_c_locale(
    programs: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse = 'case "$*" in *C.UTF-8*) echo "initdb: error: invalid locale name \\"C.UTF-8\\""; exit 1;; esac'
    monkeypatch.setenv("LEADLINE_PG_BIN", with_initdb(programs, state_dir, refuse))
    async with embedded_postgres(state_dir) as postgres:
        assert await value(postgres, "SHOW server_encoding") == "UTF8"
        assert await value(postgres, "SELECT datcollate FROM pg_database WHERE datname = 'leadline'") == "C"


async def test_an_initialisation_that_fails_says_why_and_leaves_no_data_directory(
    programs: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail = 'echo "initdb: error: No space left on device"; exit 1'
    monkeypatch.setenv("LEADLINE_PG_BIN", with_initdb(programs, state_dir, fail))
    with pytest.raises(InitialisationFailed, match="No space left on device"):
        await started(state_dir)
    assert not (state_dir / "pg/data").exists()


def with_initdb(programs: Path, state_dir: Path, before: str) -> str:
    """A folder of programs whose `initdb` runs some lines of shell first."""
    folder = state_dir / "bin"
    folder.mkdir()
    for name, lines in (("postgres", ""), ("initdb", before)):
        (folder / name).write_text(f'#!/bin/sh\n{lines}\nexec {programs}/{name} "$@"\n')
        (folder / name).chmod(0o755)
    return str(folder)


@pytest.mark.root
async def test_programs_that_can_be_neither_reached_nor_copied_are_refused(
    programs: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEADLINE_PG_BIN", with_initdb(programs, state_dir, ""))
    (state_dir / "bin").chmod(0o700)
    with pytest.raises(BinariesUnusable, match=str(state_dir / "bin/postgres")):
        await started(state_dir)


async def test_a_server_that_cannot_start_says_why(used_state_dir: Path) -> None:
    with (used_state_dir / "pg/data/postgresql.conf").open("a") as file:
        file.write("no_such_setting = 1\n")
    with pytest.raises(StartFailed, match="no_such_setting"):
        await started(used_state_dir)


async def test_what_goes_wrong_inside_comes_out_as_itself(used_state_dir: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with embedded_postgres(used_state_dir):
            raise ZeroDivisionError
    assert not (used_state_dir / "pg/data/postmaster.pid").exists(), "the server was left running"


async def test_tenants_data_does_not_reach_the_servers_log(used_state_dir: Path) -> None:
    async with embedded_postgres(used_state_dir) as postgres:
        with pytest.raises(asyncpg.PostgresError):
            await value(postgres, "SELECT 'canary-4711'::int")
        connection = await asyncpg.connect(postgres.url)
        await connection.execute("CREATE TABLE leads (email text PRIMARY KEY)")
        with pytest.raises(asyncpg.UniqueViolationError):
            await connection.execute("INSERT INTO leads VALUES ('canary-4711'), ('canary-4711')")
        with pytest.raises(asyncpg.PostgresError):
            await connection.execute("SELECT 'canary-4711', pg_terminate_backend(pg_backend_pid())")
        await connection.close()
    said = (used_state_dir / "pg/server.log").read_text()
    assert "ready to accept connections" in said
    assert "canary" not in said


def test_a_server_that_keeps_dying_is_restarted_ever_more_slowly_but_for_ever() -> None:
    pauses = [0.0]
    for _ in range(10):
        pauses.append(pause_after(pauses[-1], lasted_seconds=0.2))
    assert pauses[1:5] == [0.1, 0.2, 0.4, 0.8]
    assert pauses[-1] == PAUSE_SECONDS_MAX
    assert pause_after(PAUSE_SECONDS_MAX, STEADY_SECONDS) == 0.0
