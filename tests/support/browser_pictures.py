"""Takes pictures of pages in Chromium. Run by an interpreter that has Playwright, as a process of its own.

    python browser_pictures.py CHROMIUM FOLDER < order.json

The order has `url`, `pages` (name and path of each), `link` (with which the browser signs in; empty for none) and
`language`. Prints JSON: by picture, the pixels by which the page is wider than the window, and the texts that are cut.
"""

from __future__ import annotations

import json
import sys
from itertools import product
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

WIDTHS = (1280, 400)
SCHEMES = ("light", "dark")
CUT = """() => [...document.querySelectorAll("main *")].filter(each => {
    const style = getComputedStyle(each);
    return style.display !== "inline" && each.scrollWidth > each.clientWidth + 1 && each.clientWidth > 1
        && !["auto", "scroll"].includes(style.overflowX) && !each.closest("svg, .unseen, select, meter");
}).map(each => each.outerHTML.slice(0, 120))"""


def main() -> None:
    chromium, folder = sys.argv[1], Path(sys.argv[2])
    order, found = json.load(sys.stdin), dict[str, Any]()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = browser.new_context(locale=order["language"])
        page = context.new_page()
        if order["link"]:
            page.goto(order["link"])
            page.get_by_role("main").get_by_role("button").click()
        for name, path in order["pages"].items():
            page.goto(order["url"] + path)
            for width, scheme in product(WIDTHS, SCHEMES):
                page.set_viewport_size({"width": width, "height": 800})
                page.emulate_media(color_scheme=scheme)
                picture = f"{name}-{width}-{scheme}.png"
                page.screenshot(path=folder / picture, full_page=True)
                wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
                found[picture] = {"wider": wide, "cut": page.evaluate(CUT)}
        browser.close()
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
