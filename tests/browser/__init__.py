"""What a person sees and does: the pages in a real browser, Debian's chromium driven by Playwright."""
