"""The market as one user sees it: synchronous, over the nodes of the session, or over carried files alone.

    market = client.market()
    seen = market.offer("9f2c41aa")                                        # proven, claimed or convicted
    entry = voice.say(Request(voice.identity, seen.view.offer.id, …))      # after a person has read it
    market.deliver([*voice.lines, entry.line], to="node-es")

Providers act through their own node, which alone writes the chain: `act`. All statements also go by parcels.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

from comity.trust.digest import Digest, sha256, short
from comity.trust.errors import Malformed, NotFound, Unavailable
from comity.trust.federation import Federation
from comity.trust.offers.accounts import Usage
from comity.trust.offers.book import Commitment
from comity.trust.offers.hearing import Stated
from comity.trust.offers.parties import Said
from comity.trust.statement import Entry, parse_entry
from comity.wire.client import NodeClient
from comity.wire.offer_values import Act, AnswerDefault, Approve, GrantQuery, OfferQuery, Redeem, Reject

from comity_client.compute import gathering
from comity_client.compute.chains import View, offers_in, view
from comity_client.compute.circle import Circle
from comity_client.compute.gathering import Seen
from comity_client.compute.loose import loose
from comity_client.compute.parcels import Parcel, Placed
from comity_client.events import ignore
from comity_client.nodes.session import Session
from comity_client.nodes.uplink import log_lines, open_uplink

T = TypeVar("T")
S = TypeVar("S", bound=Said | Usage)
LEAST_NAME: Final = 8
"""Digits by which a digest can be named."""
PROOF_PATIENCE: Final = 60.0
PROOF_POLL: Final = 0.2


class Run(Protocol):
    """Runs work in a session of the user's pins."""

    def __call__(self, work: Callable[[Session], Awaitable[T]], /) -> T: ...


@dataclass(frozen=True, slots=True)
class Held:
    """A grant, by its chain as it can be known here; `granted` is the line that grants."""

    view: View
    commitment: Commitment
    granted: Entry


