"""Whether a step of a chain is wanted, from how the one before it ended. Pure.

It is judged when the step has its turn, by what is stored of the two: the same for every attempt, as the step before
has ended for good.
"""

import msgspec
from msgspec import Struct

from leadline.core.model import Counts, JobState
from leadline.ports.store import StoredJob
from leadline.ports.work import Finished
from leadline_protocol.errors import JobReason
from leadline_protocol.messages import When


class _Step(Struct, frozen=True):
    when: When | None = None


class _Chain(Struct, frozen=True):
    steps: tuple[_Step, ...] = ()


_CHAIN = msgspec.json.Decoder(_Chain)


def condition_of(chain: StoredJob, step: int) -> When | None:
    """What the submission of a chain says of a step, counted from 0."""
    return _CHAIN.decode(chain.payload).steps[step].when


def unwanted(when: When, before: StoredJob) -> Finished | None:
    """The end of a step whose condition does not hold of the one before it; None where it holds."""
    why = _unmet(when, before)
    return None if why is None else Finished(JobState.SKIPPED, Counts(), JobReason.WHEN, why)


def _unmet(when: When, before: StoredJob) -> str | None:
    counts = before.counts
    failed = counts.failed + counts.unknown
    if when.ended is not None and before.state.value not in when.ended:
        return f"the step before it ended {before.state}, not {' or '.join(when.ended)}"
    if when.done_at_least is not None and counts.done < when.done_at_least:
        return f"{counts.done} leads of the step before it are done, fewer than {when.done_at_least}"
    if when.failed_at_most is not None and failed > when.failed_at_most:
        return f"{failed} leads of the step before it failed, more than {when.failed_at_most}"
    return None
