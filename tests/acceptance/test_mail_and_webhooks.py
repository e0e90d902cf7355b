"""Notices by webhook and mail: one for each end, whatever becomes of the daemon or of who is told."""

import email
import email.policy
import json
import time
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import pytest

from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.signature import HEADER, verify
from tests.acceptance.stage import Stage, World, people, provider, stage
from tests.world import behaviours
from tests.world.behaviours import Fault, Now, Plan, Request
from tests.world.mail import Mailbox, MailFault, MailPlan, MailServed
from tests.world.servers import Served

SECRET: Final = "webhook-canary-secret"
WITHIN_SECONDS: Final = 20.0


class Hook:
    """Takes webhooks, and keeps what it was sent; the first so many it answers otherwise."""

    def __init__(self, *first: Plan) -> None:
        self._first = list(first)
        self.got: list[Request] = []

    def respond(self, request: Request, now: Now) -> Plan:
        self.got.append(request)
        return self._first.pop(0) if self._first else behaviours.json_plan({})

    @property
    def told(self) -> list[wire.JobNotice]:
        return [msgspec.json.decode(request.body, type=wire.JobNotice) for request in self.got]


def configured(mail: MailServed | None = None, teamspaces: str = "", *, allow: str = "127.0.0.0/8") -> str:
    lines = ["[queue]", "warn_after_seconds = 1", "stall_after_seconds = 2", "[notices]"]
    lines += [f'allow_networks = ["{allow}"]'] if allow else []
    if mail is not None:
        lines += ['sender = "leadline@daemon.example"', "[notices.smtp]", 'host = "127.0.0.1"', f"port = {mail.port}"]
        lines += ['tls = "none"']
    return "\n".join([*lines, teamspaces, ""])


def until(true_of: Any, *, seconds: float = WITHIN_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not true_of():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def states(daemon: Stage, job: int) -> list[tuple[str, str]]:
    """The medium and the state of each notice of a job, as stored."""
    return daemon.query("SELECT medium, state FROM notice WHERE job = $1 ORDER BY medium, target", job)


@pytest.fixture(scope="module")
def mail(world: World) -> MailServed:
    return world.serve_mail(
        Mailbox(
            [
                MailFault("dot", MailPlan(stop="cut"), recipient="lost@a.example"),
                MailFault("rcpt", MailPlan("550 5.1.1 no such user"), recipient="nobody@a.example", times=100),
            ]
        )
    )


@pytest.fixture(scope="module")
def hook() -> Hook:
    return Hook()


@pytest.fixture(scope="module")
def served(world: World, hook: Hook) -> Served:
    return world.serve(hook)


@pytest.fixture(scope="module")
def hangs(world: World) -> Served:
    return world.serve(
        behaviours.Faulty(behaviours.Enrichment(), [Fault(behaviours.hang(), "person00002@example.com", times=10)])
    )


@pytest.fixture(scope="module")
def daemon(mail: MailServed, served: Served, hangs: Served) -> Iterator[Stage]:
    rule = (
        f'[notices.teamspaces.ruled]\nwebhook = "{served.url}/ruled"\nmail = ["ops@ruled.example"]\n'
        f'secret = "{SECRET}"\n'
    )
    with stage(provider("hangs", hangs) + configured(mail, rule)) as running:
        yield running


def test_who_a_teamspace_names_is_told_of_each_job_once_and_can_verify_it(
    daemon: Stage, hook: Hook, mail: MailServed
) -> None:
    daemon.table("ruled", "people", people(3))
    until(lambda: [notice for notice in hook.told if notice.job.teamspace == "ruled"])
    request = next(request for request in hook.got if request.path == "/ruled")
    notice = msgspec.json.decode(request.body, type=wire.JobNotice)
    assert (notice.event, notice.job.kind, notice.job.state) == ("completed", "upload", "completed")
    assert (notice.job.counts.total, notice.job.counts.done) == (3, 3)
    signature = request.headers[HEADER.lower()]
    assert verify(SECRET, signature, request.body, now=time.time())
    assert not verify("another", signature, request.body, now=time.time())
    assert not verify(SECRET, signature, request.body + b" ", now=time.time())
    assert not verify(SECRET, signature, request.body, now=time.time() + 301)
    until(lambda: [handed for handed in mail.messages if "ops@ruled.example" in handed.recipients])
    (handed,) = [handed for handed in mail.messages if "ops@ruled.example" in handed.recipients]
    message = email.message_from_bytes(handed.content, policy=email.policy.default)
    assert sorted(message.keys()) == sorted(
        ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "Content-Type", "Content-Transfer-Encoding",
         "MIME-Version", *(["X-Peer", "X-MailFrom", "X-RcptTo"] if message["X-Peer"] else [])]
    )  # fmt: skip
    assert message["Subject"] == f"Job {notice.job.job} is completed"
    assert "3, of which 3 done" in message.get_content()
    until(lambda: states(daemon, notice.job.job) == [("mail", "sent"), ("webhook", "sent")])
    log = daemon.log.read_text(encoding="utf-8")
    assert SECRET not in log


