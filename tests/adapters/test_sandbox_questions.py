"""What passes between a run's code and the daemon: how much of it is held, and how often it is looked at."""

import os
import select
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from leadline.adapters.sandbox_runner.questions import BURST, Switchboard, answer_line, connect, listen, question
from leadline.adapters.sandbox_runner.runner import LocalRunner, sandbox_runner
from leadline.ports.runner import QUESTIONS_MAX, Result, Returned
from tests.contracts.runners import Code, first_line

pytestmark = pytest.mark.timeout(60)

CANARY = "canary-4712"


class Exchange:
    """A switchboard with code at one end, and as many daemons as come at the other."""

    def __init__(self, folder: Path) -> None:
        self.code, ours = socket.socketpair()
        self._place = folder / "questions"
        self.board = Switchboard(ours, listen(self._place))
        self._opened = [self.code]

    def daemon(self) -> socket.socket:
        connection = connect(self._place)
        connection.setblocking(True)
        connection.settimeout(5)
        self._opened.append(connection)
        self.settle()
        return connection

    def settle(self) -> None:
        """Have everything done that can be."""
        while self.busy():
            self.board.go()

    def busy(self) -> bool:
        return bool(select.select([self.board], [], [], 0)[0])

    def close(self) -> None:
        self.board.close()
        for each in self._opened:
            each.close()


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[Exchange]:
    made = Exchange(tmp_path)
    yield made
    made.close()


def ask(number: int) -> bytes:
    return b'{"ask": %d, "method": "echo"}\n' % number


def numbers(lines: bytes) -> list[int]:
    return [question(line).number for line in lines.splitlines()]


def test_code_that_never_stops_talking_is_looked_at_only_so_often(exchange: Exchange) -> None:
    exchange.code.setblocking(False)
    looks = 0
    with suppress(BlockingIOError):
        while looks < 10 * BURST:
            exchange.code.send(b" ")
            looks += exchange.busy()
            exchange.settle()
    assert BURST <= looks < 10 * BURST
    assert not exchange.busy(), "though there is something to read"


def test_no_more_is_read_of_code_that_has_asked_what_it_may(exchange: Exchange) -> None:
    exchange.code.setblocking(False)
    sent = 0
    with suppress(BlockingIOError):
        while sent < 10_000:
            exchange.code.sendall(ask(sent + 1))
            sent += 1
            exchange.settle()
    assert QUESTIONS_MAX < sent < 10_000, "with what the kernel holds"
    daemon = exchange.daemon()
    assert numbers(daemon.recv(100_000)) == [*range(1, QUESTIONS_MAX + 1)]


def test_half_an_answer_of_a_daemon_that_died_is_none(exchange: Exchange) -> None:
    exchange.code.sendall(ask(1))
    first = exchange.daemon()
    exchange.settle()
    assert numbers(first.recv(1000)) == [1]
    first.sendall(answer_line(1, Result(msgspec.Raw(b'"half"')))[:-3])
    first.close()
    exchange.settle()
    second = exchange.daemon()
    assert numbers(second.recv(1000)) == [1]
    whole = answer_line(1, Result(msgspec.Raw(b'"whole"')))
    second.sendall(whole)
    exchange.settle()
    assert exchange.code.recv(1000) == whole


def test_a_whole_answer_of_a_daemon_that_died_is_handed_on(exchange: Exchange) -> None:
    exchange.code.sendall(ask(1))
    first = exchange.daemon()
    exchange.settle()
    first.sendall(answer_line(1, Result(msgspec.Raw(b"1"))))
    first.close()
    exchange.settle()
    assert exchange.code.recv(1000) == b'{"answer":1,"result":1}\n'
    second = exchange.daemon()
    exchange.code.sendall(ask(2))
    exchange.settle()
    assert numbers(second.recv(1000)) == [2]


def test_of_answers_that_code_does_not_take_one_is_held(exchange: Exchange) -> None:
    for number in (1, 2, 3):
        exchange.code.sendall(ask(number))
    daemon = exchange.daemon()
    daemon.setblocking(False)
    large = answer_line(1, Result(msgspec.Raw(b'"' + b"x" * 3_000_000 + b'"')))
    taken = 0
    with suppress(BlockingIOError):
        for number in (1, 2, 3):
            rest = memoryview(large.replace(b'"answer":1', b'"answer":%d' % number))
            while rest:
                passed = daemon.send(rest)
                rest, taken = rest[passed:], taken + passed
                exchange.settle()
    assert len(large) <= taken < len(large) + 1_000_000, "and what the kernel holds of the second"


@asynccontextmanager
async def running(folder: Path, *, protected: bool) -> AsyncIterator[LocalRunner]:
    async with sandbox_runner(folder / "runs", ground=None, protected=protected) as runner:
        try:
            yield runner
        finally:
            for run in await runner.adopt():
                await run.kill()


@pytest.mark.needs("bwrap")
@pytest.mark.parametrize("protected", [True, False], ids=["inside", "without"])
async def test_an_answer_is_written_nowhere(tmp_path: Path, code: Code, protected: bool) -> None:
    program = """
        import json, time
        from leadline_run import questions
        def main():
            questions.sendall(b'{"ask": 1, "method": "settings"}\\n')
            kept = questions.recv(1000)
            print("here")
            time.sleep(600)
    """
    async with running(tmp_path, protected=protected) as runner:
        run = await runner.start(code.order(program, name="secretive", event="canary-of-the-event"))
        async with aclosing(run.questions()) as questions:
            await anext(questions)
            await run.answer(1, Result(msgspec.Raw(msgspec.json.encode(CANARY))))
            await first_line(run)
            assert holding(CANARY, tmp_path) == []
            assert holding("canary-of-the-event", tmp_path) == ["order"], "or nothing is found at all"


async def test_questions_are_asked_without_a_sandbox_as_well(tmp_path: Path, code: Code) -> None:
    program = """
        from leadline_run import event, questions
        def main():
            questions.sendall(b'{"ask": 1, "method": "echo"}\\n')
            return [event, questions.recv(1000).decode()]
    """
    async with running(tmp_path, protected=False) as runner:
        run = await runner.start(code.order(program, event={"source": "api"}))
        async for asked in run.questions():
            await run.answer(asked.number, Result(asked.params))
        how = (await run.ended()).how
        assert isinstance(how, Returned)
        assert msgspec.json.decode(how.value) == [{"source": "api"}, '{"answer":1,"result":{}}\n']


@pytest.mark.needs("bwrap")
async def test_a_sandbox_that_is_not_complete_is_not_taken_for_what_the_code_has_used(
    tmp_path: Path, code: Code
) -> None:
    async with running(tmp_path, protected=True) as runner:
        for _ in range(5):
            run = await runner.start(code.order("def main(): return 1"))
            async for _ in run.questions():  # whose coming makes the supervisor look at everything
                pass
            assert isinstance((await run.ended()).how, Returned)


@pytest.fixture
def code(tmp_path: Path) -> Code:
    return Code(tmp_path)


def holding(word: str, folder: Path) -> list[str]:
    """Files of that folder, and what processes were started with, that hold a word."""
    found = [path.name for path in folder.rglob("*") if path.is_file() and word in path.read_text(errors="replace")]
    for entry in Path("/proc").glob("[0-9]*"):
        for name in ("environ", "cmdline"):
            with suppress(OSError):
                if int(entry.name) != os.getpid() and word.encode() in (entry / name).read_bytes():
                    found.append(name)
    return found
