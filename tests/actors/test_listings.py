"""Pages of jobs in which chains stand for their steps."""

from collections.abc import Mapping, Sequence
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from leadline.actors.listings import READS_MAX, nested_page
from leadline.core.model import ENDED, Counts, JobState
from leadline.ports.store import JobFilter, Store, StoredJob
from leadline_protocol.ids import Instant, JobId


class Kept:
    """What a store does for listings, over jobs in memory; counts the questions."""

    def __init__(self, jobs: Sequence[StoredJob]) -> None:
        self.all = jobs
        self.asked = 0

    async def jobs(self, which: JobFilter) -> Sequence[StoredJob]:
        self.asked += 1
        before = 10**9 if which.before is None else which.before
        newest = sorted((job for job in self.all if job.id < before), key=lambda job: -job.id)
        return [job for job in newest if not which.states or job.state in which.states][: which.limit]

    async def jobs_by_id(self, jobs: Sequence[JobId]) -> Mapping[JobId, StoredJob]:
        return {job.id: job for job in self.all if job.id in jobs}

    async def steps(self, *chains: JobId) -> Sequence[StoredJob]:
        return [job for job in self.all if job.chain in chains]


def job(number: int, state: JobState, *, kind: str = "enrich", chain: int | None = None) -> StoredJob:
    return StoredJob(
        id=JobId(number), order=0, teamspace="acme", kind=kind, state=state, submitted=Instant(0), run_at=None,
        started=None, ended=None, attempt=1, counts=Counts(), activity="", reason=None, message="", table=None,
        chain=None if chain is None else JobId(chain), step=None if chain is None else number - chain - 1,
        rerun_of=None, uid=None, notify=False, warnings=b"", payload=b"",
    )  # fmt: skip


STATES = st.sampled_from(list(JobState))


@st.composite
def stored(draw: st.DrawFn) -> Sequence[StoredJob]:
    """Jobs by themselves and chains, whose steps' ids follow their own."""
    jobs: list[StoredJob] = []
    for steps in draw(st.lists(st.integers(0, 9), max_size=12)):
        chain = len(jobs) + 1
        jobs.append(job(chain, draw(STATES), kind="chain" if steps else "enrich"))
        jobs += [job(chain + place, draw(STATES), chain=chain) for place in range(1, steps + 1)]
    return jobs


def tops(jobs: Sequence[StoredJob], states: Sequence[JobState]) -> Sequence[int]:
    """By the rule itself: every chain or job of which something is asked for, newest first."""
    by_id = {each.id: each for each in jobs}
    asked = {each.chain or each.id for each in jobs if not states or each.state in states}
    only_ended = bool(states) and ENDED.issuperset(states)
    return sorted((top for top in asked if not only_ended or by_id[top].state in ENDED), reverse=True)


@given(stored(), st.integers(1, 5), st.lists(STATES, max_size=3, unique=True))
async def test_page_by_page_each_chain_comes_once_with_all_its_steps(
    jobs: Sequence[StoredJob], limit: int, states: Sequence[JobState]
) -> None:
    kept = Kept(jobs)
    found: list[int] = []
    before: JobId | None = None
    while True:
        kept.asked = 0
        page = await nested_page(cast("Store", kept), JobFilter(states=tuple(states), before=before, limit=limit))
        assert len(page.jobs) <= limit
        assert kept.asked <= READS_MAX
        assert {step.id for step in page.steps} == {
            each.id for each in jobs if each.chain in {top.id for top in page.jobs}
        }
        found += [each.id for each in page.jobs]
        if page.following is None:
            break
        assert before is None or page.following < before
        before = page.following
    assert found == tops(jobs, states)
