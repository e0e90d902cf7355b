"""What the demo does, in numbers: read by the run and by the check of the run, which agree on nothing else.

Standard library only: the check runs without Leadline and without its libraries.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """The demo's settings. They are smaller than the defaults where a default would outlast an onlooker's patience."""

    stall_after_seconds: int = 10
    """The default is 300."""
    slot_free_within_seconds: int = 5
    """From the stall's deadline to the end of the calls of the job that stalled."""
    ai_calls_per_minute: int = 3_000
    score_min: int = 7
    """Leads with at least this score get a line."""
    slow_leads_per_minute: int = 15
    slow_requests_per_minute: int = 60
    """Starts and polls together, as at Snov."""
    slow_leads: int = 40

    @property
    def stuck_lead(self) -> str:
        """The lead whose first call hangs. It is one of the last, so that it hangs when nothing else is left to wait
        for.
        """
        return slow_lead(self.slow_leads - 3)


DEMO = DemoPlan()


def slow_lead(number: int) -> str:
    """The address of the slow list's lead, counted from 1."""
    return f"lead{number}@slow{number}.example"


def slow_csv(leads: int = DEMO.slow_leads) -> bytes:
    """The second teamspace's list: short and clean."""
    rows = [f"{slow_lead(number)},Lead {number}" for number in range(1, leads + 1)]
    return "\r\n".join(["email,name", *rows, ""]).encode()
