"""Reading a pile of claims: which of them are somebody's proven word about this artifact.

A line that does not parse or does not verify becomes a note and counts for nothing; it never hides a line that does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from comity.trust.charter import Member
from comity.trust.digest import Digest, sha256, short
from comity.trust.errors import ComityError, Untrusted
from comity.trust.identity import Inception, check_inception
from comity.trust.judging.witnessing import Bound
from comity.trust.remark import Remark
from comity.trust.rotation import Chain, Chains, KeyState
from comity.trust.statement import Author, Entry, parse_entry
from comity.trust.statements.claims import Advisory, parse_advisory, parse_hold, signed_by_node
from comity.trust.statements.node_record import NodeRecord
from comity.trust.statements.published import Published, check_published
from comity.trust.statements.verified import VERIFIED, Verified

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Publication:
    """A `published` statement with its publisher's proven record, and what rotations made of it."""

    entry: Entry
    published: Published
    publisher: Inception
    chain: Chain

    @property
    def signer(self) -> KeyState:
        """The newest state of the publisher's keys that signed it."""
        return self.chain.signers(self.entry.envelope)[-1]

    @property
    def post_quantum(self) -> bool:
        """Whether its signature, and the rotations that lead to it, would stand without classical cryptography."""
        return not self.chain.post_quantum.isdisjoint(self.chain.signers(self.entry.envelope))


@dataclass(frozen=True, slots=True)
class Readings:
    """What the claims amount to. `failed` counts `published` lines about the artifact that did not verify, `orphans`
    those whose publisher's inception is not among the claims."""

    entries: tuple[Entry, ...]
    inceptions: dict[Digest, Inception]
    chains: Chains
    publications: tuple[Publication, ...]
    failed: int
    orphans: tuple[Digest, ...]
    notes: tuple[Remark, ...] = field(default=())

    def chain(self, identity: Digest) -> Chain | None:
        """Whom `identity`'s rotations lead to, from its inception on; None where that is not here."""
        inception = self.inceptions.get(identity)
        return self.chains.follow(KeyState.of_inception(inception)) if inception else None


def read_claims(lines: Iterable[bytes], artifact: Digest) -> Readings:
    """Parse every line once, prove inceptions, follow rotations, then prove the publications of `artifact`."""
    notes: list[Remark] = []
    entries = [entry for line in dict.fromkeys(lines) if (entry := _try(parse_entry, line, notes)) is not None]
    proven = (_try(check_inception, e, notes) for e in entries if e.statement.predicate == "inception")
    inceptions = {inception.id: inception for inception in proven if inception is not None}
    chains = Chains(entries)
    publications, failed, orphans = [], 0, []
    for entry in entries:
        statement = entry.statement
        if statement.predicate != "published" or artifact not in {s.digest for s in statement.subjects}:
            continue
        publisher = inceptions.get(statement.by.id) if statement.by else None
        if publisher is None:
            if statement.by is not None:
                orphans.append(statement.by.id)
            continue
        chain = chains.follow(KeyState.of_inception(publisher))
        published = _try(lambda e, who=publisher, keys=chain: check_published(e, who, keys), entry, notes)
        if published is None:
            failed += 1
        else:
            publications.append(Publication(entry, published, publisher, chain))
    return Readings(tuple(entries), inceptions, chains, tuple(publications), failed, tuple(orphans), tuple(notes))


def proven_advisories(readings: Readings, artifact: Digest, nodes: Iterable[NodeRecord] = ()) -> tuple[Advisory, ...]:
    """Advisories about `artifact` that an identity among the claims, or one of `nodes`, really signed."""
    return tuple(advisory for _, advisory in weigh_advisories(readings, artifact, nodes)[0])


