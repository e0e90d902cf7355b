"""How long to wait before trying again: exponential back-off with jitter drawn by the caller.

Many leads fail at the same moment when a provider hiccups; if all came back after the same time, they would make the
next hiccup. Full jitter (a uniform share of the whole delay) spreads them best; half of the delay is kept as a floor
here, so that a back-off is also a pause.
"""

from msgspec import Struct

from leadline.core.model import SECOND


class Backoff(Struct, frozen=True, gc=False):
    """A policy of delays between tries."""

    first_seconds: float = 1.0
    factor: float = 2.0
    max_seconds: float = 60.0
    tries: int = 3
    """Tries in all, the first included."""

    def delay_microseconds(self, failed_tries: int, jitter: float) -> int | None:
        """The delay after so many failed tries (1, 2, …); None when there is no further try.

        `jitter` is uniform in [0, 1): the delay lies between half of the full delay and the whole of it.
        """
        assert 0 <= jitter < 1, "jitter is a share"
        if failed_tries >= self.tries:
            return None
        full = min(self.max_seconds, self.first_seconds * self.factor ** (failed_tries - 1))
        return int(full * (0.5 + jitter / 2) * SECOND)
