"""Tenants' code calls providers by way of the daemon: under everybody's limits, with the daemon's keys, and once.

The oracle is the provider's own log: when calls arrived, and with which key.
"""

import time
from collections import Counter
from collections.abc import Iterator

import pytest

from leadline_protocol import messages as wire
from leadline_protocol.ids import JobId
from tests.acceptance.batch_jobs import ENABLED, invoke, lines_of, published, run_of, until_printed
from tests.acceptance.stage import Stage, World, people, provider, stage
from tests.acceptance.test_provider_keys import NotesKeys
from tests.world import behaviours
from tests.world.behaviours import SECOND, Behaviour, Fault
from tests.world.servers import Served
from tests.world.windows import worst_window

ROOMY = f"""{ENABLED}
executions_per_day = 1000
invocations_per_day = 1000
jobs_max = 100
reaches = []
"""

SHARED = "canary-shared-key"
OWN = "canary-own-key"
OWN_KEY = ("[providers.company.own.initech]", f'secret = "{OWN}"')
WINDOW = 'limits = [{ shape = "window", amount = 5, per_seconds = 3 }]'

CALLS = """
    from concurrent.futures import ThreadPoolExecutor
    from helper import LS
    def main(event):
        def ask(n):
            answer = LS.provider("company").call("POST", "/company", body={"email": f"p{n}@%s.example"})
            return answer.status, "%s" in answer.text + str(answer.headers)
        with ThreadPoolExecutor(4) as threads:
            return list(threads.map(ask, range(event["body"])))
    """


@pytest.fixture
def served(world: World) -> Served:
    return world.serve(NotesKeys(behaviours.Enrichment()), name="company")


@pytest.fixture
def daemon(served: Served) -> Iterator[Stage]:
    with stage(ROOMY + provider("company", served, settings=[f'secret = "{SHARED}"', WINDOW, *OWN_KEY])) as running:
        yield running


def ask_times(daemon: Stage, teamspace: str, times: int) -> JobId:
    """A run that calls so often."""
    published(daemon, "calls", CALLS % (teamspace, SHARED), teamspace)
    return invoke(daemon, "calls", teamspace, body=times)


def test_code_and_tables_share_a_providers_limit_over_teamspaces_and_restarts(
    world: World, served: Served, daemon: Stage
) -> None:
    daemon.table("umbrella", "people", people(8, domain="umbrella.example"))
    runs = [ask_times(daemon, teamspace, 8) for teamspace in ("acme", "globex")]
    enrich = wire.Enrich(teamspace="umbrella", table="people", module="company", into={"company": "text"})
    table = daemon.submit(enrich).job
    world.until(served, lambda calls: len(calls) >= 7)
    daemon.restart()
    assert [daemon.ended(job).state for job in (*runs, table)] == ["completed"] * 3
    assert [run_of(daemon, job).result for job in runs] == [[[200, False]] * 8] * 2
    assert len(served.calls) == 24
    assert worst_window([call.arrived_us for call in served.calls], 3) == 5
    assert Counter(call.notes["key"] for call in served.calls) == {SHARED: 24}


def test_a_teamspace_with_a_key_of_its_own_calls_with_that_and_under_limits_of_its_own(served: Served) -> None:
    limit = 'limits = [{ shape = "window", amount = 5, per_seconds = 3600 }]'
    settings = [f'secret = "{SHARED}"', limit, *OWN_KEY]
    with stage(ROOMY + provider("company", served, settings=settings)) as daemon:
        runs = [ask_times(daemon, teamspace, 5) for teamspace in ("acme", "initech")]
        assert [daemon.ended(job).state for job in runs] == ["completed"] * 2, "within an hour of one another"
    keys = Counter((str(call.lead).partition("@")[2], call.notes["key"]) for call in served.calls)
    assert keys == {("acme.example", SHARED): 5, ("initech.example", OWN): 5}


def test_who_waits_for_a_provider_is_not_silent(served: Served, daemon: Stage) -> None:
    program = """
        from helper import LS
        def main():
            for n in range(6):
                LS.provider("company").call("POST", "/company", body={"email": f"p{n}@acme.example"})
        """
    published(daemon, "waits", program, stall_after_seconds=1)
    assert daemon.ended(invoke(daemon, "waits")).state == "completed"
    first, last = served.calls[0], served.calls[-1]
    assert last.arrived_us - first.arrived_us > 2 * SECOND, "the sixth has waited for longer than it may be silent"


