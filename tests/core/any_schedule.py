"""Schedules of all shapes, with the days and hours preferred at which calendars and clocks are peculiar."""

from hypothesis import strategies as st

from leadline_protocol.schedules import Cron, Daily, Monthly, Schedule, Weekday, Weekly

ZONES = (
    "Australia/Lord_Howe",
    "Pacific/Chatham",
    "Antarctica/Troll",
    "America/Santiago",
    "America/New_York",
    "Europe/Berlin",
)
"""Clocks that change by half an hour, by an hour at a quarter to, by two hours, at midnight, and as most do."""

NIGHTS = [(zone, number) for zone in ZONES for number in (0, 1)]
"""Each has two changes a year."""


@st.composite
def cron_lines(draw: st.DrawFn) -> str:
    minute = draw(st.sampled_from(["*", "*/7", "0", "30", "59", "0,45", "10-12"]))
    hour = draw(st.sampled_from(["*", "*/2", "0", "1", "2", "3", "23", "0-4"]))
    day = draw(st.sampled_from(["*", "*/2", "1", "29", "29-31", "L", "LW", "1-10", "15,L"]))
    month = draw(st.sampled_from(["*", "*/2", "2", "MAR,APR", "9-11"]))
    weekday = draw(st.sampled_from(["*", "0", "7", "SUN", "MON-FRI", "5L", "0#4", "*/2", "SAT,SUN"]))
    return f"{minute} {hour} {day} {month} {weekday}"


def schedules(names: st.SearchStrategy[str]) -> st.SearchStrategy[Schedule]:
    at = st.sampled_from(["00:00", "00:30", "01:15", "02:00", "02:30", "03:00", "03:30", "23:30"])
    days = st.lists(st.sampled_from(Weekday), min_size=1).map(tuple)
    return st.one_of(
        st.builds(Daily, at, names),
        st.builds(Weekly, days, at, names),
        st.builds(Monthly, st.one_of(st.integers(1, 31), st.just("last")), at, names),
        st.builds(Cron, cron_lines(), names),
    )
