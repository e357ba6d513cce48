"""The federation file: all that a new user or node needs to find a federation and to verify it later. One JSON file.

It holds every charter body since the genesis with its certificate, so each member id provably leads to the keys
listed for it, and the nodes: their records and addresses. A user gets the file from two members over separate
channels and compares them; this is the only step that needs trust. Everything later is verified against the pinned
body.

A node record binds a node's keys to its member, and counts before a charter if a member of the charter signed it: with
the keys that the charter body lists, or with keys that the member's own rotations lead to.

200 members and 100 epochs make more than 200 MB, three quarters of them certificates. So a file is read and written one
epoch at a time, and what is kept of a certificate is the choice of the caller
(docs/decisions, 37). Source: protocol, section 7.9.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, TypeAlias

from comity.trust.charter.certificate import certify, certify_genesis
from comity.trust.charter.document import MAX_BYTES as MAX_CHARTER
from comity.trust.charter.document import Body
from comity.trust.encoding import Fields, Json, parse_json
from comity.trust.errors import ComityError, Malformed, Untrusted
from comity.trust.evidence import EvidenceReader
from comity.trust.frozen import frozen
from comity.trust.json_chunks import JsonChunks, JsonSlice
from comity.trust.node_records import ADDRESS_LIST, NodeRecord, prove_node_record
from comity.trust.rotation import RotationChains, SigningStates
from comity.trust.statement import MAX_LINE, Entry, parse_entry
from comity.trust.statement_kinds import KEY_PREDICATES

SCHEMA: Final = "comity/federation/v1"
MEMBERS: Final = ("schema", "federation", "epochs", "nodes")
MAX_BYTES: Final = 512 * 1024 * 1024
"""Maximum size of a file: twice that of 200 members with 100 epochs."""
MAX_EPOCH: Final = 64 * 1024 * 1024
"""Maximum bytes of one epoch in the file, with its certificate."""
MAX_KEPT: Final = 128 * 1024 * 1024
"""Maximum bytes of what stays in memory: of all charter bodies, of all inceptions and rotations, and of all nodes."""
MAX_EPOCHS: Final = 10_000
MAX_LINES: Final = 8192
MAX_NODES: Final = 1000
MAX_NODE: Final = 1024 * 1024
"""Maximum bytes of one node in the file."""
MAX_SHORT: Final = 1024
"""Maximum bytes of any other value."""
CHUNK: Final = 1024 * 1024

Keep: TypeAlias = Callable[[int, JsonSlice, tuple[bytes, ...]], Iterable[bytes]]
"""Returns what is kept of a certificate: an object whose every iteration gives its lines.

