"""What listings and answers look like: for people in their own time, for programs as JSON Lines in RFC 3339."""

import csv
import io
import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from leadline.cli import terminal
from leadline_protocol.errors import JobReason, LeadReason
from leadline_protocol.ids import JobId, LeadId
from leadline_protocol.messages import (
    ColumnView,
    DatabaseStatus,
    Done,
    Eta,
    FamilyStatus,
    History,
    HistoryEntry,
    HistoryReply,
    Job,
    JobList,
    JobReply,
    Jobs,
    JobWarning,
    LeadErrors,
    LeadNotDone,
    LeadSample,
    LimitView,
    ModuleView,
    Pause,
    PlanLimit,
    Plans,
    PlansReply,
    PlanView,
    Providers,
    ProvidersReply,
    ProviderView,
    RefusedRow,
    Status,
    StatusReply,
    Tables,
    TablesReply,
    TableView,
    Teamspaces,
    TeamspacesReply,
    TeamspaceView,
    Wait,
    Why,
    WhyReply,
)
from tests.cli.conftest import Leadline
from tests.cli.fake_daemon import NOON, FakeDaemon, counts, view


@pytest.fixture(autouse=True)
def half_past_five(monkeypatch: pytest.MonkeyPatch) -> datetime:
    """The present: noon in UTC and a minute, which is 17:31 where these tests play."""
    now = (NOON + timedelta(minutes=1)).astimezone()
    monkeypatch.setattr(terminal, "now", lambda: now)
    return now


SNOV = Wait(
    reason=JobReason.LIMIT,
    message="Waiting for snov: 15 leads in any 60 s are shared by everyone, 15 of them are taken.",
    until=NOON + timedelta(seconds=72),
    numbers={"provider": "snov", "amount": 15, "per_seconds": 60},
)

SNOV_NOTE = "Waiting for snov: 15 leads in any 60 s are shared by everyone, 15 of them are taken"
SNOV_SAYS = f"{SNOV_NOTE}; the next frees in 12 s (17:31:12)."


def test_jobs_are_listed_in_local_time_with_what_matters_of_each(leadline: Leadline, daemon: FakeDaemon) -> None:
    daemon.on(
        Jobs,
        lambda _: JobList(
            line=0,
            jobs=[
                view(43, state="running", shown="waiting", counts=counts(330, 45), waits=[SNOV]),
                view(42, state="running", counts=counts(5000, 1940), activity="Asking gpt", leads_per_second=12.5),
                view(41, kind="upload", state="partial", ended_at=NOON, counts=counts(5060, 5000, failed=60)),
                view(9, kind="noop", family="noop", table=None, state="completed", ended_at=NOON),
            ],
        ),
    )
    assert leadline("jobs").out.splitlines() == [
        "JOB  KIND    TEAMSPACE  TABLE      STATE      LEADS                SUBMITTED  NOTE",
        f" 43  enrich  acme       prospects  waiting    45 of 330 13 %       17:30:00   in 12 s · {SNOV_NOTE}",
        " 42  enrich  acme       prospects  running    1,940 of 5,000 38 %  17:30:00   Asking gpt · 12.5/s",
        " 41  upload  acme       prospects  partial    5,060                17:30:00   60 failed",
        "  9  noop    acme                  completed                       17:30:00",
    ]


def test_jobs_as_json_are_the_views_of_the_protocol(leadline: Leadline, daemon: FakeDaemon) -> None:
    daemon.on(Jobs, lambda _: JobList(line=0, jobs=[view(42, counts=counts(10, 4))]))
    (line,) = leadline("jobs", "--json").out.splitlines()
    shown = json.loads(line)
    assert shown["job"] == 42
    assert shown["submitted_at"] == "2026-11-21T12:00:00Z"
    assert shown["counts"] == {"total": 10, "done": 4, "failed": 0, "skipped": 0, "unknown": 0, "pending": 6}


