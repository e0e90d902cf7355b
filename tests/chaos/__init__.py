"""The real daemon under load while everything round it breaks: scripts/chaos.

A simulation finds what is wrong with decisions; this finds what is wrong with the rest: processes, sockets, Postgres,
files, the disk. The daemon is `leadline serve` in a process of its own. Whether it kept its promises is judged without
asking it: by the receipts that clients wrote down, by the providers' own logs, by what the tables and the books of the
database hold in the end.

    wire.py          lines over a socket, without a client library's helpfulness
    services.py      providers and a model with limits, and their logs
    load.py          whoever submits, cancels, pauses, and what they wrote down
    ground.py        where a daemon runs: beside a Postgres of its own on a disk of ours, or beyond a proxy
    block_device.py  that disk: a power cut loses what was not flushed
    faults.py        what goes wrong, one small class each
    oracles.py       what must hold whatever went wrong, as plain functions of logs
    run.py           load, faults, a quiet end, verdict
    sabotage.py      daemons with one guard off, and controls.py, which sees each of them found out
    campaign.py      several runs, each in a process of its own
    report.py        the table of daemon/docs/reliability.md
"""
