"""Lines and proofs about an offer in one file, to be carried where no network leads.

    {"schema":"comity/parcel/v1","next":"…","lines":[{"origin":"node-ch/log","index":12,"line":"…"},…],
     "proofs":[{"line":"<sha256>","proof":"…"},…]}

`origin` and `index` say where whoever wrote the file found a line, or are absent for one that is in no log yet: claims,
until a proof in the same file holds. `next` is a command for people; nothing reads it back.


Whose word is whose, by the federations that a user pins: what decides whether a line of a chain is its author's.

An offer as its chain leaves it, computed here from lines, and what that is worth.

    proven     the newest record known is proven to be in the log that the offer names, which a pinned charter binds to
               the provider; all records before it are linked to it by their digests
    claimed    whoever gave the lines says so: no proof came along, lines are missing, or nobody knows whose log it is
    convicted  the lines break the rules of a chain, signed by the provider's own node

A chain that is proven may have gone on since: `as_of` says when members last cosigned the log as it is known here.


Chains of offers from nodes. What nodes add up only helps to find; what is shown is computed from lines.

Statements about a chain that its own log does not hold yet: carried by hand, or logged elsewhere.

The market as one user sees it: synchronous, over the nodes of the session, or over carried files alone.

    market = client.market()
    seen = market.offer("9f2c41aa")                                        # proven, claimed or convicted
    entry = voice.say(Request(voice.identity, seen.view.offer.id, …))      # after a person has read it
    market.deliver([*voice.lines, entry.line], to="node-es")

Providers act through their own node, which alone writes the chain: `act`. All statements also go by parcels.


What members owe each other, from the usage that is signed in chains.

A provider's node says what was used; it counts once the grantee has agreed, in whichever log, by keys that can be
proven here. A chain that convicts its provider counts for nothing.
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
from comity.trust.claims import BoundNode, WitnessedEntry, bind
from comity.trust.encoding import MAX_INTEGER, Digest, Fields, Json, parse_json, sha256, short
from comity.trust.errors import ComityError, Malformed, NotFound, Unavailable, Untrusted
from comity.trust.evidence import InclusionEvidence
from comity.trust.identity import Inception, check_inception
from comity.trust.key_validity import prove_entry
from comity.trust.offers.amounts import UNANSWERED, Balance, Unit, Usage, UsageRecord, balances
from comity.trust.offers.chain import ChainState, GrantState, OfferChain, OfferLogReader, PartyStatement
from comity.trust.offers.offer import Offer
from comity.trust.offers.records import (
    Agreement,
    GrantRequest,
    Offered,
    Record,
    Said,
    is_record,
    is_said,
    read_record,
    read_said,
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
    Act,
    AnswerDefault,
    Approve,
    GrantQuery,
    GrantStatus,
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
    """A line, and where it is said to stand; an empty origin for one that is in no log yet."""

    line: bytes
    origin: str = ""
    index: int = 0


@dataclass(frozen=True, slots=True)
class OfferBundle:
    """What is known, or carried: nothing in it is proven by being here. `proofs` are tlog-proofs by line digest."""

    lines: tuple[PlacedLine, ...] = ()
    proofs: tuple[tuple[Digest, bytes], ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> OfferBundle:
        """Raises Malformed (PARCEL)."""
        try:
            fields = Fields(parse_json(data, limit=MAX_BYTES, what="parcel"), "parcel")
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
        """Raises NotFound, Malformed (PARCEL)."""
        return cls.parse(read_bounded(path, MAX_BYTES))

    def encode(self, following: str = "") -> bytes:
        """The file; `following` is the command for whoever gets it."""
        lines: list[Json] = [
            {"line": p.line.decode(), **({"origin": p.origin, "index": p.index} if p.origin else {})}
            for p in self.lines
        ]
        proofs: list[Json] = [{"line": digest, "proof": proof.decode()} for digest, proof in self.proofs]
        document: dict[str, Json] = {"schema": SCHEMA, "next": following, "lines": lines, "proofs": proofs}
        return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"

    def write(self, path: Path, following: str = "") -> None:
        """Raises OutOfSpace, Unavailable."""
        durable.write_file(path, self.encode(following), mode=0o644, point="carried")

    def __or__(self, other: OfferBundle) -> OfferBundle:
        return OfferBundle(
            tuple(dict.fromkeys((*self.lines, *other.lines))), tuple(dict.fromkeys((*self.proofs, *other.proofs)))
        )

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The lines that are statements, each once, as they come."""
        return tuple(parsed for line in dict.fromkeys(p.line for p in self.lines) if (parsed := readable(line)))

    @property
    def unplaced(self) -> list[bytes]:
        """Lines that are in no log yet."""
        return [placed.line for placed in self.lines if not placed.origin]

    def find(self, line: Digest) -> Entry | None:
        return next((entry for entry in self.entries if entry.digest == line), None)


