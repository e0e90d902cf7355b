"""Waiting for jobs to end, and showing meanwhile how far they are.

The daemon tells; nothing is asked again and again, except over the submit socket, which tells of ends alone. A wait
outlives a restart of the daemon: the client connects again, the jobs are followed again, and those that ended in
between are found to have ended.

Shown is a bar for each job on a terminal, else a line now and then, both on standard error: standard output is for
what was asked for.
"""

import sys
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Final, Protocol, Self, TypeVar

from leadline.cli import terminal
from leadline.cli.daemon import Daemon
from leadline.cli.words import number, outcome, percent, settled, shown, time_left, title, wait_note, why_so
from leadline_protocol.errors import RETRYABLE, Refused, Unreachable
from leadline_protocol.ids import JobId
from leadline_protocol.messages import (
    ENDED_STATES,
    Counts,
    Ended,
    Follow,
    Get,
    JobView,
    Missed,
    Notice,
    Operation,
    Progress,
    Receipt,
    Reply,
    Watch,
)

if TYPE_CHECKING:
    import rich.progress

R = TypeVar("R", bound=Reply)

FAILED_STATES: Final = frozenset({"failed", "cancelled"})
"""The ends for which a command that waited exits with 1."""

POLL_SECONDS: Final = 1.0
"""How often progress is asked for where it is not told."""

LINE_SECONDS: Final = 10.0
"""Least time between two lines about one job in a pipe."""


class Report(Protocol):
    """Shows how followed jobs get on."""

    def knows(self, view: JobView) -> None:
        """A job as it was when following began, or began again."""

    def moved(self, progress: Progress) -> None:
        """A job got on, or waits for something else."""

    def ended(self, ended: Ended) -> None:
        """A job has ended."""


def follow(
    daemon: Daemon, jobs: Iterable[JobId], report: Report, *, heard: Callable[[Notice], None] | None = None
) -> dict[JobId, Ended]:
    """Wait until all `jobs` have ended; how each did. `heard` is told every notice as it comes.

    Raises Refused where there is no such job, Unreachable where the daemon went away and did not come back.
    """
    following = _Following(daemon, jobs, report, heard or (lambda _: None))
    while following.open_jobs:
        following.begin()
        try:
            following.listen()
        except Unreachable:
            terminal.remark("The daemon went away; waiting for it to come back.")
    return following.ends


def patiently(daemon: Daemon, operation: Operation[R]) -> R:
    """The reply, also of a daemon that is only starting, or has lost its database for a while."""
    while True:
        try:
            return daemon.client.call(operation)
        except Refused as refusal:
            if refusal.code not in RETRYABLE:
                raise
            time.sleep(refusal.retry_after or POLL_SECONDS)


class _Following:
    """Jobs that have not ended, and how those did that have."""

    def __init__(self, daemon: Daemon, jobs: Iterable[JobId], report: Report, heard: Callable[[Notice], None]) -> None:
        self.open_jobs: Final = dict.fromkeys(jobs)
        self.ends: Final[dict[JobId, Ended]] = {}
        self._daemon: Final = daemon
        self._report: Final = report
        self._heard: Final = heard

    def begin(self) -> None:
        """Have the daemon tell of the open jobs; what happened before that is seen by looking."""
        for job in list(self.open_jobs):
            patiently(self._daemon, Watch(job=job) if self._daemon.controls else Follow(job=job))
            self._look(job)

    def listen(self) -> None:
        """Hear what is told until all have ended. Raises Unreachable when the connection is lost."""
        while self.open_jobs:
            for notice in self._daemon.client.notices(timeout_seconds=None if self._daemon.controls else POLL_SECONDS):
                self._heard(notice)
                match notice:
                    case Ended():
                        self._end(notice)
                    case Progress():
                        self._report.moved(notice)
                    case Missed():
                        break
                if not self.open_jobs:
                    return
            for job in list(self.open_jobs):
                self._look(job)

    def _look(self, job: JobId) -> None:
        view = patiently(self._daemon, Get(job=job)).view
        self._report.knows(view)
        if view.state in ENDED_STATES:
            self._end(_ended(view))

    def _end(self, ended: Ended) -> None:
        if ended.job in self.open_jobs:
            del self.open_jobs[ended.job]
            self.ends[ended.job] = ended
            self._report.ended(ended)


def await_receipt(daemon: Daemon, receipt: Receipt) -> Ended:
    """Wait until the job of a receipt has ended, and show it and its steps meanwhile."""
    with reporting() as report:
        return follow(daemon, [*receipt.steps, receipt.job], report)[receipt.job]


def await_end(daemon: Daemon, job: JobId) -> Ended:
    """Wait until a job has ended, and show nothing meanwhile."""
    return follow(daemon, [job], _Silence())[job]


def verdict(ended: Ended, *, has_leads: bool = True) -> str:
    """How a job ended, in a line and one for each warning: `Job 41 completed: 4,940 of 5,000 done, 60 failed.`"""
    head = f"Job {ended.job} {terminal.state(ended.state)}"
    parts = []
    if reason := why_so(ended.state, ended.message, ended.reason):
        parts.append(reason.rstrip("."))
    if has_leads or ended.counts.total:
        parts.append(outcome(ended.counts))
    told = f"{head}: {'; '.join(parts)}." if parts else f"{head}."
    return "\n".join([told, *(f"  Warning: {shown(warning.message)}" for warning in ended.warnings)])


