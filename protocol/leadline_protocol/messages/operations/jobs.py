"""Looking at jobs, following them, and having them end or run again."""

from typing import Annotated, Literal

from msgspec import Meta, field

from leadline_protocol.ids import JobId
from leadline_protocol.messages.operations.base import ControlOperation, Operation
from leadline_protocol.messages.replies.base import Done
from leadline_protocol.messages.replies.jobs import Changed, HistoryReply, JobList, JobReply, WhyReply
from leadline_protocol.messages.replies.submissions import Receipt
from leadline_protocol.messages.words import INT64_MAX, Family, Id, Name, State


class Get(Operation[JobReply], tag="get", frozen=True, kw_only=True):
    """One job; on the submit socket only of the peer's own."""

    job: Id


class Follow(Operation[Done], tag="follow", frozen=True, kw_only=True):
    """Send an `ended` notice for jobs that this peer's uid submitted.

    With `job`: that one, at once if it has ended. With `since`: every job with a greater id, those that have ended at
    once and the others as they end; a service that keeps the lowest id it has no outcome of misses none across
    restarts. With neither: every job that ends from now on.
    """

    job: Id | None = None
    since: Annotated[JobId, Meta(ge=0, le=INT64_MAX)] | None = None

    def __post_init__(self) -> None:
        if self.job is not None and self.since is not None:
            raise ValueError("give job or since, not both")


class Jobs(ControlOperation[JobList], tag="jobs", frozen=True, kw_only=True):
    """A page of jobs, newest first."""

    teamspace: Name | None = None
    state: State | None = None
    states: list[State] = field(default_factory=list)
    """In one of these, and of `state`; empty: in any."""
    family: Family | None = None
    table: Name | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 50
    before: Id | None = None
    """The `next` of the page before."""
    nested: bool = False
    """A chain stands for its steps, which come in `steps`; one that has not ended is none of the ended ones, whatever
    its steps are. Noops are left out unless `family` asks for them. A page may then have fewer jobs than `limit`, and
    yet not be the last."""
    explained: Annotated[int, Meta(ge=0, le=100)] = 0
    """So many of the jobs that wait, the first of the page, have in `waits` all that `why` says, and `jobs_ahead` and
    `eta`; where many jobs are ahead, `jobs_ahead` may be too high."""


class Job(ControlOperation[JobReply], tag="job", frozen=True, kw_only=True):
    """One job with what was submitted."""

    job: Id
    refused_after: Annotated[int, Meta(ge=0, le=INT64_MAX)] | None = None
    """With the rows of an upload that were not taken, from behind this row number on: at most 1,000, fewer where they
    are long."""
    leads_after: Annotated[int, Meta(ge=0, le=INT64_MAX)] | None = None
    """With the leads that it is through with and has not done, from behind this one on: at most 1,000, fewer where they
    are long."""


class Why(ControlOperation[WhyReply], tag="why", frozen=True, kw_only=True):
    """All that keeps a job from starting or going on, with numbers."""

    job: Id


class History(ControlOperation[HistoryReply], tag="history", frozen=True, kw_only=True):
    """How a job came to where it is."""

    job: Id


class Cancel(ControlOperation[Changed], tag="cancel", frozen=True, kw_only=True):
    """End a job: no new leads; calls in flight may finish unless `force`."""

    job: Id
    force: bool = False
    """Close it at once; answers that come later are refused."""


class Rerun(ControlOperation[Receipt], tag="rerun", frozen=True, kw_only=True):
    """A new job over leads of an ended one; of a chain, a new chain."""

    job: Id
    leads: Literal["unfinished", "failed", "all"] = "unfinished"
    """`unfinished`: all that are neither done nor skipped."""
    from_step: Annotated[int, Meta(ge=1, le=100)] | None = None
    """Of a chain: the step to begin with, from 1; absent: the first that is not finished."""


class Watch(ControlOperation[Done], tag="watch", frozen=True, kw_only=True):
    """Send notices of what happens to one job until it has ended, or to all."""

    job: Id | None = None
