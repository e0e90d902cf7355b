"""What every runner does: the sentences of `leadline.ports.runner`."""

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from textwrap import dedent
from typing import Any

import anyio
import msgspec
import pytest

from leadline.ports.runner import (
    ANSWER_BYTES_MAX,
    LINE_BYTES_MAX,
    QUESTION_BYTES_MAX,
    QUESTIONS_MAX,
    RESULT_BYTES_MAX,
    TRACEBACK_CHARACTERS_MAX,
    CannotRun,
    End,
    Exited,
    Failure,
    How,
    Killed,
    KilledFor,
    NotBegun,
    Product,
    Question,
    Raised,
    Result,
    Returned,
    Run,
    RunExists,
    Runner,
)
from tests.contracts.runners import Code, LocalPlace, Place, first_line, killed_within_a_second, lines_of, texts_of

pytestmark = [pytest.mark.needs("bwrap"), pytest.mark.timeout(60)]

FOREVER = """
    import time
    def main():
        print("here")
        time.sleep(600)
"""


@pytest.fixture(params=["local"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return LocalPlace(tmp_path)


@pytest.fixture
async def runner(place: Place) -> AsyncIterator[Runner]:
    """A daemon's, in a task of its own, as what it is made of has to be left where it was entered."""
    running: asyncio.Future[Runner] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def live() -> None:
        async with place.daemon() as runner:
            running.set_result(runner)
            await over.wait()
            for run in await runner.adopt():
                await run.kill()

    life = asyncio.create_task(live())
    yield await running
    over.set()
    await life


@pytest.fixture
def code(tmp_path: Path) -> Code:
    return Code(tmp_path)


def returned(how: How) -> Any:
    assert isinstance(how, Returned), how
    return msgspec.json.decode(how.value)


# -- what it gives and takes ------------------------------------------------------------------------------------------


async def test_main_is_given_the_event_and_what_it_returns_is_kept(runner: Runner, code: Code) -> None:
    event = {"body": {"a": [1, 2.5, None, "é"]}, "retry_attempt": 0}
    run = await runner.start(code.order("def main(event): return [event, event['retry_attempt'] + 1]", event=event))
    assert returned((await run.ended()).how) == [event, 1]


@pytest.mark.parametrize("signature", ["main()", "main(*, later=None)", "main(event=None)", "main(*events)"])
async def test_main_may_take_no_event(runner: Runner, code: Code, signature: str) -> None:
    run = await runner.start(code.order(f"def {signature}: return 'ran'"))
    assert returned((await run.ended()).how) == "ran"


async def test_packages_go_before_those_of_the_interpreter_and_behind_the_code(
    runner: Runner, code: Code, tmp_path: Path
) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    for name in ("colorsys", "main"):
        (packages / f"{name}.py").write_text("value = 'of the packages'")
    run = await runner.start(code.order("import colorsys\ndef main(): return colorsys.value", packages=packages))
    assert returned((await run.ended()).how) == "of the packages"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("object()", "it is no JSON: Object of type object is not JSON serializable"),
        ("float('nan')", "it is no JSON: "),
        (f"'x' * {RESULT_BYTES_MAX - 1}", f"it is larger than {RESULT_BYTES_MAX} bytes"),
    ],
)
async def test_what_cannot_be_kept_of_a_result_is_said_and_nothing_else_comes_of_it(
    runner: Runner, code: Code, value: str, why: str
) -> None:
    run = await runner.start(code.order(f"def main(): return {value}"))
    how = (await run.ended()).how
    assert returned(how) is None
    assert isinstance(how, Returned)
    assert how.unkept.startswith(why)


