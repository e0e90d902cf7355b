"""Packages that tenants ask for: installed once, in a sandbox, from an index that somebody else fills.

The index is a server on an address that is set aside for documentation, in a network namespace that stands for the
internet; the daemon's processes are in another. Wheels are made here, as anybody might make them.
"""

import asyncio
import base64
import ctypes
import hashlib
import io
import os
import signal
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import msgspec
import pytest

from leadline.adapters.package_cache import cache as cache_module
from leadline.adapters.package_cache import tools
from leadline.adapters.package_cache.cache import LIMITS, RUNS, PackageCache
from leadline.adapters.package_cache.installation import Installer
from leadline.adapters.sandbox_runner import network
from leadline.adapters.sandbox_runner.cgroups import find_ground
from leadline.adapters.sandbox_runner.processes import SEARCH_PATH
from leadline.adapters.sandbox_runner.runner import LocalRunner, sandbox_runner
from leadline.features.batch.packages import InstallFailed
from leadline.ports.runner import INTERNET, CannotRun, NetworkMissing, Order, Returned, Run
from leadline_protocol.errors import Refused
from tests.contracts.runners import INTERPRETER, Code

pytestmark = [
    pytest.mark.root,
    pytest.mark.needs("bwrap", "slirp4netns", "ip"),
    pytest.mark.timeout(300),
]

INDEX = "203.0.113.5"
MACHINE = "203.0.113.9"
ENVIRONMENT = {**os.environ, "PATH": SEARCH_PATH}
CLONE_NEWNET = 0x40000000

SERVER = """
    import contextlib, http.server, os, sys, time

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            with open("log", "a") as log:
                print(self.path, file=log)
            while os.path.exists("hold"):
                time.sleep(0.02)
            with contextlib.suppress(OSError):
                super().do_GET()
        def log_message(self, *words):
            pass

    os.chdir(sys.argv[2])
    server = http.server.ThreadingHTTPServer((sys.argv[1], 80), Handler)
    print("listening", flush=True)
    server.serve_forever()
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, env=ENVIRONMENT)


@contextmanager
def elsewhere(namespace: Path) -> Iterator[None]:
    """Have this thread be in another network for a while, and whatever it starts."""
    home, there = (os.open(path, os.O_RDONLY) for path in (Path("/proc/thread-self/ns/net"), namespace))
    try:
        go_to(there)
        yield
    finally:
        go_to(home)
        os.close(home)
        os.close(there)


def go_to(network: int) -> None:
    assert ctypes.CDLL(None, use_errno=True).setns(network, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())


class Index:
    """A package index, as a folder of files that a server shows."""

    url = f"http://somebody:secret-word@{INDEX}/simple"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, file: str, content: bytes) -> None:
        place = self.folder / "simple" / name
        place.mkdir(parents=True, exist_ok=True)
        (place / file).write_bytes(content)
        links = "".join(f'<a href="{each.name}">{each.name}</a>' for each in place.iterdir() if each.suffix != ".html")
        (place / "index.html").write_text(links)

    def wheel(self, name: str, version: str = "1", **fields: Any) -> None:
        self.add(name, f"{name}-{version}-py3-none-any.whl", wheel(name, version, **fields))

    def asked(self) -> Sequence[str]:
        """What was asked for."""
        return (self.folder / "log").read_text().split()

    def hold(self) -> None:
        """Answer nothing until it is released."""
        (self.folder / "hold").touch()

    def release(self) -> None:
        (self.folder / "hold").unlink()


def wheel(
    name: str,
    version: str,
    files: Mapping[str, str | bytes] | None = None,
    requires: Sequence[str] = (),
    record: str | None = None,
) -> bytes:
    """A wheel (PEP 427), whatever is said to be in it."""
    info = f"{name}-{version}.dist-info"
    needed = "".join(f"Requires-Dist: {each}\n" for each in requires)
    whole = {
        f"{name}.py": f"version = {version!r}\n",
        **(files or {}),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needed}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: here\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = []
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as it:
        for path, text in whole.items():
            content = text.encode() if isinstance(text, str) else text
            member = zipfile.ZipInfo(path)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = (stat.S_IFREG | (0o755 if "/scripts/" in path else 0o644)) << 16
            it.writestr(member, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            lines.append(f"{path},sha256={digest},{len(content)}\n")
        if record != "none":
            it.writestr(f"{info}/RECORD", record or "".join([*lines, f"{info}/RECORD,,\n"]))
    return out.getvalue()


BACKEND = """
    import os, shutil
    {program}
    def build_wheel(folder, *_):
        return shutil.copy("alpha-1-py3-none-any.whl", folder) and "alpha-1-py3-none-any.whl"
