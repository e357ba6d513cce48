"""Federation files on a disk, read one epoch at a time: a file may be larger than the memory that a reader should use.

The certificates of small files stay in memory. Of a larger file, a certificate is read again where it is needed, and
refused if its bytes are not those that were verified.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from comity.bounded_file import read_chunks
from comity.trust.charter.federation import MAX_BYTES, Federation, parse_certificate
from comity.trust.errors import Conflict, Unavailable
from comity.trust.evidence import EvidenceReader
from comity.trust.json_chunks import JsonSlice

IN_MEMORY: Final = 8 * 1024 * 1024
"""Certificates in the first bytes of a file, up to this one, stay in memory."""
FederationSource: TypeAlias = "Path | bytes | Federation"
"""A file, its bytes, or what was read from one."""


@dataclass(frozen=True, slots=True)
class StoredCertificate:
    """The lines of a certificate at a position in a file.

    Each iteration reads them, and raises Unavailable if the file is gone, Conflict (CHANGED) if it has other bytes
    there.
    """

    path: Path
    position: int
    size: int
    digest: bytes

    def __iter__(self) -> Iterator[bytes]:
        try:
            with self.path.open("rb") as file:
                file.seek(self.position)
                data = file.read(self.size)
        except OSError as error:
            raise Unavailable(f"{self.path} cannot be read", why=error.strerror or str(error)) from error
        if hashlib.sha256(data).digest() != self.digest:
            why = "it has other bytes than those that were verified"
            raise Conflict(f"{self.path.name} changed", why=why, hint="run the same command again", code="CHANGED")
        return iter(parse_certificate(data))


def read_federation(path: Path, reader: EvidenceReader | None = None) -> Federation:
    """Read and verify a federation file, see `Federation.read`. Raises NotFound, Unavailable, Malformed, Untrusted."""

    def keep(at: int, item: JsonSlice, lines: tuple[bytes, ...]) -> Iterable[bytes]:
        if item.position + len(item.data) <= IN_MEMORY:
            return lines
        digest = hashlib.sha256(item.data).digest()
        return StoredCertificate(path.absolute(), item.position, len(item.data), digest)

    return Federation.read(read_chunks(path, MAX_BYTES), reader, keep)


def load_federation(source: FederationSource) -> Federation:
    """The verified federation of a source. Raises NotFound, Unavailable, Malformed, Untrusted."""
    if isinstance(source, Path):
        return read_federation(source)
    return Federation.parse(source) if isinstance(source, bytes) else source
