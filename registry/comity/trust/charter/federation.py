"""The federation file: all that a new user or node needs to find a federation and to verify it later. One JSON file.

It holds every charter body since the genesis with its certificate, so each member id provably leads to the keys
listed for it, and the nodes: their records and addresses. A user gets the file from two members over separate
channels and compares them; this is the only step that needs trust. Everything later is verified against the pinned
body. Source: protocol, section 7.9.

200 members and 100 epochs make more than 200 MB, three quarters of them certificates. So a file is read
(`federation_reader`) and written (`federation_writer`) one epoch at a time
([decision 37](../../../../docs/decisions/0037-federation-files-epoch-by-epoch.md)).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from comity.trust.charter.certificate import Certificate
from comity.trust.charter.document import Body
from comity.trust.charter.federation_reader import FederationReader, Keep, in_chunks
from comity.trust.charter.federation_writer import encode_federation
from comity.trust.charter.node_records import FederationNode
from comity.trust.encoding import Digest
from comity.trust.evidence import EvidenceReader
from comity.trust.statement import Entry


@dataclass(frozen=True, slots=True)
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
        file = FederationReader(keep)
        file.document(chunks)
        nodes = file.nodes(reader or EvidenceReader())
        return cls(tuple(file.chain), tuple(file.certificates), nodes, tuple(file.identity_entries))

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
