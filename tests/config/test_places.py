"""Where state and sockets are."""

import os
from pathlib import Path

import pytest

from leadline.config import SOCKET_PATH_BYTES_MAX, SocketPathTooLong, runtime_dir, state_dir


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STATE_DIRECTORY", "RUNTIME_DIRECTORY", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/ada")


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.fixture
def ada(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


def test_root_uses_the_system_folders(root: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/0")
    assert state_dir(None) == Path("/var/lib/leadline")
    assert runtime_dir(None, state_dir(None)) == Path("/run/leadline")


def test_an_ordinary_user_has_folders_of_her_own(ada: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert state_dir(None) == Path("/home/ada/.local/state/leadline")
    assert runtime_dir(None, state_dir(None)) == Path("/home/ada/.local/state/leadline/run")
    monkeypatch.setenv("XDG_STATE_HOME", "/home/ada/state")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert state_dir(None) == Path("/home/ada/state/leadline")
    assert runtime_dir(None, state_dir(None)) == Path("/run/user/1000/leadline")


def test_the_service_manager_goes_before_what_is_usual(root: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/srv/state:/srv/more")
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/srv/run")
    assert state_dir(None) == Path("/srv/state")
    assert runtime_dir(None, state_dir(None)) == Path("/srv/run")


def test_an_option_goes_before_all(root: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STATE_DIRECTORY", "/srv/state")
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/srv/run")
    assert state_dir(Path("here")) == tmp_path / "here"
    assert runtime_dir(Path("run"), Path("/srv/state")) == tmp_path / "run"


def test_a_socket_path_of_107_bytes_is_taken_and_one_of_108_is_refused() -> None:
    longest = Path("/" + "é" * 47)
    assert len(os.fsencode(longest / "control.sock")) == SOCKET_PATH_BYTES_MAX + 1
    with pytest.raises(SocketPathTooLong, match="108 bytes long and a Unix socket's path may have 107"):
        runtime_dir(longest, Path("/"))
    fitting = Path("/" + "a" * 93)
    assert len(os.fsencode(fitting / "control.sock")) == SOCKET_PATH_BYTES_MAX
    assert runtime_dir(fitting, Path("/")) == fitting
