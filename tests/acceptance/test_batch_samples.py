"""The sample batch jobs do what they say: packed, uploaded and run as whole folders, and judged from outside.

The daemon runs on a machine of its own with an internet beyond it, where the services of the samples are: what a sample
sends goes out of its sandbox as a tenant's would.
"""

import asyncio
import email
import email.policy
import json
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Final

import asyncpg
import pytest

from leadline.adapters.sandbox_runner import network
from leadline.ports.runner import INTERNET, NetworkMissing
from leadline_protocol import messages as wire
from leadline_protocol.ids import JobId
from leadline_protocol.testing import find_command
from tests.acceptance.batch_jobs import ENABLED, invoke, lines_of, published, run_of
from tests.acceptance.sample_services import (
    Contacts,
    Documents,
    Event,
    Folder,
    Gateway,
    Orders,
    Sink,
    SourceAccount,
    TargetAccount,
    Teamspaces,
)
from tests.acceptance.stage import Stage, World, stage
from tests.acceptance.stage import world as new_world
from tests.internet import ADDRESSES, Internet
from tests.postgres import server
from tests.world.behaviours import SECOND, Authorized
from tests.world.mail import Mailbox, MailServed

pytestmark = [pytest.mark.root, pytest.mark.needs("bwrap", "slirp4netns", "ip"), pytest.mark.timeout(300)]

SAMPLES: Final = Path(__file__).parents[2] / "daemon" / "samples" / "batch"
BATCH_GUIDE: Final = SAMPLES.parents[1] / "docs" / "batch.md"
SALES: Final = """
CREATE TABLE sale (region text, amount numeric, sold_at timestamptz);
INSERT INTO sale VALUES
    ('north', 10.10, '2026-02-22 23:59:59+00'), ('north', 20.20, '2026-02-23 00:00+00'),
    ('south', 5, '2026-02-25 12:00+00'), ('south', 7.05, '2026-03-01 23:59+00'), ('north', 99, '2026-03-02 00:00+00');
"""


@pytest.fixture(scope="module")
def internet() -> Iterator[Internet]:
    try:
        network.check(INTERNET)
    except NetworkMissing as error:
        pytest.skip(f"needs the device for networks: {error}")
    with ExitStack() as stack:
        yield Internet(stack)


@pytest.fixture(scope="module")
def world(internet: Internet) -> Iterator[World]:
    with new_world(ADDRESSES[0], internet.enter_servers) as running:
        yield running


@pytest.fixture(scope="module")
def mail(world: World) -> MailServed:
    return world.serve_mail(Mailbox())


@pytest.fixture(scope="module")
def etl() -> Iterator[str]:
    """The URL of a database of a tenant's own, with sales in it."""
    name = server().create(empty=True)
    execute(server().url(name), SALES)
    yield server().url(name)
    server().drop(name)


@pytest.fixture(scope="module")
def daemon(internet: Internet, mail: MailServed, etl: str) -> Iterator[Stage]:
    configuration = f"""{ENABLED}
jobs_max = 100
[teamspaces.sales]
plan = "default"
etl = {{ secret = {etl!r} }}
[notices]
sender = "leadline@daemon.example"
[notices.smtp]
host = "{mail.host}"
port = {mail.port}
tls = "none"
"""
    with stage(configuration, command=internet.on_machine(find_command())) as running:
        yield running


def execute(url: str, statement: str) -> list[tuple[Any, ...]]:
    async def fetch() -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(url)
        try:
            if ";" not in statement:
                return [tuple(row) for row in await connection.fetch(statement)]
            await connection.execute(statement)
            return []
        finally:
            await connection.close()

    return asyncio.run(fetch())


def set_up(daemon: Stage, sample: str, folder: Path, teamspace: str = "acme", **conduct: Any) -> str:
    """The batch job of a sample, by the command that packs it; its name."""
    packed = folder / f"{sample}.zip"
    command = [*find_command(), "batch", "pack", str(SAMPLES / sample), "--output", str(packed)]
    subprocess.run(command, check=True, capture_output=True)
    name = sample.replace("_", "-")
    published(daemon, name, packed.read_bytes(), teamspace, **conduct)
    return name


