"""What is said to need somebody, and what is not."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from leadline.adapters.http.pages.attention import needs
from leadline_protocol import messages as wire
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import JobId

NOW = datetime(2026, 11, 28, 3, tzinfo=UTC)

CALM = wire.StatusReply(
    line=1,
    version="0.1.0",
    pid=1,
    epoch=1,
    started_at=NOW,
    uptime_seconds=60,
    state="ready",
    families=[],
    teamspaces=3,
    oldest_queued_at=NOW,
    database=wire.DatabaseStatus(reachable=True, embedded=True, commit_seconds_p99=0.02),
)


def status(**changes: Any) -> wire.StatusReply:
    return msgspec.structs.replace(CALM, **changes)


def provider(state: Any, **more: Any) -> wire.ProviderView:
    return wire.ProviderView(provider="snov", state=state, waiting=40, **more)


def stall(*, stalled: bool) -> wire.StallView:
    return wire.StallView(job=JobId(7), teamspace="acme", at=NOW, seconds=300, killed=not stalled, stalled=stalled)


@pytest.mark.parametrize(
    "calm",
    [
        status(),
        status(providers=[provider("open"), provider("throttled", throttled_until=NOW, refusals=1)]),
        status(providers=[provider("trying", refusals=2)]),
        status(providers=[provider("parked", reason=JobReason.CREDITS, parked_until=NOW)]),
        status(stalls=[stall(stalled=False)]),
    ],
    ids=["idle", "throttled for a known time", "trying", "parked until a known time", "stalls that were ended"],
)
def test_what_ends_by_itself_needs_nobody(calm: wire.StatusReply) -> None:
    assert needs(calm) == []


@pytest.mark.parametrize(
    ("bad", "what", "grave"),
    [
        (status(database=wire.DatabaseStatus(reachable=False, embedded=True)), "database cannot be reached", True),
        (status(state="unavailable"), "takes no work yet", True),
        (status(state="draining"), "about to end", False),
        (status(paused=["queue"]), "paused the whole queue", True),
        (status(paused=["family batch"]), "paused the family batch", False),
        (status(stalls=[stall(stalled=True)]), "Job 7 of acme stands still", True),
        (status(quarantined=[JobId(9)]), "Job 9 is in quarantine", True),
        (status(providers=[provider("parked", reason=JobReason.CREDITS)]), "has no credits left", True),
        (status(providers=[provider("parked", reason=JobReason.INVALID_KEY)]), "it refuses the key", True),
        (status(providers=[provider("throttled", refusals=3)]), "3 times in a row", False),
        (status(loop_lag_seconds=2.0), "was late by 2 s", False),
        (status(warnings=[wire.JobWarning(code="undelivered_notices", message="5 mails")]), "5 mails.", False),
    ],
)
def test_what_a_person_has_to_see_to_is_told_with_what_helps(bad: wire.StatusReply, what: str, grave: bool) -> None:
    (need,) = needs(bad)
    assert what in need.what
    assert need.do
    assert need.grave is grave


def test_grave_things_come_first() -> None:
    both = status(paused=["family batch"], quarantined=[JobId(9)], loop_lag_seconds=3.0)
    assert [need.grave for need in needs(both)] == [True, False, False]
