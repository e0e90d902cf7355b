"""Bulk orders without anything around them: what is sent, what it costs, and whose result is whose."""

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from leadline.core.rate_limit import Cost
from leadline.features.tables import responses
from leadline.features.tables.asking import Endpoint
from leadline.features.tables.bulk import Delivery, OrderAsker, bulk_of, order_cost, orders_cost, records_of
from leadline.features.tables.columns import Cells
from leadline.features.tables.lead_course import Ask, Course
from leadline.features.tables.provider_modules import ModuleFaultsError, ProviderModule, read_module
from leadline.features.tables.requests import Access
from leadline.ports.provider_client import Response
from leadline_protocol.ids import AccountName, Instant, LeadId

TEXT = """
name = "bulk"
base_url = "https://bulk.example"
mode = "bulk"
inputs = ["email"]
optional_inputs = ["company"]
cost = { job = 1, record = 2, lead = 1 }
[settings]
list = "prospects"
[request]
path = "/jobs"
body = { name = "{{settings.list}}", records = "{{records}}" }
[bulk]
records_max = 3
record = { ref = "{{record}}", email = "{{email}}", company = "{{company}}" }
[bulk.results]
items = "results"
key = "ref"
cost = { request = 1 }
failed = [{ select = "error" }]
paging = { next = "next" }
[bulk.results.request]
method = "GET"
path = "/jobs/{{task}}/results"
query = { after = "{{page}}" }
[poll]
task = "id"
pending = [{ select = "state", equals = "running" }]
cost = { request = 2 }
[poll.request]
method = "GET"
path = "/jobs/{{task}}"
[response.columns]
domain = { select = "found.domain" }
"""

ACCESS = Access("https://bulk.example", "key", {"list": "prospects"}, 60.0)
LEADS: list[tuple[LeadId, Cells]] = [(LeadId(n), {"email": f"{n}@a.example"}) for n in (7, 8, 9)]


def module(*changes: tuple[str, str]) -> ProviderModule:
    text = TEXT
    for before, after in changes:
        assert before in text
        text = text.replace(before, after, 1)
    return read_module(text, file="m.toml")


def asker(task: str | None = None) -> OrderAsker:
    return OrderAsker(Endpoint(AccountName("bulk"), module(), ACCESS), LEADS, Course("hold", task=task))


def verdict(ask: Ask, document: object, of: ProviderModule | None = None, pages_read: int = 0) -> responses.Verdict:
    endpoint = Endpoint(AccountName("bulk"), of or module(), ACCESS)
    response = Response(200, {}, msgspec.json.encode(document))
    return OrderAsker(endpoint, LEADS, Course("hold")).verdict(ask, response, Instant(0), pages_read)


def test_an_order_lists_its_leads_and_leaves_out_what_they_lack() -> None:
    request = asker().request(Ask("start"), ACCESS, "1")
    assert (request.method, request.url) == ("POST", "https://bulk.example/jobs")
    assert msgspec.json.decode(request.body) == {
        "name": "prospects",
        "records": [{"ref": str(lead), "email": cells["email"]} for lead, cells in LEADS],
    }


def test_a_lead_may_be_a_list_and_its_key_an_input() -> None:
    of = module(
        ('{ ref = "{{record}}", email = "{{email}}", company = "{{company}}" }', '["{{email}}"]\nkey = "{{email}}"')
    )
    records, keys = records_of(of, ACCESS, LEADS)
    assert records == [[cells["email"]] for _, cells in LEADS]
    assert keys == [cells["email"] for _, cells in LEADS]


def test_polls_and_pages_are_asked_for_by_the_task() -> None:
    asking = asker("t 1")
    assert asking.request(Ask("poll"), ACCESS, "2").url == "https://bulk.example/jobs/t%201"
    assert asking.request(Ask("read"), ACCESS, "3").url == "https://bulk.example/jobs/t%201/results"
    assert asking.request(Ask("read", "c2"), ACCESS, "4").url == "https://bulk.example/jobs/t%201/results?after=c2"


def test_an_order_is_one_job_and_each_lead_a_record() -> None:
    assert order_cost(Cost(request=1, job=1, record=2, lead=1), 3) == Cost(request=1, job=1, record=6, lead=3)
    asking = asker("t")
    costs = [asking.cost(ask) for ask in (Ask("start"), Ask("poll"), Ask("read"))]
    assert costs == [Cost(job=1, record=6, lead=3), Cost(request=2), Cost(request=1)]


@pytest.mark.parametrize(("leads", "orders"), [(0, 0), (1, 1), (3, 1), (4, 2), (300, 100)])
def test_so_many_leads_are_as_many_orders_as_it_takes(leads: int, orders: int) -> None:
    assert orders_cost(module(), leads) == Cost(job=orders, record=2 * leads, lead=leads)


