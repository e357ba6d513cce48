"""The front matter of a model card: plain values are read, everything else is skipped, at a bounded cost."""

from __future__ import annotations

import pytest
from comity.formats.model_card import MAX_ITEMS, front_matter


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("---\na: b\n---\n", {"a": ("b",)}),
        ("---\na: [x, 'y', \"z\"]\n---\n", {"a": ("x", "y", "z")}),
        ("---\na:\n  - x\n  - y\nb: c\n---\n", {"a": ("x", "y"), "b": ("c",)}),
        ("---\na:\n  b:\n    - x\n---\n", {"a": ()}),
        ("---\na: b\n", {}),
        ("# Title\n---\na: b\n---\n", {}),
        ("---\na: !!python/object:os.system x\n---\n", {"a": ()}),
        ("---\na: <b>x</b>\n---\n", {"a": ()}),
        ("---\na: " + "x" * 101 + "\n---\n", {"a": ()}),
        ("", {}),
    ],
)
def test_plain_values_are_read_and_others_are_skipped(text: str, found: dict[str, tuple[str, ...]]) -> None:
    assert front_matter(text.encode()) == found


@pytest.mark.parametrize("begin", ["a: x", "a: ", "- x", " - "])
def test_a_long_run_of_spaces_costs_no_more_than_to_read_it(begin: str) -> None:
    """A README.md has up to 256 KiB; a pattern that tries each way to divide them would take minutes."""
    spaces = " " * 60_000
    text = f"---\nb: c\n{begin}{spaces}y{spaces}z{spaces}\n---\n"
    assert front_matter(text.encode())["b"] == ("c",)


def test_a_list_is_bounded() -> None:
    lines = "".join(f"- tag{number}\n" for number in range(400))
    assert len(front_matter(f"---\ntags:\n{lines}---\n".encode())["tags"]) == MAX_ITEMS
