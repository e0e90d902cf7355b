"""Batch jobs as a test sets them up: a program's text becomes a published job of a real daemon."""

import io
import time
import zipfile
from collections.abc import Mapping
from textwrap import dedent
from typing import Any

from leadline_protocol import messages as wire
from leadline_protocol.ids import JobId
from tests.acceptance.stage import Stage

ENABLED = """
[plans.default.batch]
enabled = true
"""


def zipped(files: Mapping[str, str | bytes]) -> bytes:
    """A zip of these files."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def upload(daemon: Stage, name: str, program: str | bytes, teamspace: str = "acme") -> wire.BatchView:
    """Upload the text of a main.py, or a zip."""
    archive = program if isinstance(program, bytes) else zipped({"main.py": dedent(program)})
    path = f"{teamspace}-{name}.zip"
    (daemon.state_dir / "incoming" / path).write_bytes(archive)
    (view,) = daemon.ask(wire.BatchJobs(action="upload", teamspace=teamspace, name=name, path=path)).batch_jobs
    return view


def published(daemon: Stage, name: str, program: str | bytes, teamspace: str = "acme", **conduct: Any) -> None:
    """A batch job that can be run by submission."""
    daemon.ask(wire.BatchJobs(action="create", teamspace=teamspace, name=name, api=True, **conduct))
    upload(daemon, name, program, teamspace)
    daemon.ask(wire.BatchJobs(action="publish", teamspace=teamspace, name=name))


def invoke(daemon: Stage, name: str, teamspace: str = "acme", **fields: Any) -> JobId:
    """Submit a run."""
    return daemon.submit(wire.Batch(teamspace=teamspace, batch_job=name, **fields)).job


def run_of(daemon: Stage, job: JobId) -> wire.BatchRun:
    """A run as it is now."""
    (run,) = daemon.ask(wire.BatchJobs(action="runs", instance=job)).runs
    return run


def lines_of(daemon: Stage, job: JobId, retry_attempt: int = 0) -> list[str]:
    """What an attempt has printed so far."""
    reply = daemon.ask(wire.BatchJobs(action="logs", instance=job, retry_attempt=retry_attempt))
    return [line.text for line in reply.lines]


def until_printed(daemon: Stage, job: JobId, text: str, *, seconds: float = 30.0) -> None:
    """Wait until an attempt has printed a line."""
    after = 0
    deadline = time.monotonic() + seconds
    while True:
        reply = daemon.ask(wire.BatchJobs(action="logs", instance=job, after=after, wait_seconds=5))
        if any(line.text == text for line in reply.lines):
            return
        assert not reply.ended, f"it ended without having printed {text}"
        assert time.monotonic() < deadline, f"it has not printed {text} for {seconds:g} s"
        after = reply.lines[-1].number if reply.lines else after
