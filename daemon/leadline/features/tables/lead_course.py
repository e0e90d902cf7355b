"""One lead's way through a provider: what follows from what, pure, so that every turn of it can be tested.

    ask ──▶ answered ──▶ settled                       the usual way
             │  ├──▶ pause, ask for the result          the provider works on it (poll)
             │  ├──▶ ask for the next page              a long list of results (read)
             │  ├──▶ ask again                          thrown back: no try is used up, the account makes everyone wait
             │  ├──▶ pause, ask again                   a server error, a broken answer: three tries in all
             │  └──▶ ask once more, with the fault      an answer of another type than was asked for (prompts)
             └─▶ lost: nobody knows                     what the provider's policy says

What is counted where matters. Being thrown back, and polling, are no tries. A call cut off by a crash or a kill of
ours is not the lead's fault and uses nothing up; it is only counted whether the lead was in flight at two stall
kills, because then it is the lead that hangs. After an end that nobody knows, `retry_once` asks once more and no
more.
"""

from collections.abc import Sequence
from typing import Final, Literal

from msgspec import Struct

from leadline.core.model import SECOND
from leadline.core.retry import Backoff
from leadline.features.tables.columns import Cells
from leadline_protocol.errors import JobReason, LeadReason

Policy = Literal["retry_once", "hold", "reuse_id"]

TRIES: Final = Backoff(first_seconds=1.0, max_seconds=30.0, tries=3)
"""After three server errors, broken answers or failed connections the lead is given up."""

LOST: Final = "lost"
"""The cause with which a call is stored that ended by itself and nobody knows how."""

STALL_KILLS_MAX: Final = 2
"""A lead that was in flight at so many stall kills has failed."""


class Ask(Struct, frozen=True):
    """Make a request: for the lead, for the result of its task, for a page of that, or for a repaired answer."""

    what: Literal["start", "poll", "read", "repair"]
    page: str | None = None
    """Which page to read; None: the first."""


class Pause(Struct, frozen=True):
    """Wait, for a reason that is shown; then go on with `then`."""

    microseconds: int
    reason: JobReason
    then: Ask


class Settle(Struct, frozen=True):
    """The lead has reached its end."""

    state: Literal["done", "failed", "skipped", "unknown"]
    reason: LeadReason | None = None
    detail: str = ""
    cells: Cells = {}


Turn = Ask | Pause | Settle


class Course:
    """Where one lead is on its way; each method takes what happened and gives the next turn."""

    def __init__(
        self,
        policy: Policy,
        *,
        poll_seconds: float = 0.0,
        poll_first_seconds: float = 0.0,
        poll_wait_seconds: float = 0.0,
        poll_reason: JobReason = JobReason.POLL,
        task: str | None = None,
        waited_microseconds: int = 0,
    ) -> None:
        """`task` is set for a lead whose order a provider took on before a restart, `waited_microseconds` ago."""
        self._policy = policy
        self._poll_microseconds = int(poll_seconds * SECOND)
        self._first_microseconds = int(max(poll_first_seconds, poll_seconds) * SECOND)
        self._patience_microseconds = int(poll_wait_seconds * SECOND)
        self._poll_reason = poll_reason
        self.task = task
        self._reading: Ask | None = None
        self._failures = 0
        self._lost = 0
        self._repaired = False
        self._waited = waited_microseconds
        self._open: str | None = None

    def begin(self, cut_off: Sequence[str], open_id: str | None = None) -> Turn:
        """The first turn of an attempt; `cut_off` are the causes by which earlier calls for this lead were cut off.

        `open_id` is that under which the last of them went, where nobody knows how it ended.
        """
        self._open = open_id
        if sum(cause == JobReason.STALLED for cause in cut_off) >= STALL_KILLS_MAX:
            return Settle("failed", LeadReason.STALLED, "in flight at two stall kills")
        if self.task is not None:  # whatever was lost besides, the order was taken
            early = self._first_microseconds - self._waited
            if early <= 0 or self._first_microseconds == self._poll_microseconds:
                return Ask("poll")
            self._waited = self._first_microseconds
            return Pause(early, self._poll_reason, Ask("poll"))
        self._lost = sum(cause == LOST for cause in cut_off)
        if self._lost > 1 and self._policy == "retry_once":
            return Settle("unknown", LeadReason.UNKNOWN_OUTCOME, "two calls were lost")
        if cut_off and self._policy == "hold":
            return Settle("unknown", LeadReason.UNKNOWN_OUTCOME, "a call was cut off; it is not repeated by itself")
        return Ask("start")

    def id_for(self, call_id: str) -> str:
        """Under which id a request goes: as long as nobody knows what became of the one before, under that one's."""
        self._open = self._open or call_id
        return self._open

    def answered(self) -> None:
        """There is an answer: what follows is another request."""
        self._open = None

    def done(self, cells: Cells) -> Turn:
        """The provider gave a result."""
        return Settle("done", cells=cells)

    def not_found(self) -> Turn:
        """The provider knows nothing of the lead."""
        return Settle("skipped", LeadReason.NOT_FOUND)

    def failed(self, reason: LeadReason, detail: str) -> Turn:
        """The provider refused this lead, or its answer is of no use; asking again would not help."""
        return Settle("failed", reason, detail)

    def pending(self, task: str | None) -> Turn:
        """The provider works on it; `task` is what a start answered."""
        pause = self._poll_microseconds
        if task is not None:
            self.task = task
            pause = self._first_microseconds
        if self._waited >= self._patience_microseconds:
            return Settle("failed", LeadReason.TIMED_OUT, "the provider did not finish in its time")
        self._waited += pause
        return Pause(pause, self._poll_reason, Ask("poll"))

    def ready(self, page: str | None = None) -> Turn:
        """The provider has done the work; its results, or the next page of them, are to be read."""
        self._reading = Ask("read", page)
        return self._reading

    def thrown_back(self) -> Turn:
        """The provider wants us to wait: the account does."""
        return self._same()

    def unusable(self, fault: str) -> Turn:
        """The answer to a prompt is not of the type that was asked for: one repair is asked for."""
        if self._repaired:
            return Settle("failed", LeadReason.BAD_OUTPUT, fault)
        self._repaired = True
        return Ask("repair")

    def broke(self, reason: LeadReason, detail: str, jitter: float) -> Turn:
        """It failed in a way that may pass: a server error, a broken answer, no connection."""
        self._failures += 1
        delay = TRIES.delay_microseconds(self._failures, jitter)
        if delay is None:
            return Settle("failed", reason, detail)
        return Pause(delay, JobReason.BACKOFF, self._same())

    def lost(self, detail: str, jitter: float) -> Turn:
        """The request left, or part of it, and nobody knows what became of it."""
        if self.task is not None:
            return self.broke(LeadReason.TIMED_OUT, detail, jitter)  # asking for a result again orders nothing
        self._lost += 1
        match self._policy:
            case "hold":
                return Settle("unknown", LeadReason.UNKNOWN_OUTCOME, detail)
            case "reuse_id":
                return self.broke(LeadReason.TIMED_OUT, detail, jitter)
            case "retry_once":
                if self._lost > 1:
                    return Settle("unknown", LeadReason.UNKNOWN_OUTCOME, detail)
                delay = TRIES.delay_microseconds(1, jitter)
                assert delay is not None, "there is a second try"
                return Pause(delay, JobReason.BACKOFF, self._same())

    def _same(self) -> Ask:
        if self._reading is not None:
            return self._reading
        if self.task is not None:
            return Ask("poll")
        return Ask("repair" if self._repaired else "start")
