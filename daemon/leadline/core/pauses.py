"""What people have paused: the queue, a family, a teamspace, a provider, a job.

The scopes are independent of each other: a job goes on when every scope that holds it has been resumed. A chain's
pause holds its steps. A provider's pause is the account's own business (`provider_account`); it is only kept here.
"""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Final

from leadline.core.model import Family, Job
from leadline_protocol.ids import JobId

Pause = tuple[str, str]
"""Scope and name; the queue has no name."""


class Scope(StrEnum):
    """What can be paused."""

    QUEUE = "queue"
    FAMILY = "family"
    TEAMSPACE = "teamspace"
    PROVIDER = "provider"
    JOB = "job"


_WHOLE_QUEUE: Final[Pause] = (Scope.QUEUE, "")


class Pauses:
    """The pauses in force."""

    def __init__(self) -> None:
        self._pauses: set[Pause] = set()
        self._of_jobs = False
        """Whether there are any of single jobs or chains: nearly always there are none, and each job asks."""

    def __contains__(self, pause: Pause) -> bool:
        return pause in self._pauses

    def __iter__(self) -> Iterator[Pause]:
        return iter(sorted(self._pauses))

    def update(self, pauses: Iterable[Pause]) -> None:
        """Take over pauses that are stored."""
        self._pauses.update(pauses)
        self._look_for_jobs()

    def set(self, pause: Pause, *, paused: bool) -> bool:
        """Begin or end one; False: it was so before."""
        if paused == (pause in self._pauses):
            return False
        (self._pauses.add if paused else self._pauses.discard)(pause)
        self._look_for_jobs()
        return True

    def block(self, teamspace: str, family: Family) -> bool:
        """Whether no job of the teamspace and family may start."""
        pauses = self._pauses
        return bool(pauses) and (
            _WHOLE_QUEUE in pauses or (Scope.FAMILY, family.word) in pauses or (Scope.TEAMSPACE, teamspace) in pauses
        )

    def hold(self, job: Job) -> bool:
        """Whether the job itself, or its chain, is paused."""
        return self._of_jobs and any((Scope.JOB, str(number)) in self._pauses for number in _own_scopes(job))

    def _look_for_jobs(self) -> None:
        self._of_jobs = any(scope == Scope.JOB for scope, _ in self._pauses)


def _own_scopes(job: Job) -> Iterator[JobId]:
    yield job.id
    if job.details is not None and job.details.chain is not None:
        yield job.details.chain
