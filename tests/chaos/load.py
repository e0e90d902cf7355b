"""Whoever works with the daemon while it is attacked, and what they wrote down.

Each client is a thread that does one thing over and over: submits and counts receipts, sends again what it lost, has a
chain worked through, cancels, pauses. They stop when told to, having finished what they had begun; what they wrote down
is for the oracles. A refusal is fine, if it is one that says "later"; anything else that a client did not ask for is
noted as strange.
"""

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from tests.chaos.ground import Ground
from tests.chaos.wire import Answered, Document, Lost, Outcome, Refused, ask, exchange, hang_up
from tests.world.log import Call, read_clocks

PASSING: Final = frozenset({"unavailable", "busy"})
GONE: Final = "gone"
"""What the daemon says of a job that it had acknowledged, and does not know."""
ENDED: Final = frozenset({"completed", "partial", "failed", "cancelled", "skipped", GONE})
LOOK_SECONDS: Final = 0.1
SHORT_SECONDS: Final = (0.5, 1.5)
LONG_SECONDS: Final = (6.0, 8.0)
"""How long somebody pauses something; in a long pause a daemon that has forgotten it would be well at work again."""


class Chain(msgspec.Struct):
    """A chain that somebody submitted: upload, formula, enrichment, scores, export."""

    teamspace: str
    number: int
    key: str
    emails: list[str]
    service: str
    job: int | None = None
    steps: list[int] = []
    to_cancel: bool = False
    """Whether somebody has asked for its cancel; he may not have heard the answer."""
    state: str | None = None
    """Its last state, where that was seen."""
    story: str = ""
    """What its steps said, where it ended badly."""

    @property
    def table(self) -> str:
        """Each chain makes a table of its own."""
        return f"table{self.number}"

    @property
    def export(self) -> str:
        """The name of the file that its last step writes."""
        return f"{self.teamspace}-{self.number}.csv"


class Quiet(msgspec.Struct, frozen=True):
    """A time in which nothing may be asked: after a pause was acknowledged and until it was taken back, or for ever
    after a cancel.
    """

    why: str
    service: str | None
    """None: any."""
    emails: frozenset[str] | None
    """None: all."""
    from_us: int
    until_us: int | None


class Diary(msgspec.Struct):
    """What all clients wrote down."""

    unkeyed: set[int] = set()
    """Jobs of receipts for noops without a key."""
    unkeyed_lost: int = 0
    """Noops sent of which nothing was heard."""
    keyed: dict[str, set[int]] = {}
    """Jobs of receipts by key."""
    keys_sent: set[str] = set()
    lost_on_purpose: int = 0
    chains: list[Chain] = []
    quiets: list[Quiet] = []
    releases: int = 0
    """Jobs that were let go from quarantine."""
    refusals: Counter[str] = msgspec.field(default_factory=Counter)
    strange: set[str] = set()
    """What should not have been answered."""


class Client(threading.Thread):
    """One of them."""

    def __init__(self, name: str, ground: Ground, diary: Diary, seed: int) -> None:
        super().__init__(name=name, daemon=True)
        self._ground = ground
        self._diary = diary
        self._chance = random.Random(f"{seed} {name}")
        self._over = threading.Event()
        self.rounds = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        """Until told to stop."""
        try:
            while not self._over.is_set():
                self._round()
                self.rounds += 1
        except BaseException as error:
            self.failure = error

    def stop(self) -> None:
        """Begin nothing more."""
        self._over.set()

    def _round(self) -> None:
        raise NotImplementedError

    def _pause(self, low: float, high: float) -> None:
        self._over.wait(self._chance.uniform(low, high))

    def _ask(self, request: Document) -> Outcome:
        outcome = ask(self._ground.control, request)
        self._judge(request, outcome)
        return outcome

    def _judge(self, request: Document, outcome: Outcome, *, expected: Sequence[str] = ()) -> None:
        if isinstance(outcome, Refused):
            self._diary.refusals[outcome.code] += 1
            if outcome.code not in PASSING and outcome.code not in expected:
                self._diary.strange.add(f"{self.name}: {outcome.code} ({outcome.message}) for {request}")

    def _insist(self, request: Document) -> Document:
        """Ask until it was carried out; what is asked may be done twice."""
        while True:
            outcome = self._ask(request)
            if isinstance(outcome, Answered):
                return outcome.reply
            time.sleep(0.1)


class Unkeyed(Client):
    """Submits noops in handfuls, and does not send again what it hears nothing of."""

    def _round(self) -> None:
        requests: list[Document] = [{"kind": "noop", "teamspace": "plain"}] * self._chance.randint(1, 20)
        for outcome in exchange(self._ground.control, requests):
            self._judge(requests[0], outcome)
            match outcome:
                case Answered(reply=reply):
                    if reply["job"] in self._diary.unkeyed:
                        self._diary.strange.add(f"two receipts for job {reply['job']}")
                    self._diary.unkeyed.add(reply["job"])
                case Lost():
                    self._diary.unkeyed_lost += 1
                case _:
                    pass
        self._pause(0.01, 0.05)


