"""Peers that do anything whatever, against the real daemon over both sockets.

The model is small: which jobs were acknowledged, under which keys, and how many lines each connection has sent. What
must be true of every reply is checked when it comes; what must be true of all of it, at the end, in the database.
"""

import json
import socket
from collections.abc import Iterator
from typing import Any, ClassVar, Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode
from tests.acceptance.stage import Stage, stage

REPLY_SECONDS: Final = 30.0

REFS: Final = (
    st.none()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.text(max_size=20).filter(lambda text: "\x00" not in text and text.isascii())
)
RUBBISH: Final[dict[str, bytes]] = {
    "a bomb of brackets": b"[" * 50_000,
    "a bomb of objects": b'{"a":' * 1_000,
    "too long a line": b"x" * 262_145,
    "a key twice": b'{"kind":"noop","teamspace":"m","teamspace":"n"}',
    "NUL": b'{"kind":"noop","teamspace":"m\\u0000"}',
    "a huge integer": b'{"kind":"noop","teamspace":"m","delay":' + b"9" * 5_000 + b"}",
    "too many parts": b'{"kind":"noop","teamspace":"m","x":[' + b"[]," * 20_000 + b"[]]}",
    "UTF-16": '{"op":"ping"}'.encode("utf-16").replace(b"\n", b""),
    "NaN": b'{"op":"ping","x":NaN}',
}
GARBAGE: Final = st.binary(min_size=1, max_size=200).map(lambda data: b"?" + data.replace(b"\n", b"?"))
NAMES: Final = st.sampled_from(sorted(RUBBISH)) | GARBAGE
KEYS: Final = st.sampled_from([f"key-{number}" for number in range(8)])