"""


def sdist(program: str = "") -> bytes:
    """Sources of alpha, which bring what builds them: a program that hands over a wheel, and does something before."""
    files = {
        "PKG-INFO": b"Metadata-Version: 2.1\nName: alpha\nVersion: 1\n",
        "pyproject.toml": b'[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": dedent(BACKEND.format(program=program)).encode(),
        "alpha-1-py3-none-any.whl": wheel("alpha", "1"),
    }
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as it:
        for path, content in files.items():
            member = tarfile.TarInfo(f"alpha-1/{path}")
            member.size = len(content)
            it.addfile(member, io.BytesIO(content))
    return out.getvalue()


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """Where the daemon is, and the folder that the index shows."""
    try:
        network.check(INTERNET)
    except NetworkMissing as error:
        pytest.skip(f"needs the device for networks: {error}")
    with ExitStack() as stack:
        machine, internet = (f"leadline-{name}-{os.getpid()}" for name in ("packages", "index"))
        for name in (machine, internet):
            ip("netns", "add", name)
            stack.callback(ip, "netns", "delete", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", machine, "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", internet)
        for name, address in ((machine, MACHINE), (internet, INDEX)):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "wire")
            ip("-n", name, "link", "set", "wire", "up")
        ip("-n", machine, "route", "add", "default", "via", INDEX)
        folder = tmp_path_factory.mktemp("index")
        command = ["ip", "netns", "exec", internet, sys.executable, "-c", dedent(SERVER), INDEX, str(folder)]
        server = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, env=ENVIRONMENT))
        stack.callback(server.kill)
        assert server.stdout is not None
        assert server.stdout.readline() == b"listening\n"
        yield Path("/run/netns", machine), folder


@pytest.fixture
def index(networks: tuple[Path, Path]) -> Iterator[Index]:
    """An empty index, and the daemon where it is reached."""
    machine, folder = networks
    subprocess.run(["rm", "-rf", folder / "simple", folder / "log", folder / "hold"], check=True)
    (folder / "log").touch()
    with elsewhere(machine):
        yield Index(folder)


@asynccontextmanager
async def daemon(folder: Path, **fields: Any) -> AsyncIterator[tuple[LocalRunner, PackageCache]]:
    """A runner and a cache as a daemon has them."""
    given = {"bytes_max": 1 << 30, "index_url": Index.url, **fields}
    async with sandbox_runner(folder / "runs", ground=find_ground()) as runner:
        cache = PackageCache(folder / "packages", runner, **given)
        await cache.begin()
        yield runner, cache


async def run(runner: LocalRunner, folder: Path, packages: Path, program: str) -> Any:
    """What a program returns that has these packages."""
    place = folder / f"code-{len(list(folder.iterdir()))}"
    place.mkdir()
    running = await runner.start(Code(place).order(program, name=place.name, packages=packages))
    how = (await running.ended()).how
    assert isinstance(how, Returned), how
    await running.forget()
    return msgspec.json.decode(how.value)


async def failure(cache: PackageCache, requirement: bytes, **fields: Any) -> InstallFailed:
    with pytest.raises(InstallFailed) as caught:
        async with cache.packages(requirement, INTERPRETER, INTERNET, **fields):
            pass
    return caught.value


def entries(folder: Path) -> set[str]:
    return {path.name for path in (folder / "packages").iterdir()}


async def test_what_is_asked_for_is_installed_with_what_it_needs_and_imported(index: Index, tmp_path: Path) -> None:
    index.wheel("alpha", "1.2", files={"alpha_data/x.txt": "seven"}, requires=["beta>=2"])
    index.wheel("beta", "1")
    index.wheel("beta", "2")
    program = """
        import alpha, beta, os
        def main():
            import alpha_data
            place = alpha_data.__path__[0]
            return [alpha.version, beta.version, open(place + "/x.txt").read(), alpha.__cached__ is not None, place]
    """
    async with daemon(tmp_path) as (runner, cache):
        async with cache.packages(b"alpha\n", INTERPRETER, INTERNET) as packages:
            assert await run(runner, tmp_path, packages, program) == ["1.2", "2", "seven", True, "/packages/alpha_data"]
            compiled = [path.name for path in packages.glob("__pycache__/*.pyc")]
            assert {name.split(".")[0] for name in compiled} == {"alpha", "beta"}
        assert [run.name for run in await runner.adopt()] == []
    (entry,) = (tmp_path / "packages").iterdir()
    assert {path.name for path in entry.iterdir()} == {"packages", "about"}


async def test_anybody_can_read_packages_and_nobody_can_change_them(index: Index, tmp_path: Path) -> None:
    index.wheel("alpha", files={"deep/er/x.py": "", "alpha-1.data/scripts/tool": "#!python\nprint(7)"})
    before = os.umask(0o077)
    try:
        async with daemon(tmp_path) as (_, cache), cache.packages(b"alpha", INTERPRETER, INTERNET) as packages:
            found = {path: path.lstat() for path in (packages, *packages.rglob("*"))}
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(each.st_mode) for path, each in found.items() if stat.S_ISREG(each.st_mode)}
    assert modes == {0o644, 0o755}, "programs among them"
    assert {stat.S_IMODE(each.st_mode) for each in found.values() if stat.S_ISDIR(each.st_mode)} == {0o755}
    assert {each.st_uid for each in found.values()} == {os.geteuid()}
    assert stat.S_IMODE((packages / "bin/tool").stat().st_mode) == 0o755


async def test_who_asks_twice_at_once_has_it_installed_once(index: Index, tmp_path: Path) -> None:
    index.wheel("alpha")
    found = []
    async with daemon(tmp_path) as (_, cache):

        async def ask(text: bytes) -> None:
            async with cache.packages(text, INTERPRETER, INTERNET) as packages:
                found.append(packages)

        async with asyncio.TaskGroup() as asking:
            for text in (b"alpha", b"# the same\nAlpha\n", b"alpha"):
                asking.create_task(ask(text))
        (first,) = set(found)
        assert len([path for path in index.asked() if path.endswith(".whl")]) == 1
    async with daemon(tmp_path) as (_, cache):
        async with cache.packages(b"alpha", INTERPRETER, ()) as kept:
            assert kept == first, "also by the next daemon, and for who reaches nothing"
        with pytest.raises(InstallFailed, match="reach nothing"):
            async with cache.packages(b"beta", INTERPRETER, ()):
                pass


async def test_who_no_longer_waits_has_nothing_installed_any_more(index: Index, tmp_path: Path) -> None:
    index.wheel("alpha")
    index.hold()
    async with daemon(tmp_path) as (runner, cache):
        waiting = asyncio.create_task(failure(cache, b"alpha"))
        while not index.asked():
            await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await runner.adopt() == []
        assert entries(tmp_path) == set()
        index.release()
        async with cache.packages(b"alpha", INTERPRETER, INTERNET):
            pass


KILLED = """
    import asyncio, sys
    from pathlib import Path
    from leadline.ports.runner import INTERNET
    from tests.adapters.test_package_cache import INTERPRETER, daemon

    async def main(folder):
        async with daemon(folder) as (_, cache), cache.packages(b"alpha", INTERPRETER, INTERNET):
            pass

    asyncio.run(main(Path(sys.argv[1])))
