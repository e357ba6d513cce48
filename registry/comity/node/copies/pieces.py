"""The pieces of this node's own copies, for audits."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final

from comity.content.blobs import BlobStore
from comity.ledger.ledger import Ledger
from comity.node.copies.withheld_files import WithheldFiles
from comity.node.uploads import read_artifact
from comity.trust.artifact import FileEntry, PieceLayout, PieceRecord, check_records
from comity.trust.audit import DamagedPiece, PieceNumbers
from comity.trust.encoding import Digest, short
from comity.trust.errors import NotFound
from comity.trust.statement import SideObject

MAX_DOCUMENTS: Final = 64 * 1024**2
"""Bytes of the manifests and piece indexes that are kept, parsed, for the next audit."""


class OwnPieces:
    """Implements `PieceSource` over the blob store. Blocking; thread-safe."""

    def __init__(self, ledger: Ledger, store: BlobStore, withheld: WithheldFiles) -> None:
        self._withheld = withheld
        self._ledger = ledger
        self._store = store
        self._lock = threading.Lock()
        self._parsed: OrderedDict[tuple[Digest, Digest], tuple[PieceNumbers, int]] = OrderedDict()

    def numbers(self, manifest: SideObject, pieces: SideObject) -> PieceNumbers:
        """The numbering of an artifact by a piece index. Raises Malformed, Untrusted, NotFound."""
        key = manifest.digest, pieces.digest
        with self._lock:
            if key not in self._parsed:
                numbers = PieceNumbers(*read_artifact(self._store, manifest, pieces))
                self._parsed[key] = numbers, manifest.size + pieces.size
                while len(self._parsed) > 1 and sum(size for _, size in self._parsed.values()) > MAX_DOCUMENTS:
                    self._parsed.popitem(last=False)
            self._parsed.move_to_end(key)
            return self._parsed[key][0]

    def records(self, file: FileEntry, layout: PieceLayout) -> Sequence[PieceRecord]:
        data = self._ledger.pieces.records(file.sha256, layout.layout)
        if data is None:
            why = f"{short(file.sha256)} in layout {layout.layout}"
            raise NotFound("no piece records here", why=why, code="NO-RECORDS")
        return check_records(data, size=file.size, expected=layout)

    def quarantine(self, damaged: DamagedPiece) -> None:
        """Move the file of a damaged piece to quarantine."""
        self._store.quarantine(damaged.blob, damaged.why)

    def read(self, blob: Digest, offset: int, length: int) -> Iterable[bytes]:
        """From the store, or from the files that a withdrawal has taken aside and not yet given up."""
        try:
            return self._store.iterate(blob, offset, length)
        except NotFound:
            return self._withheld.read(blob, offset, length)
