"""The guide to HTTP is pasted into a shell, line by line, and does what it says."""

import asyncio
import json
import os
import re
import sys
from pathlib import Path

import pytest

from leadline import config
from leadline.adapters.http.problems import STATUS
from leadline.config import HTTP_SOCKET
from tests.architecture.repository import ROOT
from tests.daemon.http import using
from tests.daemon.running import Place

GUIDE = (ROOT / "daemon" / "docs" / "http.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)


@pytest.mark.needs("curl")
async def test_the_guide_does_as_it_is_pasted_what_it_says(place: Place, tmp_path: Path) -> None:
    place.configure("[plans.default.slots]", "tables = 1")
    script = "set -e\n" + "".join(blocks("sh")).replace(
        "/run/leadline/http.sock", str(place.folder / "run" / HTTP_SOCKET)
    )
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "STATE_DIRECTORY": str(place.state),
        "RUNTIME_DIRECTORY": str(place.folder / "run"),
    }
    async with place.daemon():
        shell = await asyncio.create_subprocess_exec(
            *("bash", "-c", script),
            cwd=tmp_path,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await shell.communicate()
    assert shell.returncode == 0, err.decode()
    told = out.decode()
    assert '"job":1,' in told
    assert '{"ok":true,"line":2,"job":3,' in told
    assert '"table":"prospects","leads":2' in told
    assert "event: ended" in told
    assert "email,company\r\nann@acme.example,Acme" in told
    assert '{"path":"/in/ldi_' in told
    assert '{"ended":0}' in told
    (problem,) = blocks("json")
    assert told.endswith(problem.strip()), "the refusal is the one that is shown"


async def test_the_numbers_that_it_names_are_there(place: Place) -> None:
    place.configure("[providers.snov]", 'preset = "snov"', 'secret = "not-a-real-id:not-a-real-secret"')
    async with place.daemon() as (_, client), using(place, client, "a") as http:
        text = (await http.get("/metrics")).body.decode()
    named = set(re.findall(r"`(leadline_\w+)`", GUIDE))
    assert len(named) > 10
    assert [name for name in named if f"\n{name}" not in text] == ["leadline_jobs_waiting"], "while none runs"


def test_its_statuses_are_those_of_the_code() -> None:
    (table,) = re.findall(r"<!-- statuses: begin -->\n(.*?)<!-- statuses: end -->", GUIDE, re.DOTALL)
    told = {
        code: int(status)
        for status, codes in re.findall(r"^\| (\d+) \| (.*) \|$", table, re.MULTILINE)
        for code in re.findall(r"`(\w+)`", codes)
    }
    assert told == {code.value: status for code, status in STATUS.items()}


def test_its_configuration_is_read(tmp_path: Path) -> None:
    listen, public_url = (config.parse(text, tmp_path / "leadline.toml").http for text in blocks("toml config"))
    assert listen.listen == "127.0.0.1:8021"
    assert public_url.public_url == "https://jobs.acme.example"


def test_the_problem_that_it_shows_is_one() -> None:
    (problem,) = blocks("json")
    assert set(json.loads(problem)) == {"type", "title", "status", "detail", "code", "at"}