async def test_the_largest_result_is_kept(runner: Runner, code: Code) -> None:
    run = await runner.start(code.order(f"def main(): return 'é' * {(RESULT_BYTES_MAX - 2) // 6}"))
    assert returned((await run.ended()).how) == "é" * ((RESULT_BYTES_MAX - 2) // 6)


async def test_an_exception_is_told_from_the_codes_own_first_line_on(runner: Runner, code: Code) -> None:
    run = await runner.start(code.order("def main():\n    return deep()\ndef deep():\n    raise KeyError('é')"))
    how = (await run.ended()).how
    assert isinstance(how, Raised)
    first, *_, last = how.traceback.splitlines()
    assert (first, last) == ("Traceback (most recent call last):", "KeyError: 'é'")
    assert how.traceback.count('main.py"') == how.traceback.count("File ") == 2


@pytest.mark.parametrize("program", ["import nothing_of_that_name", "def other(): pass", "def main(:", "1 / 0"])
async def test_code_that_cannot_be_loaded_is_an_exception(runner: Runner, code: Code, program: str) -> None:
    run = await runner.start(code.order(program))
    assert isinstance((await run.ended()).how, Raised)


async def test_of_an_endless_traceback_the_end_is_kept(runner: Runner, code: Code) -> None:
    run = await runner.start(code.order("def main(): raise ValueError('x' * 10**6 + 'end')"))
    how = (await run.ended()).how
    assert isinstance(how, Raised)
    assert len(how.traceback) == TRACEBACK_CHARACTERS_MAX
    assert how.traceback.endswith("xend\n")


@pytest.mark.parametrize(
    ("statement", "status"),
    [("sys.exit()", 0), ("sys.exit(3)", 3), ("sys.exit('why')", 1), ("os._exit(7)", 7), ("os.abort()", 134)],
)
async def test_a_process_that_ends_before_main_does_is_known_by_its_status(
    runner: Runner, code: Code, statement: str, status: int
) -> None:
    run = await runner.start(code.order(f"import os, sys\ndef main(): {statement}"))
    assert (await run.ended()).how == Exited(status)


# -- the log ----------------------------------------------------------------------------------------------------------


async def test_lines_are_numbered_in_order_whichever_stream_they_were_printed_to(runner: Runner, code: Code) -> None:
    before = time.time_ns() // 1000
    run = await runner.start(
        code.order(
            """
            import os, subprocess, sys
            def main():
                print("one")
                print("two", file=sys.stderr)
                os.write(1, b"three\\n")
                subprocess.run(["echo", "four"])
                print("five", end="")
            """
        )
    )
    lines = await lines_of(run)
    assert [(line.number, line.text) for line in lines] == [*enumerate(["one", "two", "three", "four", "five"], 1)]
    moments = [before, *(line.at for line in lines), time.time_ns() // 1000]
    assert moments == sorted(moments)
    assert await lines_of(run, after=3) == lines[3:]


async def test_a_line_comes_while_the_run_goes_on(runner: Runner, code: Code) -> None:
    run = await runner.start(code.order(FOREVER))
    assert await first_line(run) == "here"
    assert (await run.kill()).how == Killed(KilledFor.TOLD)


async def test_whatever_is_printed_becomes_text(runner: Runner, code: Code) -> None:
    most = LINE_BYTES_MAX
    run = await runner.start(
        code.order(
            f"""
            import os
            def main():
                os.write(1, b"\\xff\\xfe broken\\n" + b"nul \\0 and \\x1b[31m red\\r\\n\\n")
                os.write(1, b"x" * {most} + b"\\n")
                os.write(1, b"y" * {most + 1} + b"\\n")
                os.write(1, "é".encode() * 300_000 + b"\\nlast")
            """
        )
    )
    broken, control, empty, longest, longer, endless, last = await texts_of(run)
    assert (broken, control, empty, last) == ("\ufffd\ufffd broken", "nul \0 and \x1b[31m red", "", "last")
    assert (longest, longer) == ("x" * most, "y" * most + " […]")
    assert endless == "é" * (most // 2) + " […]"


async def test_what_may_be_printed_is_kept_to_the_byte_and_a_byte_more_is_the_end(runner: Runner, code: Code) -> None:
    def program(size: int) -> str:
        return f"import os\ndef main(): os.write(1, b'x' * 59 + b'\\n' + b'y' * {size - 60})"

    fits = await runner.start(code.order(program(100), output_bytes=100))
    more = await runner.start(code.order(program(101), output_bytes=100))
    assert returned((await fits.ended()).how) is None
    assert (await more.ended()).how == Killed(KilledFor.OUTPUT)
    assert await texts_of(fits) == await texts_of(more) == ["x" * 59, "y" * 40]


# -- its product ------------------------------------------------------------------------------------------------------

PRODUCE = """
    import os, sys
    def main(size):
        with os.fdopen(int(sys.argv[1]), "wb") as file:
            file.write(b"x" * size)
"""


async def test_what_a_run_makes_is_there_when_it_has_ended(runner: Runner, code: Code, tmp_path: Path) -> None:
    made = Product(tmp_path / "made", 1_000_000)
    run = await runner.start(code.order(PRODUCE, event=1_000_000, product=made))
    assert returned((await run.ended()).how) is None
    assert made.path.read_bytes() == b"x" * 1_000_000


async def test_what_may_be_made_is_kept_to_the_byte_and_a_byte_more_is_the_end(
    runner: Runner, code: Code, tmp_path: Path
) -> None:
    for size in (1_001, 10_000_000):
        made = Product(tmp_path / f"made-{size}", 1_000)
        run = await runner.start(code.order(PRODUCE, event=size, product=made))
        assert (await run.ended()).how == Killed(KilledFor.OUTPUT)
        assert made.path.read_bytes() == b"x" * 1_000


async def test_what_is_there_already_is_not_written_over(runner: Runner, code: Code, tmp_path: Path) -> None:
    (tmp_path / "made").write_text("before")
    run = await runner.start(code.order(PRODUCE, event=1, product=Product(tmp_path / "made", 1_000)))
    assert isinstance((await run.ended()).how, NotBegun)
    assert (tmp_path / "made").read_text() == "before"


# -- its packages -----------------------------------------------------------------------------------------------------


async def test_packages_are_locked_for_as_long_as_the_run_lives(place: Place, code: Code, tmp_path: Path) -> None:
    """Whether the daemon does or not."""
    packages = tmp_path / "packages"
    packages.mkdir(0o755)
    async with place.daemon() as before:
        await before.start(code.order(FOREVER, packages=packages))
        assert locked(packages)
    assert locked(packages)
    async with place.daemon() as after:
        (run,) = await after.adopt()
        await first_line(run)
        assert locked(packages)
        await run.kill()
        with anyio.fail_after(30):
            while locked(packages):
                await anyio.sleep(0.01)  # its supervisor has said all, and is about to end


async def test_packages_that_are_not_there_start_nothing(runner: Runner, code: Code, tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match="packages"):
        await runner.start(code.order(FOREVER, packages=tmp_path / "packages"))
    assert await runner.adopt() == []


def locked(folder: Path) -> bool:
    """Whether somebody holds a lock on it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


# -- limits -----------------------------------------------------------------------------------------------------------


async def test_time_is_up_when_it_is(runner: Runner, code: Code) -> None:
    end = await (await runner.start(code.order(FOREVER, seconds=0.5))).ended()
    assert end.how == Killed(KilledFor.TIMEOUT)
    assert 0.5 <= end.seconds < 30
    assert end.began is not None
    assert end.began + end.seconds * 1_000_000 < time.time_ns() // 1000


async def test_a_returned_run_ends_when_its_process_does(runner: Runner, code: Code) -> None:
    run = await runner.start(
        code.order("import atexit, time\ndef main(): atexit.register(time.sleep, 600)", seconds=0.5)
    )
    assert (await run.ended()).how == Killed(KilledFor.TIMEOUT)


@pytest.mark.parametrize("caught", [False, True])
async def test_memory_is_bounded_for_all_processes_together(runner: Runner, code: Code, caught: bool) -> None:
    run = await runner.start(
        code.order(
            f"""
            import os, time
            def main():
                for _ in range(4):
                    if os.fork() == 0:
                        kept = bytearray(os.urandom(1)) * 60_000_000
                        time.sleep(600)
                try:
                    kept = bytearray(b"x") * (60_000_000)
                    time.sleep(600)
                except MemoryError:
                    if not {caught}:
                        raise
            """,
            memory_bytes=150_000_000,
        )
    )
    assert (await run.ended()).how == Killed(KilledFor.MEMORY)


async def test_processes_are_bounded_to_the_last(runner: Runner, code: Code) -> None:
    run = await runner.start(
        code.order(
            """
            import os, time
            def main():
                made = 0
                try:
                    while made < 100:
                        if os.fork() == 0:
                            time.sleep(600)
                        made += 1
                except BlockingIOError:
                    return made
            """,
            processes=16,
        )
    )
    assert returned((await run.ended()).how) == 15, "and the one that made them"


async def test_what_may_be_written_to_the_scratch_folder_is_bounded(runner: Runner, code: Code) -> None:
    run = await runner.start(
        code.order(
            """
            import errno, os, tempfile
            def main():
                written = 0
                try:
                    with open(tempfile.gettempdir() + "/file", "wb", buffering=0) as file:
                        while True:
                            written += file.write(bytes(65536))
                except OSError as error:
                    return [written, errno.errorcode[error.errno]]
            """,
            disk_bytes=4 * 1024 * 1024,
        )
    )
    assert returned((await run.ended()).how) == [4 * 1024 * 1024, "ENOSPC"]


# -- its end ----------------------------------------------------------------------------------------------------------


async def test_who_is_killed_is_gone_within_a_second_and_stays_killed(runner: Runner, code: Code) -> None:
    async def run_that_is_at_work() -> Run:
        run = await runner.start(code.order(FOREVER))
        await first_line(run)
        return run

    run, end = await killed_within_a_second(run_that_is_at_work)
    assert end.how == Killed(KilledFor.TOLD)
    assert await run.kill() == await run.ended() == end


async def test_killing_one_that_has_ended_changes_nothing(runner: Runner, code: Code) -> None:
    run = await runner.start(code.order("def main(): return 1"))
    end = await run.ended()
    assert await run.kill() == end
    assert returned(end.how) == 1


async def test_one_that_has_hardly_been_started_can_be_killed(runner: Runner, code: Code) -> None:
    run = await runner.start(code.order(FOREVER))
    end = await run.kill()
    assert end.how == Killed(KilledFor.TOLD)


async def test_runs_do_not_disturb_each_other(runner: Runner, code: Code) -> None:
    runs = [await runner.start(code.order(f"def main(): return {number}")) for number in range(4)]
    assert [returned((await run.ended()).how) for run in runs] == [0, 1, 2, 3]


async def test_there_is_one_run_of_a_name(runner: Runner, code: Code) -> None:
    run = await runner.start(code.order("def main(): return 1", name="once"))
    with pytest.raises(RunExists):
        await runner.start(code.order("def main(): return 2", name="once"))
    await run.ended()
    with pytest.raises(RunExists):
        await runner.start(code.order("def main(): return 2", name="once"))
    await run.forget()
    again = await runner.start(code.order("def main(): return 3", name="once"))
    assert returned((await again.ended()).how) == 3


async def test_an_interpreter_that_is_none_starts_nothing(runner: Runner, code: Code) -> None:
    with pytest.raises(CannotRun, match="/nowhere/python"):
        await runner.start(code.order(FOREVER, interpreter=Path("/nowhere/python")))
    assert await runner.adopt() == []


# -- questions --------------------------------------------------------------------------------------------------------

ASKING = """
    import json
    from leadline_run import questions
    answers = questions.makefile("rb")
    def ask(number, method="echo", params=None):
        questions.sendall(json.dumps({"ask": number, "method": method, "params": params}).encode() + b"\\n")
    def answered():
        return json.loads(answers.readline())
"""


def asking(main: str) -> str:
    return dedent(ASKING) + dedent(main)


def result(value: object) -> Result:
    return Result(msgspec.Raw(msgspec.json.encode(value)))


async def echo(run: Run) -> None:
    """Answer each question with what it holds."""
    async for asked in run.questions():
        await run.answer(asked.number, Result(asked.params))


async def heard(run: Run, count: int) -> list[Question]:
    """The first questions that there are."""
    questions = []
    async with aclosing(run.questions()) as asked:
        async for each in asked:
            questions.append(each)
            if len(questions) == count:
                break
    return questions


async def test_a_question_is_answered(runner: Runner, code: Code) -> None:
    run = await runner.start(
        code.order(asking("def main():\n    ask(7, 'query', {'sql': 'é\\n'})\n    return answered()"))
    )
    questions = run.questions()
    asked = await anext(questions)
    assert (asked.number, asked.method) == (7, "query")
    assert msgspec.json.decode(asked.params) == {"sql": "é\n"}
    await run.answer(7, result(["é", {"a": None}]))
    assert returned((await run.ended()).how) == {"answer": 7, "result": ["é", {"a": None}]}
    assert [each async for each in questions] == []


async def test_a_question_that_is_refused_is_told_why(runner: Runner, code: Code) -> None:
    run = await runner.start(code.order(asking("def main():\n    ask(1)\n    return answered()")))
    async for asked in run.questions():
        await run.answer(asked.number, Failure("NotAllowed", "not \ud800 here\n"))
    error = {"type": "NotAllowed", "message": "not ? here\n"}
    assert returned((await run.ended()).how) == {"answer": 1, "error": error}


async def test_answers_come_in_the_order_in_which_they_are_given(runner: Runner, code: Code) -> None:
    run = await runner.start(
        code.order(asking("def main():\n    ask(1)\n    ask(2)\n    return [answered(), answered()]"))
    )
    questions = run.questions()
    for asked in reversed([await anext(questions), await anext(questions)]):
        await run.answer(asked.number, result(asked.number))
    assert returned((await run.ended()).how) == [{"answer": 2, "result": 2}, {"answer": 1, "result": 1}]


async def test_the_largest_question_and_answer_pass(runner: Runner, code: Code) -> None:
    filler = QUESTION_BYTES_MAX - len('{"ask": 1, "method": "echo", "params": ""}')
    run = await runner.start(
        code.order(asking(f"def main():\n    ask(1, params='x' * {filler})\n    return len(answered()['result'])"))
    )
    (asked,) = await heard(run, 1)
    assert len(asked.params) == filler + 2
    questions = run.questions()
    await anext(questions)
    await run.answer(1, result("y" * (ANSWER_BYTES_MAX - 2)))
    assert returned((await run.ended()).how) == ANSWER_BYTES_MAX - 2
    await questions.aclose()


async def test_who_asks_more_than_may_wait_is_heard_when_there_is_room(runner: Runner, code: Code) -> None:
    asks = QUESTIONS_MAX + 4
    run = await runner.start(
        code.order(
            asking(
                f"""
                def main():
                    for number in range(1, {asks + 1}):
                        ask(number, params=number)
                    return sorted(answered()["result"] for _ in range({asks}))
                """
            )
        )
    )
    assert [each.number for each in await heard(run, QUESTIONS_MAX)] == [*range(1, QUESTIONS_MAX + 1)]
    questions = run.questions()
    waiting = [await anext(questions) for _ in range(QUESTIONS_MAX)]
    with anyio.move_on_after(0.3):
        await anext(questions)
        raise AssertionError("one more than may wait")
    for asked in waiting:
        await run.answer(asked.number, Result(asked.params))
    await questions.aclose()
    await echo(run)
    assert returned((await run.ended()).how) == [*range(1, asks + 1)]


async def test_a_question_is_put_to_the_daemon_that_adopts_the_run(place: Place, code: Code) -> None:
    async with place.daemon() as before:
        run = await before.start(
            code.order(asking("def main():\n    ask(1)\n    ask(2)\n    return [answered(), answered()]"))
        )
        questions = run.questions()
        assert [(await anext(questions)).number for _ in range(2)] == [1, 2]
        await run.answer(1, result("of the first"))
        await questions.aclose()
    async with place.daemon() as after:
        (adopted,) = await after.adopt()
        async for asked in adopted.questions():
            assert asked.number == 2
            await adopted.answer(2, result("of the second"))
        answers = [{"answer": 1, "result": "of the first"}, {"answer": 2, "result": "of the second"}]
        assert returned((await adopted.ended()).how) == answers


async def test_a_question_that_no_daemon_has_listened_to_waits_for_one_that_does(place: Place, code: Code) -> None:
    async with place.daemon() as before:
        run = await before.start(code.order(asking("def main():\n    ask(1)\n    print()\n    return answered()")))
        await first_line(run)
    async with place.daemon() as after:
        (adopted,) = await after.adopt()
        await echo(adopted)
        assert returned((await adopted.ended()).how) == {"answer": 1, "result": None}


async def test_who_listens_later_takes_the_place_of_who_did_so_before(runner: Runner, code: Code) -> None:
    run = await runner.start(code.order(asking("def main():\n    ask(1)\n    return answered()")))
    first = run.questions()
    assert (await anext(first)).number == 1
    second = run.questions()
    assert (await anext(second)).number == 1
    assert [each async for each in first] == []
    await run.answer(1, result("late"))
    assert returned((await run.ended()).how)["result"] == "late"
    await second.aclose()


@pytest.mark.parametrize("answered", [False, True])
async def test_a_question_does_not_outlive_its_run(runner: Runner, code: Code, answered: bool) -> None:
    run = await runner.start(code.order(asking("def main():\n    ask(1)\n    return answered()")))
    questions = run.questions()
    assert (await anext(questions)).number == 1
    assert (await run.kill()).how == Killed(KilledFor.TOLD)
    if answered:
        await run.answer(1, result(None))
    assert [each async for each in questions] == []
    assert [each async for each in run.questions()] == []


async def test_an_answer_that_nobody_waits_for_is_none(runner: Runner, code: Code) -> None:
    run = await runner.start(code.order(asking("def main():\n    ask(3)\n    return answered()")))
    questions = run.questions()
    await anext(questions)
    for number in (4, 3, 3):
        await run.answer(number, result(number))
    assert returned((await run.ended()).how) == {"answer": 3, "result": 3}
    await questions.aclose()


NONSENSE = {
    "no JSON": b"{]",
    "an empty line": b"",
    "no object": b"[]",
    "no number": b'{"method": "echo"}',
    "a fraction": b'{"ask": 1.5, "method": "echo"}',
    "a number without end": b'{"ask": ' + b"9" * 5000 + b', "method": "echo"}',
    "no method": b'{"ask": 2}',
    "a method without end": b'{"ask": 2, "method": "' + b"x" * 101 + b'"}',
    "brackets without end": b'{"ask": 2, "method": "echo", "params": ' + b"[" * 100_000,
    "a number that is taken": b'{"ask": 1, "method": "echo"}',
    "a line without end": b'"' + b"x" * (QUESTION_BYTES_MAX + 100_000),
}


@pytest.mark.parametrize("nonsense", NONSENSE)
async def test_nonsense_ends_the_codes_own_channel_and_nothing_else(
    runner: Runner, code: Code, tmp_path: Path, nonsense: str
) -> None:
    order = code.order(
        asking(
            """
            import pathlib
            def main():
                ask(1)
                try:
                    questions.sendall(pathlib.Path(__file__).with_name("nonsense").read_bytes() + b"\\n")
                    return answers.read().decode()
                except ConnectionError:
                    return ""
            """
        )
    )
    (order.code / "nonsense").write_bytes(NONSENSE[nonsense])
    run = await runner.start(order)
    asked = [each.number async for each in run.questions()]
    assert asked in ([], [1])
    assert returned((await run.ended()).how) == "", "though nobody has answered"


async def test_two_who_ask_at_once_are_both_answered(runner: Runner, code: Code) -> None:
    program = asking(
        """
        import threading
        def main():
            threads = [threading.Thread(target=ask, args=(number, "echo", number)) for number in (1, 2)]
            for thread in threads:
                thread.start()
            found = sorted(answered()["result"] for _ in threads)
            for thread in threads:
                thread.join()
            return found
        """
    )
    run = await runner.start(code.order(program))
    await echo(run)
    assert returned((await run.ended()).how) == [1, 2]


async def test_who_asks_without_end_keeps_nobody_from_ending_it(runner: Runner, code: Code) -> None:
    program = asking(
        """
        import itertools, threading
        def main():
            threading.Thread(target=answers.read, daemon=True).start()
            print("here")
            for number in itertools.count(1):
                ask(number)
        """
    )
    run = await runner.start(code.order(program))
    await first_line(run)
    began = time.monotonic()
    answered = 0
    with anyio.fail_after(30):
        async with aclosing(run.questions()) as questions:
            async for asked in questions:
                await run.answer(asked.number, result(None))
                answered += 1
                if answered == 1000:
                    break
    assert answered < 500 + 500 * (time.monotonic() - began), "it is listened to, but not as often as it wants"
    with anyio.fail_after(30):
        assert (await run.kill()).how == Killed(KilledFor.TOLD)


# -- after a restart --------------------------------------------------------------------------------------------------


async def test_a_run_outlives_the_daemon_and_the_next_one_adopts_it(place: Place, code: Code) -> None:
    async with place.daemon() as before:
        run = await before.start(code.order(FOREVER, name="long"))
        lines = [await first_line(run)]
    async with place.daemon() as after:
        (adopted,) = await after.adopt()
        assert adopted.name == "long"
        assert [await first_line(adopted)] == lines
        assert (await adopted.kill()).how == Killed(KilledFor.TOLD)


async def test_how_a_run_ended_that_nobody_watched_is_known_to_the_next_daemon(place: Place, code: Code) -> None:
    async with place.daemon() as before:
        run = await before.start(code.order("def main(): return print('one') or 1", name="short"))
        end = await run.ended()
        late = await before.start(code.order("import time\ndef main(): return time.sleep(0.3)", name="late"))
        timed = await before.start(code.order(FOREVER, name="timed", seconds=0.3))
    async with place.daemon() as after:
        adopted = {run.name: run for run in await after.adopt()}
        assert set(adopted) == {"short", late.name, timed.name}
        assert await adopted["short"].ended() == end
        assert await texts_of(adopted["short"]) == ["one"]
        assert returned((await adopted["late"].ended()).how) is None
        assert (await adopted["timed"].ended()).how == Killed(KilledFor.TIMEOUT)


async def test_runs_are_kept_until_they_are_forgotten(place: Place, code: Code) -> None:
    async with place.daemon() as daemon:
        kept, forgotten = [await daemon.start(code.order("def main(): pass")) for _ in range(2)]
        await kept.ended()
        await forgotten.ended()
        await forgotten.forget()
        assert await daemon.adopt() == [kept], "the same, not another"
    async with place.daemon() as daemon:
        assert [run.name for run in await daemon.adopt()] == [kept.name]


async def test_a_kill_is_one_also_for_the_next_daemon(place: Place, code: Code) -> None:
    ends: list[End] = []
    for _ in range(2):
        async with place.daemon() as daemon:
            run = next(iter(await daemon.adopt()), None) or await daemon.start(code.order(FOREVER))
            ends.append(await run.kill())
    assert ends[0].how == Killed(KilledFor.TOLD)
    assert ends[1] == ends[0]