def readable(line: bytes) -> Entry | None:
    """The statement in a line, if it is one."""
    try:
        return parse_entry(line)
    except Malformed:
        return None


def unlogged(lines: Iterable[bytes]) -> OfferBundle:
    """Lines that are in no log yet."""
    return OfferBundle(tuple(PlacedLine(line) for line in dict.fromkeys(lines)))


def _read_placed(item: Json) -> PlacedLine:
    fields = Fields(item, "parcel line")
    line = fields.text("line", most=MAX_LINE).encode("utf-8", "surrogatepass")
    placed = PlacedLine(line)
    if fields.has("origin"):
        placed = PlacedLine(line, fields.text("origin", most=256), fields.integer("index", most=MAX_INTEGER))
    fields.done()
    return placed


def _proof(item: Json) -> tuple[Digest, bytes]:
    fields = Fields(item, "parcel proof")
    made = fields.digest("line"), fields.text("proof", most=PROOF, lines=True).encode("utf-8", "surrogatepass")
    fields.done()
    return made


def _refused(why: str) -> Malformed:
    return Malformed("this is no parcel", why=why, hint="have it written again with --out FILE", code="PARCEL")


class IdentityResolver:
    """The members of the pinned federations with their nodes, and those whose inception is among `entries`."""

    def __init__(self, pins: Iterable[Federation], entries: Iterable[Entry] = ()) -> None:
        self._pins = tuple(pins)
        carried = (entry for pin in self._pins for lines in pin.certificates for line in lines
                   if (entry := readable(line)))  # fmt: skip
        self._entries = (*carried, *entries)
        self._chains = RotationChains(self._entries)

    @cached_property
    def bodies(self) -> tuple[Body, ...]:
        """Every body of every pinned federation, oldest first."""
        return tuple(body for pin in self._pins for body in pin.chain)

    @cached_property
    def members(self) -> Mapping[Digest, Member]:
        """By id, each as its newest charter lists it."""
        return {member.id: member for body in self.bodies for member in body.members}

    @cached_property
    def nodes(self) -> tuple[BoundNode, ...]:
        """The nodes that the pinned federations' files list."""
        lines = dict.fromkeys(node.line for pin in self._pins for node in pin.nodes)
        return bind(self.bodies, [entry for line in lines if (entry := readable(line))], self._chains)[0]

    def writer(self, log: str) -> BoundNode | None:
        """The node whose log has this verifier key."""
        return next((node for node in self.nodes if str(node.record.log) == log), None)

    def by_node(self, entry: Entry, writer: BoundNode) -> bool:
        """Whether it is a statement of exactly this node."""
        return signed_by_node(entry, writer.record)

    def by_identity(self, entry: Entry) -> bool | None:
        """Whether it is a statement of the identity that it names; None where nothing proves by which keys that
        speaks."""
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
        """What to call an identity: a member by its name and jurisdiction, another by what it calls itself."""
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
    """One chain as it can be known here.

    Attributes:
        state: proven, claimed or convicted; `why` says why it is not proven.
        provider: the node that writes the chain, where a pinned charter binds it.
        as_of: when the last member cosigned the log with the newest record in it, POSIX seconds; None where none did.
        cosigners: how many members did.
        parcel: the lines and proofs that it was computed from.
    """

    chain: OfferChain
    state: str
    why: str
    provider: BoundNode | None
    as_of: int | None
    cosigners: int
    parcel: OfferBundle
    circle: IdentityResolver

    @property
    def book(self) -> ChainState:
        return self.chain.book

    @property
    def offer(self) -> Offer:
        """The version in force."""
        return self.book.offer

    def requests(self) -> tuple[PartyStatement, ...]:
        """What was asked of it, as far as is known here."""
        return tuple(stated for stated in self.chain.stated if isinstance(stated.said, GrantRequest))

    def grant(self, digest: Digest) -> GrantState:
        """Raises NotFound (NO-GRANT)."""
        if digest not in self.book.grants:
            why = "it is not in the chain of this offer"
            raise NotFound(f"no grant {short(digest)}", why=why, hint="comity grant ls", code="NO-GRANT")
        return self.book.grants[digest]

    def require_proven(self) -> None:
        """For whoever acts on it. Raises Untrusted (NOT-PROVEN) where it is only claimed, or convicted."""
        if self.state != PROVEN:
            raise Untrusted(f"this chain is {self.state}", why=self.why, hint="comity offer show ID --json",
                            code="NOT-PROVEN")  # fmt: skip


