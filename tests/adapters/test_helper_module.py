"""`from helper import LS` in a run, with a daemon that answers: what code sees, and what comes of what it does."""

import ast
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from leadline.adapters.sandbox_runner.modules import helper
from leadline.adapters.sandbox_runner.runner import LocalRunner, sandbox_runner
from leadline.features.batch.request_ports import Mail, Rows, World, Written
from leadline.features.batch.requests import Requests, attend
from leadline.ports.runner import Returned, Run
from tests.contracts.runners import Code, first_line, texts_of
from tests.features.batch.worlds import Recorder, rows

pytestmark = [pytest.mark.needs("bwrap"), pytest.mark.timeout(60)]

EVENT = {"job_name": "nightly", "job_instance_id": 17, "retry_attempt": 1, "source": "api"}


@pytest.fixture
def code(tmp_path: Path) -> Code:
    return Code(tmp_path)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder({"mykey": "myvalue", "nested": {"deep": {"a": 1}}, "list": [1]})


@asynccontextmanager
async def running(folder: Path, *, protected: bool = True) -> AsyncIterator[LocalRunner]:
    async with sandbox_runner(folder / "runs", ground=None, protected=protected) as runner:
        try:
            yield runner
        finally:
            for run in await runner.adopt():
                await run.kill()


async def finished(run: Run, world: World) -> Any:
    """What main() returns, once all that it has asked was answered."""
    await attend(run, Requests(world))
    how = (await run.ended()).how
    assert isinstance(how, Returned), how
    return msgspec.json.decode(how.value)


async def result_of(program: str, code: Code, folder: Path, world: World, **fields: Any) -> Any:
    async with running(folder) as runner:
        return await finished(await runner.start(code.order(program, event=EVENT, **fields)), world)


LSBATCH_STYLE = """
    import traceback
    from helper import LS

    def main():
        try:
            LS.log.info('Hello')
            LS.log.info('Hello', {"Support Email": "support@example.com"})
            LS.log.info(LS.settings.mykey)
            LS.log.debug('Debug Log Example')
            LS.log.warn({"rows": [1, 2]}, 'text')
            LS.db.execute_DB_query('Select * From Users')
            LS.db.execute_ETL_query('bad', multi=True)
        except TypeError as err:
            LS.log.fatal(type(err).__name__, traceback.format_exc())
        except Exception as err:
            LS.log.error(type(err).__name__, str(err))
        LS.email.send_email_notification('Success', 'Done', 'plain text', isHtml=False)
        LS.email.send_email_notification('Failure', 'x' * 300, '<b>text</b>', isHTML=True)
        LS.email.send_email_notification('success', 'Done', '<b>text</b>')
"""


@pytest.mark.parametrize("protected", [True, False], ids=["inside", "without"])
async def test_code_that_was_written_for_leadsquared_runs_as_it_is(
    tmp_path: Path, code: Code, recorder: Recorder, protected: bool
) -> None:
    async with running(tmp_path, protected=protected) as runner:
        run = await runner.start(code.order(LSBATCH_STYLE))
        await finished(run, recorder.world())
        lines = [line.partition(" | ") for line in await texts_of(run)]
    assert [rest for _, _, rest in lines] == [
        "Info | Hello | {}|",
        'Info | Hello | {"Support Email": "support@example.com"}|',
        "Info | myvalue | {}|",
        "Debug | Debug Log Example | {}|",
        'Warn | {"rows": [1, 2]} | text|',
        'Error | QueryFailed | syntax error at or near "bad"|',
    ]
    assert all(len(moment) == len("2026-03-01T12:00:00+0000") for moment, _, _ in lines)
    assert [(query.sql, query.multi) for query in recorder.queries] == [("Select * From Users", False), ("bad", True)]
    assert [*recorder.mails.values()] == [
        Mail("success", "Done", "plain text", html=False),
        Mail("failure", "x" * 255, "<b>text</b>", html=True),
        Mail("success", "Done", "<b>text</b>", html=True),
    ]


