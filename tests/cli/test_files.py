"""Files that travel to the daemon and back: whole or not at all, and named by their plain names."""

import os
import stat
from pathlib import Path

import pytest

from leadline_protocol.errors import ErrorCode
from leadline_protocol.ids import JobId
from leadline_protocol.messages import Done, Ended, Export, Get, JobReply, Receipt, Upload, Watch
from tests.cli.conftest import Leadline
from tests.cli.fake_daemon import FakeDaemon, counts, refusal, view


@pytest.fixture
def leads(tmp_path: Path) -> Path:
    file = tmp_path / "my leads (März).csv"
    file.write_bytes(b"email\na@x.test\n")
    return file


def test_an_upload_is_put_into_incoming_before_it_is_named(leadline: Leadline, daemon: FakeDaemon, leads: Path) -> None:
    seen: list[bytes] = []

    def take(upload: Upload) -> Receipt:
        file = daemon.state_dir / "incoming" / upload.path
        seen.append(file.read_bytes())
        assert stat.S_IMODE(file.stat().st_mode) == 0o660
        return daemon.take(upload)

    daemon.on(Upload, take)
    before = os.umask(0o077)
    try:
        ran = leadline("upload", leads, "--table", "prospects", "--teamspace", "acme", "--key", "email, name")
    finally:
        os.umask(before)
    assert (ran.status, ran.out) == (0, "Job 1 is queued.\n")
    assert seen == [b"email\na@x.test\n"]
    (upload,) = daemon.requests
    assert isinstance(upload, Upload)
    assert "/" not in upload.path
    assert upload.path.endswith(".csv")
    assert upload.key == ["email", "name"]
    assert upload.idempotency_key is not None, "a lost receipt must not upload twice"


@pytest.mark.root
def test_an_uploaded_file_belongs_to_the_group_of_the_folder(
    leadline: Leadline, daemon: FakeDaemon, leads: Path
) -> None:
    incoming = daemon.state_dir / "incoming"
    os.chown(incoming, -1, 4711)
    leadline("upload", leads, "--table", "t", "--teamspace", "a")
    (file,) = incoming.iterdir()
    assert file.stat().st_gid == 4711


def test_what_a_file_is_and_which_sheet_is_meant_can_be_said(
    leadline: Leadline, daemon: FakeDaemon, leads: Path
) -> None:
    leadline("upload", leads, "--table", "t", "--teamspace", "a", "--format", "xlsx", "--sheet", "März")
    (upload,) = daemon.requests
    assert isinstance(upload, Upload)
    assert (upload.format, upload.sheet) == ("xlsx", "März")


def test_columns_can_be_renamed_and_given_types(leadline: Leadline, daemon: FakeDaemon, leads: Path) -> None:
    said = ("--rename", "E-Mail Address=email", "--rename", "a=b=c", "--type", "phone=text")
    assert leadline("upload", leads, "--table", "t", "--teamspace", "a", *said).status == 0
    (upload,) = daemon.requests
    assert isinstance(upload, Upload)
    assert upload.mapping == {"E-Mail Address": "email", "a=b": "c"}
    assert upload.types == {"phone": "text"}
    ran = leadline("upload", leads, "--table", "t", "--teamspace", "a", "--type", "phone")
    assert (ran.status, len(daemon.requests)) == (2, 1)


def test_two_uploads_of_one_file_do_not_meet(leadline: Leadline, daemon: FakeDaemon, leads: Path) -> None:
    for _ in range(2):
        leadline("upload", leads, "--table", "t", "--teamspace", "a")
    names = {upload.path for upload in daemon.requests if isinstance(upload, Upload)}
    assert len(names) == 2
    assert {file.name for file in (daemon.state_dir / "incoming").iterdir()} == names


def test_a_refused_upload_leaves_nothing_behind(leadline: Leadline, daemon: FakeDaemon, leads: Path) -> None:
    daemon.on(Upload, lambda _: refusal(ErrorCode.QUEUE_FULL, "10,000 jobs are queued", retry_after=60))
    ran = leadline("upload", leads, "--table", "t", "--teamspace", "a")
    assert ran.status == 1
    assert ran.err == "leadline: queue_full: 10,000 jobs are queued; try again in 60 s\n"
    assert list((daemon.state_dir / "incoming").iterdir()) == []


