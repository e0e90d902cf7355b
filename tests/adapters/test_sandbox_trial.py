"""Whether code can be run here, and which line mends it where it cannot."""

import shutil
from pathlib import Path

import pytest

from leadline.adapters.sandbox_runner import runner
from leadline.adapters.sandbox_runner.trial import obstacle, run_nothing
from leadline.ports.runner import CannotRun
from tests.contracts.runners import INTERPRETER


@pytest.mark.needs("bwrap", "slirp4netns", "ip")
@pytest.mark.parametrize("reaches", [[], ["192.0.2.0/24"]])
async def test_where_nothing_is_missing_an_empty_program_runs(reaches: list[str]) -> None:
    await run_nothing(INTERPRETER, reaches)


async def test_without_bubblewrap_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "SEARCH_PATH", "/nowhere")
    with pytest.raises(CannotRun, match="apt-get install bubblewrap"):
        await run_nothing(INTERPRETER, [])


@pytest.mark.needs("bwrap")
async def test_a_sandbox_that_cannot_be_made_tells_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bwrap = tmp_path / "bwrap"
    bwrap.write_text("#!/bin/sh\necho bwrap: no such luck\nexit 1\n")
    bwrap.chmod(0o755)
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)
    monkeypatch.setattr(runner, "SEARCH_PATH", str(tmp_path))
    assert shutil.which("bwrap", path=str(tmp_path)) is not None
    with pytest.raises(CannotRun, match="no such luck"):
        await run_nothing(INTERPRETER, [])


@pytest.mark.parametrize(
    ("setting", "value", "line"),
    [
        ("kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ("user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=10000"),
        ("user/max_user_namespaces", "10000", ""),
    ],
)
def test_a_setting_that_denies_namespaces_comes_with_its_remedy(
    tmp_path: Path, setting: str, value: str, line: str
) -> None:
    (tmp_path / setting).parent.mkdir()
    (tmp_path / setting).write_text(f"{value}\n")
    assert obstacle(tmp_path) == line