class Keyed(Client):
    """Submits noops under keys until there is a receipt, loses some on purpose, and comes back to old keys."""

    def _round(self) -> None:
        key = f"key-{len(self._diary.keys_sent)}"
        self._diary.keys_sent.add(key)
        request = self._request(key)
        lost = 0
        while self._chance.random() < 0.3 and lost < 3:
            lost += isinstance(hang_up(self._ground.control, request), Lost)
        self._diary.lost_on_purpose += lost
        self._submit(key)
        if self._chance.random() < 0.3:
            self._again(self._chance.choice(sorted(self._diary.keyed)))
        if self._chance.random() < 0.2:
            self._contradict(self._chance.choice(sorted(self._diary.keyed)))
        self._pause(0.01, 0.05)

    def _request(self, key: str) -> Document:
        return {"kind": "noop", "teamspace": "keyed", "idempotency_key": key}

    def _submit(self, key: str) -> None:
        receipt = self._insist(self._request(key))
        self._diary.keyed.setdefault(key, set()).add(receipt["job"])

    def _again(self, key: str) -> None:
        receipt = self._insist(self._request(key))
        self._diary.keyed[key].add(receipt["job"])
        if not receipt.get("duplicate"):
            self._diary.strange.add(f"the receipt for {key}, which had one, does not say duplicate")

    def _contradict(self, key: str) -> None:
        request = self._request(key) | {"priority_seconds": 7}
        outcome = ask(self._ground.control, request)
        self._judge(request, outcome, expected=("conflict",))
        if isinstance(outcome, Answered):
            self._diary.strange.add(f"another body under {key} was accepted")


