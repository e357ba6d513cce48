"""The kinds of links are documented, each with what it means."""

import re

from comity.rules.continuity.links import LINK_KINDS, STATES, SUBJECTS
from support import product

PAGE = product.ROOT / "docs" / "continuity.md"


def test_the_page_lists_each_kind_of_link_as_it_is() -> None:
    rows = re.findall(
        r"^\| `([a-z-]+)` \| (\w+) \| (green|amber|red) \| (.*) \|$", PAGE.read_text("utf-8"), re.MULTILINE
    )
    assert rows == [(name, kind.subject, kind.state, kind.means) for name, kind in LINK_KINDS.items()]


def test_no_kind_of_link_is_green_and_each_is_about_a_known_subject() -> None:
    assert {kind.state for kind in LINK_KINDS.values()} == set(STATES[1:])
    assert {kind.subject for kind in LINK_KINDS.values()} == set(SUBJECTS)
