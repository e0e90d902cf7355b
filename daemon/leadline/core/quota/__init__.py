"""What tenants' code may use in a day: how often it runs, and for how long.

`quotas` has the numbers of a plan and what they say to a batch job that is set up, `days` tells which day an instant
belongs to where the teamspace is, `ledger` keeps what a teamspace has used and decides whether one more run is
admitted, and `projection` runs the same rules forward for runs that are still to come.
"""
