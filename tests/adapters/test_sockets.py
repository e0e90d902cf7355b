"""What peers may do to the sockets, over real ones: bounds, deadlines, order, and that all is forgotten afterwards."""

import asyncio
import json
import resource
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from leadline.actors.announcer import Announcer
from leadline.actors.operations import Operations
from leadline.actors.peers import Peer
from leadline.adapters import sockets
from leadline.adapters.sockets import Connections, Face, User
from leadline.ports.store import OutcomeUnknown
from leadline_protocol import messages as wire
from leadline_protocol.codec import RequestDecoder
from leadline_protocol.ids import JobId
from tests.daemon.running import remove, short_folder

NOOP = b'{"kind":"noop","teamspace":"a"}\n'
PING = b'{"op":"ping"}\n'


class Desk:
    """Answers at once, or when it is told to."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.waiting = 0
        self.jobs = 0
        self.pings = 0
        self.fault: Exception | None = None

    async def submit(
        self, lines: Sequence[tuple[int, wire.Submission, bytes]], _: Peer, __: Hashable
    ) -> Callable[[], Awaitable[list[wire.Receipt]]]:
        receipts = []
        for number, submission, _line in lines:
            self.jobs += 1
            receipts.append(
                wire.Receipt(line=number, job=JobId(self.jobs), state="queued", jobs_ahead=0, ref=submission.ref)
            )

        async def answered() -> list[wire.Receipt]:
            self.waiting += len(lines)
            await self.open.wait()
            self.waiting -= len(lines)
            if self.fault is not None:
                raise self.fault
            return receipts

        return answered

    async def perform(self, operation: wire.Operation[wire.Reply], _: Peer, line: int) -> wire.Reply:
        self.pings += 1
        if operation.ref == "fail":
            raise ZeroDivisionError
        return wire.Pong(line=line, version="x" * 1_000, ref=operation.ref)


class Hall:
    """A socket with a desk behind it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.desk = Desk()
        self.connections = Connections(Announcer())
        self.connections.open(cast("Operations", self.desk))

    @property
    def user(self) -> User:
        """What this test's user holds."""
        return next(iter(self.connections._users.values()), User())

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self.path)

    def dial_and_read_nothing(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(self.path))
        sock.setblocking(False)
        return sock


@pytest.fixture
async def hall() -> AsyncIterator[Hall]:
    folder = short_folder()
    found = Hall(folder / "s")
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(found.path))
    sock.setblocking(False)
    face = Face(RequestDecoder(wire.SUBMISSION_TYPES, wire.CONTROL_OPERATIONS), True)
    server = await found.connections.listen(sock, face)
    yield found
    server.close()
    found.connections.close()
    await until(lambda: not len(found.connections))
    await until(lambda: found.user == User(), "everything that was counted is counted back")
    assert not found.connections._begun
    remove(folder)


async def until(true: Callable[[], bool], what: str = "") -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.002)
    assert true(), what


async def replies(reader: asyncio.StreamReader, count: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(10):
        return [json.loads(await reader.readline()) for _ in range(count)]


def codes(found: Sequence[dict[str, Any]]) -> list[str]:
    return ["ok" if reply["ok"] else reply["error"]["code"] for reply in found]


@asynccontextmanager
async def at_once(*awaitables: Awaitable[object]) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(each) for each in awaitables]
    yield
    await asyncio.gather(*tasks)


async def test_replies_come_in_the_order_of_the_lines_whatever_is_between_them(hall: Hall) -> None:
    reader, writer = await hall.dial()
    lines = [NOOP, b"{\n", PING, b"\n", NOOP, b'{"op":"dance"}\n'] * 500
    writer.write(b"".join(lines))
    found = await replies(reader, 2_500)
    assert [reply["line"] for reply in found] == [n for n in range(1, 3_001) if n % 6 != 4]
    assert codes(found) == ["ok", "bad_json", "ok", "ok", "unknown_op"] * 500
    writer.close()


async def test_what_was_sent_before_the_end_is_answered_after_it(hall: Hall) -> None:
    reader, writer = await hall.dial()
    writer.write(NOOP * 2_000 + NOOP[:-1])
    writer.write_eof()
    assert codes(await replies(reader, 2_001)) == ["ok"] * 2_001
    assert await reader.read() == b""
    writer.close()


