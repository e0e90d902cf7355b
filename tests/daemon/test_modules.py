"""Which modules there are: what is configured now, told with all that one needs to use it."""

from pathlib import Path

from leadline_protocol.messages import ModuleView, Reload, Tables
from tests.daemon.http import using
from tests.daemon.running import Place

MODULE = Path(__file__).parents[1] / "acceptance" / "modules" / "company.toml"
COMPANY = ["[providers.company]", f'module = "{MODULE}"', 'base_url = "http://127.0.0.1:9"', "credits_per_lead = 0.5"]
CHAT = ["[providers.openai]", 'preset = "openai"', "[providers.mistral]", 'preset = "openai"']


async def test_modules_are_told_with_what_they_need_and_find_as_configured_now(place: Place) -> None:
    place.configure(*COMPANY)
    company = ModuleView(
        module="company",
        title="Company data by one call",
        inputs=["email"],
        outputs={"company": "text", "industry": "text", "country": "text", "employees": "number"},
        credits_per_lead=0.5,
    )
    async with place.daemon() as (_, client):
        assert (await client.call(Tables(action="modules"))).modules == [company]
        place.configure(*COMPANY, *CHAT)
        await client.call(Reload())
        asked = ModuleView(module="ai_prompt", inputs=["prompt"], providers=["mistral", "openai"])
        assert (await client.call(Tables(action="modules"))).modules == [asked, company]
        async with using(place, client, "crm", "read", teamspace="acme") as http:
            answer = await http.get("/v1/modules")
            assert [each["module"] for each in answer.json["modules"]] == ["ai_prompt", "company"]
