"""How a command ends: its exit status, and the one line that says what is wrong and what to do next."""

import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from leadline.config import Queue
from leadline_protocol.errors import ErrorCode
from leadline_protocol.messages import (
    Cancel,
    Changed,
    FollowUps,
    Get,
    Job,
    JobList,
    JobReply,
    Jobs,
    OutreachReply,
)
from tests.cli.conftest import Leadline
from tests.cli.fake_daemon import FakeDaemon, refusal, view


def test_what_was_done_ends_with_0(leadline: Leadline, daemon: FakeDaemon) -> None:
    daemon.on(Cancel, lambda asked: Changed(line=0, job=asked.job, state="cancelled"))
    ran = leadline("cancel", 41)
    assert (ran.status, ran.out, ran.err) == (0, "Job 41 is cancelled.\n", "")


def test_a_refusal_ends_with_1_and_says_code_place_and_what_to_do(leadline: Leadline, daemon: FakeDaemon) -> None:
    daemon.on(Cancel, lambda _: refusal(ErrorCode.NOT_FOUND, "there is no job 41", at="job"))
    ran = leadline("cancel", 41)
    assert (ran.status, ran.out) == (1, "")
    assert ran.err == "leadline: not_found: there is no job 41 (at job); `leadline jobs` lists the jobs there are\n"


def test_a_refusal_for_now_says_when_to_try_again(leadline: Leadline, daemon: FakeDaemon) -> None:
    daemon.on(Cancel, lambda _: refusal(ErrorCode.BAD_STATE, "it has ended"))
    assert leadline("cancel", 41).err == "leadline: bad_state: it has ended\n"


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["jbs"], 'Unknown command "jbs". Did you mean "jobs"? (see `leadline --help`)'),
        (["jobs", "--jsn"], "Unknown option: --jsn. Did you mean --json? (see `leadline jobs --help`)"),
        (["job"], 'Command "job" parameter ID requires an argument (see `leadline job --help`)'),
        (["job", "x"], 'Invalid value for ID: unable to convert "x" into int (see `leadline job --help`)'),
        (["jobs", "-n", "0"], "--limit must be at least 1 (see `leadline jobs --help`)"),
        (["pause", "provider"], "Name the provider (see `leadline pause --help`)"),
        (["pause", "job", "snov"], "The name of a job is its number, not 'snov' (see `leadline pause --help`)"),
        (["resume", "queue", "snov"], "The queue has no name (see `leadline resume --help`)"),
        (
            ["plans", "--set", "max_queued=3"],
            "Say with --plan, --teamspace or --provider whose limit to set (see `leadline plans --help`)",
        ),
        (
            ["submit", "--wiat"],
            'Invalid value "--wiat" for FILE. There is no such option (see `leadline submit --help`)',
        ),
    ],
)
def test_a_wrong_command_line_ends_with_2_and_names_the_help(
    leadline: Leadline, arguments: list[str], fault: str
) -> None:
    ran = leadline(*arguments)
    assert (ran.status, ran.out, ran.err) == (2, "", f"leadline: {fault}\n")


def test_a_state_that_there_is_not_is_a_wrong_command_line(leadline: Leadline) -> None:
    ran = leadline("jobs", "--state", "done")
    assert ran.status == 2
    assert 'Invalid value "done" for --state. Choose from: "delayed", "queued"' in ran.err


def test_no_daemon_ends_with_3_and_says_what_was_tried_and_what_to_do(leadline: Leadline, tmp_path: Path) -> None:
    ran = leadline("jobs")
    assert (ran.status, ran.out) == (3, "")
    assert ran.err == (
        f"leadline: No daemon answers at {tmp_path}/run/control.sock: "
        "start one with `leadline serve`, or say with --runtime-dir where it is\n"
    )


def test_a_socket_that_a_dead_daemon_left_is_no_daemon(leadline: Leadline, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(tmp_path / "run" / "control.sock"))
    assert leadline("jobs").status == 3


def test_a_socket_path_that_is_too_long_is_refused_with_the_reason(leadline: Leadline) -> None:
    ran = leadline("jobs", "--runtime-dir", "/" + "a" * 100)
    assert ran.status == 2
    assert "114 bytes long and a Unix socket's path may have 107: choose a shorter --runtime-dir" in ran.err


def test_the_option_says_which_daemon_before_and_after_the_command(
    leadline: Leadline, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.on(Jobs, lambda _: JobList(line=0, jobs=[]))
    monkeypatch.delenv("RUNTIME_DIRECTORY")
    assert leadline("jobs", "--runtime-dir", daemon.runtime_dir).status == 0
    assert leadline("--runtime-dir", daemon.runtime_dir, "jobs").status == 0


def test_a_person_without_a_daemon_of_her_own_means_the_systems(
    leadline: Leadline, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    daemon.on(Jobs, lambda _: JobList(line=0, jobs=[]))
    monkeypatch.setattr("leadline.cli.daemon.SYSTEM_RUNTIME", daemon.runtime_dir)
    monkeypatch.delenv("RUNTIME_DIRECTORY")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "own"))
    assert leadline("jobs").status == 0