def test_an_order_is_taken_worked_on_done_and_read() -> None:
    assert verdict(Ask("start"), {"id": 12}) == responses.Started("12")
    assert verdict(Ask("poll"), {"state": "running"}) == responses.Pending()
    assert verdict(Ask("poll"), {"state": "done"}) == responses.Ready()
    assert verdict(Ask("read"), {"results": [1], "next": "c2"}) == responses.Listed([1], "c2")
    assert verdict(Ask("read"), {"results": [2]}) == responses.Listed([2], None)
    assert isinstance(verdict(Ask("read"), {"results": None}), responses.Failed)


def test_where_there_is_no_request_for_results_they_are_in_the_answer_of_the_poll() -> None:
    plain = module()
    assert plain.bulk is not None
    plain = replace(plain, bulk=replace(plain.bulk, results=replace(plain.bulk.results, request=None, paging=None)))
    assert verdict(Ask("poll"), {"results": [1]}, plain) == responses.Listed([1], None)
    assert verdict(Ask("start"), {"results": [1]}, replace(plain, poll=None)) == responses.Listed([1], None)


@pytest.mark.parametrize(("pages_read", "following"), [(0, "2"), (1, "3"), (2, None), (7, None)])
def test_pages_may_be_numbered(pages_read: int, following: str | None) -> None:
    numbered = module(('next = "next"', 'count = "pages"'))
    page = verdict(Ask("read"), {"results": [], "pages": 3}, numbered, pages_read)
    assert page == responses.Listed([], following)


@pytest.mark.parametrize("next_page", [True, None, "", [], {}, 1.5])
def test_what_names_no_page_is_the_end(next_page: Any) -> None:
    assert verdict(Ask("read"), {"results": [], "next": next_page}) == responses.Listed([], None)


def test_a_provider_that_names_next_pages_for_ever_is_read_so_far_and_no_further() -> None:
    bounded = module(('next = "next"', 'next = "next", pages_max = 2'))
    document = {"results": [], "next": "again"}
    assert verdict(Ask("read"), document, bounded, 0) == responses.Listed([], "again")
    assert verdict(Ask("read"), document, bounded, 1) == responses.Listed([], None)


def test_each_result_goes_to_the_lead_that_it_names_once() -> None:
    leads = [lead for lead, _ in LEADS]
    delivery = Delivery(leads, ["7", "8", "9"], leads[1:])
    bulk = bulk_of(module())
    items: list[Any] = [{"ref": 7}, {"ref": "9 "}, {"ref": "9"}, {"ref": None}, "nonsense", {"ref": "10"}]
    assert delivery.take(bulk, items) == [(LeadId(9), {"ref": "9 "})], "7 has its result already"
    assert list(delivery.missing) == [8]


def test_leads_of_one_key_share_a_result_and_case_is_no_difference() -> None:
    delivery = Delivery([LeadId(1), LeadId(2)], ["Ada@A.example", "ada@a.example"], [LeadId(1), LeadId(2)])
    item: Any = {"ref": "ADA@a.example"}
    assert delivery.take(bulk_of(module()), [item]) == [(LeadId(1), item), (LeadId(2), item)]


def test_without_a_key_results_come_in_the_order_of_the_leads_over_all_pages() -> None:
    bulk = bulk_of(module(('key = "ref"', "")))
    delivery = Delivery([LeadId(1), LeadId(2), LeadId(3)], ["", "", ""], [LeadId(1), LeadId(3)])
    assert delivery.take(bulk, ["a", "b"]) == [(LeadId(1), "a")]
    assert delivery.take(bulk, ["c", "d"]) == [(LeadId(3), "c")]


def test_an_item_is_a_result_a_miss_or_a_failure() -> None:
    of = module()
    assert responses.item_verdict(of, {"found": {"domain": "a.example"}}) == responses.Done({"domain": "a.example"})
    assert responses.item_verdict(of, {"found": None}) == responses.NotFound()
    assert isinstance(responses.item_verdict(of, {"error": "bad address"}), responses.Failed)


@pytest.mark.parametrize(
    ("change", "path", "says"),
    [
        (('mode = "bulk"', 'mode = "poll"'), "bulk", "mode = 'bulk'"),
        (('"{{records}}"', '"x"'), "request", "{{records}}"),
        (('"{{records}}"', '"{{email}}"'), "request.body.records", "there is no input or setting 'email'"),
        (('email = "{{email}}"', 'email = "x"'), "inputs[0]", "nowhere in the request"),
        (('company = "{{company}}"', 'company = "{{city}}"'), "bulk.record", "'city'"),
        (("records_max = 3", 'records_max = 3\nkey = "{{task}}"'), "bulk.key", "'task'"),
        (('after = "{{page}}"', 'after = "x"'), "bulk.results.request", "{{page}}"),
        (('next = "next"', 'next = "next", count = "pages"'), "bulk.results.paging", "either next or count"),
        (('next = "next"', ""), "bulk.results.paging", "either next or count"),
        (('failed = [{ select = "error" }]', "failed = [{}]"), "bulk.results.failed[0]", "status or a select"),
    ],
)
def test_what_contradicts_itself_is_a_fault(change: tuple[str, str], path: str, says: str) -> None:
    with pytest.raises(ModuleFaultsError) as caught:
        module(change)
    found = {fault.path: fault.message for fault in caught.value.faults}
    assert says in found[path]
