"""Whether all that a `published` or `observed` statement names is here: side objects, then files of its manifest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from comity.content.store import BlobStore
from comity.node.core import Core
from comity.node.publishing.arrivals import Arrivals
from comity.node.publishing.pending import Want
from comity.trust.digest import Digest, sha256
from comity.trust.errors import Malformed, Untrusted
from comity.trust.manifest import MAX_BYTES as MAX_MANIFEST
from comity.trust.manifest import Manifest
from comity.trust.pieces import MAX_BYTES as MAX_INDEX
from comity.trust.pieces import PieceIndex, PieceLayout, check_records
from comity.trust.statement import SideObject, Statement
from comity.trust.statements.published import Published
from comity.trust.upstream.observed import Observed


def missing_objects(store: BlobStore, statements: Iterable[Statement]) -> list[Want]:
    """Side objects that are not here. Blocking. Raises Untrusted for one that is here and has another size."""
    named = dict.fromkeys(item for statement in statements for item in statement.objects)
    return [Want(item.digest, item.size) for item in named if not _has(store, item.digest, item.size)]


def read_artifact(store: BlobStore, manifest: SideObject, pieces: SideObject) -> tuple[Manifest, PieceIndex]:
    """The two documents that name every byte of an artifact; both are here. Blocking.

    Raises Malformed, and Untrusted where they are not about the same files.
    """
    contents = Manifest.parse(_document(store, manifest, MAX_MANIFEST))
    index = PieceIndex.parse(_document(store, pieces, MAX_INDEX))
    if [path for path, _ in index.files] != [entry.path for entry in contents.files]:
        raise Untrusted("piece index refused", why="it does not list the manifest's files", code="PIECE-INDEX")
    return contents, index


def missing_files(store: BlobStore, manifest: Manifest) -> list[Want]:
    """Files of an artifact that are not here, each once. Blocking."""
    wants = {entry.sha256: Want(entry.sha256, entry.size, entry.path) for entry in manifest.files}
    if (empty := wants.get(sha256(b""))) is not None and empty.size == 0:
        store.put(empty.digest, b"")
    return [want for want in wants.values() if not _has(store, want.digest, want.size)]


def check_pieces(core: Core, arrivals: Arrivals, published: Published | Observed) -> None:
    """Hold the piece index against the bytes; remember the records by which others fetch them. Blocking.

    Raises Untrusted (PIECE-INDEX, PIECE-RECORDS) where the index is not what these files give.
    """
    manifest, index = read_artifact(core.store, published.manifest, published.pieces)
    for want, layout in _cut(manifest, index):
        records = core.ledger.pieces.records(want.digest, layout.layout)
        if records is None:
            arrivals.records(want)
            records = core.ledger.pieces.records(want.digest, layout.layout)
        if records is None:
            why = f"{want.path} is not cut as {layout.layout}"
            raise Untrusted("piece index refused", why=why, code="PIECE-INDEX")
        check_records(records, size=want.size, expected=layout)


def _cut(manifest: Manifest, index: PieceIndex) -> Iterator[tuple[Want, PieceLayout]]:
    for entry, (_, layout) in zip(manifest.files, index.files, strict=True):
        yield Want(entry.sha256, entry.size, entry.path), layout


def _document(store: BlobStore, item: SideObject, limit: int) -> bytes:
    if item.size > limit:
        raise Malformed("document too large", why=f"{item.size} bytes, at most {limit} are read")
    return b"".join(store.iterate(item.digest, 0, item.size))


def _has(store: BlobStore, digest: Digest, size: int) -> bool:
    if not store.has(digest):
        return False
    if (found := store.size(digest)) != size:
        why = f"{digest} has {found} bytes, not {size}"
        raise Untrusted("a size that cannot be", why=why, code="SIZE")
    return True
