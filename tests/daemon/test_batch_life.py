"""B2, B4, B10, B12 and B14: a batch job from its draft to its end, who may see to it, and what schedules it takes."""

import asyncio
import hashlib
import zipfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from msgspec.structs import replace

from leadline.features.batch.life import BatchLife
from leadline.features.batch.ports import Line
from leadline_protocol.client import Client
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.ids import JobId
from leadline_protocol.messages import (
    Batch,
    BatchJobs,
    BatchReply,
    Cancel,
    Notices,
    Pause,
    Person,
    Plans,
    Schedules,
    SchedulesReply,
    TellOf,
)
from leadline_protocol.messages.words import INT64_MAX
from leadline_protocol.schedules import Cron, Daily, Monthly, Schedule, Weekday, Weekly
from tests.acceptance.batch_jobs import zipped
from tests.daemon.plays import Part, Play
from tests.daemon.running import Place

MORNING = datetime(2026, 12, 1, 6, tzinfo=UTC)
LIMIT = 4_194_304
MAIN = "def main(): pass\n"


@pytest.fixture
async def play(place: Place) -> Play:
    it = Play(place, MORNING)
    place.configure("[plans.default.batch]", "enabled = true")
    return it


async def tell(play: Play, action: str, name: str = "job", **fields: Any) -> BatchReply:
    return await play.client.call(BatchJobs(action=action, teamspace="acme", name=name, **fields))  # type: ignore[arg-type]


async def upload(play: Play, archive: bytes, name: str = "job") -> BatchReply:
    (play.place.state / "incoming" / "code.zip").write_bytes(archive)
    return await tell(play, "upload", name, path="code.zip")


async def schedule(play: Play, name: str, timetable: Schedule, batch_job: str = "job") -> SchedulesReply:
    submission = {"kind": "batch", "batch_job": batch_job}
    asked = Schedules(action="add", teamspace="acme", name=name, timetable=timetable, submission=submission, count=3)
    return await play.client.call(asked)


