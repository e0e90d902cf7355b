"""What code asks of the daemon is done once, as far as the plan allows, and always answered."""

from collections.abc import Sequence

import anyio
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadline.features.batch.request_ports import (
    Mail,
    NotAllowed,
    ProviderRequest,
    ProviderResponse,
    Query,
    Rows,
    Written,
)
from leadline.features.batch.requests import Requests
from leadline.ports.runner import ANSWER_BYTES_MAX, Answer, Failure, Question, Result
from leadline.ports.work import Stopped
from tests.features.batch.worlds import Recorder, rows


async def answer(recorder: Recorder, method: str, params: object = {}, number: int = 1) -> Answer:
    return await Requests(recorder.world()).answer(asked(method, params, number))


def asked(method: str, params: object = {}, number: int = 1) -> Question:
    return Question(number, method, msgspec.Raw(msgspec.json.encode(params)))


def value(found: Answer) -> object:
    assert isinstance(found, Result), found
    return msgspec.json.decode(found.value)


def kind(found: Answer) -> str:
    assert isinstance(found, Failure), found
    return found.type


MAIL = {"type": "success", "subject": "done", "body": "<p>", "html": True}


async def test_settings_are_those_of_the_job() -> None:
    recorder = Recorder({"key": "k", "nested": {"a": [1]}})
    assert value(await answer(recorder, "settings")) == {"key": "k", "nested": {"a": [1]}}


async def test_progress_is_told() -> None:
    recorder = Recorder()
    assert value(await answer(recorder, "progress", {"done": 2, "total": 4.5})) is None
    assert value(await answer(recorder, "progress", {"done": 3, "total": None})) is None
    assert recorder.progress == [(2, 4.5), (3, None)]


async def test_a_run_sends_three_mails_and_no_fourth() -> None:
    recorder = Recorder()
    requests = Requests(recorder.world())
    found = [await requests.answer(asked("email", MAIL, number)) for number in (1, 2, 3, 4)]
    assert [value(each) for each in found[:3]] == [None] * 3
    assert kind(found[3]) == "LimitReached"
    assert recorder.mails == dict.fromkeys((1, 2, 3), Mail("success", "done", "<p>", True))


async def test_mails_that_are_asked_for_at_once_are_counted_all_the_same() -> None:
    recorder = Recorder()
    gate = anyio.Event()
    store = recorder.store

    async def slow(number: int, mail: Mail) -> None:
        await gate.wait()
        await store(number, mail)

    recorder.store = slow  # type: ignore[method-assign]
    requests = Requests(recorder.world())
    found: list[Answer] = []

    async def ask(number: int) -> None:
        found.append(await requests.answer(asked("email", MAIL, number)))
        gate.set()

    async with anyio.create_task_group() as tasks:
        for number in range(1, 8):
            tasks.start_soon(ask, number)
    assert len(recorder.mails) == 3
    assert [each.type for each in found if isinstance(each, Failure)] == ["LimitReached"] * 4


async def test_mails_before_a_restart_count_and_are_not_sent_again() -> None:
    recorder = Recorder()
    requests = Requests(recorder.world(), mailed=[1, 2])
    assert value(await requests.answer(asked("email", MAIL, 2))) is None
    assert value(await requests.answer(asked("email", MAIL, 3))) is None
    assert kind(await requests.answer(asked("email", MAIL, 4))) == "LimitReached"
    assert set(recorder.mails) == {3}


async def test_a_mail_that_was_declined_does_not_count_and_one_that_may_have_been_stored_does() -> None:
    recorder = Recorder()
    requests = Requests(recorder.world())
    for trouble, types in ((NotAllowed("nobody is named"), ["NotAllowed"] * 4), (OSError(), ["LSError"] * 3)):
        recorder.trouble = trouble
        found = [await requests.answer(asked("email", MAIL, number)) for number, _ in enumerate(types, 1)]
        assert [kind(each) for each in found] == types
    assert kind(await requests.answer(asked("email", MAIL, 4))) == "LimitReached"


