"""Who there is, what each is allowed, and how much of it waits: names and numbers, limits in force, pending jobs."""

from msgspec import Struct, field

from leadline.core.model import Limits, Rules
from leadline_protocol.ids import TeamspaceId


class Teamspaces(Struct):
    """All teamspaces that the database knows; one that has never submitted anything may have limits all the same."""

    numbers: dict[str, TeamspaceId] = field(default_factory=dict)
    names: dict[TeamspaceId, str] = field(default_factory=dict)
    limits: dict[str, Limits] = field(default_factory=dict)
    """Limits in force of those that have other than the default ones, by name."""
    pending: dict[TeamspaceId, int] = field(default_factory=dict)
    """Jobs that are delayed or queued, a chain counted once: what max_queued bounds. None is 0."""
    last: int = 0

    def know(self, number: TeamspaceId, name: str) -> None:
        """Learn one that the database knows."""
        self.numbers[name] = number
        self.names[number] = name
        self.last = max(self.last, number)

    def create(self, name: str) -> TeamspaceId:
        """Give a new one its number."""
        number = TeamspaceId(self.last + 1)
        self.know(number, name)
        return number

    def limits_for(self, name: str, rules: Rules) -> Limits:
        """The limits in force of the one of that name, known or not."""
        return self.limits.get(name, rules.default_limits) if self.limits else rules.default_limits

    def limits_of(self, teamspace: TeamspaceId, rules: Rules) -> Limits:
        """Its limits in force."""
        return self.limits_for(self.names[teamspace], rules)

    def count(self, teamspace: TeamspaceId, change: int) -> None:
        """So many more jobs of it are pending."""
        pending = self.pending.get(teamspace, 0) + change
        assert pending >= 0, f"{self.names[teamspace]} has {pending} jobs pending"
        if pending:
            self.pending[teamspace] = pending
        else:
            del self.pending[teamspace]
