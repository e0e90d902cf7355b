"""What has happened to a job, told to those whose job it is. Pure functions."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal

from msgspec import Struct

from leadline.adapters.http.confinement import without_prefixes
from leadline.adapters.http.pages.foreign import harmless
from leadline.adapters.http.pages.rendering import sentence
from leadline_protocol import messages as wire
from leadline_protocol.errors import JOB_REASONS

Tone = Literal["", "good", "busy", "wait", "bad"]


class Happening(Struct, frozen=True):
    """One thing that has happened."""

    at: datetime
    what: str
    means: str
    """What follows from it, or how it came about; may be empty."""
    tone: Tone = ""


def timeline(job: wire.JobView, story: Sequence[wire.HistoryEntry]) -> Sequence[Happening]:
    """A job's story, in its order."""
    return [_happening(job, entry) for entry in story]


def _happening(job: wire.JobView, entry: wire.HistoryEntry) -> Happening:
    detail = harmless(without_prefixes(str(entry.detail.get("message", ""))))
    if entry.event.endswith(" asked"):
        return Happening(entry.at, *_asked(entry))
    match entry.event:
        case "submitted":
            told = "It came into the queue.", "What is submitted is not lost, whatever happens."
            return Happening(entry.at, *told)
        case "started":
            return _started(job, entry.at, detail)
        case "stopped":
            cause, _, evidence = detail.partition(": ")
            what, means, tone = _STOPPED.get(cause, ("It stopped.", "", ""))
            return Happening(entry.at, what, " ".join(filter(None, (means, sentence(evidence)))), tone)
        case "queued":
            means = "Its place and all that it had done were kept."
            if "went down" in detail:
                return Happening(entry.at, "It is in the queue again, after the service broke down.", means, "wait")
            what = "after a restart of the service" if "restart" in detail else "in its old place"
            return Happening(entry.at, f"It is in the queue again, {what}.", means)
        case "resumed" if detail == "from quarantine":
            return Happening(entry.at, "It was let go, after it had been set aside.", "", "busy")
        case event if event in _PLAIN:
            what, means, tone = _PLAIN[event]
            return Happening(entry.at, what, " ".join(filter(None, (sentence(detail), means))), tone)
        case event if event in _ENDS:
            reason, _, message = detail.partition(": ")
            explained = _BY_REASON.get(reason)
            means = sentence(message) or explained or sentence(detail)
            return Happening(entry.at, *_ENDS[event][:1], means, _ENDS[event][1])
        case event:
            return Happening(entry.at, sentence(event), sentence(detail))


def _started(job: wire.JobView, at: datetime, detail: str) -> Happening:
    number = detail.removeprefix("attempt ")
    if job.kind == "chain":
        return Happening(at, "Its first step began.", "", "busy")
    if number in {"", "1"}:
        return Happening(at, "It began.", "", "busy")
    return Happening(at, f"It went on: run {number}.", "It began where it had been, and did nothing twice.", "busy")


def _asked(entry: wire.HistoryEntry) -> tuple[str, str, Tone]:
    who = str(entry.detail.get("person") or "Whoever runs this service")
    detail = str(entry.detail.get("detail", ""))
    match entry.event.removesuffix(" asked"):
        case "cancel" if detail == "force":
            return f"{who} had it ended at once.", "Answers that were under way are not waited for.", "wait"
        case "cancel":
            return f"{who} cancelled it.", "What it has done stays; calls in flight may finish.", "wait"
        case "pause":
            return f"{who} paused it.", "Calls in flight finish; nothing new begins.", "wait"
        case "resume":
            return f"{who} let it go on.", "", "busy"
        case "rerun":
            leads = _RERUNS.get(detail, "")
            return f"{who} had it run again{leads}.", "That is a job of its own.", ""
        case operation:
            return f"{who} asked: {operation}.", sentence(detail), ""


_RERUNS: Final = {"unfinished": ": what was not finished", "failed": ": what had failed", "all": ": all of it"}

_KEPT: Final = "What it had done is kept."

_STOPPED: Final[dict[str, tuple[str, str, Tone]]] = {
    "cancelled": ("It stopped, as it was asked to.", "", ""),
    "stalled": ("It was stopped, for it stood still.", _KEPT, "bad"),
    "worker_lost": ("It was stopped, for nothing was heard of it.", _KEPT, "bad"),
    "yielded": ("It made room for others while it waits.", _KEPT, ""),
    "paused": ("It stopped where it was.", _KEPT, "wait"),
    "interrupted": ("It was interrupted.", f"{_KEPT} It goes on by itself.", "wait"),
}

_PLAIN: Final[dict[str, tuple[str, str, Tone]]] = {
    "paused": ("It is paused.", "It begins nothing new until somebody lets it go on.", "wait"),
    "resumed": ("It goes on.", "", "busy"),
    "quarantined": ("It was set aside.", "A person decides whether it goes on.", "bad"),
    "stalled": ("It stood still.", "It is stopped, and begins again where it was.", "bad"),
    "standing_still": ("It stood still.", "It was watched, and not yet stopped.", "wait"),
    "worker_lost": ("What worked on it was lost.", "It begins again where it was.", "bad"),
}

_ENDS: Final[dict[str, tuple[str, Tone]]] = {
    "completed": ("It was completed.", "good"),
    "partial": ("It ended, and some of it was not done.", "wait"),
    "failed": ("It failed.", "bad"),
    "cancelled": ("It was cancelled.", ""),
    "skipped": ("It was skipped.", ""),
}

_BY_REASON: Final = {str(reason): text for reason, text in JOB_REASONS.items()}
