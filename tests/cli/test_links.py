"""`link`: what a browser is sent to stands alone, with what it is beside it."""

import json
from datetime import timedelta

import pytest

from leadline.cli import terminal
from leadline_protocol.messages import Links, LinksReply
from tests.cli.conftest import Leadline
from tests.cli.fake_daemon import NOON, FakeDaemon

ANN = "ann@acme.example"
PATH = "/in/ldi_not-a-real-secret"
URL = f"https://jobs.acme.example{PATH}"


@pytest.fixture(autouse=True)
def noon(monkeypatch: pytest.MonkeyPatch) -> None:
    now = NOON.astimezone()
    monkeypatch.setattr(terminal, "now", lambda: now)


def making(daemon: FakeDaemon, url: str | None) -> None:
    expires = NOON + timedelta(minutes=5)
    daemon.on(Links, lambda _: LinksReply(line=0, path=PATH, url=url, expires_at=expires))


def test_a_link_is_alone_on_standard_output(leadline: Leadline, daemon: FakeDaemon) -> None:
    making(daemon, URL)
    told = leadline("link", "create", "--teamspace", "acme", "--person", ANN, "--role", "admin")
    assert (told.status, told.out) == (0, f"{URL}\n")
    assert told.err == f"Signs {ANN} in to the teamspace acme as admin, once; it expires in 5 min.\n"
    assert daemon.requests == [Links(person=ANN, teamspace="acme", role="admin")]


def test_where_the_daemon_does_not_know_how_it_is_reached_it_says_what_is_missing(
    leadline: Leadline, daemon: FakeDaemon
) -> None:
    making(daemon, None)
    told = leadline("link", "create", "--person", "op")
    assert told.out == f"{PATH}\n"
    assert told.err.splitlines() == [
        "Signs op in to all teamspaces as member, once; it expires in 5 min.",
        "Put before it by which address browsers reach the daemon; `http.public_url` tells the daemon.",
    ]


def test_as_json_it_is_what_the_daemon_says(leadline: Leadline, daemon: FakeDaemon) -> None:
    making(daemon, URL)
    told = leadline("link", "create", "--person", ANN, "--json")
    assert json.loads(told.out).keys() == {"path", "url", "expires_at"}
    assert told.err == ""


@pytest.mark.parametrize(("ended", "said"), [(0, "0 sessions"), (1, "1 session"), (2, "2 sessions")])
def test_who_is_signed_out_is_counted(leadline: Leadline, daemon: FakeDaemon, ended: int, said: str) -> None:
    daemon.on(Links, lambda _: LinksReply(line=0, ended=ended))
    assert leadline("link", "end", "--person", ANN).err == f"Signed out: {said}.\n"
    assert daemon.requests == [Links(action="end", person=ANN)]


def test_what_can_be_nobodys_is_refused_before_anybody_is_asked(leadline: Leadline, daemon: FakeDaemon) -> None:
    for wrong in (("create",), ("create", "--person", "a\nb"), ("create", "--person", ANN, "--role", "root"), ("end",)):
        assert leadline("link", *wrong).status == 2, wrong
    assert daemon.requests == []
