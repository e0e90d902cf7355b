"""The actors, on virtual time and a store in memory."""