def view(parcel: OfferBundle, offer: Digest, circle: IdentityResolver) -> ChainView:
    """The chain that `offer`, of any version, belongs to. Raises NotFound (NO-OFFER) where the lines hold none."""
    for log, origin in _logs(parcel):
        writer = circle.writer(log)
        placed = {(p.index, p.line): entry for p in parcel.lines if p.origin == origin and (entry := readable(p.line))}
        heard = OfferLogReader(log)
        for (index, _), entry in sorted(placed.items(), key=lambda item: item[0]):
            heard.read(index, entry, _genuine(entry, writer, circle))
        chain = heard.chain_of(offer)
        if chain is not None:
            return _weighed(chain, writer, parcel, circle)
    raise NotFound(f"no offer {short(offer)}", why="none of the lines at hand makes it", hint="comity offer ls",
                   code="NO-OFFER")  # fmt: skip


def offers_in(parcel: OfferBundle) -> tuple[Digest, ...]:
    """The ids of chains that the lines begin or go on with."""
    found = (record.link.chain for entry in parcel.entries if isinstance(record := _record(entry), Offered))
    return tuple(dict.fromkeys(found))


def _logs(parcel: OfferBundle) -> list[tuple[str, str]]:
    """Logs that offers among the lines name, as (verifier key, origin)."""
    offered = [record.offer.log for entry in parcel.entries if isinstance(record := _record(entry), Offered)]
    return [(log, log.split("+", 1)[0]) for log in dict.fromkeys(offered)]


def _weighed(chain: OfferChain, writer: BoundNode | None, parcel: OfferBundle, circle: IdentityResolver) -> ChainView:
    def made(state: str, why: str, as_of: int | None = None, cosigners: int = 0) -> ChainView:
        return ChainView(chain, state, why, writer, as_of, cosigners, parcel, circle)

    if chain.fault is not None:
        kind = CONVICTED if _guilty(chain, parcel) else CLAIMED
        return made(kind, f"{chain.fault.kind} at entry {chain.fault.index}: {chain.fault.why}")
    if writer is None:
        return made(CLAIMED, "no pinned charter says whose log it is")
    if writer.member.id != chain.book.offer.provider:
        return made(CONVICTED, f"it offers for another member, from the log of {writer.member.name}")
    seen = _newest_proofs(chain, writer, parcel, circle)
    if not seen:
        return made(CLAIMED, "no proof of its newest record came along")
    best = max(seen, key=lambda each: (len(each.cosigners), each.size))
    times = [cosigner.timestamp for each in seen for cosigner in each.cosigners if cosigner.timestamp]
    return made(PROVEN, "", max(times, default=None), len(best.cosigners))


def _newest_proofs(
    chain: OfferChain, writer: BoundNode, parcel: OfferBundle, circle: IdentityResolver
) -> list[WitnessedEntry]:
    """The proofs at hand that put the newest record where it is said to stand."""
    newest = parcel.find(chain.book.last) if chain.book.last else None
    if newest is None:
        return []
    proofs = tuple(InclusionEvidence(digest, data) for digest, data in parcel.proofs if digest == newest.digest)
    seen, _, _ = prove_entry(newest, proofs, circle.nodes)
    return [each for each in seen if (each.origin, each.index) == (writer.record.origin, chain.indexes[-1])]


