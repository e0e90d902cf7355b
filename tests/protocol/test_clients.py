"""Both clients against a daemon that loses replies: what is sent again, what is in doubt, what never happens twice."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from leadline_protocol.blocking import BlockingClient
from leadline_protocol.client import Client
from leadline_protocol.errors import ErrorCode, OutcomeUnknown, ProtocolViolation, Refused, Unreachable
from leadline_protocol.ids import JobId
from leadline_protocol.messages import Fault, Noop, Ping, Receipt, Refusal, Request, Rerun
from tests.protocol.scripted_daemon import HANG_UP, Message, ScriptedDaemon, ended, not_now

Run = Callable[..., Any]


async def run_asyncio(path: Path, name: str, *arguments: Any, timeout_seconds: float = 30.0, **options: Any) -> Any:
    async with Client.connect(path, timeout_seconds=timeout_seconds) as client:
        return await getattr(client, name)(*arguments, **options)


async def run_blocking(path: Path, name: str, *arguments: Any, timeout_seconds: float = 30.0, **options: Any) -> Any:
    def run() -> Any:
        with BlockingClient.connect(path, timeout_seconds=timeout_seconds) as client:
            return getattr(client, name)(*arguments, **options)

    return await asyncio.to_thread(run)


@pytest.fixture(params=[run_asyncio, run_blocking], ids=["asyncio", "blocking"])
def run(request: pytest.FixtureRequest) -> Callable[..., Awaitable[Any]]:
    """Connect, do one thing, close: `await run(path, "submit", Noop(...))`, by either client."""
    chosen: Callable[..., Awaitable[Any]] = request.param
    return chosen


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[ScriptedDaemon]:
    with ScriptedDaemon(tmp_path / "s") as scripted:
        yield scripted


def cut_first(daemon: ScriptedDaemon, *, line: int = 1) -> None:
    """Lose the reply to this line of the first connection, with the job stored."""

    def script(connection: int, at: int, request: Request, answer: Sequence[Message]) -> Sequence[Message] | None:
        return None if (connection, at) == (1, line) else answer

    daemon.script = script


async def test_a_submission_gives_its_receipt(run: Run, daemon: ScriptedDaemon) -> None:
    receipt = await run(daemon.path, "submit", Noop(teamspace="a", ref="mine"))
    assert (receipt.job, receipt.state, receipt.ref) == (1, "queued", "mine")


async def test_a_submission_may_be_a_mapping(run: Run, daemon: ScriptedDaemon) -> None:
    assert (await run(daemon.path, "submit", {"kind": "noop", "teamspace": "a"})).job == 1


async def test_a_refusal_is_raised_with_its_code_and_place(run: Run, daemon: ScriptedDaemon) -> None:
    with pytest.raises(Refused) as refused:
        await run(daemon.path, "submit", {"kind": "noop", "teamspace": 3})
    assert (refused.value.code, refused.value.at) == (ErrorCode.BAD_REQUEST, "teamspace")


async def test_many_submissions_are_answered_in_their_order_with_refusals_among_them(
    run: Run, daemon: ScriptedDaemon
) -> None:
    many = [{"kind": "noop", "teamspace": "a" if n % 100 else "", "ref": n} for n in range(25_000)]
    outcomes = await run(daemon.path, "submit_many", many, timeout_seconds=60.0)
    assert len(outcomes) == 25_000
    for n, outcome in enumerate(outcomes):
        if n % 100:
            assert outcome.ref == n
        else:
            assert isinstance(outcome, Refused)
    assert daemon.connections == 1


async def test_nobody_listening_is_unreachable_at_once(run: Run, tmp_path: Path) -> None:
    with pytest.raises(Unreachable):
        await run(tmp_path / "nobody", "call", Ping(), timeout_seconds=3600)


async def test_a_lost_receipt_is_asked_for_again_under_its_key_and_one_job_is_made(
    run: Run, daemon: ScriptedDaemon
) -> None:
    cut_first(daemon)
    receipt = await run(daemon.path, "submit", Noop(teamspace="a", idempotency_key="k"))
    assert receipt.duplicate
    assert len(daemon.jobs) == 1
    assert daemon.connections == 2


async def test_a_lost_receipt_without_a_key_leaves_the_outcome_unknown_and_nothing_is_sent_again(
    run: Run, daemon: ScriptedDaemon
) -> None:
    cut_first(daemon)
    with pytest.raises(OutcomeUnknown):
        await run(daemon.path, "submit", Noop(teamspace="a"))
    assert len(daemon.jobs) == 1
    assert daemon.connections == 1


async def test_a_rerun_is_never_sent_again(run: Run, daemon: ScriptedDaemon) -> None:
    cut_first(daemon)
    with pytest.raises(OutcomeUnknown):
        await run(daemon.path, "call", Rerun(job=JobId(1)))
    assert daemon.connections == 1


async def test_of_many_only_those_with_a_key_are_sent_again(run: Run, daemon: ScriptedDaemon) -> None:
    cut_first(daemon, line=50)
    many = [Noop(teamspace="a", idempotency_key=f"k{n}" if n % 2 else None, ref=n) for n in range(1, 101)]
    outcomes = await run(daemon.path, "submit_many", many)
    for n, outcome in enumerate(outcomes, 1):
        if n < 50 or n % 2:
            assert isinstance(outcome, Receipt)
            assert outcome.ref == n
        else:
            assert isinstance(outcome, OutcomeUnknown)
    assert len(daemon.jobs) == 50 + 25  # those stored before the cut, and those with a key after it


async def test_a_daemon_that_is_not_ready_yet_does_not_turn_a_lost_receipt_into_a_refusal(
    run: Run, daemon: ScriptedDaemon
) -> None:
    def script(connection: int, line: int, request: Request, answer: Sequence[Message]) -> Sequence[Message] | None:
        if connection == 1:
            return None
        return not_now(line) if line <= 3 else answer

    daemon.script = script
    receipt = await run(daemon.path, "submit", Noop(teamspace="a", idempotency_key="k"))
    assert (receipt.job, receipt.duplicate) == (1, True)


async def test_a_daemon_that_hangs_up_again_and_again_is_left_in_peace_for_growing_pauses(
    run: Run, daemon: ScriptedDaemon
) -> None:
    daemon.script = lambda connection, line, request, answer: answer if connection == 5 else None
    began = time.monotonic()
    await run(daemon.path, "call", Ping(), timeout_seconds=30)
    assert time.monotonic() - began >= 0.7  # at once, then after 0.1, 0.2 and 0.4 s
    daemon.script = lambda connection, line, request, answer: None
    with pytest.raises(Unreachable):
        await run(daemon.path, "call", Ping(), timeout_seconds=0.5)
    assert daemon.connections <= 10


async def test_unavailable_in_answer_to_the_first_sending_is_a_refusal(run: Run, daemon: ScriptedDaemon) -> None:
    daemon.script = lambda connection, line, request, answer: not_now(line)
    with pytest.raises(Refused) as refused:
        await run(daemon.path, "submit", Noop(teamspace="a", idempotency_key="k"))
    assert refused.value.code is ErrorCode.UNAVAILABLE


async def test_a_refused_connection_is_a_refusal_of_what_was_sent_on_it(run: Run, daemon: ScriptedDaemon) -> None:
    daemon.script = lambda connection, line, request, answer: not_now(0, ErrorCode.BUSY)
    with pytest.raises(Refused) as refused:
        await run(daemon.path, "submit", Noop(teamspace="a"))
    assert refused.value.code is ErrorCode.BUSY


async def test_silence_is_unreachable_for_a_question_and_unknown_for_a_submission(
    run: Run, daemon: ScriptedDaemon
) -> None:
    daemon.script = lambda connection, line, request, answer: []
    with pytest.raises(Unreachable):
        await run(daemon.path, "call", Ping(), timeout_seconds=0.05)
    with pytest.raises(OutcomeUnknown):
        await run(daemon.path, "submit", Noop(teamspace="a", idempotency_key="k"), timeout_seconds=0.05)


async def test_something_else_than_a_daemon_is_a_protocol_violation(run: Run, daemon: ScriptedDaemon) -> None:
    daemon.script = lambda connection, line, request, answer: [Receipt(line=9, job=JobId(1), state="", jobs_ahead=0)]
    with pytest.raises(ProtocolViolation):
        await run(daemon.path, "call", Ping())
    with pytest.raises(OutcomeUnknown) as unknown:
        await run(daemon.path, "submit", Noop(teamspace="a"))
    assert isinstance(unknown.value.__cause__, ProtocolViolation)


async def test_waiting_for_a_job_gives_its_end(run: Run, daemon: ScriptedDaemon) -> None:
    assert await run(daemon.path, "wait", JobId(7)) == ended(JobId(7))


async def test_waiting_goes_on_over_a_cut_connection(run: Run, daemon: ScriptedDaemon) -> None:
    def script(connection: int, line: int, request: Request, answer: Sequence[Message]) -> Sequence[Message] | None:
        # Followed, and the connection is gone before the end.
        return [answer[0], HANG_UP] if connection == 1 else answer

    daemon.script = script
    assert await run(daemon.path, "wait", JobId(7)) == ended(JobId(7))
    assert daemon.connections == 2


async def test_waiting_for_a_job_that_is_not_there_is_refused(run: Run, daemon: ScriptedDaemon) -> None:
    refusal = Refusal(line=1, error=Fault(code=ErrorCode.NOT_FOUND, message="no job 7"))
    daemon.script = lambda connection, line, request, answer: [refusal]
    with pytest.raises(Refused):
        await run(daemon.path, "wait", JobId(7))


# The asyncio client alone --------------------------------------------------------------------------------------------


async def test_requests_of_many_tasks_share_one_connection(daemon: ScriptedDaemon) -> None:
    async with Client.connect(daemon.path) as client:
        receipts = await asyncio.gather(*(client.submit(Noop(teamspace="a", ref=n)) for n in range(200)))
    assert [receipt.ref for receipt in receipts] == list(range(200))
    assert daemon.connections == 1


async def test_notices_come_in_order_and_a_cut_is_told(daemon: ScriptedDaemon) -> None:
    async with Client.connect(daemon.path) as client:
        await client.follow()
        daemon.tell(ended(JobId(1)))
        daemon.tell(ended(JobId(2)))
        notices = client.notices()
        assert [await anext(notices), await anext(notices)] == [ended(JobId(1)), ended(JobId(2))]
        daemon.cut()
        with pytest.raises(Unreachable):
            await anext(notices)


async def test_who_does_not_take_notices_is_told_how_many_are_gone(
    daemon: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leadline_protocol.client.NOTICES_MAX", 3)
    daemon.script = lambda connection, line, request, answer: [*map(ended, map(JobId, range(1, 6))), *answer]
    async with Client.connect(daemon.path) as client:
        await client.call(Ping())
        notices = client.notices()
        missed = await anext(notices)
        assert getattr(missed, "count", None) == 2
        assert await anext(notices) == ended(JobId(3))


async def test_closing_ends_what_is_outstanding(daemon: ScriptedDaemon) -> None:
    daemon.script = lambda connection, line, request, answer: []
    async with Client.connect(daemon.path, timeout_seconds=3600) as client:
        submitting = asyncio.create_task(client.submit(Noop(teamspace="a", idempotency_key="k")))
        asking = asyncio.create_task(client.call(Ping()))
        await asyncio.to_thread(daemon.heard.wait)
    with pytest.raises(OutcomeUnknown):
        await submitting
    with pytest.raises(Unreachable):
        await asking


async def test_a_request_given_up_does_not_disturb_the_next(daemon: ScriptedDaemon) -> None:
    late: list[Message] = []

    def script(connection: int, line: int, request: Request, answer: Sequence[Message]) -> Sequence[Message]:
        late.extend(answer)
        return late if line == 2 else []

    daemon.script = script
    async with Client.connect(daemon.path) as client:
        given_up = asyncio.create_task(client.call(Ping(ref=1)))
        await asyncio.to_thread(daemon.heard.wait)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        assert (await client.call(Ping(ref=2))).ref == 2


# The blocking client alone -------------------------------------------------------------------------------------------


def test_notices_of_the_blocking_client_end_with_the_time(daemon: ScriptedDaemon) -> None:
    with BlockingClient.connect(daemon.path) as client:
        client.follow()
        daemon.tell(ended(JobId(1)))
        assert next(client.notices(timeout_seconds=30.0)) == ended(JobId(1))
        before = time.monotonic()
        assert list(client.notices(timeout_seconds=0.01)) == []
        assert time.monotonic() - before < 30
        daemon.cut()
        with pytest.raises(Unreachable):
            list(client.notices(timeout_seconds=30.0))


def test_the_blocking_client_reads_while_it_writes(daemon: ScriptedDaemon) -> None:
    big = [Noop(teamspace="a", ref="r" * 250) for _ in range(10_000)]
    with BlockingClient.connect(daemon.path) as client:
        assert len(client.submit_many(big)) == 10_000