def test_the_key_is_nowhere_to_be_seen(daemon: Stage) -> None:
    job = ask_times(daemon, "acme", 1)
    assert daemon.ended(job).state == "completed"
    runs = daemon.state_dir / "runs"
    held = [path for path in runs.rglob("*") if path.is_file() and SHARED.encode() in path.read_bytes()]
    assert held == []
    assert SHARED not in daemon.log.read_text(encoding="utf-8")


def test_in_a_pause_code_goes_on_and_calls_nobody(world: World) -> None:
    served = world.serve(behaviours.Enrichment(), name="company")
    with stage(ROOMY + provider("company", served, settings=[f'secret = "{SHARED}"'])) as daemon:
        published(
            daemon,
            "loop",
            """
            import time
            from helper import LS, ProviderFailed
            def main():
                while True:
                    try:
                        answer = LS.provider("company").call("POST", "/company", body={"email": "a@b.example"})
                        said = str(answer.status)
                    except ProviderFailed as error:
                        said = str(error)
                    print(said, flush=True)
                    time.sleep(0.05)
            """,
            timeout_seconds=300,
        )
        job = invoke(daemon, "loop")
        until_printed(daemon, job, "200")
        pauses = [
            wire.Pause(scope="provider", name="company"),
            wire.Pause(scope="family", name="batch"),
            wire.Pause(scope="teamspace", name="acme"),
            wire.Pause(scope="queue"),
            wire.Pause(scope="job", name=job),
        ]
        for pause in pauses:
            daemon.ask(pause)
            begun = daemon.calls_begun(job)
            until_more(daemon, job, "company is paused; try again later", 10)
            assert len(served.calls) <= begun, pause
            assert daemon.view(job).state == "running"
            daemon.ask(wire.Resume(scope=pause.scope, name=pause.name))
            until_more(daemon, job, "200", 2)
        daemon.ask(wire.Cancel(job=job))


def until_more(daemon: Stage, job: JobId, text: str, times: int) -> None:
    """Wait until a run has printed a line so many times more."""
    before = lines_of(daemon, job).count(text)
    deadline = time.monotonic() + 30
    while lines_of(daemon, job).count(text) < before + times:
        assert time.monotonic() < deadline, lines_of(daemon, job)[-3:]
        time.sleep(0.05)


ONCE = """
    from helper import LS, ProviderFailed
    def main():
        try:
            return LS.provider("company").call("POST", "/company", body={"email": "a@b.example"}).status
        except ProviderFailed as error:
            return str(error)
    """


@pytest.mark.parametrize("how", ["killed", "restarted"])
def test_a_call_that_is_out_when_the_daemon_ends_is_made_once(world: World, how: str) -> None:
    answers: dict[str, Behaviour] = {
        "killed": behaviours.Faulty(behaviours.Enrichment(), [Fault(behaviours.hang())]),
        "restarted": behaviours.Delayed(behaviours.Enrichment(), median_us=2 * SECOND, sigma=0),
    }
    served = world.serve(answers[how], name="company")
    with stage(ROOMY + provider("company", served)) as daemon:
        published(daemon, "once", ONCE)
        job = invoke(daemon, "once")
        world.until(served, lambda calls: len(calls) == 1)
        if how == "killed":
            daemon.kill()
            daemon.start()
        else:
            daemon.restart()
        assert daemon.ended(job).state == "completed"
        result = run_of(daemon, job).result
        if how == "killed":
            assert "not known whether this was carried out" in str(result)
        else:
            assert result == 200, "whoever stops the daemon waits for what is out"
        assert len(served.calls) == 1


def test_a_call_that_waits_when_the_daemon_is_killed_is_made_afterwards(world: World) -> None:
    served = world.serve(behaviours.Enrichment(), name="company")
    limit = 'limits = [{ shape = "window", amount = 1, per_seconds = 10 }]'
    with stage(ROOMY + provider("company", served, settings=[limit])) as daemon:
        published(
            daemon,
            "twice",
            """
            from helper import LS
            def main():
                ask = lambda: LS.provider("company").call("POST", "/company", body={"email": "a@b.example"}).status
                first = ask()
                print("asks again", flush=True)
                return [first, ask()]
            """,
        )
        job = invoke(daemon, "twice")
        until_printed(daemon, job, "asks again")
        daemon.until(job, lambda view: bool(view.waits))
        daemon.kill()
        daemon.start()
        assert daemon.ended(job).state == "completed"
        assert run_of(daemon, job).result == [200, 200]
        assert len(served.calls) == 2
        assert worst_window([call.arrived_us for call in served.calls], 10) == 1
