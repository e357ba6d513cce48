"""A federation in memory: members, their nodes and logs, with real keys. `support.case` has the evidence that is
judged.

Keys are made once a session. Those of algorithms that take a seed are the same in every run.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from comity.federation_file import Federation
from comity.rules.charter_drafts import genesis
from comity.rules.signing import sign_content
from comity.rules.tree_proofs import MemoryTree, inclusion_proof
from comity.trust.charter.document import Body, CharterPolicy, Member, quorum
from comity.trust.charter.federation import FederationNode
from comity.trust.charter.votes import consent
from comity.trust.encoding import Digest, canonical, sha256
from comity.trust.evidence import InclusionEvidence
from comity.trust.identity import Inception, InceptionStatement, KeySet
from comity.trust.keys import HybridSigner, PrivateKey
from comity.trust.node_records import NodeRecord
from comity.trust.places import Place
from comity.trust.statement import Entry
from comity.trust.tlog.merkle import leaf_hash
from comity.trust.tlog.note import Checkpoint, NoteSignature, cosign, cosigner_key, log_verifier_key
from comity.trust.tlog.proof import TlogProof
from comity.wire.tls import make_certificate
from support.seeded import seeded_key

NOW = 1_795_000_000
"""The time of all events here, in POSIX seconds: 2026-11-18."""

HYBRID_ALGS = ("ed25519", "ml-dsa-65")
COSIGNERS = ("ed25519", "ml-dsa-44")
JURISDICTIONS = ("CH", "SG", "ES", "KR", "CA", "BR", "IN")


@functools.cache
def private_key(name: str, alg: str) -> PrivateKey:
    return PrivateKey.generate(alg) if alg.startswith("ecdsa") else seeded_key(alg, f"{name} {alg}")


@functools.cache
def signer(name: str, algs: tuple[str, ...] = HYBRID_ALGS) -> HybridSigner:
    return HybridSigner(tuple(private_key(name, alg) for alg in algs))


@dataclass(frozen=True, eq=False)
class Identity:
    """A publisher or member, with its first key."""

    inception: Inception
    signer: HybridSigner
    entry: Entry

    @property
    def id(self) -> Digest:
        return self.inception.id

    @property
    def member(self) -> Member:
        """Its seat, if it is a member."""
        who = self.inception
        return Member(who.id, who.label, who.jurisdiction, who.keys, who.recovery)


@functools.cache
def identity(
    label: str, jurisdiction: str = "", *, kind: str = "publisher", algs: tuple[str, ...] = HYBRID_ALGS
) -> Identity:
    key, recovery = signer(f"{label} first", algs), signer(f"{label} recovery", algs)
    home = f"node-{jurisdiction.lower()}.example/log" if jurisdiction else ""
    inception = Inception(kind, KeySet((key.public,), 1), (recovery.public.id,), home, jurisdiction, label)
    return Identity(inception, key, sign_content(InceptionStatement(inception), key))


@functools.cache
def seat(jurisdiction: str, algs: tuple[str, ...] = HYBRID_ALGS) -> Identity:
    return identity(f"Institute {jurisdiction}", jurisdiction, kind="member", algs=algs)


@dataclass(frozen=True, eq=False)
class Node:
    """A member's node: its keys, and the record that binds it."""

    seat: Identity
    record: NodeRecord
    entry: Entry
    log: PrivateKey
    cosigner: HybridSigner
    online: HybridSigner
    tls: PrivateKey

    @property
    def origin(self) -> str:
        return self.record.origin

    @property
    def bound(self) -> tuple[HybridSigner, ...]:
        """Signers of every key that the record binds."""
        return HybridSigner((self.log,)), self.cosigner, self.online, HybridSigner((self.tls,))

    @functools.lru_cache(10_000)  # noqa: B019 - a node of the federation in memory lives as long as the process
    def cosign(self, checkpoint: Checkpoint, time: int = NOW) -> tuple[NoteSignature, ...]:
        name = self.record.cosigners[0].name
        return tuple(cosign(checkpoint, name, key, time) for key in self.cosigner.keys)