@pytest.mark.parametrize(
    ("subject", "line"),
    [
        ("done\r\nBcc: all@example.com", "done Bcc: all@example.com"),
        ("a\u2028b\0c\x85d\u202ee", "a b c d e"),
        ("  é  ", "é"),
        ("x" * 256, "x" * 255),
    ],
)
async def test_a_subject_is_one_line_of_what_can_be_seen(subject: str, line: str) -> None:
    recorder = Recorder()
    assert value(await answer(recorder, "email", {**MAIL, "subject": subject})) is None
    assert recorder.mails[1].subject == line


async def test_a_query_goes_to_its_database_with_its_parameters() -> None:
    recorder = Recorder()
    recorder.result = Rows([("id", "other"), ("at", "timestamp")], rows([1, "2026-03-01T00:00:00+00:00"]))
    params = {"database": "etl", "sql": "select $1", "multi": True, "parameters": [1, "a", None, 2.5, True]}
    assert value(await answer(recorder, "query", params)) == {
        "columns": [["id", "other"], ["at", "timestamp"]],
        "rows": [[1, "2026-03-01T00:00:00+00:00"]],
    }
    assert recorder.queries == [Query("select $1", [1, "a", None, 2.5, True], True)]
    recorder.result = Written(3)
    assert value(await answer(recorder, "query", {"database": "own", "sql": "delete"})) == {"written": 3}


async def test_what_a_database_says_against_a_statement_is_told() -> None:
    found = await answer(Recorder(), "query", {"database": "own", "sql": "bad"})
    assert found == Failure("QueryFailed", 'syntax error at or near "bad"')


async def test_a_result_that_is_too_large_is_said_to_be() -> None:
    recorder = Recorder()
    recorder.result = Rows([("a", "other")], rows(["x" * ANSWER_BYTES_MAX]))
    assert kind(await answer(recorder, "query", {"database": "own", "sql": "select"})) == "QueryFailed"


@pytest.mark.parametrize(
    ("missing", "method", "params"),
    [
        ({"mails": None}, "email", MAIL),
        ({"databases": {}}, "query", {"database": "own", "sql": "select 1"}),
        ({"databases": {}}, "query", {"database": "etl", "sql": "select 1"}),
        ({"providers": None}, "call", {"provider": "snov", "request": {"method": "GET", "path": "/"}}),
    ],
)
async def test_what_the_plan_has_not_is_not_allowed(
    missing: dict[str, object], method: str, params: dict[str, object]
) -> None:
    recorder = Recorder()
    assert kind(await Requests(recorder.world(**missing)).answer(asked(method, params))) == "NotAllowed"
    assert not isinstance(await answer(recorder, method, params), Failure)


async def test_a_provider_is_called_under_the_number_of_the_question() -> None:
    recorder = Recorder()
    request = {"method": "POST", "path": "/v1/find?a=b", "query": {"c": "d"}, "headers": {"X-Trace": "1"}, "body": [1]}
    found = value(await answer(recorder, "call", {"provider": "snov", "request": request}, number=9))
    assert found == {"status": 402, "headers": {"x-left": "0"}, "text": '{"echo":[1]}'}
    ((number, provider, sent),) = recorder.calls
    assert (number, provider, sent.method, sent.path, sent.query) == (9, "snov", "POST", "/v1/find?a=b", {"c": "d"})


class Listening:
    """A run that takes answers."""

    def __init__(self) -> None:
        self.answers: dict[int, Answer] = {}

    async def answer(self, number: int, found: Answer) -> None:
        self.answers[number] = found


CALL = {"provider": "snov", "request": {"method": "GET", "path": "/"}}


