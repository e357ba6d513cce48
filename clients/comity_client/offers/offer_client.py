"""Offers and grants for one user: find chains at nodes or in bundle files, and send statements.

`OfferClient` is synchronous:

    found = client.offers().offer("9f2c41aa")
    entry = signer.sign(GrantRequest(signer.identity, found.view.offer.id, …))      # after a person has read it
    client.offers().deliver([*signer.lines, entry.line], to="node-es")
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import field, replace
from functools import reduce
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar

from comity.federation_file import Federation
from comity.rules.hardware_evidence import Appraise, Challenge, not_appraised
from comity.rules.offers.amounts import Usage
from comity.rules.offers.chain import GrantState
from comity.rules.offers.records import Acceptance, PartyStatement
from comity.trust.encoding import Digest, sha256, short
from comity.trust.errors import ComityError, Malformed, NotFound, Unavailable, Untrusted
from comity.trust.frozen import frozen
from comity.trust.names import Abbreviation, ambiguous, is_meant, parse_id
from comity.trust.statement import Entry, parse_entry
from comity.wire import limits
from comity.wire.client import NodeClient
from comity.wire.log import LocatedProof
from comity.wire.messages import LocatedEntry
from comity.wire.offer import (
    AnswerDefault,
    Approve,
    Attest,
    GrantQuery,
    GrantStatus,
    OfferAction,
    OfferQuery,
    OfferStatus,
    Redeem,
    Reject,
)

from comity_client.events import ignore_event
from comity_client.offers.attestation import OfferHardware, fetch_attestations, make_challenge
from comity_client.offers.bundle import OfferBundle, PlacedLine
from comity_client.offers.views import (
    CLAIMED,
    CONVICTED,
    PROVEN,
    ChainView,
    IdentityResolver,
    chain_ids,
    statements_about,
    view,
)
from comity_client.session import Question, Session, Target
from comity_client.uplink import log_lines, open_uplink

MAX_PAGES: Final = 32
"""Maximum pages from one node: 32,000 offers, 320,000 requests."""
MAX_CONCURRENT: Final = 16
MAX_CHAINS: Final = 500
"""Chains with requests that are fetched."""
MAX_ALIKE: Final = 16
"""Chains with the same first digits that are fetched."""
_RANK: Final = {CLAIMED: 0, PROVEN: 1, CONVICTED: 2}


@frozen
class FoundChain:
    """A chain, the nodes that returned lines of it, and whether the provider's own node answers now."""

    view: ChainView
    nodes: tuple[str, ...]
    provider_answers: bool


async def search_offers(session: Session, query: OfferQuery) -> list[Digest]:
    """Chains that match according to the nodes, in the order of `most_named`. Raises Unavailable."""
    answers = await session.ask(lambda node: _offers(node, query))
    if not answers.found:
        raise answers.failure("no node answers the search for offers")
    return most_named([(state.chain, state.vkey) for state in states] for states in answers.found.values())


async def list_grants(session: Session, query: GrantQuery) -> tuple[tuple[GrantStatus, ...], ...]:
    """Requests and their states, of each node that answers. Raises Unavailable."""
    answers = await session.ask(lambda node: _grants(node, query))
    if not answers.found:
        raise answers.failure("no node lists requests")
    return tuple(map(tuple, answers.found.values()))


def most_named(lists: Iterable[Sequence[tuple[Digest, str]]]) -> list[Digest]:
    """The chains that nodes list, those of most nodes first; of equals, each node names one of each log in turn. A
    chain is only a claim; one node may name any number, and one member may log any number, which all nodes name.

    Args:
        lists: of each node, the chains, each with a log that it names for the chain.
    """
    counts: Counter[Digest] = Counter()
    turns: dict[Digest, int] = {}
    for listed in map(dict.fromkeys, lists):
        counts.update({chain for chain, _ in listed})
        of_log: Counter[str] = Counter()
        for chain, log in listed:
            turns[chain] = min(of_log[log], turns.get(chain, of_log[log]))
            of_log[log] += 1
    return sorted(counts, key=lambda chain: (-counts[chain], turns[chain], chain))


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


