"""`leadline batch pack`, `upload` and `download`: code goes to the daemon and back, whole or not at all."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

from leadline.features.batch.archive import judge
from leadline_protocol.errors import ErrorCode
from leadline_protocol.messages import BatchJobs, BatchReply, JobWarning
from tests.cli.conftest import Leadline
from tests.cli.fake_daemon import FakeDaemon, batch_view, refusal


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


def test_a_folder_is_packed_and_put_into_incoming_before_it_is_named(
    leadline: Leadline, daemon: FakeDaemon, tmp_path: Path
) -> None:
    taken: list[bytes] = []

    def take(wanted: BatchJobs) -> BatchReply:
        assert wanted.path is not None
        taken.append((daemon.state_dir / "incoming" / wanted.path).read_bytes())
        return BatchReply(
            line=0,
            batch_jobs=[batch_view(version=3, api=True)],
            warnings=[JobWarning(code="unpinned", message="requests has no version")],
        )

    daemon.on(BatchJobs, take)
    ran = leadline("batch", "upload", "nightly", code(tmp_path), "--teamspace", "acme")
    assert ran.status == 0, ran.err
    assert ran.out.splitlines() == [
        "Version 3 is what runs from the next run on.",
        "  Warning: requests has no version",
        "Next: leadline batch publish nightly --teamspace acme",
    ]
    assert judge(io.BytesIO(taken[0])).files == 1
    (wanted,) = daemon.requests
    assert isinstance(wanted, BatchJobs)
    assert wanted.path is not None
    assert "/" not in wanted.path
    assert wanted.path.endswith(".zip")
    assert (wanted.action, wanted.teamspace, wanted.name) == ("upload", "acme", "nightly")


def test_a_zip_goes_as_it_is(leadline: Leadline, daemon: FakeDaemon, tmp_path: Path) -> None:
    file = tmp_path / "code.zip"
    file.write_bytes(b"whatever it is, the daemon judges it")
    daemon.on(BatchJobs, lambda _: BatchReply(line=0, batch_jobs=[batch_view(version=1)]))
    told = json.loads(leadline("batch", "upload", "nightly", file, "--teamspace", "acme", "--json").out)
    assert told["batch_jobs"][0]["version"] == 1
    (kept,) = (daemon.state_dir / "incoming").iterdir()
    assert kept.read_bytes() == file.read_bytes()


def test_code_that_is_refused_leaves_nothing_behind(leadline: Leadline, daemon: FakeDaemon, tmp_path: Path) -> None:
    daemon.on(BatchJobs, lambda _: refusal(ErrorCode.TOO_LARGE, "the zip has 5,000,000 bytes", at="path"))
    ran = leadline("batch", "upload", "nightly", code(tmp_path), "--teamspace", "acme")
    assert (ran.status, ran.err) == (1, "leadline: too_large: the zip has 5,000,000 bytes (at path)\n")
    assert list((daemon.state_dir / "incoming").iterdir()) == []


def test_a_folder_that_cannot_be_run_is_not_uploaded(leadline: Leadline, daemon: FakeDaemon, tmp_path: Path) -> None:
    ran = leadline("batch", "upload", "nightly", code(tmp_path, "def start(): pass"), "--teamspace", "acme")
    assert ran.status == 1
    assert "has no function main" in ran.err
    ran = leadline("batch", "upload", "nightly", tmp_path / "nowhere.zip", "--teamspace", "acme")
    assert (ran.status, ran.err) == (1, f"leadline: {tmp_path}/nowhere.zip: No such file or directory\n")
    assert daemon.requests == []


def downloading(daemon: FakeDaemon, path: str = "nightly-2.zip") -> None:
    def write(wanted: BatchJobs) -> BatchReply:
        (daemon.state_dir / "exports" / path).write_bytes(b"the zip")
        return BatchReply(line=0, path=path)

    daemon.on(BatchJobs, write)


def test_an_old_version_comes_back_to_where_it_is_wanted(
    leadline: Leadline, daemon: FakeDaemon, tmp_path: Path
) -> None:
    downloading(daemon)
    output = tmp_path / "old.zip"
    ran = leadline("batch", "download", "nightly", "--teamspace", "acme", "--version", 2, "--output", output)
    assert (ran.status, ran.out) == (0, f"{output}\n")
    assert output.read_bytes() == b"the zip"
    assert daemon.requests == [BatchJobs(action="download", teamspace="acme", name="nightly", version=2)]


def test_a_download_can_go_on_in_a_pipe_or_stay_where_it_is(leadline: Leadline, daemon: FakeDaemon) -> None:
    downloading(daemon)
    assert leadline("batch", "download", "nightly", "--teamspace", "acme", "-o", "-").out == "the zip"
    written = str(daemon.state_dir / "exports" / "nightly-2.zip")
    assert leadline("batch", "download", "nightly", "--teamspace", "acme").out == f"{written}\n"
    told = leadline("batch", "download", "nightly", "--teamspace", "acme", "--json").out
    assert json.loads(told) == {"zip": written}


def test_a_download_may_be_named_by_its_whole_path(leadline: Leadline, daemon: FakeDaemon, tmp_path: Path) -> None:
    downloading(daemon, str(daemon.state_dir / "exports" / "nightly-2.zip"))
    leadline("batch", "download", "nightly", "--teamspace", "acme", "-o", tmp_path / "new.zip")
    assert (tmp_path / "new.zip").read_bytes() == b"the zip"


def test_a_download_that_has_no_place_is_not_asked_for(leadline: Leadline, daemon: FakeDaemon, tmp_path: Path) -> None:
    ran = leadline("batch", "download", "nightly", "--teamspace", "acme", "-o", tmp_path / "none" / "old.zip")
    assert (ran.status, daemon.requests) == (2, [])
