"""Code of others in the tree is exactly what they published: a fault of theirs is looked up under its version."""

import hashlib
import tomllib
from pathlib import Path

import pytest

from tests.architecture.repository import ROOT, tracked_files

LEDGER = "VENDORED.toml"


def differences(folder: Path, present: set[str]) -> list[str]:
    """What in a folder of vendored files is not as its ledger says."""
    ledger = tomllib.loads((folder / LEDGER).read_text(encoding="utf-8"))
    digests = {name: digest for package in ledger.values() for name, digest in package["sha256"].items()}
    unlisted = sorted(present - digests.keys() - {LEDGER})
    absent = sorted(digests.keys() - present)
    changed = [
        name
        for name in sorted(digests.keys() & present)
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digests[name]
    ]
    return [
        *(f"{name} is not in the ledger" for name in unlisted),
        *(f"{name} is missing" for name in absent),
        *(f"{name} was changed" for name in changed),
    ]


@pytest.mark.needs("git")
def test_vendored_files_are_the_published_ones_and_no_others() -> None:
    ledgers = [path for path in tracked_files() if path.name == LEDGER]
    assert ledgers
    for ledger in ledgers:
        folder = ledger.parent
        present = {str(path.relative_to(folder)) for path in tracked_files() if path.is_relative_to(folder)}
        assert differences(ROOT / folder, present) == []


def test_a_changed_a_missing_and_a_stray_file_are_each_named(tmp_path: Path) -> None:
    (tmp_path / "plot.js").write_text("draw()")
    (tmp_path / "mine.js").write_text("draw()")
    (tmp_path / LEDGER).write_text('[plot.sha256]\n"plot.js" = "00"\n"plot.css" = "00"\n')
    assert differences(tmp_path, {LEDGER, "plot.js", "mine.js"}) == [
        "mine.js is not in the ledger",
        "plot.css is missing",
        "plot.js was changed",
    ]