def weigh_advisories(
    readings: Readings, artifact: Digest, nodes: Iterable[NodeRecord]
) -> tuple[tuple[tuple[Entry, Advisory], ...], tuple[Remark, ...]]:
    """The proven advisories about `artifact`, and notes on the others: no warning is passed over in silence."""
    online = {record.node.id: record for record in nodes}
    found: list[tuple[Entry, Advisory]] = []
    notes: list[Remark] = []

    def prove(entry: Entry) -> Advisory:
        advisory = parse_advisory(entry.statement)
        issuer, node = readings.chain(advisory.by.id), online.get(advisory.by.id)
        if advisory.by.kind == "identity" and issuer is not None and issuer.signed(entry.envelope):
            return advisory
        if node is not None and signed_by_node(entry, node):
            return advisory
        raise Untrusted("advisory refused", why=f"not proven to be {short(advisory.by.id)}'s", code="SIGNATURE")

    for entry in _about(readings, artifact, "advisory"):
        if (advisory := _try(prove, entry, notes)) is not None:
            found.append((entry, advisory))
    return tuple(found), tuple(notes)


def weigh_checks(
    readings: Readings, artifact: Digest, seats: Iterable[Member]
) -> tuple[tuple[tuple[Entry, Verified], ...], tuple[Remark, ...]]:
    """`verified` statements about `artifact` that an identity among the claims, or one of `seats`, really signed, and
    notes on the others."""
    known = {seat.id: seat.key_state for seat in seats}
    found: list[tuple[Entry, Verified]] = []
    notes: list[Remark] = []

    def prove(entry: Entry) -> Verified:
        verified = Verified.parse(entry.statement)
        seat = known.get(verified.by)
        for chain in (readings.chains.follow(seat) if seat else None, readings.chain(verified.by)):
            if chain is not None and chain.signed(entry.envelope):
                return verified
        raise Untrusted("verified refused", why=f"not proven to be {short(verified.by)}'s", code="SIGNATURE")

    for entry in _about(readings, artifact, VERIFIED):
        if (verified := _try(prove, entry, notes)) is not None:
            found.append((entry, verified))
    return tuple(found), tuple(notes)


def weigh_holds(
    readings: Readings, artifact: Digest, bound: Iterable[Bound]
) -> tuple[tuple[tuple[Entry, Bound], ...], tuple[Remark, ...]]:
    """Holds of `artifact` that bound nodes signed, each with its node, and notes on forged ones.

    Not judged here: whether it stands in the node's own log, where alone it counts.
    """
    nodes: dict[Author, list[Bound]] = {}
    for node in bound:
        nodes.setdefault(node.record.node, []).append(node)
    found: list[tuple[Entry, Bound]] = []
    notes: list[Remark] = []

    def prove(entry: Entry) -> list[Bound]:
        known = nodes.get(parse_hold(entry.statement).by, [])
        if not all(signed_by_node(entry, node.record) for node in known):
            raise Untrusted("hold refused", why="not signed by the node that it names", code="SIGNATURE")
        return known

    for entry in _about(readings, artifact, "hold"):
        found += [(entry, node) for node in _try(prove, entry, notes) or ()]
    return tuple(found), tuple(notes)


def _about(readings: Readings, artifact: Digest, predicate: str) -> Iterator[Entry]:
    for entry in readings.entries:
        if entry.statement.predicate == predicate and artifact in {s.digest for s in entry.statement.subjects}:
            yield entry


def _try(step: Callable[[object], T] | Callable[..., T], subject: object, notes: list[Remark]) -> T | None:
    try:
        return step(subject)
    except ComityError as error:
        notes.append(_note(subject, error))
        return None


def _note(subject: object, error: ComityError) -> Remark:
    kind = "did not verify" if isinstance(error, Untrusted) else "could not be read"
    name = f"{subject.statement.predicate} {short(subject.digest)}" if isinstance(subject, Entry) else "a claim line"
    evidence = subject.digest if isinstance(subject, Entry) else sha256(subject) if isinstance(subject, bytes) else None
    return Remark(f"{name} {kind} and counts for nothing: {error}", evidence)
