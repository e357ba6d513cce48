"""This node's own copies: what its log says about them, their pieces for audits, and the files that were taken aside.

`OwnClaims` reads holds and withdrawals in the log's order. The statements of the own log are proven in the transaction
that logs them, so what is logged counts at once.

What a withdrawal has taken out of the store is readable for this node's own audits, until the withdrawal ends: it
compares the answers of others with these files. Nothing else reads them.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from comity.content.blobs import BlobStore
from comity.ledger.entry_index import EntryQuery
from comity.ledger.ledger import Ledger
from comity.node.own_log import iterate_entries
from comity.node.uploads import read_artifact
from comity.rules.audit import DamagedPiece, PieceNumbers
from comity.rules.pieces import PieceLayout, check_records
from comity.trust.artifact import FileEntry, PieceRecord
from comity.trust.copies import HoldWithdrawn, hold_of
from comity.trust.encoding import Digest, short
from comity.trust.errors import NotFound
from comity.trust.frozen import frozen
from comity.trust.statement import SideObject, Statement, parse_entry
from comity.trust.statement_kinds import HOLD_PREDICATES, HOLD_WITHDRAWN

MAX_DOCUMENTS: Final = 64 * 1024**2
"""Bytes of the manifests and piece indexes that are kept, parsed, for the next audit."""


@frozen
class StandingHold:
    """A hold at `index` of this node's log that was not withdrawn later."""

    index: int
    manifest: SideObject
    pieces: SideObject


class OwnClaims:
    """Blocking; thread-safe.

    Args:
        node: the id of this node. log: the verifier key of its log.
    """

    def __init__(self, ledger: Ledger, node: Digest, log: str) -> None:
        self._ledger = ledger
        self._node = node
        self._log = log

    def hold(self, artifact: Digest, pieces: Digest | None = None) -> StandingHold | None:
        """The newest claim of a copy of an artifact, with the piece index `pieces` if one is given; None if it was
        withdrawn later."""
        withdrawn = max((index for index, _ in self._about(artifact, HOLD_WITHDRAWN)), default=-1)
        found: StandingHold | None = None
        for predicate in HOLD_PREDICATES:
            for index, statement in self._about(artifact, predicate):
                hold = hold_of(statement, artifact)
                named = hold is not None and pieces in (None, hold.pieces.digest)
                if hold is not None and named and index > (found.index if found else withdrawn):
                    found = StandingHold(index, hold.manifest, hold.pieces)
        return found

    def withdrew(self, artifact: Digest) -> bool:
        """Whether this node claimed a copy of an artifact, withdrew it, and claims none now."""
        return self.hold(artifact) is None and any(True for _ in self._about(artifact, HOLD_WITHDRAWN))

    def keeps(self, artifact: Digest) -> bool:
        """Whether the last withdrawal of an artifact says that its bytes are kept."""
        withdrawals = [statement for _, statement in self._about(artifact, HOLD_WITHDRAWN)]
        return bool(withdrawals) and HoldWithdrawn.parse(withdrawals[-1]).kept

    def _about(self, artifact: Digest, predicate: str) -> Iterator[tuple[int, Statement]]:
        for item in iterate_entries(self._ledger, EntryQuery(artifact, predicate, self._node, self._log)):
            yield item.index, parse_entry(item.line).statement


class WithheldFiles:
    """Blocking; thread-safe. Raises Unavailable and OutOfSpace where the disk or the service fails."""

    def __init__(self, store: BlobStore) -> None:
        self._blobs = store.withheld()
        self._lock = threading.Lock()
        self._readable: dict[Digest, Digest] = {}
        """By file, the artifact whose withdrawal has taken it and is not over."""

    def artifacts(self) -> list[Digest]:
        return self._blobs.artifacts()

    def take(self, artifact: Digest, files: Iterable[Digest]) -> int:
        """Move files out of the store. Returns their bytes."""
        taken = 0
        for digest in files:
            with self._lock:
                self._readable[digest] = artifact
            taken += self._blobs.take(artifact, digest)
        return taken

    def end(self, artifact: Digest) -> None:
        """The withdrawal is over: its files are not read any more."""
        with self._lock:
            self._readable = {digest: other for digest, other in self._readable.items() if other != artifact}

    def give_back(self, artifact: Digest) -> None:
        """Move all files of an artifact back into the store."""
        self._blobs.give_back(artifact)

    def erase(self, artifact: Digest) -> None:
        self._blobs.erase(artifact)

    def read(self, digest: Digest, offset: int, length: int) -> Iterator[bytes]:
        """Read a file that a withdrawal has taken aside. Raises NotFound."""
        with self._lock:
            artifact = self._readable.get(digest)
        if artifact is None:
            raise NotFound("no such blob", why=short(digest))
        return self._blobs.read(artifact, digest, offset, length)


class OwnPieces:
    """Implements `PieceSource` over the blob store. Blocking; thread-safe.

    Attributes:
        on_damaged: to be called on the event loop when a piece was found to be damaged, after its file was quarantined.
    """

    def __init__(
        self, ledger: Ledger, store: BlobStore, withheld: WithheldFiles, on_damaged: Callable[[], None]
    ) -> None:
        self.on_damaged = on_damaged
        self._withheld = withheld
        self._ledger = ledger
        self._store = store
        self._lock = threading.Lock()
        self._parsed: OrderedDict[tuple[Digest, Digest], tuple[PieceNumbers, int]] = OrderedDict()

    def numbers(self, manifest: SideObject, pieces: SideObject) -> PieceNumbers:
        """The numbering of an artifact by a piece index. Raises Malformed, Untrusted, NotFound."""
        key = manifest.digest, pieces.digest
        with self._lock:
            if key in self._parsed:
                self._parsed.move_to_end(key)
                return self._parsed[key][0]
        # Without the lock: large documents take seconds, and others ask for those of other artifacts.
        numbers = PieceNumbers(*read_artifact(self._store, manifest, pieces))
        with self._lock:
            self._parsed[key] = numbers, manifest.size + pieces.size
            while len(self._parsed) > 1 and sum(size for _, size in self._parsed.values()) > MAX_DOCUMENTS:
                self._parsed.popitem(last=False)
        return numbers

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
