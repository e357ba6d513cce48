"""Four questions of an official, answered in a real browser from the console alone, and a sign-in at a provider.

    python browser_official.py URL CHROMIUM SHOTS < order.json

Run by an interpreter that has Playwright, as a process of its own. Each question begins at the overview, without
JavaScript, and follows links, fields and buttons by their text: no address is typed but the first. The third question
is asked in French. Prints JSON: the answers as the pages show them, and `clicks`, the number of steps of each.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

WIDTHS = (320, 768, 1280)


class Official:
    """A reader of pages; `clicks` counts what the person pressed."""

    def __init__(self, page: Any, url: str, model: str) -> None:
        self.page, self.model, self.clicks = page, model, 0
        page.goto(url)

    def follow(self, text: str) -> None:
        self.clicks += 1
        self.page.get_by_role("link", name=text, exact=True).first.click()

    def press(self, text: str) -> None:
        self.clicks += 1
        self.page.get_by_role("button", name=text, exact=True).click()

    def find(self, catalogue: str, field: str, search: str) -> None:
        """Go from any page to the page of the model."""
        self.follow(catalogue)
        self.page.get_by_label(field).fill(self.model.rpartition("/")[2])
        self.press(search)
        self.follow(self.model)

    def table(self, caption: str) -> list[list[str]]:
        shown = self.page.locator("table", has=self.page.locator("caption", has_text=caption))
        return [row.locator("th, td").all_inner_texts() for row in shown.locator("tbody tr").all()]


def who_holds_it(official: Official) -> Any:
    official.find("Catalogue", "Words in the name", "Search")
    official.follow("Who holds it")
    return official.table("Copies by member and jurisdiction")


def is_it_safe_without(official: Official, jurisdiction: str) -> Any:
    """The answer for the whole federation, and for each member by its row on the page of the model."""
    official.page.get_by_label("Suppose that this member").select_option(jurisdiction)
    official.press("Show what would be lost")
    answer = official.page.locator("#answer").inner_text()
    affected = official.table("Artifacts that would have too few copies")
    official.find("Catalogue", "Words in the name", "Search")
    rows = official.table("Copies by member and jurisdiction")
    return {"answer": answer, "affected": affected, "model": {row[1]: row[6] for row in rows}}


def who_says_so(official: Official) -> Any:
    """In French: each statement with its signer, and the entry of the first claim of a copy, with its proof."""
    official.follow("Français")
    official.find("Catalogue", "Mots du nom", "Chercher")
    official.follow("Qui dit quoi")
    statements = official.table("Déclarations au sujet de cet artefact")
    claim = official.page.get_by_role("row").filter(has_text="Déclare une copie complète").get_by_role("link").first
    named = claim.inner_text()
    official.clicks += 1
    claim.click()
    entry = official.page.get_by_role("main").inner_text()
    with official.page.expect_download() as download:
        official.follow("Télécharger la preuve que le journal contient cette entrée")
    return {"statements": statements, "named": named, "entry": entry, "proof": Path(download.value.path()).read_text()}


def how_do_i_check(official: Official) -> Any:
    """The commands, as a person would copy them."""
    official.find("Catalogue", "Words in the name", "Search")
    official.follow("Check it yourself")
    section = official.page.locator("section", has=official.page.get_by_role("heading", name="Check it yourself"))
    return section.locator("pre").all_inner_texts()


def sign_in_at_provider(browser: Any, url: str, person: dict[str, str], shots: Path) -> Any:
    """Through the pages of the provider, which is another site, to the pages of the node; and sign out again."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(url)
    page.get_by_role("link", name="Sign in as an operator").click()
    for width in WIDTHS:
        for language in ("English", "Français"):
            page.set_viewport_size({"width": width, "height": 900})
            if page.get_by_role("link", name=language, exact=True).count():
                page.get_by_role("link", name=language, exact=True).click()
            page.screenshot(path=shots / f"sign-in-{width}-{language[:2].lower()}.png", full_page=True)
    page.get_by_role("link", name="Se connecter auprès de").click()
    page.locator("#username").fill(person["name"])
    page.locator("#password").fill(person["password"])
    page.get_by_role("button", name="OK").click()
    page.get_by_role("button", name="Continue").click()
    page.wait_for_url("**/-/node?lang=fr")
    page.screenshot(path=shots / "signed-in.png", full_page=True)
    kept = [cookie["sameSite"] for cookie in context.cookies() if cookie["name"].startswith("comity-")]
    shown = page.locator("form.session").inner_text()
    title = page.get_by_role("heading", level=1).inner_text()
    context.close()
    return {"shown": shown, "title": title, "cookies": kept}


def main() -> None:
    url, chromium, shots = sys.argv[1:]
    order = json.load(sys.stdin)
    questions = {
        "who holds it": who_holds_it,
        "is it safe": lambda official: is_it_safe_without(official, order["gone"]),
        "who says so": who_says_so,
        "how to check": how_do_i_check,
    }
    found: dict[str, Any] = {"clicks": {}}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, ask in questions.items():
            context = browser.new_context(java_script_enabled=False, locale="en-GB")
            official = Official(context.new_page(), url, order["model"])
            found[name] = ask(official)
            found["clicks"][name] = official.clicks
            context.close()
        found["signed in"] = sign_in_at_provider(browser, url, order["person"], Path(shots))
        browser.close()
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