def test_a_copy_that_fails_leaves_nothing_behind(
    leadline: Leadline, daemon: FakeDaemon, leads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    ran = leadline("upload", leads, "--table", "t", "--teamspace", "a")
    assert ran.status == 1
    assert "could not be put into" in ran.err
    assert "No space left on device" in ran.err
    assert list((daemon.state_dir / "incoming").iterdir()) == []
    assert daemon.requests == []


def test_a_file_that_is_not_there_is_named(leadline: Leadline, daemon: FakeDaemon, tmp_path: Path) -> None:
    ran = leadline("upload", tmp_path / "none.csv", "--table", "t", "--teamspace", "a")
    assert (ran.status, ran.err) == (1, f"leadline: {tmp_path}/none.csv: No such file or directory\n")


def test_a_wrong_state_directory_is_named(leadline: Leadline, daemon: FakeDaemon, leads: Path, tmp_path: Path) -> None:
    ran = leadline("upload", leads, "--table", "t", "--teamspace", "a", "--state-dir", tmp_path / "other")
    assert ran.status == 1
    assert "say with --state-dir where the daemon keeps its state" in ran.err


def _export_by(daemon: FakeDaemon, state: str = "completed") -> None:
    def take(export: Export) -> Receipt:
        assert export.path is not None
        (daemon.state_dir / "exports" / export.path).write_bytes(b"email\r\na@x.test\r\n")
        return daemon.take(export)

    daemon.on(Export, take)
    daemon.on(Get, lambda asked: JobReply(line=0, view=view(asked.job, state="running")))
    daemon.on(Watch, lambda asked: [Done(line=0), Ended(job=JobId(asked.job), state=state, counts=counts(1, 1))])


def test_an_export_without_waiting_says_where_the_file_will_be(leadline: Leadline, daemon: FakeDaemon) -> None:
    _export_by(daemon)
    ran = leadline("export", "--table", "prospects", "--teamspace", "acme", "--columns", "email, score")
    (export,) = daemon.requests
    assert isinstance(export, Export)
    assert export.columns == ["email", "score"]
    assert ran.out.splitlines() == ["Job 1 is queued.", f"{daemon.state_dir}/exports/{export.path}"]


def test_an_export_with_an_output_is_copied_there(leadline: Leadline, daemon: FakeDaemon, tmp_path: Path) -> None:
    _export_by(daemon)
    output = tmp_path / "out.csv"
    ran = leadline("export", "--table", "prospects", "--teamspace", "acme", "--where", "score >= 7", "-o", output)
    assert ran.status == 0
    assert output.read_bytes() == b"email\r\na@x.test\r\n"
    assert ran.out == ""
    assert ran.err.splitlines()[-1] == "Job 1 completed: all 1 done."


def test_an_export_can_go_on_in_a_pipe(leadline: Leadline, daemon: FakeDaemon) -> None:
    _export_by(daemon)
    ran = leadline("export", "--table", "prospects", "--teamspace", "acme", "-o", "-")
    assert ran.out == "email\r\na@x.test\r\n"


@pytest.mark.parametrize("kind", ["csv", "jsonl", "xlsx"])
def test_the_format_follows_the_name_of_the_output(
    kind: str, leadline: Leadline, daemon: FakeDaemon, tmp_path: Path
) -> None:
    _export_by(daemon)
    leadline("export", "--table", "t", "--teamspace", "a", "-o", tmp_path / f"out.{kind}")
    export = daemon.requests[0]
    assert isinstance(export, Export)
    assert export.format == kind
    assert export.path is not None
    assert export.path.endswith(f".{kind}")


def test_an_export_that_failed_is_not_copied(leadline: Leadline, daemon: FakeDaemon, tmp_path: Path) -> None:
    _export_by(daemon, "failed")
    output = tmp_path / "out.csv"
    assert leadline("export", "--table", "t", "--teamspace", "a", "-o", output).status == 1
    assert not output.exists()


def test_an_output_that_cannot_be_made_is_refused_before_the_job(
    leadline: Leadline, daemon: FakeDaemon, tmp_path: Path
) -> None:
    ran = leadline("export", "--table", "t", "--teamspace", "a", "-o", tmp_path / "none" / "out.csv")
    assert ran.status == 2
    assert daemon.requests == []
