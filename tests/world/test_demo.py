"""What an onlooker of the demo is shown; the demo itself runs in tests/acceptance."""

import io
import subprocess
import tomllib
from pathlib import Path
from typing import Any

from tests.world import demo

ROOT = Path(__file__).parents[2]


def view(done: int, total: int = 40, **rest: Any) -> dict[str, Any]:
    counts = {"total": total, "done": done, "failed": 0, "skipped": 0, "unknown": 0, "pending": total - done}
    return {"state": "running", "shown": "running", "counts": counts, **rest}


def test_a_pipe_gets_a_line_when_the_state_changes_and_not_for_every_lead() -> None:
    out = io.StringIO()
    lines = demo.Lines({7: "beta  slow"}, out)
    lines.show(7, view(0))
    for done in range(1, 15):
        lines.show(7, view(done))
    lines.show(7, view(15, shown="waiting", waits=[{"reason": "limit"}]))
    lines.show(7, view(15, shown="waiting", waits=[{"reason": "limit"}]))
    lines.show(7, view(36, attempt=2))
    lines.show(7, view(40, attempt=2, state="completed", shown="completed"))
    assert out.getvalue().splitlines() == [
        "beta  slow: 0 of 40, running",
        "beta  slow: 15 of 40, waiting for limit",
        "beta  slow: 36 of 40, running attempt 2",
        "beta  slow: 40 of 40, completed attempt 2",
    ]


def test_a_stalled_job_is_shown_as_such() -> None:
    assert demo._note(view(36, stalled=True)) == "running (stalled)"


def test_the_configuration_names_the_providers_of_this_run_with_their_limits() -> None:
    listening = {"ai": "http://127.0.0.1:1", "slow": "http://127.0.0.1:2", "api_key": "k"}
    configured = tomllib.loads(demo._configuration(listening))
    assert configured["queue"]["stall_after_seconds"] == 10
    ai, slow = configured["providers"]["openai"], configured["providers"]["slow"]
    assert (ai["base_url"], ai["limits"][0]["amount"]) == ("http://127.0.0.1:1", 3_000)
    assert [(limit["amount"], limit["unit"]) for limit in slow["limits"]] == [(15, "lead"), (60, "request")]


def test_a_folder_without_a_run_gets_no_verdict_from_the_script(tmp_path: Path) -> None:
    verdict = subprocess.run(
        [ROOT / "scripts" / "demo", "--verify", tmp_path], capture_output=True, text=True, check=False
    )
    assert (verdict.returncode, verdict.stdout.partition(":")[0]) == (2, "No verdict")
