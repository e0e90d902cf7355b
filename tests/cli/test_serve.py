"""What a person sees who starts the daemon by hand: where it is and how to try it, or why it does not run."""

import fcntl
import subprocess
from pathlib import Path

import pytest

from leadline import main
from leadline.cli import terminal
from leadline.cli.service import greeting
from tests.cli.conftest import Leadline


def test_the_greeting_names_the_sockets_and_a_command_that_reaches_them(tmp_path: Path) -> None:
    run, state = tmp_path / "run", tmp_path / "state"
    where, how = greeting(state, run)
    assert where == f"Sockets: {run}/submit.sock and control.sock beside it. State: {state}. Ctrl-C ends it."
    usual = """echo '{"kind":"noop","teamspace":"acme"}' | leadline submit - --wait"""
    assert how == f"Try it in another terminal: {usual}"
    _, elsewhere = greeting(tmp_path / "other state", tmp_path / "r")
    assert elsewhere.endswith(f" --wait --state-dir '{tmp_path}/other state' --runtime-dir {tmp_path}/r")


@pytest.mark.parametrize("person", [True, False])
def test_only_a_person_is_greeted(leadline: Leadline, monkeypatch: pytest.MonkeyPatch, person: bool) -> None:
    monkeypatch.setattr(main, "serve", lambda *_, **__: 0)
    monkeypatch.setattr(terminal, "is_terminal", lambda _: person)
    ran = leadline("serve")
    assert ran.status == 0
    assert ("Try it" in ran.err) is person


def served(script: str) -> tuple[int, str]:
    """How `leadline serve` ended, and its last word."""
    ran = subprocess.run([script, "serve"], capture_output=True, text=True, timeout=60, check=False)
    return ran.returncode, ran.stderr.splitlines()[-1]


def test_a_state_directory_in_use_is_told_with_what_helps(script: str, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    with (tmp_path / "state" / "lock").open("w") as lock:
        lock.write("pid 4711")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        ended = served(script)
    why = "in use by pid 4711: stop that, choose another --state-dir, or start with --takeover"
    why = f"leadline: {tmp_path}/state is {why}"
    assert ended == (1, why)


def test_a_place_that_cannot_be_used_is_told_with_the_options_that_change_it(script: str, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    why = f"leadline: {tmp_path}/state: File exists; choose other places with --state-dir and --runtime-dir"
    assert served(script) == (1, why)
