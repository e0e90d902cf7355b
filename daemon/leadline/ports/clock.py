"""Where the time comes from."""

from typing import Protocol

from leadline.core.model import Now


class Clock(Protocol):
    """Gives the moment; its instants never run backwards and go on while the machine is suspended."""

    def now(self) -> Now:
        """This moment."""
        ...