"""


async def test_a_daemon_that_is_killed_leaves_nothing_that_the_next_one_would_take_for_packages(
    index: Index, tmp_path: Path
) -> None:
    index.wheel("alpha")
    index.hold()
    with subprocess.Popen([sys.executable, "-c", dedent(KILLED), str(tmp_path)]) as killed:
        while not index.asked():
            await asyncio.sleep(0.01)
        killed.send_signal(signal.SIGKILL)
    assert [name for name in entries(tmp_path) if name.startswith("new-")]
    left = [path.name for path in (tmp_path / "runs").iterdir()]
    assert len(left) == 1
    assert left[0].startswith(RUNS)
    async with daemon(tmp_path) as (runner, cache):
        assert await runner.adopt() == []
        assert entries(tmp_path) == set()
        index.release()
        async with cache.packages(b"alpha", INTERPRETER, INTERNET) as packages:
            assert await run(runner, tmp_path, packages, "import alpha\ndef main(): return alpha.version") == "1"


# -- what cannot be had -----------------------------------------------------------------------------------------------


async def test_what_is_missing_or_does_not_fit_together_is_told_in_pips_words(index: Index, tmp_path: Path) -> None:
    index.wheel("alpha", requires=["gamma==1"])
    index.wheel("beta", requires=["gamma==2"])
    for version in ("1", "2"):
        index.wheel("gamma", version)
    async with daemon(tmp_path) as (_, cache):
        missing = await failure(cache, b"gamma==3")
        assert missing.message == (
            "Could not find a version that satisfies the requirement gamma==3 (from versions: 1, 2)\n"
            "No matching distribution found for gamma==3"
        )
        conflict = await failure(cache, b"alpha\nbeta")
        assert "conflicting dependencies" in conflict.message
        assert "beta 1 depends on gamma==2" in conflict.message
        assert "ResolutionImpossible" not in conflict.message
        assert any("ResolutionImpossible" in line for line in conflict.log)
        for failed in (missing, conflict):
            told = "\n".join([failed.message, *failed.log])
            assert INDEX in told
            assert "secret-word" not in told
    assert entries(tmp_path) == set()


async def test_what_would_have_to_be_built_is_not_installed_and_nothing_of_it_runs(
    index: Index, tmp_path: Path
) -> None:
    """A link in the metadata of a wheel is a way past pip's own refusal."""
    index.add("alpha", "alpha-1.tar.gz", sdist("raise SystemExit('it runs')"))
    index.wheel("beta", requires=[f"alpha @ {Index.url}/alpha/alpha-1.tar.gz"])
    async with daemon(tmp_path) as (_, cache):
        named = await failure(cache, b"alpha")
        linked = await failure(cache, b"beta")
        assert "from versions: none" in named.message
        assert "only those that are built already" in "\n".join([linked.message, *linked.log])
        for failed in (named, linked):
            assert "it runs" not in "\n".join([failed.message, *failed.log])
        assert "it runs" in "\n".join((await failure(cache, b"beta", builds=True)).log), "where it may be built"