async def test_calls_that_are_on_their_way_are_answered_before_an_attempt_is_let_go_of() -> None:
    recorder, run = Recorder(), Listening()
    gate, calling = anyio.Event(), anyio.Event()
    call = recorder.call

    async def slow(number: int, provider: str, request: ProviderRequest) -> ProviderResponse:
        calling.set()
        await gate.wait()
        return await call(number, provider, request)

    recorder.call = slow  # type: ignore[method-assign]
    requests = Requests(recorder.world())
    order: list[str] = []

    async def finish() -> None:
        await requests.finish()
        order.append("let go")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(requests.see_to, asked("call", CALL, 1), run)  # type: ignore[arg-type]
        await calling.wait()
        tasks.start_soon(finish)
        await anyio.wait_all_tasks_blocked()
        await requests.see_to(asked("call", CALL, 2), run)  # type: ignore[arg-type]
        assert run.answers == {}, "the second is left to whoever comes next"
        assert order == []
        gate.set()
    assert list(run.answers) == [1]
    assert order == ["let go"]


async def test_a_call_that_a_stop_keeps_from_going_is_not_answered_from_here() -> None:
    recorder, run = Recorder(), Listening()

    async def stopped(number: int, provider: str, request: ProviderRequest) -> ProviderResponse:
        raise Stopped("told to stop")

    recorder.call = stopped  # type: ignore[method-assign]
    requests = Requests(recorder.world())
    await requests.see_to(asked("call", CALL), run)  # type: ignore[arg-type]
    await requests.finish()
    assert run.answers == {}


REQUESTS: Sequence[dict[str, object]] = [
    {"path": "https://elsewhere.example/"},
    {"path": "//elsewhere.example/"},
    {"path": "@elsewhere.example/"},
    {"path": "/a b"},
    {"path": "/a\r\nHost: b"},
    {"path": "/\u00e9"},
    {"method": "CONNECT"},
    {"headers": {"a": "b\r\nc: d"}},
    {"headers": {"a: b": "c"}},
    {"headers": {"Authorization": "another"}},
    {"headers": {"HOST": "another"}},
]


@pytest.mark.parametrize("changed", REQUESTS)
async def test_a_request_stays_with_its_provider_and_its_key(changed: dict[str, object]) -> None:
    recorder = Recorder()
    request = {"method": "GET", "path": "/", **changed}
    assert kind(await answer(recorder, "call", {"provider": "snov", "request": request})) == "BadRequest"
    assert recorder.calls == []


NONSENSE = [
    ("nothing", b"{}"),
    ("settings", b"null"),
    ("settings", b'{"all": true}'),
    ("progress", b"{}"),
    ("progress", b'{"done": -1}'),
    ("progress", b'{"done": 1e400}'),
    ("progress", b'{"done": "1"}'),
    ("email", b'{"type": "spam", "subject": "", "body": ""}'),
    ("email", b'{"type": "success", "subject": "\\ud800", "body": ""}'),
    ("email", b'{"type": "success", "subject": "\xff", "body": ""}'),
    ("query", b'{"database": "another", "sql": ""}'),
    ("query", b'{"database": "own", "sql": "", "parameters": [[]]}'),
    ("query", b'{"database": "own", "sql": "", "parameters": ' + b"[" * 100_000),
]


@pytest.mark.parametrize(("method", "params"), NONSENSE)
async def test_nonsense_is_a_bad_request(method: str, params: bytes) -> None:
    found = await Requests(Recorder().world()).answer(Question(1, method, msgspec.Raw(params)))
    assert kind(found) == "BadRequest"


@given(method=st.sampled_from(["settings", "progress", "email", "query", "call"]), params=st.binary(max_size=60))
async def test_whatever_is_asked_is_answered(method: str, params: bytes) -> None:
    found = await Requests(Recorder().world()).answer(Question(1, method, msgspec.Raw(params)))
    assert isinstance(found, Result | Failure)


async def test_a_fault_of_the_daemon_is_told_without_its_words() -> None:
    recorder = Recorder()
    recorder.trouble = RuntimeError("password=hunter2")
    found = await answer(recorder, "settings")
    assert found == Failure("LSError", "this could not be done now")