def completed(daemon: Stage, name: str, teamspace: str = "acme", **event: Any) -> wire.BatchRun:
    """Run it to its end."""
    view = daemon.ended(invoke(daemon, name, teamspace, **event))
    assert view.state == "completed", (view.message, said(daemon, view.job))
    return run_of(daemon, view.job)


def said(daemon: Stage, job: JobId, retry_attempt: int = 0) -> list[tuple[str, str, str]]:
    """The lines of its log, each as level, message and what belongs to it."""
    lines = [line.removesuffix("|").split(" | ") for line in lines_of(daemon, job, retry_attempt)]
    return [(line[1], line[2], line[3]) for line in lines if len(line) == 4]


def mails_to(mail: MailServed, recipient: str, count: int = 1) -> list[EmailMessage]:
    """So many mails to somebody, as soon as they are here."""
    deadline = time.monotonic() + 20
    while len(found := [each for each in mail.messages if recipient in each.recipients]) < count:
        assert time.monotonic() < deadline, mail.messages
        time.sleep(0.02)
    return [email.message_from_bytes(each.content, policy=email.policy.default) for each in found]


def content(message: EmailMessage) -> str:
    text = message.get_content()
    assert isinstance(text, str)
    return text


def test_a_transfer_that_was_cut_off_goes_on_where_the_target_is_and_sends_nothing_twice(
    daemon: Stage, world: World, tmp_path: Path
) -> None:
    source, target = SourceAccount(leads=7), TargetAccount(refuses=[6], loses=[4])
    name = set_up(
        daemon,
        "lead_transfer",
        tmp_path,
        retries=1,
        settings={
            "source_url": world.serve(Authorized(source, "source-key")).url,
            "target_url": world.serve(Authorized(target, "target-key")).url,
            "page_size": "3",
        },
        secrets={"source_key": "source-key", "target_key": "target-key"},
    )
    night = completed(daemon, name)
    assert target.sent == [1, 2, 3, 4, 5, 6, 7]
    assert source.pages == [(0, 3), (3, 3), (4, 3), (7, 3)]
    assert len(night.attempts) == 2
    log = said(daemon, night.instance, 1)
    assert log[0] == ("Info", "beginning behind lead", "4")
    assert log[1][:2] == ("Warn", "the target refuses a lead")
    assert "bad address" in log[1][2]
    assert night.result == {"sent": 2, "refused": 1}
    source.leads = 9
    assert completed(daemon, name).result == {"sent": 2, "refused": 0}
    assert completed(daemon, name).result == {"sent": 0, "refused": 0}
    assert target.sent == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_guests_who_have_not_checked_in_are_reminded_once_and_a_busy_gateway_is_left_alone(
    daemon: Stage, world: World, tmp_path: Path
) -> None:
    guests = [
        {"id": n, "name": who, "phone": phone, "checked_in": here}
        for n, (who, phone, here) in enumerate(
            [
                ("Ada", "+4930901820", False),
                ("Bob", "+4930901821", True),
                ("Cem", "+4930901822", False),
                ("Dóra", "+3613456789", False),
                ("Eve", "", False),
                ("Fay", "0000", False),
            ]
        )
    ]
    gateway = Gateway(busy={"expo-26-2": "seconds", "expo-26-3": "http_date"})
    served = world.serve(Authorized(gateway, "sms-key"))
    name = set_up(
        daemon,
        "checkin_reminder",
        tmp_path,
        settings={
            "events_url": world.serve(Authorized(Event(guests), "event-key")).url,
            "sms_url": served.url,
            "text": "Hello {name}, see you at the gate!",
        },
        secrets={"events_key": "event-key", "sms_key": "sms-key"},
    )
    run = completed(daemon, name, body={"event": "expo-26"})
    reminded = [
        ("+4930901820", "Hello Ada, see you at the gate!", "expo-26-0"),
        ("+4930901822", "Hello Cem, see you at the gate!", "expo-26-2"),
        ("+3613456789", "Hello Dóra, see you at the gate!", "expo-26-3"),
    ]
    assert [(each["to"], each["text"], each["reference"]) for each in gateway.messages] == reminded
    calls = served.calls
    assert [call.status for call in calls] == [200, 429, 200, 429, 200, 400]
    for busy, after in ((1, 2), (3, 4)):
        assert calls[after].arrived_us - calls[busy].arrived_us >= 0.99 * SECOND
    assert run.result == {"reminded": 3, "unreachable": 2}
    unreachable = [line for line in said(daemon, run.instance) if line[0] == "Warn"]
    assert unreachable == [("Warn", "cannot be reminded", f'{{"id": {n}}}') for n in (4, 5)]
    completed(daemon, name, body={"event": "expo-26"})
    assert len(gateway.messages) == 3