class Peer:
    """A connection and the number of its lines."""

    def __init__(self, daemon: Stage, face: str) -> None:
        self.face = face
        self.lines = 0
        self.notices: list[dict[str, Any]] = []
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(REPLY_SECONDS)
        self._sock.connect(str(daemon.submit_socket if face == "submit" else daemon.control_socket))
        self._replies = self._sock.makefile("rb")

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def ask(self, *lines: bytes, pieces: int = 0) -> list[dict[str, Any]]:
        """Send lines, cut into pieces; the reply to each."""
        data = b"".join(line + b"\n" for line in lines)
        size = max(1, len(data) // (pieces + 1))
        for start in range(0, len(data), size):
            self._sock.sendall(data[start : start + size])
        return [self.reply() for _ in lines]

    def reply(self) -> dict[str, Any]:
        self.lines += 1
        while True:
            said: dict[str, Any] = json.loads(self._replies.readline())
            if "event" not in said:
                break
            self.notices.append(said)
        assert said["line"] == self.lines
        if not said["ok"]:
            assert said["error"]["code"] in {str(code) for code in ErrorCode}
            assert said["error"]["code"] != "internal"
        return said

    def close(self) -> None:
        self._replies.close()
        self._sock.close()


class Machine(RuleBasedStateMachine):
    """What peers do."""

    daemon: ClassVar[Stage]
    runs: ClassVar[int] = 0

    peers = Bundle("peers")

    @initialize()
    def begin(self) -> None:
        Machine.runs += 1
        self.teamspace = f"machine-{Machine.runs}"
        self.jobs: set[int] = set()
        self.keys: dict[str, tuple[int, int]] = {}
        """The job under each key, and the priority that it was submitted with."""
        self.delayed: set[int] = set()
        self.open: list[Peer] = []
        self.paused = False
        peer = self.connect("submit")
        (reply,) = peer.ask(self.noop())
        self.jobs.add(reply["job"])

    @rule(target=peers, face=st.sampled_from(["submit", "control"]))
    def dial(self, face: str) -> Peer:
        return self.connect(face)

    def connect(self, face: str) -> Peer:
        peer = Peer(self.daemon, face)
        self.open.append(peer)
        return peer

    def alive(self, peer: Peer) -> Peer:
        """The peer itself, or another one in its place where it has hung up."""
        if peer in self.open:
            return peer
        other = Peer(self.daemon, peer.face)
        self.open.append(other)
        return other

    def noop(self, **more: object) -> bytes:
        return json.dumps({"kind": "noop", "teamspace": self.teamspace, **more}).encode()

    @rule(
        peer=peers,
        count=st.integers(1, 30),
        ref=REFS,
        delay=st.sampled_from([0, 0, 86_400]),
        notify=st.booleans(),
        pieces=st.integers(0, 4),
    )
    def submit(self, peer: Peer, count: int, ref: object, delay: int, notify: bool, pieces: int) -> None:
        line = self.noop(ref=ref, delay=delay, notify=notify)
        for reply in self.alive(peer).ask(*[line] * count, pieces=pieces):
            assert reply["ok"]
            assert reply.get("ref") == ref
            assert reply["job"] not in self.jobs, "a job of its own"
            assert reply["state"] == ("delayed" if delay else "queued")
            self.jobs.add(reply["job"])
            if delay:
                self.delayed.add(reply["job"])

    @rule(peer=peers, key=KEYS, priority=st.sampled_from([0, 1]))
    def submit_under_a_key(self, peer: Peer, key: str, priority: int) -> None:
        (reply,) = self.alive(peer).ask(self.noop(idempotency_key=key, priority_seconds=priority))
        known = self.keys.get(key)
        if known is not None and known[1] != priority:
            assert reply["error"]["code"] == "conflict"
            return
        assert reply.get("duplicate", False) == (known is not None)
        assert known is None or reply["job"] == known[0]
        self.keys[key] = (reply["job"], priority)
        self.jobs.add(reply["job"])

    @rule(peer=peers, names=st.lists(NAMES, min_size=1, max_size=5), pieces=st.integers(0, 3))
    def send_garbage(self, peer: Peer, names: list[str | bytes], pieces: int) -> None:
        lines = [name if isinstance(name, bytes) else RUBBISH[name] for name in names]
        peer = self.alive(peer)
        assert not any(reply["ok"] for reply in peer.ask(*lines, pieces=pieces))
        (pong,) = peer.ask(b'{"op":"ping"}')
        assert pong["ok"]

    @rule(peer=peers, name=NAMES)
    def send_good_and_bad_together(self, peer: Peer, name: str | bytes) -> None:
        line = name if isinstance(name, bytes) else RUBBISH[name]
        good, bad, again = self.alive(peer).ask(self.noop(), line, self.noop())
        assert (good["ok"], bad["ok"], again["ok"]) == (True, False, True)
        self.jobs |= {good["job"], again["job"]}

    @rule(peer=peers, cut=st.integers(1, 20))
    def hang_up_in_the_middle_of_a_line(self, peer: Peer, cut: int) -> None:
        peer = self.alive(peer)
        peer.send(self.noop(ref="never")[:-cut])
        peer.close()
        self.open.remove(peer)

    @rule(peer=peers, count=st.integers(1, 300))
    def ask_and_hang_up(self, peer: Peer, count: int) -> None:
        peer = self.alive(peer)
        peer.send(b'{"op":"follow"}\n{"op":"ping"}\n' * count)
        peer.close()
        self.open.remove(peer)

    @precondition(lambda self: self.jobs)
    @rule(peer=peers, data=st.data())
    def look(self, peer: Peer, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(sorted(self.jobs)))
        (reply,) = self.alive(peer).ask(json.dumps({"op": "get", "job": job}).encode())
        assert reply["view"]["teamspace"] == self.teamspace
        assert reply["view"]["state"] in {"delayed", "queued", "running", "completed", "cancelled"}
        if job in self.delayed:
            assert reply["view"]["state"] in {"delayed", "cancelled"}

    @precondition(lambda self: self.delayed)
    @rule(peer=peers, data=st.data())
    def cancel(self, peer: Peer, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(sorted(self.delayed)))
        (reply,) = self.alive(peer).ask(json.dumps({"op": "cancel", "job": job}).encode())
        if peer.face == "submit":
            assert reply["error"]["code"] == "unknown_op"
        else:
            assert reply["state"] == "cancelled"
            self.delayed.discard(job)

    @rule(peer=peers)
    def pause_or_resume(self, peer: Peer) -> None:
        peer = self.alive(peer)
        op = "resume" if self.paused else "pause"
        (reply,) = peer.ask(json.dumps({"op": op, "scope": "teamspace", "name": self.teamspace}).encode())
        assert reply["ok"] == (peer.face == "control")
        self.paused ^= reply["ok"]

    @invariant()
    def it_lives(self) -> None:
        if getattr(self, "open", None):
            (pong,) = self.open[-1].ask(b'{"op":"ping"}')
            assert pong["ok"]

    def teardown(self) -> None:
        for peer in getattr(self, "open", ()):
            peer.close()
        if getattr(self, "teamspace", None) is None:
            return
        self.daemon.ask(wire.Resume(scope="teamspace", name=self.teamspace))
        for job in self.jobs - self.delayed:
            self.daemon.until(job, lambda view: view.state in {"completed", "cancelled"})  # type: ignore[arg-type]
        stored = self.daemon.query("SELECT id FROM shown_job WHERE teamspace = $1", self.teamspace)
        assert {job for (job,) in stored} == self.jobs, "what was acknowledged is there, and nothing else"


@pytest.fixture(scope="module")
def daemon() -> Iterator[Stage]:
    with stage() as running:
        yield running


def test_whatever_peers_do_what_was_acknowledged_is_there_and_nothing_else(daemon: Stage) -> None:
    Machine.daemon = daemon
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=25,
            stateful_step_count=25,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
