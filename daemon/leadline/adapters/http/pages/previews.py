"""What a submission would take, in sentences."""

from collections.abc import Iterator
from typing import Any, Final

from msgspec import Struct

from leadline.adapters.http.pages.rendering import number, span
from leadline.features.tables.columns import cell_text
from leadline_protocol.messages import LeadTrial, LimitNeed, StepPreview

VALUE_CHARACTERS_MAX: Final = 120


class Trial(Struct, frozen=True):
    """A lead as a formula would leave it, in texts; None: the cell is empty."""

    lead: int
    before: str | None
    after: str | None
    fails: str | None
    """Why the formula fails on it."""


def trial(found: LeadTrial) -> Trial:
    """The same for people."""
    fails = None if found.reason is None else found.reason.replace("_", " ")
    return Trial(found.lead, _cell(found.before), _cell(found.after), fails)


def _cell(value: Any) -> str | None:
    if value is None:
        return None
    text = cell_text(value)
    return text if len(text) <= VALUE_CHARACTERS_MAX else text[: VALUE_CHARACTERS_MAX - 1] + "…"


def sentences(step: StepPreview) -> Iterator[str]:
    """What one step would take, apart from its warnings and the leads that it is shown on."""
    yield _leads(step)
    about = "about " if step.sampled is not None else ""
    if step.provider is not None and step.asked is not None and step.leads is not None:
        rest = "" if step.asked == step.leads else "; the others lack what it needs, or are left out"
        yield f"{step.provider} would be asked for {about}{number(step.asked)} of them{rest}."
    if step.units:
        amounts = ", ".join(_counted(amount, unit) for unit, amount in step.units.items())
        yield f"That takes {about}{amounts}."
    if step.credits is not None:
        yield f"It costs {about or 'at most '}{_counted(float(step.credits), 'credit')}."
    for limit in step.limits:
        if limit.needed > limit.amount:
            yield f"{step.provider or 'The database'} allows {_limit(limit)}."
    if step.seconds_at_least >= 1:
        yield f"By the limits it takes at least {span(step.seconds_at_least)}."


def _leads(step: StepPreview) -> str:
    if step.leads is None:
        return "How many leads match is known when its turn comes."
    match = "lead matches" if step.leads == 1 else "leads match"
    then = {"skip": ": the step would be left out", "hold": ": the step would wait for you"}.get(step.guard or "", "")
    return f"{number(step.leads)} {match} now{then}."


def _limit(limit: LimitNeed) -> str:
    amount = _counted(limit.amount, limit.unit)
    return f"{amount} a day" if limit.per_seconds is None else f"{amount} in any {span(limit.per_seconds)}"


def _counted(amount: float, unit: str) -> str:
    return f"{number(amount)} {unit}{'' if amount == 1 else 's'}"