def test_who_may_not_open_the_control_socket_is_told_so(
    leadline: Leadline, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(self: socket.socket, address: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", deny)
    ran = leadline("jobs")
    assert ran.status == 3
    assert "You may not open" in ran.err
    assert "leadline-admin" in ran.err


def test_jobs_can_be_seen_over_the_submit_socket_but_not_their_history(
    leadline: Leadline, submit_only: FakeDaemon
) -> None:
    submit_only.on(Get, lambda asked: JobReply(line=0, view=view(asked.job)))
    assert leadline("job", 41).out.startswith("Job 41: enrich of prospects for acme, running")
    assert leadline("job", 41, "--history").status == 2


def test_a_wrong_configuration_ends_with_2_and_names_every_fault(leadline: Leadline, tmp_path: Path) -> None:
    file = tmp_path / "leadline.toml"
    file.write_text("[queue]\nmax_stall_kills = 0\ncolour = 'red'\n")
    for command in (("check", file), ("check", "--config", file), ("show", "--config", file)):
        ran = leadline("config", *command)
        assert (ran.status, ran.out) == (2, "")
        assert ran.err.splitlines() == [
            "leadline: queue.max_stall_kills: must be a whole number from 1 to 100, not 0",
            f"leadline: queue.colour: there is no such key; known here: {', '.join(Queue.__struct_fields__)}",
        ]


def test_the_daemon_does_not_start_on_a_wrong_configuration(leadline: Leadline, tmp_path: Path) -> None:
    file = tmp_path / "leadline.toml"
    file.write_text("[queue]\nmax_stall_kills = 0")
    ran = leadline("serve", "--config", file)
    assert ran.status == 2
    assert ran.err == "leadline: queue.max_stall_kills: must be a whole number from 1 to 100, not 0\n"
    assert not (tmp_path / "state").exists()


def test_what_is_wrong_with_a_module_is_wrong_with_the_configuration(leadline: Leadline, tmp_path: Path) -> None:
    file = tmp_path / "leadline.toml"
    (tmp_path / "scorer.toml").write_text("nonsense")
    file.write_text("[providers.x]\npreset = 'nope'\n[providers.y]\nmodule = 'scorer.toml'")
    for command in (("config", "check", file), ("serve", "--config", file)):
        ran = leadline(*command)
        assert ran.status == 2
        first, second = ran.err.splitlines()
        assert first.startswith("leadline: providers.x.preset: there is no preset nope; there are apollo, ")
        assert second.startswith("leadline: providers.y.module: ")
    assert leadline("doctor", "--config", file).status == 1
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(("command", "says"), [(["jobs"], "enrich"), (["outreach", "list"], "FOLLOW-UP")])
def test_a_common_command_imports_only_what_it_needs(
    daemon: FakeDaemon, script: str, command: Sequence[str], says: str
) -> None:
    """Each of these costs more than the rest of the command; together they make a second."""
    daemon.on(Jobs, lambda _: JobList(line=0, jobs=[view(41)]))
    daemon.on(FollowUps, lambda _: OutreachReply(line=0))
    program = (
        "import sys\n"
        "from leadline.cli.app import run\n"
        f"assert run({command!r}) == 0\n"
        "sys.stderr.write(' '.join(sys.modules))\n"
    )
    python = Path(script).with_name("python")
    ran = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True)
    assert says in ran.stdout
    heavy = {
        "rich",
        "jinja2",
        "asyncio",
        "anyio",
        "asyncpg",
        "aiohttp",
        "structlog",
        "sqlglot",
        "leadline.main",
        "tomllib",
    }
    assert heavy & set(ran.stderr.split()) == set()


def test_a_reader_that_has_seen_enough_is_no_fault_of_the_command(daemon: FakeDaemon, script: str) -> None:
    daemon.on(Jobs, lambda _: JobList(line=0, jobs=[view(number) for number in range(1000, 0, -1)]))
    piped = subprocess.run(f"{script} jobs -n 1000 | head -n 1", shell=True, capture_output=True, text=True, check=True)
    assert piped.stdout.split()[0] == "JOB"
    assert piped.stderr == ""


def test_nothing_a_tenant_names_acts_on_the_terminal(leadline: Leadline, daemon: FakeDaemon) -> None:
    evil = "a\x1b]0;gone\x07\x9b2J\u202etxt"
    daemon.on(Job, lambda asked: JobReply(line=0, view=view(asked.job, teamspace=evil, table=evil, message=evil)))
    daemon.on(Jobs, lambda _: JobList(line=0, jobs=[view(41, teamspace=evil, table=evil, activity=evil)]))
    for command in (("job", 41), ("jobs",)):
        out = leadline(*command).out
        assert "a\\x1b]0;gone\\x07\\x9b2J\\u202etxt" in out
        assert not set(out) & {"\x1b", "\x07", "\x9b", "\u202e"}
