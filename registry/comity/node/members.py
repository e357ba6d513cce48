"""Who is who, as this node's charter says: its member, the members of the newest epoch, and the nodes of all of them.

It starts with what the federation file brings. Epochs, rotations and node records that turn up later are added; nobody
is forgotten: a removed member's nodes stop counting, but stay known, so that their logs go on being mirrored (I10).
Nothing here does I/O or asks anybody.

A node record counts by whoever signed it: keys that an epoch lists for its member, or that the member's rotations reach
from them, on whatever branch. Of the records of one node the one under the newest undisputed keys is followed, and of
those the last one that stands in the node's own log. The record before it
stays in force beside it until the newer certificate was met, so that a certificate can be announced before it is used.
So does one that stands elsewhere only, for who has lost a TLS key can tell of the next one in others' logs alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

from comity.trust.charter.document import Body, Member
from comity.trust.charter.federation import Federation
from comity.trust.encoding import Digest, short
from comity.trust.errors import ComityError, Untrusted
from comity.trust.identity import Inception, KeySet, Signed, check_inception
from comity.trust.rotation import KeyState, RotationChain, follow
from comity.trust.statement import Author, Entry, parse_entry
from comity.trust.statements import NodeRecord, check_node_record, parse_node_record
from comity.trust.tlog.note import VerifierKey
from comity.wire.tls import CertificatePin

MAX_NODES: Final = 16
"""Nodes of one member that are followed."""
ELSEWHERE: Final = -1
"""The place of a record that was found outside the log that it binds."""
DISPUTED: Final = -1
"""How new keys are that rotations in dispute led to."""


@dataclass(frozen=True, slots=True)
class Seat:
    """This node's own lines: its member's inception and rotations, and the record that binds its keys."""

    inception: Inception
    record: NodeRecord
    inception_line: bytes
    record_line: bytes
    rotation_lines: tuple[bytes, ...] = ()

    @classmethod
    def parse(cls, inception_line: bytes, record_line: bytes, rotation_lines: tuple[bytes, ...] = ()) -> Self:
        """Raises Malformed, and Untrusted where the lines do not prove themselves and each other."""
        inception = check_inception(parse_entry(inception_line))
        chain = follow(KeyState.of_inception(inception), map(parse_entry, rotation_lines))
        record = check_node_record(parse_entry(record_line), chain)
        if record.member != inception.id:
            raise Untrusted("not this member's node", why="node-record.line is another member's", code="NODE-RECORD")
        return cls(inception, record, inception_line, record_line, rotation_lines)


@dataclass(frozen=True, slots=True, order=True)
class PeerKey:
    """Which node is meant: `origin` is its log's name as its member gave it; another member may use the same one."""

    member: Digest
    origin: str

    @classmethod
    def of(cls, record: NodeRecord) -> Self:
        return cls(record.member, record.origin)

    def __str__(self) -> str:
        return f"{self.origin} of {short(self.member)}"


@dataclass(frozen=True, slots=True)
class Peer:
    """Another node of the federation, and hints where it listens.

    `rank` orders the records of one node; `beside` is another one whose certificate is taken as well for now.
    """

    member: Member
    record: NodeRecord
    line: bytes
    mutual: tuple[str, ...]
    open: tuple[str, ...]
    rank: tuple[int, int] = (0, ELSEWHERE)
    beside: NodeRecord | None = None

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def origin(self) -> str:
        return self.record.origin

    @property
    def key(self) -> PeerKey:
        return PeerKey.of(self.record)

    @property
    def certificates(self) -> tuple[bytes, ...]:
        """What this node may show, the newest first."""
        return tuple(dict.fromkeys(record.tls for record in (self.record, self.beside) if record is not None))


@dataclass(frozen=True, slots=True)
class FoundRecord:
    """A node record as it was found: `place` is its index in the log that it binds, or ELSEWHERE."""

    entry: Entry
    place: int = ELSEWHERE


