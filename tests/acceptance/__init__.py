"""The whole product, as people and services meet it: processes, sockets, files, a real Postgres."""