def test_more_jobs_than_a_page_holds_are_fetched_page_by_page(leadline: Leadline, daemon: FakeDaemon) -> None:
    def page(asked: Jobs) -> JobList:
        newest = 2500 if asked.before is None else asked.before - 1
        return JobList(
            line=0,
            jobs=[view(number) for number in range(newest, newest - asked.limit, -1)],
            next=JobId(newest - asked.limit + 1),
        )

    daemon.on(Jobs, page)
    listed = [json.loads(line)["job"] for line in leadline("jobs", "--json", "-n", 2100).out.splitlines()]
    assert listed == list(range(2500, 400, -1))


def test_the_filters_reach_the_daemon(leadline: Leadline, daemon: FakeDaemon) -> None:
    daemon.on(Jobs, lambda _: JobList(line=0, jobs=[]))
    leadline("jobs", "--teamspace", "acme", "--state", "queued", "--family", "tables", "--table", "t", "--before", 7)
    assert daemon.requests == [
        Jobs(teamspace="acme", state="queued", family="tables", table="t", before=JobId(7), limit=50)
    ]


def test_a_job_is_told_in_sentences(leadline: Leadline, daemon: FakeDaemon) -> None:
    daemon.on(
        Job,
        lambda asked: JobReply(
            line=0,
            view=view(
                asked.job,
                shown="waiting",
                attempt=2,
                started_at=NOON + timedelta(seconds=4),
                counts=counts(5000, 1900, failed=30, skipped=10),
                leads_per_second=12.5,
                ends=Eta(earliest=NOON + timedelta(minutes=5), latest=NOON + timedelta(minutes=6)),
                activity="Asking gpt",
                waits=[SNOV],
                warnings=[JobWarning(code="upload_running", message="An upload was running")],
                chain=JobId(40),
                step=2,
                priority_seconds=90,
            ),
            submission={"kind": "enrich", "teamspace": "acme"},
            errors=[
                LeadErrors(
                    job=asked.job,
                    state="failed",
                    reason=LeadReason.BAD_RESPONSE,
                    leads=1_030,
                    samples=[LeadSample(lead=LeadId(41), detail="no\x1b JSON"), LeadSample(lead=LeadId(43))],
                ),
                LeadErrors(
                    job=JobId(40),
                    state="failed",
                    reason=LeadReason.DUPLICATE,
                    leads=1,
                    samples=[LeadSample(row=7, detail="ada@a.example is there already")],
                ),
            ],
        ),
    )
    assert leadline("job", 41).out.splitlines() == [
        "Job 41: enrich of prospects for acme, waiting, attempt 2",
        "  1,900 of 5,000 done, 30 failed, 10 skipped, 3,060 pending (38 %, 12.5 leads/s)",
        "  It is expected to end between 17:35:00 and 17:36:00: in 4 min to 5 min.",
        "  Asking gpt",
        f"  Waits: {SNOV_SAYS}",
        "  Warning: An upload was running",
        "  Submitted 17:30:00, started after 4 s, runs for 56 s.",
        "  It is step 2 of the chain 40.",
        "  It goes ahead of jobs submitted up to 1 min 30 s earlier.",
        "  1,030 leads failed: bad response; e.g. lead 41: no\\x1b JSON, lead 43.",
        "  Job 40: 1 row failed: duplicate; e.g. row 7: ada@a.example is there already.",
        "  `leadline job 41 --not-done` lists them.",
        "",
        "Submitted as",
        "  {",
        '    "kind": "enrich",',
        '    "teamspace": "acme"',
        "  }",
    ]


def test_a_stalled_job_says_so(leadline: Leadline, daemon: FakeDaemon) -> None:
    daemon.on(Job, lambda asked: JobReply(line=0, view=view(asked.job, stalled=True)))
    assert leadline("job", 41).out.startswith("Job 41: enrich of prospects for acme, running, STALLED\n")


