"""The core decides and does nothing else: no clock, no await, no randomness, no logging, no input or output."""