def _guilty(chain: OfferChain, parcel: OfferBundle) -> bool:
    """Whether a fault is its provider's, and not a gap in the lines at hand: what a record follows, or answers, may be
    withheld by whoever gave them."""
    assert chain.fault is not None
    if chain.fault.kind == UNANSWERED:
        return False
    entry = parcel.find(chain.fault.line)
    record = _record(entry) if entry else None
    return isinstance(record, Record) and record.link.seq <= chain.book.seq + 1


def _genuine(entry: Entry, writer: BoundNode | None, circle: IdentityResolver) -> bool | None:
    """Whose word it is; what a node says of a log that nobody here knows is taken as said, and shown as claimed."""
    if entry.statement.by is not None and entry.statement.by.kind == "node":
        return writer is None or circle.by_node(entry, writer)
    return circle.by_identity(entry)


def _record(entry: Entry) -> Record | None:
    if not is_record(entry.statement):
        return None
    try:
        return read_record(entry.statement)
    except ComityError:
        return None


MAX_PAGES: Final = 32
"""Pages that one node is asked for: 32,000 offers, 320,000 requests."""
AT_ONCE: Final = 16
_WEIGHT: Final = {CLAIMED: 0, PROVEN: 1, CONVICTED: 2}


@dataclass(frozen=True, slots=True)
class FoundChain:
    """A chain, who gave lines of it, and whether the provider's own node answers now."""

    view: ChainView
    nodes: tuple[str, ...]
    provider_answers: bool


async def search_offers(session: Session, query: OfferQuery) -> dict[Digest, set[str]]:
    """The chains that nodes say match, and which nodes. Raises Unavailable."""
    answers = await session.ask(lambda node: _offers(node, query))
    if not answers.found:
        raise answers.failure("nobody says what is offered")
    found: dict[Digest, set[str]] = {}
    for node, states in answers.found.items():
        for state in states:
            found.setdefault(state.chain, set()).add(node.name)
    return found


async def list_grants(session: Session, query: GrantQuery) -> tuple[GrantStatus, ...]:
    """Requests that nodes know of, and what they say became of them; each once. Raises Unavailable."""
    answers = await session.ask(lambda node: _grants(node, query))
    if not answers.found:
        raise answers.failure("nobody says what was asked for")
    found: dict[Digest, GrantStatus] = {}
    for states in answers.found.values():
        for state in states:
            key = sha256(state.request.line)
            if key not in found or found[key].answer is None or len(state.said) > len(found[key].said):
                found[key] = state
    return tuple(found.values())


async def look_at_chain(session: Session, chain: Digest, known: OfferBundle) -> FoundChain:
    """One chain, from all nodes and from what is known. Raises NotFound, Unavailable.

    Each node's lines are weighed by themselves, and then all together: who hands out nonsense spoils nobody else's
    answer, and two books that two nodes got are found out.
    """
    answers = await session.ask(lambda node: node.offers.get(chain))
    given = [known | OfferBundle(tuple(_placed(lines))) for lines in answers.found.values() if lines]
    if not given and not known.lines:
        raise answers.failure("nobody knows this offer")
    together = reduce(OfferBundle.__or__, given, known)
    circle = IdentityResolver(session.pins, together.entries)
    parcels = dict.fromkeys((together, *given))  # most often the same
    views = [seen for parcel in parcels if (seen := _view(parcel, chain, circle)) is not None]
    if not views:
        raise answers.failure("nobody knows this offer")
    proofs = await _fetch_proofs(session, views)
    weighed = [view(replace(seen.parcel, proofs=(*seen.parcel.proofs, *proofs)), chain, circle) for seen in views]
    best = max(weighed, key=lambda seen: (_WEIGHT[seen.state], seen.book.seq))
    names = {node.name for node in answers.found}
    provider = best.provider.record.name if best.provider else ""
    return FoundChain(best, tuple(sorted(names)), provider in names)


