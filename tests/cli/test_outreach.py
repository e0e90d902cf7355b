"""`leadline outreach`: what is shown of follow-ups and mailboxes, what a person decides, and what comes next."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from leadline_protocol.errors import ErrorCode
from leadline_protocol.ids import JobId
from leadline_protocol.messages import (
    AssociateView,
    ContactEvent,
    EventReply,
    FollowUpEntry,
    FollowUps,
    FollowUpView,
    MailView,
    OutreachReply,
    QueuedView,
    QueueReceipt,
    ScriptStep,
    ScriptView,
    SendingHours,
    SkippedView,
    SuppressionView,
    WrittenView,
)
from tests.cli.conftest import Leadline
from tests.cli.fake_daemon import NOON, FakeDaemon, refusal

TO_ACME = ("--teamspace", "acme")


def follow_up(number: int = 7, **changes: Any) -> FollowUpView:
    values: dict[str, Any] = {
        "follow_up": number,
        "teamspace": "acme",
        "key": "grace@navy.example fair",
        "associate": "ada",
        "address": "grace@navy.example",
        "script": "fair",
        "step": 1,
        "status": "pending",
        "follow_up_date": NOON,
        "created_at": NOON,
    }
    return FollowUpView(**{**values, **changes})


def associate(**changes: Any) -> AssociateView:
    values: dict[str, Any] = {
        "teamspace": "acme",
        "name": "ada",
        "address": "ada@acme.example",
        "zone": "Europe/Berlin",
        "daily_cap": 50,
        "gap_seconds": 60,
        "hours": SendingHours(),
        "sent_today": 7,
        "cap_today": 15,
        "waiting": 2,
    }
    return AssociateView(**{**values, **changes})


def mail(**changes: Any) -> MailView:
    values: dict[str, Any] = {
        "mail": 9,
        "follow_up": 7,
        "teamspace": "acme",
        "associate": "ada",
        "address": "grace@navy.example",
        "step": 1,
        "message_id": "<1f0c2b@acme.example>",
        "state": "unknown",
        "job": 62,
        "began_at": NOON,
        "evidence": "the connection broke",
    }
    return MailView(**{**values, **changes})


def answering(daemon: FakeDaemon, **reply: Any) -> None:
    daemon.on(FollowUps, lambda _: OutreachReply(line=0, **reply))


def asked(daemon: FakeDaemon) -> FollowUps:
    (request,) = daemon.requests
    assert isinstance(request, FollowUps)
    return request


# Queueing -------------------------------------------------------------------------------------------------------------

RECEIPT = QueueReceipt(
    associate="ada",
    queued=[
        QueuedView(follow_up=7, address="grace@navy.example", script="fair", step=1, delay_seconds=60, job=JobId(62))
    ],
    skipped=[
        SkippedView(follow_up=8, address="alan@bletchley.example", reason="keyword"),
        SkippedView(follow_up=9, address="x@y.example", reason="script_unset"),
    ],
    left=3,
)


def test_what_is_queued_is_told_with_its_jobs_and_what_is_passed_over_with_its_reason(
    leadline: Leadline, daemon: FakeDaemon
) -> None:
    answering(daemon, queued=[RECEIPT])
    ran = leadline("outreach", "queue", "ada", *TO_ACME, "--limit", 25)
    assert ran.status == 0
    head, row, *rest = ran.out.splitlines()
    assert head.split("  ")[-1] == "JOB"
    assert row.split()[:5] == ["ada", "7", "grace@navy.example", "fair", "1"]
    assert row.split()[-1] == "62"
    assert rest == [
        "",
        "Passed over: follow-up 8 to alan@bletchley.example: the keyword of its script is none of outreach.keywords.",
        "Passed over: follow-up 9 to x@y.example: it has no script, or one that is not there.",
        "1 follow-up queued, 2 passed over, 3 due and left for the next time.",
        "Each leaves then, or as soon as the hours and limits of its mailbox allow.",
        "Next: leadline why 62",
    ]
    assert asked(daemon) == FollowUps(action="queue", teamspace="acme", associate="ada", limit=25)


def test_one_that_the_queue_refuses_is_a_failure(leadline: Leadline, daemon: FakeDaemon) -> None:
    full = SkippedView(follow_up=8, address="alan@bletchley.example", reason="queue_full")
    answering(daemon, queued=[QueueReceipt(associate="ada", queued=[], skipped=[full], left=0)])
    ran = leadline("outreach", "queue", *TO_ACME)
    assert ran.status == 1
    assert "follow-up 8 to alan@bletchley.example: the teamspace has as many jobs queued as its plan allows." in ran.out


def test_a_preview_names_no_jobs_and_leads_to_a_mail(leadline: Leadline, daemon: FakeDaemon) -> None:
    answering(daemon, queued=[RECEIPT])
    ran = leadline("outreach", "preview", *TO_ACME)
    assert ran.status == 0
    assert "JOB" not in ran.out
    assert ran.out.splitlines()[-2:] == [
        "1 follow-up would be queued, 2 passed over, 3 due and left for the next time.",
        "Next: leadline outreach preview --teamspace acme --follow-up 7",
    ]
    assert asked(daemon).action == "preview"


def test_where_nobody_writes_it_is_told_what_to_do(leadline: Leadline, daemon: FakeDaemon) -> None:
    answering(daemon)
    assert leadline("outreach", "queue", *TO_ACME).out.splitlines() == [
        "acme has no associate who is active.",
        "Next: leadline outreach import FILE --teamspace acme",
    ]


def test_a_mail_is_shown_as_its_reader_would_see_it(leadline: Leadline, daemon: FakeDaemon) -> None:
    text = "Hello Grace,\n\nhow are you?\x1b[2J"
    written = WrittenView(
        follow_up=7,
        sender="ada@acme.example",
        to="grace@navy.example",
        subject="Fair",
        text=text,
        html="<p>",
        goes_at=datetime(2019, 5, 2, 9, 0, tzinfo=UTC),
    )
    answering(daemon, written=[written])
    ran = leadline("outreach", "preview", *TO_ACME, "--follow-up", 7)
    assert ran.out.splitlines() == [
        "From:    ada@acme.example",
        "To:      grace@navy.example",
        "Subject: Fair",
        "",
        "  Hello Grace,",
        "",
        "  how are you?\\x1b[2J",
        "",
        "It has an HTML part as well, which --json shows.",
        "It goes 2019-05-02 14:30 at the earliest.",
    ]
    assert asked(daemon) == FollowUps(action="write", teamspace="acme", follow_up=7)


def test_fields_that_a_mail_lacks_are_named(leadline: Leadline, daemon: FakeDaemon) -> None:
    lacking = WrittenView(
        follow_up=7, sender="a@b.example", to="c@d.example", missing=["first_name", "company"], kept="No."
    )
    answering(daemon, written=[lacking])
    assert leadline("outreach", "preview", *TO_ACME, "--follow-up", 7).out.splitlines()[-2:] == [
        "Missing: first_name, company",
        "It does not go: No.",
    ]


# Looking --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("view", "note"),
    [
        (follow_up(), "due"),
        (follow_up(follow_up_date=NOON + timedelta(days=36_500)), "from 2126-10-28 17:30 on"),
        (follow_up(associate=None), "waits for its first mail"),
        (follow_up(status="queued", job=62), "job 62"),
        (follow_up(status="stopped", reason="do_not_contact"), "do not contact"),
        (follow_up(status="finished"), "finished"),
    ],
)
def test_a_list_says_of_each_what_it_waits_for_or_why_it_ended(
    leadline: Leadline, daemon: FakeDaemon, view: FollowUpView, note: str
) -> None:
    answering(daemon, follow_ups=[view])
    assert leadline("outreach", "list").out.splitlines()[1].endswith(note)


def test_a_list_is_asked_for_page_by_page_and_says_when_there_is_more(leadline: Leadline, daemon: FakeDaemon) -> None:
    def page(request: FollowUps) -> OutreachReply:
        assert request.limit is not None
        ids = range(request.after + 1, request.after + request.limit + 1)
        return OutreachReply(line=0, follow_ups=[follow_up(number) for number in ids], next=ids[-1])

    daemon.on(FollowUps, page)
    ran = leadline("outreach", "list", "--json", "-n", 1500, "--status", "pending")
    assert [json.loads(line)["follow_up"] for line in ran.out.splitlines()] == list(range(1, 1501))
    assert [(request.limit, request.after) for request in daemon.requests if isinstance(request, FollowUps)] == [
        (1000, 0),
        (500, 1000),
    ]
    assert leadline("outreach", "list", "-n", 2).err == "There may be more: --limit 20\n"


def test_a_follow_up_is_told_with_its_fields_its_story_and_its_mails(leadline: Leadline, daemon: FakeDaemon) -> None:
    view = follow_up(
        status="unknown",
        fields={"first_name": "Grace"},
        history=[FollowUpEntry(at=NOON, status="unknown", detail="the connection broke")],
        mails=[mail()],
    )
    answering(daemon, follow_ups=[view])
    ran = leadline("outreach", "show", 7, *TO_ACME)
    assert "Follow-up 7 of acme: ada writes to grace@navy.example." in ran.out
    assert "  first_name: Grace" in ran.out
    assert ran.out.splitlines()[-1] == "Next: leadline outreach resolve 9 --teamspace acme --sent, or --not-sent"


def test_a_mailbox_that_is_paused_says_why_and_how_it_goes_on(leadline: Leadline, daemon: FakeDaemon) -> None:
    answering(daemon, associates=[associate(paused="of its last 40 mails 5 bounced"), associate(name="eve")])
    lines = leadline("outreach", "associates").out.splitlines()
    assert lines[1].split()[:6] == ["acme", "ada", "ada@acme.example", "paused", "7", "of"]
    assert lines[1].endswith("mon-fri 09:00-17:00 Europe/Berlin")
    assert lines[3:] == [
        "",
        "ada of acme is paused: of its last 40 mails 5 bounced.",
        "Next: leadline outreach resume ada --teamspace acme",
    ]


@pytest.mark.parametrize(
    ("hours", "words"),
    [
        (SendingHours(days=["mon", "wed"], whose="lead"), "mon, wed 09:00-17:00 Europe/Berlin (the contact's own"),
        (
            SendingHours(days=["mon", "tue", "wed", "thu", "fri", "sat", "sun"], begin="00:00", end="00:00"),
            "at any time",
        ),
    ],
)
def test_hours_are_told_in_words(leadline: Leadline, daemon: FakeDaemon, hours: SendingHours, words: str) -> None:
    answering(daemon, associates=[associate(hours=hours)])
    assert words in leadline("outreach", "associates").out


def test_a_script_is_listed_and_shown_with_its_texts(leadline: Leadline, daemon: FakeDaemon) -> None:
    steps = [ScriptStep(subject="Hi {{ name }}", text="One\nmail"), ScriptStep(after_days=3, text="Two", html="<p>")]
    answering(
        daemon, scripts=[ScriptView(teamspace="acme", name="fair", keyword="Follow Up", then="later", steps=steps)]
    )
    assert leadline("outreach", "scripts").out.splitlines()[1].split() == [
        "acme",
        "fair",
        "Follow",
        "Up",
        "2",
        "3",
        "later",
    ]
    assert leadline("outreach", "scripts", "fair", *TO_ACME).out.splitlines() == [
        "Script fair of acme, keyword Follow Up; after it comes later.",
        "",
        "Step 1. Subject: Hi {{ name }}",
        "  One",
        "  mail",
        "",
        "Step 2, 3 days after the one before, in HTML too. It answers the mail before it.",
        "  Two",
    ]
    assert leadline("outreach", "scripts", "gone", *TO_ACME).status == 1


def test_a_mail_of_unknown_outcome_is_told_with_all_that_helps_to_settle_it(
    leadline: Leadline, daemon: FakeDaemon
) -> None:
    answering(daemon, mails=[mail()])
    assert leadline("outreach", "unknown").out.splitlines()[1:] == [
        "  What is known: the connection broke.",
        "  Look in the mail server's log, or the folder of sent mails, for <1f0c2b@acme.example>",
        "",
        "Next: leadline outreach resolve 9 --teamspace acme --sent, or --not-sent",
    ]
    answering(daemon)
    assert leadline("outreach", "unknown").out == "There are none: of every mail it is known whether it was sent.\n"


# Deciding -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("option", "sent"), [("--sent", True), ("--not-sent", False)])
def test_an_outcome_is_settled_by_a_person(leadline: Leadline, daemon: FakeDaemon, option: str, sent: bool) -> None:
    answering(daemon, mails=[mail(state="sent" if sent else "not_sent")])
    ran = leadline("outreach", "resolve", 9, *TO_ACME, option, "--note", "seen in the log")
    assert ran.status == 0
    assert asked(daemon) == FollowUps(action="resolve", teamspace="acme", mail=9, sent=sent, detail="seen in the log")
    assert ran.out.splitlines()[-1] == "Next: leadline outreach show 7 --teamspace acme"


@pytest.mark.parametrize(
    ("whom", "said"),
    [
        ("ann@x.example", {"address": "ann@x.example"}),
        ("x.example", {"domain": "x.example"}),
        ("@x.example", {"domain": "x.example"}),
    ],
)
def test_an_address_or_a_domain_is_suppressed_and_allowed(
    leadline: Leadline, daemon: FakeDaemon, whom: str, said: dict[str, str]
) -> None:
    view = SuppressionView(teamspace="acme", value=next(iter(said.values())), reason="do_not_contact", at=NOON)
    answering(daemon, suppressions=[view])
    for command in ("suppress", "allow"):
        assert leadline("outreach", command, whom, *TO_ACME).status == 0
    told = [request for request in daemon.requests if isinstance(request, FollowUps)]
    assert told == [FollowUps(action=action, teamspace="acme", **said) for action in ("suppress", "allow")]  # type: ignore[arg-type]


def test_a_mailbox_is_paused_and_let_go_on(leadline: Leadline, daemon: FakeDaemon) -> None:
    answering(daemon, associates=[associate(paused="holiday")])
    assert leadline("outreach", "pause", "ada", *TO_ACME, "--note", "holiday").out.splitlines() == [
        "The mailbox of ada is paused: holiday. 2 mails in its line.",
        "Next, to let it go on: leadline outreach resume ada --teamspace acme",
    ]
    answering(daemon, associates=[associate()])
    ran = leadline("outreach", "resume", "ada", *TO_ACME)
    assert ran.out == "The mailbox of ada goes on: no moment for a mail within a year.\n"


def test_a_name_that_a_shell_would_take_apart_is_quoted(leadline: Leadline, daemon: FakeDaemon) -> None:
    answering(daemon, associates=[associate(name="ada b", paused="x")])
    ran = leadline("outreach", "pause", "ada b", "--teamspace", "a;b")
    assert ran.out.splitlines()[-1].endswith("leadline outreach resume 'ada b' --teamspace 'a;b'")


def test_an_event_can_be_told_by_hand_over_the_submit_socket_too(leadline: Leadline, submit_only: FakeDaemon) -> None:
    submit_only.on(ContactEvent, lambda _: EventReply(line=0, stopped=[7, 8]))
    ran = leadline("outreach", "event", "bounce", "ann@x.example", *TO_ACME, "--temporary", "--message-id", "<a@b>")
    assert (ran.status, ran.out) == (0, "Stopped: follow-ups 7, 8.\n")
    (request,) = submit_only.requests
    assert request == ContactEvent(
        teamspace="acme", event="bounce", address="ann@x.example", message_id="<a@b>", permanent=False
    )


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (EventReply(line=0), "It is noted; no follow-up was to be stopped.\n"),
        (EventReply(line=0, known=True), "It had come before: nothing was done now.\n"),
    ],
)
def test_what_an_event_has_come_to_is_told(
    leadline: Leadline, daemon: FakeDaemon, reply: EventReply, said: str
) -> None:
    daemon.on(ContactEvent, lambda _: reply)
    assert leadline("outreach", "event", "reply", "ann@x.example", *TO_ACME).out == said


# Ends -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["resolve", "9", *TO_ACME], "say --sent or --not-sent; `leadline outreach unknown` shows what is known"),
        (["suppress", "nonsense", *TO_ACME], "nonsense is neither an address nor a domain"),
        (["list", "--associate", "ada"], "Say with --teamspace whose associate that is"),
        (["scripts", "fair"], "Say with --teamspace whose script that is"),
        (["list", "-n", "0"], "--limit must be at least 1"),
        (["event", "reply", "a@b.example", *TO_ACME, "--temporary"], "--temporary goes with a bounce"),
        (
            ["preview", "ada", *TO_ACME, "--follow-up", "7"],
            "--follow-up is about one mail: give no ASSOCIATE and no --limit",
        ),
    ],
)
def test_what_is_not_said_is_asked_for_before_the_daemon_is(
    leadline: Leadline, daemon: FakeDaemon, arguments: Sequence[str], fault: str
) -> None:
    ran = leadline("outreach", *arguments)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err == f"leadline: {fault} (see `leadline outreach --help`)\n"
    assert daemon.requests == []


def test_a_refusal_is_one_line_and_a_failure(leadline: Leadline, daemon: FakeDaemon) -> None:
    daemon.on(FollowUps, lambda _: refusal(ErrorCode.NOT_FOUND, "acme has no associate bob", at="associate"))
    ran = leadline("outreach", "queue", "bob", *TO_ACME)
    assert (ran.status, ran.out, ran.err) == (1, "", "leadline: not_found: acme has no associate bob (at associate)\n")


def test_without_a_daemon_the_status_is_3(leadline: Leadline) -> None:
    assert leadline("outreach", "list").status == 3


def test_every_list_is_objects_as_json(leadline: Leadline, daemon: FakeDaemon) -> None:
    suppression = SuppressionView(teamspace="acme", value="x.example", reason="bounce", at=NOON)
    script = ScriptView(teamspace="acme", name="fair", keyword="k", steps=[])
    answering(
        daemon,
        follow_ups=[follow_up()],
        associates=[associate()],
        scripts=[script],
        suppressions=[suppression],
        mails=[mail()],
        queued=[RECEIPT],
    )
    commands = ("list", "associates", "scripts", "suppressions", "unknown")
    told = [json.loads(leadline("outreach", command, "--json").out) for command in commands]
    assert [each["teamspace"] for each in told] == ["acme"] * 5
    for command in ("queue", "preview"):
        assert json.loads(leadline("outreach", command, *TO_ACME, "--json").out)["associate"] == "ada"
