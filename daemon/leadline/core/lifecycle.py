"""The life of a job as a table, and the one function that may change a job's state.

                      DUE                START              COMPLETE | FINISH_PARTLY | FAIL
    (admitted) delayed ───▶ queued ───────────────▶ running ───────────────────────────────▶ completed partial failed
                   │          ▲ │ ▲                   │ │
                   │          │ │ └──── YIELD ────────┘ │ STOP
                   │   REQUEUE│ │                       ▼
                   │          └─┼─────────────────── stopping ──── FAIL, CANCEL, COMPLETE ─▶ failed cancelled …
                   └────────────┴── CANCEL, SKIP ─────────────────────────────────────────▶ cancelled skipped

An arrow that is not in the table is illegal: asking for it is a bug, and the error tells where the job stood. An
attempt that is told to stop may have just ended by itself; that is why `stopping` may still complete.
"""

from enum import StrEnum
from typing import Final

from leadline.core.model import ENDED, Job, JobState


class Trigger(StrEnum):
    """What moves a job from one state to the next."""

    DUE = "due"
    START = "start"
    STOP = "stop"
    YIELD = "yield"
    REQUEUE = "requeue"
    COMPLETE = "complete"
    FINISH_PARTLY = "finish_partly"
    FAIL = "fail"
    CANCEL = "cancel"
    SKIP = "skip"


_ENDINGS: Final = {
    Trigger.COMPLETE: JobState.COMPLETED,
    Trigger.FINISH_PARTLY: JobState.PARTIAL,
    Trigger.FAIL: JobState.FAILED,
    Trigger.SKIP: JobState.SKIPPED,  # a guard looked at its list and skipped it before anything was done
}

TRANSITIONS: Final[dict[JobState, dict[Trigger, JobState]]] = {
    JobState.DELAYED: {
        Trigger.DUE: JobState.QUEUED,
        Trigger.CANCEL: JobState.CANCELLED,
        Trigger.SKIP: JobState.SKIPPED,
    },
    JobState.QUEUED: {
        Trigger.START: JobState.RUNNING,
        Trigger.CANCEL: JobState.CANCELLED,
        Trigger.SKIP: JobState.SKIPPED,
    },
    JobState.RUNNING: {
        Trigger.STOP: JobState.STOPPING,
        Trigger.YIELD: JobState.QUEUED,
        Trigger.CANCEL: JobState.CANCELLED,
        **_ENDINGS,
    },
    JobState.STOPPING: {
        Trigger.REQUEUE: JobState.QUEUED,
        Trigger.CANCEL: JobState.CANCELLED,
        **_ENDINGS,
    },
    **{state: {} for state in ENDED},
}


class IllegalTransition(AssertionError):
    """A bug: something asked for an arrow that the table does not have."""


def move(job: Job, trigger: Trigger) -> JobState:
    """Change the job's state by one arrow of the table and return the new state.

    Raises IllegalTransition where there is no such arrow.
    """
    after = TRANSITIONS[job.state].get(trigger)
    if after is None:
        raise IllegalTransition(f"job {job.id} is {job.state}: no {trigger} from there")
    job.state = after
    return after


def start_and_complete(job: Job) -> None:
    """Take the two arrows queued → running → completed at once, for a job without effects outside."""
    if job.state is not JobState.QUEUED:
        raise IllegalTransition(f"job {job.id} is {job.state}: it cannot start and complete")
    job.state = JobState.COMPLETED
