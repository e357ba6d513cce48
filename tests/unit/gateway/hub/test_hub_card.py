"""The front matter of a README.md: plain values are read, everything else is skipped, at a bounded cost."""

from __future__ import annotations

from pathlib import Path

import pytest
from comity.content.blobs import FolderStore
from comity.gateway.hub.card import MAX_ITEMS, MAX_README, Card, front_matter, read_card
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import sha256

CARD = (
    b"---\npipeline_tag: fill-mask\nlibrary_name: \"transformers\"\ntags:\n- bert\n- 'de'\n---\n# Title\ntags: [no]\n"
)


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


def entry_of(path: str, data: bytes) -> FileEntry:
    return FileEntry(path, len(data), sha256(data))


def test_a_card_is_read_from_a_stored_file_with_its_hash(tmp_path: Path) -> None:
    store, entry = FolderStore(tmp_path), entry_of("README.md", CARD)
    manifest = Manifest.of([entry, entry_of("model.safetensors", b"weights")])
    assert read_card(manifest, store) == Card("", "", ("safetensors",)), "the file is missing"
    store.put(entry.sha256, CARD)
    assert read_card(manifest, store) == Card(
        "fill-mask", "transformers", ("transformers", "safetensors", "bert", "de")
    )
    stored = tmp_path / "blobs" / entry.sha256[:2] / entry.sha256
    stored.chmod(0o644)
    stored.write_bytes(CARD.replace(b"fill-mask", b"fill-MASK"))
    assert read_card(manifest, store) == Card("", "", ("safetensors",)), "a damaged file says nothing"


def test_a_long_readme_is_not_read(tmp_path: Path) -> None:
    data = CARD + bytes(MAX_README)
    store, entry = FolderStore(tmp_path), entry_of("README.md", data)
    store.put(entry.sha256, data)
    assert read_card(Manifest.of([entry]), store) == Card()
