"""Which steps of a chain are run again, and what each takes over."""

import pytest

from leadline.actors.chain_reruns import FRESH, Again, again, first_unfinished
from leadline.core.model import Counts, JobState
from leadline.ports.store import StoredJob
from leadline.ports.work import Rerun
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import Instant, JobId


def step(
    number: int, state: JobState, *, kind: str = "enrich", attempt: int = 1, reason: JobReason | None = None
) -> StoredJob:
    return StoredJob(
        id=JobId(number), order=0, teamspace="acme", kind=kind, state=state, submitted=Instant(0), run_at=None,
        started=None, ended=None, attempt=attempt, counts=Counts(), activity="", reason=reason, message="", table=None,
        chain=JobId(1), step=number - 2, rerun_of=None, uid=None, notify=False, warnings=b"", payload=b"",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("second", "finished"),
    [
        (step(3, JobState.COMPLETED), True),
        (step(3, JobState.SKIPPED, attempt=0, reason=JobReason.GUARD_EMPTY), True),
        (step(3, JobState.PARTIAL, kind="upload"), True),
        (step(3, JobState.PARTIAL), False),
        (step(3, JobState.FAILED), False),
        (step(3, JobState.CANCELLED), False),
        (step(3, JobState.SKIPPED, attempt=0, reason=JobReason.PREVIOUS_STEP_FAILED), False),
    ],
)
def test_a_rerun_begins_with_the_first_step_that_has_something_left_to_do(second: StoredJob, finished: bool) -> None:
    steps = [step(2, JobState.COMPLETED), second, step(4, JobState.COMPLETED)]
    assert first_unfinished(steps) == (None if finished else 1)


def test_the_first_step_goes_over_its_own_list_and_those_behind_leave_out_what_was_answered() -> None:
    steps = [step(2, JobState.PARTIAL), step(3, JobState.COMPLETED)]
    first, second = Again(Rerun(JobId(2), "unfinished"), JobId(2)), Again(None, JobId(3))
    assert again(steps, "unfinished") == [first, second]
    assert again(steps, "all") == [Again(Rerun(JobId(2), "all"), JobId(2)), FRESH]


def test_a_first_step_that_never_started_has_no_list_to_go_over() -> None:
    never = step(2, JobState.SKIPPED, attempt=0, kind="upload", reason=JobReason.PREVIOUS_STEP_FAILED)
    assert again([never], "unfinished") == [Again(None, JobId(2))]
