"""The asyncio shells round the core: each holds what it is named after, and decides nothing."""
