"""Formulas by the records that they cost, and how soon they stop: the numbers of the promise, on a real daemon."""

import time
from typing import Final

from leadline_protocol import messages as wire
from tests.acceptance.stage import Stage, stage

CHUNK: Final = 5_000
HOURLY: Final = "[database]\nrecords_per_hour = 1000000\n"
UNLIMITED: Final = "[database]\nrecords_per_hour = 0\n"


def filled(daemon: Stage, leads: int) -> None:
    """A table of so many leads, past the budget for records."""
    daemon.ask(wire.Tables(action="create", teamspace="acme", table="people", columns={"rank": "number"}))
    daemon.query(
        "INSERT INTO lead SELECT lead_table.id, number, jsonb_build_object('rank', number % 10)"
        " FROM lead_table, generate_series(1, $1::bigint) AS number WHERE name = 'people'",
        leads,
    )
    daemon.query("UPDATE lead_table SET next_lead = $1 WHERE name = 'people'", leads + 1)


def formula(column: str, where: str | None = None) -> wire.Formula:
    return wire.Formula(teamspace="acme", table="people", into={column: "number"}, expression="rank + 1", where=where)


def seconds_of(daemon: Stage, submission: wire.Formula, leads: int) -> float:
    """How long a formula takes from its receipt to its end."""
    began = time.monotonic()
    view = daemon.ended(daemon.submit(submission).job)
    assert (view.state, view.counts.done) == ("completed", leads)
    return time.monotonic() - began


def test_5000_rows_take_under_2_seconds_with_the_burst_and_18_without() -> None:
    with stage(HOURLY) as daemon:
        filled(daemon, CHUNK)
        at_once = seconds_of(daemon, formula("a"), CHUNK)
        assert at_once < 2
        for column in "bc":  # 15,000 of the minute's burst of 16,667
            seconds_of(daemon, formula(column), CHUNK)
        seconds_of(daemon, formula("d"), CHUNK)  # takes the rest, and waits for what is missing
        assert 17 <= seconds_of(daemon, formula("e"), CHUNK) - at_once <= 19


def test_a_cancelled_formula_stops_within_a_chunk_and_what_is_done_stays() -> None:
    with stage(UNLIMITED) as daemon:
        filled(daemon, 40 * CHUNK)
        job = daemon.submit(formula("score", "rank >= 0")).job
        daemon.until(job, lambda view: view.counts.done >= CHUNK)
        daemon.ask(wire.Cancel(job=job))
        acknowledged = daemon.view(job).counts.done
        view = daemon.ended(job)
        assert view.state == "cancelled"
        assert view.counts.total == 40 * CHUNK
        assert acknowledged <= view.counts.done <= acknowledged + CHUNK
        ((written,),) = daemon.query("SELECT count(*) FROM lead WHERE data ? 'score'")
        assert written == view.counts.done


def test_a_formula_that_is_killed_again_and_again_is_applied_to_each_lead_once() -> None:
    with stage(UNLIMITED) as daemon:
        filled(daemon, 20 * CHUNK)
        higher = wire.Formula(teamspace="acme", table="people", into={"rank": "number"}, expression="rank + 10")
        job = daemon.submit(higher).job
        done = 0
        for _ in range(3):
            done = daemon.until(job, lambda view, known=done: view.counts.done > known).counts.done  # type: ignore[misc]
            daemon.kill()
            daemon.start()
        view = daemon.ended(job)
        assert (view.state, view.counts.total, view.counts.done) == ("completed", 20 * CHUNK, 20 * CHUNK)
        assert view.attempt > 1, "no kill hit it: this has shown nothing"
        ranks = daemon.query("SELECT (data ->> 'rank')::int, count(*) FROM lead GROUP BY 1 ORDER BY 1")
        assert ranks == [(10 + rank, 2 * CHUNK) for rank in range(10)]