def test_what_a_job_waits_for_is_not_said_twice(leadline: Leadline, daemon: FakeDaemon) -> None:
    held = Wait(reason=JobReason.APPROVAL, message="No lead matched: it waits until a person resumes it.")
    daemon.on(Job, lambda asked: JobReply(line=0, view=view(asked.job, waits=[held], message=held.message)))
    assert leadline("job", 41).out.count("No lead matched") == 1


def test_the_history_of_a_job_is_a_line_for_each_thing_that_happened(leadline: Leadline, daemon: FakeDaemon) -> None:
    daemon.on(Job, lambda asked: JobReply(line=0, view=view(asked.job)))
    story = [
        HistoryEntry(at=NOON, event="submitted", detail={"uid": 1000}),
        HistoryEntry(at=NOON + timedelta(seconds=1), event="started"),
    ]
    daemon.on(History, lambda asked: HistoryReply(line=0, job=asked.job, history=story))
    assert leadline("job", 41, "--history").out.splitlines()[-3:] == [
        "WHEN      WHAT       DETAILS",
        "17:30:00  submitted  uid 1000",
        "17:30:01  started",
    ]
    lines = [json.loads(line) for line in leadline("job", 41, "--history", "--json").out.splitlines()]
    assert [line["event"] for line in lines] == ["submitted", "started"]


def test_a_job_as_json_is_one_object_with_what_was_submitted(leadline: Leadline, daemon: FakeDaemon) -> None:
    submission = {"kind": "enrich", "teamspace": "acme"}
    daemon.on(Job, lambda asked: JobReply(line=0, view=view(asked.job), submission=submission))
    (line,) = leadline("job", 41, "--json").out.splitlines()
    shown = json.loads(line)
    assert (shown["job"], shown["submitted_at"], shown["submission"]) == (41, "2026-11-21T12:00:00Z", submission)


def rows_not_taken(asked: Job) -> JobReply:
    """Two rows, one a page."""
    rows = [
        RefusedRow(row=18, line=20, reason=LeadReason.INVALID_EMAIL, detail="ada@ is none", raw='Ada,"ada@"'),
        RefusedRow(row=21, line=24, reason=LeadReason.DUPLICATE, detail="", raw="-Bob\x1b[2J,bob@a.example,surplus"),
    ]
    assert asked.refused_after is not None
    page = [row for row in rows if row.row > asked.refused_after][:1]
    headers = [] if asked.refused_after else ["Name", "=Mail"]
    return JobReply(line=0, view=view(asked.job), refused=page, headers=headers)


def test_the_rows_that_were_not_taken_are_csv_page_after_page(leadline: Leadline, daemon: FakeDaemon) -> None:
    daemon.on(Job, rows_not_taken)
    table = list(csv.reader(io.StringIO(leadline("job", 41, "--refused").out)))
    assert table == [
        ["refused_row", "refused_line", "refused_reason", "refused_detail", "Name", "'=Mail"],
        ["18", "20", "invalid_email", "ada@ is none", "Ada", "ada@"],
        ["21", "24", "duplicate", "", "'-Bob\x1b[2J", "bob@a.example", "surplus"],
    ]
    lines = leadline("job", 41, "--refused", "--json").out.splitlines()
    assert [json.loads(line)["row"] for line in lines] == [18, 21]


def test_the_rows_that_were_not_taken_go_into_a_file_whole_or_not_at_all(
    leadline: Leadline, daemon: FakeDaemon, tmp_path: Path
) -> None:
    daemon.on(Job, rows_not_taken)
    output = tmp_path / "refused.csv"
    ran = leadline("job", 41, "--refused", "--output", output)
    assert (ran.out, ran.err) == ("", f"2 rows in {output}; repair them and upload it again\n")
    assert output.read_bytes().startswith(b"\xef\xbb\xbfrefused_row,"), "spreadsheets take UTF-8 for it by its mark"
    assert len(output.read_text(encoding="utf-8-sig").splitlines()) == 3
    ran = leadline("job", 41, "--refused", "--output", tmp_path / "none" / "refused.csv")
    assert ran.status == 1
    assert "could not be written: No such file or directory" in ran.err
    for wrong in (("--output", output), ("--refused", "--json", "--output", output)):
        assert leadline("job", 41, *wrong).status == 2
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []


def leads_not_done(asked: Job) -> JobReply:
    """Two leads, one a page."""
    leads = [
        LeadNotDone(
            lead=LeadId(3), state="failed", reason=LeadReason.TIMED_OUT, detail="60 s", cells={"email": "=a", "n": 1}
        ),
        LeadNotDone(lead=LeadId(9), state="skipped", reason=LeadReason.DELETED),
    ]
    assert asked.leads_after is not None
    page = [lead for lead in leads if lead.lead > asked.leads_after][:1]
    return JobReply(line=0, view=view(asked.job), leads=page, columns=["email", "n"])


def test_the_leads_that_were_not_done_are_csv_page_after_page(
    leadline: Leadline, daemon: FakeDaemon, tmp_path: Path
) -> None:
    daemon.on(Job, leads_not_done)
    assert leadline("job", 41, "--not-done").out.splitlines() == [
        "not_done_lead,not_done_state,not_done_reason,not_done_detail,email,n",
        "3,failed,timed_out,60 s,'=a,1",
        "9,skipped,deleted,it was deleted since,,",
    ]
    lines = leadline("job", 41, "--not-done", "--json").out.splitlines()
    assert [json.loads(line)["lead"] for line in lines] == [3, 9]
    output = tmp_path / "leads.csv"
    ran = leadline("job", 41, "--not-done", "--output", output)
    assert ran.err.startswith(f"2 leads in {output}; `leadline rerun 41`")
    assert leadline("job", 41, "--not-done", "--refused").status == 2


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("chain", "one of its steps: 42, 43"),
        ("upload", "`leadline job 41 --refused` lists the rows"),
        ("export", "it is not kept how each lead fared"),
    ],
)
def test_a_job_that_keeps_no_list_of_leads_says_who_does(
    leadline: Leadline, daemon: FakeDaemon, kind: str, words: str
) -> None:
    steps = [view(42), view(43)] if kind == "chain" else []
    daemon.on(Job, lambda asked: JobReply(line=0, view=view(asked.job, kind=kind), steps=steps))
    ran = leadline("job", 41, "--not-done")
    assert (ran.status, words in ran.err) == (1, True)


def test_a_job_says_how_its_leads_are_listed(leadline: Leadline, daemon: FakeDaemon) -> None:
    errors = [LeadErrors(job=JobId(41), state="failed", reason=LeadReason.TIMED_OUT, leads=2, samples=[])]
    daemon.on(Job, lambda asked: JobReply(line=0, view=view(asked.job), errors=errors))
    assert "`leadline job 41 --not-done` lists them." in leadline("job", 41).out