async def test_the_fourth_mail_is_an_exception_by_each_of_its_names(
    tmp_path: Path, code: Code, recorder: Recorder
) -> None:
    program = """
        from helper import LS, LimitReached, LSError, MXException, MXTooManyRequestsError
        def main():
            for _ in range(3):
                LS.email.send_email_notification("Success", "subject", "body")
            try:
                LS.email.send_email_notification("Success", "subject", "body")
            except MXTooManyRequestsError as error:
                return [error.message] + [isinstance(error, each) for each in (LimitReached, MXException, LSError)]
    """
    assert await result_of(program, code, tmp_path, recorder.world()) == [
        "a run may send 3 mails, and has", True, True, True
    ]  # fmt: skip
    assert len(recorder.mails) == 3


async def test_settings_are_attributes_and_a_mapping_and_never_shown(
    tmp_path: Path, code: Code, recorder: Recorder
) -> None:
    program = """
        import copy, pickle
        from helper import LS
        def main():
            settings = LS.settings
            LS.log.info(settings, {"all": settings})
            print(settings, repr(settings.nested), f"{settings}")
            found = [settings.mykey, settings["mykey"], settings.nested.deep.a, settings.list, sorted(settings)]
            found += [settings.get("none"), "mykey" in settings, hasattr(settings, "none"), len(copy.copy(settings))]
            return found + [LS.settings is settings]
    """
    async with running(tmp_path) as runner:
        run = await runner.start(code.order(program))
        found = await finished(run, recorder.world())
        assert "myvalue" not in "".join(await texts_of(run))
    names = ["list", "mykey", "nested"]
    assert found == ["myvalue", "myvalue", 1, [1], names, None, True, False, 3, True]


@pytest.mark.parametrize("level", ["debug", "warning", "fatal"])
async def test_lines_below_the_level_are_left_out(tmp_path: Path, code: Code, level: str) -> None:
    program = f"""
        from helper import LS
        def main():
            LS.log.set_level("{level}")
            for say in (LS.log.debug, LS.log.info, LS.log.warning, LS.log.error, LS.log.critical):
                say("x")
    """
    async with running(tmp_path) as runner:
        run = await runner.start(code.order(program))
        await finished(run, Recorder().world())
        said = [line.split(" | ")[1] for line in await texts_of(run)]
    levels = ["Debug", "Info", "Warn", "Error", "Fatal"]
    assert said == levels[{"debug": 0, "warning": 2, "fatal": 4}[level] :]


async def test_nothing_that_is_logged_is_an_exception(tmp_path: Path, code: Code) -> None:
    program = """
        from helper import LS
        class Thing:
            def __init__(self):
                self.name = "thing"
        def main():
            circle = []
            circle.append(circle)
            for value in (Thing(), {1, 2}, object, b"x", circle, {(1, 2): 3}, "\\ud800", None, float("nan")):
                LS.log.info("x", value)
    """
    async with running(tmp_path) as runner:
        run = await runner.start(code.order(program))
        await finished(run, Recorder().world())
        said = [line.split(" | ")[3] for line in await texts_of(run)]
    assert said[:2] == ['{"name": "thing"}|', '"{1, 2}"|']
    assert said[4:] == ["[[...]]|", "{(1, 2): 3}|", "\\ud800|", "null|", "NaN|"]


ROWS = Rows(
    [("id", "other"), ("at", "timestamp"), ("day", "date"), ("price", "decimal"), ("raw", "bytes"), ("data", "other")],
    rows([1, "2026-03-01T00:00:00.500000+00:00", "2026-03-01", "1.10", "AP8=", {"a": [None]}], [None] * 6),
)


async def test_rows_are_dictionaries_of_python_values_where_there_is_no_pandas(
    tmp_path: Path, code: Code, recorder: Recorder
) -> None:
    program = """
        import sys
        sys.modules["pandas"] = None
        from helper import LS
        from datetime import date, datetime
        from decimal import Decimal
        def main():
            given = [date(2026, 3, 1), Decimal("1.1"), 1]
            return [repr(row) for row in LS.execute_DB_query("select", parameters=given)]
    """
    recorder.result = ROWS
    first, second = await result_of(program, code, tmp_path, recorder.world())
    assert first == (
        "{'id': 1, 'at': datetime.datetime(2026, 3, 1, 0, 0, 0, 500000, tzinfo=datetime.timezone.utc), "
        "'day': datetime.date(2026, 3, 1), 'price': Decimal('1.10'), 'raw': b'\\x00\\xff', 'data': {'a': [None]}}"
    )
    assert second == "{'id': None, 'at': None, 'day': None, 'price': None, 'raw': None, 'data': None}"
    assert recorder.queries[0].parameters == ["2026-03-01", "1.1", 1]


