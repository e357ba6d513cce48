"""Offers and grants for one user: find chains at nodes or in bundle files, verify them, and send statements.

A bundle file holds lines and proofs about an offer, for transfer without a network:

    {"schema":"comity/parcel/v1","next":"…","lines":[{"origin":"node-ch/log","index":12,"line":"…"},…],
     "proofs":[{"line":"<sha256>","proof":"…"},…]}

`origin` and `index` are the claimed place of a line, absent if it is in no log yet. `next` is a command for people.
All that is shown is computed here from lines. A chain has one of these states:

    proven     the newest known record is proven to be in the log that the offer names, and a pinned charter binds that
               log to the provider; digests link all earlier records to it. The chain may have continued since `as_of`
    claimed    there is no proof, lines are missing, or no pinned charter binds the log
    convicted  the lines break the rules of a chain, and the provider's own node signed them

`OfferClient` is synchronous:

    found = client.offers().offer("9f2c41aa")
    entry = signer.sign(GrantRequest(signer.identity, found.view.offer.id, …))      # after a person has read it
    client.offers().deliver([*signer.lines, entry.line], to="node-es")
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

from comity.content import durable
from comity.trust.charter.document import Body, Member
from comity.trust.charter.federation import Federation
from comity.trust.claims import BoundNode, WitnessedEntry, bind_nodes
from comity.trust.encoding import MAX_INTEGER, Digest, Fields, Json, parse_json, sha256, short
from comity.trust.errors import ComityError, Malformed, NotFound, Unavailable, Untrusted
from comity.trust.evidence import InclusionEvidence
from comity.trust.identity import Inception, check_inception
from comity.trust.key_validity import prove_entry
from comity.trust.offers.amounts import UNANSWERED, Balance, Unit, Usage, UsageRecord, balances
from comity.trust.offers.chain import ChainState, GrantState, LocatedStatement, OfferChain, OfferLogReader
from comity.trust.offers.offer import Offer
from comity.trust.offers.records import (
    Agreement,
    GrantRequest,
    Offered,
    PartyStatement,
    Record,
    is_party_statement,
    is_record,
    read_party_statement,
    read_record,
)
from comity.trust.rotation import KeyState, RotationChains
from comity.trust.statement import MAX_LINE, Entry, parse_entry
from comity.trust.statements import signed_by_node
from comity.verifier import read_bounded
from comity.wire import limits
from comity.wire.client import NodeClient
from comity.wire.limits import PROOF
from comity.wire.messages import LocatedEntry, LocatedProof
from comity.wire.offer import (
    AnswerDefault,
    Approve,
    GrantQuery,
    GrantStatus,
    OfferAction,
    OfferQuery,
    OfferStatus,
    Redeem,
    Reject,
)
from comity_client.events import ignore_event
from comity_client.session import Question, Session
from comity_client.uplink import log_lines, open_uplink

SCHEMA: Final = "comity/parcel/v1"
MAX_BYTES: Final = 64 * 1024 * 1024
MAX_LINES: Final = 16_384


@dataclass(frozen=True, slots=True)
class PlacedLine:
    """A line and its claimed place; an empty origin if it is in no log yet."""

    line: bytes
    origin: str = ""
    index: int = 0


@dataclass(frozen=True, slots=True)
class OfferBundle:
    """Lines and proofs about offers, unverified. `proofs` are tlog-proofs by line digest."""

    lines: tuple[PlacedLine, ...] = ()
    proofs: tuple[tuple[Digest, bytes], ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> OfferBundle:
        """Inverse of `encode`. Raises Malformed (PARCEL)."""
        try:
            fields = Fields(parse_json(data, limit=MAX_BYTES, what="offer bundle"), "offer bundle")
            fields.constant("schema", SCHEMA)
            lines = tuple(_read_placed(item) for item in fields.items("lines", most=MAX_LINES))
            proofs = tuple(_proof(item) for item in fields.items("proofs", most=MAX_LINES))
            fields.text("next", least=0, lines=True)
            fields.done()
        except Malformed as error:
            raise _refused(error.why or error.what) from error
        return cls(lines, proofs)

    @classmethod
    def read(cls, path: Path) -> OfferBundle:
        """Read a file. Raises NotFound, Malformed (PARCEL)."""
        return cls.parse(read_bounded(path, MAX_BYTES))

    def encode(self, next_command: str = "") -> bytes:
        """The bytes of the file. `next_command` is a command for the receiver."""
        lines: list[Json] = [
            {"line": p.line.decode(), **({"origin": p.origin, "index": p.index} if p.origin else {})}
            for p in self.lines
        ]
        proofs: list[Json] = [{"line": digest, "proof": proof.decode()} for digest, proof in self.proofs]
        document: dict[str, Json] = {"schema": SCHEMA, "next": next_command, "lines": lines, "proofs": proofs}
        return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"

    def write(self, path: Path, next_command: str = "") -> None:
        """Write the file. Raises OutOfSpace, Unavailable."""
        durable.write_file(path, self.encode(next_command), mode=0o644, point="carried")

    def __or__(self, other: OfferBundle) -> OfferBundle:
        return OfferBundle(
            tuple(dict.fromkeys((*self.lines, *other.lines))), tuple(dict.fromkeys((*self.proofs, *other.proofs)))
        )

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The lines that parse as statements, each once, in order."""
        return tuple(parsed for line in dict.fromkeys(p.line for p in self.lines) if (parsed := parse_line(line)))

    @property
    def unplaced(self) -> list[bytes]:
        """Lines that are in no log yet."""
        return [placed.line for placed in self.lines if not placed.origin]

    def find(self, line: Digest) -> Entry | None:
        return next((entry for entry in self.entries if entry.digest == line), None)