def test_on_a_terminal_nothing_in_a_row_that_was_not_taken_acts_on_it(
    leadline: Leadline, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.on(Job, rows_not_taken)
    monkeypatch.setattr(terminal, "is_terminal", lambda _: True)
    assert "\x1b" not in leadline("job", 41, "--refused").out


def test_why_names_every_blocker_with_its_numbers_and_when_it_starts(leadline: Leadline, daemon: FakeDaemon) -> None:
    daemon.on(Job, lambda asked: JobReply(line=0, view=view(asked.job, state="queued")))
    daemon.on(
        Why,
        lambda asked: WhyReply(
            line=0,
            job=asked.job,
            blockers=[SNOV, Wait(reason=JobReason.SLOT)],
            jobs_ahead=3,
            eta=Eta(earliest=NOON + timedelta(minutes=3), latest=NOON + timedelta(minutes=10)),
        ),
    )
    assert leadline("why", 41).out.splitlines() == [
        "Job 41 (enrich of prospects for acme) is queued and waits for 2 things:",
        f"  • {SNOV_SAYS}",
        "  • The teamspace runs as many jobs of this family as its plan allows.",
        "3 jobs run before it.",
        "It is expected to start between 17:33:00 and 17:40:00: in 2 min to 9 min.",
    ]
    answer = json.loads(leadline("why", 41, "--json").out)
    assert answer["blockers"][0]["until"] == "2026-11-21T12:01:12Z"
    assert "line" not in answer


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"state": "running", "started_at": NOON}, "is running; nothing holds it back."),
        (
            {"state": "failed", "ended_at": NOON, "message": "It broke."},
            "waits for nothing: it ended failed at 17:30:00: It broke.",
        ),
        ({"state": "queued"}, "is queued; nothing but its place in the queue holds it back."),
    ],
)
def test_why_also_has_an_answer_where_nothing_is_in_the_way(
    leadline: Leadline, daemon: FakeDaemon, changes: dict[str, object], says: str
) -> None:
    daemon.on(Job, lambda asked: JobReply(line=0, view=view(asked.job, **changes)))
    daemon.on(Why, lambda asked: WhyReply(line=0, job=asked.job, blockers=[], jobs_ahead=0))
    assert leadline("why", 41).out.splitlines()[0] == f"Job 41 (enrich of prospects for acme) {says}"


def provider() -> ProviderView:
    return ProviderView(
        provider="snov",
        state="throttled",
        limits=[
            LimitView(
                shape="window",
                unit="lead",
                amount=15,
                per_seconds=60,
                charged=15,
                frees_at=NOON + timedelta(seconds=72),
            ),
            LimitView(shape="concurrent", unit="request", amount=4, charged=1),
            LimitView(shape="daily", unit="request", amount=1000, charged=12),
            LimitView(shape="bucket", unit="record", amount=1_000_000, per_seconds=3600, charged=250),
        ],
        pace_per_second=0.5,
        in_flight=1,
        waiting=3,
        waiting_teamspaces=2,
        throttled_until=NOON + timedelta(seconds=90),
    )


def status() -> StatusReply:
    return StatusReply(
        line=0,
        version="0.1.0",
        pid=7,
        epoch=3,
        started_at=NOON - timedelta(hours=2),
        uptime_seconds=7260,
        state="ready",
        paused=["provider snov"],
        families=[
            FamilyStatus(family="tables", delayed=0, queued=12, running=3, stopping=0, in_hand=2, capacity=8),
            FamilyStatus(family="noop", delayed=0, queued=0, running=0, stopping=0, in_hand=0, capacity=None),
        ],
        teamspaces=2,
        oldest_queued_at=NOON,
        jobs_per_second=1.5,
        providers=[provider()],
        database=DatabaseStatus(
            reachable=True,
            embedded=True,
            version="18.1",
            size_bytes=42_000_000,
            commit_seconds_p50=0.0012,
            commit_seconds_p99=0.005,
            records_available=16_000,
            records_last_hour=12_345,
            records_per_hour=1_000_000,
        ),
        start_seconds_p50=0.012,
        start_seconds_p99=1.5,
        memory_bytes=71_000_000,
        connections=1,
        memory_bound="cgroup v2",
        warnings=[JobWarning(code="x", message="The disk is nearly full.")],
    )


