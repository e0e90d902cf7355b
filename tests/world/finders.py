"""Three finders of e-mail addresses, each in its own words: Hunter, Findymail and Prospeo as their presets know them.

Each knows a part of mankind, decided by a hash, so that a test can tell beforehand who will find whom. What a finder
charges for is in the notes of its log (`credits`): that is its own bill, which the books of a customer have to match.
"""

from collections.abc import Callable

from tests.world.behaviours import Now, Plan, Request, json_plan, number_of

Known = Callable[[str], bool]
"""Whether a finder knows the person of this address."""


def address(first_name: str, last_name: str, domain: str) -> str:
    """The address of a person, about which all finders agree."""
    return f"{first_name}.{last_name}@{domain}".lower()


def knows(finder: str, percent: int) -> Known:
    """Knows so many of a hundred."""
    return lambda email: number_of("knows", finder, email) % 100 < percent


class Hunter:
    """Answers with `email: null` where it knows nobody."""

    def __init__(self, known: Known) -> None:
        self._known = known

    def respond(self, request: Request, now: Now) -> Plan:
        """The address, at one credit; a miss is free."""
        query = request.query
        email = address(query["first_name"], query["last_name"], query["domain"])
        if not self._known(email):
            return json_plan({"data": {"email": None, "score": None}}, outcome="miss", lead=email)
        return json_plan({"data": {"email": email, "score": 97}}, outcome="found", lead=email, notes={"credits": 1})


class Findymail:
    """Says in a 200 that the balance is used up."""

    def __init__(self, known: Known, *, credits_left: int = 1_000_000) -> None:
        self._known, self._left = known, credits_left

    def respond(self, request: Request, now: Now) -> Plan:
        """The address, at one credit; a miss is free."""
        first_name, _, last_name = str(request.document["name"]).partition(" ")
        email = address(first_name, last_name, str(request.document["domain"]))
        if self._left <= 0:
            return json_plan({"error": "Not enough credits"}, outcome="quota", lead=email)
        if not self._known(email):
            return json_plan({"error": "not found"}, status=404, outcome="miss", lead=email)
        self._left -= 1
        return json_plan({"contact": {"email": email}}, outcome="found", lead=email, notes={"credits": 1})


class Prospeo:
    """Knows companies, not domains; here a company's domain is its name."""

    def __init__(self, known: Known) -> None:
        self._known = known

    def respond(self, request: Request, now: Now) -> Plan:
        """The address, at one credit; a miss is free."""
        asked = request.document["data"]
        assert isinstance(asked, dict)
        email = address(str(asked["first_name"]), str(asked["last_name"]), f"{asked['company_name']}.example")
        if not self._known(email):
            return json_plan({"error": True, "error_code": "NO_MATCH"}, status=400, outcome="miss", lead=email)
        person = {"email": {"email": email}, "current_job_title": "Engineer"}
        return json_plan({"error": False, "person": person}, outcome="found", lead=email, notes={"credits": 1})