def parse_line(line: bytes) -> Entry | None:
    """The entry of a line; None if it does not parse."""
    try:
        return parse_entry(line)
    except Malformed:
        return None


def unlogged(lines: Iterable[bytes]) -> OfferBundle:
    """A bundle of lines that are in no log yet."""
    return OfferBundle(tuple(PlacedLine(line) for line in dict.fromkeys(lines)))


def _read_placed(item: Json) -> PlacedLine:
    fields = Fields(item, "bundle line")
    line = fields.text("line", most=MAX_LINE).encode("utf-8", "surrogatepass")
    placed = PlacedLine(line)
    if fields.has("origin"):
        placed = PlacedLine(line, fields.text("origin", most=256), fields.integer("index", most=MAX_INTEGER))
    fields.done()
    return placed


def _proof(item: Json) -> tuple[Digest, bytes]:
    fields = Fields(item, "bundle proof")
    made = fields.digest("line"), fields.text("proof", most=PROOF, lines=True).encode("utf-8", "surrogatepass")
    fields.done()
    return made


def _refused(why: str) -> Malformed:
    return Malformed(
        "not an offer bundle", why=why, hint="ask the sender to write the file again: --out FILE", code="PARCEL"
    )


class IdentityResolver:
    """Resolves identities and nodes: members of pinned federations, and identities with an inception in `entries`."""

    def __init__(self, pins: Iterable[Federation], entries: Iterable[Entry] = ()) -> None:
        self._pins = tuple(pins)
        certified = (entry for pin in self._pins for lines in pin.certificates for line in lines
                   if (entry := parse_line(line)))  # fmt: skip
        self._entries = (*certified, *entries)
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
        found = (_inception(entry) for entry in self._entries if entry.statement.predicate == "inception")
        return {inception.id: inception for inception in found if inception is not None}


def _inception(entry: Entry) -> Inception | None:
    try:
        return check_inception(entry)
    except ComityError:
        return None


PROVEN: Final = "proven"
CLAIMED: Final = "claimed"
CONVICTED: Final = "convicted"


