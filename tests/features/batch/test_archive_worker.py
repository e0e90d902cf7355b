"""Zips in a process of their own: whatever they do to it, it is said of the zip and to nobody else."""

import asyncio
import os
import resource
import select
import signal
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from leadline.features.batch import archive_worker
from leadline.features.batch.archive import Bounds, Code
from leadline_protocol.errors import ErrorCode, Refused
from tests.features.child_processes import children

GOOD = "def main(event): pass"


def zipped(folder: Path, files: dict[str, str | bytes], modes: dict[str, int] | None = None) -> Path:
    path = folder / "code.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as it:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (stat.S_IFREG | (modes or {}).get(name, 0o600)) << 16
            it.writestr(info, content)
    return path


def zipped_for_seconds(folder: Path) -> Path:
    """Code that takes seconds to be unpacked."""
    return zipped(folder, {"main.py": GOOD, **{f"file-{number}": bytes(6_000) for number in range(9_999)}})


async def refusal(path: Path, **how: float) -> Refused:
    others = children()
    with pytest.raises(Refused) as caught:
        await archive_worker.judge(path, **how)
    assert children() <= others
    return caught.value


async def test_good_code_is_judged_and_unpacked_for_anybody_to_read(tmp_path: Path) -> None:
    path = zipped(tmp_path, {"main.py": GOOD, "a/b/c.txt": "x", "run": "#!"}, {"run": 0o4777})
    assert await archive_worker.judge(path) == Code(3, len(GOOD) + 3, takes_event=True, requirements=None)
    before = os.umask(0o077)
    try:
        (tmp_path / "code").mkdir()
        await archive_worker.unpack(path, tmp_path / "code")
        (tmp_path / "programs").mkdir()
        await archive_worker.unpack(path, tmp_path / "programs", Bounds(10, 1_000, programs=True))
    finally:
        os.umask(before)
    assert (tmp_path / "code/a/b/c.txt").read_text() == "x"
    modes = {str(path.relative_to(tmp_path)): stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert {modes[name] for name in ("code/main.py", "code/a/b/c.txt", "code/run", "programs/main.py")} == {0o644}
    assert {modes[name] for name in ("code/a", "code/a/b", "programs/a", "programs/run")} == {0o755}


async def test_a_bad_zip_is_refused_with_what_is_wrong(tmp_path: Path) -> None:
    refused = await refusal(zipped(tmp_path, {"main.py": "def main(:"}))
    assert refused.code is ErrorCode.BAD_ARCHIVE
    assert "main.py cannot be read: line 1" in refused.message
    refused = await refusal(zipped(tmp_path, {"main.py": GOOD, "requirements.txt": "-e ."}))
    assert refused.at == "requirements.txt:1"
    (tmp_path / "code.zip").write_bytes(b"hello")
    assert "no zip" in (await refusal(tmp_path / "code.zip")).message


async def test_what_is_unpacked_may_not_be_more_than_its_bounds(tmp_path: Path) -> None:
    path = zipped(tmp_path, {"a": bytes(2 << 20), "b": "x"})
    for bounds in (Bounds(1, 3 << 20), Bounds(2, 2 << 20)):
        folder = tmp_path / f"bounds-{bounds.files}"
        folder.mkdir()
        with pytest.raises(Refused, match=r"2 entries|more than 2 MiB"):
            await archive_worker.unpack(path, folder, bounds)


async def test_who_takes_too_long_is_killed_and_refused(tmp_path: Path) -> None:
    refused = await refusal(zipped(tmp_path, {"main.py": GOOD, "more": bytes(60 << 20)}), seconds=0.01)
    assert refused.code is ErrorCode.BAD_ARCHIVE
    assert refused.message == "it takes longer than 0.01 s to be read"


async def test_who_takes_too_much_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path, {"main.py": "x;" * 130_000 + "\ndef main(event): pass"})
    assert (await archive_worker.judge(path)).takes_event
    monkeypatch.setattr(archive_worker, "MEMORY_BYTES_MAX", 150 << 20)
    assert "too much memory" in (await refusal(path)).message


@contextmanager
def small_stack() -> Iterator[None]:
    """For processes that are started meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_STACK)
    resource.setrlimit(resource.RLIMIT_STACK, (200_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_STACK, before)


async def test_main_that_crashes_the_interpreter_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path, {"main.py": "x = " + "(" * 190 + "1" + ")" * 190 + "\n" + GOOD})
    with small_stack():
        refused = await refusal(path)
    assert refused.code is ErrorCode.BAD_ARCHIVE
    assert refused.message == "it cannot be read: who tried was ended by SIGSEGV"


async def test_a_full_disk_is_nothing_that_is_wrong_with_the_zip(tmp_path: Path) -> None:
    path = zipped(tmp_path, {"a": "x"})
    with pytest.raises(Refused) as caught:
        await archive_worker.unpack(path, tmp_path / "missing", Bounds(1, 1))
    assert caught.value.code is ErrorCode.UNAVAILABLE
    assert "No such file" in caught.value.message


async def test_the_process_ends_with_who_waits_for_it(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    path = zipped_for_seconds(tmp_path)
    others = children()
    waiting = asyncio.create_task(archive_worker.unpack(path, tmp_path / "code"))
    while not (children() - others or waiting.done()):
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert children() <= others


def test_the_process_ends_with_the_daemon(tmp_path: Path) -> None:
    """Killed while the process is at work: what it would have written at its end never comes."""
    path = zipped_for_seconds(tmp_path)
    folder = tmp_path / "code"
    folder.mkdir()
    program = """
        import asyncio, sys
        from pathlib import Path
        from leadline.features.batch import archive_worker
        asyncio.run(archive_worker.unpack(Path(sys.argv[1]), Path(sys.argv[2])))
    """
    words = [sys.executable, "-c", "if True:" + program, str(path), str(folder)]
    with subprocess.Popen(words) as daemon:
        while not any(folder.iterdir()):
            pass
        (child,) = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()
        pidfd = os.pidfd_open(int(child))
        signal.pidfd_send_signal(pidfd, signal.SIGSTOP)  # it comes to no end of its own
        daemon.kill()
    ended, _, _ = select.select([pidfd], [], [], 30)
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)
    assert ended
    assert len(list(folder.iterdir())) < 10_000