TELLS = "raise SystemExit(f'{os.getuid()} {os.path.exists(\"/var/log\")} https://me:secret-word@x.example/')"


async def test_what_may_be_built_is_built_in_the_sandbox(index: Index, tmp_path: Path) -> None:
    """By somebody without rights, who sees nothing of the machine, and whose work is looked at."""
    index.add("alpha", "alpha-1.tar.gz", sdist())
    async with daemon(tmp_path) as (runner, cache):
        async with cache.packages(b"alpha", INTERPRETER, INTERNET, builds=True) as packages:
            assert await run(runner, tmp_path, packages, "import alpha\ndef main(): return alpha.version") == "1"
        index.add("alpha", "alpha-1.tar.gz", sdist(TELLS))
        who = await failure(cache, b"alpha==1", builds=True)
        assert any("1000 False https://***@x.example/" in line for line in who.log)
        assert who.message.endswith("did not run successfully.")
        plant = "os.system('for place in /tmp/*/packages; do ln -sfn / $place/x; done')"
        index.add("alpha", "alpha-1.tar.gz", sdist(plant))
        assert "'x' is no plain file" in (await failure(cache, b"alpha>=1", builds=True)).message


@pytest.mark.parametrize("said", ["[]", '{"files": "many", "bytes": 1}', '{"status": {}}', '{"odd": 1}'])
def test_whatever_speaks_in_the_installers_place_is_a_failure(said: str) -> None:
    installer = Installer(NoRunner(), LIMITS, 1, None)
    assert isinstance(installer._failure(Returned(msgspec.Raw(said.encode())), ["last words"]), InstallFailed)


class NoRunner:
    async def start(self, order: Order) -> Run:
        raise AssertionError

    async def adopt(self) -> Sequence[Run]:
        raise AssertionError


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"files": {"../escaped.py": "x = 1"}}, "outside the target directory"),
        ({"files": {"/tmp/escaped.py": "x = 1"}}, "outside the target directory"),
        ({"files": {"alpha-1.data/data/../../../escaped.py": "x = 1"}}, "should be named like"),
        ({"files": {"a\nb.py": "x = 1"}}, "no path within a folder"),
        ({"files": {f"deep/{'d/' * 40}x.py": ""}}, "too deep a path"),
        ({"record": "none"}, "RECORD"),
        ({"record": "\0,,\n" * 10}, None),
        ({"record": "../../../../etc/passwd,,\n"}, None),
        ({"record": "alpha.py,sha256=wrong,99999999999999999999\n"}, None),
    ],
    ids=["up", "absolute", "up as data", "odd name", "deep", "no record", "odd record", "far record", "wrong record"],
)
async def test_a_hostile_wheel_does_no_more_than_fail(
    index: Index, tmp_path: Path, fields: Mapping[str, Any], why: str | None
) -> None:
    index.wheel("alpha", **fields)
    async with daemon(tmp_path) as (_, cache):
        if why is not None:
            assert why in (await failure(cache, b"alpha")).message
        else:
            async with cache.packages(b"alpha", INTERPRETER, INTERNET) as packages:
                assert {path.name for path in packages.iterdir()} == {"alpha.py", "alpha-1.dist-info", "__pycache__"}
    assert not Path("/tmp/escaped.py").exists()
    assert not list(tmp_path.rglob("escaped.py"))