T = TypeVar("T")
S = TypeVar("S", bound=PartyStatement | Usage)
MIN_PREFIX: Final = 8
"""Minimum digits of a digest prefix."""
PROOF_TIMEOUT: Final = 60.0
"""Seconds."""
PROOF_POLL: Final = 0.2
"""Seconds."""
RECORD_TIMEOUT: Final = 60.0
"""Seconds that a provider's node has to read a statement from another log and to record it."""
RECORD_POLL: Final = 0.5
"""Seconds."""


class RunInSession(Protocol):
    """Runs work in a session with the user's pinned federations."""

    def __call__(self, work: Callable[[Session], Coroutine[Any, Any, T]], /) -> T: ...


@frozen
class FoundGrant:
    """A grant and its chain; `granted` is the entry of the grant."""

    view: ChainView
    grant_state: GrantState
    granted: Entry


@frozen
class SentStatement(Generic[S]):
    """A statement about an offer or grant, its `entry`, and the chain that it is about."""

    view: ChainView
    statement: S
    entry: Entry


@frozen
class ProviderRecord:
    """A record that a provider's node wrote, its index in the log, and all lines of its chain with a proof of it."""

    entry: Entry
    index: int
    bundle: OfferBundle


@frozen
class OfferClient:
    """Offers and grants for one user. Created by `Client.market`.

    Attributes:
        appraise: appraises hardware evidence, by the owner's pins; an add-on does (`appraiser`).
        known: lines and proofs from bundle files.
        offline: ask no node; use only `known`.
    """

    pins: tuple[Federation, ...]
    run: RunInSession
    appraise: Appraise = not_appraised
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
            found = await search_offers(session, query)
            return await fetch_chains(session, sorted(found[:limit])), max(0, len(found) - limit)

        return self.run(work)

    def offer(self, name: str) -> FoundChain:
        """The offer whose chain id begins with `name`. Raises NotFound (NO-OFFER), Unavailable."""
        return self._fetch(self._chain_named(name))

    def grants(self, query: GrantQuery) -> tuple[list[FoundChain], int]:
        """Chains with matching requests according to the nodes, at most `MAX_CHAINS`, and the number of the others.
        Raises Unavailable."""
        if self.offline:
            return [self._from_files(chain) for chain in chain_ids(self.known)], 0

        async def work(session: Session) -> tuple[list[FoundChain], int]:
            found = _chains_with(await list_grants(session, query))
            return await fetch_chains(session, sorted(found[:MAX_CHAINS])), max(0, len(found) - MAX_CHAINS)

        return self.run(work)

    def grant(self, name: str) -> FoundGrant:
        """The grant whose line digest begins with `name`; for an empty name, the only grant in the bundle files.

        Raises NotFound (NO-GRANT), Unavailable.
        """
        for seen in self._candidates(name):
            grants = seen.view.state.grants
            wanted = [digest for digest in grants if _is_named(digest, name)]
            if len(wanted) == 1 and (entry := seen.view.bundle.find(wanted[0])):
                return FoundGrant(seen.view, grants[wanted[0]], entry)
        why = "no known chain has such a grant, or several do"
        raise NotFound(f"no grant {name[:80]!r}", why=why, hint="comity grant ls", code="NO-GRANT")

    def awaits_record(self, found: FoundGrant) -> bool:
        """Whether the grantee has accepted a grant, and the provider's node can still record that."""
        said = [each.statement for each in statements_about(found.view)]
        accepted = {each.grant for each in said if isinstance(each, Acceptance)}
        return found.grant_state.state == "granted" and found.grant_state.digest in accepted

    def wait_for_record(self, found: FoundGrant) -> FoundGrant:
        """The same grant, once the provider's node has recorded the acceptance.

        Raises Unavailable (NOT-RECORDED) after RECORD_TIMEOUT; Unavailable if no node answers; NotFound.
        """
        ends = time.monotonic() + RECORD_TIMEOUT
        grant = found.grant_state.digest
        while self.awaits_record(found):
            if time.monotonic() > ends:
                why = f"the provider's node has not recorded it within {RECORD_TIMEOUT:g} s"
                raise Unavailable("the acceptance is not recorded yet", why=why,
                                  hint=f"comity grant show {grant[:12]}", code="NOT-RECORDED")  # fmt: skip
            time.sleep(RECORD_POLL)
            seen = self._fetch(found.view.state.chain)
            found = FoundGrant(seen.view, seen.view.state.grants[grant], found.granted)
        return found

    def statement(self, name: str, kind: type[S]) -> SentStatement[S]:
        """The statement of a `kind` whose line digest begins with `name`; for an empty name, the newest of the only
        chain in the bundle files. Raises NotFound (NO-STATEMENT), Unavailable."""
        for seen in self._candidates(name):
            located = [each for each in statements_about(seen.view) if _is_named(each.line, name)]
            found = [(each.statement, each.line) for each in located if isinstance(each.statement, kind)]
            if found and (len(found) == 1 or not name):
                content, line = found[-1]
                if entry := seen.view.bundle.find(line):
                    return SentStatement(seen.view, content, entry)
        why = "no such statement is known, or several match"
        hint = "comity grant ls; comity grant show GRANT"
        raise NotFound(f"no statement {name[:80]!r}", why=why, hint=hint, code="NO-STATEMENT")

    # Statements and records

    def deliver(self, lines: Sequence[bytes], to: Target) -> tuple[str, tuple[int, ...]]:
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

    def challenge(self, seen: FoundChain, socket: str) -> Challenge:
        """The challenge for an offer of the node behind `socket`. Raises Untrusted, Unavailable."""
        provider = seen.view.provider
        if provider is None:
            raise Untrusted("no challenge", why=seen.view.why, hint="comity trust show", code="NOT-PROVEN")

        async def work(session: Session) -> Challenge:
            async with open_uplink(session, socket) as uplink:
                return await make_challenge(uplink.client, seen.view.state.offer.id, provider)

        return self.run(work)

    def attest(self, action: Attest, socket: str) -> tuple[Entry, int]:
        """Log hardware evidence at the provider's own node; returns the entry and its index once a checkpoint proves
        it. Raises Refused, NotFound, Malformed, Unavailable (NO-PROOF)."""

        async def work(session: Session) -> tuple[Entry, int]:
            async with open_uplink(session, socket) as uplink:
                located = (await uplink.client.offers.allocate(action))[-1]
                entry = parse_entry(located.line)
                await _wait_until_proven(uplink.client, entry, located.origin)
                return entry, located.index

        return self.run(work)

    def attestations(self, found: Sequence[FoundChain], at: int) -> dict[Digest, OfferHardware]:
        """What hardware evidence shows of these offers, by chain, appraised by the owner's pins as of `at`, POSIX
        seconds. A device that is in two of these offers fails in both."""
        if self.offline:
            return {seen.view.state.chain: OfferHardware.of(seen.view.offer, ()) for seen in found}
        views = [seen.view for seen in found]
        return self.run(lambda session: fetch_attestations(session, views, self.appraise, at))

    def identities(self) -> IdentityResolver:
        """Resolver for the pinned federations and the bundle files."""
        return IdentityResolver(self.pins, self.known.entries)

    def _candidates(self, name: str) -> Iterable[FoundChain]:
        """Chains that may contain `name`: first those in bundle files, then those at nodes."""
        for chain in chain_ids(self.known):
            yield self._fetch(chain)
        if name and not self.offline:
            _require_name(name)
            listed = self.run(lambda session: list_grants(session, GrantQuery()))
            naming = [[state for state in states if _names(state, name)] for states in listed]
            for chain in _chains_with(naming)[:MAX_CHAINS]:
                with suppress(Unavailable):  # a node may name a chain that nobody has
                    yield self._fetch(chain)

    def _chain_named(self, name: str) -> Digest:
        if not name:
            (chain, *others) = chain_ids(self.known) or ("",)
            if chain and not others:
                return Digest(chain)
        _require_name(name)
        found = {chain for chain in chain_ids(self.known) if _is_named(chain, name)}
        if not found and not self.offline:
            found = self.run(lambda session: _known_chains(session, name))
        if not found and len(name) == 64:
            return parse_id(name)
        if not found:
            why = "no known chain has this id"
            raise NotFound(f"no offer {name[:80]!r}", why=why, hint="comity offer ls", code="NO-OFFER")
        if len(found) > 1 and (digits := Abbreviation.parse(name)) is not None:
            raise ambiguous(digits, dict.fromkeys(found, ""), "offer")
        return found.pop()

    def _fetch(self, chain: Digest) -> FoundChain:
        if self.offline:
            return self._from_files(chain)
        return self.run(lambda session: fetch_chain(session, chain, self.known))

    def _from_files(self, chain: Digest) -> FoundChain:
        return FoundChain(view(self.known, chain, self.identities()), (), provider_answers=False)


