"""The federation file: all that a new user or node needs to find a federation and to verify it later. One JSON file.

It holds every charter body since the genesis with its certificate, so each member id provably leads to the keys
listed for it, and the nodes: their records and addresses. A user gets the file from two members over separate
channels and compares them; this is the only step that needs trust. Everything later is verified against the pinned
body. Source: protocol, section 7.9.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from comity.trust.charter.certificate import certify, certify_genesis
from comity.trust.charter.document import MAX_BYTES as MAX_CHARTER
from comity.trust.charter.document import Body
from comity.trust.encoding import Digest, Fields, Json, parse_json
from comity.trust.errors import ComityError, Malformed, Untrusted
from comity.trust.evidence import EvidenceReader
from comity.trust.rotation import RotationChains, SigningStates
from comity.trust.statement import MAX_LINE, Entry
from comity.trust.statements import NodeRecord, parse_node_record, prove_node_record, read_addresses

SCHEMA: Final = "comity/federation/v1"
MAX_BYTES: Final = 64 * 1024 * 1024
MAX_EPOCHS: Final = 10_000
MAX_LINES: Final = 8192
MAX_NODES: Final = 1000


@dataclass(frozen=True, slots=True)
class FederationNode:
    """A node in the file: its verified record, the line that proves it, and its addresses (hints)."""

    record: NodeRecord
    line: bytes
    mutual: tuple[str, ...]
    open: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Federation:
    """The bodies of a federation from the genesis on, their certificates, and the nodes of its members.

    Made only by `parse` and `assemble`.
    """

    chain: tuple[Body, ...]
    certificates: tuple[tuple[bytes, ...], ...]
    nodes: tuple[FederationNode, ...]

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
        """Parse and verify a federation file: the genesis by every member's consent, each later body by its
        certificate, each node record by its member's keys.

        Raises Malformed/Untrusted. Whether it is the *right* federation is the owner's decision.

        Args:
            reader: that of the session; default: a new one.
        """
        reader = reader or EvidenceReader()
        fields, chain, certificates = _open(data, reader)
        # Lines of a certificate that are not statements are ignored.
        read = (reader.readable(line) for lines in certificates for line in lines)
        chains = RotationChains(entry for entry in read if entry is not None)
        nodes = tuple(_node(item, chain, chains, reader) for item in fields.items("nodes", most=MAX_NODES))
        fields.done()
        return cls(chain, certificates, nodes)

    @classmethod
    def assemble(
        cls, chain: Sequence[Body], certificates: Sequence[Iterable[bytes]], nodes: Iterable[FederationNode]
    ) -> Federation:
        """Build a file, and verify it in the same way as its readers. Raises Malformed/Untrusted."""
        lines = tuple(tuple(dict.fromkeys(certificate)) for certificate in certificates)
        return cls.parse(cls(tuple(chain), lines, tuple(nodes)).encode())

    def encode(self) -> bytes:
        epochs: list[Json] = [
            {"body": body.data.decode(), "certificate": [line.decode() for line in lines]}
            for body, lines in zip(self.chain, self.certificates, strict=True)
        ]
        nodes: list[Json] = [
            {"record": node.line.decode(), "mutual": list(node.mutual), "open": list(node.open)} for node in self.nodes
        ]
        document: dict[str, Json] = {"schema": SCHEMA, "federation": self.id, "epochs": epochs, "nodes": nodes}
        return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"


def prove_bodies(data: bytes) -> tuple[Body, ...]:
    """The charter bodies of a federation file, verified as by `Federation.parse`. Nodes are not verified, because they
    decide nothing. Raises Malformed/Untrusted."""
    fields, chain, _ = _open(data, EvidenceReader())
    fields.items("nodes", most=MAX_NODES)
    fields.done()
    return chain


def prove_record(entry: Entry, body: Body, chains: RotationChains | None = None) -> NodeRecord:
    """The record, if a member of `body` signed it with keys listed there, or with keys that its own rotations lead to.

    The time of the record and disputes between rotations do not matter: every key on every branch counts. Otherwise a
    later rotation could invalidate a counted cosigner (I4), and a member could withdraw what it witnessed by a
    conflicting rotation. A stolen key, current or retired, cannot start a branch. Most recovery keys can, but gain
    little: a seat counts once for any number of keys. Pinning a body that lists newer keys ends that branch.

    Raises Malformed/Untrusted.
    """
    return prove_record_states(entry, body, chains or RotationChains())[0]


def prove_record_states(entry: Entry, body: Body, chains: RotationChains) -> tuple[NodeRecord, SigningStates]:
    """As `prove_record`, and also the key states by which the member signed."""
    claimed = parse_node_record(entry)
    member = body.member(claimed.member)
    if member is None:
        raise Untrusted("node record refused", why="its member is not in the pinned charter", code="NON-MEMBER")
    states = SigningStates.of(chains.follow(member.key_state), entry.envelope, claimed.bound_keys)
    return prove_node_record(claimed, entry, states), states


def _open(data: bytes, reader: EvidenceReader) -> tuple[Fields, tuple[Body, ...], tuple[tuple[bytes, ...], ...]]:
    """The remaining fields (nodes), the verified bodies, and their certificates."""
    fields = Fields(parse_json(data, limit=MAX_BYTES, what="federation file"), "federation file")
    fields.constant("schema", SCHEMA)
    epochs = [_epoch(item) for item in fields.items("epochs", least=1, most=MAX_EPOCHS)]
    chain, certificates = tuple(body for body, _ in epochs), tuple(lines for _, lines in epochs)
    certify_genesis(chain[0], certificates[0], reader.entry)
    for previous, body, lines in zip(chain, chain[1:], certificates[1:], strict=False):
        certify(previous, body, lines, parse=reader.entry)
    if fields.digest("federation") != chain[0].digest:
        raise Untrusted("federation file refused", why="its bodies belong to another federation", code="FEDERATION")
    return fields, chain, certificates


def _epoch(item: Json) -> tuple[Body, tuple[bytes, ...]]:
    fields = Fields(item, "federation epoch")
    body = Body.parse(_text(fields.take("body"), MAX_CHARTER))
    lines = tuple(_text(line, MAX_LINE) for line in fields.items("certificate", most=MAX_LINES))
    fields.done()
    return body, lines


def _node(item: Json, chain: tuple[Body, ...], chains: RotationChains, reader: EvidenceReader) -> FederationNode:
    fields = Fields(item, "federation node")
    line = _text(fields.take("record"), MAX_LINE)
    mutual, open_ = read_addresses(fields, "mutual"), read_addresses(fields, "open")
    fields.done()
    return FederationNode(_proven(reader.entry(line), chain, chains), line, mutual, open_)


def _proven(entry: Entry, chain: tuple[Body, ...], chains: RotationChains) -> NodeRecord:
    """The record, verified by the newest body that proves it: a node does not sign again for each epoch."""
    refusals: list[ComityError] = []
    for body in reversed(chain):
        try:
            return prove_record(entry, body, chains)
        except ComityError as error:
            refusals.append(error)
    raise refusals[0]


def _text(value: Json, limit: int) -> bytes:
    if not isinstance(value, str) or len(value) > limit:
        raise Malformed("federation file is malformed", why=f"expected a string of at most {limit} characters")
    return value.encode()