async def test_a_line_that_does_not_end_is_refused_in_time_and_the_connection_goes_on(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "LINE_SECONDS_MAX", 0.05)
    reader, writer = await hall.dial()
    idle, idle_writer = await hall.dial()
    writer.write(NOOP + NOOP[:10])
    found = await replies(reader, 2)
    assert [(reply["line"], reply["ok"]) for reply in found] == [(1, True), (2, False)]
    assert "did not end" in found[1]["error"]["message"]
    writer.write(b"the rest of it\n" + PING)
    assert [reply["line"] for reply in await replies(reader, 1)] == [3]
    idle_writer.write(PING)
    assert codes(await replies(idle, 1)) == ["ok"], "who says nothing may stay"
    writer.close()
    idle_writer.close()


async def test_a_peer_need_not_end_its_line_while_it_is_not_read_from(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "LINE_SECONDS_MAX", 0.05)
    monkeypatch.setattr(sockets, "BLOCKS_MAX", 1)
    hall.desk.open.clear()
    reader, writer = await hall.dial()
    writer.write(NOOP + NOOP[:10])
    await until(lambda: hall.desk.waiting == 1)
    await asyncio.sleep(0.15)  # three deadlines
    writer.write(NOOP[10:])
    hall.desk.open.set()
    assert codes(await replies(reader, 2)) == ["ok", "ok"]
    writer.close()


async def test_half_lines_are_held_up_to_the_allowance_and_refused_beyond_it(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "UNANSWERED_BYTES_MAX", 1_000_000)
    peers = [await hall.dial() for _ in range(40)]
    half = b'{"kind":"noop","teamspace":"' + b"x" * 100_000
    refused = 0
    for _, writer in peers:
        writer.write(half)
        await writer.drain()
    await until(lambda: hall.connections.mishaps._counts.get("refused_half_lines", 0) > 20)
    assert hall.user.unanswered_bytes < 1_000_000 + 40 * (sockets.BITE_BYTES + sockets.LINE_BYTES) + sockets.READ_BYTES
    for reader, writer in peers:
        writer.write(b"\n" + NOOP)
        found = await replies(reader, 2)
        assert [reply["line"] for reply in found] == [1, 2]
        refused += codes(found)[0] == "busy"
        assert codes(found)[1] == "ok", "a short line is always taken"
        writer.close()
    assert refused > 20


async def test_what_waits_to_be_stored_is_bounded_for_all_connections_of_a_user_together(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "UNANSWERED_BYTES_MAX", 1_000_000)
    hall.desk.open.clear()
    peers = [hall.dial_and_read_nothing() for _ in range(50)]
    for peer in peers:
        peer.send(NOOP * 4_000)
    await until(lambda: hall.desk.waiting >= 50)
    await asyncio.sleep(0.05)
    per_connection = sockets.BITE_BYTES + sockets.SMALL_BLOCK_LINES_MAX * (sockets.LINE_BYTES + len(NOOP))
    per_block = sockets.BLOCK_LINES_MAX * (sockets.LINE_BYTES + len(NOOP))
    bound = 1_000_000 + 50 * per_connection + per_block + 50 * sockets.READ_BYTES
    assert hall.user.unanswered_bytes < bound
    waiting = hall.desk.waiting
    assert waiting < 50 * 4_000 / 4
    hall.desk.open.set()
    for peer in peers:
        peer.close()


@pytest.mark.parametrize("line", [PING, b'{"kind":"noop","teamspace":"a","ref":"' + b"r" * 250 + b'"}\n'])
async def test_a_peer_that_reads_nothing_is_not_worked_for(hall: Hall, line: bytes) -> None:
    peer = hall.dial_and_read_nothing()
    async with at_once(asyncio.get_running_loop().sock_sendall(peer, line * 14_000)):
        await until(lambda: hall.user.unread_bytes > 0)
        done = hall.desk.pings + hall.desk.jobs
        await asyncio.sleep(0.1)
        assert hall.desk.pings + hall.desk.jobs == done < 2_000
        assert hall.user.unread_bytes < sockets.BEHIND_BYTES + 100_000, "and one block of replies"
        received = 0
        while received < 14_000:
            received += (await asyncio.get_running_loop().sock_recv(peer, 1 << 20)).count(b"\n")
    await until(lambda: hall.user.unread_bytes == 0)
    peer.close()


