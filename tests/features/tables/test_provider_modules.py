"""Provider modules as data: judged as a whole, each fault with its path; the presets that come along."""

import tomllib
from importlib.resources import files

import jmespath
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadline.core.rate_limit import Cost, Unit, WindowLimit
from leadline.features.tables.provider_modules import (
    ModuleFaultsError,
    preset,
    preset_names,
    read_module,
    selected,
)

SYNC = """
name = "plain"
base_url = "http://127.0.0.1:8080"
inputs = ["email"]
[request]
path = "/v1/enrich/{{email}}"
[response.columns]
company = { select = "data.company" }
size = { select = "data.size", type = "number" }
"""

POLL = """
name = "slow"
base_url = "https://slow.example"
mode = "poll"
inputs = ["email"]
[request]
path = "/start"
body = { email = "{{email}}" }
[poll]
task = "task_hash"
pending = [{ select = "status", equals = "in_progress" }]
[poll.request]
method = "GET"
path = "/result"
query = { task_hash = "{{task}}" }
[response.columns]
company = { select = "data.company" }
"""


def faults(text: str) -> dict[str, str]:
    with pytest.raises(ModuleFaultsError) as caught:
        read_module(text, file="m.toml")
    assert str(caught.value).startswith("m.toml:")
    return {fault.path: fault.message for fault in caught.value.faults}


def test_a_module_that_says_little_gets_the_usual_rest() -> None:
    module = read_module(SYNC, file="m.toml")
    assert module.mode == "sync"
    assert module.cost == Cost(request=1, lead=1)
    assert module.ambiguous == "retry_once"
    assert module.call_timeout_seconds == 60
    assert module.outputs["size"].column("size").type == "number"
    assert read_module(POLL, file="m.toml").poll is not None


def test_what_is_not_toml_says_where() -> None:
    assert "line 2" in faults("name = 'x'\n= 3")[""]


def test_all_faults_are_told_at_once_each_with_its_path() -> None:
    found = faults(
        """
name = "Bad Name"
base_url = "ftp://x"
surprise = 1
charge_on = "never"
limits = [
    { shape = "window", amount = 0, per_seconds = 60.0 },
    { shape = "window", amount = 1, per_seconds = 1.0 },
    { shape = "cone" },
]
throttled = [{ status = 42 }]
auth = { kind = "magic" }
[request]
method = "BREW"
[response.columns]
a = { select = "[[", type = "float" }
B = { select = "b" }
"""
    )
    assert set(found) == {
        "name",
        "base_url",
        "surprise",
        "charge_on",
        "limits[0].amount",
        "limits[2].shape",
        "throttled[0].status",
        "auth.kind",
        "request.method",
        "request.path",
        "response.columns.a.select",
        "response.columns.a.type",
        "response.columns.B",
    }


def test_each_fault_names_its_line() -> None:
    with pytest.raises(ModuleFaultsError) as caught:
        read_module(SYNC.replace('["email"]', '["mail"]\nsurprise = 1'), file="m.toml")
    assert str(caught.value).startswith("m.toml:5: surprise: there is no such key")
    with pytest.raises(ModuleFaultsError) as caught:
        read_module(SYNC.replace('["email"]', '["mail"]'), file="m.toml")
    assert str(caught.value).splitlines() == [
        "m.toml:6: request.path: there is no input or setting 'email'",
        "m.toml:4: inputs[0]: 'mail' is nowhere in the request",
    ]


@pytest.mark.parametrize(
    ("change", "path", "says"),
    [
        (("[request]", "[chat]\nmodel = 'm'\n[request]"), "request", "cannot stand beside chat"),
        (('path = "/v1/enrich/{{email}}"', 'path = "/x"'), "inputs[0]", "nowhere in the request"),
        (("{{email}}", "{{mail}}"), "request.path", "there is no input or setting 'mail'"),
        (("{{email}}", "{{email}}/{{email"), "request.path", "not closed"),
        (('["email"]', '["email"]\noptional_inputs = ["email"]'), "optional_inputs", "also among inputs"),
        (('["email"]', '["email"]\nmode = "poll"'), "poll", "mode = 'poll'"),
        (('["email"]', '["email"]\nmode = "bulk"'), "bulk", "mode = 'bulk'"),
        (('["email"]', '["email"]\nambiguous = "reuse_id"'), "id_header", "reuse_id"),
        (('["email"]', '["email"]\nthrottled = [{}]'), "throttled[0]", "status or a select"),
        (('["email"]', '["email"]\nnot_found = [{ status = 404, equals = 1 }]'), "not_found[0]", "without select"),
        (('["email"]', '["email"]\nhints = [{}]'), "hints[0]", "header or a select"),
        (
            ("[request]", "[request]\nheaders = { Content-Length = '7' }"),
            "request.headers.Content-Length",
            "where a request ends",
        ),
    ],
)
def test_what_contradicts_itself_is_a_fault(change: tuple[str, str], path: str, says: str) -> None:
    found = faults(SYNC.replace(*change, 1))
    assert says in found[path]


def test_pages_are_asked_for_by_their_name_and_end_somewhere() -> None:
    paging = '[response.paging]\nitems = "data"\n'
    assert set(faults(SYNC + paging)) == {"response.paging", "request"}
    assert set(faults(SYNC + paging + 'next = "a"\ncount = "b"')) == {"response.paging", "request"}
    assert set(faults(POLL + paging + 'next = "a"')) == {"response.paging", "request"}
    assert "response.paging.pages_max" in faults(SYNC + paging + "pages_max = 0")
    asked = SYNC.replace("[request]", '[request]\nquery = { page = "{{page}}" }')
    assert read_module(asked + paging + 'count = "pages"', file="m.toml").response is not None


def test_a_poll_must_say_which_task_it_asks_for() -> None:
    assert set(faults(POLL.replace("{{task}}", "x"))) == {"poll.request"}


def test_the_lead_cannot_choose_the_host() -> None:
    assert "base_url" in faults(SYNC.replace("127.0.0.1:8080", "{{email}}@x?"))
    assert "request.path" in faults(SYNC.replace('"/v1', '"v1'))


def test_every_preset_is_a_module_of_its_own_name_and_says_where_it_is_from() -> None:
    assert {"snov", "openai", "hunter", "findymail"} <= set(preset_names())
    for name in preset_names():
        module = preset(name)
        assert module.name == name
        assert module.title
        assert module.source
        assert module.checked
        assert module.limits
        assert module.base_url.startswith("https://")
        text = files("leadline.features.tables").joinpath("providers", f"{name}.toml").read_text()
        assert set(tomllib.loads(text)) <= set(module.__struct_fields__)


def test_snov_binds_leads_and_requests_at_once() -> None:
    assert preset("snov").limits == [WindowLimit(60, 60.0), WindowLimit(15, 60.0, Unit.LEAD)]
    poll = preset("snov").poll
    assert poll is not None
    assert (preset("snov").cost, poll.cost) == (Cost(request=1, lead=1), Cost(request=1))


def test_there_is_no_preset_of_another_name() -> None:
    with pytest.raises(KeyError):
        preset("../snov")


NAMES = st.sampled_from(["a", "b", "_c1", "true", "null"])


@given(
    st.lists(NAMES, min_size=1, max_size=3).map(".".join),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=3),
    ),
)
def test_a_way_from_object_to_object_finds_what_jmespath_finds(selector: str, document: object) -> None:
    assert selected(selector, document) == jmespath.search(selector, document)
