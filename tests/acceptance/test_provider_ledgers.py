"""What a provider's limits know of earlier calls, in a real database, over ends and crashes of the daemon.

Time cannot be waited for here, so the calls are moved into the past where they are stored. What the daemon then says
of its limits is compared with what the provider's log and the calendar say.
"""

from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import msgspec
import pytest

from leadline_protocol import messages as wire
from leadline_protocol.errors import JobReason
from tests.acceptance.stage import Stage, World, openai, people, provider, stage
from tests.world import behaviours
from tests.world.behaviours import SECOND

DAY_SECONDS: Final = 86_400
ZONE: Final = "Asia/Kathmandu"
CALLED: Final = 10
MOVED: Final = 4


def enrich(daemon: Stage, module: str, leads: int) -> wire.JobView:
    daemon.table(module, "people", people(leads))
    submission = wire.Enrich(teamspace=module, table="people", module=module, into={"company": "text"})
    return daemon.ended(daemon.submit(submission).job)


def charged(daemon: Stage, name: str) -> list[float]:
    (view,) = daemon.ask(wire.Providers(name=name)).providers
    return [limit.charged for limit in view.limits]


def set_back(daemon: Stage, name: str, seconds: int) -> None:
    """Let the first calls of a provider have been made that much earlier."""
    daemon.query(
        "UPDATE call SET sent = sent - $1, began = began - $1"
        " WHERE id IN (SELECT id FROM call WHERE account = $2 ORDER BY id LIMIT $3)",
        seconds * SECOND,
        name,
        MOVED,
    )


def end(daemon: Stage, how: str) -> None:
    if how == "killed":
        daemon.kill()
        daemon.start()
    else:
        daemon.restart()


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_day_ends_at_its_reset_in_its_zone_whenever_the_daemon_ends(world: World, how: str) -> None:
    reset = datetime.now(ZoneInfo(ZONE)) - timedelta(hours=1)
    limit = f'{{ shape = "daily", amount = 100, resets_at = "{reset:%H:%M}", zone = "{ZONE}" }}'
    served = world.serve(behaviours.Enrichment(), name="daily")
    with stage(provider("daily", served, settings=[f"limits = [{limit}]"])) as daemon:
        assert enrich(daemon, "daily", CALLED).counts.done == CALLED
        assert charged(daemon, "daily") == [CALLED]
        set_back(daemon, "daily", 2 * 3_600)
        for _ in range(2):
            end(daemon, how)
            assert charged(daemon, "daily") == [CALLED - MOVED], "the others were made on the day before"


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_what_is_left_of_the_last_24_hours_is_left_after_a_restart_and_no_more(world: World, how: str) -> None:
    limit = f'{{ shape = "window", amount = {CALLED + 2}, per_seconds = {DAY_SECONDS} }}'
    served = world.serve(behaviours.Enrichment(), name="rolling")
    with stage(provider("rolling", served, settings=[f"limits = [{limit}]"])) as daemon:
        assert enrich(daemon, "rolling", CALLED).counts.done == CALLED
        first = min(call.arrived_wall_us for call in served.calls)
        set_back(daemon, "rolling", 20 * 3_600)
        end(daemon, how)
        assert charged(daemon, "rolling") == [CALLED]
        daemon.table("more", "people", people(CALLED, domain="more.example"))
        submission = wire.Enrich(teamspace="more", table="people", module="rolling", into={"company": "text"})
        job = daemon.submit(submission).job
        view = daemon.until(job, lambda view: bool(view.waits) and view.counts.done == 2)
        (wait,) = [wait for wait in view.waits if wait.reason is JobReason.LIMIT]
        assert wait.until is not None
        frees = datetime.fromtimestamp(first / SECOND, UTC) + timedelta(hours=4)
        assert timedelta(0) <= wait.until - frees <= timedelta(seconds=5), (
            "not a moment before the first of them is forgotten"
        )
        assert len(served.calls) == CALLED + 2


def test_every_answered_call_is_in_the_books_with_its_time_and_with_what_it_came_to(world: World) -> None:
    model = world.serve(behaviours.ChatCompletions(), name="model")
    company = world.serve(behaviours.Enrichment(), name="company")
    with stage(openai(model) + provider("company", company)) as daemon:
        enrich(daemon, "company", 3)
        daemon.table("ai", "people", people(3))
        params = {"prompt": "Score {{email}}"}
        submission = wire.Enrich(
            teamspace="ai", table="people", module="ai_prompt", into={"score": "number"}, params=params
        )
        assert daemon.ended(daemon.submit(submission).job).counts.done == 3
        rows = daemon.query("SELECT account, state, began >= sent, cost FROM call WHERE account <> 'database'")
        assert [(state, timed) for _, state, timed, _ in rows] == [("done", True)] * 6
        tokens = {msgspec.json.decode(cost)["token"] for account, _, _, cost in rows if account == "openai"}
        assert max(tokens) < 100, "the estimate had room for an answer of 500 tokens"
        daemon.kill()
        daemon.start()
        assert daemon.query("SELECT count(*) FROM call WHERE state <> 'done'") == [(0,)]
