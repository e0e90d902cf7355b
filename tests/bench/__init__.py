"""How fast it is, as ratios: scripts/bench measures, daemon/docs/benchmarks.md keeps the last table.

Machines are shared and noisy, so no figure stands alone: each is set against what the same Postgres, disk or program
can do at most, measured in the same minute: limit, ours, limit, for several rounds, of which the median counts. Such a
ratio can be compared over time and between machines, which rows per second cannot.

    rows.py       what is measured, and how much of it is enough
    place.py      a Postgres, a daemon in a process of its own, a database for each scenario
    clients.py    whoever submits
    limits.py     what Postgres and the disk can do without us
    scenarios.py  the daemon at work
    peers.py      PgQueuer, which scripts/bench --peers compares with
    alone.py      the core by itself, on virtual time
    figures.py    rounds to figures, figures to a table

Nothing here is a timed test: a test that fails when the machine is busy teaches people to ignore it.
"""
