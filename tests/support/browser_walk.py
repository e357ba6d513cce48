"""Walks through a console in a real browser. Run by an interpreter that has Playwright, as a process of its own.

    python browser_walk.py URL AXE.JS CHROMIUM SHOTS < pages.json

Prints JSON: `violations` of axe-core, `overflow` (pages wider than the window), `errors` of the page itself, and
`answers`: what an official reads who begins at the overview and uses only the pages.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

WINDOWS = ((1280, "light"), (320, "dark"), (320, "light"), (1280, "dark"))
"""One for each link with which to sign in: two links try each width and each colour scheme."""
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
AXE = """rules => axe.run(document, {runOnly: rules}).then(found => found.violations.map(
    each => ({rule: each.id, where: each.nodes[0].html.slice(0, 200), why: each.nodes[0].failureSummary})))"""


def look(page: Any, axe: str, shot: Path) -> dict[str, Any]:
    """The findings of axe-core on the page, and by how many pixels it is wider than the window."""
    page.screenshot(path=shot, full_page=True)
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    page.evaluate(axe)
    return {"violations": page.evaluate(AXE, RULES), "overflow": wide}


def answers(page: Any, url: str, model: str, jurisdiction: str) -> dict[str, Any]:
    """Which members hold the model, whether it survives the loss of a jurisdiction, who states this, and how to check
    it.
    """
    page.goto(url)
    page.get_by_role("link", name="Catalogue", exact=True).first.click()
    page.get_by_label("Words in the name").fill(model.rpartition("/")[2])
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name=model, exact=True).click()
    rows = page.locator("table", has=page.locator("caption", has_text="Copies by member")).locator("tbody tr")
    holders = [row.locator("th, td").all_inner_texts() for row in rows.all()]
    source = rows.filter(has_text="Claimed by").first.get_by_role("link")
    commands = page.locator("section", has=page.locator("#verify")).locator("pre").all_inner_texts()
    source.click()
    entry = page.locator("main").inner_text()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the proof").click()
    proof = Path(download.value.path()).read_text()
    page.get_by_role("link", name="Overview", exact=True).click()
    page.get_by_label("Suppose that this member").select_option(f"in:{jurisdiction}")
    page.get_by_role("button", name="Show what would be lost").click()
    loss = page.locator("#answer").inner_text()
    return {"holders": holders, "commands": commands, "entry": entry, "proof": proof, "loss": loss}


def by_keyboard(page: Any, url: str) -> list[str]:
    """The focused element after each of some presses of the tabulator key, and the target of the first link."""
    page.goto(url)
    seen = []
    for _ in range(4):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.innerText"))
    page.goto(url)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    seen.append(page.evaluate("document.activeElement.id"))
    return seen


def sign_in(page: Any, link: str) -> None:
    page.goto(link)
    page.get_by_role("main").get_by_role("button", name="Sign in").click()


def sign_out(page: Any, url: str) -> dict[str, Any]:
    """The cookies that remain after signing out, and the status of a page of the node."""
    page.get_by_role("button", name="Sign out").click()
    return {"cookies": page.context.cookies(), "status": page.goto(f"{url}/-/node").status}


def main() -> None:
    url, axe, chromium, shots = sys.argv[1:]
    order, library = json.load(sys.stdin), Path(axe).read_text()
    found: dict[str, Any] = {"pages": {}, "errors": [], "signed_out": []}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for width, scheme in WINDOWS[: len(order["links"])]:
            window = {"width": width, "height": 900}
            context = browser.new_context(viewport=window, color_scheme=scheme, bypass_csp=True)  # axe-core is a script
            page = context.new_page()
            page.on("pageerror", lambda error: found["errors"].append(str(error)))
            for name, path in order["pages"].items():
                page.goto(url + path)
                key = f"{name}-{width}-{scheme}"
                found["pages"][key] = look(page, library, Path(shots) / f"{key}.png")
            sign_in(page, order["links"].pop())
            for name, path in order["node_pages"].items():
                page.goto(url + path)
                key = f"{name}-{width}-{scheme}"
                found["pages"][key] = look(page, library, Path(shots) / f"{key}.png")
            found["signed_out"].append(sign_out(page, url))
            context.close()
        context = browser.new_context(java_script_enabled=False)
        found["answers"] = answers(context.new_page(), url, order["model"], order["jurisdiction"])
        context.close()
        context = browser.new_context()
        page = context.new_page()
        page.on("console", lambda message: found["errors"].append(message.text))
        found["keyboard"] = by_keyboard(page, url)
        page.emulate_media(media="print")
        page.goto(url)
        found["printed"] = page.get_by_role("navigation").count()
        browser.close()
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
