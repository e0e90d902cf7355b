"""What a person has to see to, drawn from how the daemon is: what whoever is woken at night reads first.

Waiting for a known reason is nothing that needs anybody: a full window, a hint, a daily cap end by themselves.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from msgspec import Struct

from leadline.adapters.http.pages.rendering import number, sentence, span
from leadline.adapters.http.pages.visit import in_path
from leadline_protocol import messages as wire
from leadline_protocol.errors import JobReason

SLOW_COMMIT_SECONDS: Final = 1.0
"""Every answer waits for a commit, which takes some milliseconds on a sound disk."""

LATE_LOOP_SECONDS: Final = 1.0

REFUSALS_EXPLAINED: Final = 3
"""Throttles in a row, from which on an account does not come back by waiting alone."""

_COUNTED_ELSEWHERE: Final = "undelivered_notices"


class Need(Struct, frozen=True):
    """One thing that is wrong, and what helps."""

    what: str
    """A sentence."""
    do: str
    """What to do, as a sentence."""
    grave: bool = True
    """Work stands still or is lost; else somebody has stopped it, or it only goes worse."""
    path: str | None = None
    """Where it is done."""
    label: str = ""
    """Of the link there."""


def needs(status: wire.StatusReply, mailboxes: Sequence[wire.AssociateView] = ()) -> list[Need]:
    """All that needs somebody, the grave things first; empty where nothing does."""
    found = [*_of_daemon(status), *_of_jobs(status), *_of_providers(status), *_of_pauses(status)]
    found += [*_of_mails(status, mailboxes)]
    return sorted(found, key=lambda need: not need.grave)


def _of_daemon(status: wire.StatusReply) -> Iterator[Need]:
    database = status.database
    if not database.reachable:
        yield Need(
            "The database cannot be reached: nothing is taken in and nothing runs.",
            "Look at Postgres and its disk. The queue goes on by itself as soon as it answers; nothing is lost.",
        )
    elif status.state in {"starting", "unavailable"}:
        yield Need(
            "The queue is being read from the database, and takes no work yet.",
            "Wait a moment. Where it stays so, the daemon's log says why.",
        )
    elif status.state == "draining":
        yield Need(
            "The daemon is about to end: nothing new starts.",
            "Nothing, where somebody restarts it. Else start it again: systemctl start leadline.",
            grave=False,
        )
    if (database.commit_seconds_p99 or 0) >= SLOW_COMMIT_SECONDS:
        yield Need(
            f"The database is slow: of 100 commits one takes {span(database.commit_seconds_p99 or 0)} or longer.",
            "Look at the disk of Postgres, and at what else keeps it busy.",
            grave=False,
        )
    if status.loop_lag_seconds >= LATE_LOOP_SECONDS:
        yield Need(
            f"The daemon was late by {span(status.loop_lag_seconds)} within the last minute.",
            "Look whether the machine has processors and memory left.",
            grave=False,
        )


def _of_jobs(status: wire.StatusReply) -> Iterator[Need]:
    for stall in status.stalls:
        if stall.stalled:
            yield Need(
                f"Job {stall.job} of {stall.teamspace} stands still, and is not stopped by itself.",
                "Look at what it does, and cancel it: it can be run again over what is not done.",
                path=f"/jobs/{stall.job}?teamspace={in_path(stall.teamspace)}",
                label=f"Job {stall.job}",
            )
    for job in status.quarantined:
        yield Need(
            f"Job {job} is in quarantine: the daemon went down each time that it ran.",
            "Look at its history. Resume it once what brought the daemon down is mended, else cancel it.",
            path=f"/jobs/{job}",
            label=f"Job {job}",
        )


def _of_providers(status: wire.StatusReply) -> Iterator[Need]:
    for view in status.providers:
        path = f"/operator/providers/{in_path(view.provider)}"
        if view.state == "parked" and view.parked_until is None:
            refused = view.reason is JobReason.INVALID_KEY
            yield Need(
                f"{view.provider} is parked: {'it refuses the key' if refused else 'its account has no credits left'}.",
                "Put a good key into the configuration, reload it, and resume the provider."
                if refused
                else "Fill its account up, then resume the provider.",
                path=path,
                label=view.provider,
            )
        elif view.refusals >= REFUSALS_EXPLAINED:
            yield Need(
                f"{view.provider} turned us away {number(view.refusals)} times in a row though its limits were kept.",
                "Its limits are lower than what is set here, or somebody else uses the key: set them lower.",
                grave=False,
                path=path,
                label=view.provider,
            )


def _of_pauses(status: wire.StatusReply) -> Iterator[Need]:
    for paused in status.paused:
        scope, _, name = paused.partition(" ")
        yield Need(
            f"Somebody has paused the {'whole queue' if scope == 'queue' else paused}.",
            "Resume it when what it was paused for is over.",
            grave=scope == "queue",
            path=_place_of(scope, name),
            label="Go there",
        )


def _place_of(scope: str, name: str) -> str:
    match scope:
        case "teamspace" | "provider":
            return f"/operator/{scope}s/{in_path(name)}"
        case "job":
            return f"/jobs/{name}"
        case _:
            return "/operator#families"


def _of_mails(status: wire.StatusReply, mailboxes: Sequence[wire.AssociateView]) -> Iterator[Need]:
    for mailbox in mailboxes:
        if mailbox.paused is not None:
            why = f": {mailbox.paused}" if mailbox.paused else ""
            yield Need(
                f"The mailbox of {mailbox.name} in {mailbox.teamspace} is paused{why}.",
                "Look at why, and let it go on.",
                grave=False,
                path=f"/outreach?teamspace={in_path(mailbox.teamspace)}",
                label="Its outreach",
            )
    for warning in status.warnings:
        elsewhere = warning.code == _COUNTED_ELSEWHERE
        yield Need(
            sentence(warning.message),
            "Look at who was not reached, and send them again." if elsewhere else "The daemon's log tells more.",
            grave=False,
            path="/operator/notices" if elsewhere else None,
            label="Undelivered notices",
        )
