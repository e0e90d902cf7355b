"""The wire, tested by feeding bytes."""
