"""Stand-ins for what the daemon meets at its rim; each passes the contract suite of its port."""
