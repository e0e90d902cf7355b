"""Pictures of the pages, for people to look at: `LEADLINE_SCREENSHOTS` names the folder; without it none are made."""

import os
from pathlib import Path

from playwright.async_api import Page


async def shot(page: Page, name: str) -> None:
    """A picture of the whole page."""
    folder = os.environ.get("LEADLINE_SCREENSHOTS")
    if folder is not None:
        await page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)