async def refused(code: ErrorCode, waiting: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        await waiting
    assert caught.value.code is code
    return caught.value


def of_size(size: int) -> bytes:
    """A good zip of exactly so many bytes."""

    def made(filler: int) -> bytes:
        out = BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr("main.py", MAIN)
            archive.writestr("data.bin", bytes(filler))
        return out.getvalue()

    return made(size - len(made(0)))


async def test_a_batch_job_goes_from_draft_to_published_and_back_and_is_deleted(play: Play) -> None:
    async with play.daemon():
        (view,) = (await tell(play, "create")).batch_jobs
        assert (view.state, view.version, view.timeout_seconds, view.retries) == ("draft", 0, 600, 0)
        await refused(ErrorCode.BAD_STATE, tell(play, "create"))
        await refused(ErrorCode.BAD_STATE, tell(play, "publish"))
        await upload(play, zipped({"main.py": MAIN}))
        assert "nobody could run job" in (await refused(ErrorCode.BAD_STATE, tell(play, "publish"))).message
        await tell(play, "set", api=True)
        (view,) = (await tell(play, "publish")).batch_jobs
        assert view.state == "published"
        await refused(ErrorCode.BAD_STATE, tell(play, "publish"))
        assert "unpublish it first" in (await refused(ErrorCode.BAD_STATE, tell(play, "set", api=False))).message
        await schedule(play, "nightly", Daily("02:00", "UTC"))
        (view,) = (await tell(play, "set", api=False)).batch_jobs
        assert (view.api, view.schedules) == (False, ["nightly"])
        message = (
            await refused(ErrorCode.BAD_STATE, play.client.submit(Batch(teamspace="acme", batch_job="job")))
        ).message
        assert "by its schedules alone" in message
        (view,) = (await tell(play, "unpublish")).batch_jobs
        assert view.state == "unpublished"
        await tell(play, "delete")
        await refused(ErrorCode.NOT_FOUND, tell(play, "describe"))
        assert (await play.client.call(Schedules(teamspace="acme"))).schedules == []


async def test_every_version_is_kept_and_can_be_had_again(play: Play) -> None:
    archives = [zipped({"main.py": MAIN, "n.txt": str(number)}) for number in range(3)]
    async with play.daemon():
        await tell(play, "create")
        for archive in archives:
            (view,) = (await upload(play, archive)).batch_jobs
        assert [each.version for each in view.versions] == [3, 2, 1]
        assert view.versions[2].sha256 == hashlib.sha256(archives[0]).hexdigest()
        path = (await tell(play, "download", version=1)).path
        assert path is not None
        assert (play.place.state / "exports" / path).read_bytes() == archives[0]
        await refused(ErrorCode.NOT_FOUND, tell(play, "download", version=4))
        assert not list((play.place.state / "incoming").iterdir())


async def test_a_zip_may_have_4_194_304_bytes_and_not_one_more(play: Play) -> None:
    async with play.daemon():
        await tell(play, "create")
        fits, exceeds = of_size(LIMIT), of_size(LIMIT + 1)
        assert (len(fits), len(exceeds)) == (LIMIT, LIMIT + 1)
        (view,) = (await upload(play, fits)).batch_jobs
        assert view.versions[0].size_bytes == LIMIT
        assert (await refused(ErrorCode.TOO_LARGE, upload(play, exceeds))).at == "path"


async def test_code_that_cannot_be_run_is_refused_with_the_reason(play: Play) -> None:
    async with play.daemon():
        await tell(play, "create")
        for archive, said in (
            (b"no zip at all", "no zip that can be read"),
            (zipped({"app/main.py": MAIN}), "there is no main.py at its root"),
            (zipped({"main.py": "x = 1\n"}), "has no function main"),
        ):
            assert said in (await refused(ErrorCode.BAD_ARCHIVE, upload(play, archive))).message
        (view,) = (await tell(play, "describe")).batch_jobs
        assert view.version == 0


@pytest.mark.parametrize(("name", "fits"), [("ab", False), ("abc", True), ("x" * 100, True), (" ab", False)])
async def test_a_name_has_3_to_100_characters(play: Play, name: str, fits: bool) -> None:
    async with play.daemon():
        if fits:
            await tell(play, "create", name)
        else:
            await refused(ErrorCode.BAD_REQUEST, tell(play, "create", name))


async def test_the_sixth_batch_job_is_refused_until_one_is_deleted(play: Play) -> None:
    async with play.daemon():
        for number in range(5):
            await tell(play, "create", f"job{number}")
        assert "drafts included" in (await refused(ErrorCode.QUOTA, tell(play, "create", "job5"))).message
        await tell(play, "delete", "job2")
        await tell(play, "create", "job5")
        await play.client.call(Plans(teamspace="acme", key="batch.jobs_max", value=6))
        await tell(play, "create", "job6")


async def test_what_the_plan_does_not_allow_is_refused_where_it_is_set(play: Play) -> None:
    async with play.daemon():
        await tell(play, "create", timeout_seconds=14_400, retries=1)
        assert (await refused(ErrorCode.BAD_REQUEST, tell(play, "set", timeout_seconds=14_401))).at == "timeout"
        assert (await refused(ErrorCode.BAD_REQUEST, tell(play, "set", retries=2))).at == "retries"
        assert (await refused(ErrorCode.BAD_REQUEST, tell(play, "set", interpreter="2.7"))).at == "interpreter"


@pytest.mark.parametrize(
    ("only", "role", "may"),
    [(False, "member", False), (False, "admin", True), (True, "admin", False), (True, "super_admin", True)],
)
async def test_only_admins_manage_batch_jobs_or_super_admins_alone(
    play: Play, only: bool, role: Any, may: bool
) -> None:
    async with play.daemon():
        await play.client.call(Plans(teamspace="acme", key="batch.super_admin_only", value=only))
        asked = BatchJobs(action="create", teamspace="acme", name="job", as_=Person(person="ada", role=role))
        if may:
            await play.client.call(asked)
        else:
            assert (await refused(ErrorCode.FORBIDDEN, play.client.call(asked))).at == "as"
        looks = replace(asked, action="list")
        await play.client.call(looks)


async def test_a_teamspace_has_no_batch_jobs_until_they_are_enabled_for_it(place: Place) -> None:
    play = Play(place, MORNING)
    async with play.daemon():
        assert "not enabled" in (await refused(ErrorCode.FORBIDDEN, tell(play, "create"))).message
        await play.client.call(Plans(teamspace="acme", key="batch.enabled", value=True))
        await play.publish("job", Part(1))
        await play.client.call(Plans(teamspace="acme", key="batch.enabled", value=None))
        await refused(ErrorCode.FORBIDDEN, play.client.submit(Batch(teamspace="acme", batch_job="job")))
        await tell(play, "unpublish")


async def test_who_waits_for_what_a_run_prints_is_told_that_it_was_cancelled_in_the_queue(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, lines = asyncio.Event(), BatchLife._lines

    async def looking(life: BatchLife, operation: BatchJobs, job: JobId, line: int) -> BatchReply:
        reply = await lines(life, operation, job, line)
        looked.set()
        return reply

    monkeypatch.setattr(BatchLife, "_lines", looking)
    place.configure("[plans.default.batch]", "enabled = true")
    async with (
        place.daemon() as (_, client),
        Client.connect(place.control) as reader,
        asyncio.TaskGroup() as tasks,
    ):
        await client.call(BatchJobs(action="create", teamspace="acme", name="job", api=True))
        (place.state / "incoming" / "code.zip").write_bytes(zipped({"main.py": MAIN}))
        await client.call(BatchJobs(action="upload", teamspace="acme", name="job", path="code.zip"))
        await client.call(BatchJobs(action="publish", teamspace="acme", name="job"))
        await client.call(Pause(scope="queue"))
        run = (await client.submit(Batch(teamspace="acme", batch_job="job"))).job
        reading = tasks.create_task(reader.call(BatchJobs(action="logs", instance=run, wait_seconds=30)))
        await looked.wait()
        began = asyncio.get_running_loop().time()
        await client.call(Cancel(job=run))
        assert (await reading).ended
        assert asyncio.get_running_loop().time() - began < 20, "and does not wait for as long as he would"


async def test_settings_are_shown_and_secrets_never(play: Play) -> None:
    async with play.daemon():
        await tell(play, "create", settings={"region": "eu"}, secrets={"token": "s3cr3t-canary"})
        (view,) = (await tell(play, "describe")).batch_jobs
        assert (view.settings, view.secrets) == ({"region": "eu"}, ["token"])
        (view,) = (await tell(play, "set", settings={"token": None, "region": "us"})).batch_jobs
        assert (view.settings, view.secrets) == ({"region": "us"}, [])
        acts = await play.running.acts("batch acme/job")
        assert [(each.op, each.detail) for each in acts] == [("batch", "create"), ("batch", "set token, region")]
        async with play.running.batch_store._store.read() as connection:
            dump = await connection.fetch("SELECT sealed FROM batch_setting")
        assert all(b"us" not in row["sealed"] for row in dump)


@pytest.mark.parametrize(
    ("schedules", "fits"),
    [
        ([Daily("23:30", "UTC"), Daily("00:15", "UTC")], False),
        ([Daily("23:30", "UTC"), Daily("00:30", "UTC")], True),
        ([Weekly((Weekday.SUNDAY,), "23:30", "UTC"), Weekly((Weekday.MONDAY,), "00:15", "UTC")], False),
        *[([Monthly(day, "23:30", "UTC"), Monthly(1, "00:15", "UTC")], False) for day in (31, 30, 29, 28)],
        ([Monthly(27, "23:30", "UTC"), Monthly(1, "00:15", "UTC")], True),
        ([Cron("0,59 * * * *", "UTC")], False),
    ],
)
async def test_two_starts_are_as_far_apart_as_the_plan_wants_on_the_whole_cycle(
    play: Play, schedules: Sequence[Schedule], fits: bool
) -> None:
    async with play.daemon():
        await play.publish("job", Part(1))
        *first, last = [(f"s{number}", each) for number, each in enumerate(schedules)]
        for name, each in first:
            await schedule(play, name, each)
        if fits:
            await schedule(play, last[0], last[1])
        else:
            told = await refused(ErrorCode.BAD_SCHEDULE, schedule(play, last[0], last[1]))
            assert told.at == "timetable"
            assert "the plan wants 60 at least" in told.message


async def test_whoever_adds_a_schedule_is_told_what_the_day_does_not_have(play: Play) -> None:
    async with play.daemon():
        await play.publish("job", Part(1), timeout_seconds=3_600)
        reply = await schedule(play, "quarterly", Cron("0 */6 * * *", "UTC"))
        assert reply.warnings == []
        await play.publish("other", Part(1), timeout_seconds=600)
        (warning,) = (await schedule(play, "too-much", Cron("30 0 * * *", "UTC"), "other")).warnings
        assert warning.code == "overrun"
        assert "5 executions and up to 250 min, where the plan allows 24 and 240 min" in warning.message


async def test_coming_times_are_marked_that_the_quota_may_not_allow(play: Play) -> None:
    async with play.daemon():
        await play.client.call(Plans(teamspace="acme", key="batch.invocations_per_day", value=2))
        await play.publish("job", Part(1), timeout_seconds=60)
        (view,) = (await schedule(play, "hourly", Cron("0 * * * *", "UTC"))).schedules
        assert [each.quota for each in view.coming] == [None, None, "invocations"]


async def test_a_preview_marks_warns_and_refuses_as_if_the_schedule_were_added(play: Play) -> None:
    async with play.daemon():
        await play.client.call(Plans(teamspace="acme", key="batch.invocations_per_day", value=2))
        await play.publish("job", Part(1), timeout_seconds=60)

        async def preview(line: str, **submission: object) -> SchedulesReply:
            timetable = Cron(line, "UTC")
            job = {"kind": "batch", "batch_job": "job", **submission}
            asked = Schedules(action="preview", teamspace="acme", timetable=timetable, submission=job, count=3)
            return await play.client.call(asked)

        previewed = await preview("0 * * * *")
        assert [each.quota for each in previewed.coming] == [None, None, "invocations"]
        (view,) = (await schedule(play, "hourly", Cron("0 * * * *", "UTC"))).schedules
        assert view.coming[:3] == previewed.coming
        told = await refused(ErrorCode.BAD_SCHEDULE, preview("30 * * * *"))
        assert told.at == "timetable"
        await refused(ErrorCode.NOT_FOUND, preview("0 * * * *", batch_job="missing"))
        await play.publish("other", Part(1), timeout_seconds=14_400)
        crowded = await preview("30 3 * * *", batch_job="other")
        assert [each.code for each in crowded.warnings] == ["overrun"]
        assert len((await play.client.call(Schedules(teamspace="acme"))).schedules) == 1, "nothing was stored"


async def test_somebody_is_told_of_the_fifth_failure_in_a_row_and_not_of_the_sixth(place: Place) -> None:
    play = Play(place, MORNING)
    place.configure("[plans.default.batch]", "enabled = true")
    async with play.daemon():
        await play.publish("job", *[Part(1, fails=fails) for fails in (True, False, *[True] * 6)])
        jobs = []
        for number in range(8):
            tell_of = TellOf(webhook="https://hooks.example/", on=["failing"])
            jobs.append((await play.client.submit(Batch(teamspace="acme", batch_job="job", notices=tell_of))).job)
            await play.quiet()
            await play.at(MORNING + timedelta(minutes=number + 1))
        assert [each.state for each in await play.all_runs()] == ["failed", "completed", *["failed"] * 6]
        told = (await play.client.call(Notices(all=True))).notices
        assert [(each.job, each.event) for each in told] == [(jobs[6], "failing")]


NIGHTS = [
    ("Australia/Lord_Howe", "2026-10-04", "02:15", "2026-10-04T02:30+11:00"),
    ("Australia/Lord_Howe", "2026-04-05", "01:45", "2026-04-05T01:45+11:00"),
    ("Pacific/Chatham", "2026-09-27", "03:00", "2026-09-27T03:45+13:45"),
    ("Pacific/Chatham", "2026-04-05", "03:00", "2026-04-05T03:00+13:45"),
    ("Antarctica/Troll", "2026-03-29", "02:00", "2026-03-29T03:00+02:00"),
    ("Antarctica/Troll", "2026-10-25", "02:00", "2026-10-25T02:00+02:00"),
    ("America/Santiago", "2026-09-06", "00:30", "2026-09-06T01:00-03:00"),
    ("America/Santiago", "2026-04-04", "23:30", "2026-04-04T23:30-03:00"),
    ("America/New_York", "2026-03-08", "02:30", "2026-03-08T03:00-04:00"),
    ("America/New_York", "2026-11-01", "01:30", "2026-11-01T01:30-04:00"),
    ("Europe/Berlin", "2026-03-29", "02:30", "2026-03-29T03:00+02:00"),
    ("Europe/Berlin", "2026-10-25", "02:30", "2026-10-25T02:30+02:00"),
]


@pytest.mark.parametrize(("zone", "day", "at", "fires"), NIGHTS)
async def test_in_a_night_in_which_clocks_change_it_runs_once_also_over_a_restart(
    place: Place, zone: str, day: str, at: str, fires: str
) -> None:
    moment = datetime.fromisoformat(fires)
    before = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone)) - timedelta(hours=2)
    play = Play(place, before)
    place.configure("[plans.default]", f'zone = "{zone}"', "[plans.default.batch]", "enabled = true")
    async with play.daemon():
        await play.publish("job", Part(60))
        await schedule(play, "nightly", Daily(at, zone))
        await play.at(moment - timedelta(seconds=1))
        play.running.recurrences.wake("acme", "nightly")
    async with play.daemon():
        assert await play.all_runs() == []
        await play.at(moment)
        await play.fire("nightly")
    async with play.daemon():
        for hours in (1, 2, 3, 4):
            await play.at(moment + timedelta(hours=hours))
            play.running.recurrences.wake("acme", "nightly")
            await play.quiet()
        (run,) = await play.all_runs()
        assert run.due_at == moment
        assert run.state == "completed"


