"""One suite of behaviour for each port, run on the fake and on the real one."""