@dataclass(frozen=True, slots=True)
class ChainView:
    """One chain, computed from the available lines.

    Attributes:
        status: proven, claimed or convicted; `why` is the reason if not proven.
        provider: the node that writes the chain, if a pinned charter binds it.
        as_of: time of the newest cosignature that covers the newest record, POSIX seconds; None if there is none.
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
    best = max(seen, key=lambda each: (len(each.cosigners), each.size))
    times = [cosigner.timestamp for each in seen for cosigner in each.cosigners if cosigner.timestamp]
    return made(PROVEN, "", max(times, default=None), len(best.cosigners))


def _newest_proofs(
    chain: OfferChain, writer: BoundNode, bundle: OfferBundle, identities: IdentityResolver
) -> list[WitnessedEntry]:
    """The available proofs that the newest record is at its claimed index."""
    newest = bundle.find(chain.state.last) if chain.state.last else None
    if newest is None:
        return []
    proofs = tuple(InclusionEvidence(digest, data) for digest, data in bundle.proofs if digest == newest.digest)
    seen, _, _ = prove_entry(newest, proofs, identities.nodes)
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


MAX_PAGES: Final = 32
"""Maximum pages from one node: 32,000 offers, 320,000 requests."""
MAX_CONCURRENT: Final = 16
_RANK: Final = {CLAIMED: 0, PROVEN: 1, CONVICTED: 2}


@dataclass(frozen=True, slots=True)
class FoundChain:
    """A chain, the nodes that returned lines of it, and whether the provider's own node answers now."""

    view: ChainView
    nodes: tuple[str, ...]
    provider_answers: bool


async def search_offers(session: Session, query: OfferQuery) -> dict[Digest, set[str]]:
    """Chains that match according to the nodes, with the names of the nodes. Raises Unavailable."""
    answers = await session.ask(lambda node: _offers(node, query))
    if not answers.found:
        raise answers.failure("no node answers the search for offers")
    found: dict[Digest, set[str]] = {}
    for node, states in answers.found.items():
        for state in states:
            found.setdefault(state.chain, set()).add(node.name)
    return found


async def list_grants(session: Session, query: GrantQuery) -> tuple[GrantStatus, ...]:
    """Requests and their states according to the nodes, each once. Raises Unavailable."""
    answers = await session.ask(lambda node: _grants(node, query))
    if not answers.found:
        raise answers.failure("no node lists requests")
    found: dict[Digest, GrantStatus] = {}
    for states in answers.found.values():
        for state in states:
            key = sha256(state.request.line)
            if key not in found or found[key].answer is None or len(state.statements) > len(found[key].statements):
                found[key] = state
    return tuple(found.values())


async def fetch_chain(session: Session, chain: Digest, known: OfferBundle) -> FoundChain:
    """One chain, from the lines of all nodes and from `known`. Raises NotFound, Unavailable.

    The lines of each node are verified separately and then all together: bad lines of one node do not spoil the answer
    of another, and a fork that two nodes see differently is detected.
    """
    answers = await session.ask(lambda node: node.offers.get(chain))
    given = [known | OfferBundle(tuple(_placed(lines))) for lines in answers.found.values() if lines]
    if not given and not known.lines:
        raise answers.failure("no node knows this offer")
    together = reduce(OfferBundle.__or__, given, known)
    identities = IdentityResolver(session.pins, together.entries)
    bundles = dict.fromkeys((together, *given))  # most often the same
    views = [seen for bundle in bundles if (seen := _view(bundle, chain, identities)) is not None]
    if not views:
        raise answers.failure("no node knows this offer")
    proofs = await _fetch_proofs(session, views)
    proven = [view(replace(seen.bundle, proofs=(*seen.bundle.proofs, *proofs)), chain, identities) for seen in views]
    best = max(proven, key=lambda seen: (_RANK[seen.status], seen.state.seq))
    names = {node.name for node in answers.found}
    provider = best.provider.record.name if best.provider else ""
    return FoundChain(best, tuple(sorted(names)), provider in names)


