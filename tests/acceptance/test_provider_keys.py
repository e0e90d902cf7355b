"""A teamspace with a key of its own at a provider has an account of its own: nothing that befalls one touches another.

The oracle is the provider's log, which notes the key that each call came with.
"""

import json
import subprocess
from collections import Counter
from typing import Final

import pytest

from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, JobReason, Refused
from leadline_protocol.ids import JobId
from leadline_protocol.testing import find_command
from tests.acceptance.stage import Stage, World, openai, people, provider, stage
from tests.world import behaviours
from tests.world.behaviours import Behaviour, Now, Plan, Request, Throttle, json_plan
from tests.world.log import Call
from tests.world.servers import Served

SHARED: Final = "canary-shared-key"
OWN: Final = "canary-own-key"
NEW: Final = "canary-new-key"


class NotesKeys:
    """Notes the key of each call."""

    def __init__(self, inner: Behaviour) -> None:
        self._inner = inner

    def respond(self, request: Request, now: Now) -> Plan:
        """The inner answer."""
        plan = self._inner.respond(request, now)
        return json_plan(
            json.loads(plan.body), status=plan.status, outcome=plan.outcome, notes={"key": request.credential or ""}
        )


class Throttles:
    """Throws back whoever comes with this key."""

    def __init__(self, inner: Behaviour, key: str) -> None:
        self._inner = inner
        self._key = key

    def respond(self, request: Request, now: Now) -> Plan:
        """The refusal, or the inner answer."""
        if request.credential == self._key:
            return Throttle("none").plan(0, now)
        return self._inner.respond(request, now)


def window(amount: int) -> str:
    return f'limits = [{{ shape = "window", amount = {amount}, per_seconds = 60 }}]'


def with_own_key(name: str, served: Served, *, limits: str = "", key: str = OWN, own: str = "") -> str:
    """A provider whose shared key has these limits, and at which acme has a key of its own."""
    shared = [f'secret = "{SHARED}"', *([limits] if limits else [])]
    return provider(name, served, settings=[*shared, f"[providers.{name}.own.acme]", f'secret = "{key}"', own])


def submit(daemon: Stage, teamspace: str, module: str, leads: int) -> JobId:
    daemon.table(teamspace, "people", people(leads, domain=f"{teamspace}.example"))
    return daemon.submit(wire.Enrich(teamspace=teamspace, table="people", module=module, into={"company": "text"})).job


def by_key(calls: list[Call]) -> Counter[object]:
    return Counter(call.notes["key"] for call in calls)


def test_each_key_has_its_limits_and_its_teamspaces(world: World) -> None:
    served = world.serve(NotesKeys(behaviours.Enrichment()), name="keys")
    with stage(with_own_key("keys", served, limits=window(3), own=window(5))) as daemon:
        acme, other, third = (submit(daemon, each, "keys", 8) for each in ("acme", "other", "third"))
        for job, done in ((acme, 5), (other, 3)):
            daemon.until(job, lambda view, done=done: view.counts.done == done and bool(view.waits))  # type: ignore[misc]
        world.until(served, lambda calls: len(calls) == 8)
        assert by_key(served.calls) == {SHARED: 3, OWN: 5}
        assert {call.notes["key"] for call in served.calls if "acme.example" in str(call.lead)} == {OWN}
        views = {view.provider: view for view in daemon.ask(wire.Providers()).providers}
        assert [views[name].limits[0].charged for name in ("keys", "keys@acme")] == [3, 5]
        assert [views[name].limits[0].amount for name in ("keys", "keys@acme")] == [3, 5]
        (wait,) = daemon.until(acme, lambda view: bool(view.waits)).waits
        assert wait.numbers["provider"] == "keys@acme"
        assert "shared" not in (wait.message or "")
        (wait,) = daemon.until(third, lambda view: bool(view.waits)).waits
        assert "shared by everyone" in (wait.message or "")


@pytest.mark.parametrize("refused", [SHARED, OWN])
def test_a_refused_key_fails_the_jobs_of_that_key_and_no_other(world: World, refused: str) -> None:
    right = ({SHARED, OWN} - {refused}).pop()
    served = world.serve(NotesKeys(behaviours.Authorized(behaviours.Enrichment(), right)), name=f"refuses_{refused}")
    with stage(with_own_key("keys", served)) as daemon:
        jobs = {SHARED: submit(daemon, "other", "keys", 8), OWN: submit(daemon, "acme", "keys", 8)}
        ends = {key: daemon.ended(job) for key, job in jobs.items()}
        assert (ends[refused].state, ends[refused].reason) == ("failed", JobReason.INVALID_KEY)
        assert (ends[right].state, ends[right].counts.done) == ("completed", 8)
        states = {view.provider: view.state for view in daemon.ask(wire.Providers()).providers}
        parked, open_ = ("keys", "keys@acme") if refused == SHARED else ("keys@acme", "keys")
        assert (states[parked], states[open_]) == ("parked", "open")


