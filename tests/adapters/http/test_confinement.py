"""What a token of one teamspace reaches, type by type: what nobody has thought of is refused."""

import msgspec
import pytest

from leadline.adapters.http.confinement import Confinement, Namespace, plain
from leadline.adapters.http.routes import OPERATIONS
from leadline_protocol import messages as wire
from leadline_protocol.codec import LineFault, RequestDecoder
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.ids import JobId
from leadline_protocol.schedules import Daily

decoder = RequestDecoder(wire.SUBMISSION_TYPES)


async def teamspace_of(job: JobId) -> str | None:
    return {1: "acme", 2: "globex"}.get(job)


def submission(fields: object) -> wire.Submission:
    found = decoder.decode(msgspec.json.encode(fields))
    assert not isinstance(found, LineFault), found
    assert isinstance(found, wire.Submission)
    return found


acme = Confinement("acme", Namespace(b"k" * 32, "acme"), teamspace_of)
globex = Confinement("globex", Namespace(b"k" * 32, "globex"), teamspace_of)


class Newer(wire.ControlOperation[wire.Done], tag="newer", frozen=True, kw_only=True):
    """An operation that was added after this was written."""

    teamspace: str | None = "acme"


@pytest.mark.parametrize(
    "asked",
    [
        Newer(),
        wire.Status(),
        wire.Teamspaces(),
        wire.Providers(),
        wire.Reload(),
        wire.Drain(),
        wire.Tokens(),
        wire.Watch(),
        wire.Follow(),
        wire.Pause(scope="queue"),
        wire.Pause(scope="family", name="tables"),
        wire.Resume(scope="provider", name="snov"),
        wire.Resume(scope="teamspace", name="globex"),
        wire.Plans(plan="default"),
        wire.Plans(provider="snov"),
    ],
)
async def test_what_is_not_of_one_teamspace_is_not_there(asked: wire.Operation[wire.Reply]) -> None:
    with pytest.raises(Refused) as no:
        await acme.operation(asked, submission)
    assert no.value.code is ErrorCode.NOT_FOUND


def of_a_teamspace(teamspace: str | None) -> list[wire.Operation[wire.Reply]]:
    return [
        wire.Jobs(teamspace=teamspace),
        wire.Tables(teamspace=teamspace),
        wire.Schedules(teamspace=teamspace),
        wire.BatchJobs(teamspace=teamspace),
        wire.FollowUps(teamspace=teamspace),
        wire.Links(person="ann", teamspace=teamspace),
        wire.Links(action="end", person="ann", teamspace=teamspace),
        wire.Notices(teamspace=teamspace),
        wire.Usage(month="2026-11", teamspace=teamspace),
        wire.Plans(teamspace=teamspace),
    ]


def of_a_job(job: int) -> list[wire.Operation[wire.Reply]]:
    number = JobId(job)
    return [
        wire.Get(job=number),
        wire.Job(job=number),
        wire.Why(job=number),
        wire.History(job=number),
        wire.Cancel(job=number),
        wire.Rerun(job=number),
        wire.Pause(scope="job", name=number),
        wire.Resume(scope="job", name=number),
        wire.Notices(job=number),
        wire.BatchJobs(action="runs", instance=number),
        wire.BatchJobs(action="logs", instance=number),
    ]


async def test_a_teamspace_is_the_tokens_own_where_none_is_named_and_nothing_where_another_is() -> None:
    for open_, own, foreign in zip(of_a_teamspace(None), of_a_teamspace("acme"), of_a_teamspace("globex"), strict=True):
        assert await acme.operation(open_, submission) == own
        assert await acme.operation(own, submission) == own
        with pytest.raises(Refused) as no:
            await acme.operation(foreign, submission)
        assert no.value.code is ErrorCode.NOT_FOUND


async def test_a_job_is_reached_where_it_is_the_tokens_own() -> None:
    for own, foreign, absent in zip(of_a_job(1), of_a_job(2), of_a_job(3), strict=True):
        await acme.operation(own, submission)
        told = []
        for asked in (foreign, absent):
            with pytest.raises(Refused) as no:
                await acme.operation(asked, submission)
            told.append((no.value.code, no.value.at, no.value.message.translate({ord(each): "N" for each in "23"})))
        assert told[0] == told[1]


def test_every_operation_over_http_is_looked_at_here() -> None:
    seen = {type(each) for each in (*of_a_teamspace(None), *of_a_job(1))}
    seen |= {wire.Ping, wire.ContactEvent, wire.Pause, wire.Resume}
    of_the_whole = {wire.Status, wire.Teamspaces, wire.Providers, wire.Reload, wire.Drain}
    assert set(OPERATIONS) - seen == of_the_whole


async def test_a_preview_is_of_the_calendar_alone_or_of_the_tokens_own_teamspace() -> None:
    daily = Daily("02:30", "Europe/Berlin")
    alone = wire.Schedules(action="preview", timetable=daily)
    assert await acme.operation(alone, submission) is alone
    noop = {"kind": "noop"}
    own = wire.Schedules(action="preview", timetable=daily, teamspace="acme", submission=noop)
    assert await acme.operation(own, submission) == msgspec.structs.replace(
        own, submission={**noop, "teamspace": "acme"}
    )
    with pytest.raises(Refused) as no:
        await globex.operation(own, submission)
    assert no.value.code is ErrorCode.NOT_FOUND


async def test_who_is_not_the_operator_sets_no_limits() -> None:
    with pytest.raises(Refused) as no:
        await acme.operation(wire.Plans(teamspace="acme", key="slots.tables", value=9), submission)
    assert no.value.code is ErrorCode.FORBIDDEN


def test_names_of_files_are_in_the_teamspaces_own_namespace_in_every_step() -> None:
    steps: list[wire.Step] = [wire.UploadStep(table="t", path="a.csv"), wire.ExportStep(table="t"), wire.NoopStep()]
    chain = acme.submission(wire.Chain(teamspace="acme", steps=steps))
    assert isinstance(chain, wire.Chain)
    upload, export, _ = chain.steps
    assert isinstance(upload, wire.UploadStep)
    assert isinstance(export, wire.ExportStep)
    assert upload.path == acme.namespace.inside("a.csv") != "a.csv"
    assert export.path is None, "a name that is made of the table and the job is nobody else's"
    assert acme.namespace.has(upload.path)
    assert not globex.namespace.has(upload.path)
    noop = wire.Noop(teamspace="acme")
    assert acme.submission(noop) is noop, "what needs no change is stored as it came"


def test_a_namespace_is_known_to_the_daemon_alone() -> None:
    assert Namespace(b"a" * 32, "acme").inside("x") != Namespace(b"b" * 32, "acme").inside("x")


@pytest.mark.parametrize("name", ["", ".x", "a/b", "a\0b", "a\nb", "x" * 151, "\u202ex", "../x", "/etc/passwd"])
def test_a_name_is_a_mere_name(name: str) -> None:
    with pytest.raises(Refused):
        plain(name, "file")
