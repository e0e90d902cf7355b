"""Whether all that a page says can be read in the window it has."""

from typing import Final

from playwright.async_api import Page

_WORDS: Final = """
const name = (element) => {
    const id = element.id ? `#${element.id}` : "";
    const classes = [...element.classList].map((each) => `.${each}`).join("");
    const text = element.textContent.trim().replace(/\\s+/g, " ").slice(0, 40);
    return `${element.localName}${id}${classes} ${JSON.stringify(text)}`;
};
const lines = (text) => {
    const range = document.createRange();
    range.selectNodeContents(text);
    return [...range.getClientRects()].filter((line) => line.width > 0);
};
const cuts = (overflow) => overflow === "hidden" || overflow === "clip";
"""

_SIDEWAYS: Final = (
    "(width) => {"
    + _WORDS
    + """
    const page = document.scrollingElement.scrollWidth;
    if (page <= width) return [];
    const contained = (element) => {
        for (let above = element.parentElement; above !== document.body; above = above.parentElement) {
            if (getComputedStyle(above).overflowX !== "visible") return true;
        }
        return false;
    };
    const sticksOut = (element) => {
        const texts = [...element.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE);
        const boxes = [element.getBoundingClientRect(), ...texts.flatMap(lines)];
        return boxes.some((box) => box.width > 0 && box.right > width + 0.5) && !contained(element);
    };
    const wide = new Set([...document.body.querySelectorAll("*")].filter(sticksOut));
    const innermost = [...wide].filter((element) => ![...element.children].some((child) => wide.has(child)));
    return [`the page is ${page} px wide in a window of ${width}`, ...innermost.map(name)];
}"""
)

_CLIPPED: Final = (
    "() => {"
    + _WORDS
    + """
    const found = new Set();
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const text = texts.currentNode;
        if (!text.data.trim() || !text.parentElement.checkVisibility({visibilityProperty: true})) continue;
        let across = true, down = true;
        for (let above = text.parentElement; above !== document.body && (across || down); above = above.parentElement) {
            const style = getComputedStyle(above), box = above.getBoundingClientRect();
            if (style.display === "inline" || style.display === "contents") continue;
            if (box.width <= 1 || box.height <= 1) break;
            for (const line of lines(text)) {
                const slack = line.height / 4;
                const beside = line.left < box.left - 1 || line.right > box.right + 1;
                const beyond = line.top < box.top - slack || line.bottom > box.bottom + slack;
                if ((across && cuts(style.overflowX) && beside) || (down && cuts(style.overflowY) && beyond)) {
                    found.add(name(above));
                }
            }
            across &&= style.overflowX === "visible" || cuts(style.overflowX);
            down &&= style.overflowY === "visible" || cuts(style.overflowY);
        }
    }
    return [...found];
}"""
)


async def scrolled_sideways(page: Page) -> list[str]:
    """Empty where the page is no wider than its window; else by how much, and the innermost elements that stick out."""
    assert page.viewport_size is not None
    found: list[str] = await page.evaluate(_SIDEWAYS, page.viewport_size["width"])
    return found


async def clipped_text(page: Page) -> list[str]:
    """The elements that hide a part of a text in them and do not let it be scrolled to.

    A box that is one pixel wide or high counts for nothing: what is in it is meant for screen readers. Nor does a line
    that loses less than a quarter of its height, which is air.
    """
    found: list[str] = await page.evaluate(_CLIPPED)
    return found
