"""Chains: one step after the other, each over what the one before it stored, stopped and held where they say so."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, JobReason, Refused
from leadline_protocol.ids import JobId
from tests.acceptance.stage import Stage, World, people, provider, stage
from tests.world import behaviours
from tests.world.behaviours import SECOND
from tests.world.servers import Served

LEADS: Final = 20
CHAIN: Final = """
teamspace = "file"

[[steps]]
kind = "formula"
table = "people"
into = { half = "number" }
expression = "n % 2"

[[steps]]
kind = "enrich"
table = "people"
module = "plain"
into = { company = "text" }
where = "half = 1"
"""


@pytest.fixture(scope="module")
def plain(world: World) -> Served:
    return world.serve(behaviours.Delayed(behaviours.Enrichment(), median_us=SECOND // 10))


@pytest.fixture(scope="module")
def locked(world: World) -> Served:
    """A provider that refuses every key."""
    return world.serve(behaviours.Authorized(behaviours.Enrichment(), "the right key"))


@pytest.fixture(scope="module")
def daemon(plain: Served, locked: Served) -> Iterator[Stage]:
    with stage(provider("plain", plain) + provider("locked", locked, settings=['secret = "a wrong key"'])) as running:
        yield running


def formula(column: str, expression: str, where: str | None = None, **guards: object) -> wire.FormulaStep:
    return wire.FormulaStep(table="people", into={column: "number"}, expression=expression, where=where, **guards)  # type: ignore[arg-type]


def enrich(module: str, column: str = "company") -> wire.EnrichStep:
    return wire.EnrichStep(table="people", module=module, into={column: "text"})


def run(daemon: Stage, teamspace: str, *steps: wire.Step, on_failure: str = "stop") -> wire.Receipt:
    daemon.table(teamspace, "people", people(LEADS))
    return daemon.submit(wire.Chain(teamspace=teamspace, steps=[*steps], on_failure=on_failure))  # type: ignore[arg-type]


@contextmanager
def held_up(daemon: Stage) -> Iterator[None]:
    """Nothing that asks `plain` comes to its end before the block does."""
    daemon.ask(wire.Pause(scope="provider", name="plain"))
    try:
        yield
    finally:
        daemon.ask(wire.Resume(scope="provider", name="plain"))


def states(daemon: Stage, receipt: wire.Receipt) -> list[str]:
    return [daemon.view(step).state for step in receipt.steps]


def counts_are_sums(daemon: Stage, receipt: wire.Receipt) -> bool:
    whole = daemon.view(receipt.job).counts
    parts = [daemon.view(step).counts for step in receipt.steps]
    names = ("total", "done", "failed", "skipped", "unknown", "pending")
    return all(getattr(whole, name) == sum(getattr(part, name) for part in parts) for name in names)


def test_steps_run_in_order_and_the_slot_passes_on_past_older_jobs(daemon: Stage) -> None:
    daemon.table("order", "people", people(LEADS))
    last = formula("b", "a * 2", where="company = 'Example'")
    steps: list[wire.Step] = [formula("a", "n + 1"), enrich("plain"), last]
    other = wire.Formula(teamspace="order", table="people", into={"z": "number"}, expression="n")
    with held_up(daemon):
        chain = daemon.submit(wire.Chain(teamspace="order", steps=steps))
        behind = daemon.submit(other).job
        waiting = daemon.view(chain.steps[2])
        assert JobReason.PREVIOUS_STEP in [wait.reason for wait in waiting.waits]
    assert daemon.ended(chain.job).state == "completed"
    views = [daemon.view(step) for step in chain.steps]
    for before, after in zip(views, [*views[1:], daemon.ended(behind)], strict=True):
        assert before.ended_at is not None
        assert after.started_at is not None
        assert before.ended_at <= after.started_at
    assert [(view.chain, view.step) for view in views] == [(chain.job, 1), (chain.job, 2), (chain.job, 3)]
    assert counts_are_sums(daemon, chain)
    assert all(int(row["b"]) == 2 * (int(row["n"]) + 1) for row in daemon.rows("order", "people"))


def test_a_chain_from_a_file_runs_to_its_end_and_its_exit_tells_how(daemon: Stage, tmp_path: Path) -> None:
    daemon.table("file", "people", people(LEADS))
    file = tmp_path / "chain.toml"
    file.write_text(CHAIN, encoding="utf-8")
    ran = daemon.leadline("chain", "run", str(file), "--wait")
    assert ran.returncode == 0, ran
    jobs = daemon.ask(wire.Jobs(teamspace="file")).jobs
    (chain,) = [view for view in jobs if view.kind == "chain"]
    steps = sorted((view for view in jobs if view.chain == chain.job), key=lambda view: view.job)
    assert [(view.state, view.counts.done) for view in steps] == [("completed", LEADS), ("completed", LEADS // 2)]
    assert str(chain.job) in ran.stdout
    assert sum(row["company"] != "" for row in daemon.rows("file", "people")) == LEADS // 2
    file.write_text(CHAIN.replace('module = "plain"', 'module = "locked"'), encoding="utf-8")
    assert daemon.leadline("chain", "run", str(file), "--wait").returncode == 1


def test_a_failed_step_stops_the_chain(daemon: Stage) -> None:
    receipt = run(daemon, "stop", enrich("locked"), formula("a", "n"), formula("b", "n"))
    assert daemon.ended(receipt.job).state == "failed"
    assert states(daemon, receipt) == ["failed", "skipped", "skipped"]
    assert daemon.view(receipt.steps[1]).reason is JobReason.PREVIOUS_STEP_FAILED
    assert counts_are_sums(daemon, receipt)


def test_a_chain_that_is_to_continue_does(daemon: Stage) -> None:
    receipt = run(daemon, "continue", enrich("locked"), formula("a", "n"), on_failure="continue")
    daemon.ended(receipt.job)
    daemon.ended(receipt.steps[1])
    assert states(daemon, receipt) == ["failed", "completed"]
    assert counts_are_sums(daemon, receipt)


def test_a_cancelled_step_stops_the_chain(daemon: Stage) -> None:
    with held_up(daemon):
        receipt = run(daemon, "cancel", enrich("plain"), formula("a", "n"))
        daemon.ask(wire.Cancel(job=receipt.steps[0]))
        daemon.ended(receipt.job)
    assert states(daemon, receipt) == ["cancelled", "skipped"]


def test_a_cancelled_chain_ends_all_its_steps(daemon: Stage) -> None:
    with held_up(daemon):
        receipt = run(daemon, "cancel-all", enrich("plain"), formula("a", "n"), formula("b", "n"))
        daemon.ask(wire.Cancel(job=receipt.job))
        assert daemon.ended(receipt.job).state == "cancelled"
    assert states(daemon, receipt)[0] == "cancelled"
    assert set(states(daemon, receipt)[1:]) <= {"cancelled", "skipped"}
    assert counts_are_sums(daemon, receipt)


def test_a_guard_skips_a_step_with_no_leads_and_the_next_one_runs(daemon: Stage) -> None:
    receipt = run(daemon, "empty", formula("a", "n", where="n > 100", empty="skip"), formula("b", "n"))
    assert daemon.ended(receipt.job).state == "completed"
    assert states(daemon, receipt) == ["skipped", "completed"]
    assert daemon.view(receipt.steps[0]).reason is JobReason.GUARD_EMPTY


def test_a_guard_skips_a_step_with_too_many_leads(daemon: Stage) -> None:
    guard = wire.MoreThan(count=LEADS - 1, then="skip")
    receipt = run(daemon, "many", formula("a", "n", more_than=guard), formula("b", "n", where="n < 3"))
    daemon.ended(receipt.job)
    assert states(daemon, receipt) == ["skipped", "completed"]
    skipped = daemon.view(receipt.steps[0])
    assert skipped.reason is JobReason.GUARD_MORE_THAN
    assert f"{LEADS} leads matched" in (skipped.message or "")
    exact = wire.MoreThan(count=LEADS, then="skip")
    receipt = daemon.submit(wire.Chain(teamspace="many", steps=[formula("c", "n", more_than=exact)]))
    daemon.ended(receipt.job)
    assert states(daemon, receipt) == ["completed"], "more than 20 are not 20"


def test_a_step_runs_only_when_the_one_before_it_ended_as_it_wants(daemon: Stage) -> None:
    halves = wire.FormulaStep(table="people", into={"a": "number"}, expression="100 / n")  # fails for n = 0

    def after(**wanted: object) -> wire.FormulaStep:
        when = wire.When(**wanted)  # type: ignore[arg-type]
        return wire.FormulaStep(table="people", into={"b": "number"}, expression="n", when=when)

    cases: list[tuple[dict[str, object], str]] = [
        ({"failed_at_most": 1, "done_at_least": LEADS - 1}, "completed"),
        ({"failed_at_most": 0}, "skipped"),
        ({"done_at_least": LEADS}, "skipped"),
        ({"ended": ["completed"]}, "skipped"),
        ({"ended": ["completed", "partial"]}, "completed"),
    ]
    last = after(ended=["skipped"])
    for number, (wanted, state) in enumerate(cases):
        receipt = run(daemon, f"when-{number}", halves, after(**wanted), last)
        assert daemon.ended(receipt.job).state == "partial"
        third = "completed" if state == "skipped" else "skipped"
        assert states(daemon, receipt) == ["partial", state, third], wanted
    second = daemon.view(receipt.steps[2])
    assert second.reason is JobReason.WHEN
    assert second.message == "the step before it ended completed, not skipped"
    with pytest.raises(Refused) as refused:
        daemon.submit({"kind": "chain", "teamspace": "w", "steps": [{"kind": "noop", "when": {"failed_at_most": 0}}]})
    assert refused.value.code is ErrorCode.BAD_REQUEST


def holds(daemon: Stage, job: JobId) -> bool:
    return JobReason.APPROVAL in [blocker.reason for blocker in daemon.ask(wire.Why(job=job)).blockers]


@pytest.mark.parametrize("restarted", [False, True], ids=["", "over a restart"])
def test_a_guard_holds_a_step_until_a_person_lets_it_go_and_the_slot_is_free(daemon: Stage, restarted: bool) -> None:
    teamspace = f"hold-{restarted}"
    guard = wire.MoreThan(count=1, then="hold")
    receipt = run(daemon, teamspace, formula("a", "n", more_than=guard), formula("b", "a * 2"))
    held = daemon.until(
        receipt.steps[0], lambda view: view.state == "queued" and JobReason.APPROVAL in [w.reason for w in view.waits]
    )
    assert held.counts.done == 0
    if restarted:
        daemon.kill()
        daemon.start()
        daemon.until(receipt.steps[0], lambda _: holds(daemon, receipt.steps[0]))
    other = wire.Formula(teamspace=teamspace, table="people", into={"z": "number"}, expression="n")
    assert daemon.ended(daemon.submit(other).job).state == "completed", "a held step gives its slot back"
    assert states(daemon, receipt) == ["queued", "queued"]
    daemon.ask(wire.Resume(scope="job", name=receipt.steps[0]))
    assert daemon.ended(receipt.job).state == "completed"
    assert states(daemon, receipt) == ["completed", "completed"]
    assert all(int(row["b"]) == 2 * int(row["n"]) for row in daemon.rows(teamspace, "people"))
