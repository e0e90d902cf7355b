"""Batch: tenants' own Python."""
