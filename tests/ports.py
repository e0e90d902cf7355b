"""Ports of this machine for what must be told its port before it listens."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_port() -> Iterator[int]:
    """A TCP port that the kernel gives to nobody else meanwhile; who is told of it may listen there.

    It is bound here, and not listened on. Linux lets a server bind it too, as both say SO_REUSEADDR (asyncio's servers
    do), and refuses connections until one listens.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]
