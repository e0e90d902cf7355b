"""The schema can be read, and a database brought up to date, without a daemon."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

LEADLINE = Path(sys.executable).parent / "leadline"


@pytest.fixture
def state() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="leadline-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "state"


def leadline(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([LEADLINE, *arguments], capture_output=True, text=True, check=False)


def test_a_database_is_migrated_once(state: Path) -> None:
    first = leadline("db", "migrate", "--state-dir", state)
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("Applied 0001_queue")
    second = leadline("db", "migrate", "--state-dir", state)
    assert (second.returncode, second.stdout) == (0, "The database is up to date.\n")


def test_the_schema_is_printed_as_one_script() -> None:
    printed = leadline("db", "sql")
    assert printed.returncode == 0
    for table in ("leader", "job", "job_ended", "lead", "call"):
        assert f"CREATE TABLE {table} (" in printed.stdout
