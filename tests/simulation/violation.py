"""What a simulation ends with that has found something."""


class Violation(AssertionError):
    """Something that must never be."""
