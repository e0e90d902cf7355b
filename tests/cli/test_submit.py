"""Lines in, receipts out: nothing is judged, held back or lost on the way."""

import json
import os
import pty
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from leadline_protocol.errors import ErrorCode, JobReason
from leadline_protocol.ids import JobId
from leadline_protocol.messages import Chain, Done, Ended, Follow, Get, JobReply, Noop, Receipt, Watch
from tests.cli.conftest import Leadline
from tests.cli.fake_daemon import FakeDaemon, counts, refusal, view

NOOP = '{"kind":"noop","teamspace":"a"}'


def test_a_line_from_standard_input_prints_its_receipt(daemon: FakeDaemon, script: str) -> None:
    ran = subprocess.run([script, "submit", "-"], input=NOOP, capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout) == {"ok": True, "line": 1, "job": 1, "state": "queued", "jobs_ahead": 0}
    assert ran.stderr == ""


def test_answers_come_as_the_lines_do(daemon: FakeDaemon, script: str) -> None:
    """Whoever holds both ends of the pipe can have a conversation."""
    with subprocess.Popen([script, "submit", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in (1, 2, 3):
            process.stdin.write(NOOP.encode() + b"\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["line"] == number
        process.stdin.close()
        assert process.wait() == 0


def test_refusals_are_answers_too_and_end_with_1(leadline: Leadline, daemon: FakeDaemon, tmp_path: Path) -> None:
    file = tmp_path / "jobs.jsonl"
    file.write_text(
        f'{NOOP}\n\nnonsense\n{{"kind":"noop","teamspace":"b","ref":"x"}}\n{{"kind":"nap","teamspace":"b"}}'
    )
    ran = leadline("submit", file)
    answers = [json.loads(line) for line in ran.out.splitlines()]
    assert [(answer["ok"], answer["line"]) for answer in answers] == [(True, 1), (False, 3), (True, 4), (False, 5)]
    assert answers[1]["error"]["code"] == "bad_json"
    assert answers[2]["ref"] == "x"
    assert answers[3]["error"]["code"] == "unknown_kind"
    assert (ran.status, ran.err) == (1, "")
    assert [request.teamspace for request in daemon.requests if isinstance(request, Noop)] == ["a", "b"]


def test_lines_reach_the_daemon_untouched(leadline: Leadline, daemon: FakeDaemon, tmp_path: Path) -> None:
    lines = b'  {"teamspace" : "\xc3\xa9", "kind":"noop"}\r\n{"kind":"noop","teamspace":"\\u00e9"}\n'
    file = tmp_path / "jobs.jsonl"
    file.write_bytes(lines)
    assert leadline("submit", file).status == 0
    assert b"".join(daemon.lines).replace(b"\r\n", b"\n") == lines.replace(b"\r\n", b"\n")


def test_many_lines_are_pipelined(leadline: Leadline, daemon: FakeDaemon, tmp_path: Path) -> None:
    file = tmp_path / "jobs.jsonl"
    file.write_text(f"{NOOP}\n" * 20_000)
    answers = leadline("submit", file).out.splitlines()
    assert [json.loads(answer)["line"] for answer in answers] == list(range(1, 20_001))


def test_an_empty_file_submits_nothing(leadline: Leadline, daemon: FakeDaemon, tmp_path: Path) -> None:
    file = tmp_path / "jobs.jsonl"
    file.write_text("\n\n")
    ran = leadline("submit", file)
    assert (ran.status, ran.out, daemon.requests) == (0, "", [])


def test_the_submit_socket_serves_who_may_not_open_the_other(
    leadline: Leadline, submit_only: FakeDaemon, tmp_path: Path
) -> None:
    file = tmp_path / "jobs.jsonl"
    file.write_text(NOOP)
    assert leadline("submit", file).status == 0


def test_a_connection_that_breaks_says_how_many_lines_have_no_answer(leadline: Leadline, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "run" / "control.sock"))
    listening.listen()

    def answer_one_and_die() -> None:
        listening.accept()[0].close()  # who only looks whether somebody is there
        connection, _ = listening.accept()
        connection.recv(65536)
        connection.sendall(b'{"ok":true,"line":1,"job":7,"state":"queued","jobs_ahead":0}\n')
        connection.close()

    thread = threading.Thread(target=answer_one_and_die)
    thread.start()
    file = tmp_path / "jobs.jsonl"
    file.write_text(f"{NOOP}\n" * 3)
    ran = leadline("submit", file)
    thread.join()
    listening.close()
    assert ran.status == 1
    assert json.loads(ran.out)["job"] == 7
    assert (
        "with 2 lines unanswered; it may have taken some of them: lines with an idempotency_key can safely" in ran.err
    )


def test_a_file_that_is_not_there_ends_with_1(leadline: Leadline, daemon: FakeDaemon, tmp_path: Path) -> None:
    ran = leadline("submit", tmp_path / "none.jsonl")
    assert (ran.status, ran.err) == (1, f"leadline: {tmp_path}/none.jsonl: No such file or directory\n")


def test_a_terminal_is_not_read_from_unasked(daemon: FakeDaemon, script: str) -> None:
    ours, theirs = pty.openpty()
    ran = subprocess.run([script, "submit"], stdin=theirs, capture_output=True, text=True, check=False)
    os.close(ours)
    os.close(theirs)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == "leadline: Name a file, or - for standard input (see `leadline submit --help`)\n"


@pytest.mark.parametrize(("state", "status"), [("completed", 0), ("partial", 0), ("failed", 1), ("cancelled", 1)])
def test_waiting_prints_how_each_job_ended(
    leadline: Leadline, daemon: FakeDaemon, tmp_path: Path, state: str, status: int
) -> None:
    daemon.on(
        Watch,
        lambda asked: [Done(line=0), Ended(job=JobId(99), state="failed", counts=counts()), _ended(asked.job, state)],
    )
    daemon.on(Get, lambda asked: JobReply(line=0, view=view(asked.job, state="running")))
    file = tmp_path / "jobs.jsonl"
    file.write_text(f"{NOOP}\n{NOOP}\n")
    ran = leadline("submit", file, "--wait")
    lines = [json.loads(line) for line in ran.out.splitlines()]
    assert [line.get("event", "receipt") for line in lines] == ["receipt", "receipt", "ended", "ended"]
    assert {line["job"] for line in lines[2:]} == {1, 2}
    assert ran.status == status


def _ended(job: JobId | None, state: str) -> Ended:
    assert job is not None
    return Ended(job=job, state=state, counts=counts(10, 9, failed=1))


def test_a_job_that_ended_before_it_was_followed_is_not_waited_for(
    leadline: Leadline, daemon: FakeDaemon, tmp_path: Path
) -> None:
    daemon.on(Watch, lambda _: Done(line=0))
    daemon.on(Get, lambda asked: JobReply(line=0, view=view(asked.job, state="completed")))
    file = tmp_path / "jobs.jsonl"
    file.write_text(NOOP)
    ran = leadline("submit", file, "--wait")
    assert json.loads(ran.out.splitlines()[1])["state"] == "completed"


def test_waiting_over_the_submit_socket_follows(leadline: Leadline, submit_only: FakeDaemon, tmp_path: Path) -> None:
    submit_only.on(Follow, lambda asked: [Done(line=0), _ended(asked.job, "completed")])
    submit_only.on(Get, lambda asked: JobReply(line=0, view=view(asked.job, state="running")))
    file = tmp_path / "jobs.jsonl"
    file.write_text(NOOP)
    assert leadline("submit", file, "--wait").status == 0


CHAIN = """
teamspace = "acme"
idempotency_key = "monday"

[[steps]]
kind = "enrich"
table = "prospects"
module = "ai_prompt"
into = {score = "number"}
params = {prompt = "Score {{company}}"}

[[steps]]
kind = "export"
table = "prospects"
where = "score >= 7"
"""


def test_a_chain_is_read_from_toml(leadline: Leadline, daemon: FakeDaemon, tmp_path: Path) -> None:
    daemon.on(Chain, lambda _: Receipt(line=0, job=JobId(5), state="queued", jobs_ahead=1, steps=[JobId(6), JobId(7)]))
    file = tmp_path / "chain.toml"
    file.write_text(CHAIN)
    ran = leadline("chain", "run", file)
    assert (ran.status, ran.out) == (0, "Job 5 with the steps 6, 7 is queued, 1 job before it.\n")
    (chain,) = daemon.requests
    assert isinstance(chain, Chain)
    assert (chain.teamspace, chain.idempotency_key) == ("acme", "monday")
    assert [type(step).__name__ for step in chain.steps] == ["EnrichStep", "ExportStep"]


def test_waiting_for_a_chain_tells_of_its_steps(leadline: Leadline, daemon: FakeDaemon, tmp_path: Path) -> None:
    daemon.on(Chain, lambda _: Receipt(line=0, job=JobId(5), state="queued", jobs_ahead=0, steps=[JobId(6), JobId(7)]))
    ends = {5: "failed", 6: "failed", 7: "skipped"}
    daemon.on(
        Watch,
        lambda asked: [
            Done(line=0),
            Ended(job=asked.job, state=ends[asked.job], counts=counts(10, 4), reason=JobReason.INVALID_KEY),
        ],
    )
    daemon.on(Get, lambda asked: JobReply(line=0, view=view(asked.job, state="queued")))
    file = tmp_path / "chain.toml"
    file.write_text(CHAIN)
    ran = leadline("chain", "run", file, "--wait")
    assert ran.status == 1
    assert ran.out.splitlines()[-1] == ("Job 5 failed: The provider refused the credential; 4 of 10 done, 6 pending.")
    assert [line.partition(" ")[2] for line in ran.err.splitlines()] == [
        "job 6: enrich of prospects for acme, queued",
        "job 7: enrich of prospects for acme, queued",
        "job 5: enrich of prospects for acme, queued",
        "job 6: failed, 4 of 10 done, 6 pending",
        "job 7: skipped, 4 of 10 done, 6 pending",
        "job 5: failed, 4 of 10 done, 6 pending",
    ]


def test_a_chain_that_is_not_toml_is_refused_here_and_a_wrong_one_by_the_daemon(
    leadline: Leadline, daemon: FakeDaemon, tmp_path: Path
) -> None:
    file = tmp_path / "chain.toml"
    file.write_text("[[steps]")
    assert "is not TOML" in leadline("chain", "run", file).err
    file.write_text("teamspace = 'acme'\nsteps = []")
    ran = leadline("chain", "run", file)
    assert ran.status == 1
    assert "bad_request" in ran.err
    daemon.on(Chain, lambda _: refusal(ErrorCode.UNKNOWN_COLUMN, "there is no column x", at="steps[0].where:3"))
    file.write_text(CHAIN)
    assert "unknown_column: there is no column x (at steps[0].where:3)" in leadline("chain", "run", file).err
