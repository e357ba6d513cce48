"""Federation files, read and written one epoch at a time: a file may need more memory than a reader should use.

The certificates of small files stay in memory. Of a larger file, a certificate is read again where it is needed, and
refused if its bytes are not those that were verified.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import field
from pathlib import Path
from typing import Final, TypeAlias

from comity.bounded_file import read_chunks
from comity.trust.charter.certificate import Certificate
from comity.trust.charter.document import Body
from comity.trust.charter.federation import (
    MAX_BYTES,
    SCHEMA,
    FederationNode,
    FederationReader,
    Keep,
    in_chunks,
    parse_certificate,
)
from comity.trust.encoding import Digest, Json
from comity.trust.errors import Conflict, Unavailable
from comity.trust.evidence import EvidenceReader
from comity.trust.frozen import frozen
from comity.trust.json_chunks import JsonSlice
from comity.trust.statement import Entry

IN_MEMORY: Final = 8 * 1024 * 1024
"""Certificates in the first bytes of a file, up to this one, stay in memory."""


@frozen
class Federation:
    """The bodies of a federation from the genesis on, their certificates, and the nodes of its members.

    A certificate may be iterated several times; one that was not kept in memory is read from its file each time, which
    may raise Unavailable, or Conflict if the file changed. Made only by `parse`, `read`, `assemble` and `extended`.
    """

    chain: tuple[Body, ...]
    certificates: tuple[Iterable[bytes], ...]
    nodes: tuple[FederationNode, ...]
    identity_entries: tuple[Entry, ...] = field(default=(), compare=False, repr=False)
    """The inceptions and rotations in the certificates."""

    @property
    def id(self) -> Digest:
        return self.genesis.digest

    @property
    def genesis(self) -> Body:
        return self.chain[0]

    @property
    def body(self) -> Body:
        """The newest body."""
        return self.chain[-1]

    def holds(self, body: Digest) -> Body | None:
        """The body with this digest, if the chain contains it."""
        return next((known for known in self.chain if known.digest == body), None)

    @classmethod
    def parse(cls, data: bytes, reader: EvidenceReader | None = None) -> Federation:
        """As `read`, for bytes in memory."""
        return cls.read(in_chunks(data), reader)

    @classmethod
    def read(
        cls, chunks: Iterable[bytes], reader: EvidenceReader | None = None, keep: Keep = lambda at, item, lines: lines
    ) -> Federation:
        """Parse and verify a federation file, one epoch at a time: the genesis by every member's consent, each later
        body by its certificate, each node record by its member's keys.

        Raises Malformed/Untrusted, and what `chunks` raises. Whether it is the *right* federation is the owner's
        decision.

        Args:
            chunks: the bytes of the file, in pieces of any size.
            reader: that of the session; default: a new one.
            keep: what is kept of each certificate; default: its lines.
        """
        file, reader = FederationReader(keep), reader or EvidenceReader()
        file.document(chunks)
        nodes = file.nodes(reader)
        return cls(tuple(file.chain), tuple(file.certificates), nodes, tuple(map(reader.known, file.identity_entries)))

    @classmethod
    def assemble(
        cls, chain: Sequence[Body], certificates: Sequence[Iterable[bytes]], nodes: Iterable[FederationNode]
    ) -> Federation:
        """Build a file, and verify it in the same way as its readers. Raises Malformed/Untrusted."""
        lines = tuple(tuple(dict.fromkeys(certificate)) for certificate in certificates)
        return cls(tuple(chain), lines, tuple(nodes))._verified()

    def extended(self, more: Iterable[Certificate], nodes: Iterable[FederationNode]) -> Federation:
        """This file with later epochs, and with `nodes` in place of its own; verified as by `assemble`."""
        later = tuple(more)
        chain = (*self.chain, *(certificate.body for certificate in later))
        lines = (*self.certificates, *(certificate.lines for certificate in later))
        return Federation(chain, lines, tuple(nodes))._verified()

    def _verified(self) -> Federation:
        return Federation.read(self.encoded(), keep=lambda at, item, lines: self.certificates[at])

    def encode(self) -> bytes:
        """The whole file. Prefer `encoded` where it is written to a disk."""
        return b"".join(self.encoded())

    def encoded(self) -> Iterator[bytes]:
        """The file in pieces, of which each holds one epoch at most."""
        return encode_federation(self.chain, self.certificates, self.nodes)


def encode_federation(
    chain: Sequence[Body], certificates: Sequence[Iterable[bytes]], nodes: Iterable[FederationNode]
) -> Iterator[bytes]:
    """The file in pieces: a JSON document with an indent of one space.

    Args:
        chain: the bodies from the genesis on.
        certificates: for each body, the lines of its certificate.
        nodes: the nodes in the file.

    Raises ValueError if there are not as many certificates as bodies, and what an iteration of a certificate raises.
    """
    yield f'{{\n "schema": {json.dumps(SCHEMA)},\n "federation": {json.dumps(chain[0].digest)},\n "epochs": ['.encode()
    for at, (body, lines) in enumerate(zip(chain, certificates, strict=True)):
        epoch = {"body": body.data.decode(), "certificate": [line.decode() for line in lines]}
        yield ("," if at else "").encode() + _indented(epoch, 2)
    listed = [{"record": node.line.decode(), "mutual": list(node.mutual), "open": list(node.open)} for node in nodes]
    yield b'\n ],\n "nodes": ' + _indented(listed, 1).lstrip() + b"\n}\n"


def _indented(value: Json, depth: int) -> bytes:
    """`value` as it is inside of a document with an indent of one space, on a line of its own."""
    margin = "\n" + " " * depth
    return (margin + json.dumps(value, indent=1, ensure_ascii=False).replace("\n", margin)).encode()


@frozen
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


FederationSource: TypeAlias = Path | bytes | Federation
"""A file, its bytes, or what was read from one."""


def load_federation(source: FederationSource) -> Federation:
    """The verified federation of a source. Raises NotFound, Unavailable, Malformed, Untrusted."""
    if isinstance(source, Path):
        return read_federation(source)
    return Federation.parse(source) if isinstance(source, bytes) else source
