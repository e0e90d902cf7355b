"""The services that the sample batch jobs talk to, each as far as it is talked to, with what it was sent."""

from base64 import b64encode
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import msgspec

from tests.world import behaviours
from tests.world.behaviours import SECOND, Fault, Faulty, Hint, Now, Plan, Request, Throttle, json_plan

NOT_FOUND = json_plan({"error": "not found"}, status=404)


class SourceAccount:
    """Leads by their numbers, from 1, in pages."""

    def __init__(self, leads: int) -> None:
        self.leads = leads
        self.pages: list[tuple[int, int]] = []
        """What was asked for: behind which lead, and how many."""

    def respond(self, request: Request, now: Now) -> Plan:
        """A page of leads."""
        after, limit = int(request.query["after"]), int(request.query["limit"])
        self.pages.append((after, limit))
        numbers = range(after + 1, min(after + limit, self.leads) + 1)
        leads = [{"id": n, "email": f"person{n}@source.example", "name": f"Person {n}"} for n in numbers]
        return json_plan({"leads": leads})


class TargetAccount:
    """Takes leads, and knows the newest of an origin. It refuses some, and of some the reply is lost, once."""

    def __init__(self, *, refuses: Collection[int] = (), loses: Collection[int] = ()) -> None:
        self.sent: list[int] = []
        """The leads that it was sent, by their numbers, refused ones among them."""
        self._taken = 0
        self._refuses = refuses
        self._loses = set(loses)

    def respond(self, request: Request, now: Now) -> Plan:
        """What is newest; or what has become of a lead."""
        if request.method == "GET":
            assert request.query == {"origin": "source-account"}
            return json_plan({"external_id": self._taken})
        number = request.document["external_id"]
        assert isinstance(number, int)
        self.sent.append(number)
        if number in self._refuses:
            return json_plan({"error": "bad address"}, status=422)
        self._taken = max(self._taken, number)
        if number in self._loses:
            self._loses.remove(number)
            return behaviours.cut()
        return json_plan({"id": 1000 + number}, status=201)


class Event:
    """An event's guests, in pages of two."""

    def __init__(self, guests: Sequence[Mapping[str, Any]]) -> None:
        self._guests = guests

    def respond(self, request: Request, now: Now) -> Plan:
        """A page of those who have not checked in."""
        assert request.path == "/events/expo-26/guests"
        assert request.query["checked_in"] == "false"
        waited_for = [each for each in self._guests if not each["checked_in"]]
        page = int(request.query["page"])
        following = page + 1 if 2 * page < len(waited_for) else None
        return json_plan({"guests": waited_for[2 * page - 2 : 2 * page], "next": following})


class Gateway:
    """Sends messages to whom it can; once for each hint it is busy, and says so for a second."""

    def __init__(self, busy: Mapping[str, Hint]) -> None:
        """`busy`: how it says so, by the reference at which."""
        self.messages: list[dict[str, object]] = []
        self._busy = dict(busy)

    def respond(self, request: Request, now: Now) -> Plan:
        """What becomes of a message."""
        hint = self._busy.pop(str(request.document["reference"]), None)
        if hint is not None:
            return Throttle(hint).plan(1 * SECOND, now)
        if not str(request.document["to"]).startswith("+"):
            return json_plan({"error": "no such number"}, status=400)
        if request.document["reference"] not in [each["reference"] for each in self.messages]:
            self.messages.append(request.document)
        return json_plan({"sent": True})


class Folder:
    """Files behind a password, and a listing of them as a web server makes it."""

    def __init__(self, files: Mapping[str, bytes], password: str) -> None:
        self._files = files
        self._pass = b64encode(f"leadline:{password}".encode()).decode()

    def respond(self, request: Request, now: Now) -> Plan:
        """The listing, or a file."""
        if request.headers.get("authorization") != f"Basic {self._pass}":
            return Plan(status=401)
        if request.path == "/exports/":
            links = "".join(f'<a href="{name}">{name}</a>\n' for name in ("../", *self._files, "notes.txt"))
            return Plan(headers={"content-type": "text/html"}, body=f"<h1>Index</h1><pre>{links}</pre>".encode())
        content = self._files.get(unquote(request.path).removeprefix("/exports/"))
        return NOT_FOUND if content is None else Plan(headers={"content-type": "text/csv"}, body=content)


class Contacts:
    """Leads by their addresses; of a domain it will have none."""

    def __init__(self) -> None:
        self.leads: dict[str, dict[str, object]] = {}

    def respond(self, request: Request, now: Now) -> Plan:
        """What has become of a lead."""
        email = unquote(request.path).removeprefix("/leads/")
        if email.endswith("@blocked.example"):
            return json_plan({"error": "the domain is blocked"}, status=422)
        self.leads[email] = request.document
        return json_plan({})


class Teamspaces:
    """Leads of several teamspaces, each seen by its own key, in pages of two."""

    def __init__(self, leads: Mapping[str, Sequence[str]]) -> None:
        """`leads`: addresses, by the key of their teamspace."""
        self._leads = leads

    def respond(self, request: Request, now: Now) -> Plan:
        """A page of leads."""
        leads = self._leads.get(request.credential or "")
        if leads is None:
            return json_plan({"error": "who are you?"}, status=401)
        begin = int(request.query.get("cursor") or 0)
        page = [{"email": each} for each in leads[begin : begin + 2]]
        return json_plan({"leads": page, "next": str(begin + 2) if begin + 2 < len(leads) else None})


class Orders:
    """The orders of days."""

    def __init__(self, orders: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        self._orders = orders

    def respond(self, request: Request, now: Now) -> Plan:
        """Those of a day."""
        return json_plan({"orders": self._orders.get(request.query["day"], [])})


class Documents:
    """Keeps documents by their names."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def respond(self, request: Request, now: Now) -> Plan:
        """What has become of a document."""
        if (request.method, request.headers.get("content-type")) != ("PUT", "application/pdf"):
            return json_plan({"error": "not a PDF"}, status=400)
        self.kept[request.path.removeprefix("/documents/")] = request.body
        return Plan(status=204)


class Sink:
    """Takes batches of leads, the last of them after a while; it fails at first, and does a key's work once."""

    def __init__(self, *, failures: int = 0, delay_us: int = 0, slow_below: int = 0) -> None:
        """`slow_below`: a batch of fewer leads takes `delay_us`."""
        self.batches: dict[str, list[dict[str, object]]] = {}
        """What it has taken, by key."""
        self.keys: list[str] = []
        """The key of each call, failed ones among them."""
        self._failing = Faulty(_Nothing(), [Fault(behaviours.server_error(), times=failures)])
        self._delay_us = delay_us
        self._slow_below = slow_below

    def respond(self, request: Request, now: Now) -> Plan:
        """What has become of a batch."""
        key = request.headers["idempotency-key"]
        self.keys.append(key)
        plan = self._failing.respond(request, now)
        if plan.status != 200:
            return plan
        leads = msgspec.json.decode(request.body, type=dict[str, list[dict[str, object]]])["leads"]
        self.batches.setdefault(key, leads)
        return json_plan({}) if len(leads) >= self._slow_below else Plan(delay_us=self._delay_us)


class _Nothing:
    def respond(self, request: Request, now: Now) -> Plan:
        """Success."""
        return json_plan({})
