"""`watch`: what happens to jobs, as it happens."""

import sys
from datetime import datetime
from typing import Final, assert_never

from leadline.cli import terminal
from leadline.cli.daemon import Placed, control
from leadline.cli.following import follow, is_failure, patiently, reporting, verdict
from leadline.cli.jobs import JobNumber, Json
from leadline.cli.words import clock, number, percent, settled, shown, time_left, wait_sentence
from leadline_protocol.errors import Unreachable
from leadline_protocol.ids import JobId
from leadline_protocol.messages import Ended, Get, JobView, Missed, Notice, Progress, Queued, Started, Watch


def watch(id_: JobNumber | None = None, /, *, place: Placed, json: Json = False) -> int:
    """Tell what happens to a job until it has ended, or to all jobs until interrupted.

    With a job, the exit status is 1 if it failed or was cancelled.
    """
    if id_ is None:
        _watch_all(place, json=json)
        return 0
    job = JobId(id_)
    with control(place) as daemon:
        view = daemon.client.call(Get(job=job)).view
        if terminal.is_terminal(sys.stdout) and not json:
            with reporting() as report:
                ended = follow(daemon, [*view.steps, job], report)[job]
            terminal.say(verdict(ended, has_leads=view.kind != "noop"))
        else:
            told = _Told(json=json)
            ended = follow(daemon, [*view.steps, job], told, heard=told.heard)[job]
    return int(is_failure(ended))


def _watch_all(place: Placed, *, json: bool) -> None:
    with control(place) as daemon:
        while True:
            patiently(daemon, Watch())
            try:
                for notice in daemon.client.notices():
                    _tell(notice, json=json)
            except Unreachable:
                terminal.remark("The daemon went away; waiting for it to come back.")


class _Told:
    """Tells of the ends; what else happens is told as it is heard."""

    def __init__(self, *, json: bool) -> None:
        self._json: Final = json

    def knows(self, view: JobView) -> None:
        pass

    def moved(self, progress: Progress) -> None:
        pass

    def ended(self, ended: Ended) -> None:
        _tell(ended, json=self._json)

    def heard(self, notice: Notice) -> None:
        if not isinstance(notice, Ended):
            _tell(notice, json=self._json)


def _tell(notice: Notice, *, json: bool) -> None:
    if json:
        terminal.json_line(notice)
        return
    now = terminal.now()
    at = clock(notice.at or now, now)
    if isinstance(notice, Missed):
        terminal.say(f"{at}  … {notice.count} notices came too fast to be told")
    else:
        terminal.say(f"{at}  job {notice.job}  {_happening(notice, now)}")
    sys.stdout.flush()


def _happening(notice: Queued | Started | Progress | Ended, now: datetime) -> str:
    match notice:
        case Queued():
            again = f", {notice.reason}" if notice.reason else ""
            return f"queued: {notice.kind} for {shown(notice.teamspace)}{again}"
        case Started():
            return f"started for {shown(notice.teamspace)}" + (
                f", attempt {notice.attempt}" if notice.attempt > 1 else ""
            )
        case Progress():
            parts = [terminal.state(notice.shown)]
            counts = notice.counts
            if counts.total:
                done = settled(counts)
                parts.append(f"{number(done)} of {number(counts.total)} ({percent(done, counts.total)})")
            if notice.leads_per_second:
                parts.append(f"{number(notice.leads_per_second)}/s")
            if left := time_left(notice.ends, now):
                parts.append(left)
            if notice.stalled:
                parts.append(terminal.paint("STALLED", "red"))
            if notice.waits:
                parts.append(wait_sentence(notice.waits[0], now))
            elif notice.activity:
                parts.append(shown(notice.activity))
            return ", ".join(parts)
        case Ended():
            return verdict(notice, has_leads=False).partition(" ")[2].partition(" ")[2]
        case _:
            assert_never(notice)
