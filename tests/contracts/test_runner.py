"""What every runner does: the sentences of `leadline.ports.runner`."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from leadline.ports.runner import (
    LINE_BYTES_MAX,
    RESULT_BYTES_MAX,
    TRACEBACK_CHARACTERS_MAX,
    CannotRun,
    End,
    Exited,
    How,
    Killed,
    KilledFor,
    Raised,
    Returned,
    RunExists,
    Runner,
)
from tests.contracts.runners import Code, LocalPlace, Place, first_line, lines_of, texts_of

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


# -- limits -----------------------------------------------------------------------------------------------------------


async def test_time_is_up_when_it_is(runner: Runner, code: Code) -> None:
    end = await (await runner.start(code.order(FOREVER, seconds=0.5))).ended()
    assert end.how == Killed(KilledFor.TIMEOUT)
    assert 0.5 <= end.seconds < 1.5
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
    run = await runner.start(code.order(FOREVER))
    await first_line(run)
    began = time.monotonic()
    end = await run.kill()
    assert time.monotonic() - began < 1
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
