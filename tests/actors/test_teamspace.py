"""How fast an attempt goes is told of the attempt itself, whatever earlier ones have done."""

from collections.abc import Callable

from leadline.actors.dispatcher import Dispatcher
from leadline.actors.provider import Permit
from leadline.actors.teamspace import RunningAttempt
from leadline.core.events import CallAsked
from leadline.core.model import SECOND, Counts, Family, JobState, Kind, Limits, Now, Rules
from leadline.core.scheduler import Scheduler
from leadline.ports.store import StoredJob
from leadline_protocol.ids import Instant, JobId
from tests.actors.test_dispatcher import Recorder
from tests.fakes.store import FakeStore

KINDS = (Kind(0, "sleep", Family.TABLES),)


class SetClock:
    """A clock that is set by hand."""

    seconds = 0

    def now(self) -> Now:
        return Now(Instant(self.seconds * SECOND), Instant(self.seconds * SECOND))


class Nobody:
    """Hears of progress and does nothing."""

    def progressed(self, job: JobId) -> None: ...


async def no_permit(_: CallAsked, __: Callable[[], bool]) -> Permit:
    raise AssertionError("no call is made in these tests")


def stored(counts: Counts) -> StoredJob:
    return StoredJob(
        id=JobId(1), order=1, teamspace="acme", kind="sleep", state=JobState.RUNNING, submitted=Instant(1), run_at=None,
        started=None, ended=None, attempt=2, counts=counts, activity="", reason=None, message="", table=None,
        chain=None, step=None, rerun_of=None, uid=None, notify=False, warnings=b"", payload=b"",
    )  # fmt: skip


def test_the_rate_counts_what_this_attempt_has_brought_to_an_end() -> None:
    clock = SetClock()
    scheduler = Scheduler(KINDS, Rules({}, Limits({Family.TABLES: 1})))
    dispatcher = Dispatcher(scheduler, FakeStore(), clock, Recorder(), last_call=0)
    earlier = Counts(total=100, done=50)
    attempt = RunningAttempt(stored(earlier), 2, dispatcher, clock, no_permit, Nobody())
    assert attempt.leads_per_second() is None
    clock.seconds = 4
    assert attempt.leads_per_second() is None
    attempt.progressed(Counts(total=100, done=57, failed=2, skipped=1))
    assert attempt.leads_per_second() == 2.5
    clock.seconds = 8
    assert attempt.leads_per_second() == 1.25
