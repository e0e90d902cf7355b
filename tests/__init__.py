"""The tests of both distributions, laid out like what they test."""
