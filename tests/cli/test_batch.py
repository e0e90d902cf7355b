"""`leadline batch pack`: a folder becomes a zip, or is told why not; nothing is left half-written."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

from leadline.features.batch.archive import judge


def pack(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "leadline", "batch", "pack", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def code(tmp_path: Path, source: str = "def main(event):\n    return event\n") -> Path:
    folder = tmp_path / "nightly"
    folder.mkdir()
    (folder / "main.py").write_text(source)
    return folder


def test_a_folder_becomes_a_zip_beside_it(tmp_path: Path) -> None:
    done = pack(code(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1] == "  It is called as main(event)."
    assert judge(io.BytesIO((tmp_path / "nightly.zip").read_bytes())).takes_event
    again = pack(tmp_path / "nightly")
    assert again.returncode == 1
    assert "is there already" in again.stderr
    forced = pack(tmp_path / "nightly", "--force", "--json")
    assert json.loads(forced.stdout)["files"] == 1


def test_what_cannot_be_run_leaves_no_zip(tmp_path: Path) -> None:
    done = pack(code(tmp_path, "def start(): pass"))
    assert done.returncode == 1
    assert "has no function main" in done.stderr
    assert sorted(each.name for each in tmp_path.iterdir()) == ["nightly"]


def test_what_is_too_large_for_the_plan_leaves_no_zip(tmp_path: Path) -> None:
    folder = code(tmp_path)
    (folder / "noise").write_bytes(os.urandom(4_300_000))
    done = pack(folder)
    assert done.returncode == 1
    assert "the plan allows 4,194,304" in done.stderr
    assert sorted(each.name for each in tmp_path.iterdir()) == ["nightly"]


def test_a_zip_is_not_packed_into_itself_nor_written_over_a_folder(tmp_path: Path) -> None:
    folder = code(tmp_path)
    within = pack(folder, "--output", folder / "code.zip", "--force")
    assert "packed into itself" in within.stderr
    over = pack(folder, "--output", tmp_path, "--force")
    assert "is a folder" in over.stderr
    assert (within.returncode, over.returncode) == (1, 1)
    assert sorted(each.name for each in tmp_path.rglob("*")) == ["main.py", "nightly"]