async def look_at_all_chains(session: Session, chains: Iterable[Digest]) -> list[FoundChain]:
    """Those of `chains` that can be had, in their order."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(chain: Digest) -> FoundChain | None:
        async with turn:
            try:
                return await look_at_chain(session, chain, OfferBundle())
            except ComityError:
                return None

    found = await asyncio.gather(*(one(chain) for chain in chains))
    return [seen for seen in found if seen is not None]


async def _fetch_proofs(session: Session, views: Iterable[ChainView]) -> tuple[tuple[Digest, bytes], ...]:
    """Proofs of the newest record of each view, from whoever gives any."""
    wanted = {(seen.book.last, seen.provider.record.origin) for seen in views if seen.provider and seen.book.last}
    found = []
    for line, origin in wanted:
        answers = await session.ask(_proving(line, origin))
        found += [(line, item.proof) for proofs in answers.found.values() for item in proofs]
    return tuple(found)


def _proving(line: Digest, origin: str) -> Question[tuple[LocatedProof, ...]]:
    return lambda node: node.proofs(line, origin)


def _view(parcel: OfferBundle, chain: Digest, circle: IdentityResolver) -> ChainView | None:
    try:
        return view(parcel, chain, circle)
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


def loose(seen: ChainView) -> list[PartyStatement]:
    """Those that are their authors', as far as that can be known here; at no index."""
    logged = {stated.line for stated in seen.chain.stated}
    offers = {offer.id for offer in seen.book.offers}
    found = (stated for entry in seen.parcel.entries if entry.digest not in logged if (stated := _read(entry, seen)))
    return [
        s
        for s in found
        if (s.said.offer in offers if isinstance(s.said, GrantRequest) else s.said.chain == seen.book.chain)
    ]


def _read(entry: Entry, seen: ChainView) -> PartyStatement | None:
    if not is_said(entry.statement) or seen.circle.by_identity(entry) is False:
        return None
    try:
        return PartyStatement(-1, entry.digest, read_said(entry.statement))
    except Malformed:
        return None


T = TypeVar("T")
S = TypeVar("S", bound=Said | Usage)
LEAST_NAME: Final = 8
"""Digits by which a digest can be named."""
PROOF_PATIENCE: Final = 60.0
PROOF_POLL: Final = 0.2


class RunInSession(Protocol):
    """Runs work in a session of the user's pins."""

    def __call__(self, work: Callable[[Session], Awaitable[T]], /) -> T: ...


@dataclass(frozen=True, slots=True)
class HeldGrant:
    """A grant, by its chain as it can be known here; `granted` is the line that grants."""

    view: ChainView
    commitment: GrantState
    granted: Entry


@dataclass(frozen=True, slots=True)
class SentStatement(Generic[S]):
    """A statement of somebody about an offer, in its line `entry`, with the chain that it is about."""

    view: ChainView
    said: S
    entry: Entry


@dataclass(frozen=True, slots=True)
class ProviderRecord:
    """What a provider's node wrote: the record, its place in the node's log, and all that is known of its chain, with a
    proof of the record."""

    entry: Entry
    index: int
    parcel: OfferBundle


