"""Jobs as pages show them: what a job is and waits for, in sentences, and what may be done about it. Pure functions."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, Literal, get_args

from msgspec import Struct

from leadline.adapters.http.confinement import without_prefixes
from leadline.adapters.http.pages.foreign import harmless
from leadline.adapters.http.pages.rendering import sentence
from leadline.features.tables import not_done
from leadline_protocol import messages as wire
from leadline_protocol.errors import JOB_REASONS, JobReason
from leadline_protocol.ids import JobId

Section = Literal["running", "waiting", "scheduled", "ended"]
SECTIONS: Final[tuple[Section, ...]] = get_args(Section)

SOON: Final = timedelta(seconds=30)
"""Of what begins within it no time is told."""


class Sentence(Struct, frozen=True):
    """One thing that a job waits for."""

    text: str
    until: datetime | None
    help: str | None
    """Who can let it go on, where somebody must."""


class Mishap(Struct, frozen=True):
    """What was noticed about a job that stood still, and what was done about it."""

    at: datetime
    seen: str
    done: str


class Deed(Struct, frozen=True):
    """A button."""

    action: str
    """The last part of its address."""
    label: str
    kind: str = ""
    confirm: str = ""
    """What is asked before."""
    leads: str = ""
    """Of a rerun: which."""


class Card(Struct, frozen=True, kw_only=True):
    """A job with all that a page says of it."""

    job: wire.JobView
    title: str
    section: Section
    unit: str
    """What its counts count: leads or rows."""
    waits: Sequence[Sentence]
    ahead: str | None
    starts: wire.Eta | None
    """When it is expected to start or to go on, where that is not at once."""
    ends: wire.Eta | None
    """When it is expected to be done."""
    mishap: Mishap | None
    reason: str | None
    """Why it ended so."""
    deeds: Sequence[Deed]
    """What may be done about it."""
    refused_rows: int
    not_done: int
    """Leads with which it is through and which it has not done."""
    has_file: bool
    steps: Sequence["Card"] = ()


def cards(
    jobs: Sequence[wire.JobView],
    steps: Sequence[wire.JobView],
    stories: Mapping[JobId, Sequence[wire.HistoryEntry]],
    now: datetime,
) -> Sequence[Card]:
    """Jobs, each chain among them with its steps."""
    of_chain: dict[JobId | None, list[Card]] = {}
    for step in steps:
        of_chain.setdefault(step.chain, []).append(card(step, stories.get(step.job, ()), now))
    return [card(job, stories.get(job.job, ()), now, of_chain.get(job.job, ())) for job in jobs]


def card(job: wire.JobView, story: Sequence[wire.HistoryEntry], now: datetime, steps: Sequence[Card] = ()) -> Card:
    """One job at a time `now`."""
    is_live = job.state not in wire.ENDED_STATES
    waits = [] if job.state == "delayed" else [_sentence(each, job.job) for each in job.waits]
    starts = job.eta if is_live and job.eta is not None and job.eta.latest - now > SOON else None
    return Card(
        job=job,
        title=title(job),
        section=section(job),
        unit="rows" if job.kind == "upload" else "leads",
        waits=waits,
        ahead=_ahead(job),
        starts=starts if job.state != "delayed" else None,
        ends=job.ends if is_live else None,
        mishap=mishap(job, story) if is_live else None,
        reason=_reason(job),
        deeds=_deeds(job),
        refused_rows=job.counts.failed if job.kind == "upload" and not is_live else 0,
        not_done=_not_done(job),
        has_file=job.kind == "export" and not is_live and bool(job.message) and job.state in {"completed", "partial"},
        steps=steps,
    )


def _not_done(job: wire.JobView) -> int:
    if job.kind not in not_done.KINDS:
        return 0
    return job.counts.failed + job.counts.skipped + job.counts.unknown


def title(job: wire.JobView) -> str:
    """What a job does; of a kind that says nothing of that, its kind."""
    return job.kind if job.summary is None else without_prefixes(job.summary)


def section(job: wire.JobView) -> Section:
    """Where on the page a job stands: a running one that has nothing in hand waits like those that have not begun."""
    if job.state in wire.ENDED_STATES:
        return "ended"
    if job.state == "delayed":
        return "scheduled"
    return "waiting" if job.state == "queued" or job.shown == "waiting" else "running"


def turn(each: Card) -> tuple[float, int, JobId]:
    """By which jobs that have not begun are sorted: the one that begins first comes first."""
    job = each.job
    starts = job.run_at.timestamp() if job.run_at is not None and job.state == "delayed" else 0.0
    return (starts, job.jobs_ahead or 0, job.job)


def mishap(job: wire.JobView, story: Sequence[wire.HistoryEntry]) -> Mishap | None:
    """The last time that a job stood still, if it did, from its story, oldest first; None: it did not."""
    for place in reversed(range(len(story))):
        seen = story[place]
        if seen.event not in _SEEN:
            continue
        after = {entry.event for entry in story[place + 1 :]}
        text = f"{_SEEN[seen.event]}: {seen.detail.get('message', '')}".rstrip(" ;:")
        if "queued" in after:
            done = "It was stopped and started again where it was; what it had done is kept."
        elif job.state == "stopping" or "stopped" in after:
            done = "It is being stopped, and starts again where it was; what it has done is kept."
        elif seen.event == "standing_still":
            done = "It is watched: if nothing happens for long, it is stopped and started again."
        else:
            done = "It was left running: cancel it if you do not want to wait for it."
        return Mishap(seen.at, text, done)
    if not job.stalled:
        return None
    return Mishap(job.started_at or job.submitted_at, "It stands still", "It is being watched.")


_SEEN: Final = {
    "stalled": "It stood still",
    "standing_still": "It stands still",
    "worker_lost": "Its worker was lost",
}


def _sentence(wait: wire.Wait, job: JobId) -> Sentence:
    text = without_prefixes(wait.message or JOB_REASONS.get(wait.reason) or str(wait.reason))
    return Sentence(text, wait.until, _help(wait, job))


def _help(wait: wire.Wait, job: JobId) -> str | None:
    """Who can let a job go on, where nothing but a person can."""
    match wait.reason:
        case JobReason.PAUSED:
            match wait.numbers.get("scope", "job"):
                case "job" if str(wait.numbers.get("name", job)) == str(job):
                    return "You can resume it here."
                case "job":
                    return "You can resume its chain."
                case "teamspace":
                    return "Whoever may manage your teamspace can resume it."
                case _:
                    return "Whoever runs this service can resume it."
        case JobReason.QUARANTINED | JobReason.APPROVAL:
            return "You can let it go on here, or cancel it."
        case JobReason.CREDITS if "@" in str(wait.numbers.get("provider", "")):
            return "It is your own account there."
        case JobReason.CREDITS:
            return "Whoever runs this service can do that."
        case _:
            return None


def _is_held(job: wire.JobView) -> bool:
    """Whether resuming the job itself lets it go on."""
    return any(
        wait.reason in {JobReason.QUARANTINED, JobReason.APPROVAL}
        or (
            wait.reason is JobReason.PAUSED
            and wait.numbers.get("scope", "job") == "job"
            and str(wait.numbers.get("name", job.job)) == str(job.job)
        )
        for wait in job.waits
    )


HELD: Final = frozenset({JobReason.PAUSED, JobReason.APPROVAL, JobReason.QUARANTINED})
"""What a job waits for a person by."""


def _ahead(job: wire.JobView) -> str | None:
    match job.jobs_ahead:
        case None:
            return None
        case 0:
            is_next = job.state == "queued" and job.step is None and not any(each.reason in HELD for each in job.waits)
            return "Next in line." if is_next else None
        case 1:
            return "At most 1 job is before it."
        case many:
            return f"At most {many:,} jobs are before it."


def _reason(job: wire.JobView) -> str | None:
    if job.state not in wire.ENDED_STATES or job.kind == "export":
        text = "" if job.reason is None else JOB_REASONS.get(job.reason, "")
    else:
        text = harmless(without_prefixes(job.message or "")) or (JOB_REASONS.get(job.reason, "") if job.reason else "")
    return None if not text.strip() or text.strip() == job.state else sentence(text)


RESUME: Final = Deed("resume", "Let it go on", "primary")
PAUSE: Final = Deed("pause", "Pause")
RERUNS: Final = {
    word: Deed("rerun", label, leads=word)
    for word, label in (("unfinished", "Run the rest"), ("failed", "Run the failed ones"), ("all", "Run again"))
}


def _deeds(job: wire.JobView) -> list[Deed]:
    """What may be done about a job now; a step is run again with its chain."""
    counts = job.counts
    if job.state not in wire.ENDED_STATES:
        cancel = Deed("cancel", "Cancel", "danger", f"Cancel job {job.job}? What it has done stays.")
        if _is_held(job):
            return [RESUME, cancel]
        return [cancel] if job.state == "stopping" else [PAUSE, cancel]
    if job.kind == "outreach" or job.step is not None:
        return []
    deeds = [RERUNS["all"]]
    if counts.failed and job.kind != "upload":
        deeds.insert(0, RERUNS["failed"])
    if counts.pending or counts.unknown or job.state in {"failed", "cancelled"}:
        deeds.insert(0, RERUNS["unfinished"])
    return deeds


_BACK: Final = re.compile(r"/jobs(/[0-9]{1,19})?|/t/[^/\\?#\s]{1,1200}/jobs", re.ASCII)
"""A name has a hundred characters, each of up to four bytes, of which each takes three characters in an address."""


def is_page_of_jobs(path: str) -> bool:
    """Whether a path is one that a button of a job may lead back to."""
    return _BACK.fullmatch(path) is not None