@functools.cache
def node(owner: Identity, name: str = "", cosigners: tuple[str, ...] = COSIGNERS, place: Place | None = None) -> Node:
    name = name or f"node-{owner.inception.jurisdiction.lower()}.example"
    log, tls = private_key(f"{name} log", "ed25519"), private_key(f"{name} tls", "ecdsa-p256")
    cosigner, online = signer(f"{name} cosigner", cosigners), signer(f"{name} online")
    record = NodeRecord(
        member=owner.id,
        name=name,
        log=log_verifier_key(f"{name}/log", log.public),
        cosigners=tuple(cosigner_key(f"{name}/cosigner", key.public) for key in cosigner.keys),
        online=online.public,
        tls=make_certificate(tls),
        place=place,
    )
    bound = (HybridSigner((log,)), cosigner, online, HybridSigner((tls,)))
    return Node(owner, record, sign_content(record, owner.signer, *bound), log, cosigner, online, tls)


_numbers = itertools.count()


@dataclass
class Log:
    """A node's log, kept in memory."""

    origin: str
    key: PrivateKey
    lines: list[bytes] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    """For each line, a number that grows with every line in any log."""
    tree: MemoryTree = field(default_factory=MemoryTree)

    def append(self, line: bytes) -> int:
        self.lines.append(line)
        self.numbers.append(next(_numbers))
        self.tree.append(leaf_hash(line))
        return len(self.lines) - 1

    def checkpoint(self) -> Checkpoint:
        return Checkpoint(self.origin, self.tree.size, self.tree.root())

    def proof(self, line: bytes, cosigners: Iterable[Node] = (), time: int = NOW) -> InclusionEvidence:
        """The proof that `line` is in this log at its current size, with the cosignatures of `cosigners`."""
        index, checkpoint = self.lines.index(line), self.checkpoint()
        cosigned = [signature for cosigner in cosigners for signature in cosigner.cosign(checkpoint, time)]
        hashes = inclusion_proof(index, self.tree.size, self.tree.node)
        return as_proof(line, TlogProof(index, hashes, checkpoint.signed(self.key).with_signatures(*cosigned)))


def as_proof(line: bytes, proof: TlogProof) -> InclusionEvidence:
    return InclusionEvidence(sha256(line), proof.encode())


def found(
    nodes: Sequence[Node], namespaces: Mapping[str, Digest] | None = None, members: Sequence[Member] = ()
) -> Federation:
    """The federation of the nodes' members, with the consents of all of them.

    Args:
        members: seats as the charter shall list them, where not as their owners announced them.
    """
    owners = dict.fromkeys(node.seat for node in nodes)
    body = draft(members or [owner.member for owner in owners], namespaces)
    inceptions = tuple(owner.entry.line for owner in owners)
    consents = tuple(consent(body, owner.id, owner.signer).line for owner in owners)
    listed = tuple(
        FederationNode(node.record, node.entry.line, (f"{node.record.name}:7443",), (f"{node.record.name}:7444",))
        for node in nodes
    )
    entries = tuple(owner.entry for owner in owners)
    return Federation((body,), ((*inceptions, *consents),), listed, entries)


def draft(members: Sequence[Member], namespaces: Mapping[str, Digest] | None = None) -> Body:
    active = sum(member.active for member in members)
    return genesis(members, CharterPolicy(quorum(active), 2, 2, 2), namespaces)


def succeeded(body: Body, **heirs: Identity) -> Body:
    """The epoch after `body`, in which the seats of these jurisdictions went to successors; without a certificate."""
    members = []
    for member in body.members:
        heir = heirs.get(member.jurisdiction)
        members.append(replace(heir.member, successor_of=member.id) if heir else member)
    drafted = json.loads(draft(members, body.namespaces).data)
    return Body.parse(
        canonical({**drafted, "epoch": body.epoch + 1, "prev": body.digest, "federation": body.federation})
    )
