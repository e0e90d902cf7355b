"""What stands on every response."""

from typing import Final

COMMON: Final = {
    "Server": "leadline",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

API: Final = {**COMMON, "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'"}
"""On what programs ask for: if a browser shows it, it shows it without doing anything."""
