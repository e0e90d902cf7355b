"""What main() is given: the same for each attempt at a run, but for the number of the retry."""

import pytest

from leadline.core.quota.ledger import BatchJobId
from leadline.features.batch.invocation import event_of
from leadline.features.batch.ports import StoredRun
from leadline_protocol.ids import Instant, JobId
from leadline_protocol.messages import Batch


@pytest.mark.parametrize(("due", "source"), [(None, "api"), (Instant(7), "scheduler")])
@pytest.mark.parametrize("retry", [0, 1])
def test_the_event_says_who_wanted_the_run_and_which_attempt_this_is(
    due: Instant | None, source: str, retry: int
) -> None:
    run = StoredRun(JobId(41), b"token", BatchJobId(1), "nightly", "acme", due, 1, None, None, None)
    submission = Batch(teamspace="acme", batch_job="nightly", body=[1], query_string_parameters={"day": "mon"})
    assert event_of(submission, run, retry) == {
        "body": [1],
        "query_string_parameters": {"day": "mon"},
        "source": source,
        "job_name": "nightly",
        "job_instance_id": 41,
        "retry_attempt": retry,
    }