def test_a_submission_names_whom_and_of_what_and_a_noop_is_told_of_only_so(
    daemon: Stage, served: Served, hook: Hook
) -> None:
    silent = daemon.submit({"kind": "noop", "teamspace": "ruled"}).job
    told = daemon.submit({"kind": "noop", "teamspace": "ruled", "notices": {"webhook": f"{served.url}/noop"}}).job
    other = daemon.submit(
        {"kind": "noop", "teamspace": "x", "notices": {"webhook": f"{served.url}/noop", "on": ["failed"]}}
    ).job
    until(lambda: states(daemon, told) == [("webhook", "sent")])
    assert states(daemon, silent) == states(daemon, other) == []
    assert [notice.job.job for notice in hook.told if notice.job.kind == "noop"] == [told]
    assert daemon.query("SELECT count(*) FROM notice_wish") == [(0,)]


def test_a_chain_is_told_of_once_when_all_of_it_has_ended(daemon: Stage, served: Served, hook: Hook) -> None:
    steps = [{"kind": "noop"}, {"kind": "noop"}]
    notices = {"webhook": f"{served.url}/chain"}
    chain = daemon.submit({"kind": "chain", "teamspace": "chained", "steps": steps, "notices": notices})
    until(lambda: states(daemon, chain.job) == [("webhook", "sent")])
    assert [notice.job.job for notice in hook.told if notice.job.teamspace == "chained"] == [chain.job]


def test_a_stall_is_told_of_when_it_comes(daemon: Stage, served: Served, hook: Hook) -> None:
    daemon.table("stalling", "people", people(5))
    job = daemon.submit(
        wire.Enrich(
            teamspace="stalling", table="people", module="hangs", into={"company": "text"},
            notices=wire.TellOf(webhook=f"{served.url}/stalls"),
        )
    ).job  # fmt: skip
    view = daemon.ended(job)
    assert view.state == "partial"
    until(lambda: [n.event for n in hook.told if n.job.job == job] == ["stalled", "stalled", "partial"])
    assert len({n.notice for n in hook.told if n.job.job == job}) == 3


def test_a_mail_of_which_nobody_knows_whether_it_left_is_held_and_listed_and_not_sent_again(
    daemon: Stage, mail: MailServed
) -> None:
    job = daemon.submit(
        {"kind": "noop", "teamspace": "m", "notices": {"mail": ["lost@a.example", "nobody@a.example", "ok@a.example"]}}
    ).job
    until(lambda: [state for _, state in states(daemon, job)] == ["unknown", "failed", "sent"])
    listed = {
        line["target"]: line for line in map(json.loads, daemon.leadline("notices", "--json").stdout.splitlines())
    }
    assert listed["lost@a.example"]["state"] == "unknown"
    assert "550" in listed["nobody@a.example"]["detail"]
    assert "ok@a.example" not in listed
    assert any(warning.code == "undelivered_notices" for warning in daemon.ask(wire.Status()).warnings)
    daemon.restart()
    time.sleep(1)
    assert [handed.recipients for handed in mail.messages].count(("lost@a.example",)) == 1
    again = daemon.leadline("notices", "--again", listed["lost@a.example"]["notice"])
    assert again.returncode == 0, again.stderr
    until(lambda: [state for _, state in states(daemon, job)] == ["sent", "failed", "sent"])
    ids = [handed.message_id for handed in mail.messages if handed.recipients == ("lost@a.example",)]
    assert len(ids) == 2
    assert len(set(ids)) == 1, "so that a person, or the receiver's server, can tell"
    unknown = daemon.leadline("notices", "--again", listed["lost@a.example"]["notice"])
    assert unknown.returncode == 1


def test_what_no_one_can_be_told_by_is_refused(daemon: Stage) -> None:
    for notices, place in (
        ({}, "notices"),
        ({"webhook": "ftp://a.example/"}, "notices.webhook"),
        ({"webhook": "http://user@a.example/"}, "notices.webhook"),
        ({"mail": ["a@b.example\nBcc: c@d.example"]}, "notices.mail"),
        ({"mail": ["a@b.example"], "on": ["sometimes"]}, "notices.on"),
    ):
        with pytest.raises(Refused) as refused:
            daemon.submit({"kind": "noop", "teamspace": "n", "notices": notices})
        assert refused.value.code is ErrorCode.BAD_REQUEST
        assert (refused.value.at or "").startswith(place), refused.value.at


