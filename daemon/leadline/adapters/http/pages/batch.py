"""Batch jobs: a teamspace's own Python, its code and settings, its runs, and what is left of the day."""

import secrets
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, Final

import msgspec
from aiohttp import web

from leadline.adapters.http.pages.typed import whole
from leadline.adapters.http.pages.visit import Visit, in_path
from leadline.adapters.http.problems import STATUS
from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, Refused

RUNS: Final = 20
"""Runs on one page."""

BATCH_JOBS: Final = 100
"""Batch jobs on one page."""


async def overview(visit: Visit) -> web.StreamResponse:
    """The batch jobs of a teamspace, what its day has left, and the newest runs."""
    return await _overview(visit)


async def _overview(visit: Visit, refused: Refused | None = None) -> web.StreamResponse:
    teamspace, after = visit.certain_teamspace, visit.number("after")
    beyond = visit.number("beyond")
    listed = await visit.ask(wire.BatchJobs(action="list", teamspace=teamspace, limit=BATCH_JOBS, after=beyond))
    runs = await visit.ask(wire.BatchJobs(action="runs", teamspace=teamspace, limit=RUNS, after=after))
    return visit.page(
        "batch.html",
        status=200 if refused is None else STATUS[refused.code],
        refused=refused,
        batch_jobs=listed.batch_jobs,
        beyond=listed.next,
        day=listed.day,
        runs=runs.runs,
        next=runs.next,
        typed=visit.form.fields,
    )


async def create(visit: Visit) -> web.StreamResponse:
    """Make a batch job; its code comes next."""
    name = visit.form.fields.get("name", "").strip()
    try:
        await visit.ask(wire.BatchJobs(action="create", teamspace=visit.certain_teamspace, name=name))
    except Refused as no:
        return await _overview(visit, no)
    return visit.see(path_of(name), said="batch_created")


async def one(visit: Visit) -> web.StreamResponse:
    """One batch job."""
    return await _one(visit)


async def _one(visit: Visit, refused: Refused | None = None) -> web.StreamResponse:
    teamspace, name = visit.certain_teamspace, visit.values[0]
    described = await visit.ask(wire.BatchJobs(action="describe", teamspace=teamspace, name=name))
    (view,) = described.batch_jobs
    runs = await visit.ask(
        wire.BatchJobs(action="runs", teamspace=teamspace, name=name, limit=RUNS, after=visit.number("after"))
    )
    return visit.page(
        "batch_job.html",
        status=200 if refused is None else STATUS[refused.code],
        refused=refused,
        batch_job=view,
        path=path_of(name),
        runs=runs.runs,
        next=runs.next,
        typed=visit.form.fields,
    )


async def upload(visit: Visit) -> web.StreamResponse:
    """Give it code: a zip."""
    file = visit.form.file
    if file is None or not file.name:
        return await _one(visit, Refused(ErrorCode.BAD_REQUEST, "choose the zip with the code", at="file"))
    stored = f"{secrets.token_hex(8)}-code.zip"  # two who send at once do not write over each other
    try:
        if PurePath(file.name).suffix.lower() != ".zip":
            raise Refused(ErrorCode.BAD_ARCHIVE, f"{file.name} is no zip", at="file")
        await visit.reach.take_file(visit.caller, stored, file)
        await visit.ask(
            wire.BatchJobs(action="upload", teamspace=visit.certain_teamspace, name=visit.values[0], path=stored)
        )
    except Refused as no:
        await visit.reach.drop_file(visit.caller, stored)
        return await _one(visit, Refused(no.code, no.message, at="file"))
    return visit.see(path_of(visit.values[0]), said="code_taken")


async def conduct(visit: Visit) -> web.StreamResponse:
    """Change how it is run, one setting or one secret."""
    fields = visit.form.fields
    try:
        await visit.ask(
            wire.BatchJobs(
                action="set",
                teamspace=visit.certain_teamspace,
                name=visit.values[0],
                **_conduct(fields),
            )
        )
    except Refused as no:
        return await _one(visit, no)
    return visit.see(path_of(visit.values[0]), said="changed")


def _conduct(fields: Mapping[str, str]) -> dict[str, Any]:
    """What a form changes: only what stands in it."""
    said: dict[str, Any] = {}
    if "timeout_seconds" in fields:  # the form of how it is run; a box that is not ticked is not sent
        said["api"] = "api" in fields
        said["retry_timeouts"] = "retry_timeouts" in fields
        said["stall_after_seconds"] = whole(fields.get("stall_after_seconds", "").strip() or "0", "stall_after_seconds")
    for name in ("timeout_seconds", "retries"):
        if fields.get(name, "").strip():
            said[name] = whole(fields[name], name)
    for name in ("mail_success", "mail_failure"):
        if name in fields:
            said[name] = [address for address in fields[name].replace(",", " ").split() if address]
    setting = fields.get("setting", "").strip()
    if setting:
        if "secret" in fields:
            said["secrets"] = {setting: fields.get("value", "")}
        else:
            said["settings"] = {setting: None if "unset" in fields else fields.get("value", "")}
    return said


async def publish(visit: Visit) -> web.StreamResponse:
    """Let it run."""
    return await _move(visit, wire.BatchJobs(action="publish", teamspace=visit.certain_teamspace, name=visit.values[0]))


async def unpublish(visit: Visit) -> web.StreamResponse:
    """Let it run no more."""
    return await _move(
        visit, wire.BatchJobs(action="unpublish", teamspace=visit.certain_teamspace, name=visit.values[0])
    )


async def _move(visit: Visit, asked: wire.BatchJobs) -> web.StreamResponse:
    try:
        await visit.ask(asked)
    except Refused as no:
        return await _one(visit, Refused(no.code, no.message))  # about the whole, not about a field of the page
    return visit.see(path_of(visit.values[0]), said=f"{asked.action}ed")


async def run(visit: Visit) -> web.StreamResponse:
    """Run it once, now."""
    text = visit.form.fields.get("body", "").strip()
    submission = {"kind": "batch", "teamspace": visit.certain_teamspace, "batch_job": visit.values[0]}
    try:
        body = {} if not text else {"body": msgspec.json.decode(text)}
        receipt = await visit.submit({**submission, **body})
    except (msgspec.MsgspecError, RecursionError) as error:
        return await _one(
            visit, Refused(ErrorCode.BAD_JSON, f"what is given to the run is no JSON: {error}", at="body")
        )
    except Refused as no:
        return await _one(visit, no)
    assert isinstance(receipt, wire.Receipt)
    return visit.see(f"/jobs/{receipt.job}", said="submitted")


async def delete(visit: Visit) -> web.StreamResponse:
    """Take it away, with its code, its settings and its schedules."""
    if visit.form.fields.get("name") != visit.values[0]:
        no = Refused(ErrorCode.BAD_REQUEST, f"to delete it, type its name: {visit.values[0]}", at="name")
        return await _one(visit, no)
    try:
        await visit.ask(wire.BatchJobs(action="delete", teamspace=visit.certain_teamspace, name=visit.values[0]))
    except Refused as no:
        return await _one(visit, no)
    return visit.see("/batch", said="deleted")


async def archive(visit: Visit) -> web.StreamResponse:
    """The code of a version."""
    name, version = visit.values
    asked = wire.BatchJobs(
        action="download", teamspace=visit.certain_teamspace, name=name, version=whole(version, "version")
    )
    return await visit.reach.give_batch_archive(visit.caller, visit.http, visit.read(asked))


def path_of(name: str) -> str:
    """The page of a batch job."""
    return f"/batch/{in_path(name)}"
