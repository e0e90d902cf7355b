"""A whole daemon, put together as it is served, on a Postgres of its own."""