def test_rows_of_the_newest_csv_are_upserted_and_the_bad_ones_are_logged_and_mailed(
    daemon: Stage, world: World, mail: MailServed, tmp_path: Path
) -> None:
    newest = (
        "\ufeffemail,name,company\r\n"
        'Ada@North.example,"Lovelace, Ada","North\nLtd"\r\n'
        "<b>nobody</b>,Bob,South\r\n"
        "cem@south.example,Cem\r\n"
        "dora@blocked.example,Dóra,West\r\n"
        "eve@east.example,Eve,East,more\r\n"
        "ada@north.example,Ada L.,North\r\n"
    )
    files = {"leads-2026-02-28.csv": b"email\r\n", "leads-2026-03-01 b.csv": newest.encode()}
    contacts = Contacts()
    name = set_up(
        daemon,
        "customer_csv",
        tmp_path,
        mail_failure=["csv@acme.example"],
        settings={
            "folder_url": world.serve(Folder(files, "folder-password")).url + "/exports/",
            "api_url": world.serve(Authorized(contacts, "api-key")).url,
        },
        secrets={"folder_password": "folder-password", "api_key": "api-key"},
    )
    run = completed(daemon, name)
    assert contacts.leads == {"ada@north.example": {"email": "ada@north.example", "name": "Ada L.", "company": "North"}}
    assert run.result == {"file": "leads-2026-03-01 b.csv", "upserted": 2, "bad": 4}
    assert [message for level, message, _ in said(daemon, run.instance) if level == "Warn"] == [
        "line 4 is left out: it has no e-mail address",
        "line 5 is left out: it has too few columns",
        "line 6 is left out: the domain is blocked",
        "line 7 is left out: it has too many columns",
    ]
    (message,) = mails_to(mail, "csv@acme.example")
    assert message["Subject"] == "4 bad rows in leads-2026-03-01 b.csv"
    assert "<td>4</td><td>&lt;b&gt;nobody&lt;/b&gt;</td><td>it has no e-mail address</td>" in content(message)
    view = daemon.ended(invoke(daemon, name, query_string_parameters={"file": "leads-2026-02-28.csv"}))
    assert (view.state, view.message) == (
        "failed",
        "ValueError: leads-2026-02-28.csv has no column company, name",
    )


def test_the_daily_report_is_a_mail_about_the_teamspaces_own_leads(
    daemon: Stage, mail: MailServed, tmp_path: Path
) -> None:
    prospects = [{"email": "a@x.example", "status": "new"}, {"email": "c@x.example", "status": "<won>"}]
    daemon.table("reported", "prospects", prospects)
    daemon.table("reported", "guests", [{"email": "b@x.example", "status": ""}])
    canaries = [{"email": f"canary{number}@another.example", "status": "canary"} for number in range(3)]
    daemon.table("another", "prospects", canaries)
    daemon.ask(wire.Plans(teamspace="reported", key="batch.own_database", value="read"))
    name = set_up(daemon, "daily_report", tmp_path, "reported", mail_success=["report@acme.example"])
    assert completed(daemon, name, "reported").result == {"leads": 3}
    (message,) = mails_to(mail, "report@acme.example")
    assert message.get_content_type() == "text/html"
    assert re.fullmatch(r"Leads of \d\d \w+ \d{4}: 3", message["Subject"])
    body = content(message)
    cells = [re.findall("<t[dh]>(.*?)</t[dh]>", row) for row in re.findall("<tr>(.*?)</tr>", body)]
    assert cells == [
        ["Table", "Leads", "With e-mail"],
        ["guests", "1", "1"],
        ["prospects", "2", "2"],
        ["Status", "Leads"],
        ["(none)", "1"],
        ["&lt;won&gt;", "1"],
        ["new", "1"],
    ]