@dataclass(frozen=True, slots=True)
class OfferClient:
    """Made by `Client.market`.

    Attributes:
        known: what carried files bring.
        offline: ask no node; only `known` counts.
    """

    pins: tuple[Federation, ...]
    run: RunInSession
    known: OfferBundle = field(default_factory=OfferBundle)
    offline: bool = False

    def carrying(self, *files: Path, offline: bool = False) -> OfferClient:
        """The same, knowing what parcels bring. Raises NotFound, Malformed (PARCEL)."""
        known = self.known
        for file in files:
            known |= OfferBundle.read(file)
        return replace(self, known=known, offline=offline)

    # Looking around

    def offers(self, query: OfferQuery, limit: int = 100) -> tuple[list[FoundChain], int]:
        """Offers that match, each computed from its lines, and how many more nodes say that there are. Raises
        Unavailable."""
        if self.offline:
            return [self._carried(chain) for chain in offers_in(self.known)], 0

        async def work(session: Session) -> tuple[list[FoundChain], int]:
            found = sorted(await search_offers(session, query))
            return await look_at_all_chains(session, found[:limit]), max(0, len(found) - limit)

        return self.run(work)

    def offer(self, name: str) -> FoundChain:
        """The offer whose chain's id, or whose own, begins with `name`. Raises NotFound (NO-OFFER), Unavailable."""
        return self._seen(self._chain_named(name))

    def grants(self, query: GrantQuery) -> list[FoundChain]:
        """The chains of which nodes say that they have such requests. Raises Unavailable."""
        if self.offline:
            return [self._carried(chain) for chain in offers_in(self.known)]

        async def work(session: Session) -> list[FoundChain]:
            states = await list_grants(session, query)
            return await look_at_all_chains(session, dict.fromkeys(state.chain for state in states))

        return self.run(work)

    def grant(self, name: str) -> HeldGrant:
        """The grant whose line's digest begins with `name`; without one, the only one that carried files bring.
        Raises NotFound (NO-GRANT), Unavailable."""
        for seen in self._about(name):
            grants = seen.view.book.grants
            wanted = [digest for digest in grants if digest.startswith(name)]
            if len(wanted) == 1 and (entry := seen.view.parcel.find(wanted[0])):
                return HeldGrant(seen.view, grants[wanted[0]], entry)
        why = "no line at hand grants it, or several do"
        raise NotFound(f"no grant {name[:80]!r}", why=why, hint="comity grant ls", code="NO-GRANT")

    def said(self, name: str, kind: type[S]) -> SentStatement[S]:
        """The statement of a `kind` whose line's digest begins with `name`; without one, the newest of the only chain
        that carried files bring. Raises NotFound (NO-STATEMENT), Unavailable."""
        for seen in self._about(name):
            stated = [each for each in self._stated(seen.view) if each.line.startswith(name)]
            found = [(each.said, each.line) for each in stated if isinstance(each.said, kind)]
            if found and (len(found) == 1 or not name):
                said, line = found[-1]
                if entry := seen.view.parcel.find(line):
                    return SentStatement(seen.view, said, entry)
        why = "no line at hand says so, or several do"
        hint = "comity grant ls, or comity grant show GRANT: what was said of a grant"
        raise NotFound(f"no statement {name[:80]!r}", why=why, hint=hint, code="NO-STATEMENT")

    # Handing over

    def deliver(self, lines: Sequence[bytes], to: str) -> tuple[str, tuple[int, ...]]:
        """Have a node log lines; its name, and where they stand now. Raises NotFound, Refused, Untrusted,
        Unavailable."""

        async def work(session: Session) -> tuple[str, tuple[int, ...]]:
            async with open_uplink(session, to) as uplink:
                receipts = await log_lines(uplink, lines, {}, {}, link=False, on_event=ignore_event)
                return uplink.name, tuple(receipt.index for receipt in receipts)

        return self.run(work)

    def act(self, act: Act, socket: str, lines: Sequence[bytes] = ()) -> ProviderRecord:
        """Have the provider's own node write a record, after it has logged `lines`; return once a checkpoint proves it.

        Raises Refused, NotFound, Untrusted, Conflict, Unavailable (NO-PROOF).
        """

        async def work(session: Session) -> ProviderRecord:
            async with open_uplink(session, socket) as uplink:
                receipts = await log_lines(uplink, lines, {}, {}, link=False, on_event=ignore_event) if lines else ()
                logged = dict(zip(map(sha256, lines), (receipt.line_digest for receipt in receipts), strict=True))
                located = (await uplink.client.offers.allocate(_about_logged(act, logged)))[-1]
                entry = parse_entry(located.line)
                return ProviderRecord(entry, located.index, await _whole(uplink.client, entry, located.origin))

        return self.run(work)

    def circle(self) -> IdentityResolver:
        """Whose word is whose, by the pins and what is carried."""
        return IdentityResolver(self.pins, self.known.entries)

    def _about(self, name: str) -> Iterable[FoundChain]:
        """Chains in which `name` may stand: those that are carried, then those that nodes know of."""
        for chain in offers_in(self.known):
            yield self._seen(chain)
        if name and not self.offline:
            _require_name(name)
            for state in self.run(lambda session: list_grants(session, GrantQuery())):
                lines = [state.request.line, *([state.answer.line] if state.answer else [])]
                if any(digest.startswith(name) for digest in (*map(sha256, lines), *state.said)):
                    yield self._seen(state.chain)

    def _stated(self, seen: ChainView) -> list[PartyStatement]:
        """What is said of a chain, in its log; and then what is carried and in no log of the provider's yet."""
        return [*seen.chain.stated, *loose(seen)]

    def _chain_named(self, name: str) -> Digest:
        if not name:
            (chain, *others) = offers_in(self.known) or ("",)
            if chain and not others:
                return Digest(chain)
        _require_name(name)
        found = {chain for chain in offers_in(self.known) if chain.startswith(name)}
        if not found and not self.offline:
            found = {chain for chain in self.run(_all_chains) if chain.startswith(name)}
        if not found and len(name) == 64:
            return Digest(name)
        if len(found) != 1:
            why = f"{len(found)} chains begin so, among those that can be had"
            raise NotFound(f"no offer {name[:80]!r}", why=why, hint="comity offer ls", code="NO-OFFER")
        return found.pop()

    def _seen(self, chain: Digest) -> FoundChain:
        if self.offline:
            return self._carried(chain)
        return self.run(lambda session: look_at_chain(session, chain, self.known))

    def _carried(self, chain: Digest) -> FoundChain:
        return FoundChain(view(self.known, chain, self.circle()), (), provider_answers=False)


