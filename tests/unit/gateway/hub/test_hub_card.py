"""What lists show of a card: from a stored file with its hash, of a bounded length."""

from __future__ import annotations

from pathlib import Path

from comity.content.blobs import FolderStore
from comity.formats.model_card import MAX_CARD_FILE
from comity.gateway.hub.card import Card, read_card
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import sha256

CARD = (
    b"---\npipeline_tag: fill-mask\nlibrary_name: \"transformers\"\ntags:\n- bert\n- 'de'\n---\n# Title\ntags: [no]\n"
)


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
    data = CARD + bytes(MAX_CARD_FILE)
    store, entry = FolderStore(tmp_path), entry_of("README.md", data)
    store.put(entry.sha256, data)
    assert read_card(Manifest.of([entry]), store) == Card()
