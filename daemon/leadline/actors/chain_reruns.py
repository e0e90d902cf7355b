"""A chain that is run again: which steps, and what each takes over from the one that it repeats. Pure.

The steps before the first one are taken for what they are. The first step repeats a job as every rerun does: it goes
over those leads of that job's list that are wanted again, so over the same list. The steps behind it find out anew
which leads match, because what is done again may change that; but they leave out the leads about which the step that
they repeat was answered already. So nothing is paid for twice, however often a chain is run again, unless `all` is
what was asked for.
"""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from leadline.core.model import JobState
from leadline.ports.store import StoredJob
from leadline.ports.work import Rerun
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import JobId

UPLOAD: Final = "upload"


class Again(Struct, frozen=True):
    """What a step takes over."""

    rerun: Rerun | None = None
    """The leads of a job that are wanted again."""
    rerun_of: JobId | None = None
    """The job that it repeats; of its leads those that were answered about are left out."""


FRESH: Final = Again()
"""Nothing: a step that repeats none."""


def first_unfinished(steps: Sequence[StoredJob]) -> int | None:
    """The place of the first step that has something left to do, from 0; None where none has.

    Rows that an upload refused are handed in with another file, not by a rerun. A step that a guard or a condition
    skipped has had its say; one that an earlier step's end skipped has not.
    """
    for place, step in enumerate(steps):
        match step.state:
            case JobState.COMPLETED:
                continue
            case JobState.PARTIAL if step.kind == UPLOAD:
                continue
            case JobState.SKIPPED if step.reason != JobReason.PREVIOUS_STEP_FAILED:
                continue
            case _:
                return place
    return None


def again(steps: Sequence[StoredJob], leads: str) -> list[Again]:
    """What the steps of the new chain take over from these, the first of which is where it begins."""
    taken: list[Again] = []
    for place, step in enumerate(steps):
        if place == 0 and step.attempt:
            taken.append(Again(Rerun(step.id, leads), step.id))
        else:
            taken.append(FRESH if leads == "all" else Again(None, step.id))
    return taken
