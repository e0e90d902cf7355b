"""What a month has cost, as people and their spreadsheets are told."""

import json
from decimal import Decimal

from leadline_protocol.messages import Usage, UsageReply, UsageRow
from tests.cli.conftest import Leadline
from tests.cli.fake_daemon import FakeDaemon

ROWS = [
    UsageRow(teamspace="acme", provider="hunter", calls=1940, credits=Decimal("1940.5"), perhaps=Decimal(2)),
    UsageRow(teamspace="beta", provider="snov", calls=3, credits=Decimal("0.0003")),
]


def paged(asked: Usage) -> UsageReply:
    place = 0 if asked.after is None else int(asked.after)
    following = str(place + 1) if place + 1 < len(ROWS) else None
    return UsageReply(line=0, usage=[ROWS[place]], next=following)


def test_a_month_is_told_in_columns_with_its_sum(leadline: Leadline, daemon: FakeDaemon) -> None:
    daemon.on(Usage, paged)
    told = leadline("usage", "--month", "2026-11")
    assert told.out.splitlines() == [
        "TEAMSPACE  PROVIDER  CALLS  CREDITS  PERHAPS",
        "acme       hunter    1,940   1940.5        2",
        "beta       snov          3   0.0003",
    ]
    assert told.err == "2026-11 (UTC): 1940.5003 credits, and perhaps 2 more.\n"


def test_as_csv_and_as_json_amounts_keep_every_digit(leadline: Leadline, daemon: FakeDaemon) -> None:
    daemon.on(Usage, paged)
    assert leadline("usage", "--month", "2026-11", "--csv").out.splitlines() == [
        "teamspace,provider,calls,credits,perhaps",
        "acme,hunter,1940,1940.5,2",
        "beta,snov,3,0.0003,0",
    ]
    lines = [json.loads(line) for line in leadline("usage", "--month", "2026-11", "--json").out.splitlines()]
    assert [line["credits"] for line in lines] == ["1940.5", "0.0003"]


def test_what_is_asked_for_reaches_the_daemon(leadline: Leadline, daemon: FakeDaemon) -> None:
    daemon.on(Usage, lambda _: UsageReply(line=0, usage=[]))
    leadline("usage", "--month", "2026-02", "--by", "provider", "--teamspace", "acme")
    assert daemon.requests == [Usage(month="2026-02", by=["provider"], teamspace="acme")]


def test_what_it_cannot_be_told_apart_by_is_a_misuse(leadline: Leadline) -> None:
    assert leadline("usage", "--by", "colour").status == 2
    assert leadline("usage", "--csv", "--json").status == 2


def test_what_is_no_month_is_a_misuse_told_by_example(leadline: Leadline) -> None:
    told = leadline("usage", "--month", "November")
    assert told.status == 2
    assert "such as 2026-11, not November" in told.err
