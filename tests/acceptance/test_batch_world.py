"""What tenants' code has of the daemon while it runs: settings, mails, queries; and what it has not."""

import email
import email.policy
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, Refused
from tests.acceptance.batch_jobs import ENABLED, invoke, lines_of, published, run_of, until_printed
from tests.acceptance.stage import Stage, World, people, stage
from tests.world.mail import Mailbox, MailServed

ROOMY = f"""{ENABLED}
executions_per_day = 1000
invocations_per_day = 1000
jobs_max = 100
reaches = []
"""


@contextmanager
def with_mail(world: World, plan: str = "") -> Iterator[tuple[Stage, MailServed]]:
    mail = world.serve_mail(Mailbox())
    smtp = f"""
[notices]
sender = "leadline@daemon.example"
[notices.smtp]
host = "127.0.0.1"
port = {mail.port}
tls = "none"
"""
    with stage(ROOMY + plan + smtp) as daemon:
        yield daemon, mail


@pytest.fixture(scope="module")
def daemon() -> Iterator[Stage]:
    with stage(ROOMY) as running:
        yield running


def test_settings_and_secrets_are_there_and_nowhere_else(daemon: Stage) -> None:
    published(
        daemon,
        "settings",
        """
        import os
        from helper import LS
        def main():
            LS.log.info("region", LS.settings.region)
            seen = [open(path, "rb").read() for path in ("/proc/self/environ", "/proc/self/cmdline")]
            held = [each for each in seen if LS.settings.token.encode() in each]
            return {"secret": LS.settings.token == "-".join(("secret", "canary")), "held": held}
        """,
        settings={"region": "eu"},
        secrets={"token": "secret-canary"},
    )
    job = invoke(daemon, "settings")
    assert daemon.ended(job).state == "completed"
    (line,) = lines_of(daemon, job)
    assert "INFO" in line.upper()
    assert "eu" in line
    assert run_of(daemon, job).result == {"secret": True, "held": []}
    assert (
        "secret-canary" not in daemon.leadline("batch", "describe", "settings", "--teamspace", "acme", "--json").stdout
    )
    held = [path for path in daemon.state_dir.rglob("*") if path.is_file() and b"secret-canary" in path.read_bytes()]
    assert held == [], "it is sealed wherever it is kept"


def test_the_database_is_refused_by_default_and_shown_by_plan(daemon: Stage) -> None:
    daemon.table("acme", "people", people(3))
    daemon.table("globex", "people", [{"email": "canary@globex.example"}])
    program = """
        from helper import LS, MXUnauthorizedDBAccess
        def main():
            try:
                rows = LS.db.execute_DB_query("select * from leads order by id")
            except MXUnauthorizedDBAccess as error:
                return str(error)
            return [str(row) for row in (rows if isinstance(rows, list) else rows.to_dict("records"))]
        """
    published(daemon, "query", program)
    first = daemon.ended(invoke(daemon, "query"))
    assert run_of(daemon, first.job).result == "the plan has no database access"
    daemon.ask(wire.Plans(teamspace="acme", key="batch.own_database", value="read"))
    second = daemon.ended(invoke(daemon, "query"))
    assert second.state == "completed", second.message
    shown = run_of(daemon, second.job).result
    assert len(shown) == 3, shown
    assert "canary" not in str(shown)


def test_code_changes_its_own_leads_while_the_plan_says_so(daemon: Stage) -> None:
    daemon.table("hooli", "people", people(3))
    daemon.table("piedpiper", "people", people(3))
    program = """
        from helper import LS
        def main():
            done = []
            for sql in (
                "update leads set data = data || '{\\"email\\": \\"new@hooli.example\\"}' where id = 1",
                "update leads set data = data || '{\\"mine\\": 1}' where id = 1",
                "delete from leads",
            ):
                try:
                    done.append(str(LS.db.execute_DB_query(sql)))
                except Exception as error:
                    done.append(str(error))
            return done
        """
    published(daemon, "update", program, teamspace="hooli")
    results = []
    for allowed in ("read", "write", "read"):
        daemon.ask(wire.Plans(teamspace="hooli", key="batch.own_database", value=allowed))
        ended = daemon.ended(invoke(daemon, "update", teamspace="hooli"))
        results.append(run_of(daemon, ended.job).result)
    assert results[0] == results[2] == ["the plan allows to read only"] * 3
    assert results[1][1].startswith("lead 1 of table people: the table has no column mine")
    assert "leads come by uploads" in results[1][2]
    before = [lead["email"] for lead in people(3)]
    assert [lead["email"] for lead in daemon.rows("hooli", "people")] == ["new@hooli.example", *before[1:]]
    assert [lead["email"] for lead in daemon.rows("piedpiper", "people")] == before


def test_code_sends_three_mails_at_most_to_those_who_are_named_with_it(world: World) -> None:
    with with_mail(world) as (daemon, mail):
        published(
            daemon,
            "mails",
            """
            from helper import LS, MXTooManyRequestsError
            def main():
                for number in range(4):
                    try:
                        LS.email.send_email_notification("Success", f"Report {number}", f"<p>{number} leads</p>", True)
                    except MXTooManyRequestsError as error:
                        return str(error)
            """,
            mail_success=["ada@acme.example", "bob@acme.example"],
        )
        job = invoke(daemon, "mails")
        assert daemon.ended(job).state == "completed"
        assert "3 mails" in str(run_of(daemon, job).result)
        deadline = time.monotonic() + 20
        while len(mail.messages) < 6:
            assert time.monotonic() < deadline, mail.messages
            time.sleep(0.02)
        parsed = [email.message_from_bytes(each.content, policy=email.policy.default) for each in mail.messages]
        assert sorted((each["To"], each["Subject"]) for each in parsed) == [
            (f"{who}@acme.example", f"Report {number}") for who in ("ada", "bob") for number in range(3)
        ]
        assert all(each.get_content_type() == "text/html" for each in parsed)


def test_whoever_is_named_for_mails_is_refused_where_none_can_be_sent(daemon: Stage) -> None:
    with pytest.raises(Refused) as refused:
        published(daemon, "no-mail", "def main(): pass", mail_success=["ada@acme.example"])
    assert (refused.value.code, refused.value.at) == (ErrorCode.BAD_REQUEST, "mail_success")


def test_a_question_that_was_asked_of_a_daemon_that_died_is_answered_by_the_next(daemon: Stage) -> None:
    published(
        daemon,
        "patient",
        """
        import time
        from helper import LS
        def main():
            print("here", flush=True)
            time.sleep(2)
            return LS.settings.region
        """,
        settings={"region": "eu"},
    )
    job = invoke(daemon, "patient")
    until_printed(daemon, job, "here")
    daemon.kill()
    time.sleep(2.5)  # the question is asked while nobody is there
    daemon.start()
    assert daemon.ended(job).state == "completed"
    assert run_of(daemon, job).result == "eu"


def test_how_far_the_code_says_it_is_is_shown_with_its_job(daemon: Stage) -> None:
    published(
        daemon,
        "far",
        "import time\nfrom helper import LS\ndef main():\n    LS.progress(25, 100)\n    time.sleep(20)\n",
        timeout_seconds=30,
    )
    job = invoke(daemon, "far")
    assert daemon.until(job, lambda view: view.activity == "25 of 100").state == "running"
    daemon.ask(wire.Cancel(job=job))