@dataclass(frozen=True, slots=True)
class Asked(Generic[S]):
    """A statement of somebody about an offer, in its line `entry`, with the chain that it is about."""

    view: View
    said: S
    entry: Entry


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a provider's node wrote: the record, its place in the node's log, and all that is known of its chain, with a
    proof of the record."""

    entry: Entry
    index: int
    parcel: Parcel


@dataclass(frozen=True, slots=True)
class Market:
    """Made by `Client.market`.

    Attributes:
        known: what carried files bring.
        offline: ask no node; only `known` counts.
    """

    pins: tuple[Federation, ...]
    run: Run
    known: Parcel = field(default_factory=Parcel)
    offline: bool = False

    def carrying(self, *files: Path, offline: bool = False) -> Market:
        """The same, knowing what parcels bring. Raises NotFound, Malformed (PARCEL)."""
        known = self.known
        for file in files:
            known |= Parcel.read(file)
        return replace(self, known=known, offline=offline)

    # Looking around

    def offers(self, query: OfferQuery, limit: int = 100) -> tuple[list[Seen], int]:
        """Offers that match, each computed from its lines, and how many more nodes say that there are. Raises
        Unavailable."""
        if self.offline:
            return [self._carried(chain) for chain in offers_in(self.known)], 0

        async def work(session: Session) -> tuple[list[Seen], int]:
            found = sorted(await gathering.search(session, query))
            return await gathering.look_at_all(session, found[:limit]), max(0, len(found) - limit)

        return self.run(work)

    def offer(self, name: str) -> Seen:
        """The offer whose chain's id, or whose own, begins with `name`. Raises NotFound (NO-OFFER), Unavailable."""
        return self._seen(self._chain_named(name))

    def grants(self, query: GrantQuery) -> list[Seen]:
        """The chains of which nodes say that they have such requests. Raises Unavailable."""
        if self.offline:
            return [self._carried(chain) for chain in offers_in(self.known)]

        async def work(session: Session) -> list[Seen]:
            states = await gathering.grants(session, query)
            return await gathering.look_at_all(session, dict.fromkeys(state.chain for state in states))

        return self.run(work)

    def grant(self, name: str) -> Held:
        """The grant whose line's digest begins with `name`; without one, the only one that carried files bring.
        Raises NotFound (NO-GRANT), Unavailable."""
        for seen in self._about(name):
            grants = seen.view.book.grants
            wanted = [digest for digest in grants if digest.startswith(name)]
            if len(wanted) == 1 and (entry := seen.view.parcel.find(wanted[0])):
                return Held(seen.view, grants[wanted[0]], entry)
        why = "no line at hand grants it, or several do"
        raise NotFound(f"no grant {name[:80]!r}", why=why, hint="comity grant ls", code="NO-GRANT")

    def said(self, name: str, kind: type[S]) -> Asked[S]:
        """The statement of a `kind` whose line's digest begins with `name`; without one, the newest of the only chain
        that carried files bring. Raises NotFound (NO-STATEMENT), Unavailable."""
        for seen in self._about(name):
            stated = [each for each in self._stated(seen.view) if each.line.startswith(name)]
            found = [(each.said, each.line) for each in stated if isinstance(each.said, kind)]
            if found and (len(found) == 1 or not name):
                said, line = found[-1]
                if entry := seen.view.parcel.find(line):
                    return Asked(seen.view, said, entry)
        why = "no line at hand says so, or several do"
        hint = "comity grant ls, or comity grant show GRANT: what was said of a grant"
        raise NotFound(f"no statement {name[:80]!r}", why=why, hint=hint, code="NO-STATEMENT")

    # Handing over

    def deliver(self, lines: Sequence[bytes], to: str) -> tuple[str, tuple[int, ...]]:
        """Have a node log lines; its name, and where they stand now. Raises NotFound, Refused, Untrusted,
        Unavailable."""

        async def work(session: Session) -> tuple[str, tuple[int, ...]]:
            async with open_uplink(session, to) as uplink:
                receipts = await log_lines(uplink, lines, {}, {}, link=False, on_event=ignore)
                return uplink.name, tuple(receipt.index for receipt in receipts)

        return self.run(work)

    def act(self, act: Act, socket: str, lines: Sequence[bytes] = ()) -> Recorded:
        """Have the provider's own node write a record, after it has logged `lines`; return once a checkpoint proves it.

        Raises Refused, NotFound, Untrusted, Conflict, Unavailable (NO-PROOF).
        """

        async def work(session: Session) -> Recorded:
            async with open_uplink(session, socket) as uplink:
                receipts = await log_lines(uplink, lines, {}, {}, link=False, on_event=ignore) if lines else ()
                logged = dict(zip(map(sha256, lines), (receipt.line_digest for receipt in receipts), strict=True))
                located = (await uplink.client.offers.allocate(_about_logged(act, logged)))[-1]
                entry = parse_entry(located.line)
                return Recorded(entry, located.index, await _whole(uplink.client, entry, located.origin))

        return self.run(work)

    def circle(self) -> Circle:
        """Whose word is whose, by the pins and what is carried."""
        return Circle(self.pins, self.known.entries)

    def _about(self, name: str) -> Iterable[Seen]:
        """Chains in which `name` may stand: those that are carried, then those that nodes know of."""
        for chain in offers_in(self.known):
            yield self._seen(chain)
        if name and not self.offline:
            _require_name(name)
            for state in self.run(lambda session: gathering.grants(session, GrantQuery())):
                lines = [state.request.line, *([state.answer.line] if state.answer else [])]
                if any(digest.startswith(name) for digest in (*map(sha256, lines), *state.said)):
                    yield self._seen(state.chain)

    def _stated(self, seen: View) -> list[Stated]:
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

    def _seen(self, chain: Digest) -> Seen:
        if self.offline:
            return self._carried(chain)
        return self.run(lambda session: gathering.look(session, chain, self.known))

    def _carried(self, chain: Digest) -> Seen:
        return Seen(view(self.known, chain, self.circle()), (), provider_answers=False)


async def _all_chains(session: Session) -> set[Digest]:
    return set(await gathering.search(session, OfferQuery(closed=True)))


async def _whole(client: NodeClient, entry: Entry, origin: str) -> Parcel:
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
            placed = (Placed(item.line, item.origin, item.index) for item in lines)
            return Parcel(tuple(placed), tuple((entry.digest, item.proof) for item in proofs))
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