class Worker(Client):
    """Has chains worked through, one after the other."""

    leads = 24
    service = "company"

    def _round(self) -> None:
        chain = self._begin()
        self._follow(chain)

    def _begin(self) -> Chain:
        teamspace = self.name
        number = self.rounds
        emails = [f"lead{n}@{teamspace}-{number}.example" for n in range(self.leads)]
        chain = Chain(teamspace, number, f"chain-{number}", emails, self.service)
        self._diary.chains.append(chain)
        request = self._request(chain)
        while chain.job is None:
            if self._put(chain):
                outcome = self._ask(request)
                if isinstance(outcome, Answered):
                    chain.job, chain.steps = outcome.reply["job"], outcome.reply["steps"]
                    break
            time.sleep(0.1)
        return chain

    def _put(self, chain: Chain) -> bool:
        """Lay the file down where uploads are taken from, as durably as a client can."""
        rows = "".join(f"{email},{n}\n" for n, email in enumerate(chain.emails))
        try:
            file = os.open(self._ground.state / "incoming" / chain.export, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        except OSError:
            return False
        try:
            os.write(file, f"email,n\n{rows}".encode())
            os.fsync(file)
        except OSError:
            return False
        finally:
            os.close(file)
        return True

    def _request(self, chain: Chain) -> Document:
        table = chain.table
        return {
            "kind": "chain",
            "teamspace": chain.teamspace,
            "idempotency_key": chain.key,
            "steps": [
                {"kind": "upload", "table": table, "path": chain.export},
                {"kind": "formula", "table": table, "into": {"twice": "number"}, "expression": "n * 2"},
                {
                    "kind": "enrich",
                    "table": table,
                    "module": chain.service,
                    "into": {"company": "text", "country": "text"},
                },
                {
                    "kind": "enrich",
                    "table": table,
                    "module": "ai_prompt",
                    "into": {"score": "number"},
                    "params": {"prompt": "Score this lead, only the number: {{email}}"},
                },
                {"kind": "export", "table": table, "path": chain.export},
            ],
        }

    def _follow(self, chain: Chain) -> None:
        """Look again and again until it has ended."""
        while chain.state not in ENDED:
            self._look(chain)
            self._release()
            time.sleep(LOOK_SECONDS)

    def _release(self) -> None:
        """Let go what is quarantined, as a person would: it was at work when we killed the daemon, three times."""
        outcome = self._ask({"op": "jobs", "teamspace": self.name, "state": "queued"})
        if isinstance(outcome, Answered):
            for view in outcome.reply["jobs"]:
                if any(wait["reason"] == "quarantined" for wait in view.get("waits", ())):
                    released = self._ask({"op": "resume", "scope": "job", "name": view["job"]})
                    self._diary.releases += isinstance(released, Answered)

    def _look(self, chain: Chain) -> None:
        outcome = self._ask({"op": "job", "job": chain.job})
        if isinstance(outcome, Refused) and outcome.code == "not_found":
            chain.state = GONE
        if isinstance(outcome, Answered):
            view = outcome.reply["view"]
            counts = view["counts"]
            if sum(counts.values()) != 2 * counts["total"] or min(counts.values()) < 0:
                self._diary.strange.add(f"{chain.key} of {chain.teamspace} counts {counts}")
            chain.state = view["state"]
            if chain.state in {"failed", "partial"}:
                chain.story = "; ".join(self._told(step) for step in chain.steps)

    def _told(self, step: int) -> str:
        view = self._insist({"op": "job", "job": step})["view"]
        return f"{view['kind']} {view['state']}: {view.get('message')}"

    def _asked(self, chain: Chain) -> list[Call]:
        emails = set(chain.emails)
        return [call for calls in self._ground.outside.calls().values() for call in calls if call.lead in emails]


class PollingWorker(Worker):
    """The same with a provider that has to be polled."""

    leads = 16
    service = "register"


class Fickle(Worker):
    """Cancels what it had begun, at a random moment."""

    leads = 40

    def _follow(self, chain: Chain) -> None:
        wanted = self._chance.choice([0, 1, 5, 20, 41, 50])
        while chain.state not in ENDED and len(self._asked(chain)) < wanted:
            self._look(chain)
            self._release()
            time.sleep(LOOK_SECONDS)
        request = {"op": "cancel", "job": chain.job}
        chain.to_cancel = True
        outcome: Outcome = Lost()
        while not isinstance(outcome, Answered) and chain.state not in ENDED:
            outcome = ask(self._ground.control, request)
            self._judge(request, outcome, expected=("bad_state",))
            if isinstance(outcome, Answered):
                acknowledged = read_clocks().instant
                self._diary.quiets.append(
                    Quiet(f"cancel of job {chain.job}", None, frozenset(chain.emails), acknowledged, None)
                )
            else:
                self._look(chain)
                time.sleep(LOOK_SECONDS)
        super()._follow(chain)


class Halting(Worker):
    """Pauses while it works: its own teamspace, its job, or a provider that everybody uses."""

    leads = 40

    def _follow(self, chain: Chain) -> None:
        while chain.state not in ENDED:
            if len(self._asked(chain)) >= 3 and not self._over.is_set():
                self._halt(chain)
            self._look(chain)
            self._release()
            self._pause(0.3, 1.5) if not self._over.is_set() else time.sleep(LOOK_SECONDS)

    def _halt(self, chain: Chain) -> None:
        scope: Literal["teamspace", "job", "provider"] = self._chance.choice(["teamspace", "job", "provider"])
        name = {"teamspace": chain.teamspace, "job": chain.steps[2], "provider": "model"}[scope]
        emails = None if scope == "provider" else frozenset(chain.emails)
        service = {"provider": "model", "job": "company", "teamspace": None}[scope]
        outcome: Outcome = Lost()
        while not isinstance(outcome, Answered):
            request = {"op": "pause", "scope": scope, "name": name}
            outcome = ask(self._ground.control, request)
            self._judge(request, outcome, expected=("bad_state", "not_found"))
            if isinstance(outcome, Refused) and outcome.code not in PASSING:
                return  # that step has ended
            time.sleep(0.02)
        begun = read_clocks().instant
        self._pause(*self._chance.choice([SHORT_SECONDS, SHORT_SECONDS, LONG_SECONDS]))
        ended = read_clocks().instant
        self._diary.quiets.append(Quiet(f"pause of {scope} {name}", service, emails, begun, ended))
        self._resume(scope, name)

    def _resume(self, scope: str, name: object) -> None:
        request = {"op": "resume", "scope": scope, "name": name}
        while True:
            outcome = ask(self._ground.control, request)
            self._judge(request, outcome, expected=("bad_state", "not_found"))
            if isinstance(outcome, Answered) or (isinstance(outcome, Refused) and outcome.code not in PASSING):
                return
            time.sleep(0.1)


class Load:
    """All of them together."""

    def __init__(self, ground: Ground, seed: int) -> None:
        self.diary: Final = Diary()
        self._ground = ground
        kinds: dict[str, type[Client]] = {
            "plain": Unkeyed,
            "keyed": Keyed,
            "acme": Worker,
            "bolt": Worker,
            "crux": PollingWorker,
            "fickle": Fickle,
            "halting": Halting,
        }
        self.clients: Final = [kind(name, ground, self.diary, seed) for name, kind in kinds.items()]

    def start(self) -> None:
        """Begin, and return when everything is under way: receipts, and calls at each provider."""
        for client in self.clients:
            client.start()
        deadline = time.monotonic() + 30
        while not self.diary.unkeyed or not self.diary.keyed or not all(self._ground.outside.calls().values()):
            self.check()
            assert time.monotonic() < deadline, "the load did not get under way"
            time.sleep(0.05)

    def check(self) -> None:
        """Raises what ended a client."""
        for client in self.clients:
            if client.failure is not None:
                raise client.failure

    def stop(self) -> None:
        """Begin nothing more."""
        for client in self.clients:
            client.stop()

    def is_over(self) -> bool:
        """Whether everybody has finished what he had begun."""
        self.check()
        return not any(client.is_alive() for client in self.clients)

    def left(self) -> list[Chain]:
        """Chains that have not been seen to end."""
        return [chain for chain in self.diary.chains if chain.state not in ENDED]