def is_failure(ended: Ended) -> bool:
    """Whether a command that waited for this fails."""
    return ended.state in FAILED_STATES


def reporting() -> AbstractContextManager[Report]:
    """Bars on a terminal, lines in a pipe."""
    return _Bars() if terminal.is_terminal(sys.stderr) else _Lines()


def _ended(view: JobView) -> Ended:
    return Ended(
        at=view.ended_at,
        job=view.job,
        state=view.state,
        counts=view.counts,
        reason=view.reason,
        message=view.message,
        warnings=view.warnings,
    )


class _Doing:
    """What a job does or waits for, in words that count down as often as they are read."""

    def __init__(self, lead: str, told: JobView | Progress) -> None:
        self._lead: Final = lead
        self._told: Final = told

    def __str__(self) -> str:
        told = self._told
        if told.stalled:
            doing = "STALLED"
        elif told.waits:
            doing = wait_note(told.waits[0], terminal.now())
        else:
            doing = shown(told.activity or "")
        return " · ".join(filter(None, (self._lead, doing)))


class _Silence:
    """Shows nothing."""

    def knows(self, view: JobView) -> None:
        pass

    def moved(self, progress: Progress) -> None:
        pass

    def ended(self, ended: Ended) -> None:
        pass


class _Lines(ExitStack):
    """A line for each job now and then."""

    def __init__(self) -> None:
        super().__init__()
        self._told: Final[dict[JobId, tuple[float, str]]] = {}
        """When a job was last told of, and what it waited for then."""

    def knows(self, view: JobView) -> None:
        if view.job not in self._told:
            self._tell(view.job, f"{title(view)}, {view.shown}", "")

    def moved(self, progress: Progress) -> None:
        waits_for = progress.waits[0].reason if progress.waits else "stalled" if progress.stalled else ""
        last, waited_for = self._told.get(progress.job, (0.0, ""))
        if time.monotonic() - last < LINE_SECONDS and waits_for in ("", waited_for):
            return
        counts = progress.counts
        parts = [progress.shown]
        if counts.total:
            parts.append(
                f"{number(settled(counts))} of {number(counts.total)} ({percent(settled(counts), counts.total)})"
            )
        if doing := str(_Doing("", progress)):
            parts.append(doing)
        self._tell(progress.job, ", ".join(parts), waits_for)

    def ended(self, ended: Ended) -> None:
        self._tell(ended.job, f"{ended.state}, {outcome(ended.counts)}" if ended.counts.total else ended.state, "")

    def _tell(self, job: JobId, text: str, waits_for: str) -> None:
        self._told[job] = (time.monotonic(), waits_for)
        terminal.remark(f"{terminal.now():%H:%M:%S} job {job}: {text}")


class _Bars:
    """A bar for each job that has leads; a chain is shown by its steps."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        def text(field: str, style: str, ratio: int | None = None) -> TextColumn:
            column = Column(no_wrap=True, overflow="ellipsis", ratio=ratio)
            return TextColumn(f"{{task.{field}}}", style=style, markup=False, table_column=column)

        self._rows: Final[dict[JobId, rich.progress.TaskID]] = {}
        self._progress: Final = Progress(
            text("description", "bold"),
            BarColumn(bar_width=30),
            text("fields[amount]", "bold"),
            text("fields[doing]", "dim", ratio=1),
            console=Console(stderr=True, no_color=not terminal.has_colours(sys.stderr)),
            expand=True,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def knows(self, view: JobView) -> None:
        if view.steps:
            return
        if view.job not in self._rows:
            place = f"{view.step}. " if view.step is not None else ""
            self._rows[view.job] = self._progress.add_task(
                f"{place}{view.kind} {shown(view.table or '')}".rstrip(), total=None, amount="", doing=""
            )
        self._show(view.job, view.counts, _Doing(_rate(view), view) if view.state == "running" else view.shown)

    def moved(self, progress: Progress) -> None:
        self._show(progress.job, progress.counts, _Doing(_rate(progress), progress))

    def ended(self, ended: Ended) -> None:
        doing = f"{ended.state}, {outcome(ended.counts)}" if ended.counts.total else ended.state
        self._show(ended.job, ended.counts, doing, is_over=True)

    def _show(self, job: JobId, counts: Counts, doing: _Doing | str, *, is_over: bool = False) -> None:
        row = self._rows.get(job)
        if row is None:
            return
        amount = percent(settled(counts), counts.total) if counts.total else ""
        total = counts.total or (1 if is_over else None)
        self._progress.update(row, total=total, completed=settled(counts) or is_over, amount=amount, doing=doing)


def _rate(told: JobView | Progress) -> str:
    """How fast it goes and how long it will take: `12.5/s, 4 min to 5 min left`."""
    rate = f"{number(told.leads_per_second)}/s" if told.leads_per_second else ""
    return ", ".join(filter(None, (rate, time_left(told.ends, terminal.now()))))
