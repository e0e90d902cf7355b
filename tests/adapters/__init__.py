"""The adapters against the technology itself: real Postgres, real sockets, real processes."""
