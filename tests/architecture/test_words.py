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
