"""`providers check` and `providers try`."""

import json
from pathlib import Path

from leadline_protocol.ids import JobId
from leadline_protocol.messages import Providers, ProvidersReply, Tried, TriedCall
from tests.cli.conftest import Leadline
from tests.cli.fake_daemon import FakeDaemon

SOUND = """
name = "headcount"
title = "Headcount"
base_url = "https://api.headcount.example"
inputs = ["domain"]
limits = [{ shape = "concurrent", amount = 4 }]
[request]
path = "/v1/companies/{{domain}}"
[response.columns]
employees = { select = "company.size", type = "number" }
"""

TRIED = Tried(
    job=JobId(43),
    provider="headcount",
    outcome="done",
    calls=[
        TriedCall(
            method="GET",
            url="https://api.headcount.example/v1/companies/a.example",
            headers={"Authorization": "Bearer ***"},
            status=200,
            answer='{"company": {"size": 180}}',
            seconds=0.25,
            verdict="found",
        )
    ],
    values={"employees": 180},
)


def test_a_sound_module_is_read_back(leadline: Leadline, tmp_path: Path) -> None:
    file = tmp_path / "headcount.toml"
    file.write_text(SOUND)
    ran = leadline("providers", "check", file)
    assert ran.status == 0
    lines = ran.out.splitlines()
    assert lines[0] == f"{file} is sound: Headcount."
    assert "calls       POST https://api.headcount.example/v1/companies/{{domain}}" in lines
    assert "limit       4 calls at the same time" in lines
    assert json.loads(leadline("providers", "check", file, "--json").out)["name"] == "headcount"


def test_every_fault_of_a_module_is_told_with_its_line_and_path(leadline: Leadline, tmp_path: Path) -> None:
    file = tmp_path / "headcount.toml"
    file.write_text(SOUND.replace("amount = 4", "amount = 0").replace('"number"', '"numeral"'))
    ran = leadline("providers", "check", file)
    assert (ran.status, ran.out) == (1, "")
    first, second = ran.err.splitlines()
    assert first.startswith(f"{file}:6: limits[0].amount: ")
    assert second.startswith(f"{file}:10: response.columns.employees.type: ")
    faults = [json.loads(line) for line in leadline("providers", "check", file, "--json").out.splitlines()]
    assert {(fault["line"], fault["path"]) for fault in faults} == {
        (6, "limits[0].amount"),
        (10, "response.columns.employees.type"),
    }
    file.write_text("name = ")
    assert "is not TOML" in leadline("providers", "check", file).err
    assert leadline("providers", "check", tmp_path / "nowhere.toml").status == 1


def test_a_try_shows_what_was_sent_what_came_and_what_was_found(leadline: Leadline, daemon: FakeDaemon) -> None:
    daemon.on(Providers, lambda _: ProvidersReply(line=0, providers=[], tried=TRIED))
    ran = leadline("providers", "try", "headcount", "--lead", '{"domain": "a.example"}', "--teamspace", "acme")
    assert ran.status == 0
    assert ran.out.splitlines() == [
        "GET https://api.headcount.example/v1/companies/a.example",
        "  Authorization: Bearer ***",
        "status 200 after 250 ms: found",
        '  {"company": {"size": 180}}',
        "",
        "OUTPUT     VALUE",
        "employees  180",
        "Charged to headcount as job 43.",
    ]
    wanted = Providers(name="headcount", action="try", lead={"domain": "a.example"}, teamspace="acme")
    assert daemon.requests[-1] == wanted


def test_a_lead_that_is_no_object_is_a_mistake_of_the_command_line(leadline: Leadline) -> None:
    ran = leadline("providers", "try", "headcount", "--lead", "[1]")
    assert ran.status == 2
    assert "--lead takes a JSON object" in ran.err


def test_the_listing_has_a_name_of_its_own(leadline: Leadline, daemon: FakeDaemon) -> None:
    daemon.on(Providers, lambda _: ProvidersReply(line=0, providers=[]))
    assert leadline("providers", "list").out == leadline("providers").out
    assert daemon.requests[-1] == Providers()


def test_where_a_token_is_to_be_had_the_secret_is_an_id_and_a_secret(leadline: Leadline, tmp_path: Path) -> None:
    file = tmp_path / "leadline.toml"
    file.write_text(
        "[providers.snov]\npreset = 'snov'\nsecret = 'canary'\n[providers.snov.own.acme]\nsecret = 'id:canary'\n"
    )
    ran = leadline("config", "check", file)
    assert (ran.status, ran.err.count("ID:SECRET")) == (2, 1)
    assert ran.err.startswith("leadline: providers.snov.secret: ")
    assert "canary" not in ran.out + ran.err
