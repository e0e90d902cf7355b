"""The demo's providers, put together from the behaviours: an AI, a slow one with polls, a plain one."""

from tests.world import behaviours as world
from tests.world.behaviours import SECOND, Behaviour, Fault, Window
from tests.world.demo_plan import DEMO

TASK_SECONDS = 1.5
"""How long the slow provider works on a lead."""


def ai(key: str, *, calls_per_minute: int = DEMO.ai_calls_per_minute) -> Behaviour:
    """An OpenAI-compatible endpoint that answers in some 50 ms and refuses what is above its limit."""
    completions = world.Delayed(world.ChatCompletions(), median_us=SECOND // 20, seed=1)
    limited = world.Limited(completions, Window(calls_per_minute, 60), throttle=world.OPENAI_THROTTLE)
    return world.Authorized(limited, key)


def slow(*, hang_first: str | None = None) -> Behaviour:
    """A provider like Snov: started, then polled; limits in leads and in requests that it keeps silent about.

    The first call about the lead `hang_first` never gets an answer.
    """
    polling = world.Delayed(world.Polling(seconds=TASK_SECONDS), median_us=SECOND // 10, seed=2)
    faults = [Fault(world.hang(), hang_first)] if hang_first else []
    windows = (Window(DEMO.slow_leads_per_minute, 60, "lead"), Window(DEMO.slow_requests_per_minute, 60))
    return world.Limited(world.Faulty(polling, faults), *windows, enforce=False)


def plain() -> Behaviour:
    """Company data by one call, without limits."""
    return world.Delayed(world.Enrichment(), median_us=SECOND // 50, seed=3)
