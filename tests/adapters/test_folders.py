"""A state directory has one daemon at a time, and who takes it over ends the one before."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

import pytest

from leadline.adapters import folders
from leadline.adapters.folders import StateInUse, sole_owner

HOLDER = """
    import sys, time
    from pathlib import Path
    from leadline.adapters.folders import sole_owner

    with sole_owner(Path(sys.argv[1])) as place:
        print(place, flush=True)
        time.sleep(600)
"""


@contextmanager
def holder(state_dir: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Another process that holds the state directory, and how it names its lock."""
    process = subprocess.Popen([sys.executable, "-c", dedent(HOLDER), state_dir], stdout=subprocess.PIPE, text=True)
    with process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def test_a_second_daemon_is_told_who_is_there_and_how_to_take_over(tmp_path: Path) -> None:
    with holder(tmp_path) as (process, _), pytest.raises(StateInUse) as refused, sole_owner(tmp_path):
        pass
    assert f"in use by pid {process.pid} on " in str(refused.value)
    assert "--takeover" in str(refused.value)


@pytest.mark.parametrize("stopped", [False, True])
def test_who_takes_over_has_the_one_before_killed(tmp_path: Path, stopped: bool) -> None:
    with holder(tmp_path) as (process, place):
        if stopped:
            process.send_signal(signal.SIGSTOP)
        with sole_owner(tmp_path, takeover=True) as taken:
            assert process.wait(10) == -signal.SIGKILL, "before anything else is done"
            assert taken == place, "of two daemons with the same, one is dead"
            assert (tmp_path / "lock").read_text().startswith(f"pid {os.getpid()} on ")


def test_nobody_is_killed_for_a_number_that_is_not_his(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name in the file may be that of another container's process, or an old one that was given out again."""
    monkeypatch.setattr(folders, "UNSEEN_SECONDS", 0.1)
    with holder(tmp_path) as (process, _), subprocess.Popen(["sleep", "600"]) as stranger:
        (tmp_path / "lock").write_text(f"pid {stranger.pid} on elsewhere\n")
        with pytest.raises(StateInUse, match="cannot be killed from here"), sole_owner(tmp_path, takeover=True):
            pass
        assert (stranger.poll(), process.poll()) == (None, None)
        stranger.kill()


def test_another_state_directory_is_another_place(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with sole_owner(tmp_path / "a") as one, sole_owner(tmp_path / "b") as other:
        assert one != other


def test_a_lock_has_the_same_name_at_each_start_and_that_of_another_folder_or_a_copy_has_another(
    tmp_path: Path,
) -> None:
    def name(folder: Path) -> str:
        with sole_owner(folder) as place:
            return place

    first, second, copy = (tmp_path / each for each in ("first", "second", "copy"))
    first.mkdir()
    second.mkdir()
    names = [name(first), name(first), name(second)]
    shutil.copytree(first, copy)
    assert names[0] == names[1]
    assert len({*names, name(copy)}) == 3
