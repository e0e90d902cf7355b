"""Which leads a job works on, by the exact numbers of the promise: 0 with a warning, 2,000 of 5,000, 1,940 of 1,940."""

from collections.abc import Iterator
from itertools import count
from typing import Final

import pytest

from leadline_protocol import messages as wire
from tests.acceptance.stage import Stage, World, openai, people, stage
from tests.world import behaviours
from tests.world.behaviours import line_of, score_of
from tests.world.servers import Served

LEADS: Final = 5_000
GOOD: Final = 1_940
STORED: Final = 2_000


def scored_people() -> list[dict[str, object]]:
    """5,000 leads of whom the model will give exactly 1,940 at least a 7, the good and the others mixed."""
    found: dict[bool, list[str]] = {True: [], False: []}
    wanted = {True: GOOD, False: LEADS - GOOD}
    for number in count():
        email = f"person{number}@example.com"
        good = score_of(email) >= 7
        if len(found[good]) < wanted[good]:
            found[good].append(email)
        elif all(len(found[each]) == wanted[each] for each in found):
            break
    emails = sorted(found[True] + found[False])
    return [{"email": email, "rank": score_of(email)} for email in emails]


SLOW_DATABASE: Final = f"[database]\nrecords_per_hour = {60 * STORED}\n"
"""A minute's burst of exactly 2,000 records: an upload in chunks of 1,000 comes that far at once, and then waits."""

QUICK_DATABASE: Final = "[database]\nrecords_per_hour = 100000000\n"


@pytest.fixture(scope="module")
def ai(world: World) -> Served:
    return world.serve(behaviours.ChatCompletions(), name="ai")


@pytest.fixture(scope="module")
def daemon(ai: Served) -> Iterator[Stage]:
    with stage(openai(ai, settings=["limits = []"]) + QUICK_DATABASE) as running:
        yield running


SCORE: Final = {"prompt": "Score this lead, only the number: {{email}}"}
LINE: Final = {"prompt": "Personalise a line for {{email}}"}


def personalise(select_leads: wire.SelectLeads) -> wire.Enrich:
    return wire.Enrich(
        teamspace="acme",
        table="people",
        module="ai_prompt",
        into={"line": "text"},
        params=LINE,
        where="score >= 7",
        select_leads=select_leads,
    )


def test_what_is_frozen_on_submission_has_no_leads_and_what_is_frozen_on_start_has_1940(
    daemon: Stage, ai: Served
) -> None:
    people = scored_people()
    daemon.table("acme", "people", people)
    score = wire.Enrich(teamspace="acme", table="people", module="ai_prompt", into={"score": "number"}, params=SCORE)
    scoring = daemon.submit(score)
    early = daemon.submit(personalise("on_submit"))
    late = daemon.submit(personalise("on_start"))

    (warning,) = early.warnings
    assert warning.code == "no_leads_matched"
    assert "0 leads matched when it was submitted" in warning.message
    assert late.warnings == []

    scored = daemon.ended(scoring.job)
    assert (scored.state, scored.counts.total, scored.counts.done) == ("completed", LEADS, LEADS)
    nothing = daemon.ended(early.job)
    assert (nothing.state, nothing.counts.total) == ("completed", 0)
    assert [each.code for each in nothing.warnings] == ["no_leads_matched"], "the warning stays to be seen"
    written = daemon.ended(late.job)
    assert (written.state, written.counts.total, written.counts.done) == ("completed", GOOD, GOOD)

    assert len(ai.calls) == LEADS + GOOD, "each lead is asked about once"
    for row in daemon.rows("acme", "people"):
        assert int(row["score"]) == score_of(row["email"])
        assert row["line"] == (line_of(row["email"]) if int(row["score"]) >= 7 else "")


def test_a_step_of_a_chain_sees_what_the_step_before_it_stored(daemon: Stage, ai: Served) -> None:
    path = daemon.put("chained.csv", scored_people())
    before = len(ai.calls)
    steps: list[wire.Step] = [
        wire.UploadStep(table="chained", path=path),
        wire.FormulaStep(table="chained", into={"score": "number"}, expression="rank"),
        wire.EnrichStep(table="chained", module="ai_prompt", into={"line": "text"}, params=LINE, where="score >= 7"),
    ]
    receipt = daemon.submit(wire.Chain(teamspace="chained", steps=steps))
    assert receipt.warnings == []
    assert daemon.ended(receipt.job).state == "completed"
    counts = [daemon.view(step).counts for step in receipt.steps]
    assert [(each.done, each.total) for each in counts] == [(LEADS, LEADS), (LEADS, LEADS), (GOOD, GOOD)]
    whole = daemon.view(receipt.job).counts
    assert (whole.done, whole.total) == (2 * LEADS + GOOD, 2 * LEADS + GOOD), "a chain's counts are its steps' sums"
    assert len(ai.calls) - before == GOOD


def test_a_formula_submitted_when_2000_of_5000_rows_are_stored_takes_exactly_these() -> None:
    with stage(SLOW_DATABASE) as daemon:
        upload = daemon.submit(wire.Upload(teamspace="acme", table="people", path=daemon.put("p.csv", people(LEADS))))
        daemon.until(upload.job, lambda view: view.counts.done == STORED and bool(view.waits))
        table = daemon.ask(wire.Tables(teamspace="acme", table="people")).tables[0]
        assert table.leads == STORED

        def double(column: str, select_leads: wire.SelectLeads | None) -> wire.Receipt:
            given = {} if select_leads is None else {"select_leads": select_leads}
            formula = {"kind": "formula", "teamspace": "acme", "table": "people", "expression": "n * 2"}
            return daemon.submit({**formula, "into": {column: "number"}, **given})

        early = double("early", "on_submit")
        late = double("late", None)
        (warning,) = early.warnings
        assert warning.code == "upload_running"
        assert f"upload {upload.job} into people was running" in warning.message
        assert "only the 2000 leads" in warning.message
        assert late.warnings == [], "on_start is what is meant where nothing is said"

        daemon.reconfigure(QUICK_DATABASE)
        daemon.ask(wire.Reload())
        uploaded = daemon.ended(upload.job)
        assert (uploaded.state, uploaded.counts.done, uploaded.counts.total) == ("completed", LEADS, LEADS)
        first, second = daemon.ended(early.job), daemon.ended(late.job)
        assert (first.state, first.counts.done, first.counts.total) == ("completed", STORED, STORED)
        assert [each.code for each in first.warnings] == ["upload_running"]
        assert (second.state, second.counts.done, second.counts.total) == ("completed", LEADS, LEADS)
        rows = daemon.rows("acme", "people")
        assert sum(row["early"] != "" for row in rows) == STORED
        assert all(int(row["late"]) == 2 * int(row["n"]) for row in rows)
