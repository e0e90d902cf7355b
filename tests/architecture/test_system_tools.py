"""The table of system tools holds what tests need, no more and no less."""

import re

import pytest

from tests import system_tools
from tests.architecture.repository import ROOT, tracked_files

MARK = re.compile(r"\bneeds\(([^)]*)\)")


@pytest.mark.needs("git")
def test_the_table_names_exactly_the_tools_that_tests_need() -> None:
    files = [path for path in tracked_files() if path.parts[0] == "tests" and path.suffix == ".py"]
    named = {
        tool
        for path in files
        for arguments in MARK.findall((ROOT / path).read_text(encoding="utf-8"))
        for tool in re.findall(r'"([^"]+)"', arguments)
    }
    assert set(system_tools.DEBIAN_PACKAGE) == named


def test_the_command_names_each_package_once(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"systemd-run": "systemd", "bwrap": "bubblewrap", "systemd-analyze": "systemd"}
    monkeypatch.setattr(system_tools, "DEBIAN_PACKAGE", table)
    assert system_tools.apt_command(table) == "apt-get install -y bubblewrap systemd"
