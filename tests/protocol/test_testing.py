"""The fixture for services, with a stand-in for `leadline serve` that takes its arguments and its time."""

import sys
from pathlib import Path

import pytest

from leadline_protocol.messages import Noop
from leadline_protocol.testing import CannotStart, LeadlineDaemon

STAND_IN = """
import os, signal, socket, sys
from pathlib import Path

command, *arguments = sys.argv[1:]
options = dict(argument.removeprefix("--").split("=", 1) for argument in arguments)
configuration = Path(options["config"]).read_text()
print("started with", configuration, flush=True)
if configuration == "wrong":
    sys.exit(2)
state, run = Path(options["state-dir"]), Path(options["runtime-dir"])
state.mkdir(exist_ok=True)
run.mkdir(exist_ok=True)
path = run / "control.sock"
signal.signal(signal.SIGTERM, lambda *_: (path.unlink(), sys.exit(0)))
server = socket.socket(socket.AF_UNIX)
server.bind(str(path))
server.listen()
not_ready = 2
while True:
    peer, _ = server.accept()
    for line, request in enumerate(peer.makefile("rb"), 1):
        if not_ready:
            not_ready -= 1
            peer.sendall(b'{"ok":false,"line":1,"error":{"code":"unavailable","message":"starting"},"ref":null}\\n')
        elif b"ping" in request:
            peer.sendall(b'{"ok":true,"line":%d,"version":"0"}\\n' % line)
        else:
            peer.sendall(b'{"ok":true,"line":%d,"job":1,"state":"queued","jobs_ahead":0}\\n' % line)
"""


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    return [sys.executable, str(script)]


async def test_a_daemon_is_handed_over_when_it_takes_work_and_leaves_nothing_behind(command: list[str]) -> None:
    daemon = LeadlineDaemon("", command=command)
    try:
        async with daemon.client() as client:
            assert (await client.submit(Noop(teamspace="a"))).job == 1
        with daemon.blocking_client() as client:
            assert client.submit(Noop(teamspace="a")).job == 1
        assert len(bytes(daemon.submit_socket)) <= 107
        assert daemon.state_dir.exists()
    finally:
        daemon.remove()
    assert not daemon.state_dir.parent.exists()


def test_a_stopped_daemon_can_be_started_again_on_its_state(command: list[str]) -> None:
    daemon = LeadlineDaemon("", command=command)
    try:
        (daemon.state_dir / "kept").touch()
        daemon.stop()
        assert not daemon.control_socket.exists()
        daemon.start()
        assert (daemon.state_dir / "kept").exists()
    finally:
        daemon.remove()


def test_a_daemon_that_ends_at_once_tells_what_it_wrote(command: list[str]) -> None:
    with pytest.raises(CannotStart, match=r"ended with 2\nstarted with wrong"):
        LeadlineDaemon("wrong", command=command)


def test_what_tells_this_process_where_it_is_does_not_reach_the_daemon(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/nowhere")
    script = Path(command[1])
    script.write_text('import os, sys; print("STATE_DIRECTORY" in os.environ); sys.exit(1)')
    with pytest.raises(CannotStart, match="False"):
        LeadlineDaemon(command=command)