STATUS = [
    "Leadline 0.1.0 is ready: process 7, up for 2 h 1 min, 71 MB of memory, 1 connection.",
    "2 teamspaces with jobs, 1.5 jobs/s ended in the last minute; the oldest queued job came 1 min ago.",
    "In the last minutes jobs started within 12 ms of their time (99 of 100 within 1.5 s).",
    (
        "Its own Postgres 18.1 answers, 42 MB, a commit takes 1.2 ms (99 of 100 at most 5 ms), 16,000 records may be"
        " written at once, 12,345 of 1,000,000 were written in the last hour."
    ),
    "What holds a run of a batch job to its memory: cgroup v2.",
    "Paused: provider snov (`leadline resume provider snov`)",
    "Warning: The disk is nearly full.",
    "",
    "FAMILY  DELAYED  QUEUED  RUNNING  STOPPING  IN HAND  CAPACITY",
    "tables        0      12        3         0        2         8",
    "noop          0       0        0         0        0  no limit",
    "",
    "PROVIDER  STATE      IN FLIGHT  WAITING                  LIMITS",
    "snov      throttled          1  3 calls of 2 teamspaces  goes on in 30 s (17:31:30)",
    "                                                         15 of 15 leads in any 60 s, the next frees in 12 s",
    "                                                         1 of 4 calls at a time",
    "                                                         12 of 1,000 requests a day",
    "                                                         1,000,000 records per hour, 250 taken",
    "                                                         a call every 2 s",
]


def test_status_says_how_the_daemon_is(leadline: Leadline, daemon: FakeDaemon) -> None:
    daemon.on(Status, lambda _: status())
    ran = leadline("status")
    assert ran.out.splitlines() == STATUS
    assert ran.status == 0
    assert json.loads(leadline("status", "--json").out)["families"][0]["queued"] == 12


def test_top_in_a_pipe_is_one_plain_snapshot(leadline: Leadline, daemon: FakeDaemon) -> None:
    daemon.on(Status, lambda _: status())
    daemon.on(Jobs, lambda asked: JobList(line=0, jobs=[view(41, state=asked.state, counts=counts(10, 5))]))
    lines = leadline("top").out.splitlines()
    assert lines[: len(STATUS)] == STATUS
    assert lines[len(STATUS) :] == [
        "",
        "JOB  WHAT                          STATE    LEADS         NOTE",
        " 41  enrich of prospects for acme  running  5 of 10 50 %",
        "",
        "JOB  WHAT                          STATE   LEADS         NOTE",
        " 41  enrich of prospects for acme  queued  5 of 10 50 %",
    ]


def test_teamspaces_tables_and_providers_are_listed(leadline: Leadline, daemon: FakeDaemon) -> None:
    daemon.on(
        Teamspaces,
        lambda asked: TeamspacesReply(
            line=0,
            teamspaces=[
                TeamspaceView(teamspace="acme", plan="gold", queued=3, paused=True, slots={"tables": 1, "batch": 5})
                if asked.after is None
                else TeamspaceView(teamspace="börse", plan="default")
            ],
            next="acme" if asked.after is None else None,
        ),
    )
    assert leadline("teamspaces").out.splitlines() == [
        "TEAMSPACE      PLAN     DELAYED  QUEUED  RUNNING  SLOTS",
        "acme (paused)  gold           0       3        0  tables 1, batch 5",
        "börse          default        0       0        0",
    ]
    daemon.on(
        Tables,
        lambda _: TablesReply(
            line=0,
            tables=[
                TableView(
                    teamspace="acme",
                    table="見込み客",
                    leads=5000,
                    columns=[ColumnView(name="email", type="text"), ColumnView(name="size", type=["s", "m"])],
                    created_at=NOON,
                )
            ],
        ),
    )
    assert leadline("tables", "--teamspace", "acme").out.splitlines() == [
        "TEAMSPACE  TABLE     LEADS  JOBS  CREATED   COLUMNS",
        "acme       見込み客  5,000     0  17:30:00  email (text), size (s/m)",
    ]
    assert leadline("tables", "describe", "見込み客", "--teamspace", "acme").out.splitlines()[:2] == [
        "Table 見込み客 of acme: 5,000 leads.",
        "  Made 1 min ago (17:30:00).",
    ]
    daemon.on(
        Tables,
        lambda _: TablesReply(
            line=0,
            tables=[],
            modules=[
                ModuleView(module="ai_prompt", inputs=["prompt"], providers=["openai"]),
                ModuleView(
                    module="headcount",
                    inputs=["domain"],
                    optional_inputs=["country"],
                    outputs={"employees": "number", "industry": "text"},
                    credits_per_lead=0.5,
                ),
            ],
        ),
    )
    assert leadline("tables", "modules").out.splitlines() == [
        "MODULE     NEEDS              FINDS                     CREDITS",
        "ai_prompt  prompt             what the prompt asks for",
        "headcount  domain, [country]  employees, industry       0.5 a result",
    ]
    daemon.on(Providers, lambda _: ProvidersReply(line=0, providers=[provider()]))
    assert json.loads(leadline("providers", "snov", "--json").out)["limits"][0]["charged"] == 15
    assert daemon.requests[-1] == Providers(name="snov")