def test_two_schedules_of_one_program_sum_up_the_week_and_the_month_where_the_plan_lets_it_write(
    daemon: Stage, etl: str, tmp_path: Path
) -> None:
    name = set_up(daemon, "sales_summary", tmp_path, "sales", retries=0)
    submissions = [
        scheduled(daemon, name, period, *when)
        for period, when in (
            ("week", ("--weekly", "mon", "--at", "04:00")),
            ("month", ("--monthly", "1", "--at", "06:00")),
        )
    ]
    written = "SELECT period, begins::text, region, sales, amount::text FROM sale_summary ORDER BY 1, 3"
    daemon.ask(wire.Plans(teamspace="sales", key="batch.etl_database", value="read"))
    refused = daemon.ended(daemon.submit({**submissions[0], "body": {"day": "2026-03-04"}}).job)
    assert (refused.state, execute(etl, "SELECT to_regclass('sale_summary')")) == ("failed", [(None,)])
    daemon.ask(wire.Plans(teamspace="sales", key="batch.etl_database", value="write"))
    results = []
    for submission in [*submissions, submissions[0]]:
        view = daemon.ended(daemon.submit({**submission, "body": {"day": "2026-03-04"}}).job)
        assert view.state == "completed", view.message
        results.append(run_of(daemon, view.job).result)
    week = {"period": "week", "begins": "2026-02-23", "regions": 2, "sales": 3, "amount": "32.25"}
    month = {"period": "month", "begins": "2026-02-01", "regions": 2, "sales": 3, "amount": "35.30"}
    assert results == [week, month, week]
    assert execute(etl, written) == [
        ("month", "2026-02-01", "north", 2, "30.30"),
        ("month", "2026-02-01", "south", 1, "5"),
        ("week", "2026-02-23", "north", 1, "20.20"),
        ("week", "2026-02-23", "south", 2, "12.05"),
    ]


def scheduled(daemon: Stage, name: str, period: str, *when: str) -> Mapping[str, Any]:
    """What a schedule submits, added by the command in the sample's first lines."""
    added = f'{{"kind":"batch","batch_job":"{name}","query_string_parameters":{{"period":"{period}"}}}}'
    command = f"leadline schedule add sales-{period}ly - --teamspace acme {' '.join(when)} --zone Europe/Berlin"
    told = (SAMPLES / "sales_summary" / "main.py").read_text()
    assert added in told
    assert command in told
    words = ["sales" if word == "acme" else word for word in command.split()[1:]]
    done = daemon.leadline(*words, text=added)
    assert done.returncode == 0, done.stderr
    asked = wire.Schedules(action="describe", teamspace="sales", name=f"sales-{period}ly", count=1)
    (view,) = daemon.ask(asked).schedules
    return view.submission


def test_one_report_is_made_of_two_teamspaces_by_the_key_of_each(
    daemon: Stage, world: World, mail: MailServed, tmp_path: Path
) -> None:
    teamspaces = Teamspaces(
        {
            "north-key": ["ada@x.example", "bob@x.example", "cem@x.example"],
            "south-key": ["BOB@x.example", "eve@x.example"],
        }
    )
    name = set_up(
        daemon,
        "two_teamspaces",
        tmp_path,
        mail_success=["both@acme.example"],
        settings={"api_url": world.serve(teamspaces).url, "teamspaces": "north,south"},
        secrets={"key_north": "north-key", "key_south": "south-key"},
    )
    run = completed(daemon, name)
    assert run.result == {"leads": {"north": 3, "south": 2}, "people": 4, "in_all": ["bob@x.example"]}
    (message,) = mails_to(mail, "both@acme.example")
    assert message["Subject"] == "Leads of north and south"
    assert "<tr><td>north</td><td>3</td></tr><tr><td>south</td><td>2</td></tr>" in content(message)
    assert "-key" not in "".join(lines_of(daemon, run.instance)) + content(message)


