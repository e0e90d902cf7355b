"""The verifier is shown a run as it should be, made on virtual time, and then the same run with one thing wrong at a
time.

A check that cannot fail proves nothing: every one of them has its counter-example here.
"""

import csv
import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.world import demo_plan, dirty_csv, verify
from tests.world.behaviours import SECOND, Behaviour, Now, Request
from tests.world.demo_plan import DEMO
from tests.world.log import Log
from tests.world.providers import ai, slow

LIST = dirty_csv.generate()
ROOT = Path(__file__).parents[2]


def call(provider: Behaviour, log: Log, request: Request, instant: int, held_us: int = 1_000) -> bytes:
    """One call of a customer who hangs up after `held_us` where no answer comes."""
    now = Now(instant, instant)
    plan = provider.respond(request, now)
    entry = log.begin(request, now, plan)
    log.end(entry, "client_left" if plan.stop else "answered", instant + held_us)
    return plan.body


def ask_ai(provider: Behaviour, log: Log, prompt: str, instant: int) -> str:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": prompt}]}).encode()
    headers = {"authorization": "Bearer demo"}
    answer = call(provider, log, Request("POST", "/v1/chat/completions", headers=headers, body=body), instant)
    return str(json.loads(answer)["choices"][0]["message"]["content"])


def play_the_chain(directory: Path) -> None:
    """Score every lead and personalise the best, 40 calls a second, and export what came of it."""
    rows: list[dict[str, str]] = [dict(lead.cells) for lead in LIST.stored]
    provider, clock = ai("demo"), 0
    with closing(Log("ai", directory / "logs" / "ai.jsonl")) as log:
        for row in rows:
            row["score"] = ask_ai(provider, log, f"Score 1-10: {row['email']}", clock := clock + SECOND // 40)
        for row in rows:
            best = int(row["score"]) >= DEMO.score_min
            clock += SECOND // 40 * best
            row["line"] = ask_ai(provider, log, f"Personalise: {row['email']}", clock) if best else ""
    for row in rows:
        for column, cell in row.items():
            row[column] = "'" + cell if cell.startswith(("=", "+", "-", "@")) else cell
    write_csv(directory / "enriched.csv", rows)
    write_csv(
        directory / "refused.csv", [{"refused_row": str(row.row), "refused_reason": row.reason} for row in LIST.refused]
    )


def play_the_slow_job(directory: Path) -> None:
    """Fifteen leads a minute, one poll each; the stuck one is given up after twelve seconds and called again."""
    provider = slow(hang_first=DEMO.stuck_lead)
    leads = [demo_plan.slow_lead(number) for number in range(1, DEMO.slow_leads + 1)]
    times = [number // 15 * 60 * SECOND + number * SECOND // 100 for number in range(DEMO.slow_leads)]
    twice = times[leads.index(DEMO.stuck_lead)] + 12 * SECOND
    with closing(Log("slow", directory / "logs" / "slow.jsonl")) as log:
        for lead, instant in sorted(zip([*leads, DEMO.stuck_lead], [*times, twice], strict=True), key=lambda at: at[1]):
            start = Request("POST", "/start", body=json.dumps({"email": lead}).encode())
            answer = call(provider, log, start, instant, held_us=12 * SECOND if lead == DEMO.stuck_lead else 1_000)
            if answer:
                poll = Request("GET", "/result", query={"task_hash": json.loads(answer)["task_hash"]})
                call(provider, log, poll, instant + 3 * SECOND)
    write_csv(directory / "slow.csv", [{"email": lead, "company": "C"} for lead in leads])
    events = [{"event": "started"}, {"event": "killed", "detail": {"reason": "stalled"}}, {"event": "started"}]
    (directory / "history.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))


def write_csv(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def good_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("run")
    (directory / "logs").mkdir()
    (directory / "prospects.csv").write_bytes(LIST.data)
    play_the_chain(directory)
    play_the_slow_job(directory)
    return directory


def test_a_run_as_it_should_be_agrees_in_every_check(good_run: Path) -> None:
    checks = verify.verify(verify.read(good_run))
    assert [check for check in checks if not check.holds] == []
    assert len(checks) == 18


def test_the_verifier_needs_nothing_but_the_standard_library(good_run: Path) -> None:
    verdict = subprocess.run(
        [sys.executable, "-S", "-m", "tests.world.verify", str(good_run)],
        cwd=ROOT, env={}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (verdict.returncode, verdict.stderr) == (0, "")
    assert verdict.stdout.endswith("18 checks, all agree\n")


def test_a_run_that_left_nothing_behind_gets_no_verdict(tmp_path: Path) -> None:
    said: list[str] = []
    assert verify.main([str(tmp_path)], said.append) == 2
    assert "prospects.csv" in said[0]
    assert verify.main([], said.append) == 2


Rows = list[dict[str, str]]
Calls = list[dict[str, object]]


def first(rows: Rows, **wanted: str) -> dict[str, str]:
    return next(row for row in rows if all(row[key] == value for key, value in wanted.items()))


def first_call(calls: Calls, task: str) -> dict[str, object]:
    return next(call for call in calls if task in str(call["notes"]))


def lose_a_lead(rows: Rows) -> None:
    rows.pop(100)


def store_a_refused_lead(rows: Rows) -> None:
    rows.append(dict(rows[0], email="lead17@north17.example"))


def store_a_lead_twice(rows: Rows) -> None:
    rows.append(rows[0])


def lose_an_accent(rows: Rows) -> None:
    first(rows, first_name="José")["first_name"] = "Jose"


def run_a_formula(rows: Rows) -> None:
    first(rows, company="'=1+1 Consulting")["company"] = "=1+1 Consulting"


def change_a_score(rows: Rows) -> None:
    rows[0]["score"] = str(11 - int(rows[0]["score"]))


def write_a_line_too_many(rows: Rows) -> None:
    first(rows, line="")["line"] = "Hello"


def swap_two_lines(rows: Rows) -> None:
    one, other = [row for row in rows if row["line"]][:2]
    one["line"], other["line"] = other["line"], one["line"]


def refuse_for_another_reason(rows: Rows) -> None:
    first(rows, refused_reason="duplicate")["refused_reason"] = "invalid_email"


def refuse_one_row_more(rows: Rows) -> None:
    rows.append({"refused_row": "1", "refused_reason": "duplicate"})


def forget_a_slow_lead(rows: Rows) -> None:
    rows[5]["company"] = ""


def never_score_a_lead(calls: Calls) -> None:
    calls.remove(first_call(calls, "score"))


def score_twice(calls: Calls) -> None:
    calls.append(first_call(calls, "score"))


def personalise_a_poor_lead(calls: Calls) -> None:
    poor = next(call for call in calls if isinstance(notes := call["notes"], dict) and notes.get("score") == 6)
    calls.append(dict(first_call(calls, "personalise"), lead=poor["lead"]))


def call_the_ai_too_fast(calls: Calls) -> None:
    for call in calls[:3_001]:
        call["arrived_us"] = 0


def throttle_one_call(calls: Calls) -> None:
    calls.append(dict(calls[0], status=429, outcome="throttled", notes={}))


def start_a_sixteenth_lead(calls: Calls) -> None:
    starts = [call for call in calls if call["method"] == "POST"]
    starts[15]["arrived_us"] = starts[0]["arrived_us"]


def poll_without_pause(calls: Calls) -> None:
    poll = next(call for call in calls if call["method"] == "GET")
    calls.extend(dict(poll) for _ in range(60))


def call_another_lead_twice(calls: Calls) -> None:
    calls.append(dict(calls[0], arrived_us=10**10))


def never_call_the_stuck_lead_again(calls: Calls) -> None:
    calls[:] = [call for call in calls if call["lead"] != DEMO.stuck_lead or call["ended"] == "client_left"]


def kill_too_late(calls: Calls) -> None:
    stuck = next(call for call in calls if call["ended"] == "client_left")
    stuck["ended_us"] = 10**10


def kill_too_early(calls: Calls) -> None:
    stuck = next(call for call in calls if call["ended"] == "client_left")
    stuck["ended_us"] = stuck["arrived_us"]


def forget_the_kill(entries: Calls) -> None:
    del entries[1]


def forget_the_second_attempt(entries: Calls) -> None:
    del entries[2]


COUNTER_EXAMPLES: list[tuple[str, Callable[[Any], None], str]] = [
    ("enriched", lose_a_lead, "Exactly the expected leads"),
    ("enriched", store_a_refused_lead, "Exactly the expected leads"),
    ("enriched", store_a_lead_twice, "Exactly the expected leads"),
    ("enriched", lose_an_accent, "Every cell"),
    ("enriched", run_a_formula, "Every cell"),
    ("enriched", change_a_score, "The exported scores"),
    ("enriched", write_a_line_too_many, "The exported lines"),
    ("enriched", swap_two_lines, "The exported lines"),
    ("refused", refuse_for_another_reason, "Exactly the expected rows"),
    ("refused", refuse_one_row_more, "Exactly the expected rows"),
    ("slow", forget_a_slow_lead, "... and every one of them"),
    ("ai_calls", never_score_a_lead, "Every stored lead was scored"),
    ("ai_calls", score_twice, "Nothing was asked"),
    ("ai_calls", throttle_one_call, "Nothing was asked"),
    ("ai_calls", personalise_a_poor_lead, "Personalised are the leads"),
    ("ai_calls", call_the_ai_too_fast, "The AI never got more"),
    ("slow_calls", start_a_sixteenth_lead, "The slow provider never got more"),
    ("slow_calls", poll_without_pause, "... nor more requests"),
    ("slow_calls", call_another_lead_twice, "Only the lead that hung"),
    ("slow_calls", never_call_the_stuck_lead_again, "Only the lead that hung"),
    ("slow_calls", never_call_the_stuck_lead_again, "It has delivered"),
    ("slow_calls", never_call_the_stuck_lead_again, "Its second call"),
    ("slow_calls", kill_too_late, "Its first call"),
    ("slow_calls", kill_too_early, "Its first call"),
    ("history", forget_the_kill, "The daemon's own history"),
    ("history", forget_the_second_attempt, "The daemon's own history"),
]


@pytest.mark.parametrize(("evidence", "spoil", "statement"), COUNTER_EXAMPLES)
def test_one_thing_wrong_is_found(good_run: Path, evidence: str, spoil: Callable[[Any], None], statement: str) -> None:
    run = verify.read(good_run)
    spoil(getattr(run, evidence))
    wrong = [check.statement for check in verify.verify(run) if not check.holds]
    assert any(said.startswith(statement) for said in wrong)


def test_another_list_is_noticed(good_run: Path) -> None:
    run = dataclasses.replace(verify.read(good_run), uploaded=LIST.data + b"\r\n")
    assert [check.statement for check in verify.verify(run) if not check.holds] == [THE_LIST]


THE_LIST = f"The list that was uploaded is the one that seed {dirty_csv.SEED} yields"


def test_every_check_has_its_counter_example(good_run: Path) -> None:
    statements = [check.statement for check in verify.verify(verify.read(good_run))]
    shown = [statement for _, _, statement in COUNTER_EXAMPLES]
    assert [said for said in statements if not said.startswith(tuple(shown))] == [THE_LIST]


def test_a_cut_line_at_the_end_of_the_export_makes_the_command_fail(good_run: Path, tmp_path: Path) -> None:
    for name in ("logs", "prospects.csv", "refused.csv", "slow.csv", "history.jsonl"):
        (tmp_path / name).symlink_to(good_run / name)
    whole = (good_run / "enriched.csv").read_bytes()
    (tmp_path / "enriched.csv").write_bytes(whole[: whole.rstrip().rindex(b"\r\n") + 2])
    said: list[str] = []
    assert verify.main([str(tmp_path)], said.append) == 1
    assert "WRONG" in "".join(said)