def test_a_throttled_or_paused_key_stops_nobody_who_has_another(world: World) -> None:
    served = world.serve(NotesKeys(Throttles(behaviours.Enrichment(), OWN)), name="throttles")
    with stage(with_own_key("keys", served)) as daemon:
        acme = submit(daemon, "acme", "keys", 8)
        daemon.until(acme, lambda view: JobReason.CIRCUIT in {wait.reason for wait in view.waits})
        assert daemon.ended(submit(daemon, "other", "keys", 8)).counts.done == 8
        assert len([call for call in served.calls if call.notes["key"] == SHARED]) == 8
        daemon.ask(wire.Pause(scope="provider", name="keys@acme"))
        assert daemon.ended(submit(daemon, "third", "keys", 8)).counts.done == 8
        states = {view.provider: view.state for view in daemon.ask(wire.Providers()).providers}
        assert (states["keys"], states["keys@acme"]) == ("open", "paused")


def test_nobody_can_name_anothers_key_and_nobody_sees_one(world: World) -> None:
    served = world.serve(NotesKeys(behaviours.Enrichment()), name="secret")
    model = world.serve(NotesKeys(behaviours.ChatCompletions()), name="model")
    own_model = f'[providers.openai.own.acme]\nsecret = "{NEW}"\n'
    with stage(with_own_key("keys", served) + openai(model) + own_model) as daemon:
        daemon.table("other", "people", people(2))
        stranger = wire.Enrich(teamspace="other", table="people", module="keys@acme", into={"company": "text"})
        with pytest.raises(Refused) as refused:
            daemon.submit(stranger)
        assert refused.value.code is ErrorCode.UNKNOWN_MODULE
        assert "acme" not in refused.value.message.replace("keys@acme;", "")
        prompt = wire.Enrich(
            teamspace="other",
            table="people",
            module="ai_prompt",
            into={"score": "number"},
            params={"prompt": "Score {{email}}", "provider": "openai@acme"},
        )
        with pytest.raises(Refused):
            daemon.submit(prompt)
        job = submit(daemon, "acme", "keys", 2)
        daemon.ended(job)
        own_prompt = wire.Enrich(
            teamspace="acme",
            table="people",
            module="ai_prompt",
            into={"score": "number"},
            params={"prompt": "Score {{email}}"},
        )
        daemon.ended(daemon.submit(own_prompt).job)
        assert by_key(model.calls) == {NEW: 2}
        said = [daemon.log.read_text(encoding="utf-8")]
        asked = (("providers", "--json"), ("job", str(job), "--history"))
        said += [daemon.leadline(*arguments).stdout for arguments in asked]
        shown = [*find_command(), "config", "show", "--config", str(daemon.configuration)]
        said.append(subprocess.run(shown, capture_output=True, text=True, check=True).stdout)
        said.append(str(daemon.query("SELECT array_agg(call::text) FROM call")))
        assert not [text for text in said if "canary" in text]
        assert all(said), "there was something to look through"


def test_a_key_that_is_renewed_counts_from_the_next_call_of_a_job_that_runs(world: World) -> None:
    served = world.serve(
        NotesKeys(behaviours.Delayed(behaviours.Enrichment(), median_us=20_000, sigma=0.0)), name="renewed"
    )
    few = 'limits = [{ shape = "concurrent", amount = 1 }]'
    with stage(with_own_key("keys", served, own=few)) as daemon:
        job = submit(daemon, "acme", "keys", 60)
        world.until(served, lambda calls: len(calls) >= 5)
        daemon.reconfigure(with_own_key("keys", served, key=NEW, own=few))
        daemon.ask(wire.Reload())
        at_reload = len(served.calls)
        assert daemon.ended(job).counts.done == 60
        keys = [call.notes["key"] for call in served.calls]
        assert keys[0] == OWN
        assert set(keys[at_reload + 1 :]) == {NEW}
        assert daemon.view(job).attempt == 1