async def test_rows_are_a_data_frame_where_there_is_pandas(tmp_path: Path, code: Code, recorder: Recorder) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "pandas.py").write_text("def DataFrame(rows, columns): return ['frame', rows, columns]")
    program = "from helper import LS\ndef main(): return LS.db.execute_DB_query('select')"
    recorder.result = Rows([("id", "other")], rows([1], [2]))
    found = await result_of(program, code, tmp_path, recorder.world(), packages=packages)
    assert found == ["frame", [[1], [2]], ["id"]]


async def test_of_a_statement_that_returns_no_rows_the_number_of_those_changed_is_told(
    tmp_path: Path, code: Code, recorder: Recorder
) -> None:
    recorder.result = Written(3)
    program = "from helper import LS\ndef main(): return LS.execute_ETL_query('delete')"
    assert await result_of(program, code, tmp_path, recorder.world()) == 3


@pytest.mark.parametrize(
    ("statement", "missing", "error"),
    [
        ("LS.execute_DB_query('select 1')", {"databases": {}}, "NotAllowed: the plan has no database access"),
        ("LS.execute_ETL_query('select 1')", {"databases": {}}, "NotAllowed: the plan has no ETL database"),
        ("LS.execute_DB_query('x' * (1 << 20))", {}, "BadRequest: query was given more than 1048576 bytes"),
        ("LS.provider('other').call('GET', '/')", {}, "NotAllowed: there is no provider other"),
        ("LS.provider('snov').call('GET', '//other')", {}, "BadRequest: call: "),
        ("LS.email.send_email_notification('Success', '', '', attachments=['x'])", {}, "NotAllowed: a notification "),
        ("LS.email.send_email_notification('Other', '', '')", {}, "BadRequest: email: "),
        ("LS.execute_DB_query('', parameters=[float('nan')])", {}, "ValueError: "),
        ("LS.settings.none", {}, "AttributeError: the job has no setting none"),
    ],
)
async def test_what_cannot_be_had_is_an_exception_that_says_why(
    tmp_path: Path, code: Code, recorder: Recorder, statement: str, missing: Mapping[str, Any], error: str
) -> None:
    program = f"""
        from helper import LS
        def main():
            try:
                {statement}
            except Exception as error:
                return f"{{type(error).__name__}}: {{error}}"
    """
    found = await result_of(program, code, tmp_path, recorder.world(**missing))
    assert found is not None
    assert found.startswith(error)


async def test_a_provider_is_called_and_its_answer_seen_whatever_its_status(
    tmp_path: Path, code: Code, recorder: Recorder
) -> None:
    program = """
        from helper import LS
        def main():
            answer = LS.provider("snov").call("POST", "/v1", query={"page": 2}, body={"a": 1}, headers={"X-A": "b"})
            return [answer.status, answer.headers, answer.json()]
    """
    assert await result_of(program, code, tmp_path, recorder.world()) == [402, {"x-left": "0"}, {"echo": {"a": 1}}]
    ((_, _, request),) = recorder.calls
    assert (request.query, request.headers) == ({"page": "2"}, {"X-A": "b"})


async def test_what_was_told_last_of_the_progress_is_heard_and_not_everything_before(
    tmp_path: Path, code: Code, recorder: Recorder
) -> None:
    program = """
        import helper
        from helper import LS
        def main():
            helper.LAST_WORDS_SECONDS = 30
            for done in range(10_001):
                LS.progress(done, 10_000)
    """
    began = anyio.current_time()
    await result_of(program, code, tmp_path, recorder.world())
    assert len(recorder.progress) < 10 + (anyio.current_time() - began) / helper.PROGRESS_SECONDS
    assert recorder.progress[-1] == (10_000, 10_000)


async def test_progress_keeps_nobody_waiting_where_nobody_listens(tmp_path: Path, code: Code) -> None:
    program = """
        from helper import LS
        def main():
            for done in range(1000):
                LS.progress(done)
            return "ran"
    """
    async with running(tmp_path) as runner:
        run = await runner.start(code.order(program))
        assert isinstance((await run.ended()).how, Returned)


