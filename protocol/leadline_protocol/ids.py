"""The names of things, as types: what a number or a string stands for, so that no two can be mixed up unnoticed."""

from typing import NewType

JobId = NewType("JobId", int)
"""A job's global sequence number: a 64-bit integer, given out in order of admission, starting at 1."""

CallId = NewType("CallId", int)
"""One request to a provider: a 64-bit integer, given out in order of asking."""

LeadId = NewType("LeadId", int)
"""One row of a table; ids grow in order of arrival within a table."""

TableId = NewType("TableId", int)
"""The number of a table, given by the database at its creation."""

TeamspaceId = NewType("TeamspaceId", int)
"""The number that stands for a teamspace inside the daemon and its database."""

TeamspaceName = NewType("TeamspaceName", str)
"""What people and services call a tenant: 1 to 100 characters."""

AccountName = NewType("AccountName", str)
"""A provider account, (provider, credential): `snov` for the shared key, `snov@acme` for the own key of acme."""

Instant = NewType("Instant", int)
"""Microseconds of Unix time on a clock that never runs backwards: deadlines, ages and windows are reckoned in it."""
