"""What a Python module declares is a provider module, and its requests and answers are a provider's."""

from typing import Any

import msgspec
import pytest

from leadline.core.rate_limit import ConcurrentLimit, Cost, WindowLimit
from leadline.features.tables import responses
from leadline.features.tables.asking import Endpoint
from leadline.features.tables.bulk import OrderAsker
from leadline.features.tables.columns import Cells, ColumnType
from leadline.features.tables.lead_course import Ask, Course
from leadline.features.tables.provider_modules import ModuleFaultsError, ProviderModule
from leadline.features.tables.python_modules import provider_module, read_declared, with_places
from leadline.features.tables.requests import Access, lead_request
from leadline.ports.provider_client import Response
from leadline_protocol.ids import AccountName, Instant, LeadId

DECLARED: dict[str, Any] = {
    "version": "1.0",
    "inputs": ["phone"],
    "optional_inputs": ["country"],
    "outputs": {"digits": "text", "kind": ["mobile", "landline"]},
    "settings": {"country": "DE"},
    "limits": [{"shape": "window", "amount": 15, "per_seconds": 60, "unit": "lead"}],
    "cost": {"request": 1, "lead": 1},
}


def module(**changed: object) -> ProviderModule:
    return provider_module("phone", read_declared("phone", msgspec.json.encode({**DECLARED, **changed})))


def test_what_is_declared_holds_as_for_a_provider() -> None:
    found = module(later_versions_say="more")
    assert found.limits == [WindowLimit(15, 60, found.limits[0].unit)]  # type: ignore[union-attr]
    assert found.cost == Cost(request=1, lead=1)
    assert {name: (output.type, output.allowed) for name, output in found.outputs.items()} == {
        "digits": (ColumnType.TEXT, []),
        "kind": (ColumnType.TEXT, ["mobile", "landline"]),
    }


def test_a_request_holds_the_lead_and_the_settings_and_the_secret_is_not_in_its_body() -> None:
    found = module()
    access = Access(found.base_url, "canary", {"country": "AT"}, 1.0)
    request = lead_request(found, access, {"phone": 12345}, call_id="1")
    assert request.url == "python://phone/"
    assert msgspec.json.decode(request.body) == {"lead": {"phone": 12345}, "settings": {"country": "AT"}}
    assert request.headers["Authorization"] == "Bearer canary"


@pytest.mark.parametrize(
    ("status", "headers", "body", "verdict"),
    [
        (200, {}, b'{"digits": "49"}', responses.Done({"digits": "49", "kind": None})),
        (200, {}, b"{}", responses.NotFound()),
        (429, {"retry-after": "30"}, b"{}", responses.Throttled(30.0)),
        (402, {"retry-after": "90"}, b"{}", responses.QuotaGone(90.0)),
        (402, {}, b"{}", responses.QuotaGone(None)),
        (401, {}, b"{}", responses.InvalidKey()),
    ],
)
def test_what_a_worker_answers_means_what_it_would_of_a_provider(
    status: int, headers: dict[str, str], body: bytes, verdict: responses.Verdict
) -> None:
    assert responses.read_response(module(), Response(status, headers, body), "start", Instant(0)) == verdict


def test_a_batch_is_an_order_whose_results_are_in_its_answer() -> None:
    found = module(batch=100)
    assert found.bulk is not None
    assert (found.mode, found.bulk.records_max, found.poll) == ("bulk", 100, None)
    access = Access(found.base_url, None, {"country": "AT"}, 1.0)
    leads: list[tuple[LeadId, Cells]] = [(LeadId(1), {"phone": 1, "country": "DE"}), (LeadId(2), {"phone": 2})]
    order = OrderAsker(Endpoint(AccountName("phone"), found, access), leads, Course("hold"))
    assert msgspec.json.decode(order.request(Ask("start"), access, "1").body) == {
        "leads": [{"phone": 1, "country": "DE"}, {"phone": 2}],
        "settings": {"country": "AT"},
    }
    assert order.cost(Ask("start")) == Cost(request=1, lead=2)
    body = b'{"results": [{"values": {"digits": "49"}}, {"values": {}}, {"error": "Rejected: no"}]}'
    listed = order.verdict(Ask("start"), Response(200, {}, body), Instant(0))
    assert isinstance(listed, responses.Listed)
    done, missed, failed = (responses.item_verdict(found, item) for item in listed.items)
    assert done == responses.Done({"digits": "49", "kind": None})
    assert missed == responses.NotFound()
    assert isinstance(failed, responses.Failed)
    assert "Rejected: no" in failed.detail


@pytest.mark.parametrize(
    ("changed", "place"),
    [
        ({"batch": 0}, "batch"),
        ({"batch": 10, "inputs": ["record"]}, "inputs"),
        ({"outputs": {}}, "outputs"),
        ({"outputs": {"digits": "texts"}}, "outputs"),
        ({"outputs": {"Digits!": "text"}}, "outputs"),
        ({"limits": [{"shape": "window", "amount": 0, "per_seconds": 60}]}, "limits[0].amount"),
        ({"optional_inputs": ["phone"]}, "optional_inputs"),
        ({"leads_at_once": 0}, "leads_at_once"),
        ({"version": ""}, "version"),
        ({"cost": {"requests": 1}}, "cost"),
    ],
)
def test_a_fault_is_named_with_its_place(changed: dict[str, object], place: str) -> None:
    with pytest.raises(ModuleFaultsError) as found:
        module(**changed)
    assert found.value.faults[0].path.startswith(place)


@pytest.mark.parametrize("name", ["Phone", "phone line", "7", "phone@acme", ""])
def test_a_name_that_no_submission_could_say_is_a_fault(name: str) -> None:
    with pytest.raises(ModuleFaultsError):
        read_declared(name, msgspec.json.encode(DECLARED))


def test_no_more_leads_are_in_hand_than_there_are_places_or_the_module_allows() -> None:
    assert with_places([], 4) == [ConcurrentLimit(4)]
    assert with_places([ConcurrentLimit(2)], 4) == [ConcurrentLimit(2)]
    assert with_places([ConcurrentLimit(20)], 4) == [ConcurrentLimit(4)]
