"""Messages, codec and clients of the Leadline daemon."""
