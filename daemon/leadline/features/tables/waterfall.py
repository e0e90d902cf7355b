"""Several providers for the same columns, asked one after the other until one has a result.

A lead goes from provider to provider in the order of the submission, and stops at the first result: nobody behind it is
asked, or paid. What the ones before it have said is stored as it is said, so that a restart asks none of them again.
It may be of any mode, or a model; where one takes orders of many leads, they gather (gathering.py).

    it has nothing, or failed       the next one's turn
    it throttles                    waited for: it will be well again by itself, and its answer may be the better one
    it is parked                    passed over: its quota is gone or its key is refused, and a person has to act
    nobody knows what it did        the lead's end (`unknown`): it may have been paid, and the next one would be as well
    it costs more than is left      passed over, there may be a cheaper one

The complication is a lead for which nobody could be asked, since all that might know it are parked. Going through a
whole table like this would fail every lead for what one payment mends, so such a lead waits, as with a single provider.
Where others have been asked in vain the lead ends, but as `failed`: who was passed over might have known it, and a
rerun of the failed leads asks again.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from leadline.features.tables.lead_course import Settle
from leadline_protocol.errors import LeadReason
from leadline_protocol.ids import AccountName

WATERFALL: Final = "waterfall"
"""The built-in module: several provider modules in turn."""

MODULES_MAX: Final = 20


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One module of a waterfall, told what it is told when it is asked alone."""

    module: str
    inputs: dict[str, str] = {}
    """Input of the module → column it is read from; absent: its namesake."""
    outputs: dict[str, str] = {}
    """Column to fill → output of the module; absent: its namesake."""
    prompt: str | None = None
    """What a model is asked, where the module is `ai_prompt`."""
    provider: str | None = None
    schemas: dict[str, dict[str, Any]] = {}


class WaterfallParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `waterfall` is told."""

    modules: Annotated[list[str | Member], Meta(min_length=1, max_length=MODULES_MAX)]
    """In the order in which they are asked; a name alone stands for a module whose inputs and outputs are columns."""
    answered_by: str | None = None
    """The column of `into` that is filled with the name of the provider that had the result."""


class Said(msgspec.Struct, frozen=True):
    """What became of asking one provider about a lead, where that was no result."""

    account: AccountName
    reason: LeadReason
    detail: str = ""


_NO_ANSWERS: Final = frozenset({LeadReason.SPEND_CAP, LeadReason.NEVER_FITS, LeadReason.MISSING_INPUT})
"""Reasons for which a provider was not asked: looked at anew after a restart."""

_NOT_FOUND: Final = frozenset({LeadReason.NOT_FOUND, LeadReason.MISSING_INPUT})


def is_answer(reason: LeadReason | None) -> bool:
    """Whether a provider that ended so is through with the lead."""
    return reason not in _NO_ANSWERS


def outcome(said: Sequence[Said], parked: Sequence[AccountName]) -> Settle:
    """The end of a lead for which no provider had a result; `parked` were passed over."""
    for each in said:
        if each.reason is LeadReason.SPEND_CAP:
            return Settle("skipped", LeadReason.SPEND_CAP)
    if parked:
        return Settle("failed", LeadReason.PASSED_OVER, f"out of use: {', '.join(parked)}")
    for each in said:
        if each.reason not in _NOT_FOUND:
            return Settle("failed", each.reason, f"{each.account}: {each.detail}".removesuffix(": "))
    if all(each.reason is LeadReason.MISSING_INPUT for each in said):
        return Settle("skipped", LeadReason.MISSING_INPUT, ", ".join(sorted({each.detail for each in said})))
    return Settle("skipped", LeadReason.NOT_FOUND)