def test_plans_show_where_each_limit_comes_from_and_set_one(leadline: Leadline, daemon: FakeDaemon) -> None:
    limits = [
        PlanLimit(key="slots.tables", value=2, source="override"),
        PlanLimit(key="slots.outreach", value=None, source="built-in"),
    ]
    daemon.on(
        Plans,
        lambda asked: PlansReply(line=0, plans=[PlanView(plan="gold", teamspace=asked.teamspace, limits=limits)]),
    )
    assert leadline("plans", "--teamspace", "acme", "--set", "slots.tables=2").out.splitlines() == [
        "PLAN  TEAMSPACE  LIMIT           VALUE     FROM",
        "gold  acme       slots.tables    2         override",
        "gold  acme       slots.outreach  no limit  built-in",
    ]
    leadline("plans", "--plan", "gold", "--unset", "slots.tables")
    leadline("plans", "--plan", "gold", "--set", "batch.enabled=true")
    leadline("plans", "--plan", "gold", "--set", 'batch.reaches=["93.184.0.0/16"]')
    leadline("plans", "--plan", "gold", "--set", "zone=Europe/Berlin")
    assert daemon.requests == [
        Plans(teamspace="acme", key="slots.tables", value=2),
        Plans(plan="gold", key="slots.tables", value=None),
        Plans(plan="gold", key="batch.enabled", value=True),
        Plans(plan="gold", key="batch.reaches", value=["93.184.0.0/16"]),
        Plans(plan="gold", key="zone", value="Europe/Berlin"),
    ]


def test_pausing_names_the_way_back(leadline: Leadline, daemon: FakeDaemon) -> None:
    daemon.on(Pause, lambda _: Done(line=0))
    assert leadline("pause", "provider", "snov").out == (
        "Paused: provider snov. Nothing new begins there until `leadline resume provider snov`.\n"
    )
    leadline("pause", "job", 41)
    assert daemon.requests == [Pause(scope="provider", name="snov"), Pause(scope="job", name=JobId(41))]


def test_a_dry_run_of_a_cancel_only_says_what_would_happen(leadline: Leadline, daemon: FakeDaemon) -> None:
    daemon.on(Job, lambda asked: JobReply(line=0, view=view(asked.job, counts=counts(10, 4))))
    assert leadline("cancel", 41, "--dry-run").out == (
        "This would end job 41 (enrich of prospects for acme, running): calls in flight could finish; "
        "4 of 10 done, 6 pending, and what is done stays.\n"
    )
    assert daemon.requests == [Job(job=JobId(41))]


def test_config_show_tells_each_value_and_its_source_also_what_was_set_live(
    leadline: Leadline, daemon: FakeDaemon, tmp_path: object
) -> None:
    limits = [PlanLimit(key="max_queued", value=7, source="override")]
    daemon.on(Plans, lambda _: PlansReply(line=0, plans=[PlanView(plan="default", limits=limits)]))
    shown = {line["key"]: line for line in map(json.loads, leadline("config", "show", "--json").out.splitlines())}
    assert shown["plans.default.max_queued"] == {"key": "plans.default.max_queued", "value": 7, "source": "override"}
    assert shown["queue.stall_after_seconds"]["source"] == "built-in"
    assert ["database.url", "built-in", "(absent)"] in map(str.split, leadline("config", "show").out.splitlines())
