"""Offer chains, computed and checked here from lines, the statements about them, and balances of usage.

A chain has one of these states:

    proven     the newest known record is proven to be in the log that the offer names, and a pinned charter binds that
               log to the provider; digests link all earlier records to it. The chain may have continued since `as_of`
    claimed    there is no proof, lines are missing, or no pinned charter binds the log
    convicted  the lines break the rules of a chain, and the provider's own node signed them
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Final

from comity.federation_file import Federation
from comity.rules.cosigned_times import corroborated_time, newest_of_each
from comity.rules.offers.amounts import UNANSWERED, Balance, Unit, Usage, UsageRecord, balances
from comity.rules.offers.chain import ChainState, GrantState
from comity.rules.offers.log_reader import LocatedStatement, OfferChain, OfferLogReader
from comity.rules.offers.offer import Offer
from comity.rules.offers.records import (
    Agreement,
    GrantRequest,
    Offered,
    Record,
    is_party_statement,
    is_record,
    read_party_statement,
    read_record,
)
from comity.trust.bound_nodes import BoundNode, WitnessedEntry, bind_nodes
from comity.trust.charter.document import Body, Member
from comity.trust.encoding import Digest, short
from comity.trust.errors import ComityError, Malformed, NotFound, Untrusted
from comity.trust.evidence import EvidenceReader, InclusionEvidence
from comity.trust.frozen import frozen
from comity.trust.identity import Inception, check_inception
from comity.trust.key_validity import prove_entry
from comity.trust.node_records import signed_by_node
from comity.trust.rotation import KeyState, RotationChains
from comity.trust.statement import Entry
from comity.trust.statement_kinds import INCEPTION

from comity_client.offers.bundle import OfferBundle, parse_line


class IdentityResolver:
    """Resolves identities and nodes: members of pinned federations, and identities with an inception in `entries`."""

    def __init__(self, pins: Iterable[Federation], entries: Iterable[Entry] = ()) -> None:
        self._pins = tuple(pins)
        self._entries = (*(entry for pin in self._pins for entry in pin.identity_entries), *entries)
        self._chains = RotationChains(self._entries)

    @cached_property
    def bodies(self) -> tuple[Body, ...]:
        """Every charter body of every pinned federation, oldest first."""
        return tuple(body for pin in self._pins for body in pin.chain)

    @cached_property
    def members(self) -> Mapping[Digest, Member]:
        """Members by id, each as its newest charter lists it."""
        return {member.id: member for body in self.bodies for member in body.members}

    @cached_property
    def nodes(self) -> tuple[BoundNode, ...]:
        """The nodes in the files of the pinned federations."""
        lines = dict.fromkeys(node.line for pin in self._pins for node in pin.nodes)
        return bind_nodes(self.bodies, [entry for line in lines if (entry := parse_line(line))], self._chains)[0]

    def writer(self, log: str) -> BoundNode | None:
        """The node whose log has this verifier key."""
        return next((node for node in self.nodes if str(node.record.log) == log), None)

    def by_node(self, entry: Entry, writer: BoundNode) -> bool:
        """Whether this node signed the entry."""
        return signed_by_node(entry, writer.record)

    def by_identity(self, entry: Entry) -> bool | None:
        """Whether the identity that the entry names signed it; None if its keys are unknown."""
        by = entry.statement.by
        if by is None or by.kind != "identity":
            return False
        states = [seat.key_state for body in self.bodies if (seat := body.member(by.id))]
        if by.id in self._inceptions:
            states.append(KeyState.of_inception(self._inceptions[by.id]))
        if not states:
            return None
        return any(self._chains.follow(state).signed(entry.envelope) for state in states)

    def name(self, identity: Digest) -> str:
        """Display name: name and jurisdiction for a member, its own label and short id for another identity."""
        if identity in self.members:
            return f"{self.members[identity].name} ({self.members[identity].jurisdiction})"
        if identity in self._inceptions:
            return f"{self._inceptions[identity].label} [{short(identity)}]"
        return short(identity)

    @cached_property
    def _inceptions(self) -> Mapping[Digest, Inception]:
        found = (_inception(entry) for entry in self._entries if entry.statement.predicate == INCEPTION)
        return {inception.id: inception for inception in found if inception is not None}


def _inception(entry: Entry) -> Inception | None:
    try:
        return check_inception(entry)
    except ComityError:
        return None


PROVEN: Final = "proven"
CLAIMED: Final = "claimed"
CONVICTED: Final = "convicted"


@frozen
class ChainView:
    """One chain, computed from the available lines.

    Attributes:
        status: proven, claimed or convicted; `why` is the reason if not proven.
        provider: the node that writes the chain, if a pinned charter binds it.
        as_of: time of the newest cosignatures that cover the newest record, as `corroborated_time` takes it; POSIX
            seconds; None if there is none.
        cosigners: number of members that cosigned.
        bundle: the lines and proofs that the view was computed from.
    """

    chain: OfferChain
    status: str
    why: str
    provider: BoundNode | None
    as_of: int | None
    cosigners: int
    bundle: OfferBundle
    identities: IdentityResolver

    @property
    def state(self) -> ChainState:
        """The state of the chain after its records."""
        return self.chain.state

    @property
    def offer(self) -> Offer:
        """The version in force."""
        return self.state.offer

    def requests(self) -> tuple[LocatedStatement, ...]:
        """The known requests in its log."""
        return tuple(located for located in self.chain.statements if isinstance(located.statement, GrantRequest))

    def grant(self, digest: Digest) -> GrantState:
        """The state of a grant. Raises NotFound (NO-GRANT)."""
        if digest not in self.state.grants:
            why = "the chain of this offer does not contain it"
            raise NotFound(f"no grant {short(digest)}", why=why, hint="comity grant ls", code="NO-GRANT")
        return self.state.grants[digest]

    def require_proven(self) -> None:
        """Call before an action relies on the chain. Raises Untrusted (NOT-PROVEN) if it is claimed or convicted."""
        if self.status != PROVEN:
            raise Untrusted(f"this chain is {self.status}", why=self.why, hint="comity offer show ID --json",
                            code="NOT-PROVEN")  # fmt: skip


def view(bundle: OfferBundle, offer: Digest, identities: IdentityResolver) -> ChainView:
    """The chain of `offer` (any version). Raises NotFound (NO-OFFER) if the lines contain none."""
    for log, origin in _logs(bundle):
        writer = identities.writer(log)
        placed = {
            (p.index, p.line): entry for p in bundle.lines if p.origin == origin and (entry := parse_line(p.line))
        }
        reader = OfferLogReader(log)
        for (index, _), entry in sorted(placed.items(), key=lambda item: item[0]):
            reader.read(index, entry, _is_genuine(entry, writer, identities))
        chain = reader.chain_of(offer)
        if chain is not None:
            return _classify(chain, writer, bundle, identities)
    raise NotFound(f"no offer {short(offer)}", why="no available line contains it", hint="comity offer ls",
                   code="NO-OFFER")  # fmt: skip


def chain_ids(bundle: OfferBundle) -> tuple[Digest, ...]:
    """Ids of the chains whose offers are in the bundle."""
    found = (record.link.chain for entry in bundle.entries if isinstance(record := _record(entry), Offered))
    return tuple(dict.fromkeys(found))


def _logs(bundle: OfferBundle) -> list[tuple[str, str]]:
    """Logs that offers in the bundle name, as (verifier key, origin)."""
    offered = [record.offer.log for entry in bundle.entries if isinstance(record := _record(entry), Offered)]
    return [(log, log.split("+", 1)[0]) for log in dict.fromkeys(offered)]


def _classify(
    chain: OfferChain, writer: BoundNode | None, bundle: OfferBundle, identities: IdentityResolver
) -> ChainView:
    def made(status: str, why: str, as_of: int | None = None, cosigners: int = 0) -> ChainView:
        return ChainView(chain, status, why, writer, as_of, cosigners, bundle, identities)

    if chain.fault is not None:
        kind = CONVICTED if _is_providers_fault(chain, bundle) else CLAIMED
        return made(kind, f"{chain.fault.kind} at entry {chain.fault.index}: {chain.fault.why}")
    if writer is None:
        return made(CLAIMED, "no pinned charter binds its log to a member")
    if writer.member.id != chain.state.offer.provider:
        return made(
            CONVICTED, f"the offer is in the name of another member than {writer.member.name}, which writes the log"
        )
    seen = _newest_proofs(chain, writer, bundle, identities)
    if not seen:
        return made(CLAIMED, "no proof of its newest record is available")
    best = max(seen, key=lambda each: (each.cosigning_members, each.size))
    cosigners = (cosigner for each in seen for cosigner in each.cosigners if cosigner.timestamp)
    times = newest_of_each((cosigner.member.id, cosigner.timestamp) for cosigner in cosigners)
    return made(PROVEN, "", corroborated_time(times.values(), time.time()), best.cosigning_members)


def _newest_proofs(
    chain: OfferChain, writer: BoundNode, bundle: OfferBundle, identities: IdentityResolver
) -> list[WitnessedEntry]:
    """The available proofs that the newest record is at its claimed index."""
    newest = bundle.find(chain.state.last) if chain.state.last else None
    if newest is None:
        return []
    proofs = tuple(InclusionEvidence(digest, data) for digest, data in bundle.proofs if digest == newest.digest)
    seen, _, _ = prove_entry(newest, proofs, identities.nodes, EvidenceReader())
    return [each for each in seen if (each.origin, each.index) == (writer.record.origin, chain.indexes[-1])]


def _is_providers_fault(chain: OfferChain, bundle: OfferBundle) -> bool:
    """Whether the provider caused the fault, and not a gap in the available lines: the source of the lines may have
    withheld records or statements."""
    assert chain.fault is not None
    if chain.fault.kind == UNANSWERED:
        return False
    entry = bundle.find(chain.fault.line)
    record = _record(entry) if entry else None
    return isinstance(record, Record) and record.link.seq <= chain.state.seq + 1


def _is_genuine(entry: Entry, writer: BoundNode | None, identities: IdentityResolver) -> bool | None:
    """Whether the author signed the entry. Node entries of an unknown log count, and the chain is shown as claimed."""
    if entry.statement.by is not None and entry.statement.by.kind == "node":
        return writer is None or identities.by_node(entry, writer)
    return identities.by_identity(entry)


def _record(entry: Entry) -> Record | None:
    if not is_record(entry.statement):
        return None
    try:
        return read_record(entry.statement)
    except ComityError:
        return None


def statements_about(seen: ChainView) -> list[LocatedStatement]:
    """Statements about the chain: first those in its log, then those that its log does not contain yet."""
    return [*seen.chain.statements, *unlogged_statements(seen)]


def unlogged_statements(seen: ChainView) -> list[LocatedStatement]:
    """Statements about the chain that its own log does not contain, except those with a wrong signature; index -1."""
    logged = {located.line for located in seen.chain.statements}
    offers = {offer.id for offer in seen.state.offers}
    found = (located for entry in seen.bundle.entries if entry.digest not in logged if (located := _read(entry, seen)))
    return [
        s
        for s in found
        if (
            s.statement.offer in offers
            if isinstance(s.statement, GrantRequest)
            else s.statement.chain == seen.state.chain
        )
    ]


def _read(entry: Entry, seen: ChainView) -> LocatedStatement | None:
    if not is_party_statement(entry.statement) or seen.identities.by_identity(entry) is False:
        return None
    try:
        return LocatedStatement(-1, entry.digest, read_party_statement(entry.statement))
    except Malformed:
        return None


def compute_balances(views: Iterable[ChainView]) -> tuple[Balance, ...]:
    """A balance for each pair of members and unit, from usage in chains that are not convicted. Usage counts once the
    grantee has agreed, in any log, with keys that can be proven here."""
    return balances(used for seen in views if seen.status != CONVICTED for used in _usage_records(seen))


def _usage_records(seen: ChainView) -> Iterator[UsageRecord]:
    agreements = _agreements(seen)
    for located in seen.chain.statements:
        usage = located.statement
        if not isinstance(usage, Usage) or usage.grant not in seen.state.grants:
            continue
        grant = seen.state.grants[usage.grant].grant
        parts = zip(grant.allocations, usage.amounts, strict=False)
        amounts = tuple((Unit(seen.offer.measure, _accelerator(seen, part.slice)), amount) for part, amount in parts)
        agreement = agreements.get((grant.grantee, located.line))
        yield UsageRecord(seen.offer.provider, grant.grantee, amounts, usage.grant, located.line, agreement)


def _agreements(seen: ChainView) -> dict[tuple[Digest, Digest], Digest]:
    """Verified agreements by author and usage line."""
    found = {}
    for located in (*seen.chain.statements, *unlogged_statements(seen)):
        if isinstance(located.statement, Agreement):
            entry = seen.bundle.find(located.line)
            if entry is not None and seen.identities.by_identity(entry):
                found[located.statement.by, located.statement.usage] = located.line
    return found


def _accelerator(seen: ChainView, name: str) -> str:
    """Accelerator of a slice, from the newest version of the offer that has it."""
    found = (part.accelerator for offer in reversed(seen.state.offers) if (part := offer.slice(name)))
    return next(found, "")