async def fetch_chains(session: Session, chains: Iterable[Digest]) -> list[FoundChain]:
    """Those of `chains` that can be fetched, in order."""
    limit = asyncio.Semaphore(MAX_CONCURRENT)

    async def one(chain: Digest) -> FoundChain | None:
        async with limit:
            try:
                return await fetch_chain(session, chain, OfferBundle())
            except ComityError:
                return None

    found = await asyncio.gather(*(one(chain) for chain in chains))
    return [seen for seen in found if seen is not None]


async def _fetch_proofs(session: Session, views: Iterable[ChainView]) -> tuple[tuple[Digest, bytes], ...]:
    """Proofs of the newest record of each view, from all nodes."""
    wanted = {(seen.state.last, seen.provider.record.origin) for seen in views if seen.provider and seen.state.last}
    found = []
    for line, origin in wanted:
        answers = await session.ask(_ask_proofs(line, origin))
        found += [(line, item.proof) for proofs in answers.found.values() for item in proofs]
    return tuple(found)


def _ask_proofs(line: Digest, origin: str) -> Question[tuple[LocatedProof, ...]]:
    return lambda node: node.proofs(line, origin)


def _view(bundle: OfferBundle, chain: Digest, identities: IdentityResolver) -> ChainView | None:
    try:
        return view(bundle, chain, identities)
    except NotFound:
        return None


async def _offers(node: NodeClient, query: OfferQuery) -> list[OfferStatus]:
    found: list[OfferStatus] = []
    for _ in range(MAX_PAGES):
        page = await node.offers.search(query)
        found += page
        if len(page) < limits.OFFERS or query.limit:
            break
        query = replace(query, after=page[-1].chain)
    return found


async def _grants(node: NodeClient, query: GrantQuery) -> list[GrantStatus]:
    found: list[GrantStatus] = []
    for _ in range(MAX_PAGES):
        try:
            page = await node.offers.grants(query)
        except NotFound:
            break
        found += page
        if len(page) < limits.GRANTS or query.limit:
            break
        query = replace(query, after=sha256(page[-1].request.line))
    return found


def _placed(lines: Iterable[LocatedEntry]) -> Iterable[PlacedLine]:
    return (PlacedLine(item.line, item.origin, item.index) for item in lines)


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


T = TypeVar("T")
S = TypeVar("S", bound=PartyStatement | Usage)
MIN_PREFIX: Final = 8
"""Minimum digits of a digest prefix."""
PROOF_TIMEOUT: Final = 60.0
"""Seconds."""
PROOF_POLL: Final = 0.2
"""Seconds."""


class RunInSession(Protocol):
    """Runs work in a session with the user's pinned federations."""

    def __call__(self, work: Callable[[Session], Awaitable[T]], /) -> T: ...


@dataclass(frozen=True, slots=True)
class FoundGrant:
    """A grant and its chain; `granted` is the entry of the grant."""

    view: ChainView
    grant_state: GrantState
    granted: Entry


@dataclass(frozen=True, slots=True)
class SentStatement(Generic[S]):
    """A statement about an offer or grant, its `entry`, and the chain that it is about."""

    view: ChainView
    statement: S
    entry: Entry


@dataclass(frozen=True, slots=True)
class ProviderRecord:
    """A record that a provider's node wrote, its index in the log, and all lines of its chain with a proof of it."""

    entry: Entry
    index: int
    bundle: OfferBundle


