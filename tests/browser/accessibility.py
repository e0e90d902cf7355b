"""What axe-core finds that keeps people from using a page. Its rules come with the package, nothing is fetched."""

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page


async def axe_violations(page: Page) -> list[str]:
    """What breaks a rule, a line for each element: rule, what it asks, which element."""
    results = await Axe().run(page)
    return [
        f"{violation['id']}: {violation['help']}: {' '.join(map(str, node['target']))}"
        for violation in results.response["violations"]
        for node in violation["nodes"]
    ]