def test_the_invoices_of_a_day_are_one_pdf_with_a_page_and_a_total_each(
    daemon: Stage, world: World, tmp_path: Path
) -> None:
    orders = [
        {
            "number": f"26-{n}",
            "customer": customer,
            "items": [
                {"name": "Lead (fresh)", "quantity": 3, "price": "0.35"},
                {"name": "Seat", "quantity": n, "price": "1199"},
            ],
        }
        for n, customer in enumerate(["Müller & Söhne", "A\\B (Ltd", "Łódź Sp."], start=1)
    ]
    documents = Documents()
    name = set_up(
        daemon,
        "invoices",
        tmp_path,
        settings={
            "orders_url": world.serve(Authorized(Orders({"2026-03-01": orders}), "orders-key")).url,
            "documents_url": world.serve(Authorized(documents, "documents-key")).url,
            "seller": "Acme GmbH",
        },
        secrets={"orders_key": "orders-key", "documents_key": "documents-key"},
    )
    run = completed(daemon, name, query_string_parameters={"day": "2026-03-01"})
    assert run.result == {"invoices": 3, "total": "7197.15"}
    assert list(documents.kept) == ["invoices-2026-03-01.pdf"]
    pages = pages_of(documents.kept["invoices-2026-03-01.pdf"])
    assert [page[2] for page in pages] == ["Müller & Söhne", "A\\B (Ltd", "?ód? Sp."]
    for number, (page, total) in enumerate(zip(pages, ["1,200.05", "2,399.05", "3,598.05"], strict=True), start=1):
        assert page[:2] == ["Acme GmbH", f"Invoice 26-{number} of 2026-03-01"]
        assert page[3:5] == ["3 × Lead (fresh)", "1.05 €"]
        assert page[-2:] == ["Total", f"{total} €"]
    assert completed(daemon, name, query_string_parameters={"day": "2026-03-02"}).result == {"invoices": 0}
    assert len(documents.kept) == 1


def pages_of(pdf: bytes) -> list[list[str]]:
    """The texts on each page of a PDF, found as a reader does: from its end, by its table of objects."""
    assert pdf.startswith(b"%PDF-1.")
    end = re.search(rb"startxref\n(\d+)\n%%EOF\n\Z", pdf)
    assert end is not None
    table = re.match(rb"xref\n0 (\d+)\n((?:\d{10} \d{5} [nf] \n)+)trailer\n(<<.*?>>)\n", pdf[int(end[1]) :], re.DOTALL)
    assert table is not None
    entries = table[2].split(b" \n")[:-1]
    assert len(entries) == int(table[1])
    objects = {}
    for number, entry in enumerate(entries):
        if entry.endswith(b"n"):
            found = re.match(rb"%d 0 obj\n(.*?)\nendobj\n" % number, pdf[int(entry[:10]) :], re.DOTALL)
            assert found is not None, f"there is no object {number} where the table says it is"
            objects[number] = found[1]

    def led_to(name: bytes, dictionary: bytes) -> list[bytes]:
        reference = re.search(rb"/%b \[?((?: ?\d+ 0 R)+)" % name, dictionary)
        assert reference is not None
        return [objects[int(each)] for each in re.findall(rb"(\d+) 0 R", reference[1])]

    (catalog,) = led_to(b"Root", table[3])
    (tree,) = led_to(b"Pages", catalog)
    kids = led_to(b"Kids", tree)
    assert b"/Count %d " % len(kids) in tree
    pages = []
    for kid in kids:
        assert b"/Type /Page " in kid
        (stream,) = led_to(b"Contents", kid)
        parts = re.fullmatch(rb"<< /Length (\d+) >>\nstream\n(.*)\nendstream", stream, re.DOTALL)
        assert parts is not None
        assert len(parts[2]) == int(parts[1])
        texts = re.findall(rb"\(((?:[^()\\]|\\.)*)\) Tj", parts[2])
        pages.append([re.sub(rb"\\(.)", rb"\1", text).decode("cp1252") for text in texts])
    return pages


