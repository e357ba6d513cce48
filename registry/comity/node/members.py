"""Members and nodes as this node's charter defines them: its own member, the members of the newest epoch, and their
nodes.

Starts with the federation file; later epochs, rotations and node records are added. Nothing is removed: nodes of a
removed member stop counting but stay known, so that their logs are still mirrored (I10). No I/O.

A node record is valid if it is signed by keys that an epoch lists for its member, or by keys that the member's
rotations lead to from them, on any branch. If a node has several records, the one under the newest undisputed keys is
followed, and among those the last one in the node's own log. The previous record stays valid until the newer
certificate was seen, so that a certificate can be announced before it is used. A record found only outside the node's
own log is accepted as an alternate: a node that lost its TLS key can announce the next one only in other logs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Final, Self

from comity.federation_file import Federation
from comity.rules.precedence import Precedence
from comity.trust.charter.document import Body, Member
from comity.trust.encoding import Digest, sha256, short
from comity.trust.errors import ComityError, NotFound, Untrusted
from comity.trust.frozen import frozen
from comity.trust.home_logs import AdmittedMembers, HomeLogs, NamedLog, OriginOwners, home_logs, inception_homes
from comity.trust.identity import Inception, KeySet, SignatureCheck, check_inception
from comity.trust.node_records import NodeRecord, check_node_record
from comity.trust.places import Reach, declared_reach
from comity.trust.rotation import KeyState, RotationChain, follow
from comity.trust.statement import Author, Entry, parse_entry
from comity.trust.tlog.note import MAX_TIMESTAMP, SignedNote, VerifierKey
from comity.wire.tls import CertificatePin

MAX_NODES: Final = 16
"""Nodes followed for one member."""
MAX_ONLINE_KEYS: Final = 64
"""Online keys followed for one node, one after the other: each is another author whose statements are read."""
MAX_LOGS: Final = 256
"""Logs that one member binds, of all its nodes, one after the other."""
MAX_RECORDS: Final = 1_024
"""Records followed for one node, one after the other."""
OUTSIDE_LOG: Final = -1
"""The index of a record that was found outside the log that it binds."""
DISPUTED: Final = -1
"""The rank of keys that disputed rotations lead to."""


@frozen
class OwnNode:
    """This node's own lines: inception and rotations of its member, and the node record that binds its keys."""

    inception: Inception
    record: NodeRecord
    inception_line: bytes
    record_line: bytes
    rotation_lines: tuple[bytes, ...] = ()

    @classmethod
    def parse(cls, inception_line: bytes, record_line: bytes, rotation_lines: tuple[bytes, ...] = ()) -> Self:
        """Raises Malformed, and Untrusted (NODE-RECORD) if the lines do not verify or belong to different members."""
        inception = check_inception(parse_entry(inception_line))
        chain = follow(KeyState.of_inception(inception), map(parse_entry, rotation_lines))
        record = check_node_record(parse_entry(record_line), chain)
        if record.member != inception.id:
            raise Untrusted(
                "node record of another member", why="node-record.line names another member", code="NODE-RECORD"
            )
        return cls(inception, record, inception_line, record_line, rotation_lines)

    @property
    def log(self) -> str:
        """The verifier key of the log that this node writes: its name in the ledger."""
        return str(self.record.log)


@dataclass(frozen=True, slots=True, order=True)
class PeerKey:
    """Identifies a node. `origin` is its log's name, chosen by its member; another member may use the same name."""

    member: Digest
    origin: str

    @classmethod
    def of(cls, record: NodeRecord) -> Self:
        return cls(record.member, record.origin)

    def __str__(self) -> str:
        return f"{self.origin} of {short(self.member)}"


@frozen
class Peer:
    """Another node of the federation. `mutual` and `open` are its addresses in the pinned federation file, for ever;
    `announced_mutual` and `announced_open` are what it said last about itself: hints.

    `rank` orders the records of one node; `alternate` is a second record whose certificate is also accepted for now.
    """

    member: Member
    record: NodeRecord
    line: bytes
    mutual: tuple[str, ...]
    open: tuple[str, ...]
    rank: tuple[int, int] = (0, OUTSIDE_LOG)
    alternate: NodeRecord | None = None
    announced_mutual: tuple[str, ...] = ()
    announced_open: tuple[str, ...] = ()

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
        """The certificates that this node may present, newest first."""
        return tuple(dict.fromkeys(record.tls for record in (self.record, self.alternate) if record is not None))