class Membership:
    """The members and nodes that count here. Not thread-safe: call from the event loop."""

    def __init__(self, seat: Seat, federation: Federation | None, bodies: Iterable[Body] = ()) -> None:
        """`bodies` are the epochs that are followed, from genesis on; by default those of the federation file."""
        self.seat = seat
        self.federation = federation
        self.body: Body | None = None
        self._seats: dict[Digest, Member] = {}
        self._chains: dict[Digest, tuple[RotationChain, ...]] = {}
        self._peers: dict[PeerKey, Peer] = {}
        self._records: dict[Author, NodeRecord] = {seat.record.node: seat.record}
        self._superseded: set[bytes] = set()
        """Certificates after which another one was used: they never come back."""
        self._pins: tuple[CertificatePin, ...] = ()
        self._pins_changed: Callable[[], None] = lambda: None
        for body in bodies or (federation.chain if federation else ()):
            self.adopt(body)
        for node in federation.nodes if federation else ():
            self.learn((FoundRecord(parse_entry(node.line)),))
            self.relocate(PeerKey.of(node.record), node.mutual, node.open)

    @property
    def peers(self) -> tuple[Peer, ...]:
        """Every node that was ever proven, this one excepted."""
        return tuple(self._peers.values())

    @property
    def seated(self) -> bool:
        """Whether the newest charter has a seat for this node's member."""
        return self.member(self.seat.inception.id) is not None

    @property
    def others(self) -> tuple[Member, ...]:
        """The members of the newest charter, this node's own excepted."""
        seats = self.body.members if self.body else ()
        return tuple(seat for seat in seats if seat.id != self.seat.inception.id)

    def peer(self, key: PeerKey) -> Peer | None:
        return self._peers.get(key)

    def shown_name(self, peer: Peer) -> str:
        """A name for people that no other node here has: what it is called, and by whom where that is not enough."""
        name = peer.name
        if name.endswith(")") or any(name == other.name for other in self.peers if other.key != peer.key):
            return f"{name} ({peer.key})"
        return name

    def nodes_of(self, member: Digest) -> tuple[Peer, ...]:
        return tuple(peer for peer in self.peers if peer.member.id == member)

    def by_certificate(self, certificate: bytes | None) -> Peer | None:
        return next((peer for peer in self.peers if certificate in peer.certificates), None)

    def pins(self) -> tuple[CertificatePin, ...]:
        """The certificates let in at the mutual port."""
        return self._pins

    def watch_pins(self, changed: Callable[[], None]) -> None:
        """Have `changed` called after each change of `pins`, within the call that changes them. It must not raise."""
        self._pins_changed = changed

    def operators(self) -> tuple[CertificatePin, ...]:
        return tuple(CertificatePin.of(der) for der in self.seat.record.operators)

    def log_keys(self, origin: str) -> tuple[VerifierKey, ...]:
        """The keys of the logs called `origin` that this node has to do with: a log is the pair of its origin and key,
        and another member's log may have the same origin."""
        if origin == self.seat.record.origin:
            return (self.seat.record.log,)
        return tuple(dict.fromkeys(peer.record.log for peer in self.peers if peer.origin == origin))

    def cosigner_keys(self) -> tuple[VerifierKey, ...]:
        """Every cosigner key that was ever proven: whose cosignature counts is for the verifier's own pins to say."""
        return tuple(dict.fromkeys(key for record in self._records.values() for key in record.cosigners))

    def node(self, author: Author) -> NodeRecord | None:
        """The record of the node that `author` claims to be; an older one of the same node included."""
        return self._records.get(author)

    @property
    def node_ids(self) -> tuple[Digest, ...]:
        """The ids of all nodes that were ever proven, this one's first, under each online key that they had."""
        return tuple(author.id for author in self._records)

    def writers(self, log: str) -> frozenset[Author]:
        """Who writes a log, named by its verifier key, by records proven here: one node, under each key that it had."""
        return frozenset(author for author, record in self._records.items() if str(record.log) == log)

    def owner(self, log: str) -> Digest | None:
        """The member whose node writes a log, named by its verifier key."""
        return next((record.member for record in self._records.values() if str(record.log) == log), None)

    def member(self, identity: Digest) -> Member | None:
        """Its seat in the newest charter."""
        return self.body.member(identity) if self.body else None

    def chains(self, identity: Digest) -> tuple[RotationChain, ...]:
        """From each state in which an epoch listed a member to where its rotations led, in order of the epochs."""
        return self._chains.get(identity, ())

    @property
    def known(self) -> tuple[Digest, ...]:
        """Every member that any epoch listed."""
        return tuple(self._seats)

    def reached(self, identity: Digest) -> tuple[KeySet, ...]:
        """Every key set by which a member may have spoken, those in dispute included: what counts for verification."""
        return tuple(dict.fromkeys(state.keys for chain in self.chains(identity) for state in chain.reached))

    def keys(self, identity: Digest) -> tuple[KeySet, ...]:
        """Under which keys a member spoke and speaks, undisputed, the newest last; empty for who never had a seat."""
        return tuple(dict.fromkeys(state.keys for chain in self.chains(identity) for state in chain.states))

    def adopt(self, body: Body) -> None:
        """The next epoch. Members that it lists no longer stay known."""
        self.body = body
        for seat in body.members:
            self._seats[seat.id] = seat
            state, known = seat.key_state, self.chains(seat.id)
            if all(chain.start.digest != state.digest for chain in known):
                steps = [step.entry for chain in known for step in chain.steps]
                self._chains[seat.id] = (*known, follow(state, steps))
        self._peers = {key: replace(peer, member=self._seats[peer.member.id]) for key, peer in self._peers.items()}

    def rotate(self, identity: Digest, entries: Iterable[Entry], *, signed: Signed = KeySet.signed) -> bool:
        """Follow a member's rotations; whether it speaks by newer keys now, so that more records may count.

        Who calls bounds how many there are, whatever that member signs.
        """
        if not self.chains(identity):
            return False
        before, entries = self.reached(identity), list(entries)
        self._chains[identity] = tuple(
            follow(chain.start, (*(step.entry for step in chain.steps), *entries), signed=signed)
            for chain in self.chains(identity)
        )
        return self.reached(identity) != before

    def learn(self, told: Iterable[FoundRecord]) -> tuple[Peer, ...]:
        """Follow the nodes whose records are proven; those that were new. What proves nothing is passed over."""
        found = []
        for item in told:
            try:
                claimed = parse_node_record(item.entry)
                CertificatePin.of(claimed.tls)
                record, age = _prove(claimed, item.entry, self.keys(claimed.member), self.reached(claimed.member))
            except ComityError:
                continue  # somebody's claim that no charter supports, or a certificate that nobody can pin
            if self._follow(record, item.entry.line, (age, item.place)):
                found.append(self._peers[PeerKey.of(record)])
        return tuple(found)

    def relocate(self, key: PeerKey, mutual: tuple[str, ...], open_: tuple[str, ...]) -> None:
        """Take note of where a node says that it listens."""
        peer = self._peers.get(key)
        if peer is not None:
            self._peers[key] = replace(peer, mutual=mutual, open=open_)

    def met(self, key: PeerKey, certificate: bytes) -> None:
        """A node has shown a certificate; if it is the newest one, no other is taken any longer."""
        peer = self._peers.get(key)
        if peer is not None and peer.beside is not None and certificate == peer.record.tls:
            self._peers[key] = replace(peer, beside=None)
            self._pin()

    def _follow(self, record: NodeRecord, line: bytes, rank: tuple[int, int]) -> bool:
        """Take a proven record up; whether its node was not known."""
        key = PeerKey.of(record)
        known = self._peers.get(key)
        if record.origin == self.seat.record.origin:
            return False
        if known is None:
            if len(self.nodes_of(record.member)) >= MAX_NODES:
                return False
            self._peers[key] = Peer(self._seats[record.member], record, line, (), (), rank)
        elif rank > known.rank:
            beside = known.beside if record.tls == known.record.tls else known.record
            self._superseded.add(known.record.tls)
            self._peers[key] = replace(known, record=record, line=line, rank=rank, beside=beside)
        elif rank == (known.rank[0], ELSEWHERE) and record.tls not in {known.record.tls, *self._superseded}:
            self._peers[key] = replace(known, beside=record)
        else:
            return False
        self._records[record.node] = record
        self._pin()
        return known is None

    def _pin(self) -> None:
        self._pins = tuple(CertificatePin.of(der) for peer in self._peers.values() for der in peer.certificates)
        self._pins_changed()


def _prove(
    record: NodeRecord, entry: Entry, ordered: Sequence[KeySet], others: Iterable[KeySet]
) -> tuple[NodeRecord, int]:
    """The record, proven by the newest of `ordered` that signed it, and how new those are: -1 for `others`.

    Raises Malformed/Untrusted.
    """
    for age in reversed(range(len(ordered))):
        if ordered[age].signed(entry.envelope, record.bound_keys):
            return record, age
    if any(keys.signed(entry.envelope, record.bound_keys) for keys in others):
        return record, DISPUTED
    raise Untrusted("node record refused", why="not signed by keys that count for its member", code="NODE-RECORD")
