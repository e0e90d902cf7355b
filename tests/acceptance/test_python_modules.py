"""Python modules that hang, crash, eat memory and shout: whatever they do, only what has to fail fails."""

import os
import re
import select
import signal
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, LeadReason, Refused
from tests.acceptance import python_package
from tests.acceptance.stage import Stage, people, stage

LEADS: Final = 10
STALL_SECONDS: Final = 5
BEAT_SECONDS_MAX: Final = 12
STUCK: Final = str(people(LEADS)[4]["email"])
HARMLESS: Final = [str(each["email"]) for each in people(LEADS) if each["email"] != STUCK]

MODULES: Final = re.findall(r"^(\w+) = (?:module\(|Module\()", python_package.TRICKY, re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("modules")
    python_package.install(folder, "tricky", python_package.TRICKY, *MODULES)
    python_package.install(folder, "broken", python_package.BROKEN, "broken")
    python_package.install(folder, "no_module", python_package.NO_MODULE, "thing")
    return folder


@pytest.fixture(scope="module")
def book(folder: Path) -> Path:
    return folder / "book.txt"


@pytest.fixture(scope="module")
def configuration(folder: Path, book: Path) -> str:
    lines = [
        "[queue]",
        "warn_after_seconds = 1",
        f"stall_after_seconds = {STALL_SECONDS}",
        f"[files]\nmodule_folders = [{str(folder)!r}]",
    ]
    for name in MODULES:
        lines += [f"[modules.{name}]", f"settings = {{ book = {str(book)!r} }}"]
    lines += ["[modules.hungry]", "memory_bytes_max = 500_000_000", f"settings = {{ book = {str(book)!r} }}"]
    text = "\n".join(lines)
    return text.replace(f"[modules.hungry]\nsettings = {{ book = {str(book)!r} }}\n", "", 1)


@pytest.fixture(scope="module")
def daemon(configuration: str) -> Iterator[Stage]:
    with stage(configuration) as running:
        yield running


def enrich(teamspace: str, module: str) -> wire.Enrich:
    return wire.Enrich(teamspace=teamspace, table="people", module=module, into={"company": "text"})


def run(daemon: Stage, module: str, *, leads: int = LEADS) -> wire.JobView:
    daemon.table(module, "people", people(leads))
    return daemon.ended(daemon.submit(enrich(module, module)).job)


def calls(book: Path, module: str) -> Counter[str]:
    """How often the module was called about each lead, as it wrote down itself."""
    return Counter(words[1] for words in map(str.split, book.read_text().splitlines()) if words[0] == module)


def pids(book: Path, module: str) -> list[int]:
    """The processes in which the module was called, call by call."""
    if not book.exists():
        return []
    return [int(words[2]) for words in map(str.split, book.read_text().splitlines()) if words[0] == module]


def written(daemon: Stage, module: str) -> set[str]:
    """Who has a company."""
    return {row["email"] for row in daemon.rows(module, "people") if row["company"]}


def is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_a_module_fills_its_columns_in_few_processes_that_are_started_once(daemon: Stage, book: Path) -> None:
    view = run(daemon, "steady", leads=200)
    assert (view.state, view.counts.done) == ("completed", 200)
    assert {row["company"] for row in daemon.rows("steady", "people")} == {"example.com"}
    assert set(calls(book, "steady").values()) == {1}
    assert len(set(pids(book, "steady"))) <= 2


@pytest.mark.parametrize("module", ["crashes", "exits", "hungry", "raises"])
def test_whatever_ends_a_process_fails_the_lead_that_did_it_and_no_other(
    daemon: Stage, book: Path, module: str
) -> None:
    view = run(daemon, module)
    assert (view.state, view.counts.done, view.counts.failed) == ("partial", LEADS - 1, 1), view
    assert daemon.lead_reasons(view.job) == {STUCK: LeadReason.SERVER_ERROR}
    assert written(daemon, module) == set(HARMLESS)
    assert calls(book, module) == {**dict.fromkeys(HARMLESS, 1), STUCK: 3}
    ((detail,),) = daemon.query("SELECT detail FROM lead_result WHERE job = $1 AND state = 'failed'", view.job)
    words = {"crashes": "SIGSEGV", "exits": "exited with 3", "hungry": "MemoryError", "raises": "no such thing"}
    assert words[module] in detail


def test_of_leads_that_a_crash_took_along_only_the_one_to_blame_fails(daemon: Stage, book: Path) -> None:
    leads = 300
    view = run(daemon, "together", leads=leads)
    assert (view.state, view.counts.done, view.counts.failed) == ("partial", leads - 1, 1), view
    assert daemon.lead_reasons(view.job) == {STUCK: LeadReason.SERVER_ERROR}
    asked = calls(book, "together")
    assert asked.pop(STUCK) == 3
    assert max(asked.values()) == 2, "it did take others along, and none of them twice"
    assert sum(asked.values()) - len(asked) <= 7, "from then on it had a process for itself"


def test_a_rejected_lead_is_asked_about_once_and_a_throttled_one_loses_nothing(daemon: Stage, book: Path) -> None:
    rejected = run(daemon, "rejects")
    assert daemon.lead_reasons(rejected.job) == {STUCK: LeadReason.REFUSED_BY_PROVIDER}
    assert calls(book, "rejects")[STUCK] == 1
    throttled = run(daemon, "throttles")
    assert (throttled.state, throttled.counts.done) == ("completed", LEADS)
    assert calls(book, "throttles")[STUCK] == 2


def test_a_lead_that_takes_too_long_has_its_process_killed(daemon: Stage, book: Path) -> None:
    view = run(daemon, "takes_long")
    assert (view.state, view.attempt) == ("partial", 1)
    assert daemon.lead_reasons(view.job) == {STUCK: LeadReason.SERVER_ERROR}
    assert calls(book, "takes_long") == {**dict.fromkeys(HARMLESS, 1), STUCK: 3}


@pytest.mark.parametrize("module", ["hangs", "spins"])
def test_a_function_that_hangs_or_spins_is_killed_and_the_job_goes_on(daemon: Stage, book: Path, module: str) -> None:
    daemon.table(module, "people", people(LEADS))
    job = daemon.submit(enrich(module, module)).job
    view = daemon.ended(job)
    assert (view.state, view.attempt, view.counts.done) == ("completed", 2, LEADS)
    assert calls(book, module) == {**dict.fromkeys(HARMLESS, 1), STUCK: 2}
    stuck = [int(words[2]) for words in map(str.split, book.read_text().splitlines()) if words[:2] == [module, STUCK]]
    assert not is_alive(stuck[0])
    history = daemon.history(job)
    events = [entry.event for entry in history]
    assert "standing_still" in events[: events.index("stalled")]
    told = [event for event in events if event != "standing_still"]  # a busy machine is warned of besides
    assert told == ["submitted", "started", "stalled", "stopped", "queued", "started", "completed"]
    first = {entry.event: entry.at for entry in reversed(history)}
    assert first["stalled"] - first["started"] >= timedelta(seconds=STALL_SECONDS)


def test_a_lead_that_hangs_twice_is_failed_and_the_job_goes_on(daemon: Stage, book: Path) -> None:
    view = run(daemon, "hangs_always")
    assert (view.state, view.attempt) == ("partial", 3)
    assert daemon.lead_reasons(view.job) == {STUCK: LeadReason.STALLED}
    assert calls(book, "hangs_always") == {**dict.fromkeys(HARMLESS, 1), STUCK: 2}


def test_what_a_module_prints_is_logged_up_to_a_bound_and_holds_nobody_up(daemon: Stage) -> None:
    before = daemon.log.stat().st_size
    view = run(daemon, "shouts")
    assert (view.state, view.counts.done) == ("completed", LEADS)
    log = daemon.log.read_text(encoding="utf-8")[before:]
    assert "module_said" in log
    assert "secretless secretless" in log
    assert len(log) < 200_000


def test_a_module_that_cannot_be_used_is_refused_like_one_that_is_not_there(daemon: Stage) -> None:
    daemon.table("refused", "people", people(1))
    for module in ("broken", "thing", "nowhere"):
        with pytest.raises(Refused) as refused:
            daemon.submit(enrich("refused", module))
        assert refused.value.code is ErrorCode.UNKNOWN_MODULE
        assert "steady" in refused.value.message, "it says which there are"
    with pytest.raises(Refused) as unknown:
        daemon.submit(wire.Enrich(teamspace="refused", table="people", module="steady", into={"size": "number"}))
    assert "company" in unknown.value.message


def test_check_and_doctor_name_every_module_that_cannot_be_used(daemon: Stage, tmp_path: Path) -> None:
    checked = daemon.leadline("config", "check", str(daemon.configuration))
    assert checked.returncode == 2
    said = " ".join((checked.stdout + checked.stderr).split())
    assert "modules.broken" in said
    assert "this package is half installed" in said
    assert "modules.thing" in said
    examined = daemon.leadline("doctor", "--config", str(daemon.configuration))
    assert examined.returncode == 1
    assert "half installed" in " ".join(examined.stdout.split())
    absent = tmp_path / "absent.toml"
    absent.write_text("[modules.nowhere]\nprocesses = 1\n", encoding="utf-8")
    assert "no package that is installed provides it" in daemon.leadline("config", "check", str(absent)).stderr


def test_no_worker_outlives_the_daemon_however_that_ends_and_the_job_goes_on(configuration: str, book: Path) -> None:
    with stage(configuration) as daemon:
        daemon.table("slow", "people", people(60))
        before = len(pids(book, "slow"))
        job = daemon.submit(enrich("slow", "slow")).job
        daemon.until(job, lambda view: view.counts.done >= 3)
        workers = set(pids(book, "slow")[before:])
        assert any(map(is_alive, workers))
        (one, *_) = workers
        os.kill(one, signal.SIGSTOP)
        daemon.kill()
        deadline = time.monotonic() + 30
        while any(map(is_alive, workers)):
            assert time.monotonic() < deadline, "the kernel kills them with their parent, also one that is stopped"
            time.sleep(0.01)
        daemon.start()
        view = daemon.ended(job)
        assert (view.state, view.counts.done, view.counts.total) == ("completed", 60, 60)
        assert len(pids(book, "slow")) - before <= 60 + len(workers), "only what was in hand is asked about again"
        workers = set(pids(book, "slow")[before:])
        daemon.stop()
        assert not any(map(is_alive, workers))


BREEDS: Final = """
import os, subprocess, time
from pathlib import Path
from leadline_protocol.modules import Module

def run(lead, context):
    pipe = Path(context.settings["pipe"])
    before = pipe.with_suffix(".before")
    if before.exists():
        return {"company": "Quiet"}
    before.touch()
    held = os.open(pipe, os.O_WRONLY)
    command = "sleep 3600 & (sleep 3600 & sleep 3600) &"  # it ends before they do: they have no parent any more
    for _ in range(3):
        subprocess.run(["sh", "-c", command], check=True, pass_fds=[held], start_new_session=True)
    os.write(held, str(os.getpid()).encode())
    time.sleep(3600)

breeds = Module(
    run=run, version="1.0", inputs=("email",), outputs={"company": "text"}, settings={"pipe": ""}, timeout_seconds=3600
)
"""


def said(pipe: int, *, seconds: float = 30) -> bytes:
    """What comes through a pipe next; nothing when nobody holds its other end any more."""
    ready, _, _ = select.select([pipe], [], [], seconds)
    assert ready, "nothing happened"
    return os.read(pipe, 100)


@pytest.mark.parametrize("killed", ["daemon", "worker", "job", "daemon and a stopped worker"])
def test_what_a_module_has_started_in_sessions_of_its_own_is_gone_with_its_worker(tmp_path: Path, killed: str) -> None:
    pipe = tmp_path / "held"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    python_package.install(tmp_path, "breeding", BREEDS, "breeds")
    parts = [f"[files]\nmodule_folders = [{str(tmp_path)!r}]", f"[modules.breeds]\nsettings.pipe = {str(pipe)!r}"]
    with stage("\n".join(parts)) as daemon:
        daemon.table("acme", "people", people(1))
        job = daemon.submit(enrich("acme", "breeds")).job
        worker = int(said(reading))
        match killed:
            case "worker":
                os.kill(worker, signal.SIGKILL)
            case "job":
                daemon.ask(wire.Cancel(job=job, force=True))
            case _:
                if "stopped" in killed:
                    os.kill(worker, signal.SIGSTOP)
                daemon.kill()
        assert said(reading) == b"", "all of them have let go of the pipe"
        if killed == "worker":
            assert daemon.ended(job).counts.done == 1
        elif killed == "job":
            assert daemon.ended(job).state == "cancelled"
    os.close(reading)


def test_a_process_that_is_stopped_beats_no_more_and_its_job_resumes(folder: Path, book: Path) -> None:
    queue = f"[queue]\nbeat_seconds_max = {BEAT_SECONDS_MAX}\n"
    files = f"[files]\nmodule_folders = [{str(folder)!r}]\n"
    with stage(queue + files + f"[modules.slow]\nsettings = {{ book = {str(book)!r} }}\n") as daemon:
        daemon.table("slow", "people", people(20))
        before = len(pids(book, "slow"))
        job = daemon.submit(enrich("slow", "slow")).job
        daemon.until(job, lambda view: view.counts.done >= 2)
        workers = set(pids(book, "slow")[before:])
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        stopped = time.monotonic()
        daemon.until(job, lambda view: view.attempt == 2)
        assert time.monotonic() - stopped <= BEAT_SECONDS_MAX + 11 + 10
        view = daemon.ended(job)
        assert (view.state, view.counts.done, view.attempt) == ("completed", 20, 2)
        assert "worker_lost" in [entry.event for entry in daemon.history(job)]
        assert not any(map(is_alive, workers))
        assert len(pids(book, "slow")) - before <= 20 + len(workers), "only what they had in hand is asked about again"


def test_a_package_that_was_replaced_is_taken_at_a_reload_and_its_old_processes_end(tmp_path: Path) -> None:
    source = """
import os
from leadline_protocol.modules import Module

def run(lead, context):
    return {"company": VERSION, "pid": str(os.getpid())}

module = Module(run=run, version=VERSION, inputs=("email",), outputs={"company": "text", "pid": "text"})
"""
    python_package.install(tmp_path, "versioned", 'VERSION = "1"\n' + source, "module")
    with stage(f"[files]\nmodule_folders = [{str(tmp_path)!r}]\n") as daemon:
        daemon.table("acme", "people", people(3))
        submission = wire.Enrich(
            teamspace="acme", table="people", module="module", into={"company": "text", "pid": "text"}
        )
        assert daemon.ended(daemon.submit(submission).job).state == "completed"
        before = daemon.rows("acme", "people")
        (tmp_path / "versioned.py").write_text('VERSION = "2.0"\n' + source, encoding="utf-8")
        daemon.ask(wire.Reload())
        assert daemon.ended(daemon.submit(submission).job).state == "completed"
        after = daemon.rows("acme", "people")
        assert ({row["company"] for row in before}, {row["company"] for row in after}) == ({"1"}, {"2.0"})
        deadline = time.monotonic() + 60
        while any(is_alive(int(row["pid"])) for row in before):
            assert time.monotonic() < deadline
            time.sleep(0.01)