@dataclass(frozen=True, slots=True)
class OfferClient:
    """Offers and grants for one user. Created by `Client.market`.

    Attributes:
        known: lines and proofs from bundle files.
        offline: ask no node; use only `known`.
    """

    pins: tuple[Federation, ...]
    run: RunInSession
    known: OfferBundle = field(default_factory=OfferBundle)
    offline: bool = False

    def with_files(self, *files: Path, offline: bool = False) -> OfferClient:
        """A copy of this client with the lines of bundle files. Raises NotFound, Malformed (PARCEL)."""
        known = self.known
        for file in files:
            known |= OfferBundle.read(file)
        return replace(self, known=known, offline=offline)

    # Queries

    def offers(self, query: OfferQuery, limit: int = 100) -> tuple[list[FoundChain], int]:
        """Matching offers, each computed from its lines, and the number of further matches. Raises Unavailable."""
        if self.offline:
            return [self._from_files(chain) for chain in chain_ids(self.known)], 0

        async def work(session: Session) -> tuple[list[FoundChain], int]:
            found = sorted(await search_offers(session, query))
            return await fetch_chains(session, found[:limit]), max(0, len(found) - limit)

        return self.run(work)

    def offer(self, name: str) -> FoundChain:
        """The offer whose chain id begins with `name`. Raises NotFound (NO-OFFER), Unavailable."""
        return self._fetch(self._chain_named(name))

    def grants(self, query: GrantQuery) -> list[FoundChain]:
        """Chains with matching requests according to the nodes. Raises Unavailable."""
        if self.offline:
            return [self._from_files(chain) for chain in chain_ids(self.known)]

        async def work(session: Session) -> list[FoundChain]:
            states = await list_grants(session, query)
            return await fetch_chains(session, dict.fromkeys(state.chain for state in states))

        return self.run(work)

    def grant(self, name: str) -> FoundGrant:
        """The grant whose line digest begins with `name`; for an empty name, the only grant in the bundle files.

        Raises NotFound (NO-GRANT), Unavailable.
        """
        for seen in self._candidates(name):
            grants = seen.view.state.grants
            wanted = [digest for digest in grants if digest.startswith(name)]
            if len(wanted) == 1 and (entry := seen.view.bundle.find(wanted[0])):
                return FoundGrant(seen.view, grants[wanted[0]], entry)
        why = "no known chain has such a grant, or several do"
        raise NotFound(f"no grant {name[:80]!r}", why=why, hint="comity grant ls", code="NO-GRANT")

    def statement(self, name: str, kind: type[S]) -> SentStatement[S]:
        """The statement of a `kind` whose line digest begins with `name`; for an empty name, the newest of the only
        chain in the bundle files. Raises NotFound (NO-STATEMENT), Unavailable."""
        for seen in self._candidates(name):
            located = [each for each in self._statements(seen.view) if each.line.startswith(name)]
            found = [(each.statement, each.line) for each in located if isinstance(each.statement, kind)]
            if found and (len(found) == 1 or not name):
                content, line = found[-1]
                if entry := seen.view.bundle.find(line):
                    return SentStatement(seen.view, content, entry)
        why = "no such statement is known, or several match"
        hint = "comity grant ls; comity grant show GRANT"
        raise NotFound(f"no statement {name[:80]!r}", why=why, hint=hint, code="NO-STATEMENT")

    # Statements and records

    def deliver(self, lines: Sequence[bytes], to: str) -> tuple[str, tuple[int, ...]]:
        """Log lines at a node; returns its name and their indexes. Raises NotFound, Refused, Untrusted, Unavailable."""

        async def work(session: Session) -> tuple[str, tuple[int, ...]]:
            async with open_uplink(session, to) as uplink:
                receipts = await log_lines(uplink, lines, {}, {}, link=False, on_event=ignore_event)
                return uplink.name, tuple(receipt.index for receipt in receipts)

        return self.run(work)

    def perform(self, action: OfferAction, socket: str, lines: Sequence[bytes] = ()) -> ProviderRecord:
        """Log `lines` at the provider's own node, let it write a record, and wait until a checkpoint proves the record.

        Raises Refused, NotFound, Untrusted, Conflict, Unavailable (NO-PROOF).
        """

        async def work(session: Session) -> ProviderRecord:
            async with open_uplink(session, socket) as uplink:
                receipts = await log_lines(uplink, lines, {}, {}, link=False, on_event=ignore_event) if lines else ()
                logged = dict(zip(map(sha256, lines), (receipt.line_digest for receipt in receipts), strict=True))
                located = (await uplink.client.offers.allocate(_naming_logged(action, logged)))[-1]
                entry = parse_entry(located.line)
                return ProviderRecord(entry, located.index, await _wait_for_proof(uplink.client, entry, located.origin))

        return self.run(work)

    def identities(self) -> IdentityResolver:
        """Resolver for the pinned federations and the bundle files."""
        return IdentityResolver(self.pins, self.known.entries)

    def _candidates(self, name: str) -> Iterable[FoundChain]:
        """Chains that may contain `name`: first those in bundle files, then those at nodes."""
        for chain in chain_ids(self.known):
            yield self._fetch(chain)
        if name and not self.offline:
            _require_name(name)
            for state in self.run(lambda session: list_grants(session, GrantQuery())):
                lines = [state.request.line, *([state.answer.line] if state.answer else [])]
                if any(digest.startswith(name) for digest in (*map(sha256, lines), *state.statements)):
                    yield self._fetch(state.chain)

    def _statements(self, seen: ChainView) -> list[LocatedStatement]:
        """Statements about a chain: first those in its log, then those that its log does not contain yet."""
        return [*seen.chain.statements, *unlogged_statements(seen)]

    def _chain_named(self, name: str) -> Digest:
        if not name:
            (chain, *others) = chain_ids(self.known) or ("",)
            if chain and not others:
                return Digest(chain)
        _require_name(name)
        found = {chain for chain in chain_ids(self.known) if chain.startswith(name)}
        if not found and not self.offline:
            found = {chain for chain in self.run(_all_chains) if chain.startswith(name)}
        if not found and len(name) == 64:
            return Digest(name)
        if len(found) != 1:
            why = f"{len(found)} known chains begin with it"
            raise NotFound(f"no offer {name[:80]!r}", why=why, hint="comity offer ls", code="NO-OFFER")
        return found.pop()

    def _fetch(self, chain: Digest) -> FoundChain:
        if self.offline:
            return self._from_files(chain)
        return self.run(lambda session: fetch_chain(session, chain, self.known))

    def _from_files(self, chain: Digest) -> FoundChain:
        return FoundChain(view(self.known, chain, self.identities()), (), provider_answers=False)


