"""The parts of the API over HTTP that need no daemon."""