async def _known_chains(session: Session, name: str) -> set[Digest]:
    """The chains at nodes with this name; where it abbreviates several, those of them that can be fetched."""
    listed = await search_offers(session, OfferQuery(closed=True))
    named = [chain for chain in listed if _is_named(chain, name)]
    if len(named) < 2:
        return set(named)
    return {seen.view.state.chain for seen in await fetch_chains(session, named[:MAX_ALIKE])}


async def _wait_for_proof(client: NodeClient, entry: Entry, origin: str) -> OfferBundle:
    """Poll until the node proves a record; returns all its lines about the chain.

    A node reads its own log shortly after the write. Raises Unavailable (NO-PROOF) after PROOF_TIMEOUT.
    """
    chain = entry.statement.subjects[0].digest

    async def read() -> OfferBundle | None:
        lines = await client.offers.get(chain)
        proofs = await client.proofs(entry.digest, origin)
        if not proofs or all(item.line != entry.line for item in lines):
            return None
        placed = (PlacedLine(item.line, item.origin, item.index) for item in lines)
        return OfferBundle(tuple(placed), tuple((entry.digest, item.proof) for item in proofs))

    return await _poll(read, entry, origin)


async def _wait_until_proven(client: NodeClient, entry: Entry, origin: str) -> None:
    """Poll until a checkpoint of the node's log covers the entry. Raises Unavailable (NO-PROOF)."""

    async def read() -> bool | None:
        return bool(await client.proofs(entry.digest, origin)) or None

    await _poll(read, entry, origin)


