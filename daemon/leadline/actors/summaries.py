"""What a job does, in one line for people: `Fill score of 4,850 leads of prospects with ai_prompt`."""

from collections.abc import Iterable
from pathlib import PurePath
from typing import Any, Final

import msgspec
from msgspec import Struct, field

_NAMED_MAX: Final = 3
"""Columns, and kinds of steps, that are named; there may be a hundred."""


class Work(Struct, frozen=True):
    """What a summary is made of: the parts of any submission that say what is done, to what."""

    kind: str = ""
    table: str | None = None
    path: str | None = None
    module: str = ""
    into: dict[str, Any] = field(default_factory=dict)
    batch_job: str = ""
    do: str = "queue"
    associate: str | None = None
    follow_up: int | None = None
    steps: list["Work"] = field(default_factory=list)


_WORK: Final = msgspec.json.Decoder(Work)


def summary(submission: bytes, total: int | None) -> str | None:
    """What is submitted, with the number of its leads or rows; None among these: it is not known yet.

    None where nothing is kept of a submission, or only another version of the daemon knows what it means.
    """
    try:
        work = _WORK.decode(submission) if submission else Work()
    except msgspec.MsgspecError:
        return None
    match work.kind:
        case "noop":
            return "Do nothing"
        case "upload":
            rows = "" if total is None else f"{_counted(total, 'row')} of "
            return f"Read {rows}{PurePath(work.path or 'a file').name} into {work.table}"
        case "formula":
            return f"Fill {_list(work.into, 'column')} of {_leads(total)} of {work.table} by a formula"
        case "enrich":
            return f"Fill {_list(work.into, 'column')} of {_leads(total)} of {work.table} with {work.module}"
        case "export":
            return f"Write {_leads(total)} of {work.table} to a file"
        case "batch":
            return f"Run {work.batch_job}"
        case "outreach":
            return _outreach(work)
        case "chain":
            return _chain(work)
        case _:
            return None


def _outreach(work: Work) -> str:
    match work.do:
        case "send":
            return f"Send the next mail of follow-up {work.follow_up}"
        case "first_mails":
            return "Begin with first mails"
        case _:
            whose = f" of {work.associate}" if work.associate else ""
            return f"Queue the follow-ups{whose} that are due"


def _chain(work: Work) -> str:
    tables = {step.table for step in work.steps if step.table}
    where = f" on {tables.pop()}" if len(tables) == 1 else ""
    kinds = [step.kind for step in work.steps]
    return f"{_counted(len(kinds), 'step')}{where}: {_list(kinds, 'step')}"


def _leads(total: int | None) -> str:
    return "the leads" if total is None else _counted(total, "lead")


def _counted(amount: int, thing: str) -> str:
    return f"{amount:,} {thing}{'' if amount == 1 else 's'}"


def _list(names: Iterable[str], thing: str) -> str:
    """Names one after the other: the first few, and how many more there are."""
    listed = list(names)
    if len(listed) > _NAMED_MAX + 1:
        listed = [*listed[:_NAMED_MAX], _counted(len(listed) - _NAMED_MAX, f"more {thing}")]
    *first, last = listed
    return f"{', '.join(first)} and {last}" if first else last