Called with the epoch's number, its bytes in the file, and the lines.
"""


@frozen
class FederationNode:
    """A node as federation files list it: its verified record, the line that proves it, and its addresses (hints)."""

    record: NodeRecord
    line: bytes
    mutual: tuple[str, ...]
    open: tuple[str, ...]


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
    claimed = NodeRecord.parse(entry.statement)
    member = body.member(claimed.member)
    if member is None:
        raise Untrusted("node record refused", why="its member is not in the pinned charter", code="NON-MEMBER")
    states = SigningStates.of(chains.follow(member.key_state), entry.envelope, claimed.bound_keys)
    return prove_node_record(claimed, entry, states), states


def prove_by_newest(entry: Entry, chain: Sequence[Body], chains: RotationChains) -> NodeRecord:
    """The record, verified by the newest body that proves it: a node does not sign again for each epoch.

    `chain` has at least one body. If none proves the record, raises Malformed/Untrusted, as for the newest body.
    """
    refusals: list[ComityError] = []
    for body in reversed(chain):
        try:
            return prove_record(entry, body, chains)
        except ComityError as error:
            refusals.append(error)
    raise refusals[0]


def in_chunks(data: bytes) -> Iterator[bytes]:
    """`data` in pieces, so that its reader copies one at a time."""
    return (data[at : at + CHUNK] for at in range(0, len(data), CHUNK))


def prove_epochs(chunks: Iterable[bytes]) -> tuple[tuple[Body, ...], tuple[Entry, ...]]:
    """The charter bodies of a federation file, verified as by `Federation.read`, and the inceptions and rotations in
    their certificates. Nodes are not verified, because they decide nothing. Raises Malformed/Untrusted, and what
    `chunks` raises."""
    reader = FederationReader(lambda at, item, lines: ())
    reader.document(chunks)
    return tuple(reader.chain), tuple(reader.identity_entries)


def parse_certificate(data: bytes) -> tuple[bytes, ...]:
    """The lines of the certificate in the bytes of an epoch, which were verified before. Raises Malformed."""
    return _lines(Fields(parse_json(data, limit=MAX_EPOCH, what="federation epoch"), "federation epoch"))


class FederationReader:
    """Reads one file. Its attributes are complete, and the bodies verified, when `document` has returned.

    Args:
        keep: what is kept of each certificate.
    """

    def __init__(self, keep: Keep) -> None:
        self.chain: list[Body] = []
        self.certificates: list[Iterable[bytes]] = []
        self.identity_entries: list[Entry] = []
        self._nodes: list[Json] = []
        self._keep = keep
        self._bodies_size = self._identities_size = self._nodes_size = 0

    def document(self, chunks: Iterable[bytes]) -> None:
        """Read the whole file and verify its bodies. Raises Malformed/Untrusted, and what `chunks` raises."""
        found = dict[str, Json]()
        document = JsonChunks(chunks, limit=MAX_BYTES, what="federation file")
        for name in document.members():
            if name not in MEMBERS:
                raise Malformed("federation file is malformed", why=f"unknown member {name[:60]!r}")
            if name == "epochs":
                for item in document.items(most=MAX_EPOCHS, bytes_each=MAX_EPOCH):
                    self._epoch(item)
            elif name == "nodes":
                for item in document.items(most=MAX_NODES, bytes_each=MAX_NODE):
                    self._nodes_size = _kept(self._nodes_size, len(item.data), "nodes")
                    self._nodes.append(parse_json(item.data, limit=MAX_NODE, what="federation node"))
            else:
                value = document.value(MAX_SHORT).data
                found[name] = parse_json(value, limit=MAX_SHORT, what="federation file")
            found.setdefault(name, None)
        self._check(Fields(found, "federation file"))

    def nodes(self, reader: EvidenceReader) -> tuple[FederationNode, ...]:
        """The nodes of the document that was read, each record verified. Raises Malformed/Untrusted."""
        chains = RotationChains(self.identity_entries)
        return tuple(_node(item, self.chain, chains, reader) for item in self._nodes)

    def _check(self, fields: Fields) -> None:
        fields.constant("schema", SCHEMA)
        fields.take("epochs")
        fields.take("nodes")
        federation = fields.digest("federation")
        if not self.chain:
            raise fields.error("it has no epoch")
        if federation != self.chain[0].digest:
            raise Untrusted("federation file refused", why="its bodies belong to another federation", code="FEDERATION")

    def _epoch(self, item: JsonSlice) -> None:
        """Verify the next epoch."""
        body, lines = _parse_epoch(item.data)
        known = len(self.identity_entries)
        self._bodies_size = _kept(self._bodies_size, len(body.data), "charter bodies")
        if self.chain:
            certify(self.chain[-1], body, lines, parse=self._entry)
        else:
            certify_genesis(body, lines, self._entry)
        size = sum(len(entry.line) for entry in self.identity_entries[known:])
        self._identities_size = _kept(self._identities_size, size, "inceptions and rotations")
        self.certificates.append(self._keep(len(self.chain), item, lines))
        self.chain.append(body)

    def _entry(self, line: bytes) -> Entry:
        """Parse a line of a certificate. Inceptions and rotations are kept: any node record may need them."""
        entry = parse_entry(line)
        if entry.statement.predicate in KEY_PREDICATES:
            self.identity_entries.append(entry)
        return entry


def _kept(size: int, more: int, what: str) -> int:
    """The bytes that are kept together with these. Raises Malformed above the limit."""
    if size + more > MAX_KEPT:
        raise Malformed("federation file too large", why=f"its {what} have more than {MAX_KEPT} bytes together")
    return size + more


def _parse_epoch(data: bytes) -> tuple[Body, tuple[bytes, ...]]:
    fields = Fields(parse_json(data, limit=MAX_EPOCH, what="federation epoch"), "federation epoch")
    body, lines = Body.parse(_text(fields.take("body"), MAX_CHARTER)), _lines(fields)
    fields.done()
    return body, lines


def _lines(fields: Fields) -> tuple[bytes, ...]:
    return tuple(_text(line, MAX_LINE) for line in fields.items("certificate", most=MAX_LINES))


def _node(item: Json, chain: Sequence[Body], chains: RotationChains, reader: EvidenceReader) -> FederationNode:
    fields = Fields(item, "federation node")
    line = _text(fields.take("record"), MAX_LINE)
    mutual, open_ = ADDRESS_LIST.read(fields, "mutual"), ADDRESS_LIST.read(fields, "open")
    fields.done()
    return FederationNode(prove_by_newest(reader.entry(line), chain, chains), line, mutual, open_)


def _text(value: Json, limit: int) -> bytes:
    if not isinstance(value, str) or len(value) > limit:
        raise Malformed("federation file is malformed", why=f"expected a string of at most {limit} characters")
    return value.encode()
