"""`token`: the secret alone goes where it can be stored, and is told once."""

import json
from datetime import UTC, datetime, timedelta

from leadline_protocol.messages import Tokens, TokensReply, TokenView
from tests.cli.conftest import Leadline
from tests.cli.fake_daemon import NOON, FakeDaemon

SECRET = "ldl_not-a-real-secret"


def crm(**changes: object) -> TokenView:
    values = {"name": "crm", "scopes": ["read", "submit"], "teamspace": "acme", "role": "member", "created_at": NOON}
    return TokenView(**{**values, **changes})  # type: ignore[arg-type]


def test_a_new_token_is_alone_on_standard_output(leadline: Leadline, daemon: FakeDaemon) -> None:
    asked: list[Tokens] = []

    def create(operation: Tokens) -> TokensReply:
        asked.append(operation)
        return TokensReply(line=0, tokens=[crm()], secret=SECRET)

    daemon.on(Tokens, create)
    told = leadline("token", "create", "crm", "--scopes", "submit, read", "--teamspace", "acme", "--days", "90")
    assert told.out == f"{SECRET}\n"
    assert told.err.splitlines() == [
        "crm: read, submit for the teamspace acme, as member; expires: never.",
        "Keep it well: it is not shown again.",
    ]
    (operation,) = asked
    assert (operation.scopes, operation.teamspace) == (["submit", "read"], "acme")
    assert operation.expires_at is not None
    assert abs(operation.expires_at - datetime.now(UTC) - timedelta(days=90)) < timedelta(minutes=1)


def test_a_rotation_tells_until_when_the_one_before_is_taken(leadline: Leadline, daemon: FakeDaemon) -> None:
    asked: list[Tokens] = []

    def rotate(operation: Tokens) -> TokensReply:
        asked.append(operation)
        return TokensReply(line=0, tokens=[crm(older_until=NOON + timedelta(hours=2))], secret=SECRET)

    daemon.on(Tokens, rotate)
    told = leadline("token", "rotate", "crm", "--overlap-hours", "2")
    assert told.out == f"{SECRET}\n"
    assert "The one before is taken until " in told.err
    assert asked == [Tokens(action="rotate", name="crm", overlap_seconds=7200)]


def test_the_list_shows_what_each_reaches_and_no_secret(leadline: Leadline, daemon: FakeDaemon) -> None:
    everything = crm(name="host", teamspace=None, scopes=["control"], role="super_admin")
    daemon.on(Tokens, lambda _: TokensReply(line=0, tokens=[crm(), everything]))
    heading, first, second = leadline("token", "list").out.splitlines()
    assert heading.split()[:4] == ["TOKEN", "TEAMSPACE", "SCOPES", "ROLE"]
    assert first.split()[:5] == ["crm", "acme", "read,", "submit", "member"]
    assert second.split()[:4] == ["host", "all", "control", "super_admin"]
    lines = [json.loads(line) for line in leadline("token", "list", "--json").out.splitlines()]
    assert [line["name"] for line in lines] == ["crm", "host"]


def test_a_revoked_token_is_said_to_be_so(leadline: Leadline, daemon: FakeDaemon) -> None:
    daemon.on(Tokens, lambda _: TokensReply(line=0, tokens=[crm()]))
    assert leadline("token", "revoke", "crm").err == "The token crm is revoked.\n"


def test_what_no_token_can_be_is_refused_before_anybody_is_asked(leadline: Leadline) -> None:
    for wrong in (
        ("create", "crm", "--scopes", "everything"),
        ("create", "crm", "--scopes", ""),
        ("create", "crm"),
        ("create", "crm", "--scopes", "read", "--days", "0"),
        ("rotate", "crm", "--overlap-hours", "1000"),
    ):
        assert leadline("token", *wrong).status == 2, wrong
