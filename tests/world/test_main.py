"""The demo's world as a process: it says where it listens, serves, and leaves nothing behind."""

import json
import os
import select
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def world(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "tests.world", "--dir", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.terminate()


def post(url: str, document: object) -> dict[str, object]:
    request = urllib.request.Request(url, json.dumps(document).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as response:
        decoded: dict[str, object] = json.load(response)
    return decoded


def test_the_world_says_where_it_listens_and_ends_on_sigterm_with_its_logs_written(
    world: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    assert world.stdout is not None
    listening = json.loads(world.stdout.readline())
    assert set(listening) == {"pid", "api_key", "logs", "ai", "slow", "plain", "mail"}
    assert "data" in post(f"{listening['plain']}/find", {"email": "ada@north.example"})
    assert "task_hash" in post(f"{listening['slow']}/start", {"email": "ada@north.example"})
    world.terminate()
    assert world.wait(10) == 0
    assert json.loads((tmp_path / "logs" / "plain.jsonl").read_text())["lead"] == "ada@north.example"


def test_the_world_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    starter = (
        "import subprocess, sys\n"
        f"world = subprocess.Popen([sys.executable, '-m', 'tests.world', '--dir', {str(tmp_path)!r}],"
        " stdout=subprocess.PIPE)\n"
        "print(world.stdout.readline().decode(), flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", starter], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pid = json.loads(process.stdout.readline())["pid"]
        ended = os.pidfd_open(pid)
        process.kill()
    readable, _, _ = select.select([ended], [], [], 10)
    os.close(ended)
    assert readable, "the world outlived its parent by ten seconds"
