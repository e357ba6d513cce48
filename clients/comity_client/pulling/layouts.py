"""How a file can be cut: piece indexes that somebody names, and the records that prove to be theirs.

A wrong piece index costs a retry, never a wrong file: the whole-file SHA-256 of the manifest decides.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

from comity.transfer.plan import Wanted
from comity.trust.digest import Digest, short
from comity.trust.errors import ComityError, Malformed, NotFound, Unavailable, Untrusted
from comity.trust.judging.reading import Readings
from comity.trust.manifest import FileEntry, Manifest
from comity.trust.pieces import PieceIndex, PieceLayout, PieceRecord, check_records
from comity.trust.statements.claims import parse_hold
from comity.trust.upstream.observed import OBSERVED, Observed

from comity_client.evidence.collecting import fetch_object
from comity_client.nodes.session import Session


class Layouts:
    """The piece indexes of one artifact, each fetched when the ones before it failed."""

    def __init__(self, session: Session, manifest: Manifest, indexes: Iterable[Digest]) -> None:
        self._session = session
        self._manifest = manifest
        self._digests = tuple(dict.fromkeys(indexes))
        self._parsed: dict[Digest, dict[str, PieceLayout]] = {}

    async def ways(self, entry: FileEntry) -> AsyncGenerator[Wanted, None]:
        """The file as each index cuts it. Raises Unavailable where no index leads to records."""
        failures: list[str] = []
        usable = False
        for digest in self._digests:
            try:
                layout = (await self._index(digest))[entry.path]
                want = Wanted(entry.sha256, entry.size, await self._records(entry, layout))
            except KeyError:
                failures.append(f"index {short(digest)} does not list it")
            except ComityError as error:
                failures.append(f"index {short(digest)}: {error}")
            else:
                usable = True
                yield want
        if not usable:
            why = "; ".join(failures) or "no statement names a piece index"
            raise Unavailable(f"{entry.path} cannot be had in pieces", why=why, code="PIECE-INDEX")

    async def document(self) -> bytes:
        """The bytes of the first index that can be had. Raises NotFound, Unavailable."""
        failure: ComityError = NotFound("no statement names a piece index")
        for digest in self._digests:
            try:
                return await fetch_object(self._session, digest)
            except ComityError as error:
                failure = error
        raise failure

    async def _index(self, digest: Digest) -> dict[str, PieceLayout]:
        if digest not in self._parsed:
            self._parsed[digest] = dict(PieceIndex.parse(await fetch_object(self._session, digest)).files)
        return self._parsed[digest]

    async def _records(self, entry: FileEntry, layout: PieceLayout) -> list[PieceRecord]:
        if layout.count == 1 and entry.size:  # its only piece is the file, whose hash the manifest gives
            only = PieceRecord(entry.size, bytes.fromhex(entry.sha256))
            return check_records(only.encode(), size=entry.size, expected=layout)
        if layout.count == 0:
            return check_records(b"", size=entry.size, expected=layout)
        refusal: ComityError | None = None
        async with aclosing(self._session.answers(lambda node: node.records(entry.sha256, layout.layout))) as offers:
            async for data in offers:
                try:
                    return check_records(data, size=entry.size, expected=layout)
                except (Malformed, Untrusted) as error:
                    refusal = error
        raise refusal or Unavailable("no records", why=f"nobody gives those of {entry.path} in {layout.layout}")


def named_indexes(readings: Readings, first: Digest | None) -> list[Digest]:
    """Piece indexes that statements about the artifact name, `first` before the others."""
    found = [first] if first else []
    found += [publication.published.pieces.digest for publication in readings.publications]
    for entry in readings.entries:
        if entry.statement.predicate == "hold":
            try:
                found.append(parse_hold(entry.statement).pieces)
            except Malformed:
                continue
        if entry.statement.predicate == OBSERVED:
            with contextlib.suppress(Malformed):
                found.append(Observed.parse(entry.statement).pieces.digest)
    return found
