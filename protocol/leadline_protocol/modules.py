"""What a data module in Python is: a function from one lead to the values it fills in, and what has to be known of it.

A package offers modules under the entry point group `leadline.modules`; an operator installs it beside the daemon, or
into a folder that the configuration names, and every submission may then say `"module": "phone"`:

    def normalised(lead: Lead, context: Context) -> Values | None:
        digits = re.sub("[^0-9]", "", lead["phone"])
        return {"digits": digits} if digits else None

    phone = Module(run=normalised, version="1.0", inputs=("phone",), outputs={"digits": "text"})

    [project.entry-points."leadline.modules"]
    phone = "my_package:phone"

The function is called in a worker process, once for each lead that has all inputs. It may be `async`: then up to
`leads_at_once` leads are on their way in one process. What it returns becomes cells; None, or nothing but empty values,
means that nothing is known about the lead. Of a failure it tells by what it raises: see the errors below, which do the
same as a provider's answers do. Any other exception counts as a failure that may pass: the lead is tried three times.

A module that declares a `batch` is called with a list of up to so many leads instead, and returns a list as long: for
each lead values or None, or an exception in their place where it has failed, which is final (`Rejected`, say). What is
raised is about all of them.

Nothing in here talks to a daemon: a module is tested by calling its function.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

from msgspec import Struct, field

from leadline_protocol.errors import LeadlineError
from leadline_protocol.messages import ColumnSpec

GROUP: Final = "leadline.modules"
"""The entry points by which a package offers its modules."""

Lead: TypeAlias = Mapping[str, Any]
"""The inputs of one lead, as JSON has them; an optional input of an empty cell is absent."""

Values: TypeAlias = Mapping[str, Any]
"""Output → value, as JSON has it."""

Results: TypeAlias = Sequence[Values | Exception | None]
"""What became of each lead of a batch, in their order."""


class Context(Struct, frozen=True):
    """What the operator has configured for a module."""

    settings: Mapping[str, str] = {}
    """The module's own settings, with what the configuration says in place of their defaults."""
    secret: str | None = None

    def __repr__(self) -> str:
        return f"Context({dict(self.settings)!r}, secret={'***' if self.secret else None})"


class Module(Struct, frozen=True, kw_only=True):
    """A data module: its function, and what the daemon has to know before it is called."""

    run: (
        Callable[[Lead, Context], Values | None]
        | Callable[[Lead, Context], Awaitable[Values | None]]
        | Callable[[Sequence[Lead], Context], Results]
        | Callable[[Sequence[Lead], Context], Awaitable[Results]]
    )
    version: str
    title: str = ""
    inputs: tuple[str, ...] = ()
    """What a lead must have; a lead without is skipped (`missing_input`)."""
    optional_inputs: tuple[str, ...] = ()
    outputs: Mapping[str, ColumnSpec]
    """What it can fill in, with the types, as `into` of a submission has them."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Settings with their defaults."""
    limits: tuple[Mapping[str, Any], ...] = ()
    """What may be used of whatever stands behind it, over all teamspaces; shaped as the limits of a provider, such as
    `{"shape": "window", "amount": 15, "per_seconds": 60, "unit": "lead"}`."""
    cost: Mapping[str, int] = field(default_factory=lambda: {"request": 1, "lead": 1})
    """What a lead takes of these."""
    credits_per_lead: float = 0.0
    charge_on: Literal["result", "request"] = "result"
    batch: int | None = None
    """So many leads, at most, are given to `run` together, as a list; None: one, and not as a list."""
    leads_at_once: int = 1
    """Leads, or batches, that one process works on at a time; more than one only where `run` is async."""
    timeout_seconds: float = 600.0
    """A lead, or a batch, that takes longer has its process killed, and counts as a failure that may pass."""


class Rejected(LeadlineError):
    """This lead cannot be done, and trying again would not change it: it fails with this message."""


class Throttled(LeadlineError):
    """Too fast: the module's account rests for so long, for everybody; the lead loses nothing."""

    def __init__(self, seconds: float | None = None) -> None:
        super().__init__("throttled" if seconds is None else f"throttled for {seconds:g} s")
        self.seconds: Final = seconds


class QuotaGone(LeadlineError):
    """Nothing is left to be used, for so long or until a person has seen to it; the lead loses nothing."""

    def __init__(self, seconds: float | None = None) -> None:
        super().__init__("the quota is gone" if seconds is None else f"the quota is gone for {seconds:g} s")
        self.seconds: Final = seconds


class SecretRefused(LeadlineError):
    """Whatever stands behind the module does not take the secret: the job fails, with no further call."""
