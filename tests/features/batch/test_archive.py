"""What a zip of code may be: it is read as if whoever made it wanted to break out of it, or to break us."""

import io
import os
import stat
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadline.core.quota.quotas import Quotas, check_archive
from leadline.features.batch import archive
from leadline.features.batch.archive import MAIN, Code, judge, pack, takes_event, unpack
from leadline_protocol.errors import ErrorCode, Refused

GOOD = "def main():\n    return 7\n"


def zipped(files: dict[str, str | bytes], change: Callable[[zipfile.ZipInfo], None] | None = None) -> io.BytesIO:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as it:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            if change is not None and name != MAIN:
                change(info)
            it.writestr(info, content)
    return out


def refusal(file: io.BytesIO) -> str:
    with pytest.raises(Refused) as caught:
        judge(file)
    assert caught.value.code is ErrorCode.BAD_ARCHIVE
    return caught.value.message


def test_good_code_is_taken_and_unpacks_to_what_it_was(tmp_path: Path) -> None:
    file = zipped({MAIN: GOOD, "lib/helpers.py": "x = 1\n", "requirements.txt": "requests\n", "data/ü.csv": b"\xff\0"})
    size = len(GOOD) + 6 + 9 + 2
    assert judge(file) == Code(files=4, unpacked_bytes=size, takes_event=False, requirements=b"requests\n")
    unpack(file, tmp_path)
    assert (tmp_path / "lib/helpers.py").read_text() == "x = 1\n"
    assert (tmp_path / "data/ü.csv").read_bytes() == b"\xff\0"
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == [
        "helpers.py", "main.py", "requirements.txt", "ü.csv",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["../out.py", "a/../../out.py", "/etc/passwd", "a//b", "./a", "a/./b", "a\\b.py", "C:\\a", "a\nb", "a\u202eb", "..",
     "x" * 256, "/".join("d" * 40), "/".join(["d" * 200] * 6), "/".join(["\U0001f600" * 60] * 6)],
)  # fmt: skip
def test_a_path_that_leads_elsewhere_is_refused(name: str) -> None:
    assert "path" in refusal(zipped({MAIN: GOOD, name: "x"}))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_what_is_no_plain_file_is_refused(kind: int) -> None:
    def change(info: zipfile.ZipInfo) -> None:
        info.external_attr = (kind | 0o777) << 16

    assert "'sly' is no plain file" in refusal(zipped({MAIN: GOOD, "sly": "/etc/shadow"}, change))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_file_twice_or_as_a_folder_too_is_refused() -> None:
    out = zipped({MAIN: GOOD})
    with zipfile.ZipFile(out, "a") as it:
        it.writestr(MAIN, "def main(): evil()\n")
    assert "'main.py' is in it twice" in refusal(out)
    assert "'a' is a file and a folder" in refusal(zipped({MAIN: GOOD, "a": "x", "a/b": "x"}))


def test_what_unpacks_to_too_much_is_refused_whatever_it_says_of_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "UNPACKED_BYTES_MAX", 1 << 20)
    fits: dict[str, str | bytes] = {MAIN: GOOD, "big": bytes((1 << 20) - len(GOOD))}
    assert judge(zipped(fits)).unpacked_bytes == 1 << 20
    bomb = zipped({**fits, "one": b"\0"})
    assert len(bomb.getvalue()) < 3_000
    assert "unpacks to more than 1 MiB" in refusal(bomb)
    lying = bomb.getvalue().replace(((1 << 20) - len(GOOD)).to_bytes(4, "little"), (9).to_bytes(4, "little"))
    assert lying != bomb.getvalue()
    assert "cannot be unpacked" in refusal(io.BytesIO(lying))


@pytest.mark.parametrize("offset", [2**63 - 1, 2**63, 2**64 - 1])
def test_a_file_that_is_said_to_lie_beyond_all_numbers_is_refused(offset: int) -> None:
    whole = zipped({MAIN: GOOD}).getvalue()
    directory = whole.index(b"PK\x01\x02")
    entry, end = bytearray(whole[directory:-22]), bytearray(whole[-22:])
    entry[30:32] = struct.pack("<H", 12)  # as many bytes of extra fields
    entry[42:46] = b"\xff" * 4  # the offset is among them
    entry += struct.pack("<HHQ", 1, 8, offset)
    end[12:16] = struct.pack("<L", len(entry))
    assert "cannot be unpacked" in refusal(io.BytesIO(whole[:directory] + entry + end))


def test_too_many_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "FILES_MAX", 3)
    assert judge(zipped({MAIN: GOOD, "a": "", "b": ""})).files == 3
    assert "4 entries" in refusal(zipped({MAIN: GOOD, "a": "", "b": "", "c": ""}))


