"""Pages of jobs: each job by itself, or a chain in place of its steps.

The ids of a chain's steps follow its own, so that in a list with the newest first a chain comes right behind its
steps. A page therefore ends between two chains, never within one, and the next begins below the chain's own id.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct

from leadline.actors.supervisor import CHAIN
from leadline.core.model import ENDED, Family
from leadline.ports.store import JobFilter, Store, StoredJob
from leadline_protocol.ids import JobId

READS_MAX: Final = 5
"""Questions to the store for one page: steps of long chains may fill one after the other."""


_TELLING: Final = (Family.TABLES, Family.BATCH, Family.OUTREACH)


class Listing(Struct, frozen=True):
    """A page of jobs, newest first."""

    jobs: Sequence[StoredJob]
    following: JobId | None
    """Below it the next page begins; None: there is none."""
    steps: Sequence[StoredJob] = ()
    """Of the page's chains."""


async def page(store: Store, which: JobFilter) -> Listing:
    """A page of jobs, each by itself. Raises what the store raises."""
    found = await store.jobs(msgspec.structs.replace(which, limit=which.limit + 1))
    jobs = found[: which.limit]
    return Listing(jobs, jobs[-1].id if len(found) > which.limit else None)


async def nested_page(store: Store, which: JobFilter) -> Listing:
    """A page of jobs in which chains stand for their steps. Raises what the store raises.

    A chain stands there if it or a step of it is one of those asked for. But a chain that goes on is none of the ended
    ones. Noops, which tell nobody anything, are left out unless they are asked for.
    """
    which = msgspec.structs.replace(which, families=which.families or _TELLING)
    jobs: list[StoredJob] = []
    before = which.before
    only_ended = bool(which.states) and ENDED.issuperset(which.states)
    for _ in range(READS_MAX):
        found = await store.jobs(msgspec.structs.replace(which, before=before, limit=which.limit + 1))
        tops = await _tops(store, found)
        jobs += [job for job in tops if not only_ended or job.state in ENDED]
        if len(jobs) > which.limit or len(found) <= which.limit:
            break
        before = _top(found[-1])
    else:
        return await _with_steps(store, jobs, before)
    following = jobs[which.limit - 1].id if len(jobs) > which.limit else None
    return await _with_steps(store, jobs[: which.limit], following)


async def _tops(store: Store, found: Sequence[StoredJob]) -> Sequence[StoredJob]:
    """The same jobs with a chain in the place of its steps, newest first."""
    by_id = {job.id: job for job in found}
    numbers = list(dict.fromkeys(map(_top, found)))
    missing = [number for number in numbers if number not in by_id]
    if missing:
        by_id |= await store.jobs_by_id(missing)
    return [by_id[number] for number in numbers if number in by_id]


def _top(job: StoredJob) -> JobId:
    """The chain of a step; else the job itself."""
    return job.id if job.chain is None else job.chain


async def _with_steps(store: Store, jobs: Sequence[StoredJob], following: JobId | None) -> Listing:
    chains = [job.id for job in jobs if job.kind == CHAIN.name]
    return Listing(jobs, following, await store.steps(*chains) if chains else ())
