"""The store in Postgres 14 or later: one database, owned by one daemon at a time.

store.py       the port `leadline.ports.store.Store`, and the transactions in which slices work
decision.py    writes the records of one decision
fence.py       the one way to open a write transaction, and what to do when nobody says whether it committed
pool.py        the connections, what the server must be like, and what its errors mean to the queue
partitions.py  makes and drops the partitions of what only grows
migrate.py     brings the schema up to date: migrations/*.sql, each once
queries.py     reads queries.sql, where the statements of the store stand
"""