async def _poll(read: Callable[[], Awaitable[T | None]], entry: Entry, origin: str) -> T:
    """What `read` returns, once it is not None; NotFound counts as None. Raises Unavailable (NO-PROOF)."""
    ends = asyncio.get_running_loop().time() + PROOF_TIMEOUT
    while True:
        with suppress(NotFound):
            found = await read()
            if found is not None:
                return found
        if asyncio.get_running_loop().time() > ends:
            why = f"no checkpoint of {origin} covers {short(entry.digest)} after {PROOF_TIMEOUT:g} s"
            raise Unavailable(
                "recorded, but not yet proven", why=why, hint="run the same command again", code="NO-PROOF"
            )
        await asyncio.sleep(PROOF_POLL)


def _chains_with(listed: Iterable[Sequence[GrantStatus]]) -> list[Digest]:
    return most_named([(state.chain, state.request.origin) for state in states] for states in listed)


def _names(state: GrantStatus, name: str) -> bool:
    """Whether the name is that of the request, of its answer, or of a statement about the grant."""
    lines = [state.request.line, *([state.answer.line] if state.answer else [])]
    return any(_is_named(digest, name) for digest in (*map(sha256, lines), *state.statements))


def _is_named(digest: Digest, name: str) -> bool:
    """Whether the name gives or abbreviates the digest; the empty name stands for any."""
    return not name or is_meant(name, digest)


def _require_name(name: str) -> None:
    if len(name) < MIN_PREFIX:
        raise Malformed(f"{name[:80]!r} is too short", why=f"at least {MIN_PREFIX} digits are needed",
                        hint="comity offer ls", code="BAD-NAME")  # fmt: skip


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
