"""What a lead comes to that no provider of a waterfall had a result for."""

import pytest

from leadline.features.tables.lead_course import Settle
from leadline.features.tables.waterfall import Said, is_answer, outcome
from leadline_protocol.errors import LeadReason
from leadline_protocol.ids import AccountName

HUNTER, FINDYMAIL = AccountName("hunter"), AccountName("findymail")
MISS = Said(HUNTER, LeadReason.NOT_FOUND)
FAILURE = Said(HUNTER, LeadReason.SERVER_ERROR, "status 503")


def lacking(column: str) -> Said:
    return Said(FINDYMAIL, LeadReason.MISSING_INPUT, column)


@pytest.mark.parametrize(
    ("said", "parked", "end"),
    [
        ([MISS], [], Settle("skipped", LeadReason.NOT_FOUND)),
        ([MISS, lacking("name")], [], Settle("skipped", LeadReason.NOT_FOUND)),
        ([lacking("name")], [], Settle("skipped", LeadReason.MISSING_INPUT, "name")),
        ([MISS, FAILURE], [], Settle("failed", LeadReason.SERVER_ERROR, "hunter: status 503")),
        ([MISS], [FINDYMAIL], Settle("failed", LeadReason.PASSED_OVER, "out of use: findymail")),
        ([FAILURE], [FINDYMAIL], Settle("failed", LeadReason.PASSED_OVER, "out of use: findymail")),
        ([MISS, Said(FINDYMAIL, LeadReason.SPEND_CAP)], [], Settle("skipped", LeadReason.SPEND_CAP)),
    ],
)
def test_what_mends_it_decides_how_it_ends(said: list[Said], parked: list[AccountName], end: Settle) -> None:
    assert outcome(said, parked) == end


def test_who_was_not_asked_is_asked_after_a_restart() -> None:
    assert not any(map(is_answer, (LeadReason.SPEND_CAP, LeadReason.NEVER_FITS, LeadReason.MISSING_INPUT)))
    assert all(map(is_answer, (LeadReason.NOT_FOUND, LeadReason.BAD_OUTPUT, LeadReason.SERVER_ERROR)))
