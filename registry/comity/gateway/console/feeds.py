"""Atom feeds (RFC 4287): new versions, and warnings about artifacts.

(1) a background task follows the verified `published`, `observed` and `advisory` statements
(2) an entry's id follows from the statement, so that it is the same at every node and after a restart
(3) statements have no time; `updated` is when this node first read the statement, and is kept in `feeds.json`
(4) a feed has at most `MAX_ENTRIES` entries; if there are more, `comity.rules.precedence.newest` says which: members,
    and publishers about their own artifacts, have places of their own, and logs and authors take turns, so that nobody
    who says much pushes out the others
(5) texts are escaped, without control characters and direction marks; the feed says whose word they are

A reader that sends the ETag back gets 304.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal
from xml.sax.saxutils import escape, quoteattr

from starlette.requests import Request
from starlette.responses import Response

from comity.bounded_file import read_bounded
from comity.content import durable
from comity.gateway.access_tokens import GatewayAccess
from comity.gateway.console.directions import shown_text
from comity.gateway.console.page import HEADERS, PREFIX
from comity.gateway.console.state import Readable, RecentEntry, StateReader
from comity.gateway.declared_routes import DeclaredRoute
from comity.ledger.proven import ProvenLine
from comity.node.home import ServedHome
from comity.node.statement_groups import StatementGroups
from comity.node.supervisor import LoopTiming, Supervisor
from comity.rules.precedence import OTHERS, Said, newest
from comity.trust.encoding import Digest, Fields, parse_digest, parse_json, sha256
from comity.trust.errors import ComityError, NotFound
from comity.trust.frozen import frozen
from comity.trust.statement import Entry, parse_entry
from comity.trust.statement_kinds import ADVISORY, OBSERVED, PUBLISHED
from comity.trust.statements import Advisory

FEEDS_FILE: Final = "feeds.json"
FEEDS_SCHEMA: Final = "comity/feeds/v1"
MAX_FEEDS_FILE: Final = 64 * 1024
MAX_ENTRIES: Final = 100
MAX_TEXT: Final = 2_000
STEP: Final = 128
LOOKS: Final = LoopTiming(interval=5.0, deadline=3_600.0)
LOOKED_BACK: Final = 100_000
"""Statements before the newest one, among which entries are sought at the start."""

FeedKind = Literal["versions", "advisories"]
TITLES: Final[Mapping[FeedKind, str]] = {"versions": "New versions", "advisories": "Warnings about artifacts"}
_KINDS: Final[Mapping[str, FeedKind]] = {PUBLISHED: "versions", OBSERVED: "versions", ADVISORY: "advisories"}


@frozen
class FeedEntry:
    """An entry: the statement with its digest, and when this node read it first, in POSIX seconds. `group` is that of
    its author (`StatementGroups`)."""

    statement: Digest
    number: int
    seen: int
    what: RecentEntry
    text: str = ""
    author: str = ""
    group: int = OTHERS


@frozen
class FeedMemory:
    """What `feeds.json` keeps: from which statement on to read, and when statements were first read."""

    first: int
    seen: Mapping[Digest, int]

    @classmethod
    def parse(cls, data: bytes) -> FeedMemory:
        """Raises Malformed."""
        fields = Fields(parse_json(data, limit=MAX_FEEDS_FILE, what="feeds"), "feeds")
        fields.constant("schema", FEEDS_SCHEMA)
        first, seen = fields.integer("first"), fields.take("seen")
        fields.done()
        if not isinstance(seen, Mapping) or len(seen) > 2 * MAX_ENTRIES:
            raise fields.error(f"'seen' must be an object of at most {2 * MAX_ENTRIES} members")
        times = Fields(seen, "feeds")
        return cls(first, {parse_digest(name): times.integer(name) for name in seen})

    def encode(self) -> bytes:
        return json.dumps({"schema": FEEDS_SCHEMA, "first": self.first, "seen": dict(self.seen)}).encode() + b"\n"


class Feeds:
    """Not thread-safe: call from the event loop."""

    def __init__(self, home: ServedHome, states: StateReader, access: GatewayAccess, groups: StatementGroups) -> None:
        self._file = home.config.path(FEEDS_FILE)
        self._node = home.membership.own_node.record.name
        self._url = home.config.gateway.url
        self._ledger = home.ledger
        self._pools = home.pools
        self._clock = home.clock
        self._states = states
        self._access = access
        self._groups = groups
        self._entries: dict[FeedKind, list[FeedEntry]] = {"versions": [], "advisories": []}
        self._memory = FeedMemory(0, {})
        self._position = -1

    def routes(self) -> list[DeclaredRoute]:
        return [DeclaredRoute(f"{PREFIX}/feeds/{{kind}}.atom", self.feed, self._access.for_readers())]

    def begin(self, supervisor: Supervisor) -> None:
        """Follow the statements in the background."""
        supervisor.loop("console feeds", self._follow, LOOKS)

    async def _follow(self) -> None:
        while await self.step():
            await asyncio.sleep(0)

    async def step(self) -> bool:
        """Read one step, once artifacts have their names. Returns whether more may follow."""
        if not self._states.indexed:
            return False
        if self._position < 0:
            self._memory = await self._pools.files(read_memory, self._file)
            last = await self._ledger.read(self._ledger.tables.proven.last_number)
            self._position = max(0, self._memory.first - 1, last - LOOKED_BACK)
        found = await self._ledger.run(self._read, self._position)
        for kind in TITLES:
            self._entries[kind] = fair([*self._entries[kind], *(entry for of, entry in found if of == kind)])
        self._position = max([self._position, *(entry.number for _, entry in found)])
        if found:
            await self._pools.files(self._remember)
        return len(found) == STEP

    async def feed(self, request: Request) -> Response:
        """A feed of what the reader may read. Raises NotFound (NO-SUCH-ROUTE), and as `GatewayAccess` does."""
        kind = request.path_params["kind"]
        if kind not in TITLES:
            raise NotFound("no such feed", why=f"there are {', '.join(TITLES)}", code="NO-SUCH-ROUTE")
        readable, entries = await self._access.readable_part(request), self._entries[kind]
        if readable is not None:
            entries = await self._ledger.run(self._for_reader, entries, readable)
        endpoint = self._url or f"{request.url.scheme}://{request.url.netloc}"
        return feed_answer(request, atom(kind, self._node, endpoint, entries[::-1]))

    def _for_reader(self, entries: Sequence[FeedEntry], readable: Readable) -> list[FeedEntry]:
        """Blocking. The entries that concern what a reader may read, in their order."""
        lines = {line.number: line for line in self._ledger.tables.proven.numbered([each.number for each in entries])}
        found = [
            (each, self._states.entry_for(lines[each.number], readable)) for each in entries if each.number in lines
        ]
        return [replace(each, what=what) for each, what in found if what is not None]

    def _read(self, position: int) -> list[tuple[FeedKind, FeedEntry]]:
        """Blocking. The next entries, in their order."""
        lines = self._ledger.tables.proven.since(position, tuple(_KINDS), STEP)
        entries = [(line, parse_entry(line.line)) for line in lines]
        kinds = [_KINDS.get(entry.statement.predicate) for _, entry in entries]
        shown = [(kind, *each) for kind, each in zip(kinds, entries, strict=True) if kind is not None]
        groups = self._groups.of_each([entry.statement for _, _, entry in shown])
        return [(kind, self._entry(line, entry, at)) for (kind, line, entry), at in zip(shown, groups, strict=True)]

    def _entry(self, line: ProvenLine, entry: Entry, group: int) -> FeedEntry:
        """Blocking."""
        text = ""
        if entry.statement.predicate == ADVISORY:
            said = Advisory.parse(entry.statement)
            text = f"{said.severity}, {said.kind}: {said.text}"[:MAX_TEXT]
        statement = entry.statement_digest
        seen = self._memory.seen.get(statement, int(self._clock()))
        by = entry.statement.by
        author = by.id if by is not None else ""
        return FeedEntry(statement, line.number, seen, self._states.entry(line), text, author, group)

    def _remember(self) -> None:
        """Blocking. Raises OutOfSpace, Unavailable."""
        entries = [entry for found in self._entries.values() for entry in found]
        seen = {entry.statement: entry.seen for entry in entries}
        first = min((entry.number for entry in entries), default=0)
        durable.write_file(self._file, FeedMemory(first, seen).encode(), point="feeds")


def read_memory(file: Path) -> FeedMemory:
    """Blocking. What a file remembers; nothing if it cannot be read, because only times are lost then."""
    try:
        return FeedMemory.parse(read_bounded(file, MAX_FEEDS_FILE))
    except ComityError:
        return FeedMemory(0, {})


def fair(entries: list[FeedEntry]) -> list[FeedEntry]:
    """At most `MAX_ENTRIES`, each statement once, in their order."""
    ordered = sorted(entries, key=lambda entry: entry.number)
    said = [Said(Digest(entry.author), entry.statement, entry.what.vkey, entry) for entry in ordered]
    return [each.item for each in newest(said, lambda each: each.item.group, MAX_ENTRIES)]


def feed_answer(request: Request, document: str) -> Response:
    """The document, or that the reader has it already."""
    body = document.encode()
    tag = f'"{sha256(body)[:32]}"'
    headers = {**HEADERS, "ETag": tag, "Vary": "Authorization, Cookie"}
    if tag in request.headers.get("if-none-match", ""):
        return Response(None, 304, headers)
    return Response(body, media_type="application/atom+xml", headers=headers)


def atom(kind: FeedKind, node: str, endpoint: str, entries: Sequence[FeedEntry]) -> str:
    """The document. `entries`: the newest first."""
    newest = max((entry.seen for entry in entries), default=0)
    address = f"{endpoint}{PREFIX}/feeds/{kind}.atom"
    return feed_document(kind, TITLES[kind], address, node, newest, (_entry(kind, endpoint, each) for each in entries))


def feed_document(name: str, title: str, address: str, node: str, newest: int, entries: Iterable[str]) -> str:
    """A feed of entries (`feed_entry`). `name` is the same for the same feed of a node; `newest` in POSIX seconds."""
    lines = [
        '<?xml version="1.0" encoding="utf-8"?>',
        '<feed xmlns="http://www.w3.org/2005/Atom" xml:lang="en">',
        f"<id>{_text(f'tag:comity.dev,2026:feed:{name}:{node}')}</id>",
        f"<title>{_text(f'{title} – {node}')}</title>",
        f"<updated>{_time(newest)}</updated>",
        f'<link rel="self" href={quoteattr(address)}/>',
        f"<author><name>{_text(node)}</name></author>",
        *entries,
        "</feed>",
    ]
    return "\n".join(lines) + "\n"


def _entry(kind: FeedKind, endpoint: str, entry: FeedEntry) -> str:
    what = entry.what
    title = what.subject if kind == "versions" else f"Warning about {what.subject}"
    said = f"Claimed by {what.by}, in {what.origin} as entry {what.index}."
    return feed_entry(entry.statement, title, entry.seen, endpoint, what, f"{entry.text} {said}".strip())


def feed_entry(name: str, title: str, time: int, endpoint: str, what: RecentEntry, summary: str) -> str:
    """An entry about a statement. `name` is the same for the same entry at every node; `time` in POSIX seconds."""
    link = f"<link href={quoteattr(shown_text(endpoint + what.page))}/>" if what.page else ""
    return (
        f"<entry><id>tag:comity.dev,2026:statement:{name}</id><title>{_text(title)}</title>"
        f"<updated>{_time(time)}</updated>{link}<author><name>{_text(what.by or 'unknown')}</name></author>"
        f"<summary>{_text(summary)}</summary></entry>"
    )


def _text(value: str) -> str:
    return escape(shown_text(value))


def _time(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
