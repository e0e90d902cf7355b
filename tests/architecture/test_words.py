"""What no file of the project may say.

A file that names a package index or a folder of one machine works only there; a note to do something later is a promise
without a date. The patterns are put together from pieces so that this file does not find itself.
"""

import re

import pytest

from tests.architecture.repository import ROOT, tracked_files

FORBIDDEN = {
    "a package index": r"\b(?:"
    + "|".join(["py" + r"pi\.org", "python" + r"hosted\.org", "deb" + r"ian\.org", "npm" + r"js\.(?:org|com)"])
    + ")",
    "a folder of one machine": "|".join([r"\.\./" + "shared", r"(?<![\w.])/" + "work/"]),
    "a note to do it later": r"\b(?:" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X"]) + r")\b",
}
DATA = {".csv", ".jsonl"}  # made-up people say what they like


@pytest.mark.needs("git")
@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_names(what: str) -> None:
    pattern = re.compile(FORBIDDEN[what])
    found = []
    for path in tracked_files():
        if path.suffix in DATA:
            continue
        text = (ROOT / path).read_text(encoding="utf-8", errors="replace")
        found += [
            f"{path}:{number}: {line.strip()}"
            for number, line in enumerate(text.splitlines(), 1)
            if pattern.search(line)
        ]
    assert found == []


TOLD_TO_PEOPLE = ("actors", "core", "features")
ASKED_BY_COMMAND = {"daemon/leadline/features/tables/trial.py"}
"""A provider is tried at a terminal, and on no page."""


@pytest.mark.needs("git")
def test_what_jobs_wait_for_and_end_with_names_no_command() -> None:
    """The same message stands on a page, whose reader has no terminal."""
    found = [
        f"{path}: {line.strip()}"
        for path in tracked_files()
        if path.suffix == ".py" and path.parts[:2] == ("daemon", "leadline") and path.parts[2] in TOLD_TO_PEOPLE
        for line in (ROOT / path).read_text().splitlines()
        if "`leadline " in line and path.as_posix() not in ASKED_BY_COMMAND
    ]
    assert found == []
