"""Who is who, as this node's own pins say: its member, the federation it belongs to, and the nodes of all members.

A node counts by a record that the pinned charter body proves; the records that the federation file brings are where it
starts, and those that turn up in logs are added. Nothing here does I/O or asks anybody.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from comity.trust.charter import Member
from comity.trust.claims import Addresses
from comity.trust.digest import Digest
from comity.trust.errors import ComityError, Untrusted
from comity.trust.federation import Federation, prove_record
from comity.trust.identity import Inception, check_inception
from comity.trust.node_record import NodeRecord, check_node_record
from comity.trust.note import VerifierKey
from comity.trust.statement import Author, Entry, parse_entry
from comity.wire.certs import Pin


@dataclass(frozen=True, slots=True)
class Seat:
    """This node's own lines: its member's inception and the record that binds its keys."""

    inception: Inception
    record: NodeRecord
    inception_line: bytes
    record_line: bytes

    @classmethod
    def parse(cls, inception_line: bytes, record_line: bytes) -> Self:
        """Raises Malformed, and Untrusted where the lines do not prove themselves and each other."""
        inception = check_inception(parse_entry(inception_line))
        record = check_node_record(parse_entry(record_line), inception.keys)
        if record.member != inception.id:
            raise Untrusted("not this member's node", why="node-record.line is another member's", code="NODE-RECORD")
        return cls(inception, record, inception_line, record_line)


@dataclass(frozen=True, slots=True)
class Peer:
    """Another node of the federation, and hints where it listens."""

    member: Member
    record: NodeRecord
    line: bytes
    mutual: tuple[str, ...]
    open: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def origin(self) -> str:
        return self.record.origin


class Membership:
    """The nodes that count here. Grows while the node runs; touched by the event loop only, but for `pins`."""

    def __init__(self, seat: Seat, federation: Federation | None) -> None:
        self.seat = seat
        self.federation = federation
        self._peers: dict[str, Peer] = {}
        self._pins: tuple[Pin, ...] = ()
        for node in federation.nodes if federation else ():
            self._add(node.record, node.line, node.mutual, node.open)

    @property
    def peers(self) -> tuple[Peer, ...]:
        return tuple(self._peers.values())

    @property
    def seated(self) -> bool:
        """Whether the pinned charter has a seat for this node's member."""
        return self.federation is not None and self.federation.body.member(self.seat.inception.id) is not None

    def peer(self, origin: str) -> Peer | None:
        return self._peers.get(origin)

    def by_certificate(self, certificate: bytes | None) -> Peer | None:
        return next((peer for peer in self.peers if peer.record.tls == certificate), None)

    def pins(self) -> tuple[Pin, ...]:
        """The certificates let in at the mutual door. Called from gRPC's own threads."""
        return self._pins

    def operators(self) -> tuple[Pin, ...]:
        return tuple(Pin.of(der) for der in self.seat.record.operators)

    def log_key(self, origin: str) -> VerifierKey | None:
        """The key of a log that this node has to do with."""
        record = self._record_of(origin)
        return record.log if record else None

    def cosigner_keys(self) -> tuple[VerifierKey, ...]:
        """Every cosigner key that counts, this node's own included."""
        records = (self.seat.record, *(peer.record for peer in self.peers))
        return tuple(key for record in records for key in record.cosigners)

    def node(self, author: Author) -> NodeRecord | None:
        """The record of the node that `author` claims to be."""
        records = (self.seat.record, *(peer.record for peer in self.peers))
        return next((record for record in records if record.node == author), None)

    def member(self, identity: Digest) -> Member | None:
        return self.federation.body.member(identity) if self.federation else None

    def learn(self, entries: Iterable[Entry]) -> tuple[Peer, ...]:
        """Add the nodes whose records stand among `entries` and that the pinned charter proves; those that were new."""
        found = []
        for entry in entries:
            if entry.statement.predicate != "node-record" or self.federation is None:
                continue
            try:
                record = prove_record(entry, self.federation.body)
                Pin.of(record.tls)
            except ComityError:
                continue  # somebody's claim that the charter does not support, or a certificate that nobody can pin
            if record.origin not in self._peers and record.origin != self.seat.record.origin:
                self._add(record, entry.line, (), ())
                found.append(self._peers[record.origin])
        return tuple(found)

    def relocate(self, origin: str, addresses: Addresses) -> None:
        """Take note of where a node says that it listens."""
        peer = self._peers.get(origin)
        if peer is not None:
            self._peers[origin] = Peer(peer.member, peer.record, peer.line, addresses.mutual, addresses.open)

    def _add(self, record: NodeRecord, line: bytes, mutual: tuple[str, ...], open_: tuple[str, ...]) -> None:
        member = self.member(record.member)
        if record.origin == self.seat.record.origin or member is None:
            return
        self._peers[record.origin] = Peer(member, record, line, mutual, open_)
        self._pins = tuple(Pin.of(peer.record.tls) for peer in self._peers.values())

    def _record_of(self, origin: str) -> NodeRecord | None:
        if origin == self.seat.record.origin:
            return self.seat.record
        peer = self._peers.get(origin)
        return peer.record if peer else None
