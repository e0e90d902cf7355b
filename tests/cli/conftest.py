"""The command, called in this process, and a daemon for it to talk to."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec import Struct

from leadline.cli.app import run
from tests.cli.fake_daemon import FakeDaemon, fake_daemon


class Ran(Struct):
    """How a command ended, and what it said."""

    status: int
    out: str
    err: str


Leadline = Callable[..., Ran]


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No variable of the machine, and a zone in which local times differ from UTC."""
    for name in ("LEADLINE_CONFIG", "STATE_DIRECTORY", "NO_COLOR", "XDG_RUNTIME_DIR", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def leadline(capfd: pytest.CaptureFixture[str]) -> Leadline:
    def call(*arguments: str | Path | int) -> Ran:
        capfd.readouterr()
        status = run([str(argument) for argument in arguments])
        return Ran(status, *capfd.readouterr())

    return call


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    with fake_daemon(tmp_path) as running:
        yield running


@pytest.fixture
def submit_only(tmp_path: Path) -> Iterator[FakeDaemon]:
    """A daemon whose control socket cannot be opened."""
    with fake_daemon(tmp_path, submit_only=True) as running:
        yield running


@pytest.fixture
def script() -> str:
    """The installed command, for tests that need a process of its own."""
    return os.fspath(Path(sys.executable).with_name("leadline"))