async def test_what_unpacks_to_too_much_is_not_installed(index: Index, tmp_path: Path) -> None:
    index.wheel("alpha", files={"alpha_data/zeros": bytes(1 << 30)})
    index.wheel("beta", files={"beta_data/zeros": bytes(2 << 20)})
    small = msgspec.structs.replace(LIMITS, disk_bytes=64 << 20, memory_bytes=512 << 20)
    async with daemon(tmp_path, limits=small, packages_bytes_max=1 << 20) as (_, cache):
        assert "No space left on device" in (await failure(cache, b"alpha")).message
        assert "bytes, and may be 50,000 with 1,048,576" in (await failure(cache, b"beta")).message
    assert entries(tmp_path) == set()


async def test_an_index_that_does_not_answer_takes_no_longer_than_it_may(index: Index, tmp_path: Path) -> None:
    index.hold()
    async with daemon(tmp_path, limits=msgspec.structs.replace(LIMITS, seconds=3)) as (_, cache):
        assert "longer than 3 s" in (await failure(cache, b"alpha")).message


async def test_what_cannot_be_asked_for_is_refused_before_anything_runs(index: Index, tmp_path: Path) -> None:
    async with daemon(tmp_path) as (_, cache):
        with pytest.raises(Refused, match="line 1"):
            async with cache.packages(b"-e .", INTERPRETER, INTERNET):
                pass
        with pytest.raises(CannotRun, match="/nowhere/python"):
            async with cache.packages(b"alpha", Path("/nowhere/python"), INTERNET):
                pass
    assert index.asked() == []


# -- which pip --------------------------------------------------------------------------------------------------------


async def test_an_interpreter_without_pip_has_it_from_the_daemons(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run([INTERPRETER, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    bare = tmp_path / "bare/bin/python"
    index.wheel("alpha")
    async with daemon(tmp_path) as (runner, cache):
        with monkeypatch.context() as patched:
            patched.setattr(tools, "_wheel_folders", lambda: [tmp_path])
            with pytest.raises(CannotRun, match=f"none in {tmp_path}: apt-get install python3-pip"):
                async with cache.packages(b"alpha", bare, INTERNET):
                    pass
        async with cache.packages(b"alpha", bare, INTERNET) as packages:
            assert await run(runner, tmp_path, packages, "import alpha\ndef main(): return alpha.version") == "1"


# -- what is kept -----------------------------------------------------------------------------------------------------


async def test_what_was_not_used_for_the_longest_time_goes_first_and_what_is_in_use_stays(
    index: Index, tmp_path: Path
) -> None:
    for name in ("alpha", "beta", "gamma", "delta"):
        index.wheel(name, files={f"{name}_data/zeros": bytes(1 << 20)})

    async def use(cache: PackageCache, name: str) -> Path:
        async with cache.packages(name.encode(), INTERPRETER, INTERNET) as packages:
            return packages

    sleep = "import time\ndef main():\n    print('here')\n    time.sleep(600)"
    async with daemon(tmp_path, bytes_max=int(2.5 * (1 << 20))) as (runner, cache):
        alpha = await use(cache, "alpha")
        beta = await use(cache, "beta")
        assert await use(cache, "alpha") == alpha
        gamma = await use(cache, "gamma")
        assert not beta.exists(), "alpha was used after it"
        assert entries(tmp_path) == {alpha.parent.name, gamma.parent.name}
        async with cache.packages(b"alpha", INTERPRETER, INTERNET):
            running = await runner.start(Code(tmp_path).order(sleep, packages=alpha))
        await use(cache, "gamma")
        delta = await use(cache, "delta")
        assert entries(tmp_path) == {alpha.parent.name, delta.parent.name}, "alpha is older, and in use"
        await running.kill()
        await use(cache, "beta")
        assert not alpha.exists()


def test_what_is_kept_depends_on_all_that_its_content_does() -> None:
    python = tools.Python("3.11.2", "linux-x86_64", "cpython-311", pip=True)
    key = cache_module._key(["alpha"], python, None, builds=False)
    others = [
        cache_module._key(["beta"], python, None, builds=False),
        cache_module._key(["alpha"], msgspec.structs.replace(python, version="3.11.3"), None, builds=False),
        cache_module._key(["alpha"], msgspec.structs.replace(python, abi="cpython-312"), None, builds=False),
        cache_module._key(["alpha"], msgspec.structs.replace(python, platform="linux-aarch64"), None, builds=False),
        cache_module._key(["alpha"], python, "https://index.example/simple", builds=False),
        cache_module._key(["alpha"], python, None, builds=True),
    ]
    assert len({key, *others}) == 7
    assert key == cache_module._key(["alpha"], msgspec.structs.replace(python, pip=False), None, builds=False)
