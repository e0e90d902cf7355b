"""`outreach queue` and `preview`: what is due becomes jobs, or is only shown; and how a contact's next mail reads.

What is queued is given a moment, its turn. When its mail leaves is the mailbox's matter: its hours, its cap and its gap
may make it later, and nothing makes it earlier.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Final

from cyclopts import Parameter

from leadline.cli import terminal
from leadline.cli.daemon import Misused, Placed
from leadline.cli.jobs import Json
from leadline.cli.outreach import Teamspace, command, told
from leadline.cli.words import clock, counted, number, shown
from leadline_protocol.messages import FollowUps, QueueReceipt, SkippedView, WrittenView

Associate = Annotated[
    str | None, Parameter(name="ASSOCIATE", help="Whose follow-ups [those of all active associates].")
]
AtMost = Annotated[
    int | None,
    Parameter(name=("--limit", "-n"), help="Queue so many at most of each associate [outreach.queue_limit]."),
]

_WHY: Final[Mapping[str, str]] = {
    "script_unset": "it has no script, or one that is not there",
    "keyword": "the keyword of its script is none of outreach.keywords",
    "queue_full": "the teamspace has as many jobs queued as its plan allows",
}
"""Why a follow-up is passed over; other words are codes of refusals."""

_NO_FAULT: Final = frozenset({"script_unset", "keyword"})


def queue(
    associate: Associate = None,
    /,
    *,
    place: Placed,
    teamspace: Teamspace,
    limit: AtMost = None,
    json: Json = False,
) -> int:
    """Queue the follow-ups that are due, now: the schedule `outreach` does it by the clock.

    The exit status is 1 if one was refused by the queue.
    """
    asked = FollowUps(action="queue", teamspace=teamspace, associate=associate, limit=limit)
    receipts = told(place, asked).queued
    if json:
        for receipt in receipts:
            terminal.json_line(receipt)
    else:
        _show(receipts, teamspace, is_done=True)
    return int(any(skipped.reason not in _NO_FAULT for receipt in receipts for skipped in receipt.skipped))


def preview(
    associate: Associate = None,
    /,
    *,
    place: Placed,
    teamspace: Teamspace,
    limit: AtMost = None,
    follow_up: Annotated[
        int | None, Parameter(help="Instead, show the next mail of this follow-up as it would be written now.")
    ] = None,
    json: Json = False,
) -> None:
    """Tell what would be queued now, and when; or show the next mail of a follow-up. Nothing is stored."""
    if follow_up is not None:
        if associate is not None or limit is not None:
            raise Misused("--follow-up is about one mail: give no ASSOCIATE and no --limit")
        (written,) = told(place, FollowUps(action="write", teamspace=teamspace, follow_up=follow_up)).written
        if json:
            terminal.json_line(written)
            return
        for line in _mail(written):
            terminal.say(line)
        return
    receipts = told(place, FollowUps(action="preview", teamspace=teamspace, associate=associate, limit=limit)).queued
    if json:
        for receipt in receipts:
            terminal.json_line(receipt)
        return
    _show(receipts, teamspace, is_done=False)


def _show(receipts: Sequence[QueueReceipt], teamspace: str, *, is_done: bool) -> None:
    now = terminal.now()
    if not receipts:
        terminal.say(f"{shown(teamspace)} has no associate who is active.")
        terminal.say(f"Next: {command('import', teamspace, 'FILE')}")
        return
    if any(receipt.queued for receipt in receipts):
        terminal.columns(
            ("ASSOCIATE", "FOLLOW-UP", "TO", "SCRIPT", "STEP", "NOT BEFORE", *(("JOB",) if is_done else ())),
            [row if is_done else row[:-1] for receipt in receipts for row in _rows(receipt, now)],
            right=("FOLLOW-UP", "STEP", "JOB"),
        )
        terminal.say()
    for receipt in receipts:
        for skipped in receipt.skipped:
            terminal.say(f"Passed over: follow-up {skipped.follow_up} to {shown(skipped.address)}: {_why(skipped)}.")
    queued = sum(len(receipt.queued) for receipt in receipts)
    passed_over = sum(len(receipt.skipped) for receipt in receipts)
    left = sum(receipt.left for receipt in receipts)
    would = "" if is_done else "would be "
    terminal.say(
        f"{counted(queued, 'follow-up')} {would}queued, {number(passed_over)} passed over, "
        f"{number(left)} due and left for the next time."
    )
    if queued:
        first = next(receipt.queued[0] for receipt in receipts if receipt.queued)
        if is_done:
            terminal.say("Each leaves then, or as soon as the hours and limits of its mailbox allow.")
            terminal.say(f"Next: leadline why {first.job}")
        else:
            terminal.say(f"Next: {command('preview', teamspace)} --follow-up {first.follow_up}")


def _rows(receipt: QueueReceipt, now: datetime) -> Iterator[tuple[str, ...]]:
    for each in receipt.queued:
        yield (
            shown(receipt.associate),
            str(each.follow_up),
            shown(each.address),
            shown(each.script),
            str(each.step),
            clock(now + timedelta(seconds=each.delay_seconds), now),
            "" if each.job is None else str(each.job),
        )


def _why(skipped: SkippedView) -> str:
    return _WHY.get(skipped.reason, shown(skipped.reason.replace("_", " ")))


def _mail(view: WrittenView) -> Iterator[str]:
    """A mail, as its reader would see it, and when it would go."""
    yield f"From:    {shown(view.sender)}"
    yield f"To:      {shown(view.to)}"
    if view.subject:
        yield f"Subject: {shown(view.subject)}"
    if view.text:
        yield ""
        for line in view.text.splitlines():
            yield f"  {shown(line)}".rstrip()
        yield ""
    if view.html is not None:
        yield "It has an HTML part as well, which --json shows."
    if view.missing:
        yield f"Missing: {shown(', '.join(view.missing))}"
    if view.goes_at is not None:
        yield f"It goes {clock(view.goes_at, terminal.now())} at the earliest."
    elif view.kept is not None:
        yield f"It does not go: {shown(view.kept)}"
