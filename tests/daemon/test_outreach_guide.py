"""The first example of the outreach guide does what the guide says, command for command, against a real mail server."""

import os
import re
import shlex
import sys
from email import message_from_bytes
from email.policy import default
from pathlib import Path

import anyio
import pytest

from leadline_protocol.client import Client
from leadline_protocol.messages import FollowUps, FollowUpView
from tests.daemon.outreach import outreach
from tests.daemon.running import Place
from tests.world.mail import Mailbox, serving_mail

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "daemon" / "docs" / "outreach.md"


def commands() -> list[list[str]]:
    """Those of the first block with commands."""
    block = re.search(r"^```sh\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert block is not None
    return [shlex.split(line) for line in block[1].splitlines()]


async def run(place: Place, command: list[str]) -> str:
    leadline = Path(sys.executable).with_name("leadline")
    place_of_it = {"RUNTIME_DIRECTORY": str(place.control.parent), "STATE_DIRECTORY": str(place.state)}
    ran = await anyio.run_process(
        [str(leadline), *command[1:]], cwd=ROOT, env={**os.environ, **place_of_it}, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, b""), command
    return ran.stdout.decode()


async def contacts(client: Client) -> dict[str, FollowUpView]:
    """The follow-ups by their contact's first name, as the sample has them."""
    reply = await client.call(FollowUps(teamspace="acme"))
    return {view.address.partition("@")[0]: view for view in reply.follow_ups}


@pytest.mark.timeout(120)
async def test_the_first_example_of_the_guide_runs_as_pasted(place: Place) -> None:
    async with serving_mail(Mailbox()) as served:
        place.configure(*outreach("spacing_seconds = 0", served=served))
        async with place.daemon() as (_, client):
            said = [await run(place, command) for command in commands()]
            for view in (await contacts(client)).values():
                assert view.job is not None
                await client.wait(view.job)
            after = await contacts(client)
    team, list_, preview, mail, queued, _ = said
    assert team.startswith("3 added, 0 changed in acme.\n")
    assert list_.startswith("4 added, 0 changed in acme.\n")
    assert "4 follow-ups would be queued, 0 passed over" in preview
    assert "Subject: Your visit to our stand, Grace\n" in mail
    assert "4 follow-ups queued, 0 passed over" in queued
    assert {name: (view.status, view.reason) for name, view in after.items()} == {
        "grace": ("pending", None),
        "alan": ("pending", None),
        "edsger": ("stopped", "do_not_contact"),
        "nobody": ("failed", "missing_fields"),
    }
    assert [view.step for view in after.values()] == [2, 2, 1, 1]
    sent = [message_from_bytes(handed.content, policy=default) for handed in served.messages]
    assert sorted(str(each["To"]) for each in sent) == ["alan@bletchley.example", "grace@navy.example"]
    for each in sent:
        assert each["From"] == "Ada Example <ada@acme.example>"
        text = each.get_body()
        assert text is not None
        assert text.get_content().splitlines()[-4:] == [
            "Shall we talk for ten minutes this week?",
            "",
            "Ada Example",
            "Acme, sales",
        ]
