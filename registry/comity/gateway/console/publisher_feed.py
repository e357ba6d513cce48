"""The Atom feed of one publisher: `/-/feeds/publishers/{id}.atom`.

It has what concerns the publisher, as `comity.node.publisher_watch` finds and bounds it: statements under its identity,
publications of others under its names, and its files under other names. Nothing is kept for it: what concerns an
identity is read for each request. `updated` is when this node verified the statement. A reader that sends the ETag
back gets 304. What concerns no repository that the reader may read is left out (`StateReader.entry_for`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from comity.gateway.access_tokens import GatewayAccess
from comity.gateway.console.feeds import MAX_ENTRIES, feed_answer, feed_document, feed_entry
from comity.gateway.console.page import PREFIX
from comity.gateway.console.state import STATEMENTS, Readable, RecentEntry, StateReader
from comity.gateway.declared_routes import DeclaredRoute
from comity.node.home import ServedHome
from comity.node.publisher_watch import Concern, WatchReader, Why
from comity.trust.encoding import Digest, bare_digest, short
from comity.trust.errors import Malformed, NotFound
from comity.trust.frozen import frozen
from comity.trust.statement import parse_entry

TITLES: Final[Mapping[Why, str]] = {
    "own": "Under this identity",
    "name": "Somebody else under a name of this publisher",
    "files": "Files of this publisher under another name",
}


@frozen
class ConcernEntry:
    """What concerns the publisher, with its statement; `when` this node verified it, in POSIX seconds."""

    concern: Concern
    statement: Digest
    what: RecentEntry
    when: int


class PublisherFeeds:
    """Not thread-safe: call from the event loop."""

    def __init__(self, home: ServedHome, watch: WatchReader | None, states: StateReader, access: GatewayAccess) -> None:
        """`watch`: None at a front end, which does not know it."""
        self._node = home.membership.own_node.record.name
        self._url = home.config.gateway.url
        self._ledger = home.ledger
        self._pools = home.pools
        self._watch = watch
        self._states = states
        self._access = access

    def routes(self) -> list[DeclaredRoute]:
        return [DeclaredRoute(f"{PREFIX}/feeds/publishers/{{identity}}.atom", self.feed, self._access.for_readers())]

    async def feed(self, request: Request) -> Response:
        """What concerns a publisher, as far as the reader may read it. Raises NotFound (NO-SUCH-ROUTE), and as
        `GatewayAccess` does."""
        if self._watch is None:
            raise NotFound(
                "no such feed", why="the writer of this node knows what concerns a publisher", code="NO-SUCH-ROUTE"
            )
        try:
            identity = bare_digest(request.path_params["identity"])
        except Malformed as error:
            raise NotFound(
                "no such feed", why="a publisher is named by its id in full", code="NO-SUCH-ROUTE"
            ) from error
        readable = await self._access.readable_part(request)
        found, more = await self._ledger.run(self._read, self._watch, identity, readable)
        endpoint = self._url or f"{request.url.scheme}://{request.url.netloc}"
        return feed_answer(request, atom(identity, self._node, endpoint, found, more=more))

    def _read(self, watch: WatchReader, identity: Digest, readable: Readable | None) -> tuple[list[ConcernEntry], bool]:
        """Blocking. The newest first, and whether there is more."""
        found = watch.watch.concerns(identity, MAX_ENTRIES)
        numbers = {each.number for each in found.found}
        lines = {line.number: line for line in self._ledger.tables.proven.numbered(numbers)}
        times = self._ledger.tables.proven_times.verified_at(lines)
        entries: dict[tuple[Digest, Why], ConcernEntry] = {}
        for each in found.found:
            if (line := lines.get(each.number)) is None:
                continue
            what, statement = self._states.entry_for(line, readable), parse_entry(line.line).statement_digest
            if what is not None:
                entries.setdefault((statement, each.why), ConcernEntry(each, statement, what, times[each.number]))
        return list(entries.values())[::-1], found.more


def atom(identity: Digest, node: str, endpoint: str, entries: list[ConcernEntry], *, more: bool) -> str:
    """The document."""
    name, title = f"publisher:{identity}", f"What concerns the publisher {short(identity)}"
    if more:
        title += f" (the newest of more than {len(entries)})"
    address = f"{endpoint}{PREFIX}/feeds/publishers/{identity}.atom"
    newest = max((entry.when for entry in entries), default=0)
    return feed_document(name, title, address, node, newest, (_entry(endpoint, entry) for entry in entries))


def _entry(endpoint: str, entry: ConcernEntry) -> str:
    what, why = entry.what, entry.concern.why
    title = f"{TITLES[why]}: {what.subject or STATEMENTS.get(what.kind, what.kind)}"
    said = f"{STATEMENTS.get(what.kind, what.kind)}, by {what.by}, in {what.origin} as entry {what.index}."
    return feed_entry(f"{entry.statement}:{why}", title, entry.when, endpoint, what, said)
