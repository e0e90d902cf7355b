"""Requests that nobody would write, made of the API's own description: none is a fault, and all answers fit it."""

import asyncio
import sys
from pathlib import Path

import pytest

from tests.daemon.http import token
from tests.daemon.running import Place

EXAMPLES = 8
"""Of each route and phase: so many that the whole takes less than a minute."""

LEFT_OUT = {
    "/v1/drain": "it ends the daemon",
    "/v1/stream": "it goes on for ever",
}

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "ignored_auth",
)
"""Left out: that every request within the schema is taken and every other refused. What may be said is said by the
codec, which knows rules that no schema has: of two fields only one, fields that go with one action."""


@pytest.mark.timeout(600)
async def test_no_request_is_a_fault_and_every_answer_is_one_that_is_described(
    place: Place, tmp_path: Path, unused_tcp_port: int
) -> None:
    place.configure("[http]", f'listen = "127.0.0.1:{unused_tcp_port}"', "requests_per_second = 100000")
    async with place.daemon() as (_, client):
        secret = await token(client, "schemathesis")
        origin = f"http://127.0.0.1:{unused_tcp_port}"
        command = [
            *(str(Path(sys.executable).with_name("schemathesis")), "run", f"{origin}/v1/openapi.json"),
            *("--url", origin, "--header", f"Authorization: Bearer {secret}", "--no-color"),
            *("--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing"),
            *("--max-examples", str(EXAMPLES), "--seed", "1", "--generation-database", "none"),
            *(word for path in LEFT_OUT for word in ("--exclude-path", path)),
        ]
        process = await asyncio.create_subprocess_exec(
            *command, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()[-6000:]
