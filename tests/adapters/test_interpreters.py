"""Which Pythons code can have: the machine's own, and what a configuration names."""

import subprocess
import sys
from pathlib import Path

import pytest

from leadline.adapters import interpreters
from leadline.adapters.interpreters import find
from leadline.adapters.sandbox_runner.runner import sandbox_runner
from leadline.ports.runner import Returned
from tests.contracts.runners import Code

OWN = Path(getattr(sys, "_base_executable", sys.executable))
NAME = ".".join(map(str, sys.version_info[:2]))


@pytest.fixture
def empty_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine that has no Python but the daemon's."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setattr(interpreters, "FOLDERS", (folder,))
    return folder


def pretends(path: Path, answer: str) -> Path:
    path.write_text(f"#!/bin/sh\necho '{answer}'\n")
    path.chmod(0o755)
    return path


def is_python(path: Path, minor: int, implementation: str = "cpython") -> Path:
    answer = f'{{"implementation": "{implementation}", "version": [3, {minor}], "executable": "{path}", "folders": []}}'
    return pretends(path, answer)


@pytest.mark.needs("bwrap")
async def test_each_that_is_found_runs_code_in_a_sandbox(tmp_path: Path) -> None:
    found = await find()
    assert found.default in found.paths
    assert found.faults == {}
    async with sandbox_runner(tmp_path / "runs", ground=None) as runner:
        code = Code(tmp_path)
        for name, path in found.paths.items():
            program = "import sys\ndef main(): return '%d.%d' % sys.version_info[:2]"
            run = await runner.start(code.order(program, interpreter=path))
            how = (await run.ended()).how
            assert isinstance(how, Returned), how
            assert bytes(how.value).decode() == f'"{name}"'
            await run.forget()


async def test_the_newest_that_the_system_has_is_the_default(empty_system: Path) -> None:
    for minor in (9, 10, 30):
        is_python(empty_system / f"python3.{minor}", minor)
    is_python(empty_system / "python3.8", 8)
    is_python(empty_system / "python3.31", 31, "pypy")
    is_python(empty_system / "python3.32-config", 32)
    pretends(empty_system / "python3.33", "nonsense")
    found = await find()
    assert list(found.paths) == sorted({"3.9", "3.10", "3.30", NAME}, key=lambda name: int(name[2:]))
    assert found.default == "3.30"
    assert found.faults == {}


async def test_where_the_system_has_none_it_is_the_daemons_own(empty_system: Path) -> None:
    found = await find()
    assert found.paths == {NAME: OWN}
    assert found.default == NAME


async def test_what_is_configured_is_all_there_is(tmp_path: Path) -> None:
    subprocess.run([OWN, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    found = await find({NAME: python, "special": is_python(tmp_path / "special", 9)})
    assert found.paths == {"special": tmp_path / "special", NAME: python}, "and not what it is an environment of"
    assert found.default == NAME


async def test_what_cannot_be_used_is_told_by_its_name(tmp_path: Path) -> None:
    found = await find(
        {
            NAME: OWN,
            "3.8": is_python(tmp_path / "old", 8),
            "3.40": is_python(tmp_path / "other", 41),
            "3.42": is_python(tmp_path / "pypy", 42, "pypy"),
            "3.43": tmp_path / "missing",
            "3.44": pretends(tmp_path / "odd", "3.44"),
        }
    )
    assert list(found.paths) == [NAME]
    assert found.default == NAME
    assert found.faults["3.8"] == f"{tmp_path / 'old'} is cpython 3.8, and not CPython 3.9 or newer"
    assert found.faults["3.40"] == f"{tmp_path / 'other'} is Python 3.41"
    assert "is pypy 3.42" in found.faults["3.42"]
    assert "is no Python that can be run" in found.faults["3.43"]
    assert "is no Python that can be run" in found.faults["3.44"]


@pytest.mark.root
async def test_one_that_only_root_may_run_is_none_for_code(
    empty_system: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However closed the way to it is: that does not matter, as a sandbox shows it elsewhere."""
    closed = tmp_path / "closed"
    closed.mkdir(0o700)
    open_to_all = is_python(closed / "python", sys.version_info[1])
    monkeypatch.setattr(sys, "_base_executable", str(open_to_all))
    assert (await find()).paths == {NAME: open_to_all}
    open_to_all.chmod(0o750)
    found = await find()
    assert found.paths == {}
    assert found.default is None
    assert found.faults == {
        str(open_to_all): "code cannot have the Python that the daemon runs on: "
        f"{open_to_all} is not open to other users, as whom code runs: chmod o+rX"
    }
