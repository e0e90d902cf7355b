"""The file that a run makes: it writes into a pipe, and its supervisor into the file.

So nobody inside holds a file of ours, with which more can be done than to write to it, and no more is written than is
allowed: by count, not by what a file system says.
"""

import os

from leadline.ports.runner import Product


class Production:
    """Keeps what comes."""

    def __init__(self, product: Product) -> None:
        """Raises OSError where there is a file already."""
        self._file = os.open(product.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._left = product.bytes_max

    def keep(self, piece: bytes) -> bool:
        """Write down what may be; whether that was all of it."""
        fits = len(piece[: self._left])
        self._left -= fits
        rest = memoryview(piece)[:fits]
        while rest:
            rest = rest[os.write(self._file, rest) :]
        return fits == len(piece)
