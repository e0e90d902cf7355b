"""Associates, follow-ups and moments for the tests of outreach."""

from datetime import datetime
from typing import Any

from msgspec.structs import replace

from leadline.core.calendar.zones import instant_of, zone
from leadline.features.outreach.model import Associate, AssociateId, FollowUp, FollowUpId, Line, Status
from leadline_protocol.ids import Instant, JobId

NOW = Instant(1_790_000_000_000_000)
"""A Monday in September 2026, 13:33:20 in UTC."""
EMPTY = Line(sent={}, days_sent=0, last_end=None, in_flight=False, places=())

_ANN = Associate(id=AssociateId(1), teamspace="acme", name="ann", address="ann@acme.example")
_LEAD = FollowUp(
    id=FollowUpId(1),
    teamspace="acme",
    associate=AssociateId(1),
    address="lee@lead.example",
    fields={},
    zone=None,
    script="drip",
    step=1,
    due=NOW,
    created=NOW,
    status=Status.PENDING,
    seed=7,
)


def associate(**different: Any) -> Associate:
    return replace(_ANN, **different)


def follow_up(number: int = 1, **different: Any) -> FollowUp:
    return replace(_LEAD, id=FollowUpId(number), **different)


def queued(**different: Any) -> FollowUp:
    return follow_up(status=Status.QUEUED, job=JobId(5), **different)


def at(wall: str, name: str = "UTC") -> Instant:
    """The instant of an ISO wall time in a zone; where it comes twice, the first."""
    return instant_of(datetime.fromisoformat(wall), zone(name))[0]
