"""Bad input at both sockets: each fault has its code and place, the connection goes on, nothing is half-accepted."""

import json
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from leadline_protocol import messages as wire
from leadline_protocol.testing import find_command
from tests.acceptance.stage import Stage, World, people, provider, stage
from tests.world import behaviours

LINE_BYTES_MAX: Final = 262_144


@pytest.fixture(scope="module")
def daemon(world: World) -> Iterator[Stage]:
    with stage(provider("company", world.serve(behaviours.Enrichment()))) as running:
        running.table("acme", "people", people(5))
        running.put("good.csv", people(3))
        yield running


def talk(path: Path, *lines: bytes) -> list[dict[str, Any]]:
    """Send lines and a ping, each with a newline; the reply to each line but the ping."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(str(path))
        sock.sendall(b"".join(line + b"\n" for line in lines) + b'{"op":"ping"}\n')
        with sock.makefile("rb") as replies:
            found = [json.loads(replies.readline()) for _ in [*lines, b"ping"]]
    assert found[-1]["ok"] is True, "the connection goes on"
    assert [reply["line"] for reply in found] == list(range(1, len(found) + 1))
    return found[:-1]


def line(fields: Mapping[str, object], **more: object) -> bytes:
    return json.dumps({**fields, **more}).encode()


NOOP: Final = {"kind": "noop", "teamspace": "fresh"}
UPLOAD: Final = {"kind": "upload", "teamspace": "acme", "table": "new", "path": "good.csv"}
FORMULA: Final = {
    "kind": "formula",
    "teamspace": "acme",
    "table": "people",
    "into": {"fresh": "number"},
    "expression": "n",
}
ENRICH: Final = {"kind": "enrich", "teamspace": "acme", "table": "people", "module": "company"}
COMPANY: Final = {**ENRICH, "into": {"fresh": "text"}, "params": {"outputs": {"fresh": "company"}}}
PROMPT: Final = {**ENRICH, "module": "ai_prompt", "into": {"fresh": "text"}, "params": {"prompt": "{{email}}"}}
EXPORT: Final = {"kind": "export", "teamspace": "acme", "table": "people"}


def chain(*steps: Mapping[str, object]) -> bytes:
    bare = [{name: value for name, value in step.items() if name != "teamspace"} for step in steps]
    return line({"kind": "chain", "teamspace": "acme", "steps": bare})


SUBMISSIONS: Final[dict[str, tuple[bytes, str, str | None]]] = {
    "not JSON": (b"{", "bad_json", None),
    "no object": (b"[]", "bad_json", None),
    "a number": (b"17", "bad_json", None),
    "not UTF-8": (b'{"kind":"noop","teamspace":"\xff"}', "bad_json", None),
    "UTF-16": ('{"kind":"noop","teamspace":"a"}'.encode("utf-16").replace(b"\n", b""), "bad_json", None),
    "a lone surrogate": (b'{"kind":"noop","teamspace":"\\ud800"}', "bad_json", None),
    "NUL": (b'{"kind":"noop","teamspace":"a\\u0000"}', "bad_json", None),
    "NaN": (b'{"kind":"noop","teamspace":"a","delay":NaN}', "bad_json", None),
    "a key twice": (b'{"kind":"noop","teamspace":"a","teamspace":"b"}', "bad_json", None),
    "a bomb of brackets": (b"[" * 100_000, "bad_json", None),
    "a bomb of objects": (line(COMPANY)[:-1] + b',"x":' + b'{"a":' * 40_000, "bad_json", None),
    "a bomb that is closed": (line(NOOP)[:-1] + b',"x":' + b"[" * 33 + b"]" * 33 + b"}", "bad_json", None),
    "too long a line": (line(NOOP, idempotency_key="k" * LINE_BYTES_MAX), "too_large", None),
    "an endless line": (b"x" * (4 * LINE_BYTES_MAX), "too_large", None),
    "no kind": (b'{"teamspace":"a"}', "bad_request", "kind"),
    "an unknown kind": (line(NOOP, kind="dance"), "unknown_kind", "kind"),
    "an unknown op": (b'{"op":"dance"}', "unknown_op", "op"),
    "no teamspace": (b'{"kind":"noop"}', "bad_request", "teamspace"),
    "too long a name": (line(NOOP, teamspace="a" * 101), "bad_request", "teamspace"),
    "an unknown field": (line(NOOP, x=1), "bad_request", "x"),
    "a delay that has passed": (line(NOOP, delay=-1), "bad_request", "delay"),
    "a time without a zone": (line(NOOP, run_at="2030-01-01T00:00:00"), "bad_request", "run_at"),
    "a delay and a time": (line(NOOP, delay=1, run_at="2030-01-01T00:00:00Z"), "bad_request", None),
    "a number out of range": (line(NOOP, priority_seconds=604_801), "bad_request", "priority_seconds"),
    "an id that no job has": (b'{"op":"get","job":0}', "bad_request", "job"),
    "an unknown job": (b'{"op":"get","job":4611686018427387904}', "not_found", "job"),
    "a missing file": (line(UPLOAD, path="missing.csv"), "bad_archive", "path"),
    "a file of somebody else": (line(UPLOAD, path="/etc/passwd"), "bad_archive", "path"),
    "a way out of the folder": (line(UPLOAD, path="../lock"), "bad_archive", "path"),
    "an unknown type": (line(UPLOAD, types={"n": "integer"}), "bad_request", "types"),
    "an unknown table": (line(FORMULA, table="nowhere"), "unknown_table", "table"),
    "half an expression": (line(FORMULA, where="n >"), "bad_expression", "where:3"),
    "another language": (line(FORMULA, where="n = (SELECT 1)"), "bad_expression", "where:6"),
    "a filter that is no condition": (line(FORMULA, where="n + 1"), "bad_expression", "where:1"),
    "an unknown column": (line(FORMULA, where="n = 1 AND nope = 2"), "unknown_column", "where:11"),
    "a formula of another type": (line(FORMULA, expression="email"), "bad_expression", "expression:1"),
    "a column of another type": (line(FORMULA, into={"email": "number"}), "bad_request", "into.email"),
    "two columns for a formula": (line(FORMULA, into={"a": "number", "b": "number"}), "bad_request", "into"),
    "an unknown module": (line(COMPANY, module="nobody"), "unknown_module", "module"),
    "an unknown output": (line(COMPANY, params={}), "bad_request", "into.fresh"),
    "an unknown parameter": (line(COMPANY, params={"x": 1}), "bad_request", "params"),
    "a prompt and no model": (line(PROMPT), "unknown_provider", "params.provider"),
    "a bad run_if": (line(COMPANY, run_if="n ="), "bad_expression", "run_if:3"),
    "an unknown column to export": (line(EXPORT, columns=["email", "nope"]), "unknown_column", "columns"),
    "a file elsewhere": (line(EXPORT, path="../x.csv"), "bad_request", "path"),
    "a chain without steps": (chain(), "bad_request", "steps"),
    "a bad second step": (chain(UPLOAD, {**FORMULA, "where": "n >"}), "bad_expression", "steps[1].where:3"),
    "a bad file in a third step": (
        chain(FORMULA, UPLOAD, {**UPLOAD, "path": "no.csv"}),
        "bad_archive",
        "steps[2].path",
    ),
    "a step on_submit": (chain({**FORMULA, "select_leads": "on_submit"}), "bad_request", "steps[0].select_leads"),
}

INSTRUCTIONS: Final[dict[str, tuple[bytes, str, str | None]]] = {
    "cancel of nothing": (b'{"op":"cancel","job":999}', "not_found", "job"),
    "cancel of what has ended": (b'{"op":"cancel","job":1}', "bad_state", "job"),
    "rerun of nothing": (b'{"op":"rerun","job":999}', "not_found", "job"),
    "rerun of an upload": (b'{"op":"rerun","job":1}', "bad_state", "job"),
    "pause of what there is not": (b'{"op":"pause","scope":"galaxy"}', "bad_request", "scope"),
    "pause of a queue with a name": (b'{"op":"pause","scope":"queue","name":"x"}', "bad_request", None),
    "pause of an unknown family": (b'{"op":"pause","scope":"family","name":"x"}', "bad_request", "name"),
    "pause of an unknown job": (b'{"op":"pause","scope":"job","name":999}', "not_found", "job"),
    "resume of what has ended": (b'{"op":"resume","scope":"job","name":1}', "not_found", "job"),
    "too small a page": (b'{"op":"jobs","limit":0}', "bad_request", "limit"),
    "an unknown state": (b'{"op":"jobs","state":"happy"}', "bad_request", "state"),
    "an unknown provider": (b'{"op":"providers","name":"x"}', "unknown_provider", "name"),
    "an unknown plan": (b'{"op":"plans","plan":"x"}', "not_found", "plan"),
    "why of nothing": (b'{"op":"why","job":999}', "not_found", "job"),
    "history of nothing": (b'{"op":"history","job":999}', "not_found", "job"),
    "watch of nothing": (b'{"op":"watch","job":999}', "not_found", "job"),
    "follow of nothing": (b'{"op":"follow","job":999}', "not_found", "job"),
}


def judged(replies: Sequence[Mapping[str, Any]]) -> list[tuple[str, str | None]]:
    assert all(reply["ok"] is False for reply in replies), [reply for reply in replies if reply["ok"]]
    return [(reply["error"]["code"], reply["error"].get("at")) for reply in replies]


def everything(daemon: Stage) -> object:
    """All that a submission could leave behind."""
    names = ("job", "job_ended", "lead_table", "lead_list", "submission_key", "teamspace", "upload_file")
    stored = {name: daemon.query(f"SELECT count(*) FROM {name}") for name in names}
    columns = daemon.ask(wire.Tables(teamspace="acme")).tables
    return stored, columns, sorted(path.name for path in (daemon.state_dir / "incoming").iterdir())


@pytest.mark.parametrize("face", ["submit", "control"])
def test_each_bad_submission_is_refused_with_its_code_and_place_and_leaves_nothing(daemon: Stage, face: str) -> None:
    path = daemon.submit_socket if face == "submit" else daemon.control_socket
    before = everything(daemon)
    replies = talk(path, *(sent for sent, _, _ in SUBMISSIONS.values()))
    found = dict(zip(SUBMISSIONS, judged(replies), strict=True))
    assert found == {name: (code, at) for name, (_, code, at) in SUBMISSIONS.items()}
    assert everything(daemon) == before


def test_copies_of_files_whose_chain_was_refused_are_gone_after_a_restart(daemon: Stage) -> None:
    talk(daemon.submit_socket, SUBMISSIONS["a bad second step"][0])
    daemon.restart()
    deadline = time.monotonic() + 10
    while list((daemon.state_dir / "uploads").iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert (daemon.state_dir / "incoming" / "good.csv").exists(), "what was handed in is still its owner's"


def test_each_bad_instruction_is_refused_with_its_code_and_place(daemon: Stage) -> None:
    replies = talk(daemon.control_socket, *(sent for sent, _, _ in INSTRUCTIONS.values()))
    found = dict(zip(INSTRUCTIONS, judged(replies), strict=True))
    assert found == {name: (code, at) for name, (_, code, at) in INSTRUCTIONS.items()}


def test_instructions_are_unknown_at_the_submit_socket(daemon: Stage) -> None:
    names = ["status", "jobs", "job", "cancel", "rerun", "pause", "resume", "watch", "plans", "reload", "drain"]
    replies = talk(daemon.submit_socket, *(json.dumps({"op": name}).encode() for name in names))
    assert judged(replies) == [("unknown_op", "op")] * len(names)


def test_good_lines_between_bad_ones_are_taken_and_a_ref_comes_back(daemon: Stage) -> None:
    replies = talk(daemon.submit_socket, b"{", line(NOOP, ref="one"), line(NOOP, x=1, ref=2), line(NOOP, ref="three"))
    assert [(reply["ok"], reply.get("ref")) for reply in replies] == [
        (False, None),
        (True, "one"),
        (False, 2),
        (True, "three"),
    ]
    for reply in replies[1::2]:
        assert daemon.ended(reply["job"]).state == "completed"


def test_half_a_line_is_no_submission(daemon: Stage) -> None:
    before = everything(daemon)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(str(daemon.submit_socket))
        sock.sendall(line(NOOP)[:-1])
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(4096):
            pass
    assert everything(daemon) == before


def test_a_link_does_not_lead_an_upload_out_of_its_folder(daemon: Stage) -> None:
    link = daemon.state_dir / "incoming" / "link.csv"
    link.symlink_to("/etc/passwd")
    try:
        (reply,) = talk(daemon.submit_socket, line(UPLOAD, path="link.csv"))
        assert (reply["error"]["code"], reply["error"]["at"]) == ("bad_archive", "path")
    finally:
        link.unlink()


@pytest.mark.parametrize("content", [b"", bytes(range(256)) * 50], ids=["empty", "noise"])
def test_a_file_that_is_no_table_is_its_jobs_end_and_not_the_daemons(daemon: Stage, content: bytes) -> None:
    (daemon.state_dir / "incoming" / "noise.csv").write_bytes(content)
    view = daemon.ended(daemon.submit(wire.Upload(teamspace="noise", table="noise", path="noise.csv")).job)
    assert (view.state, view.reason) == ("failed", "bad_file")
    assert view.message
    assert daemon.ended(daemon.submit(wire.Noop(teamspace="noise")).job).state == "completed"


def test_a_wrong_configuration_names_every_fault_at_once_and_ends_with_2(tmp_path: Path) -> None:
    config = tmp_path / "leadline.toml"
    config.write_text(
        "colour = 'red'\n[queue]\nmax_stall_kills = 0\nstall_after_seconds = 'long'\n"
        "[providers.x]\npreset = 'nobody'\n[providers.y]\nlimits = [{ shape = 'round', amount = 1 }]\n"
    )
    for arguments in (["serve", "--state-dir", str(tmp_path / "state")], ["config", "check", str(config)]):
        given = arguments if arguments[0] == "config" else [*arguments, "--config", str(config)]
        ran = subprocess.run([*find_command(), *given], capture_output=True, text=True, check=False, timeout=30)
        assert ran.returncode == 2, ran.stderr
        for place in ("colour", "queue.max_stall_kills", "queue.stall_after_seconds", "providers.y"):
            assert place in ran.stdout + ran.stderr, ran.stderr
    assert not (tmp_path / "state").exists(), "nothing was begun"