def test_leads_that_a_search_finds_are_pushed_in_batches_with_progress_and_tried_again(
    daemon: Stage, world: World, tmp_path: Path
) -> None:
    leads = [
        {"email": f"p{n}@x.example", "country": "FR" if n % 20 == 0 else "DE", "score": str(n % 100 or "none")}
        for n in range(300)
    ]
    daemon.table("searching", "prospects", leads)
    daemon.table("searching", "others", leads[1:2])
    daemon.ask(wire.Plans(teamspace="searching", key="batch.own_database", value="read"))
    sink = Sink(failures=2, delay_us=8 * SECOND, slow_below=100)
    name = set_up(
        daemon,
        "lead_push",
        tmp_path,
        "searching",
        settings={
            "push_url": world.serve(Authorized(sink, "push-key")).url,
            "table": "prospects",
            "country": "DE",
            "score_min": "11",
        },
        secrets={"push_key": "push-key"},
    )
    wanted = [lead for n, lead in enumerate(leads) if n % 20 and n % 100 >= 11]
    assert len(wanted) == 255
    job = invoke(daemon, name, "searching")
    daemon.until(job, lambda view: view.activity == "200 of 255")
    view = daemon.ended(job)
    assert view.state == "completed", view.message
    assert run_of(daemon, job).result == {"pushed": 255}
    assert [len(batch) for batch in sink.batches.values()] == [100, 100, 55]
    pushed = [lead for batch in sink.batches.values() for lead in batch]
    assert len({lead.pop("id") for lead in pushed}) == 255
    assert [lead["email"] for lead in pushed] == [lead["email"] for lead in wanted]
    assert sink.keys[0] == sink.keys[1] == sink.keys[2]
    assert len(sink.keys) == 5
    retries = [line for line in said(daemon, job) if line[0] == "Warn"]
    assert [line[1] for line in retries] == ["a batch is tried again"] * 2
    completed(daemon, name, "searching", query_string_parameters={"country": "FR", "score_min": "30"})
    assert [lead["email"] for lead in [*sink.batches.values()][-1]] == [
        f"p{n}@x.example" for n in range(300) if n % 20 == 0 and n % 100 >= 30
    ]


def test_code_by_the_conventions_of_lsbatch_runs_unchanged_with_the_database_closed_and_open(
    daemon: Stage, mail: MailServed, tmp_path: Path
) -> None:
    daemon.table("converted", "people", [{"email": "a@x.example"}, {"email": "b@x.example"}])
    name = set_up(
        daemon,
        "lsbatch_conventions",
        tmp_path,
        "converted",
        settings={"region": "eu"},
        mail_success=["good@converted.example"],
        mail_failure=["bad@converted.example"],
    )
    closed = completed(daemon, name, "converted")
    levels = [line[0] for line in said(daemon, closed.instance)]
    assert levels == ["Info", "Debug", "Error"]
    assert said(daemon, closed.instance)[0] == ("Info", "Started", json.dumps({"Region": "eu"}))
    assert said(daemon, closed.instance)[2][2] == "the plan has no database access"
    (message,) = mails_to(mail, "bad@converted.example")
    assert (message["Subject"], message.get_content_type()) == ("No report", "text/plain")
    daemon.ask(wire.Plans(teamspace="converted", key="batch.own_database", value="read"))
    opened = completed(daemon, name, "converted")
    assert said(daemon, opened.instance)[2] == ("Info", "Leads", json.dumps({"Count": 2}))
    (message,) = mails_to(mail, "good@converted.example")
    assert (message["Subject"], message.get_content_type()) == ("Report", "text/html")
    assert content(message).strip() == "<b>2</b> leads"


def test_each_sample_has_its_line_in_the_guide() -> None:
    told = BATCH_GUIDE.read_text()
    assert {folder.name for folder in SAMPLES.iterdir()} == set(
        re.findall(r"\(\.\./samples/batch/(\w+)/main\.py\)", told)
    )
