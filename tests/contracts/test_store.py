"""What every store does: the sentences of `leadline.ports.store`, on the fake and on Postgres."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from leadline.actors.job_reader import as_stored
from leadline.core.effects import (
    AccountRow,
    AdmittedJob,
    CallClosed,
    CallRow,
    HistoryRow,
    JobChange,
    PauseRow,
    Records,
    SlotRow,
)
from leadline.core.events import KnownKey, Statement
from leadline.core.model import Counts, Family, JobState
from leadline.core.quarantine import Crashed
from leadline.ports.store import (
    LOOK_BACK_JOBS,
    THIS_JOB,
    AttemptRetired,
    Contradiction,
    Fenced,
    JobFilter,
    OwnedByAnother,
    Unavailable,
)
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import AccountName, CallId, Instant, JobId, LeadId, TableId
from tests.contracts.stores import (
    ACME,
    BETA,
    CHAIN,
    ENRICH,
    KINDS,
    NAMES,
    NOOP,
    OUTREACH,
    Daemon,
    FakePlace,
    Place,
    PostgresPlace,
    T,
    admission,
    end,
    hashed,
    key,
    row,
    rule,
    start,
    submission,
    together,
)


@pytest.fixture(params=["fake", "postgres"])
def home(request: pytest.FixtureRequest) -> Place:
    return FakePlace() if request.param == "fake" else PostgresPlace(request.getfixturevalue("database"))


@pytest.fixture
async def place(home: Place) -> AsyncIterator[Place]:
    await home.prepare()
    yield home
    await home.close()


@pytest.fixture
async def daemon(place: Place) -> Daemon:
    daemon = place.daemon()
    await rule(daemon)
    await daemon.store.commit(Records(teamspaces=list(NAMES.items())))
    return daemon


async def live(daemon: Daemon) -> list[int]:
    return [job.id async for page in daemon.store.live_jobs() for job in page]


async def listed(daemon: Daemon, which: JobFilter | None = None) -> list[int]:
    return [job.id for job in await daemon.store.jobs(which or JobFilter())]


async def commit_at_last(daemon: Daemon, records: Records) -> None:
    """Commit; once more where the store first learns that its sessions were ended."""
    try:
        await daemon.store.commit(records)
    except Unavailable:
        await daemon.store.commit(records)


# ------------------------------------------------------------------------------------------------------------ ownership


async def test_an_empty_store_has_nothing_to_recover(place: Place) -> None:
    recovered = await rule(place.daemon())
    assert (recovered.last_job, recovered.last_call) == (0, 0)
    assert not any([recovered.teamspaces, recovered.slots, recovered.calls, recovered.accounts, recovered.pauses])


async def test_a_second_daemon_is_refused_and_told_the_owner(place: Place) -> None:
    first = place.daemon()
    await rule(first, "mill, pid 4711, since noon")
    with pytest.raises(OwnedByAnother, match="mill, pid 4711, since noon"):
        await rule(place.daemon(), "second")
    await first.store.commit(Records(teamspaces=[(ACME, "acme")]))


async def test_a_daemon_may_follow_one_that_is_gone(place: Place) -> None:
    first, second = place.daemon(), place.daemon()
    before = await rule(first)
    await first.crash()
    assert (await rule(second)).epoch > before.epoch


async def test_an_owner_may_take_over_again(daemon: Daemon) -> None:
    await daemon.store.commit(admission(row(1)))
    again = await rule(daemon)
    assert again.last_job == 1
    await daemon.store.commit(admission(row(2)))
    assert await live(daemon) == [1, 2]


async def test_after_a_take_over_no_commit_of_the_daemon_before_lands(place: Place, daemon: Daemon) -> None:
    successor = place.daemon()
    await rule(successor, "successor", force=True)
    for jobs in (1, 199):
        with pytest.raises(Fenced):
            await commit_at_last(daemon, admission(*(row(number) for number in range(1, jobs + 1))))
    assert await live(successor) == []


async def test_an_owner_that_is_replaced_is_told_though_it_writes_nothing(
    place: Place, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leadline.adapters.postgres.store.NAME_SECONDS", 60)
    keeping = asyncio.create_task(daemon.store.keep())
    await asyncio.sleep(0)
    await rule(place.daemon(), "the successor", force=True)
    with pytest.raises(Fenced, match="replaced by the successor"):
        await asyncio.wait_for(keeping, 60)


@pytest.mark.parametrize(("before", "after", "survivor"), [("a", "a", False), ("a", "b", True), ("", "", True)])
async def test_only_an_owner_of_the_same_place_is_certainly_dead(
    place: Place, before: str, after: str, survivor: bool
) -> None:
    first, second = place.daemon(), place.daemon()
    found = await first.store.take_over(owner="first", place=before, kinds=KINDS)
    assert not found.survivor, "there was none before"
    await first.crash()
    found = await second.store.take_over(owner="second", place=after, kinds=KINDS)
    assert found.survivor is survivor


async def test_after_a_crash_it_is_known_who_ran_and_how_far_they_had_come(place: Place, daemon: Daemon) -> None:
    await daemon.store.commit(
        together(
            admission(row(1, submission(ENRICH)), row(2, submission(ENRICH), teamspace=BETA), row(3)),
            start(1),
            start(2, teamspace=BETA),
            Records(calls_sent=[CallRow(CallId(7), JobId(2), 1, LeadId(5), AccountName("snov"), b"{}", Instant(T))]),
        )
    )
    await daemon.progress(1, 1, Counts(9, 2, 1))
    await daemon.crash()
    found = await rule(place.daemon())
    assert found.crashed == {1: Crashed(3, in_flight=False), 2: Crashed(0, in_flight=True)}


async def test_an_orderly_end_a_take_over_and_a_new_reign_are_no_crash(place: Place, daemon: Daemon) -> None:
    await daemon.store.commit(together(admission(row(1, submission(ENRICH))), start(1)))
    assert not (await rule(daemon)).crashed, "it is the same process"
    second, third, fourth = place.daemon(), place.daemon(), place.daemon()
    assert not (await rule(second, force=True)).crashed
    await second.store.end_in_order()
    await second.crash()
    assert not (await rule(third)).crashed
    await third.crash()
    assert (await rule(fourth)).crashed, "the mark is for one end"


async def test_a_store_that_is_not_owned_is_not_available(place: Place) -> None:
    with pytest.raises(Unavailable):
        await place.daemon().store.commit(admission(row(1)))


# ------------------------------------------------------------------------------------------------------------- recovery


async def test_a_new_owner_finds_everything_as_it_was_committed(place: Place, daemon: Daemon) -> None:
    accounts = {AccountName("snov"): AccountRow(AccountName("snov"), b"{}")}
    await daemon.store.commit(
        together(
            admission(row(1, submission(ENRICH, total=9)), row(2, submission(OUTREACH), teamspace=BETA)),
            start(1, slot=3),
            Records(accounts=accounts, pauses=[PauseRow("family", "tables", paused=True), PauseRow("queue", "", True)]),
        )
    )
    await daemon.store.commit(Records(pauses=[PauseRow("queue", "", paused=False)]))
    await daemon.crash()
    successor = place.daemon()
    found = await rule(successor)
    assert found.teamspaces == [(ACME, "acme"), (BETA, "beta")]
    assert found.slots == [SlotRow(ACME, Family.TABLES, 3, JobId(1))]
    assert found.accounts == list(accounts.values())
    assert found.pauses == [PauseRow("family", "tables", paused=True)]
    assert found.last_job == 2
    pages = [page async for page in successor.store.live_jobs(page=1)]
    assert [len(page) for page in pages] == [1, 1]
    first, second = (page[0] for page in pages)
    assert (first.id, first.kind, first.state, first.attempts) == (1, ENRICH, JobState.RUNNING, 1)
    assert (second.order, second.teamspace, second.kind, second.started) == (T + 2, BETA, OUTREACH, None)


async def test_a_live_job_is_recovered_with_its_run_at_its_chain_and_its_details(daemon: Daemon) -> None:
    dated = submission(run_at=Instant(T + 77), stop_on_failure=False)
    delayed = submission(delay_microseconds=5, priority_microseconds=3)
    await daemon.store.commit(
        admission(row(1, dated, state=JobState.DELAYED), row(2, delayed), row(3, chain=1, step=0))
    )
    change = JobChange(JobId(2), JobState.QUEUED, b'{"waits":[]}', 4, Instant(T + 9))
    await daemon.store.commit(Records(changed={change.id: change}))
    one, two, three = [job async for page in daemon.store.live_jobs() for job in page]
    assert (one.run_at, one.state, one.stop_on_failure, one.details) == (T + 77, JobState.DELAYED, False, b"")
    assert (two.run_at, two.attempts, two.started, two.details) == (T + 2 + 3, 4, T + 9, b'{"waits":[]}')
    assert (three.run_at, three.chain, three.step, three.stop_on_failure) == (None, 1, 0, True)


async def test_a_job_of_a_kind_that_the_new_owner_does_not_know_is_among_the_live_ones(
    place: Place, daemon: Daemon
) -> None:
    await daemon.store.commit(admission(row(1, submission(ENRICH))))
    await daemon.crash()
    older = place.daemon()
    await older.store.take_over(owner="older", kinds={"noop": 0})
    assert [job.kind async for page in older.store.live_jobs() for job in page] == [None]


async def test_a_kind_keeps_its_jobs_when_the_kinds_come_in_another_order(place: Place, daemon: Daemon) -> None:
    await daemon.store.commit(admission(row(1, submission(ENRICH))))
    await daemon.crash()
    newer = place.daemon()
    kinds = {"upload": 1, **dict(sorted(KINDS.items(), reverse=True))}
    await newer.store.take_over(owner="newer", kinds=kinds)
    await newer.store.commit(admission(row(2, submission(0))))
    places = [job.kind async for page in newer.store.live_jobs() for job in page]
    assert [list(kinds)[place] for place in places if place is not None] == ["enrich", "upload"]


def call(number: int, *, sent: int = T) -> CallRow:
    return CallRow(CallId(number), JobId(1), 1, LeadId(number), AccountName("snov"), b'{"request":1}', Instant(sent))


async def test_calls_that_were_in_flight_at_a_crash_are_unknown(place: Place, daemon: Daemon) -> None:
    closed = CallClosed(CallId(2), "throttled", "429", Instant(T + 5))
    await daemon.store.commit(Records(calls_sent=[call(1), call(2)]))
    await daemon.store.commit(Records(calls_closed=[closed]))
    await daemon.crash()
    found = await place.daemon().store.take_over(owner="next", kinds=KINDS, charge_seconds=10**9)
    assert [(stored.id, stored.state, stored.began) for stored in found.calls] == [
        (1, "unknown", None),
        (2, "throttled", T + 5),
    ]
    assert found.calls[0].cost == b'{"request":1}'
    assert found.calls[0].sent > T, "it may have left as late as now"
    assert found.last_call == 2


async def test_what_a_call_has_come_to_is_recovered(place: Place, daemon: Daemon) -> None:
    await daemon.store.commit(Records(calls_sent=[call(1), call(2)]))
    settled = CallClosed(CallId(1), "done", "", Instant(T + 5), b'{"token":450}')
    await daemon.store.commit(Records(calls_closed=[settled, CallClosed(CallId(2), "done", "", Instant(T + 6))]))
    await daemon.crash()
    found = await place.daemon().store.take_over(owner="next", kinds=KINDS, charge_seconds=10**9)
    assert [(stored.began, stored.cost) for stored in found.calls] == [
        (T + 5, b'{"token":450}'),
        (T + 6, b'{"request":1}'),
    ]


async def test_only_calls_whose_charge_may_still_count_are_recovered(place: Place, daemon: Daemon) -> None:
    recovered = await rule(daemon)
    recent = recovered.instant - 5_000_000
    await daemon.store.commit(Records(calls_sent=[call(1), call(2, sent=recent), call(3, sent=recent), call(4)]))
    closed = [CallClosed(CallId(1), "failed", ""), CallClosed(CallId(2), "failed", "")]
    await daemon.store.commit(Records(calls_closed=[*closed, CallClosed(CallId(3), "unsent", "")]))
    await daemon.crash()
    found = await place.daemon().store.take_over(owner="next", kinds=KINDS, charge_seconds=60)
    assert [stored.id for stored in found.calls] == [2, 4], "1 is too old, 3 was never sent, 4 was in flight"


async def test_the_instant_is_never_earlier_than_a_stored_call(place: Place, daemon: Daemon) -> None:
    ahead = (await rule(daemon)).instant + 3_600_000_000
    await daemon.store.commit(Records(calls_sent=[call(1, sent=ahead)]))
    await daemon.crash()
    assert (await rule(place.daemon())).instant >= ahead


# ------------------------------------------------------------------------------------------------------------ decisions


@pytest.mark.parametrize("jobs", [1, 7, 8, 200])
async def test_jobs_are_stored_whole_one_by_one_and_by_the_hundred(daemon: Daemon, jobs: int) -> None:
    everything = submission(
        ENRICH,
        table=TableId(7),
        total=12,
        warnings=b'["w"]',
        uid=4_294_967_294,
        notify=True,
        rerun_of=JobId(1),
        run_at=Instant(T),
    )
    await daemon.store.commit(admission(*(row(number, everything) for number in range(1, jobs + 1))))
    stored = await daemon.store.job(JobId(jobs))
    assert stored is not None
    assert (stored.id, stored.order, stored.teamspace, stored.kind) == (jobs, T + jobs, "acme", "enrich")
    assert (stored.state, stored.submitted, stored.run_at) == (JobState.QUEUED, T + jobs, T)
    assert (stored.started, stored.ended, stored.attempt, stored.counts) == (None, None, 0, Counts(12))
    assert (stored.table, stored.warnings, stored.uid, stored.notify) == (7, b'["w"]', 4_294_967_294, True)
    assert (stored.rerun_of, stored.payload) == (1, b'{"kind":"noop"}')
    assert await daemon.store.jobs_by_id([JobId(jobs), JobId(jobs + 1)]) == {jobs: stored}


@pytest.mark.parametrize("jobs", [1, 20, 200])
async def test_an_ended_job_is_no_longer_live_and_keeps_all_it_had(daemon: Daemon, jobs: int) -> None:
    new = submission(ENRICH, table=TableId(7), total=12, warnings=b"[]", uid=1, notify=True)
    numbers = range(1, jobs + 1)
    await daemon.store.commit(admission(*(row(number, new) for number in numbers)))
    before = await daemon.store.job(JobId(jobs))
    await daemon.store.commit(
        together(*(end(n, JobState.SKIPPED, reason=JobReason.GUARD_EMPTY, message="none matched") for n in numbers))
    )
    after = await daemon.store.job(JobId(jobs))
    assert await live(daemon) == []
    assert await daemon.store.jobs_by_id([JobId(jobs), JobId(jobs + 1)]) == {jobs: after}
    assert before is not None
    assert after is not None
    assert (after.state, after.ended, after.reason, after.message) == (
        JobState.SKIPPED, T + 2_000, JobReason.GUARD_EMPTY, "none matched",
    )  # fmt: skip
    unchanged = ("id", "order", "teamspace", "kind", "submitted", "table", "counts", "warnings", "uid", "payload")
    assert [getattr(before, name) for name in unchanged] == [getattr(after, name) for name in unchanged]


async def test_jobs_that_end_in_one_decision_each_keep_their_own_end(daemon: Daemon) -> None:
    await daemon.store.commit(admission(*(row(number) for number in range(1, 60))))
    states = (JobState.COMPLETED, JobState.FAILED)
    await daemon.store.commit(
        together(*(end(n, states[n % 2], message=f"m{n}" if n > 50 else "") for n in range(1, 60)))
    )
    for number in (1, 2, 51, 52):
        stored = await daemon.store.job(JobId(number))
        assert stored is not None
        assert stored.state is states[number % 2]
        assert stored.message == (f"m{number}" if number > 50 else "")


@pytest.mark.parametrize("jobs", [1, 200])
@pytest.mark.parametrize("also_admitted", [True, False])
async def test_a_job_may_come_and_go_in_one_decision(daemon: Daemon, jobs: int, also_admitted: bool) -> None:
    rows = [row(number) for number in range(1, jobs + 1)]
    decision = together(*(end(job.id, counts=Counts(), admitted=job) for job in rows))
    if also_admitted:
        decision.admitted.extend(rows)
    await daemon.store.commit(decision)
    assert await live(daemon) == []
    stored = await daemon.store.job(JobId(jobs))
    assert stored is not None
    assert (stored.state, stored.started, stored.ended, stored.attempt) == (
        JobState.COMPLETED, T + 1_500, T + 2_000, 1,
    )  # fmt: skip
    assert stored.payload == b'{"kind":"noop"}'


@pytest.mark.parametrize(
    "admitted",
    [
        row(1, submission(ENRICH)),
        row(1, submission(ENRICH, table=TableId(7), total=12, warnings=b'["w"]', uid=4_294_967_294, notify=True)),
        row(1, submission(OUTREACH, rerun_of=JobId(9), run_at=Instant(T), priority_microseconds=5)),
        row(2, submission(ENRICH), chain=1, step=0),
    ],
    ids=["plain", "with a list", "run again", "the first step of a chain"],
)
async def test_a_job_that_starts_as_it_comes_in_need_not_be_read(daemon: Daemon, admitted: AdmittedJob) -> None:
    """What is made of its admission is what the store would give."""
    begun = start(admitted.id)
    begun.changed[admitted.id] = JobChange(admitted.id, JobState.RUNNING, b"", 1, admitted.submitted)
    await daemon.store.commit(together(admission(admitted), begun))
    kind = list(KINDS)[admitted.new.kind]
    assert as_stored(admitted, kind, 1) == await daemon.store.job(admitted.id)


async def test_counts_are_kept_across_attempts_and_become_the_ended_jobs(daemon: Daemon) -> None:
    await daemon.store.commit(admission(row(1, submission(ENRICH, total=10))))
    await daemon.store.commit(start(1))
    await daemon.progress(1, 1, Counts(10, 4, 1), "calling snov")
    running = await daemon.store.job(JobId(1))
    assert running is not None
    assert (running.counts, running.activity, running.attempt) == (Counts(10, 4, 1), "calling snov", 1)
    again = start(1, attempt=2)
    again.slots_taken.clear()
    await daemon.store.commit(again)
    resumed = await daemon.store.job(JobId(1))
    assert resumed is not None
    assert (resumed.counts, resumed.attempt) == (Counts(10, 4, 1), 2)
    await daemon.store.commit(end(1, JobState.PARTIAL, slot=0))
    ended = await daemon.store.job(JobId(1))
    assert ended is not None
    assert (ended.counts, ended.attempt, ended.started, ended.activity) == (Counts(10, 4, 1), 2, T + 1_000, "")


async def test_the_counts_that_a_decision_brings_win_over_those_of_the_attempt(daemon: Daemon) -> None:
    await daemon.store.commit(together(admission(row(1, submission(ENRICH, total=10))), start(1)))
    await daemon.progress(1, 1, Counts(10, 4))
    await daemon.store.commit(end(1, counts=Counts(10, 9, 1), slot=0))
    ended = await daemon.store.job(JobId(1))
    assert ended is not None
    assert ended.counts == Counts(10, 9, 1)


async def test_the_attempt_of_a_job_that_was_started_before_a_restart_is_gone_with_its_end(
    place: Place, daemon: Daemon
) -> None:
    await daemon.store.commit(together(admission(row(1, submission(ENRICH, total=3))), start(1)))
    await daemon.progress(1, 1, Counts(3, 2))
    await daemon.crash()
    successor = place.daemon()
    await rule(successor)
    await successor.store.commit(end(1, JobState.FAILED, slot=0))
    ended = await successor.store.job(JobId(1))
    assert ended is not None
    assert ended.counts == Counts(3, 2)
    with pytest.raises(AttemptRetired):
        await successor.progress(1, 1, Counts(3, 3))


async def test_what_a_retired_attempt_still_writes_is_refused(daemon: Daemon) -> None:
    await daemon.store.commit(together(admission(row(1, submission(ENRICH))), start(1)))
    await daemon.progress(1, 1, Counts(5, 1))
    again = start(1, attempt=2)
    again.slots_taken.clear()
    await daemon.store.commit(again)
    with pytest.raises(AttemptRetired):
        await daemon.progress(1, 1, Counts(5, 5))
    await daemon.progress(1, 2, Counts(5, 2))
    stored = await daemon.store.job(JobId(1))
    assert stored is not None
    assert stored.counts == Counts(5, 2)


async def test_a_fenced_daemons_attempts_write_nothing(place: Place, daemon: Daemon) -> None:
    await daemon.store.commit(together(admission(row(1, submission(ENRICH))), start(1)))
    await rule(place.daemon(), "successor", force=True)
    with pytest.raises(Fenced):
        await daemon.progress(1, 1, Counts(5, 5))


async def test_a_slot_cannot_hold_two_jobs(daemon: Daemon) -> None:
    await daemon.store.commit(admission(row(1, submission(ENRICH)), row(2, submission(ENRICH))))
    await daemon.store.commit(start(1))
    with pytest.raises(Contradiction):
        await daemon.store.commit(start(2))
    second = await daemon.store.job(JobId(2))
    assert second is not None
    assert second.state is JobState.QUEUED, "nothing of the decision is kept"


async def test_a_slot_passes_from_one_job_to_the_next_in_one_decision(daemon: Daemon) -> None:
    await daemon.store.commit(admission(row(1, submission(ENRICH)), row(2, submission(ENRICH))))
    await daemon.store.commit(start(1))
    await daemon.store.commit(together(end(1, slot=0), start(2)))
    assert (await rule(daemon)).slots == [SlotRow(ACME, Family.TABLES, 0, JobId(2))]


async def test_a_slot_is_freed_by_its_holder_only(daemon: Daemon) -> None:
    await daemon.store.commit(together(admission(row(1), row(2)), start(1)))
    with pytest.raises(Contradiction):
        await daemon.store.commit(end(2, slot=0))
    assert await live(daemon) == [1, 2]


@pytest.mark.parametrize(
    "wrong",
    [
        Records(admitted=[row(1)]),
        Records(changed={JobId(9): JobChange(JobId(9), JobState.QUEUED, b"", 0, None)}),
        end(9),
        together(*(end(number) for number in range(1, 40))),
        start(9),
    ],
    ids=["a job twice", "a change of nothing", "an end of nothing", "ends of too many", "a start of nothing"],
)
async def test_records_that_do_not_fit_what_is_stored_are_refused_whole(daemon: Daemon, wrong: Records) -> None:
    await daemon.store.commit(admission(row(1)))
    with pytest.raises(Contradiction):
        await daemon.store.commit(together(admission(row(2)), wrong))
    assert await live(daemon) == [1]
    await daemon.store.commit(admission(row(3)))


async def test_a_statement_of_a_slice_is_part_of_the_admission(place: Place, daemon: Daemon) -> None:
    noting = submission(ENRICH, statements=(Statement("note", (THIS_JOB, "a")), Statement("note", (THIS_JOB, "b"))))
    await daemon.store.commit(admission(row(5, noting), row(6, noting)))
    assert await place.noted() == [(5, "a"), (5, "b"), (6, "a"), (6, "b")]
    with pytest.raises(Contradiction):
        await daemon.store.commit(admission(row(7, submission(statements=(Statement("unheard of", ()),)))))
    assert await live(daemon) == [5, 6]


async def test_a_jobs_story_is_told_in_order(daemon: Daemon) -> None:
    lines = [HistoryRow(JobId(1), Instant(T), word, "detail") for word in ("admitted", "started", "stalled")]
    await daemon.store.commit(together(admission(row(1)), Records(history=lines[:2])))
    await rule(daemon)
    await daemon.store.commit(Records(history=[lines[2], HistoryRow(JobId(2), Instant(T), "of another")]))
    assert await daemon.store.history(JobId(1)) == lines


# ----------------------------------------------------------------------------------------------------------------- keys


async def test_a_key_stands_for_its_job_live_or_ended(daemon: Daemon) -> None:
    keyed = submission(key=key("order-17"))
    await daemon.store.commit(together(admission(row(1, keyed)), end(2, admitted=row(2, submission(key=key("done"))))))
    known = await daemon.store.known_keys(
        [("acme", hashed("order-17")), ("acme", hashed("done")), ("beta", hashed("done")), ("new", hashed("x"))]
    )
    assert known == {
        ("acme", hashed("order-17")): KnownKey(JobId(1), b"body", JobState.QUEUED),
        ("acme", hashed("done")): KnownKey(JobId(2), b"body", JobState.COMPLETED),
    }
    assert await daemon.store.known_keys([]) == {}


async def test_the_same_key_of_another_teamspace_is_another_key(daemon: Daemon) -> None:
    keyed = submission(key=key("order-17"))
    await daemon.store.commit(admission(row(1, keyed), row(2, keyed, teamspace=BETA)))
    known = await daemon.store.known_keys([("beta", hashed("order-17"))])
    assert known["beta", hashed("order-17")].job == 2


async def test_keys_of_a_teamspace_that_came_in_with_them_are_known(daemon: Daemon) -> None:
    newcomer = row(1, submission(key=key("first")), teamspace=ACME)
    await daemon.store.commit(admission(newcomer))
    await rule(daemon)
    assert set(await daemon.store.known_keys([("acme", hashed("first"))])) == {("acme", hashed("first"))}


@pytest.mark.parametrize("jobs", [1, 100])
async def test_a_key_that_is_in_force_is_never_given_to_another_job(daemon: Daemon, jobs: int) -> None:
    first = [row(number, submission(key=key(f"k{number}"))) for number in range(1, jobs + 1)]
    await daemon.store.commit(admission(*first))
    second = [row(1_000 + job.id, job.new) for job in first]
    with pytest.raises(Contradiction):
        await daemon.store.commit(admission(*second))
    assert await live(daemon) == [job.id for job in first]


@pytest.mark.parametrize("jobs", [1, 100])
async def test_a_key_that_has_expired_makes_room(place: Place, daemon: Daemon, jobs: int) -> None:
    first = [row(number, submission(key=key(f"k{number}"))) for number in range(1, jobs + 1)]
    await daemon.store.commit(admission(*first))
    await place.expire_keys()
    asked = [("acme", hashed(f"k{job.id}")) for job in first]
    assert await daemon.store.known_keys(asked) == {}
    await daemon.store.commit(admission(*(row(1_000 + job.id, job.new) for job in first)))
    assert (await daemon.store.known_keys(asked))[asked[-1]].job == 1_000 + jobs


# --------------------------------------------------------------------------------------------------------------- chains


async def test_a_chains_counts_are_its_steps_sums_while_it_runs_and_when_it_has_ended(daemon: Daemon) -> None:
    step = submission(ENRICH)
    chain = submission(CHAIN, steps=(step, step, step))
    await daemon.store.commit(
        admission(
            row(1, chain),
            row(2, submission(ENRICH, total=5), chain=1, step=0),
            row(3, submission(ENRICH), chain=1, step=1),
            row(4, submission(ENRICH, total=3), chain=1, step=2),
        )
    )
    await daemon.store.commit(start(2))
    await daemon.progress(2, 1, Counts(5, 4, 1))
    await daemon.store.commit(together(end(2, JobState.PARTIAL, slot=0), start(3)))
    await daemon.progress(3, 1, Counts(4, 2, 0, 1))
    halfway = await daemon.store.job(JobId(1))
    assert halfway is not None
    assert halfway.counts == Counts(12, 6, 1, 1)
    steps = await daemon.store.steps(JobId(1))
    assert [(one.id, one.chain, one.step, one.counts.total) for one in steps] == [
        (2, 1, 0, 5), (3, 1, 1, 4), (4, 1, 2, 3),
    ]  # fmt: skip
    await daemon.store.commit(together(end(3, slot=0), end(4, JobState.SKIPPED), end(1, JobState.PARTIAL)))
    over = await daemon.store.job(JobId(1))
    assert over is not None
    assert (over.counts, over.state) == (Counts(12, 6, 1, 1), JobState.PARTIAL)
    assert [one.id for one in await daemon.store.steps(JobId(1))] == [2, 3, 4]
    await daemon.store.commit(admission(row(5, submission(CHAIN, steps=(step,))), row(6, step, chain=5, step=0)))
    assert [one.id for one in await daemon.store.steps(JobId(5), JobId(1))] == [2, 3, 4, 6]
    assert await daemon.store.steps() == []
    await daemon.store.commit(together(end(6, JobState.SKIPPED), end(5, JobState.SKIPPED)))
    assert [job.counts for job in await daemon.store.jobs(JobFilter(before=JobId(5), limit=4))][-1] == over.counts


# ------------------------------------------------------------------------------------------------------------- listings


async def test_jobs_come_newest_first_live_and_ended_together_in_pages(daemon: Daemon) -> None:
    await daemon.store.commit(admission(*(row(number) for number in range(1, 11))))
    await daemon.store.commit(together(*(end(number) for number in (2, 5, 6, 9))))
    assert await listed(daemon) == list(range(10, 0, -1))
    pages, before = [], None
    while page := await listed(daemon, JobFilter(before=before, limit=4)):
        pages.append(page)
        before = JobId(page[-1])
    assert pages == [[10, 9, 8, 7], [6, 5, 4, 3], [2, 1]]


async def test_jobs_are_listed_by_teamspace_table_family_state_and_user(daemon: Daemon) -> None:
    on_table = submission(ENRICH, table=TableId(7), uid=1_000)
    await daemon.store.commit(
        admission(
            row(1, on_table),
            row(2, on_table, teamspace=BETA),
            row(3, submission(OUTREACH)),
            row(4, on_table),
            row(5, submission(NOOP, uid=1_000)),
            row(6, submission(ENRICH, table=TableId(8)), teamspace=BETA),
            row(7),
        )
    )
    await daemon.store.commit(together(end(1), end(2, JobState.FAILED), end(5), end(3, JobState.CANCELLED)))
    assert await listed(daemon, JobFilter(teamspace="acme")) == [7, 5, 4, 3, 1]
    assert await listed(daemon, JobFilter(teamspace="nobody")) == []
    assert await listed(daemon, JobFilter(table=TableId(7))) == [4, 2, 1]
    assert await listed(daemon, JobFilter(families=(Family.TABLES,))) == [6, 4, 2, 1]
    assert await listed(daemon, JobFilter(families=(Family.NOOP, Family.OUTREACH))) == [7, 5, 3]
    assert await listed(daemon, JobFilter(families=(Family.BATCH,))) == []
    assert await listed(daemon, JobFilter(states=(JobState.COMPLETED,))) == [5, 1]
    assert await listed(daemon, JobFilter(states=(JobState.QUEUED, JobState.FAILED))) == [7, 6, 4, 2]
    assert await listed(daemon, JobFilter(uid=1_000)) == [5, 4, 2, 1]
    assert await listed(daemon, JobFilter(uid=1)) == []
    both = JobFilter(teamspace="acme", families=(Family.TABLES,), states=(JobState.COMPLETED, JobState.QUEUED))
    assert await listed(daemon, both) == [4, 1]
    assert await listed(daemon, JobFilter(table=TableId(7), states=(JobState.FAILED,), uid=1_000)) == [2]
    assert await listed(daemon, JobFilter(teamspace="beta", before=JobId(6))) == [2]


async def test_completed_noops_are_listed_as_far_as_is_looked_back(daemon: Daemon) -> None:
    far = 1 + LOOK_BACK_JOBS
    await daemon.store.commit(admission(row(1), row(2), row(3, submission(ENRICH)), row(far)))
    await daemon.store.commit(together(end(1), end(2, JobState.FAILED), end(3), end(far)))
    assert await listed(daemon) == [far, 3, 2]
    assert await listed(daemon, JobFilter(teamspace="acme")) == [far, 3, 2]
    assert await listed(daemon, JobFilter(before=JobId(far - 1))) == [3, 2, 1]
    assert await daemon.store.job(JobId(1)) is not None


async def test_jobs_of_a_user_are_listed_down_to_the_one_that_he_knows(daemon: Daemon) -> None:
    mine, far = submission(uid=5), LOOK_BACK_JOBS + 10
    await daemon.store.commit(admission(row(1, mine), row(2, mine), row(3, mine), row(4), row(far, mine), row(far + 1)))
    await daemon.store.commit(together(end(1), end(2), end(4), end(far)))
    assert await listed(daemon, JobFilter(uid=5)) == [far, 3], "3 is live; no index leads to 1 and 2"
    assert await listed(daemon, JobFilter(uid=5, after=JobId(1))) == [far, 3, 2]
    assert await listed(daemon, JobFilter(uid=5, after=JobId(0), states=(JobState.COMPLETED,))) == [far, 2, 1]
    assert await listed(daemon, JobFilter(after=JobId(2))) == [far + 1, far, 4, 3]
    assert await listed(daemon, JobFilter(teamspace="acme", after=JobId(3), before=JobId(far))) == [4]


async def test_there_is_no_job_that_was_never_admitted(daemon: Daemon) -> None:
    assert await daemon.store.job(JobId(1)) is None
    assert await daemon.store.steps(JobId(1)) == []
    assert await daemon.store.history(JobId(1)) == []


# ------------------------------------------------------------------------------------------------------- the fake's own


def test_the_contract_is_run_on_a_fake_that_nobody_in_the_daemon_imports() -> None:
    daemon = Path(__file__).parents[2] / "daemon"
    assert not [file for file in daemon.rglob("*.py") if "tests.fakes" in file.read_text(encoding="utf-8")]