@frozen
class FoundRecord:
    """A node record from a log. `index` is its index in the log that it binds, or OUTSIDE_LOG."""

    entry: Entry
    index: int = OUTSIDE_LOG


@dataclass(slots=True)
class _Lookups:
    """What is computed from the records when it is first asked for. Replaced after records have changed: a thread that
    is computing it then fills the object that was replaced."""

    by_log: Mapping[str, Mapping[Author, NodeRecord]] | None = None
    by_origin: Mapping[str, Sequence[NodeRecord]] | None = None
    origins: OriginOwners | None = None
    cosigners: Mapping[tuple[str, bytes], tuple[VerifierKey, Digest]] | None = None
    records_digest: Digest | None = None
    precedence: Precedence | None = None
    bound: Mapping[str, Digest] | None = None


class Membership:
    """The known members and nodes. Not thread-safe: call from the event loop."""

    def __init__(self, own_node: OwnNode, federation: Federation | None, bodies: Iterable[Body] = ()) -> None:
        """`bodies` are the followed epochs from genesis on; by default those of the federation file."""
        self.own_node = own_node
        self.federation = federation
        self.body: Body | None = None
        self._seats: dict[Digest, Member] = {}
        self._chains: dict[Digest, tuple[RotationChain, ...]] = {}
        self._peers: dict[PeerKey, Peer] = {}
        self._keys_by_name: dict[str, set[PeerKey]] | None = None
        """Computed when it is asked for after records have changed."""
        self._records: dict[Author, NodeRecord] = {own_node.record.node: own_node.record}
        self._logs: dict[tuple[Digest, VerifierKey], NodeRecord] = {
            (own_node.record.member, own_node.record.log): own_node.record
        }
        """A record for each log that a member ever bound."""
        self._logs_of = Counter[Digest]()
        self._admitted = AdmittedMembers()
        self._homes = inception_homes(federation.identity_entries if federation else ())
        """By member, what its inception names as its home log."""
        self._lookups = _Lookups()
        self._accepted = Counter[PeerKey]()
        self._online_keys = Counter[PeerKey]()
        self._superseded: set[bytes] = set()
        """Certificates that were replaced by another one in use; they are never accepted again."""
        self._pins: tuple[CertificatePin, ...] = ()
        self._pins_changed: Callable[[], None] = lambda: None
        for body in bodies or (federation.chain if federation else ()):
            self.adopt(body)
        for node in federation.nodes if federation else ():
            self.learn((FoundRecord(parse_entry(node.line)),))
            key = PeerKey.of(node.record)
            if key in self._peers:
                self._peers[key] = replace(self._peers[key], mutual=node.mutual, open=node.open)

    @property
    def federation_id(self) -> Digest:
        """Raises NotFound (NO-CHARTER) for a node that belongs to no federation yet."""
        if self.federation is None:
            raise NotFound("no federation", why="this node belongs to no federation yet", code="NO-CHARTER")
        return self.federation.id

    @property
    def peers(self) -> tuple[Peer, ...]:
        """Every node that ever had a valid record, except this one."""
        return tuple(self._peers.values())

    @property
    def seated(self) -> bool:
        """Whether the newest charter lists this node's member."""
        return self.member(self.own_node.inception.id) is not None

    @property
    def others(self) -> tuple[Member, ...]:
        """The members of the newest charter, except this node's own."""
        seats = self.body.members if self.body else ()
        return tuple(seat for seat in seats if seat.id != self.own_node.inception.id)

    def peer(self, key: PeerKey) -> Peer | None:
        return self._peers.get(key)

    def shown_name(self, peer: Peer) -> str:
        """A display name that is unique among the known nodes: the node's name, with its key if needed."""
        name = peer.name
        if name.endswith(")") or self._keys_named(name) - {peer.key}:
            return f"{name} ({peer.key})"
        return name

    def _keys_named(self, name: str) -> Set[PeerKey]:
        """The nodes with this name. Each peer is named several times a minute, in a federation of up to 200 members."""
        if self._keys_by_name is None:
            self._keys_by_name = {}
            for key, peer in self._peers.items():
                self._keys_by_name.setdefault(peer.name, set()).add(key)
        return self._keys_by_name.get(name, frozenset())

    def nodes_of(self, member: Digest) -> tuple[Peer, ...]:
        return tuple(peer for peer in self.peers if peer.member.id == member)

    def reaches(self) -> dict[Digest, Reach]:
        """The declared reach of each member that declares one: of all its nodes together."""
        records = (self.own_node.record, *(peer.record for peer in self.peers))
        found: dict[Digest, set[str]] = {}
        for record in records:
            if record.place is not None and (seat := self.member(record.member)) is not None:
                found.setdefault(seat.id, set()).update(declared_reach(seat.jurisdiction, record.place))
        return {member: tuple(sorted(codes)) for member, codes in found.items()}

    def by_certificate(self, certificate: bytes | None) -> Peer | None:
        return next((peer for peer in self.peers if certificate in peer.certificates), None)

    def pins(self) -> tuple[CertificatePin, ...]:
        """The certificates accepted at the mutual listener."""
        return self._pins

    def watch_pins(self, changed: Callable[[], None]) -> None:
        """Call `changed` after each change of `pins`, within the call that changes them. `changed` must not raise."""
        self._pins_changed = changed

    def operators(self) -> tuple[CertificatePin, ...]:
        return tuple(CertificatePin.of(der) for der in self.own_node.record.operators)

    def log_keys(self, origin: str) -> tuple[VerifierKey, ...]:
        """The keys of the known logs named `origin`. A log is identified by origin and key; logs of two members may
        share an origin."""
        if origin == self.own_node.record.origin:
            return (self.own_node.record.log,)
        return tuple(dict.fromkeys(peer.record.log for peer in self.peers if peer.origin == origin))

    def cosigner_key(self, name: str, key_id: bytes) -> VerifierKey | None:
        """The cosigner key of this name and id in a record that is valid now. Which cosignatures count is decided by
        the verifier's own pins."""
        found = self.cosigners.get((name, key_id))
        return None if found is None else found[0]

    @property
    def cosigners(self) -> Mapping[tuple[str, bytes], tuple[VerifierKey, Digest]]:
        """By name and id, every cosigner key in a record that is valid now, with its member: the first, if two are
        alike. Do not change it."""
        lookups = self._lookups
        if lookups.cosigners is None:
            peers = self.peers
            found: dict[tuple[str, bytes], tuple[VerifierKey, Digest]] = {}
            alternates = [peer.alternate for peer in peers if peer.alternate is not None]
            for record in (self.own_node.record, *(peer.record for peer in peers), *alternates):
                for key in record.cosigners:
                    found.setdefault((key.name, key.key_id), (key, record.member))
            lookups.cosigners = found
        return lookups.cosigners

    def cosigned_times(self, note: SignedNote) -> dict[Digest, int]:
        """By member, the newest time (POSIX seconds, by its clock) of its cosignatures in a note; those of unknown keys
        are left out. The signatures are not verified here: the ledger keeps verified ones only."""
        times: dict[Digest, int] = {}
        for line in note.signatures:
            known = self.cosigners.get((line.name, line.key_id))
            time = int.from_bytes(line.signature[:8], "big")
            if known is not None and time <= MAX_TIMESTAMP:
                times[known[1]] = max(time, times.get(known[1], 0))
        return times

    def node(self, author: Author) -> NodeRecord | None:
        """The record of the node `author`; older records of the same node are included."""
        return self._records.get(author)

    @property
    def node_ids(self) -> tuple[Digest, ...]:
        """The ids of all nodes that ever had a valid record, one for each online key; this node's first."""
        return tuple(author.id for author in self._records)

    @property
    def records_digest(self) -> Digest:
        """A digest of the records by which other nodes are followed: another one after any of them has changed."""
        lookups = self._lookups
        if lookups.records_digest is None:
            lines = sorted(sha256(b"".join((peer.line, *peer.certificates))) for peer in self.peers)
            lookups.records_digest = sha256("\n".join(lines).encode())
        return lookups.records_digest

    @property
    def precedence(self) -> Precedence:
        """Whose statements this node reads first: those of members that any epoch listed, of their nodes, and of
        publishers to whom the charter binds a namespace."""
        lookups = self._lookups
        if lookups.precedence is None:
            bound = self.body.namespaces.values() if self.body else ()
            lookups.precedence = Precedence(members=frozenset({*self.known, *self.node_ids, *bound}))
        return lookups.precedence

    def bound_publisher(self, namespace: str) -> Digest | None:
        """Return the publisher to whom the charter binds a namespace, in whatever case it is written."""
        lookups = self._lookups
        if lookups.bound is None:
            lookups.bound = self.body.lower_namespaces() if self.body else {}
        return lookups.bound.get(namespace.lower())

    @property
    def origins(self) -> OriginOwners:
        """The owners of the origins of logs, by the followed epochs."""
        lookups = self._lookups
        if lookups.origins is None:
            lookups.origins = self._admitted.owners(self._homes)
        return lookups.origins

    def name_homes(self, homes: Mapping[Digest, str]) -> None:
        """Store what verified inceptions of members name as their home logs."""
        self._homes |= homes
        self._lookups = _Lookups()

    def home_logs(self, named: Sequence[NamedLog]) -> HomeLogs:
        """The logs that the home logs of an identity mean, by all valid records."""
        records = [record for origin in {each.origin for each in named} for record in self._logs_named(origin)]
        return home_logs(named, records, self.origins)

    def _logs_named(self, origin: str) -> Sequence[NodeRecord]:
        """A record for each log of this origin that a member ever bound."""
        lookups = self._lookups
        if lookups.by_origin is None:
            found: dict[str, list[NodeRecord]] = {}
            for record in tuple(self._logs.values()):
                found.setdefault(record.origin, []).append(record)
            lookups.by_origin = found
        return lookups.by_origin.get(origin, ())

    def log_title(self, log: str) -> str:
        """The name of a log in metrics and messages, from its verifier key: its origin, which any member may choose;
        with the id of its key, unless no other known log has this origin, or it is the newest log of the origin's
        owner."""
        origin, _, key = log.partition("+")
        if {str(record.log) for record in self._logs_named(origin)} <= {log}:
            return origin
        owner = self.origins.owners.get(origin)
        peers = (peer.record for peer in self.peers if peer.origin == origin)
        newest = {str(record.log) for record in (self.own_node.record, *peers)}
        is_owners = any(self.origins.seat(record.member) == owner for record in self.records_of(log))
        return origin if is_owners and log in newest else f"{origin}+{key.partition('+')[0]}"

    def writers(self, log: str) -> frozenset[Author]:
        """The writers of a log, named by its verifier key: one node, under each online key that it had."""
        return frozenset(self._records_of(log))

    def records_of(self, log: str) -> tuple[NodeRecord, ...]:
        """The records that bind a log, named by its verifier key."""
        return tuple(self._records_of(log).values())

    def owner(self, log: str) -> Digest | None:
        """The member whose node writes a log, named by its verifier key."""
        return next((record.member for record in self._records_of(log).values()), None)

    def _records_of(self, log: str) -> Mapping[Author, NodeRecord]:
        """Each statement about a copy asks for the writers of its log: there are millions."""
        lookups = self._lookups
        if lookups.by_log is None:
            found: dict[str, dict[Author, NodeRecord]] = {}
            for author, record in tuple(self._records.items()):
                found.setdefault(str(record.log), {})[author] = record
            lookups.by_log = found
        return lookups.by_log.get(log, {})

    def member(self, identity: Digest) -> Member | None:
        """The member's entry in the newest charter."""
        return self.body.member(identity) if self.body else None

    def chains(self, identity: Digest) -> tuple[RotationChain, ...]:
        """The rotation chains of a member, one from each key state that an epoch listed, in order of the epochs."""
        return self._chains.get(identity, ())

    @property
    def known(self) -> tuple[Digest, ...]:
        """Every member that any epoch listed."""
        return tuple(self._seats)

    @property
    def names(self) -> dict[str, str]:
        """The names of this node's own member and of every member that any epoch listed, by identity: each name once,
        with the identity where two have it."""
        names = {str(seat.id): seat.name for seat in self._seats.values()}
        names.setdefault(self.own_node.inception.id, "")
        count = Counter(names.values())
        return {member: name if count[name] == 1 else f"{name} ({member[:8]})" for member, name in names.items()}

    def reached(self, identity: Digest) -> tuple[KeySet, ...]:
        """Every key set that the member may have signed with, disputed ones included. Used for verification."""
        return tuple(dict.fromkeys(state.keys for chain in self.chains(identity) for state in chain.reached))

    def keys(self, identity: Digest) -> tuple[KeySet, ...]:
        """The undisputed key sets of a member, newest last; empty if no epoch ever listed the member."""
        return tuple(dict.fromkeys(state.keys for chain in self.chains(identity) for state in chain.states))

    def adopt(self, body: Body) -> None:
        """Take up the next epoch. Members that it no longer lists stay known."""
        self.body = body
        self._admitted.add(body)
        for seat in body.members:
            self._seats[seat.id] = seat
            state, known = seat.key_state, self.chains(seat.id)
            if all(chain.start.digest != state.digest for chain in known):
                steps = [step.entry for chain in known for step in chain.steps]
                self._chains[seat.id] = (*known, follow(state, steps))
        self._peers = {key: replace(peer, member=self._seats[peer.member.id]) for key, peer in self._peers.items()}
        self._lookups = _Lookups()

    def rotate(self, identity: Digest, entries: Iterable[Entry], *, signed: SignatureCheck = KeySet.signed) -> bool:
        """Follow a member's rotations. Returns whether the member has new keys, so that more records may be valid.

        The caller bounds the number of entries.
        """
        if not self.chains(identity):
            return False
        before, entries = self.reached(identity), list(entries)
        self._chains[identity] = tuple(
            follow(chain.start, (*(step.entry for step in chain.steps), *entries), signed=signed)
            for chain in self.chains(identity)
        )
        return self.reached(identity) != before

    def learn(self, records: Iterable[FoundRecord]) -> tuple[Peer, ...]:
        """Follow the nodes of valid records. Returns the nodes that were new. Invalid records are skipped."""
        found = []
        for item in records:
            try:
                claimed = NodeRecord.parse(item.entry.statement)
                CertificatePin.of(claimed.tls)
                record, key_rank = _verify_record(
                    claimed, item.entry, self.keys(claimed.member), self.reached(claimed.member)
                )
            except ComityError:
                continue  # not supported by a charter, or a certificate that cannot be pinned
            if self._accept(record, item.entry.line, (key_rank, item.index)):
                found.append(self._peers[PeerKey.of(record)])
        return tuple(found)

    def relocate(self, key: PeerKey, mutual: tuple[str, ...], open_: tuple[str, ...]) -> None:
        """Store the addresses that a node announced. Those of the pinned file stay."""
        peer = self._peers.get(key)
        if peer is not None:
            self._peers[key] = replace(peer, announced_mutual=mutual, announced_open=open_)

    def certificate_seen(self, key: PeerKey, certificate: bytes) -> None:
        """A node presented a certificate. If it is the newest one, the alternate is no longer accepted."""
        peer = self._peers.get(key)
        if peer is not None and peer.alternate is not None and certificate == peer.record.tls:
            self._peers[key] = replace(peer, alternate=None)
            self._lookups = _Lookups()
            self._update_pins()

    def _accept(self, record: NodeRecord, line: bytes, rank: tuple[int, int]) -> bool:
        """Store a valid record. Returns whether its node was new."""
        key = PeerKey.of(record)
        known = self._peers.get(key)
        self._add_log(record)
        if record.origin == self.own_node.record.origin:
            return False
        another_author = record.node not in self._records
        if self._accepted[key] >= MAX_RECORDS or (another_author and self._online_keys[key] >= MAX_ONLINE_KEYS):
            return False
        if known is None:
            if len(self.nodes_of(record.member)) >= MAX_NODES:
                return False
            self._peers[key] = Peer(self._seats[record.member], record, line, (), (), rank)
        elif rank > known.rank:
            alternate = known.alternate if record.tls == known.record.tls else known.record
            self._superseded.add(known.record.tls)
            self._peers[key] = replace(known, record=record, line=line, rank=rank, alternate=alternate)
        elif rank == (known.rank[0], OUTSIDE_LOG) and record.tls not in {known.record.tls, *self._superseded}:
            self._peers[key] = replace(known, alternate=record)
        else:
            return False
        self._records[record.node] = record
        self._accepted[key] += 1
        self._online_keys[key] += another_author
        self._keys_by_name = None
        self._lookups = _Lookups()
        self._update_pins()
        return known is None

    def _add_log(self, record: NodeRecord) -> None:
        """Remember that a member bound this log, also if another record of the node is followed."""
        if (record.member, record.log) not in self._logs and self._logs_of[record.member] < MAX_LOGS:
            self._logs[record.member, record.log] = record
            self._logs_of[record.member] += 1
            self._lookups = _Lookups()

    def _update_pins(self) -> None:
        self._pins = tuple(CertificatePin.of(der) for peer in self._peers.values() for der in peer.certificates)
        self._pins_changed()


def _verify_record(
    record: NodeRecord, entry: Entry, ordered: Sequence[KeySet], others: Iterable[KeySet]
) -> tuple[NodeRecord, int]:
    """The record and the rank of the keys that signed it: the index of the newest key set of `ordered`, or DISPUTED for
    `others`.

    Raises Malformed, and Untrusted (NODE-RECORD).
    """
    for key_rank in reversed(range(len(ordered))):
        if ordered[key_rank].signed(entry.envelope, record.bound_keys):
            return record, key_rank
    if any(keys.signed(entry.envelope, record.bound_keys) for keys in others):
        return record, DISPUTED
    raise Untrusted("node record refused", why="not signed by valid keys of its member", code="NODE-RECORD")