async def _all_chains(session: Session) -> set[Digest]:
    return set(await search_offers(session, OfferQuery(closed=True)))


async def _wait_for_proof(client: NodeClient, entry: Entry, origin: str) -> OfferBundle:
    """Poll until the node proves a record; returns all its lines about the chain.

    A node reads its own log shortly after the write. Raises Unavailable (NO-PROOF) after PROOF_TIMEOUT.
    """
    chain, ends = entry.statement.subjects[0].digest, asyncio.get_running_loop().time() + PROOF_TIMEOUT
    while True:
        try:
            lines = await client.offers.get(chain)
            proofs = await client.proofs(entry.digest, origin)
        except NotFound:
            lines, proofs = (), ()
        if proofs and any(item.line == entry.line for item in lines):
            placed = (PlacedLine(item.line, item.origin, item.index) for item in lines)
            return OfferBundle(tuple(placed), tuple((entry.digest, item.proof) for item in proofs))
        if asyncio.get_running_loop().time() > ends:
            why = f"no checkpoint of {origin} covers {short(entry.digest)} after {PROOF_TIMEOUT:g} s"
            raise Unavailable(
                "recorded, but not yet proven", why=why, hint="run the same command again", code="NO-PROOF"
            )
        await asyncio.sleep(PROOF_POLL)


def _require_name(name: str) -> None:
    if len(name) < MIN_PREFIX:
        raise Malformed(f"{name[:80]!r} is too short", why=f"at least {MIN_PREFIX} digits are needed",
                        hint="comity offer ls", code="BAD-NAME")  # fmt: skip


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


def _naming_logged(action: OfferAction, logged: Mapping[Digest, Digest]) -> OfferAction:
    """The action with the digests of the lines that the node logged. The node may have logged an earlier envelope of
    the same statement."""
    if isinstance(action, Approve | Reject):
        return replace(action, request=logged.get(action.request, action.request))
    if isinstance(action, Redeem):
        return replace(action, redemption=logged.get(action.redemption, action.redemption))
    if isinstance(action, AnswerDefault):
        return replace(action, default=logged.get(action.default, action.default))
    return action