def test_a_webhook_that_fails_is_tried_again_under_its_id(world: World) -> None:
    hook = Hook(behaviours.server_error(), behaviours.redirect("http://169.254.169.254/"))
    served = world.serve(hook)
    with stage(configured()) as daemon:
        job = daemon.submit({"kind": "noop", "teamspace": "r", "notices": {"webhook": f"{served.url}/r"}}).job
        for tries in (1, 2):
            until(lambda: daemon.query("SELECT tries, state FROM notice") == [(tries, "due")])  # noqa: B023
            ((seconds,),) = daemon.query("SELECT extract(epoch FROM due - now())::float8 FROM notice")
            assert 5 * tries < seconds <= 10 * tries, "each pause is twice as long"
            daemon.query("UPDATE notice SET due = now()")  # an hour of waiting is not for a test
            daemon.restart()
        until(lambda: states(daemon, job) == [("webhook", "sent")])
    assert len(hook.got) == 3
    assert len({notice.notice for notice in hook.told}) == 1


def test_a_webhook_to_a_private_address_is_never_made_unless_the_network_is_allowed(world: World) -> None:
    hook = Hook()
    served = world.serve(hook)
    port = served.url.rpartition(":")[2]
    with stage(configured(allow="")) as daemon:
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "127.1", "169.254.169.254", "0.0.0.0"):
            url = f"http://{host}:{port}/"
            job = daemon.submit({"kind": "noop", "teamspace": "r", "notices": {"webhook": url}}).job
            until(lambda: states(daemon, job) == [("webhook", "failed")])  # noqa: B023
        details = [detail for (detail,) in daemon.query("SELECT detail FROM notice")]
        words = ("no address on the public internet", "not a canonical IPv4 address")
        assert all(any(word in detail for word in words) for detail in details), details
    assert hook.got == []


def test_a_daemon_that_is_killed_while_it_sends_posts_again_and_holds_the_mail(world: World) -> None:
    hook = Hook(behaviours.hang())
    served = world.serve(hook)
    mail = world.serve_mail(Mailbox([MailFault("dot", MailPlan(stop="hang"))]))
    with stage(configured(mail)) as daemon:
        notices = {"webhook": f"{served.url}/k", "mail": ["once@k.example"]}
        job = daemon.submit({"kind": "noop", "teamspace": "k", "notices": notices}).job
        until(lambda: hook.got and mail.messages)
        daemon.kill()
        daemon.start()
        until(lambda: states(daemon, job) == [("mail", "unknown"), ("webhook", "sent")])
        (held,) = daemon.ask(wire.Notices()).notices
    assert (held.medium, held.target, held.tries) == ("mail", "once@k.example", 1)
    assert held.detail == "the daemon ended while it was being sent"
    assert len(mail.messages) == 1
    assert len(hook.got) == 2
    assert len({notice.notice for notice in hook.told}) == 1


def test_a_daemon_that_is_killed_over_and_over_tells_of_every_end(world: World, mail: MailServed) -> None:
    hook = Hook()
    served = world.serve(hook)
    before = len(mail.messages)
    with stage(configured(mail)) as daemon:
        jobs: list[int] = []
        for number in range(6):
            for each in range(10):
                notices = {"webhook": f"{served.url}/k", "mail": [f"k{number}x{each}@k.example"]}
                jobs.append(daemon.submit({"kind": "noop", "teamspace": f"k{each}", "notices": notices}).job)
            daemon.kill()
            daemon.start()
        until(lambda: not daemon.query("SELECT 1 FROM notice WHERE state IN ('due', 'sending')"))
        stored = daemon.query("SELECT job, medium, state, id::text, target FROM notice")
    assert sorted(job for job, medium, *_ in stored if medium == "webhook") == jobs
    assert sorted(job for job, medium, *_ in stored if medium == "mail") == jobs
    assert {str(notice.notice) for notice in hook.told} == {
        id_ for _, medium, _, id_, _ in stored if medium == "webhook"
    }
    arrived = [handed.recipients[0] for handed in mail.messages[before:]]
    assert len(arrived) == len(set(arrived)), "no mail twice"
    sent = {target for _, medium, state, _, target in stored if medium == "mail" and state == "sent"}
    unknown = {target for _, medium, state, _, target in stored if medium == "mail" and state == "unknown"}
    assert sent <= set(arrived) <= sent | unknown
    assert len(sent) + len(unknown) == len(jobs)
