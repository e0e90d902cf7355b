"""Chance that can be asked again: what is drawn from a seed is the same on each machine and in each version of Python.

The generator is BLAKE2b over the seed, what the number is for and the mail's step. So the numbers of one follow-up do
not depend on each other, nor on how many others were drawn before: planning again gives the same times.
"""

from enum import StrEnum
from hashlib import blake2b


class Draw(StrEnum):
    """What a number is drawn for."""

    VARIANCE = "variance"
    START = "start"


def drawn(seed: int, what: Draw, step: int, below: int) -> int:
    """A whole number in [0, below), each as likely as the others but for one part in 2^64 / below."""
    digest = blake2b(f"{what} {seed} {step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") * below >> 64
