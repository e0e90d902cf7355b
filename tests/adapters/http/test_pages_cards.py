"""Jobs as pages show them: what they wait for and who can help, when they go on, and what may be done about them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from leadline.adapters.http.pages.cards import Card, card, cards, is_page_of_jobs, turn
from leadline.adapters.http.pages.visit import in_path
from leadline_protocol.errors import JobReason
from leadline_protocol.messages import Counts, Eta, HistoryEntry, JobView, Wait

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


def view(job: int = 41, **given: Any) -> JobView:
    fields = {
        "job": job, "kind": "enrich", "family": "tables", "teamspace": "acme", "table": "people", "state": "running",
        "submitted_at": NOW, "counts": counts(), **given,
    }  # fmt: skip
    return msgspec.convert({"shown": fields["state"], **fields}, JobView, from_attributes=True)


def counts(**given: int) -> Counts:
    words = dict.fromkeys(("done", "failed", "skipped", "unknown", "pending"), 0) | given
    return Counts(total=sum(words.values()), **words)


def shown(job: JobView, *story: HistoryEntry) -> Card:
    return card(job, story, NOW)


def wait(reason: JobReason, until: datetime | None = None, **numbers: int | str) -> Wait:
    return Wait(reason=reason, message=f"It waits for {reason}.", until=until, numbers=dict(numbers))


@pytest.mark.parametrize(
    ("state", "waiting", "section"),
    [
        ("running", False, "running"),
        ("running", True, "waiting"),
        ("stopping", False, "running"),
        ("queued", False, "waiting"),
        ("delayed", False, "scheduled"),
        *((state, False, "ended") for state in ("completed", "partial", "failed", "cancelled", "skipped")),
    ],
)
def test_a_job_stands_in_one_section_by_what_is_done_for_it(state: str, waiting: bool, section: str) -> None:
    assert shown(view(state=state, shown="waiting" if waiting else state)).section == section


@pytest.mark.parametrize(
    ("held", "help_", "resumes"),
    [
        (wait(JobReason.PAUSED, scope="job", name="41"), "You can resume it here.", True),
        (wait(JobReason.PAUSED), "You can resume it here.", True),
        (wait(JobReason.PAUSED, scope="job", name="40"), "You can resume its chain.", False),
        (
            wait(JobReason.PAUSED, scope="teamspace", name="acme"),
            "Whoever may manage your teamspace can resume it.",
            False,
        ),
        (wait(JobReason.PAUSED, scope="queue"), "Whoever runs this service can resume it.", False),
        (wait(JobReason.QUARANTINED), "You can let it go on here, or cancel it.", True),
        (wait(JobReason.APPROVAL), "You can let it go on here, or cancel it.", True),
        (wait(JobReason.CREDITS, provider="snov"), "Whoever runs this service can do that.", False),
        (wait(JobReason.CREDITS, provider="snov@acme"), "It is your own account there.", False),
        (wait(JobReason.LIMIT), None, False),
    ],
)
def test_who_can_let_a_job_go_on_is_told_and_whoever_looks_on_gets_the_button(
    held: Wait, help_: str | None, resumes: bool
) -> None:
    found = shown(view(state="queued", waits=[held]))
    assert [each.help for each in found.waits] == [help_]
    assert [deed.action for deed in found.deeds] == ["resume" if resumes else "pause", "cancel"]


def test_nothing_is_told_of_when_a_job_starts_where_it_may_at_once() -> None:
    def starting(earliest: float, latest: float) -> Card:
        eta = Eta(earliest=NOW + timedelta(seconds=earliest), latest=NOW + timedelta(seconds=latest))
        return shown(view(state="queued", eta=eta, jobs_ahead=0))

    assert starting(0, 0).starts is None
    assert starting(300, 360).starts is not None


@pytest.mark.parametrize(
    ("ahead", "words"),
    [
        (None, None),
        (0, "Next in line."),
        (1, "At most 1 job is before it."),
        (1200, "At most 1,200 jobs are before it."),
    ],
)
def test_the_place_in_line_is_said_in_words(ahead: int | None, words: str | None) -> None:
    assert shown(view(state="queued", jobs_ahead=ahead)).ahead == words


@pytest.mark.parametrize("reason", ["paused", "approval", "quarantined"])
def test_a_job_that_a_person_holds_is_not_said_to_be_next(reason: str) -> None:
    waits = [Wait(reason=JobReason(reason))]
    assert shown(view(state="queued", jobs_ahead=0, waits=waits)).ahead is None


def entry(event: str, **detail: str) -> HistoryEntry:
    return HistoryEntry(at=NOW, event=event, detail=detail)


STILL = entry("stalled", message="no progress for 300 s; asking snov")


@pytest.mark.parametrize(
    ("story", "state", "done"),
    [
        ([STILL], "running", "It was left running: cancel it if you do not want to wait for it."),
        ([STILL], "stopping", "It is being stopped, and starts again where it was; what it has done is kept."),
        (
            [STILL, entry("stopped"), entry("queued"), entry("started")],
            "running",
            "It was stopped and started again where it was; what it had done is kept.",
        ),
        (
            [entry("standing_still", message="no progress for 300 s; asking snov")],
            "running",
            "It is watched: if nothing happens for long, it is stopped and started again.",
        ),
    ],
)
def test_of_a_job_that_stood_still_is_told_what_was_seen_and_what_was_done(
    story: list[HistoryEntry], state: str, done: str
) -> None:
    found = shown(view(state=state, stalled=True), entry("started"), *story)
    assert found.mishap is not None
    assert found.mishap.seen.endswith("no progress for 300 s; asking snov")
    assert found.mishap.done == done


def test_a_job_that_was_started_again_for_another_reason_had_no_mishap() -> None:
    assert shown(view(attempt=2), entry("started"), entry("stopped"), entry("queued")).mishap is None


@pytest.mark.parametrize(
    ("given", "reruns"),
    [
        ({"state": "completed", "counts": counts(done=3)}, ["all"]),
        ({"state": "partial", "counts": counts(done=3, failed=1)}, ["failed", "all"]),
        ({"state": "partial", "kind": "upload", "counts": counts(done=3, failed=1)}, ["all"]),
        ({"state": "cancelled", "counts": counts(done=3, pending=1)}, ["unfinished", "all"]),
        ({"state": "partial", "step": 1, "chain": 40, "counts": counts(done=3, failed=1)}, []),
        ({"state": "failed", "kind": "outreach"}, []),
    ],
)
def test_what_is_left_of_a_job_may_be_run_again(given: dict[str, Any], reruns: list[str]) -> None:
    assert [deed.leads for deed in shown(view(**given)).deeds] == reruns


def test_an_export_that_has_written_its_file_and_an_upload_that_refused_rows_lead_there() -> None:
    written = view(kind="export", state="completed", message="people-41.csv")
    assert shown(written).has_file
    assert shown(written).reason is None, "the name of a file is no reason"
    assert not shown(view(kind="export", state="failed", message="the disk is full")).has_file
    assert shown(view(kind="upload", state="partial", counts=counts(done=1, failed=7))).refused_rows == 7


def test_why_a_job_ended_so_is_a_sentence() -> None:
    assert shown(view(state="failed", message="no such sheet: Leads")).reason == "No such sheet: Leads."
    assert shown(view(state="failed", message="it raised \x1b[31mred\u202e")).reason == "It raised red\\u202e."
    by_word = shown(view(state="cancelled", reason=JobReason.CANCELLED))
    assert by_word.reason == "A person or a service cancelled it."
    assert shown(view(state="completed")).reason is None


def test_names_of_files_are_those_that_their_owner_gave() -> None:
    prefix = "h" + "0a" * 12 + "-"
    assert shown(view(summary=f"Read {prefix}fair.csv into people")).title == "Read fair.csv into people"
    assert shown(view(summary=None, kind="noop")).title == "noop"


def test_the_steps_of_a_chain_stand_under_it() -> None:
    steps = [view(42, chain=41, step=1), view(43, chain=41, step=2), view(52, chain=51, step=1)]
    one, two, alone = cards([view(41, kind="chain"), view(51, kind="chain"), view(60)], steps, {}, NOW)
    assert [[step.job.job for step in each.steps] for each in (one, two, alone)] == [[42, 43], [52], []]


def test_who_begins_first_stands_first() -> None:
    waiting = [view(3, state="queued", jobs_ahead=2), view(4, state="queued", jobs_ahead=1)]
    waiting += [view(5, state="queued", jobs_ahead=0, run_at=NOW)]  # it was scheduled, and its time has come
    later = [view(n, state="delayed", run_at=NOW + timedelta(hours=h)) for n, h in ((1, 9), (2, 1))]
    found = sorted(map(shown, [*waiting, *later]), key=turn)
    assert [each.job.job for each in found] == [5, 4, 3, 2, 1]


@pytest.mark.parametrize(
    ("path", "leads_back"),
    [
        ("/jobs", True),
        ("/jobs/41", True),
        ("/t/people/jobs", True),
        ("/t/a%2Fb/jobs", True),
        (f"/t/{in_path('𝔏' * 100)}/jobs", True),
        ("", False),
        ("//evil.example/jobs", False),
        ("/\\evil.example/jobs", False),
        ("/t//evil.example/jobs", False),
        ("https://evil.example/jobs", False),
        ("/jobs?said=cancelled", False),
        ("/jobs\n", False),
        ("/out", False),
    ],
)
def test_a_button_leads_back_to_pages_of_jobs_alone(path: str, leads_back: bool) -> None:
    assert is_page_of_jobs(path) is leads_back