async def test_beyond_the_allowance_those_that_read_nothing_are_hung_up_on(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "UNREAD_BYTES_MAX", 100_000)
    peers = [hall.dial_and_read_nothing() for _ in range(20)]
    hall.desk.open.clear()
    for peer in peers:
        peer.send(NOOP * 6_000)
    await until(lambda: hall.desk.waiting >= 20 * 3_000)
    hall.desk.open.set()
    await until(lambda: hall.connections.mishaps._counts.get("hung_up_on_slow_readers", 0) > 10)
    reader, writer = await hall.dial()
    writer.write(PING)
    assert codes(await replies(reader, 1)) == ["ok"], "who reads is served"
    writer.close()
    for peer in peers:
        peer.close()


async def test_too_many_connections_are_told_so_and_counted_in_one_line_of_the_log(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "CONNECTIONS_PER_USER_MAX", 5)
    peers = [await hall.dial() for _ in range(5)]
    await until(lambda: len(hall.connections) == 5)
    with capture_logs() as logs:
        for _ in range(100):
            reader, writer = await hall.dial()
            (refusal,) = await replies(reader, 1)
            assert (refusal["line"], refusal["error"]["code"]) == (0, "busy")
            assert refusal["error"]["retry_after"] > 0
            writer.close()
        hall.connections.mishaps.tell()
    assert [(each["event"], each["refused_connections"]) for each in logs] == [("peers", 100)]
    for _, writer in peers:
        writer.close()
    await until(lambda: not len(hall.connections))
    reader, writer = await hall.dial()
    writer.write(PING)
    assert codes(await replies(reader, 1)) == ["ok"]
    writer.close()


async def test_when_a_crowd_has_gone_memory_is_given_back_once(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "CROWD", 5)
    monkeypatch.setattr(sockets, "CROWD_SECONDS", 0.02)
    told = []
    monkeypatch.setattr(hall.connections, "_crowd_gone", lambda: told.append(len(hall.connections)))
    for _ in range(8):
        hall.dial_and_read_nothing().close()
    await until(lambda: bool(told))
    await asyncio.sleep(0.1)
    assert told == [0]


def test_open_files_are_kept_for_others_than_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, expected in ((256, 192), (1_024, 768), (10_000, 8_976), (1_000_000, 16_000)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limit=limit: (limit, limit))
        assert sockets.connections_max() == expected


async def test_a_bug_in_an_operation_costs_its_connection_and_is_told_once(hall: Hall) -> None:
    with capture_logs() as logs:
        for _ in range(20):
            reader, writer = await hall.dial()
            writer.write(b'{"op":"ping","ref":"fail"}\n')
            assert await reader.read() == b""
            writer.close()
    assert [each["event"] for each in logs] == ["operation_failed"]


async def test_where_nobody_can_say_whether_a_job_was_stored_the_connection_ends_after_the_replies_before_it(
    hall: Hall,
) -> None:
    reader, writer = await hall.dial()
    hall.desk.open.clear()
    writer.write(NOOP)
    await until(lambda: hall.desk.waiting == 1)
    with capture_logs() as logs:
        hall.desk.open.set()
        assert json.loads(await reader.readline())["job"] == 1
        hall.desk.fault = OutcomeUnknown("cut off")
        writer.write(PING + NOOP)
        assert json.loads(await reader.readline())["line"] == 2
        assert await reader.read() == b""
    assert logs == []
    writer.close()


async def test_questions_of_who_is_gone_are_not_answered(hall: Hall) -> None:
    peer = hall.dial_and_read_nothing()
    peer.send(PING * 5_000)
    await until(lambda: hall.desk.pings > 0)
    peer.close()
    await until(lambda: not len(hall.connections))
    await until(lambda: hall.user == User())
    assert hall.desk.pings < 1_000
