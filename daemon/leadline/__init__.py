"""Leadline: one queue for products that work on leads."""