def test_other_methods_and_encrypted_files_are_refused() -> None:
    out = zipped({MAIN: GOOD})
    with zipfile.ZipFile(out, "a", zipfile.ZIP_LZMA) as it:
        it.writestr("packed", "x" * 100)
    assert "other than deflate" in refusal(out)
    encrypted = bytearray(zipped({MAIN: GOOD, "secret": "x"}).getvalue())
    for place in range(len(encrypted) - 4):
        if encrypted[place : place + 4] == b"PK\x01\x02" and b"secret" in encrypted[place : place + 60]:
            encrypted[place + 8] |= 1
    assert "'secret' is encrypted" in refusal(io.BytesIO(bytes(encrypted)))


def test_the_size_of_the_zip_itself_is_the_plans_to_the_byte() -> None:
    check_archive(Quotas(), 4_194_304)
    with pytest.raises(Refused) as caught:
        check_archive(Quotas(), 4_194_305)
    assert caught.value.code is ErrorCode.TOO_LARGE


@settings(max_examples=300)
@given(st.data())
def test_bytes_changed_anywhere_are_refused_in_words_or_change_nothing_that_counts(data: st.DataObject) -> None:
    whole = bytearray(zipped({MAIN: GOOD, "lib/a.py": "x = 1\n" * 50}).getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with suppress(Refused):
        assert judge(io.BytesIO(bytes(whole))).unpacked_bytes <= len(GOOD) + 300


@pytest.mark.parametrize(
    ("source", "event"),
    [
        (GOOD, False),
        ("def main(event):\n    pass\n", True),
        ("def main(event=None): pass", True),
        ("def main(event, retries=3): pass", True),
        ("def main(*anything): pass", True),
        ("def main(**anything): pass", False),
        ("def main(): pass\ndef main(event): pass", True),
        ("# -*- coding: latin-1 -*-\ndef main(): return '\xe9'\n", False),
    ],
)
def test_main_is_called_as_it_is_written(source: str, event: bool) -> None:
    assert takes_event(source.encode("latin-1")) is event


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("", "has no function main"),
        ("class Main:\n    def main(self): pass", "has no function main"),
        ("if True:\n    def main(): pass", "has no function main"),
        ("main = 7", "has no function main"),
        ("def main(event, context): pass", "line 1: main takes nothing, or the event"),
        ("x = 1\ndef main(*, event): pass", "line 2: main takes nothing, or the event"),
        ("async def main(): pass", "must not be async"),
        ("def main(:\n", "line 1: "),
        ("def main():\n\treturn 1\n        return 2\n", "line 3: "),
        ("x = " + "(" * 5_000 + ")" * 5_000, "cannot be read"),
        ("x = " + "-" * 200_000 + "1", "cannot be read"),
        ("def main(): pass\0", "cannot be read"),
        ("#" * (archive.MAIN_BYTES_MAX + 1), "may have 262,144 bytes and has more"),
    ],
)
def test_main_that_cannot_be_called_is_refused_with_its_line(source: str, why: str) -> None:
    assert why in refusal(zipped({MAIN: source}))


def test_a_zip_without_main_is_told_where_it_is_instead() -> None:
    assert refusal(zipped({"readme": "x"})) == "there is no main.py at its root"
    assert "there is job/main.py: pack what is in that folder" in refusal(zipped({"job/main.py": GOOD}))


@pytest.mark.parametrize("content", [b"", b"PK", b"hello", bytes(1_000)])
def test_what_is_no_zip_is_refused(content: bytes) -> None:
    assert "no zip" in refusal(io.BytesIO(content))


# -- packing ----------------------------------------------------------------------------------------------------------


def test_a_folder_packs_to_the_same_bytes_without_what_is_no_code(tmp_path: Path) -> None:
    for name in (MAIN, "lib/a.py", "__pycache__/a.pyc", "lib/a.pyc", ".git/config", ".env", "venv/bin/python"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(GOOD)
    first, second = io.BytesIO(), io.BytesIO()
    assert pack(tmp_path, first).files == 2
    (tmp_path / MAIN).touch()
    pack(tmp_path, second)
    assert first.getvalue() == second.getvalue()


def test_a_name_that_no_zip_can_hold_is_refused_before_it_is_packed(tmp_path: Path) -> None:
    (tmp_path / MAIN).write_text(GOOD)
    (tmp_path / os.fsdecode(b"\xff.py")).touch()
    with pytest.raises(Refused, match="no path within a folder"):
        pack(tmp_path, io.BytesIO())


def test_the_largest_main_is_read_within_half_a_gigabyte_whatever_is_in_it() -> None:
    source = "print(takes_event(b'x;' * ((MAIN_BYTES_MAX - 20) // 2) + b'\\ndef main(): pass'))"
    took = (
        f"import resource\nfrom leadline.features.batch.archive import MAIN_BYTES_MAX, takes_event\n{source}\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    event, kilobytes = subprocess.run([sys.executable, "-c", took], capture_output=True, check=True).stdout.split()
    assert event == b"False"
    assert int(kilobytes) < 500 << 10


def test_a_link_in_a_folder_is_refused_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / MAIN).write_text(GOOD)
    (tmp_path / "sly").symlink_to("/etc/passwd")
    with pytest.raises(Refused, match="sly is no plain file"):
        pack(tmp_path, io.BytesIO())
