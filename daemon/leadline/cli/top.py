"""`top`: the queue, the running jobs, the providers and what waits for what, live; in a pipe one plain snapshot.

Everything is asked for anew once a second: a screen holds little enough for that, and what is asked anew can never
have drifted from what is.
"""

import select
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from leadline.cli import terminal
from leadline.cli.daemon import Daemon, Placed, control
from leadline.cli.overview import families, limit_words, provider_list, provider_trouble, status_lines
from leadline.cli.words import note, number, percent, progress, settled, shown, time_left, title
from leadline_protocol.messages import FamilyStatus, Jobs, JobView, LimitView, ProviderView, Status, StatusReply

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

REFRESH_SECONDS: Final = 1.0
JOBS_MAX: Final = 100
"""As many running and as many waiting jobs are asked for; a screen shows fewer."""


@dataclass(frozen=True)
class Snapshot:
    """All that is shown, at one moment."""

    status: StatusReply
    running: list[JobView]
    queued: list[JobView]


def top(*, place: Placed) -> None:
    """Watch the queue, the running jobs and the providers live; q ends it. In a pipe: one plain snapshot."""
    with control(place) as daemon:
        if terminal.is_terminal(sys.stdout) and sys.stdin.isatty():
            _live(daemon)
        else:
            _print(_snapshot(daemon))


def _snapshot(daemon: Daemon) -> Snapshot:
    call = daemon.client.call
    return Snapshot(
        call(Status()),
        call(Jobs(state="running", limit=JOBS_MAX)).jobs,
        call(Jobs(state="queued", limit=JOBS_MAX)).jobs,
    )


def _print(snapshot: Snapshot) -> None:
    now = terminal.now()
    for line in status_lines(snapshot.status, now):
        terminal.say(line)
    terminal.say()
    families(snapshot.status.families)
    if snapshot.status.providers:
        terminal.say()
        provider_list(snapshot.status.providers, now)
    for jobs in (snapshot.running, snapshot.queued):
        if jobs:
            terminal.say()
            terminal.columns(
                ("JOB", "WHAT", "STATE", "LEADS", "NOTE"),
                [
                    (str(view.job), title(view), terminal.state(view.shown), progress(view.counts), note(view, now))
                    for view in jobs
                ],
                right=("JOB",),
            )


# The live screen ------------------------------------------------------------------------------------------------------


def _live(daemon: Daemon) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(no_color=not terminal.has_colours(sys.stdout), highlight=False)
    with _keys() as ended, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(_screen(_snapshot(daemon), console.height), refresh=True)
            if ended():
                return


@contextmanager
def _keys() -> Iterator["_Ended"]:
    """Keys without Enter, for as long as this lasts."""
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield _Ended()
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


class _Ended:
    """Waits for the next refresh, or a key: whether that is the end."""

    def __call__(self) -> bool:
        try:
            ready, _, _ = select.select([sys.stdin], [], [], REFRESH_SECONDS)
            return bool(ready) and sys.stdin.read(1) in ("q", "Q", "\x1b", "")
        except KeyboardInterrupt:
            return True


def _screen(snapshot: Snapshot, height: int) -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    now = terminal.now()
    parts: list[RenderableType] = [Text.from_ansi(line) for line in status_lines(snapshot.status, now)]
    parts += [Text(), _families(snapshot.status.families)]
    if snapshot.status.providers:
        parts += [Text(), _providers(snapshot.status.providers)]
    used = (
        7 + len(parts) + len(snapshot.status.families) + sum(max(1, len(p.limits)) for p in snapshot.status.providers)
    )
    room = max(4, height - used)
    running = snapshot.running[: max(2, room * 2 // 3)]
    queued = snapshot.queued[: max(2, room - len(running))]
    parts += [Text(), _jobs("Running", running, _total(snapshot, "running"))]
    if queued:
        parts += [Text(), _jobs("Waiting for their turn", queued, _total(snapshot, "queued"))]
    return Group(*parts)


def _total(snapshot: Snapshot, state: str) -> int:
    return sum(getattr(family, state) for family in snapshot.status.families)


def _families(rows: list[FamilyStatus]) -> "Table":
    table = _table("FAMILY", "", "IN HAND", "RUNNING", "QUEUED", "DELAYED", "", right=("RUNNING", "QUEUED", "DELAYED"))
    for row in rows:
        capacity = "no limit" if row.capacity is None else number(row.capacity)
        table.add_row(
            _text(row.family, "bold"),
            _bar(row.in_hand, row.capacity or 0),
            _text(f"{number(row.in_hand)} of {capacity}"),
            _text(number(row.running)),
            _text(number(row.queued)),
            _text(number(row.delayed)),
        )
    return table


def _providers(views: list[ProviderView]) -> "Table":
    now = terminal.now()
    table = _table("PROVIDER", "", "STATE", "WAITING", "LIMIT", right=("WAITING",))
    for view in views:
        trouble = provider_trouble(view, now)
        first = True
        limits: list[LimitView | None] = [*view.limits] or [None]
        for limit in limits:
            words = "no limits" if limit is None else limit_words(limit, now)
            if first and trouble:
                words = f"{trouble}; {words}"
            table.add_row(
                _text(shown(view.provider) if first else "", "bold"),
                _text("") if limit is None else _bar(limit.charged, limit.amount),
                _state(view.state) if first else _text(""),
                _text(number(view.waiting) if first else ""),
                _text(words),
            )
            first = False
    return table


def _jobs(heading: str, views: list[JobView], total: int) -> "RenderableType":
    from rich.console import Group

    now = terminal.now()
    table = _table("JOB", "WHAT", "", "LEADS", "STATE", "NOTE", right=("JOB", "LEADS"))
    for view in views:
        counts = view.counts
        left = time_left(view.ends, now)
        table.add_row(
            _text(str(view.job), "bold"),
            _text(title(view)),
            _bar(settled(counts), counts.total),
            _text(percent(settled(counts), counts.total) if counts.total else ""),
            _state("STALLED" if view.stalled else view.shown),
            _text(" · ".join(filter(None, (left, note(view, now))))),
        )
    more = f" (the newest {len(views)} of {number(total)})" if total > len(views) else ""
    return (
        Group(_text(f"{heading}: {number(total)}{more}", "bold"), table) if views else _text(f"{heading}: none", "bold")
    )


def _table(*headings: str, right: tuple[str, ...] = ()) -> "Table":
    """A table over the whole width, whose last column takes what the others leave."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim", expand=True)
    for heading in headings:
        table.add_column(
            heading,
            justify="right" if heading in right else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if heading == headings[-1] else None,
        )
    return table


def _bar(part: float, whole: float) -> "RenderableType":
    from rich.progress_bar import ProgressBar

    return ProgressBar(total=whole or 1, completed=min(part, whole), width=20)


_RICH_STYLE: Final = {"STALLED": "bold red"}


def _state(word: str) -> "Text":
    return _text(word, _RICH_STYLE.get(word) or terminal.STATE_STYLE.get(word))


def _text(text: str, style: str | None = None) -> "Text":
    from rich.text import Text

    return Text(text, style=style or "")