async def test_code_that_nobody_will_run_any_more_goes_from_the_disk_and_stays_in_the_database(place: Place) -> None:
    play = Play(place, MORNING)
    place.configure("[plans.default.batch]", "enabled = true")
    folder = place.state / "code"
    async with play.daemon():
        await play.publish("job", Part(60))
        await play.client.submit(Batch(teamspace="acme", batch_job="job"))
        await play.quiet()
        await upload(play, zipped({"main.py": MAIN, "second": "1"}))
        (old,) = folder.iterdir()
        (folder / "half.half").mkdir()
        await play.running.workshop.keep_only(play.running.batch_store.digests)
        assert list(folder.iterdir()) == [old], "it runs"
        await play.at(MORNING + timedelta(minutes=2))
        await play.running.workshop.keep_only(play.running.batch_store.digests)
        assert list(folder.iterdir()) == []
        await tell(play, "download", version=1)


async def test_a_page_ends_where_a_client_could_read_no_more(play: Play) -> None:
    async with play.daemon():
        await play.publish("job", Part(1))
        job = (await play.client.submit(Batch(teamspace="acme", batch_job="job"))).job
        await play.quiet()
        await play.at(MORNING + timedelta(minutes=1))
        printed = [Line(number, play.wall, "\x01" * 16_384) for number in range(1, 1_001)]
        for start in range(0, 1_000, 100):
            await play.running.batch_store.keep_lines(job, 0, printed[start : start + 100])
        after, numbers = 0, []
        while True:
            reply = await play.client.call(BatchJobs(action="logs", instance=job, after=after))
            numbers += [line.number for line in reply.lines]
            if reply.next is None:
                break
            after = reply.next
        assert numbers == list(range(1, 1_001))
        assert reply.ended
        before = 0
        backwards: list[int] = []
        while True:
            reply = await play.client.call(BatchJobs(action="logs", instance=job, before=before, limit=300))
            assert reply.ended, "there is nothing behind them"
            backwards = [line.number for line in reply.lines] + backwards
            if reply.next is None:
                break
            before = reply.next
        assert backwards == numbers
        ends = [BatchJobs(action="logs", instance=job, before=end, limit=2) for end in (0, 4, INT64_MAX)]
        shown = [[line.number for line in (await play.client.call(each)).lines] for each in ends]
        assert shown == [[999, 1_000], [2, 3], [999, 1_000]]
        behind = await play.client.call(BatchJobs(action="logs", instance=job, after=INT64_MAX))
        assert (behind.lines, behind.ended) == ([], True)
