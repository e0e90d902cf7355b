"""The order of a chain's steps: whose turn it is, what an end means for those that follow, how the chain itself ends.

The chain is a job of its own that holds no slot; it is as far as its steps are. Each step waits with `previous_step`
until those before it have ended. What is left of a chain after a restart is what the database has of it as live, so
everything here is a function of the steps that have not ended.
"""

from typing import Final

from leadline.core.lifecycle import Trigger
from leadline.core.model import Chain, JobState
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import JobId

_LEAST_GOOD: Final = [JobState.COMPLETED, JobState.SKIPPED, JobState.PARTIAL, JobState.CANCELLED, JobState.FAILED]
_ENDINGS: Final = {
    JobState.COMPLETED: Trigger.COMPLETE,
    JobState.SKIPPED: Trigger.COMPLETE,
    JobState.PARTIAL: Trigger.FINISH_PARTLY,
    JobState.CANCELLED: Trigger.FAIL,
    JobState.FAILED: Trigger.FAIL,
}


def take_out(chain: Chain, step: JobId, state: JobState) -> tuple[JobId, ...]:
    """A step has ended, be it in its turn or before: returns the later steps that will not run for that reason."""
    place = chain.left.index(step)
    before, after = chain.left[:place], chain.left[place + 1 :]
    if _LEAST_GOOD.index(state) > _LEAST_GOOD.index(chain.worst):
        chain.worst = state
    if chain.stop_on_failure and state in {JobState.FAILED, JobState.CANCELLED}:
        chain.left = before
        return after
    chain.left = before + after
    return ()


def ending(chain: Chain, state: JobState) -> tuple[Trigger, JobReason | None]:
    """How the chain ends, its last step having ended, from the state it is in."""
    if state is not JobState.RUNNING:
        return Trigger.CANCEL, JobReason.CANCELLED
    trigger = _ENDINGS[chain.worst]
    return trigger, JobReason.PREVIOUS_STEP_FAILED if trigger is Trigger.FAIL else None
