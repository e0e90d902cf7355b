"""A submitted name leads to a regular file in an allowed folder, or nowhere."""

import os
from pathlib import Path

import pytest

from leadline.adapters.upload_folder import UploadFolder
from leadline_protocol.errors import ErrorCode, Refused


@pytest.fixture
def folder(tmp_path: Path) -> UploadFolder:
    for name in ("incoming", "own", "shared"):
        (tmp_path / name).mkdir()
    (tmp_path / "secret").write_text("not yours")
    return UploadFolder(tmp_path / "incoming", tmp_path / "own", [tmp_path / "shared"])


async def refusal(folder: UploadFolder, path: str) -> str:
    with pytest.raises(Refused) as caught:
        await folder.take(path)
    assert caught.value.code is ErrorCode.BAD_ARCHIVE
    assert caught.value.at == "path"
    return caught.value.message


async def test_a_file_in_the_common_folder_becomes_the_daemons_own(folder: UploadFolder, tmp_path: Path) -> None:
    original = tmp_path / "incoming" / "leads.csv"
    original.write_bytes(b"email\na@b.example\n")
    taken = await folder.take("leads.csv")
    original.write_bytes(b"email\nchanged@b.example\n")
    assert folder.path_of(taken.name).read_bytes() == b"email\na@b.example\n"
    assert taken.size_bytes == 18
    assert folder.path_of(taken.name).stat().st_mode & 0o077 == 0
    await folder.dispose("leads.csv", taken.name)
    assert not original.exists()
    assert not folder.path_of(taken.name).exists()


async def test_a_file_below_a_configured_folder_may_be_named_and_stays(folder: UploadFolder, tmp_path: Path) -> None:
    inner = tmp_path / "shared" / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "leads.csv").write_text("email\n")
    path = str(inner / "leads.csv")
    taken = await folder.take(path)
    await folder.dispose(path, taken.name)
    assert (inner / "leads.csv").exists()


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../secret", "missing.csv", "x\0y", "."])
async def test_a_name_that_leads_elsewhere_is_refused(folder: UploadFolder, name: str) -> None:
    await refusal(folder, name)


async def test_links_are_not_followed(folder: UploadFolder, tmp_path: Path) -> None:
    (tmp_path / "incoming" / "link.csv").symlink_to(tmp_path / "secret")
    (tmp_path / "shared" / "inner").symlink_to(tmp_path)
    await refusal(folder, "link.csv")
    await refusal(folder, str(tmp_path / "shared" / "inner" / "secret"))


async def test_only_regular_files_are_taken_and_a_pipe_does_not_keep_anybody_waiting(
    folder: UploadFolder, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "incoming" / "pipe.csv")
    (tmp_path / "incoming" / "dir.csv").mkdir()
    assert "regular file" in await refusal(folder, "pipe.csv")
    await refusal(folder, "dir.csv")


async def test_nothing_is_left_behind_by_a_refusal(folder: UploadFolder, tmp_path: Path) -> None:
    await refusal(folder, "missing.csv")
    assert list((tmp_path / "own").iterdir()) == []


async def test_copies_that_nobody_will_read_go_and_young_ones_stay(folder: UploadFolder, tmp_path: Path) -> None:
    (tmp_path / "incoming" / "leads.csv").write_text("email\n")
    orphan, read, young = [(await folder.take("leads.csv")).name for _ in range(3)]
    for old in (orphan, read):
        os.utime(folder.path_of(old), (1_000, 1_000))
    assert await folder.keep_only({read}, 2_000) == [orphan]
    assert sorted(path.name for path in (tmp_path / "own").iterdir()) == sorted([read, young])