async def _all_chains(session: Session) -> set[Digest]:
    return set(await search_offers(session, OfferQuery(closed=True)))


async def _whole(client: NodeClient, entry: Entry, origin: str) -> OfferBundle:
    """All that the node has about the chain of a record, once it has the record there and proves it. A node reads its
    own log a moment after it has written it."""
    chain, ends = entry.statement.subjects[0].digest, asyncio.get_running_loop().time() + PROOF_PATIENCE
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
            why = f"no checkpoint of {origin} covers {short(entry.digest)} after {PROOF_PATIENCE:g} s"
            raise Unavailable("recorded, but not proven", why=why, hint="run the same command again", code="NO-PROOF")
        await asyncio.sleep(PROOF_POLL)


def _require_name(name: str) -> None:
    if len(name) < LEAST_NAME:
        raise Malformed(f"{name[:80]!r} names nothing", why=f"write {LEAST_NAME} digits of it, or more",
                        hint="comity offer ls", code="BAD-NAME")  # fmt: skip


def _about_logged(act: Act, logged: Mapping[Digest, Digest]) -> Act:
    """The same act about the lines that the node has logged: it may have one of the same statement, signed before."""
    if isinstance(act, Approve | Reject):
        return replace(act, request=logged.get(act.request, act.request))
    if isinstance(act, Redeem):
        return replace(act, redemption=logged.get(act.redemption, act.redemption))
    return replace(act, default=logged.get(act.default, act.default)) if isinstance(act, AnswerDefault) else act


def accounts(views: Iterable[ChainView]) -> tuple[Balance, ...]:
    """A balance for each pair of members and unit."""
    return balances(used for seen in views if seen.state != CONVICTED for used in _used(seen))


def _used(seen: ChainView) -> Iterator[UsageRecord]:
    agreed = _agreed(seen)
    for stated in seen.chain.stated:
        usage = stated.said
        if not isinstance(usage, Usage) or usage.grant not in seen.book.grants:
            continue
        grant = seen.book.grants[usage.grant].grant
        parts = zip(grant.allocations, usage.amounts, strict=False)
        amounts = tuple((Unit(seen.offer.measure, _accelerator(seen, part.slice)), amount) for part, amount in parts)
        agreement = agreed.get((grant.grantee, stated.line))
        yield UsageRecord(seen.offer.provider, grant.grantee, amounts, usage.grant, stated.line, agreement)


def _agreed(seen: ChainView) -> dict[tuple[Digest, Digest], Digest]:
    """Agreements that are proven to be their authors', by author and usage line."""
    found = {}
    for stated in (*seen.chain.stated, *loose(seen)):
        if isinstance(stated.said, Agreement):
            entry = seen.parcel.find(stated.line)
            if entry is not None and seen.circle.by_identity(entry):
                found[stated.said.by, stated.said.usage] = stated.line
    return found


def _accelerator(seen: ChainView, name: str) -> str:
    """Of the newest version of the offer that has such a slice."""
    found = (part.accelerator for offer in reversed(seen.book.offers) if (part := offer.slice(name)))
    return next(found, "")
