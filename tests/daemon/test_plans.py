"""Limits that are set live: what they bind, what they outlive, and what is refused."""

import pytest

from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.messages import Noop, Plans, Reload, Teamspaces
from tests.daemon.running import Place, limits


async def queued(client, teamspace: str, jobs: int) -> list[bool]:  # type: ignore[no-untyped-def]
    """Which of so many jobs that only wait are taken."""
    found = await client.submit_many([Noop(teamspace=teamspace, delay=3600) for _ in range(jobs)])
    return [not isinstance(each, Refused) for each in found]


async def test_a_limit_binds_the_next_admission_and_is_said_to_be_an_override(place: Place) -> None:
    async with place.daemon() as (_, client):
        reply = await client.call(Plans(teamspace="acme", key="max_queued", value=2))
        (view,) = reply.plans
        assert (view.plan, view.teamspace) == ("default", "acme")
        found = await limits(client, teamspace="acme")
        assert found["max_queued"] == (2, "override")
        assert found["slots.tables"] == (1, "built-in")
        assert (await limits(client, teamspace="beta"))["max_queued"] == (10_000, "built-in")
        assert await queued(client, "acme", 3) == [True, True, False]
        assert await queued(client, "beta", 3) == [True, True, True]


async def test_a_limit_of_a_plan_binds_its_teamspaces_below_their_own(place: Place) -> None:
    place.configure("[plans.gold]", "max_queued = 7", "[teamspaces.acme]", 'plan = "gold"')
    async with place.daemon() as (_, client):
        assert (await limits(client, teamspace="acme"))["max_queued"] == (7, "toml")
        await client.call(Plans(plan="gold", key="max_queued", value=1))
        assert (await limits(client, plan="gold"))["max_queued"] == (1, "override")
        assert (await limits(client, teamspace="acme"))["max_queued"] == (1, "plan")
        assert await queued(client, "acme", 2) == [True, False]
        await client.call(Plans(teamspace="acme", key="max_queued", value=2))
        assert (await limits(client, teamspace="acme"))["max_queued"] == (2, "override")
        assert await queued(client, "acme", 2) == [True, False]


async def test_what_was_set_outlives_a_restart_and_a_reload_that_replaces_the_file_alone(place: Place) -> None:
    place.configure("[plans.default]", "max_queued = 100")
    async with place.daemon() as (_, client):
        await client.call(Plans(teamspace="acme", key="max_queued", value=1))
    async with place.daemon() as (_, client):
        assert (await limits(client, teamspace="acme"))["max_queued"] == (1, "override")
        assert await queued(client, "acme", 2) == [True, False]
        place.configure("[plans.default]", "max_queued = 2", "[plans.default.slots]", "tables = 3")
        await client.call(Reload())
        found = await limits(client, teamspace="acme")
        assert (found["max_queued"], found["slots.tables"]) == ((1, "override"), (3, "toml"))
        assert await queued(client, "acme", 1) == [False]
        assert await queued(client, "beta", 3) == [True, True, False]


async def test_null_takes_a_limit_back_at_once(place: Place) -> None:
    async with place.daemon() as (_, client):
        await client.call(Plans(teamspace="acme", key="max_queued", value=1))
        assert await queued(client, "acme", 2) == [True, False]
        await client.call(Plans(teamspace="acme", key="max_queued", value=None))
        assert (await limits(client, teamspace="acme"))["max_queued"] == (10_000, "built-in")
        assert await queued(client, "acme", 2) == [True, True]


async def test_a_teamspace_that_is_taken_out_of_the_file_has_the_default_limits_again(place: Place) -> None:
    place.configure("[plans.small]", "max_queued = 1", "[teamspaces.acme]", 'plan = "small"')
    async with place.daemon() as (_, client):
        assert await queued(client, "acme", 2) == [True, False]
        place.configure()
        await client.call(Reload())
        assert await queued(client, "acme", 1) == [True]


async def test_slots_are_shown_as_they_are_in_force(place: Place) -> None:
    async with place.daemon() as (_, client):
        await queued(client, "acme", 1)
        await client.call(Plans(teamspace="acme", key="slots.tables", value=4))
        (view,) = (await client.call(Teamspaces())).teamspaces
        assert view.slots["tables"] == 4


@pytest.mark.parametrize(
    ("wanted", "code", "at", "message"),
    [
        (
            Plans(teamspace="acme", key="speed", value=1),
            "bad_request",
            "key",
            "there is no limit speed; there are slots",
        ),
        (Plans(teamspace="acme", key="speed", value=None), "bad_request", "key", "there is no limit speed"),
        (Plans(teamspace="acme", key="slots.tables", value=0), "bad_request", "value", "slots.tables must be a whole"),
        (
            Plans(teamspace="acme", key="slots.tables", value="two"),
            "bad_request",
            "value",
            "slots.tables must be a whole",
        ),
        (Plans(teamspace="acme", key="max_queued", value=True), "bad_request", "value", "max_queued must be a whole"),
        (Plans(teamspace="acme", key="weight", value=0.0), "bad_request", "value", "weight must be"),
        (Plans(plan="gold", key="weight", value=2.0), "not_found", "plan", "there is no plan gold"),
    ],
)
async def test_what_is_no_limit_is_refused_and_nothing_is_kept(
    place: Place, wanted: Plans, code: str, at: str, message: str
) -> None:
    async with place.daemon() as (_, client):
        with pytest.raises(Refused) as refused:
            await client.call(wanted)
        assert (refused.value.code, refused.value.at) == (ErrorCode(code), at)
        assert refused.value.message.startswith(message)
        sources = {source for _, source in (await limits(client, teamspace="acme")).values()}
        assert sources == {"built-in"}
