"""Every script tells a stranger how to use it, without doing anything else."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.architecture.repository import ROOT

SCRIPTS = sorted(path for path in (ROOT / "scripts").iterdir() if path.is_file() and not path.suffix)
HAS_OWN_HELP = [path for path in SCRIPTS if path.name != "leadline"]  # which hands its arguments to the command


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_executable_and_opens_with_its_usage(script: Path) -> None:
    assert os.access(script, os.X_OK)
    shebang, second_line, *_ = script.read_text(encoding="utf-8").splitlines()
    assert shebang.startswith("#!/usr/bin/env ")
    opening = script.read_text(encoding="utf-8")[:400] if "python" in shebang else second_line
    assert f"Usage: scripts/{script.name}" in opening


@pytest.mark.parametrize("script", HAS_OWN_HELP, ids=lambda path: path.name)
def test_a_script_explains_itself(script: Path) -> None:
    answer = subprocess.run(
        [script, "--help"], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False
    )
    assert answer.returncode == 0
    assert f"scripts/{script.name}" in answer.stdout
    assert answer.stderr == ""
