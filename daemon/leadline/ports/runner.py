"""Where tenants' Python runs.

Such code may do anything: what it is kept from, and how it is ended, is the runner's affair and not the code's. A run
has the name that it was started under for as long as the runner keeps it, and lives on when the daemon dies, however
that dies: its deadline is the runner's too. The next daemon adopts all runs that are kept, looks at each, and ends
those that it does not want. So whoever starts a run has stored its name before, and forgets it only once its end is
stored.

What a run cannot do by itself it asks the daemon for, and waits for the answer. A question is kept until it has one:
should the daemon die over it, it is put to the next. So what a question leads to has to bear being done twice, or has
to be stored under the names of run and question.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol

import msgspec
from msgspec import Struct

from leadline_protocol.errors import LeadlineError

LINE_BYTES_MAX: Final = 16 * 1024
"""A longer line of the log is cut."""

RESULT_BYTES_MAX: Final = 256 * 1024
"""A larger result is not kept."""

TRACEBACK_CHARACTERS_MAX: Final = 32 * 1024
"""Of a longer traceback the end is kept."""

QUESTION_BYTES_MAX: Final = 1 << 20
"""Who asks more at once is not listened to any longer."""

ANSWER_BYTES_MAX: Final = 16 << 20
"""The largest result of a question."""

QUESTIONS_MAX: Final = 16
"""So many may wait for their answers; what is asked beyond is listened to when one has come."""

INTERNET: Final = ("0.0.0.0/0",)


class CannotRun(LeadlineError):
    """No run was started; the message says what has to be done about it."""


class SandboxMissing(CannotRun):
    """There is nothing here that would hold untrusted code."""


class NetworkMissing(CannotRun):
    """There is nothing here that would let code reach the internet and nothing else."""


class RunExists(CannotRun):
    """There is a run of that name."""


class Limits(Struct, frozen=True):
    """What a run may take, all its processes together."""

    seconds: float
    """From the moment at which its code is loaded."""
    memory_bytes: int
    """What lies in its scratch folder counts."""
    processes: int
    """Threads count, as they do for the kernel."""
    disk_bytes: int
    """The size of its scratch folder: more cannot be written."""
    output_bytes: int
    """What it prints, as it prints it."""


class Product(Struct, frozen=True):
    """A file that a run makes, and that is there when it has ended."""

    path: Path
    """Where it is to be. There is nothing yet."""
    bytes_max: int
    """One that writes more is killed; what it may is kept, to the byte."""


class Order(Struct, frozen=True):
    """What is to be run."""

    name: str
    """Unique among the runs that are kept: 1 to 100 letters, digits and hyphens."""
    code: Path
    """A folder with main.py, which the run can read and not change. Anybody may read what is in it."""
    interpreter: Path
    """A CPython of 3.9 or newer, or that of a virtual environment. It is trusted: nothing that is installed in it comes
    from a tenant. Anybody may run it."""
    event: msgspec.Raw
    """What main() is given, where it takes something: JSON."""
    limits: Limits
    packages: Path | None = None
    """A folder of packages which go before those of the interpreter. Anybody may read what is in it. A shared lock
    (flock(2)) is held on it from before the run is started until it has ended: who would remove it can tell."""
    reaches: tuple[str, ...] = INTERNET
    """The IPv4 networks that it may connect to; none: it has no network. Never the machine that it runs on, and never
    what is not on the public internet."""
    product: Product | None = None
    """The code has it open for writing, and not for seeking, as the descriptor whose number is sys.argv[1]."""


class KilledFor(StrEnum):
    """Why a run was ended from outside."""

    TIMEOUT = "timeout"
    MEMORY = "memory"
    """It needed more than it may have, of which it has died itself or was killed."""
    OUTPUT = "output"
    """It has printed more than it may, or has made more of its product. What it may is kept, to the byte."""
    TOLD = "told"
    """Somebody wanted it."""


class Returned(Struct, frozen=True, tag="returned"):
    """main() came to its end."""

    value: msgspec.Raw
    """What it returned, as JSON; null where that could not be kept."""
    unkept: str = ""
    """Why it could not: it is no JSON, or too large."""


class Raised(Struct, frozen=True, tag="raised"):
    """An exception ended it, or it could not be loaded."""

    traceback: str


class Exited(Struct, frozen=True, tag="exited"):
    """The process ended before main() did."""

    code: int
    """As a shell has it: 128 and the number of the signal where it was one."""


class Killed(Struct, frozen=True, tag="killed"):
    """It was ended, with everything that it had started."""

    why: KilledFor


class NotBegun(Struct, frozen=True, tag="not_begun"):
    """Its code was never loaded."""

    story: str


class Lost(Struct, frozen=True, tag="lost"):
    """It is gone, and what it came to is not known: the machine went down, or what watched over it was killed."""


How = Returned | Raised | Exited | Killed | NotBegun | Lost


class End(Struct, frozen=True):
    """How a run has ended. Nothing that it started is there any more."""

    how: How
    began: int | None
    """When its code was loaded, in microseconds of Unix time."""
    seconds: float
    """For how long it ran; for one that is lost, at most."""


class LogLine(Struct, frozen=True, gc=False):
    """A line that a run has printed, to its standard output or error."""

    number: int
    """From 1."""
    at: int
    """When, in microseconds of Unix time."""
    text: str
    """Valid text whatever it printed, at most LINE_BYTES_MAX bytes of it, without the end of the line."""


class Question(Struct, frozen=True):
    """What a run asks. It comes from its code: none of it is to be believed."""

    number: int
    """Names it among all that this run asks, before and after a restart of the daemon."""
    method: str
    """1 to 100 characters."""
    params: msgspec.Raw
    """JSON, by its outer form."""


class Result(Struct, frozen=True):
    """What was asked for. The runner writes it down nowhere."""

    value: msgspec.Raw
    """JSON, at most ANSWER_BYTES_MAX bytes of it."""


class Failure(Struct, frozen=True):
    """Why it cannot be had."""

    type: str
    """Which exception the code is to see."""
    message: str


Answer = Result | Failure


class Run(Protocol):
    """A run that is kept."""

    @property
    def name(self) -> str:
        """As it was ordered."""
        ...

    def log(self, after: int = 0) -> AsyncIterator[LogLine]:
        """What it prints, behind the line of that number: what there is, then each line as it comes, until its end."""
        ...

    def questions(self) -> AsyncGenerator[Question]:
        """What it asks: first what has no answer yet, oldest first, then each as it comes, until its end.

        One at a time listens: who comes later takes the place of who did so before.
        """
        ...

    async def answer(self, number: int, answer: Answer) -> None:
        """Answer a question, as long as somebody listens to them. Nothing comes of it where nobody waits for it."""
        ...

    async def ended(self) -> End:
        """How it ended, as soon as it has."""
        ...

    async def kill(self) -> End:
        """End it, within a second and with all that it has started, unless it has ended already."""
        ...

    async def forget(self) -> None:
        """Keep nothing of it any longer. It has ended."""
        ...


class Runner(Protocol):
    """Runs code."""

    async def start(self, order: Order) -> Run:
        """Have it run. Raises CannotRun."""
        ...

    async def adopt(self) -> Sequence[Run]:
        """All runs that are kept, whoever started them and whether they have ended or not."""
        ...
