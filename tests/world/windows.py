"""How many events the worst window holds: the one question a rate limit is judged by.

A limit of N per W seconds is kept if *no* window of length W holds more than N events, wherever it begins. It is
enough to look at the windows that begin at an event: sliding any other window right to its first event loses nothing.
The windows are half-open, so two events exactly W apart never share one; that is how a provider that forgets an event
after W counts.
"""

from collections.abc import Iterable


def worst_window(times: Iterable[int], seconds: float) -> int:
    """The largest number of `times` (microseconds, any order) within any half-open window of `seconds`; 0 for none."""
    if seconds <= 0:
        raise ValueError(f"a window needs a length, not {seconds} s")
    ordered = sorted(times)
    width = round(seconds * 1_000_000)
    worst = first = 0
    for last, instant in enumerate(ordered):
        while instant - ordered[first] >= width:
            first += 1
        worst = max(worst, last - first + 1)
    return worst
