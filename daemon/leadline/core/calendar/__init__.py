"""Schedules: when a job is due by the clock on somebody's wall, and what to do about it.

    zones         wall time → instant, the one place that knows about changes of clocks
    cycle         sets of days, for all time
    schedules     what people write → a timetable: days, minutes, zone
    occurrences   a timetable → instants, one after the other; what people are shown of them
    gaps          how close the starts of one job come to each other
    due           what to do about the occurrences that have come
    day_load      how much the schedules together can ask of a day

Everything is a function of its arguments. Instants are wall time in microseconds of Unix time (`Now.wall`), wall times
whole minutes. What is remembered between calls, the zones and the sets of days, is the same for every caller.
"""
