"""Check a demo run from outside: its files and the providers' logs against what must have happened.

`python -m tests.world.verify DIR` (or `scripts/demo --verify DIR`) asks nothing of Leadline and imports nothing of
it, nor any library: what it knows comes from the seed of the list, the settings of the demo, the CSV files that came
out and the logs that the providers wrote themselves. Each check is one line with its numbers; a single disagreement
makes the exit status 1, a file that is missing or unreadable 2.

DIR holds `prospects.csv` (uploaded), `refused.csv`, `enriched.csv` and `slow.csv` (exported), `logs/ai.jsonl` and
`logs/slow.jsonl` (one call a line), and `history.jsonl` (what the daemon says happened to the slow job).
"""

import csv
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.world import demo_plan, dirty_csv
from tests.world.demo_plan import DEMO
from tests.world.windows import worst_window

SECOND = 1_000_000

Call = Mapping[str, Any]
"""A line of a provider's log."""


@dataclass(frozen=True, slots=True)
class Check:
    """One statement about the run, whether it holds, and the numbers behind it."""

    statement: str
    holds: bool
    numbers: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything a run left behind, as read from its directory."""

    uploaded: bytes
    refused: list[dict[str, str]]
    enriched: list[dict[str, str]]
    slow: list[dict[str, str]]
    ai_calls: list[Call]
    slow_calls: list[Call]
    history: list[Mapping[str, Any]]


def read(directory: Path) -> Evidence:
    """The evidence of a run; OSError or ValueError where a file is missing or is not what it should be."""
    return Evidence(
        uploaded=(directory / "prospects.csv").read_bytes(),
        refused=_read_csv(directory / "refused.csv"),
        enriched=_read_csv(directory / "enriched.csv"),
        slow=_read_csv(directory / "slow.csv"),
        ai_calls=_read_lines(directory / "logs" / "ai.jsonl"),
        slow_calls=_read_lines(directory / "logs" / "slow.jsonl"),
        history=_read_lines(directory / "history.jsonl"),
    )


def verify(run: Evidence) -> list[Check]:
    """Every check of a run, in the order of the story."""
    return [*_the_list(run), *_the_chain(run), *_the_slow_provider(run), *_the_stall(run)]


# --- the list ---------------------------------------------------------------------------------------------------------


def _the_list(run: Evidence) -> Iterator[Check]:
    expected = dirty_csv.generate()
    yield Check(
        f"The list that was uploaded is the one that seed {dirty_csv.SEED} yields",
        run.uploaded == expected.data,
        f"{len(run.uploaded):,} bytes, {len(expected.stored) + len(expected.refused):,} rows",
    )
    wanted = {lead.cells["email"]: lead.cells for lead in expected.stored}
    got = {_identity(row): row for row in run.enriched}
    yield _same(
        "Exactly the expected leads are stored",
        wanted.keys(),
        got.keys(),
        repeated=len(run.enriched) - len(got),
    )
    wrong = [
        f"{email} {column}"
        for email in wanted.keys() & got.keys()
        for column in dirty_csv.COLUMNS[1:]
        if not _is_exported_as(wanted[email][column], got[email].get(column, ""))
    ]
    yield Check(
        "Every cell of them came through unchanged, and none starts a formula",
        not wrong,
        f"{len(wanted) * (len(dirty_csv.COLUMNS) - 1):,} cells, {_some(wrong)} differ",
    )
    refused = {(str(row.row), row.reason) for row in expected.refused}
    yield _same(
        "Exactly the expected rows are refused, each for its reason",
        {f"row {row}: {reason}" for row, reason in refused},
        {f"row {row.get('refused_row')}: {row.get('refused_reason')}" for row in run.refused},
        repeated=len(run.refused) - len({row.get("refused_row") for row in run.refused}),
        detail=", ".join(f"{n} {reason}" for reason, n in sorted(Counter(reason for _, reason in refused).items())),
    )


def _is_exported_as(cell: str, exported: str) -> bool:
    """Whether `exported` is `cell`: as it was or, where a spreadsheet would run it as a formula, behind an
    apostrophe.
    """
    return exported == ("'" + cell if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell)


# --- the chain --------------------------------------------------------------------------------------------------------


def _the_chain(run: Evidence) -> Iterator[Check]:
    answered = [call for call in run.ai_calls if call["status"] == 200 and call["ended"] == "answered"]
    scores = {call["lead"]: call["notes"]["score"] for call in answered if call["notes"].get("task") == "score"}
    lines = {call["lead"]: call["notes"]["line"] for call in answered if call["notes"].get("task") == "personalise"}
    exported = {_identity(row): row for row in run.enriched}
    yield _same("Every stored lead was scored", exported.keys(), scores.keys())
    wrong = [email for email, row in exported.items() if row.get("score") != str(scores.get(email))]
    yield Check(
        "The exported scores are those in the AI's log",
        not wrong,
        f"{len(exported):,} scores, {_some(wrong)} differ",
    )
    high = {email for email, score in scores.items() if score >= DEMO.score_min}
    yield _same(
        f"Personalised are the leads with a score of {DEMO.score_min} or more, by the AI's log", high, lines.keys()
    )
    written = {email: row["line"] for email, row in exported.items() if row.get("line")}
    wrong = [email for email in written.keys() | lines.keys() if written.get(email) != lines.get(email)]
    yield Check(
        "The exported lines are those in the AI's log, and no other lead has one",
        not wrong,
        f"{len(lines):,} lines, {_some(wrong)} differ",
    )
    paid = Counter((call["lead"], call["notes"].get("task")) for call in answered)
    twice = [f"{lead} {task}" for (lead, task), times in paid.items() if times > 1]
    yield Check(
        "Nothing was asked of the AI twice",
        not twice and len(answered) == len(run.ai_calls),
        f"{len(run.ai_calls):,} calls, {len(answered):,} answered, {_some(twice)} repeated",
    )
    yield _limit("The AI never got more calls than it allows", run.ai_calls, DEMO.ai_calls_per_minute, "calls")


# --- the slow provider ------------------------------------------------------------------------------------------------


def _the_slow_provider(run: Evidence) -> Iterator[Check]:
    starts = [call for call in run.slow_calls if call["method"] == "POST"]
    yield _limit("The slow provider never got more leads than it allows", starts, DEMO.slow_leads_per_minute, "leads")
    yield _limit("... nor more requests, polls included", run.slow_calls, DEMO.slow_requests_per_minute, "requests")
    wanted = {demo_plan.slow_lead(number) for number in range(1, DEMO.slow_leads + 1)}
    found = {call["lead"] for call in run.slow_calls if call["outcome"] == "completed" and call["ended"] == "answered"}
    yield _same("It has delivered every lead of the second list", wanted, found)
    filled = {_identity(row) for row in run.slow if row.get("company")}
    yield _same("... and every one of them is in the export", wanted, filled, repeated=len(run.slow) - len(filled))


def _the_stall(run: Evidence) -> Iterator[Check]:
    starts: dict[str, list[Call]] = {}
    for call in run.slow_calls:
        if call["method"] == "POST":
            starts.setdefault(call["lead"], []).append(call)
    more_than_once = {lead: len(calls) for lead, calls in starts.items() if len(calls) > 1}
    yield Check(
        "Only the lead that hung was called a second time",
        more_than_once == {DEMO.stuck_lead: 2},
        f"{len(starts)} leads called, more than once: {more_than_once or 'none'}",
    )
    hung, *again = starts.get(DEMO.stuck_lead, []) or [{}]
    held_seconds = (hung.get("ended_us", 0) - hung.get("arrived_us", 0)) / SECOND
    latest = DEMO.stall_after_seconds + DEMO.slot_free_within_seconds
    yield Check(
        f"Its first call hung until the stalled job was killed, {DEMO.stall_after_seconds} to {latest} s",
        hung.get("outcome") == "hang"
        and hung.get("ended") == "client_left"
        and DEMO.stall_after_seconds <= held_seconds <= latest,
        f"given up by the client after {held_seconds:.1f} s",
    )
    yield Check(
        "Its second call came after that and was answered",
        [(call["status"], call["ended"]) for call in again] == [(200, "answered")]
        and again[0]["arrived_us"] >= hung["ended_us"],
        f"{len(again)} further calls",
    )
    told = [entry.get("event") for entry in run.history]
    yield Check(
        "The daemon's own history of the job tells of the kill and of a second attempt",
        any("stall" in json.dumps(entry) for entry in run.history) and told.count("started") >= 2,
        " → ".join(map(str, told)) or "no history",
    )


# --- how things are compared and shown --------------------------------------------------------------------------------


def _identity(row: Mapping[str, str]) -> str:
    return row.get("email", "").strip().lower()


def _same(statement: str, wanted: Iterable[str], got: Iterable[str], *, repeated: int = 0, detail: str = "") -> Check:
    missing, surplus = set(wanted) - set(got), set(got) - set(wanted)
    numbers = f"{len(set(wanted)):,} expected" + (f" ({detail})" if detail else "")
    numbers += f", {_some(missing)} missing, {_some(surplus)} too many" + (f", {repeated} repeated" if repeated else "")
    return Check(statement, not (missing or surplus or repeated), numbers)


def _limit(statement: str, calls: Iterable[Call], amount: int, unit: str) -> Check:
    worst = worst_window((call["arrived_us"] for call in calls), 60)
    return Check(statement, 0 < worst <= amount, f"at most {worst:,} {unit} in any 60 s, allowed {amount:,}")


def _some(names: Iterable[str]) -> str:
    """How many, and the first of them."""
    ordered = sorted(names)
    return f"{len(ordered)} ({ordered[0]}{', ...' if len(ordered) > 1 else ''})" if ordered else "0"


def _read_csv(path: Path) -> list[dict[str, str]]:
    csv.field_size_limit(1 << 20)
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def _read_lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main(arguments: list[str], write: Callable[[str], object] = sys.stdout.write) -> int:
    """Verify the run in the directory named, a line for each check; the exit status."""
    if len(arguments) != 1:
        write("usage: python -m tests.world.verify DIR\n")
        return 2
    try:
        run = read(Path(arguments[0]))
    except (OSError, ValueError, csv.Error) as error:
        write(f"No verdict: {error}\n")
        return 2
    checks = verify(run)
    for check in checks:
        write(f"{'ok   ' if check.holds else 'WRONG'}  {check.statement}: {check.numbers}\n")
    wrong = sum(not check.holds for check in checks)
    write(f"{len(checks)} checks, {wrong} wrong\n" if wrong else f"{len(checks)} checks, all agree\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
