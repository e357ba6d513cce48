"""What a model's README.md says of it in its front matter, for lists and their filters: its publisher's claim.

And the format of the weights, by the names of the files.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Final

from comity.content.blobs import BlobStore
from comity.formats.model_card import CARD_FILE, MAX_CARD_FILE, front_matter
from comity.node.threads import Pools
from comity.trust.artifact import Manifest
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError
from comity.trust.frozen import frozen

_FORMATS: Final = ("safetensors", "gguf", "onnx")


@frozen
class Card:
    """What lists show and filter by; empty where the card says nothing. `tags` has the languages and formats too."""

    pipeline: str = ""
    library: str = ""
    tags: tuple[str, ...] = ()

    def words(self) -> frozenset[str]:
        """Return everything that a filter may name, in lower case."""
        return frozenset(word.lower() for word in (self.pipeline, self.library, *self.tags) if word)


MAX_CARDS: Final = 20_000
"""Cards that are kept, of at most about 1 KiB each as a rule."""


class Cards:
    """The cards of the artifacts that were shown last. Not thread-safe: call from the event loop."""

    def __init__(self, store: BlobStore, pools: Pools) -> None:
        self._store = store
        self._pools = pools
        self._read: OrderedDict[Digest, Card] = OrderedDict()

    async def card(self, artifact: Digest, manifest: Manifest) -> Card:
        """Return the card of an artifact; a README.md that is not here yet is looked for again."""
        known = self._read.get(artifact)
        if known is not None:
            self._read.move_to_end(artifact)
            return known
        card = await self._pools.files(read_card, manifest, self._store)
        if await self.complete(manifest):
            self._read[artifact] = card
            if len(self._read) > MAX_CARDS:
                self._read.popitem(last=False)
        return card

    async def complete(self, manifest: Manifest) -> bool:
        """Whether nothing that a card is read from is still missing here."""
        return await self._pools.files(is_complete, manifest, self._store)


def is_complete(manifest: Manifest, store: BlobStore) -> bool:
    """Whether nothing that a card is read from is missing in the store. Blocking."""
    entry = manifest.by_path.get(CARD_FILE)
    return entry is None or store.has(entry.sha256)


def read_card(manifest: Manifest, store: BlobStore) -> Card:
    """Return the card of an artifact, from its README.md if that is stored here and has its hash. Blocking."""
    return _card(front_matter(small_file(manifest, store, CARD_FILE, MAX_CARD_FILE)), manifest)


def small_file(manifest: Manifest, store: BlobStore, path: str, most: int) -> bytes:
    """Return a file of an artifact that is stored here and has its hash; empty if there is none, if it has more than
    `most` bytes, or if the disk fails: the model is shown without what it says. Blocking."""
    entry = manifest.by_path.get(path)
    if entry is None or not 0 < entry.size <= most:
        return b""
    try:
        data = b"".join(store.iterate(entry.sha256, 0, entry.size))
    except ComityError:
        return b""
    return data if sha256(data) == entry.sha256 else b""


def _card(fields: Mapping[str, tuple[str, ...]], manifest: Manifest) -> Card:
    endings = {PurePosixPath(entry.path).suffix.lower() for entry in manifest.files}
    formats = [name for name in _FORMATS if f".{name}" in endings]
    pipeline, library = (next(iter(fields.get(key, ())), "") for key in ("pipeline_tag", "library_name"))
    tags = (library, *formats, *fields.get("tags", ()), *fields.get("language", ()))
    return Card(pipeline, library, tuple(dict.fromkeys(tag for tag in tags if tag)))