async def test_progress_is_no_fault_where_no_more_threads_can_be_made(tmp_path: Path, code: Code) -> None:
    program = """
        import threading, time
        from helper import LS, LSError
        def main():
            try:
                while True:
                    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
            except RuntimeError:
                LS.progress(1)
            for _ in range(2):
                try:
                    LS.settings
                except RuntimeError as error:
                    found = str(error)
            return found
    """
    async with running(tmp_path) as runner:
        run = await runner.start(code.order(program))
        how = (await run.ended()).how
        assert isinstance(how, Returned), how
        assert msgspec.json.decode(how.value) == "can't start new thread"


async def test_code_knows_its_job_run_and_attempt(tmp_path: Path, code: Code, recorder: Recorder) -> None:
    program = "from helper import LS\ndef main(): return [LS.job_name, LS.job_instance_id, LS.retry_attempt]"
    assert await result_of(program, code, tmp_path, recorder.world()) == ["nightly", 17, 1]


async def test_threads_that_ask_at_once_get_each_its_own_answer(tmp_path: Path, code: Code, recorder: Recorder) -> None:
    program = """
        import concurrent.futures
        from helper import LS
        def ask(number):
            return LS.provider("snov").call("POST", "/", body=number).json()["echo"]
        def main():
            with concurrent.futures.ThreadPoolExecutor(20) as pool:
                return list(pool.map(ask, range(60)))
    """
    assert await result_of(program, code, tmp_path, recorder.world()) == [*range(60)]


async def test_a_process_that_code_has_forked_can_log_and_not_ask(
    tmp_path: Path, code: Code, recorder: Recorder
) -> None:
    program = """
        import multiprocessing
        from helper import LS, LSError
        def child(queue):
            LS.log.info("here")
            LS.progress(2)
            try:
                LS.execute_DB_query("select")
            except LSError as error:
                queue.put(str(error))
        def main():
            LS.settings
            LS.progress(1)
            found = []
            for method in ("fork", "spawn"):
                context = multiprocessing.get_context(method)
                pipe = context.SimpleQueue()
                process = context.Process(target=child, args=(pipe,))
                process.start()
                found.append(pipe.get())
                process.join()
            return found + [LS.settings.mykey]
    """
    refusal = "nobody answers here: only the process that main() was called in can ask"
    assert await result_of(program, code, tmp_path, recorder.world()) == [refusal, refusal, "myvalue"]


async def test_a_question_is_waited_for_over_a_restart_of_the_daemon(
    tmp_path: Path, code: Code, recorder: Recorder
) -> None:
    program = "from helper import LS\ndef main():\n    print('asks')\n    return LS.settings.mykey"
    async with running_on(tmp_path) as before:
        await first_line(await before.start(code.order(program)))
    async with running(tmp_path) as after:
        (run,) = await after.adopt()
        assert await finished(run, recorder.world()) == "myvalue"


@asynccontextmanager
async def running_on(folder: Path) -> AsyncIterator[LocalRunner]:
    """A daemon that leaves its runs to the next."""
    async with sandbox_runner(folder / "runs", ground=None) as runner:
        yield runner


async def test_code_that_waits_is_ended_in_time(tmp_path: Path, code: Code) -> None:
    program = "from helper import LS\ndef main():\n    print('here')\n    LS.settings"
    async with running(tmp_path) as runner:
        run = await runner.start(code.order(program))
        await first_line(run)
        with anyio.fail_after(30):
            await run.kill()


async def test_a_module_of_the_codes_own_goes_before_and_one_of_its_packages_behind(tmp_path: Path, code: Code) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "helper.py").write_text("LS = 'of the packages'")
    order = code.order("import helper\ndef main(): return str(helper.LS)", packages=packages)
    async with running(tmp_path) as runner:
        found = await finished(await runner.start(order), Recorder().world())
        assert "Leadline" in found
        own = code.order("import helper\ndef main(): return str(helper.LS)")
        (own.code / "helper.py").write_text("LS = 'its own'")
        assert await finished(await runner.start(own), Recorder().world()) == "its own"


def test_the_module_is_python_of_the_oldest_interpreter() -> None:
    text = Path(helper.__file__).read_text("utf-8")
    ast.parse(text, feature_version=(3, 9))
    with pytest.raises(SyntaxError):
        ast.parse("match x:\n    case 1: pass", feature_version=(3, 9))
